// The hooks of no mod at all, so that a template compiles and runs as it stands. A prologue that brings hooks of its own
// defines FJ_HAS_SCORE and its kin.
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

// Something may be hidden, or dropped.
#define FJ_MASKED (FJ_HAS_MASK || FJ_BLOCK_MASK || FJ_PAGED || FJ_DROPOUT)

// The mods of the output and of the sink. Hooks that set one to 1 bring its functions (hooks.md).
#ifndef FJ_HAS_SINK
#define FJ_HAS_SINK 0
#endif
#ifndef FJ_HAS_OUT
#define FJ_HAS_OUT 0
#endif
#if !FJ_HAS_SINK
#define FJ_HAS_SINK_FAULT 0
#define FJ_HAS_SINK_GRADS 0
#endif
#if !FJ_HAS_OUT
#define FJ_HAS_OUT_FAULT 0
#define FJ_HAS_OUT_GRADS 0
#endif

// Gradients of captures and scalars are summed, by whichever of the mods.
#define FJ_ANY_GRADS (FJ_HAS_CAPTURE_GRADS || FJ_HAS_OUT_GRADS || FJ_HAS_SINK_GRADS)
