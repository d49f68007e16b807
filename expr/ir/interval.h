/* Private to expr/: how the interval analysis treats a node, for the analyser and the emitter. */
#ifndef FJ_EXPR_IR_INTERVAL_H
#define FJ_EXPR_IR_INTERVAL_H

#include "expr/ir/ir.h"

typedef enum fj_iv_kind {
    FJ_IV_UNKNOWN,    /* the whole type */
    FJ_IV_CALL,       /* fj_iv_<op>_<letter> */
    FJ_IV_INCREASING, /* fj_iv_increasing(a, f) */
    FJ_IV_CONSTANT,
    FJ_IV_POSITION, /* b h q kv */
    FJ_IV_SCALAR,
    FJ_IV_DIM,
    FJ_IV_LOOP,
    FJ_IV_REDUCE, /* fj_iv_reduce_any, fj_iv_reduce_all */
    FJ_IV_BODY,   /* the greatest or least: inside the body's interval, where the loop runs at all */
    FJ_IV_TABLE,  /* a read of a captured tensor, whose elements kernels of the cpu look at (block_load.h) */
} fj_iv_kind;

fj_iv_kind fj_iv_kind_of(const fj_ir *ir, fj_ref ref);
/* Per node: whether the mask's interval needs it (arena). */
const bool *fj_iv_needed(const fj_ir *ir);

/* What is made once for any number of blocks (the graph's arena): the mask is not 0. scalars, dims: as of fj_ir_classify. */
typedef struct fj_iv_analysis fj_iv_analysis;
fj_iv_analysis *fj_iv_prepare(const fj_ir *ir, const fj_scalar *scalars, const int64_t *dims);
fj_block_class fj_iv_classify(fj_iv_analysis *an, const fj_block *block);

#endif
