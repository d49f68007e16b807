/* Attention by its definition, in double, one row at a time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern.h"

typedef struct row {
    const kern_shape *shape;
    const kern_mod *mod;
    int64_t h, q;
    const double *query, *key, *value; /* the row; all of its key head */
    double *scores, *modified;         /* -inf where masked */
    double max, sum;
} row;

/* In four sums, which the processor has in flight at once. */
static double dot(const double *a, const double *b, int n) {
    double sums[4] = {0};
    int i = 0;
    for (; i + 4 <= n; i += 4)
        for (int j = 0; j < 4; j++) sums[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sums[0] += a[i] * b[i];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

static void add_scaled(double *restrict to, const double *restrict x, double factor, int n) {
    for (int i = 0; i < n; i++) to[i] += factor * x[i];
}

static bool is_live(const kern_mod *mod, int64_t q, int64_t kv) { return !mod->mask || mod->mask(q, kv); }

static void open_row(row *r, const kern_captures *captures, double scale, const kern_data *data, int64_t b,
                     int64_t h, int64_t q) {
    const kern_shape *s = r->shape;
    int64_t hkv = h / (s->heads_q / s->heads_kv), keys = (b * s->heads_kv + hkv) * s->kv_len;
    r->h = h, r->q = q;
    r->query = data->query + ((b * s->heads_q + h) * s->q_len + q) * s->head_dim;
    r->key = data->key + keys * s->head_dim;
    r->value = data->value + keys * s->value_dim;
    r->max = -HUGE_VAL, r->sum = 0;
    for (int64_t kv = 0; kv < s->kv_len; kv++) {
        double x = scale * dot(r->query, r->key + kv * s->head_dim, s->head_dim);
        r->scores[kv] = x;
        if (r->mod->score) x = r->mod->score(captures, h, q, kv, x);
        r->modified[kv] = is_live(r->mod, q, kv) ? x : -HUGE_VAL;
        if (r->modified[kv] > r->max) r->max = r->modified[kv];
    }
    for (int64_t kv = 0; kv < s->kv_len; kv++)
        if (r->max > -HUGE_VAL) r->sum += exp(r->modified[kv] - r->max);
}

static double probability(const row *r, int64_t kv) {
    return r->sum > 0 ? exp(r->modified[kv] - r->max) / r->sum : 0;
}

void kern_reference_forward(const kern_shape *s, const kern_mod *mod, const kern_captures *captures,
                            double scale, const kern_data *data) {
    row r = {.shape = s, .mod = mod, .scores = calloc((size_t)s->kv_len + 1, sizeof(double))};
    r.modified = calloc((size_t)s->kv_len + 1, sizeof(double));
    for (int64_t n = 0; n < s->batch * s->heads_q * s->q_len; n++) {
        double *out = data->out + n * s->value_dim;
        open_row(&r, captures, scale, data, n / s->q_len / s->heads_q, n / s->q_len % s->heads_q,
                 n % s->q_len);
        memset(out, 0, sizeof(double) * (size_t)s->value_dim);
        for (int64_t kv = 0; kv < s->kv_len; kv++) {
            double p = probability(&r, kv);
            if (p > 0) add_scaled(out, r.value + kv * s->value_dim, p, s->value_dim);
        }
        data->lse[n] = r.sum > 0 ? r.max + log(r.sum) : -HUGE_VAL;
        data->log_sum[n] = r.sum > 0 ? log(r.sum) : 0;
        data->max[n] = r.max;
    }
    free(r.scores);
    free(r.modified);
}

void kern_reference_backward(const kern_shape *s, const kern_mod *mod, kern_captures *captures, double scale,
                             const kern_data *data) {
    row r = {.shape = s, .mod = mod, .scores = calloc((size_t)s->kv_len + 1, sizeof(double))};
    r.modified = calloc((size_t)s->kv_len + 1, sizeof(double));
    for (int64_t n = 0; n < s->batch * s->heads_q * s->q_len; n++) {
        int64_t b = n / s->q_len / s->heads_q, h = n / s->q_len % s->heads_q;
        open_row(&r, captures, scale, data, b, h, n % s->q_len);
        const double *dout = data->dout + n * s->value_dim;
        double delta = dot(data->out + n * s->value_dim, dout, s->value_dim) - data->dlse[n];
        double *dquery = data->dquery + n * s->head_dim;
        double *dkey = data->dkey + (r.key - data->key), *dvalue = data->dvalue + (r.value - data->value);
        for (int64_t kv = 0; kv < s->kv_len; kv++) {
            if (!is_live(mod, r.q, kv)) continue;
            double p = probability(&r, kv);
            double ds = p * (dot(dout, r.value + kv * s->value_dim, s->value_dim) - delta);
            if (mod->grad) ds = mod->grad(captures, h, r.q, kv, r.scores[kv], ds);
            add_scaled(dvalue + kv * s->value_dim, dout, p, s->value_dim);
            add_scaled(dquery, r.key + kv * s->head_dim, scale * ds, s->head_dim);
            add_scaled(dkey + kv * s->head_dim, r.query, scale * ds, s->head_dim);
        }
    }
    free(r.scores);
    free(r.modified);
}
