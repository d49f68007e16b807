/* The kernel tests: mods in two forms, and the definition of attention that kernels are held against. */
#ifndef FJ_TESTS_KERN_KERN_H
#define FJ_TESTS_KERN_KERN_H

#include <stdbool.h>
#include <stdint.h>

#include "templates/cpu/abi.h"

#define KERN_MAX_CAPTURES 2

typedef struct kern_shape {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    int head_dim, value_dim;
} kern_shape;

/* Captures as the reference sees them: packed doubles. */
typedef struct kern_captures {
    int64_t dims[KERN_MAX_CAPTURES][3];
    double *values[KERN_MAX_CAPTURES], *gradients[KERN_MAX_CAPTURES];
    double *sizes[KERN_MAX_CAPTURES]; /* sums of the magnitudes of what gradients are sums of */
    double scalar, dscalar, scalar_size;
} kern_captures;

/* A mod: its hooks as the emitter would write them, and the same in C. Functions may be NULL. */
typedef struct kern_mod {
    const char *name, *hooks, *backward_hooks; /* hooks NULL: those of templates/cpu/identity.h */
    int capture_count, scalar_count;
    bool capture_is_score, scalar_is_score; /* to be as large as scores are */
    void (*capture_dims)(const kern_shape *shape, int capture, int64_t dims[3]);
    bool (*mask)(int64_t q, int64_t kv);
    double (*score)(const kern_captures *c, int64_t h, int64_t q, int64_t kv, double score);
    /* d loss / d score; adds to the gradients. */
    double (*grad)(kern_captures *c, int64_t h, int64_t q, int64_t kv, double score, double adjoint);
} kern_mod;

extern const kern_mod kern_mods[];
extern const int kern_mod_count;

/* Everything in double and packed; out, lse = max + log_sum (and the rest of backward) are made. */
typedef struct kern_data {
    double *query, *key, *value, *out, *lse, *log_sum, *max, *dout, *dlse, *dquery, *dkey, *dvalue;
} kern_data;

void kern_reference_forward(const kern_shape *shape, const kern_mod *mod, const kern_captures *captures,
                            double scale, const kern_data *data);
void kern_reference_backward(const kern_shape *shape, const kern_mod *mod, kern_captures *captures,
                             double scale, const kern_data *data);

#endif
