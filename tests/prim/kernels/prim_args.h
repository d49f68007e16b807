// The arguments of every conformance kernel. in and out: words, as many as the table of the tests says.
#ifndef FJ_TESTS_PRIM_ARGS_H
#define FJ_TESTS_PRIM_ARGS_H

#include "prim.h"

struct prim_args {
    const uint32_t *in;
    uint32_t *out;
};

// Inputs and outputs of one lane: `count` words in a row.
FJ_DEVICE const uint32_t *prim_in(const prim_args &args, uint32_t count) {
    return args.in + fj_thread_x() * count;
}
FJ_DEVICE uint32_t *prim_out(const prim_args &args, uint32_t count) {
    return args.out + fj_thread_x() * count;
}
FJ_DEVICE float prim_float(uint32_t bits) { return fj_f32_from_bits(bits); }

#endif
