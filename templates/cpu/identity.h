/* The hooks of no mod at all, so that a template compiles and runs as it stands. A prologue that
 * brings hooks of its own defines FJ_HAS_SCORE and its kin. At the end, what follows from either. */
#ifndef FJ_HAS_SCORE

#define FJ_HAS_SCORE 0
#define FJ_HAS_MASK 0
#define FJ_HAS_FAULT 0
#define FJ_HAS_CAPTURE_GRADS 0
#define FJ_HEAD_EMPTY 1
#define FJ_ROW_EMPTY 1
#define FJ_COL_EMPTY 1
#define FJ_CAPTURES 0
#define FJ_SCALARS 0
#define FJ_CAPTURE_GRAD_AXES \
    { -1 }

struct fj_head_state {
    char none;
};
struct fj_row_state {
    char none;
};
struct fj_col_state {
    char none;
};

#endif

#ifndef FJ_MASK_AXES
#define FJ_MASK_AXES 15 /* any */
#endif

#ifndef FJ_BLOCK_MASK
#define FJ_BLOCK_MASK 0 /* the caller hands in a block mask (block_mask.h) */
#endif
#ifndef FJ_PAGED
#define FJ_PAGED 0 /* keys and values are in pages, some of which may not be there (forward) */
#endif
#ifndef FJ_DROPOUT
#define FJ_DROPOUT 0 /* the caller hands in a key and a threshold (dropout.h) */
#endif

/* Mods of the output and of the sink: hooks that bring them say so. FJ_HAS_ANY_GRADS: some mod adds to gradients of captures. */
#ifndef FJ_HAS_OUT
#define FJ_HAS_OUT 0
#endif
#if !FJ_HAS_OUT
#define FJ_HAS_OUT_FAULT 0
#define FJ_HAS_OUT_GRADS 0
#endif
#ifndef FJ_HAS_SINK
#define FJ_HAS_SINK 0
#endif
#if !FJ_HAS_SINK
#define FJ_HAS_SINK_FAULT 0
#define FJ_HAS_SINK_GRADS 0
#endif
#define FJ_HAS_ANY_GRADS (FJ_HAS_CAPTURE_GRADS || FJ_HAS_OUT_GRADS || FJ_HAS_SINK_GRADS)

#define FJ_MASKED (FJ_HAS_MASK || FJ_BLOCK_MASK || FJ_PAGED) /* something may be hidden */
