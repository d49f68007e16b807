/* Products of matrices by the C interface of a BLAS, opened at run time: a library linked with OpenBLAS would start its threads
 * in every process, also in those that have no layers.
 *
 * Each product runs on the thread that calls it: the rooms above divide work among threads.
 */
#ifndef FJ_NN_BLAS_H
#define FJ_NN_BLAS_H

#include "base/base.h"

/* Opens the library, once for the process. FJ_ERR_UNSUPPORTED says what was looked for. Any thread. */
fj_status fj_nn_blas_open(fj_error *error);

/* Products run between the two. While anyone is inside, OpenBLAS has one thread. Any thread. */
void fj_nn_blas_enter(void);
void fj_nn_blas_leave(void);

/* C [m,n] = op(A) op(B), or with add what C holds plus that; rows are ld elements apart. op(A) [m,k]: A transposed where trans_a.
 * Extents are below 2^31; any may be 0. */
typedef struct fj_nn_product {
    bool trans_a, trans_b, add;
    int64_t m, n, k;
    const void *a, *b;
    void *c;
    int64_t ld_a, ld_b, ld_c;
} fj_nn_product;
void fj_nn_multiply(fj_dtype dtype, const fj_nn_product *product);

#endif
