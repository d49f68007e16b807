/* What layers do to rows of features beside products: a table of functions for each dtype and instruction set.
 *
 * Rows are `width` elements, `ld` elements apart. Sums are taken in an order that the instruction set fixes.
 */
#ifndef FJ_NN_ROWS_H
#define FJ_NN_ROWS_H

#include "base/base.h"
#include "base/philox.h"

/* What drops elements of a layer: those at (row, column) of its words (base/philox.h) that are below the threshold. The others
 * are multiplied by scale. */
typedef struct fj_nn_drop {
    fj_philox_key key;
    uint64_t threshold; /* 0: nothing is dropped */
    double scale;
} fj_nn_drop;

/* scale is 0 where all is dropped. */
static inline fj_nn_drop fj_nn_drop_of(double dropout, uint64_t seed, uint64_t offset) {
    return (fj_nn_drop){fj_dropout_key(seed, offset), fj_dropout_threshold(dropout),
                        dropout < 1 ? 1 / (1 - dropout) : 0};
}

typedef struct fj_nn_rows {
    /* to = bias + add, each of which may be NULL. */
    void (*fill)(void *to, int64_t ld, int64_t rows, int64_t width, const void *bias, const void *add,
                 int64_t ld_add);
    /* y = (x - mean) * rstd * weight + bias; stats [rows,2], where not NULL, gets mean and rstd. y may be x. */
    void (*norm)(void *y, const void *x, int64_t rows, int64_t width, const void *weight, const void *bias,
                 double eps, void *stats);
    /* dx = add + the gradient of x by that of y, add may be NULL. dweight and dbias [width] are added to. dx may be dy. */
    void (*norm_backward)(void *dx, const void *dy, const void *x, const void *stats, int64_t rows,
                          int64_t width, const void *weight, const void *add, void *dweight, void *dbias);
    /* h = activation of h; slope, where not NULL, gets the derivative. */
    void (*relu)(void *h, void *slope, int64_t count);
    void (*gelu)(void *h, void *slope, int64_t count);
    /* a *= b */
    void (*multiply)(void *a, const void *b, int64_t count);
    /* to [width] += the sum over the rows. */
    void (*sum)(void *to, const void *x, int64_t ld, int64_t rows, int64_t width);
    /* x = x where it is kept, times scale, else 0; `also`, where not NULL, likewise. Rows are counted from `first`. */
    void (*drop)(void *x, void *also, int64_t first, int64_t rows, int64_t width, const fj_nn_drop *drop);
} fj_nn_rows;

/* Those of this machine's instruction set. FJ_DTYPE_F32 or FJ_DTYPE_F64. */
const fj_nn_rows *fj_nn_rows_of(fj_dtype dtype);

#endif
