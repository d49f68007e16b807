// One case at one query, as test_ops.c asks for it; C and CUDA C++.
#ifndef FJ_TESTS_OPS_CALL_H
#define FJ_TESTS_OPS_CALL_H

struct ops_call {
    const double *score, *adjoint; // of every position
    const uint8_t *live;
    double *out, *dout;
    uint8_t *fault;
    // Gradients of the capture `summed` and of scalar 0: doubles, on cuda words of 8 bytes that hold a real.
    void *sums, *scalar_sums;
    int32_t number, query, positions, summed;
};

#endif
