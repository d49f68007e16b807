/* How a call runs: its threads, blocks of rows, and memory; and products of all rows with weights.
 *
 * Rows are the tokens of a call, in the order in which they lie in memory. Work is divided into blocks of rows, so that what
 * follows a product (bias, activation, residual, norm) finds the product's rows in the cache.
 */
#ifndef FJ_NN_RUN_H
#define FJ_NN_RUN_H

#include "nn/blas.h"
#include "nn/rows.h"

/* ---- Memory ---------------------------------------------------------------------------------------------- */

/* Takes pieces of 256-byte alignment; base NULL: only counts. */
typedef struct fj_nn_cursor {
    char *base;
    size_t used;
    bool overflow; /* more than memory can have */
} fj_nn_cursor;

/* rows * width elements of a size. NULL where the cursor only counts. */
void *fj_nn_take(fj_nn_cursor *cursor, int64_t rows, int64_t width, size_t size);

/* ---- Threads --------------------------------------------------------------------------------------------- */

typedef struct fj_nn_run {
    fj_dtype dtype;
    size_t size; /* of an element */
    const fj_nn_rows *rows;
    fj_launch launch;
    int workers;
} fj_nn_run;

/* Reads the descriptor, which may be NULL. FJ_ERR_ARGUMENT. */
fj_status fj_nn_run_begin(fj_dtype dtype, const fj_launch *launch, fj_nn_run *ret_run, fj_error *error);

static inline char *fj_nn_at(const fj_nn_run *run, const void *base, int64_t index) {
    return (char *)(uintptr_t)base + (size_t)index * run->size;
}

/* Some rows, of those of a block. */
typedef struct fj_nn_block {
    int64_t first, count, index;
    int worker;
} fj_nn_block;

/* Rows of a block, and how many blocks there are. */
int64_t fj_nn_block_rows(const fj_nn_run *run, int64_t rows);
int64_t fj_nn_block_count(const fj_nn_run *run, int64_t rows);
/* Runs fn for all blocks on the threads. */
void fj_nn_for_blocks(const fj_nn_run *run, int64_t rows,
                      void (*fn)(const fj_nn_run *run, void *arg, fj_nn_block block), void *arg);

/* ---- Products with weights --------------------------------------------------------------------------------- */

/* y [rows,out] = x [rows,in] weight^T + bias (+ add), for some rows, the first of which x, y and add point to. */
typedef struct fj_nn_affine {
    const void *x, *weight, *bias, *add; /* bias, add: NULL: none. weight [out,in] */
    void *y;
    int64_t ld_x, ld_y, ld_add, in, out;
} fj_nn_affine;
void fj_nn_apply(const fj_nn_run *run, const fj_nn_affine *affine, int64_t rows);

/* dx [rows,in] = dy [rows,out] weight, added to dx where `add`, for the rows of a block. Pointers are to row 0 of all. */
typedef struct fj_nn_transpose {
    const void *dy, *weight;
    void *dx;
    int64_t ld_dy, ld_dx, in, out;
    bool add;
} fj_nn_transpose;
void fj_nn_apply_transpose(const fj_nn_run *run, const fj_nn_transpose *transpose, fj_nn_block block);

/* Gradients of weights, dweight [out,in] = dy^T x over all rows. */
typedef struct fj_nn_outer {
    const void *dy, *x;
    void *dweight; /* NULL: not wanted */
    int64_t ld_dy, ld_x, in, out, rows;
} fj_nn_outer;
void fj_nn_run_outer(const fj_nn_run *run, const fj_nn_outer *outers, int count);

/* ---- Sums over rows ------------------------------------------------------------------------------------------ */

/* Of `width` features: a partial sum for each block, then their sum, in the order of blocks. */
typedef struct fj_nn_sums {
    void *partial; /* [blocks,width] */
    int64_t width;
} fj_nn_sums;
fj_nn_sums fj_nn_take_sums(const fj_nn_run *run, fj_nn_cursor *cursor, int64_t rows, int64_t width);
/* The block's partial sum, cleared. */
void *fj_nn_clear_sum(const fj_nn_run *run, const fj_nn_sums *sums, fj_nn_block block);
/* Sum of the rows of a block into its partial sum. */
void fj_nn_sum_rows(const fj_nn_run *run, const fj_nn_sums *sums, const void *x, int64_t ld,
                    fj_nn_block block);
/* to [count] = columns from `first` on, of all blocks; to NULL: nothing. */
void fj_nn_finish_sums(const fj_nn_run *run, const fj_nn_sums *sums, int64_t rows, int64_t first,
                       int64_t count, void *to);

#endif
