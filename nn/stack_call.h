/* A call of a stack while it runs: between stack.c, which reads it, and stack_run.c. */
#ifndef FJ_NN_STACK_CALL_H
#define FJ_NN_STACK_CALL_H

#include "nn/stack.h"

typedef struct fj_nn_stack_state {
    const fj_nn_stack *stack;
    const fj_nn_stack_call *call;
    fj_nn_run run;
    fj_nn_tokens src, memory;
    int64_t rows;      /* of src, or packed */
    const int32_t *cu; /* packed, where not NULL */
    bool training;
} fj_nn_stack_state;

/* Checks all of a call but its memory. */
fj_status fj_nn_stack_read(const fj_nn_stack *stack, const fj_nn_stack_call *call, const fj_launch *launch,
                           bool sizing, fj_direction direction, fj_nn_stack_state *ret_state,
                           fj_error *error);

#endif
