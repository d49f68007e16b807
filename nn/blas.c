/* The BLAS: finding it, and keeping it to one thread. */
#include "nn/blas.h"

#include <dlfcn.h>
#include <omp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The C interface with its constants, integers being ints. */
enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);
typedef void dgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double *a,
                      int lda, const double *b, int ldb, double beta, double *c, int ldc);

/* openblas_get_parallel: what threads OpenBLAS is built with. */
enum { OPENBLAS_PTHREADS = 1, OPENBLAS_OPENMP = 2 };

static struct {
    sgemm_fn *sgemm;
    dgemm_fn *dgemm;
    void (*set_threads)(int); /* these two of OpenBLAS alone */
    int (*get_threads)(void);
    int parallel;
    char reason[400]; /* why there is none */
} blas;

/* ---- Finding it ------------------------------------------------------------------------------------------ */

/* A function's address is no object's in ISO C, but is in POSIX. */
static void find(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    memcpy(to, &symbol, sizeof symbol);
}

static bool take(void *library) {
    int (*get_parallel)(void) = NULL;
    find(library, "cblas_sgemm", &blas.sgemm);
    find(library, "cblas_dgemm", &blas.dgemm);
    find(library, "openblas_get_parallel", &get_parallel);
    find(library, "openblas_set_num_threads", &blas.set_threads);
    find(library, "openblas_get_num_threads", &blas.get_threads);
    if (get_parallel && blas.set_threads && blas.get_threads) blas.parallel = get_parallel();
    return blas.sgemm && blas.dgemm;
}

static void open_once(void) {
    const char *named = getenv("FLEXJIT_BLAS");
    const char *const usual[] = {"libopenblas.so.0", "libopenblas.so", "libblas.so.3"};
    const bool is_named = named && *named;
    for (size_t i = 0; i < (is_named ? 1 : FJ_ARRAY_LEN(usual)); i++) {
        void *library = dlopen(is_named ? named : usual[i], RTLD_NOW | RTLD_LOCAL);
        if (library && take(library)) return;
        if (library) (void)dlclose(library);
    }
    memset(&blas, 0, sizeof blas);
    (void)snprintf(
        blas.reason, sizeof blas.reason,
        is_named
            ? "layers need a BLAS with a C interface (cblas_sgemm); FLEXJIT_BLAS is %.300s, which is none"
            : "layers need a BLAS with a C interface (cblas_sgemm), and %sis found: install "
              "OpenBLAS (Debian: libopenblas0-pthread), or set FLEXJIT_BLAS to a library",
        is_named ? named : "neither libopenblas.so.0 nor libblas.so.3 ");
}

static pthread_once_t opened = PTHREAD_ONCE_INIT;

fj_status fj_nn_blas_open(fj_error *error) {
    (void)pthread_once(&opened, open_once);
    return blas.sgemm ? FJ_OK : fj_error_set(error, FJ_ERR_UNSUPPORTED, "%s", blas.reason);
}

/* ---- One thread ------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int inside, before;

void fj_nn_blas_enter(void) {
    if (blas.parallel != OPENBLAS_PTHREADS) return;
    (void)pthread_mutex_lock(&lock);
    if (inside++ == 0) {
        before = blas.get_threads();
        if (before != 1) blas.set_threads(1);
    }
    (void)pthread_mutex_unlock(&lock);
}

void fj_nn_blas_leave(void) {
    if (blas.parallel != OPENBLAS_PTHREADS) return;
    (void)pthread_mutex_lock(&lock);
    if (--inside == 0 && before != 1) blas.set_threads(before);
    (void)pthread_mutex_unlock(&lock);
}

/* ---- Products ---------------------------------------------------------------------------------------------- */

static void multiply(fj_dtype dtype, const fj_nn_product *p) {
    const int ta = p->trans_a ? TRANSPOSED : PLAIN, tb = p->trans_b ? TRANSPOSED : PLAIN;
    const int m = (int)p->m, n = (int)p->n, k = (int)p->k;
    const int lda = (int)p->ld_a, ldb = (int)p->ld_b, ldc = (int)p->ld_c;
    if (dtype == FJ_DTYPE_F64)
        blas.dgemm(ROW_MAJOR, ta, tb, m, n, k, 1, p->a, lda, p->b, ldb, p->add, p->c, ldc);
    else
        blas.sgemm(ROW_MAJOR, ta, tb, m, n, k, 1, p->a, lda, p->b, ldb, p->add, p->c, ldc);
}

void fj_nn_multiply(fj_dtype dtype, const fj_nn_product *p) {
    if (p->m == 0 || p->n == 0) return;
    if (p->k == 0) {
        const size_t size = fj_dtype_size(dtype);
        for (int64_t row = 0; row < p->m && !p->add; row++)
            memset((char *)p->c + (size_t)(row * p->ld_c) * size, 0, (size_t)p->n * size);
        return;
    }
    /* OpenBLAS on OpenMP has one thread inside of a parallel region; on other threads it asks OpenMP how many. */
    const int threads = omp_get_max_threads();
    const bool bound = blas.parallel == OPENBLAS_OPENMP && threads != 1;
    if (bound) omp_set_num_threads(1);
    multiply(dtype, p);
    if (bound) omp_set_num_threads(threads);
}
