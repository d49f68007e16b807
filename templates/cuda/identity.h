// The hooks of no mod at all, so that a template compiles and runs as it stands, and the seams that no
// prologue fills yet. A prologue that brings hooks of its own defines FJ_HAS_SCORE and its kin.
#include "hooks.h"

#ifndef FJ_HAS_SCORE

#define FJ_HAS_SCORE 0
#define FJ_HAS_MASK 0
#define FJ_HAS_FAULT 0
#define FJ_FAULT_READS_SCORE 0
#define FJ_HAS_CAPTURE_GRADS 0
#define FJ_HEAD_EMPTY 1
#define FJ_ROW_EMPTY 1
#define FJ_COL_EMPTY 1
#define FJ_CAPTURES 0
#define FJ_SCALARS 0

struct fj_head_state {
    char none;
};
struct fj_row_state {
    char none;
};
struct fj_col_state {
    char none;
};
FJ_DEVICE void fj_head_init(const fj_mod_args *, int32_t, int32_t, struct fj_head_state *) {}
FJ_DEVICE void fj_row_init(const fj_mod_args *, const struct fj_head_state *, int32_t,
                           struct fj_row_state *) {}
FJ_DEVICE void fj_col_init(const fj_mod_args *, const struct fj_head_state *, fj_i, struct fj_col_state *) {}
FJ_DEVICE fj_f fj_score(const fj_mod_args *, const struct fj_head_state *, const struct fj_row_state *,
                        const struct fj_col_state *, fj_f score) {
    return score;
}
FJ_DEVICE fj_b fj_mask(const fj_mod_args *, const struct fj_head_state *, const struct fj_row_state *,
                       const struct fj_col_state *) {
    return true;
}
FJ_DEVICE fj_b fj_fault(const fj_mod_args *, const struct fj_head_state *, const struct fj_row_state *,
                        const struct fj_col_state *, fj_f, fj_b) {
    return false;
}

#endif

#define FJ_MASKED (FJ_HAS_MASK || FJ_BLOCK_MASK || FJ_PAGED) // something may be hidden

// Seams. Hooks that set one to 1 bring the function.
//   fj_f fj_prob(a, head, row, col, p)      the probability that multiplies V; sums take p itself
//   fj_f fj_sink(a, head)                   a logit (natural) that joins the denominator once
//   fj_f fj_out(a, head, row, column, x)    an element of the output, before it is rounded
#ifndef FJ_HAS_PROB
#define FJ_HAS_PROB 0
#endif
#ifndef FJ_HAS_SINK
#define FJ_HAS_SINK 0
#endif
#ifndef FJ_HAS_OUT
#define FJ_HAS_OUT 0
#endif
