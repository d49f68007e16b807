/* Calls of fj_sdpa on small tensors of any layout, and the definition in double, forward and backward, to compare with. */
#ifndef FJ_TESTS_SDPA_CALLS_H
#define FJ_TESTS_SDPA_CALLS_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "flexjit/sdpa.h"
#include "tests/support/failing.h"

/* ---- Tensors: they live until the test's end ------------------------------------------------------------------ */

typedef struct tensor {
    DLTensor dl;
    fj_dtype dtype;
    int64_t shape[FJ_MAX_RANK], strides[FJ_MAX_RANK];
    struct tensor *next;
    char *memory;
} tensor;

static tensor *all_tensors;
#define DIMS(...) \
    (int)(sizeof(int64_t[]){__VA_ARGS__} / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }

static inline int64_t count_of(const tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->dl.ndim; i++) count *= t->shape[i];
    return count;
}

/* order: the dimensions from the slowest to the fastest in memory; NULL: as they stand. gap: what lies between elements. */
static inline tensor *lay_out(fj_dtype dtype, int rank, const int64_t *shape, const int *order, int gap) {
    tensor *t = calloc(1, sizeof *t);
    int64_t next = 1 + gap;
    t->dtype = dtype;
    memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    for (int i = rank - 1; i >= 0; i--) {
        const int axis = order ? order[i] : i;
        t->strides[axis] = next;
        next *= shape[axis] > 0 ? shape[axis] : 1;
    }
    t->memory = calloc((size_t)next + 1, fj_dtype_size(dtype));
    t->dl = (DLTensor){.data = t->memory,
                       .device = {kDLCPU, 0},
                       .ndim = rank,
                       .dtype = fj_dtype_to_dlpack(dtype),
                       .shape = t->shape,
                       .strides = t->strides};
    t->next = all_tensors;
    all_tensors = t;
    return t;
}
static inline tensor *make(fj_dtype dtype, int rank, const int64_t *shape) {
    return lay_out(dtype, rank, shape, NULL, 0);
}

static inline void free_tensors(void) {
    while (all_tensors) {
        tensor *t = all_tensors;
        all_tensors = t->next;
        free(t->memory);
        free(t);
    }
}

/* The i-th element in the order of a packed tensor. */
static inline int64_t place_of(const tensor *t, int64_t i) {
    int64_t at = 0;
    for (int axis = t->dl.ndim - 1; axis >= 0; axis--) {
        at += i % t->shape[axis] * t->strides[axis];
        i /= t->shape[axis];
    }
    return at;
}
static inline double get(const tensor *t, int64_t i) {
    return t->dtype == FJ_DTYPE_BOOL ? t->memory[place_of(t, i)]
                                     : fj_dtype_load_float(t->dtype, t->memory, place_of(t, i));
}
static inline void put(tensor *t, int64_t i, double value) {
    if (t->dtype == FJ_DTYPE_BOOL)
        t->memory[place_of(t, i)] = value != 0;
    else
        fj_dtype_store_float(t->dtype, t->memory, place_of(t, i), value);
}

/* Numbers that are the same for the same seed, whatever the layout. */
static inline tensor *fill(tensor *t, double seed) {
    for (int64_t i = 0; i < count_of(t); i++)
        put(t, i,
            t->dtype == FJ_DTYPE_BOOL ? fabs(sin(seed + (double)i * 2.3)) > 0.3
                                      : sin(seed + (double)i * 1.7) * 1.5);
    return t;
}
static inline tensor *waves(double seed, fj_dtype dtype, int rank, const int64_t *shape) {
    return fill(make(dtype, rank, shape), seed);
}

/* ---- Calls ------------------------------------------------------------------------------------------------------ */

typedef struct call {
    tensor *q, *k, *v, *mask, *out, *lse, *dout, *dq, *dk, *dv, *dmask, *cu_q, *cu_kv;
    fj_sdpa_causal causal;
    const double *scale;
    double dropout;
    uint64_t seed;
    unsigned backends;
} call;

static inline const DLTensor *dl(const tensor *t) { return t ? &t->dl : NULL; }

static inline fj_sdpa_args args_of(const call *c) {
    return (fj_sdpa_args){
        .struct_size = sizeof(fj_sdpa_args),
        .query = dl(c->q),
        .key = dl(c->k),
        .value = dl(c->v),
        .mask = dl(c->mask),
        .out = dl(c->out),
        .lse = dl(c->lse),
        .dout = dl(c->dout),
        .dquery = dl(c->dq),
        .dkey = dl(c->dk),
        .dvalue = dl(c->dv),
        .dmask = dl(c->dmask),
        .cu_seqlens_q = dl(c->cu_q),
        .cu_seqlens_kv = dl(c->cu_kv),
        .causal = c->causal,
        .scale = c->scale,
        .dropout = c->dropout,
        .dropout_seed = c->seed,
        .backends = c->backends,
    };
}

/* ---- The definition --------------------------------------------------------------------------------------------- */

typedef struct sizes {
    int64_t b, h, l, s, e, ev;
} sizes;

/* The number of an element of a dense tensor: right-aligned, an extent of 1 stands for any, fewer heads for groups. */
static inline int64_t index_of(const tensor *t, const sizes *n, int64_t b, int64_t h, int64_t i, int64_t x) {
    const int64_t at[] = {b, h, i, x};
    int64_t index = 0;
    for (int axis = 0; axis < t->dl.ndim; axis++) {
        const int of = 4 - t->dl.ndim + axis;
        const int64_t extent = t->shape[axis];
        const int64_t one = of == 1 && extent < n->h ? at[1] * extent / n->h : at[of];
        index = index * extent + (extent == 1 ? 0 : one);
    }
    return index;
}

static inline int64_t extent_of(const tensor *t, int from_right) {
    return t->dl.ndim >= from_right ? t->shape[t->dl.ndim - from_right] : 1;
}
static inline sizes sizes_of(const call *c) {
    sizes n = {1, 1, extent_of(c->q, 2), extent_of(c->k, 2), extent_of(c->q, 1), extent_of(c->v, 1)};
    const tensor *of[] = {c->q, c->k, c->v};
    for (int i = 0; i < 3; i++) {
        if (extent_of(of[i], 4) != 1) n.b = extent_of(of[i], 4);
        if (extent_of(of[i], 3) > n.h) n.h = extent_of(of[i], 3);
    }
    return n;
}

static inline tensor *like(const tensor *t) { return t ? make(FJ_DTYPE_F64, t->dl.ndim, t->shape) : NULL; }

static inline void add(tensor *t, int64_t index, double value) { put(t, index, get(t, index) + value); }

/* Probabilities of a row; false: it is dead. */
static inline bool weigh(const call *c, const sizes *n, int64_t b, int64_t h, int64_t i, double *p) {
    const double scale = c->scale ? *c->scale : 1 / sqrt((double)n->e);
    double most = -(double)INFINITY, sum = 0;
    for (int64_t j = 0; j < n->s; j++) {
        double score = 0;
        for (int64_t e = 0; e < n->e; e++)
            score += get(c->q, index_of(c->q, n, b, h, i, e)) * get(c->k, index_of(c->k, n, b, h, j, e));
        score *= scale;
        const double mask = c->mask ? get(c->mask, index_of(c->mask, n, b, h, i, j)) : 0;
        const bool is_bool = c->mask && c->mask->dtype == FJ_DTYPE_BOOL;
        const int64_t last = c->causal == FJ_SDPA_UPPER_LEFT ? i : i + n->s - n->l;
        const bool hidden = (is_bool && mask == 0) || (c->causal != FJ_SDPA_NOT_CAUSAL && j > last);
        p[j] = hidden ? -(double)INFINITY : is_bool ? score : score + mask;
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < n->s; j++) sum += p[j] = most > -(double)INFINITY ? exp(p[j] - most) : 0;
    for (int64_t j = 0; j < n->s && sum > 0; j++) p[j] /= sum;
    return sum > 0;
}

/* out, and with dout the gradients, packed and in double, in ret's tensors. */
static inline void define(const call *c, call *ret) {
    const sizes n = sizes_of(c);
    tensor *keep = make(FJ_DTYPE_BOOL, DIMS(n.b, n.h, n.l, n.s));
    ck_assert(fj_dropout_mask(c->dropout, c->seed, 0, &keep->dl, NULL) == FJ_OK);
    *ret = (call){.out = make(FJ_DTYPE_F64, DIMS(n.b, n.h, n.l, n.ev)),
                  .dq = like(c->q),
                  .dk = like(c->k),
                  .dv = like(c->v),
                  .dmask = like(c->mask)};
    double *p = calloc((size_t)n.s + 1, sizeof *p), *dp = calloc((size_t)n.s + 1, sizeof *dp);
    const double factor = c->dropout < 1 ? 1 / (1 - c->dropout) : 0,
                 scale = c->scale ? *c->scale : 1 / sqrt((double)n.e);
    for (int64_t row = 0; row < n.b * n.h * n.l; row++) {
        const int64_t b = row / n.l / n.h, h = row / n.l % n.h, i = row % n.l;
        double delta = 0;
        if (!weigh(c, &n, b, h, i, p)) continue;
        for (int64_t j = 0; j < n.s; j++) {
            const double kept = get(keep, row * n.s + j) * factor;
            dp[j] = 0;
            for (int64_t e = 0; e < n.ev; e++) {
                const double value = get(c->v, index_of(c->v, &n, b, h, j, e));
                const double dout = c->dout ? get(c->dout, index_of(c->dout, &n, b, h, i, e)) : 0;
                add(ret->out, row * n.ev + e, p[j] * kept * value);
                add(ret->dv, index_of(c->v, &n, b, h, j, e), p[j] * kept * dout);
                dp[j] += dout * value * kept;
            }
            delta += p[j] * dp[j];
        }
        for (int64_t j = 0; j < n.s; j++) {
            const double ds = p[j] * (dp[j] - delta);
            if (ret->dmask) add(ret->dmask, index_of(c->mask, &n, b, h, i, j), ds);
            for (int64_t e = 0; e < n.e; e++) {
                const int64_t at_q = index_of(c->q, &n, b, h, i, e), at_k = index_of(c->k, &n, b, h, j, e);
                add(ret->dq, at_q, ds * scale * get(c->k, at_k));
                add(ret->dk, at_k, ds * scale * get(c->q, at_q));
            }
        }
    }
    free(p);
    free(dp);
}

static inline void check_near(const tensor *got, const tensor *want, const char *name, double bound) {
    ck_assert_int_eq(count_of(got), count_of(want));
    for (int64_t i = 0; i < count_of(got); i++) {
        const double x = get(got, i), y = get(want, i);
        ck_assert_msg(fabs(x - y) <= bound * (1 + fabs(y)), "%s[%lld]: %g, not %g", name, (long long)i, x, y);
    }
}

static inline double bound_of(fj_dtype dtype) {
    return dtype == FJ_DTYPE_F64 ? 1e-12 : dtype == FJ_DTYPE_F32 ? 1e-5 : dtype == FJ_DTYPE_F16 ? 5e-3 : 4e-2;
}

#endif
