#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern_cuda/bwd.h"

/* One row of queries: values for each key. */
typedef struct row {
    int64_t b, h, hk, q, at; /* at: of [B,Hq,L] */
    double *score, *after, *p, *ds, *mass, *mass_ds, lse, most;
    bool *live;
} row;

static double dot(const double *x, const double *y, int64_t n, double *size) {
    double sum = 0;
    *size = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i], *size += fabs(x[i] * y[i]);
    return sum;
}

static const double *of_row(const tensor *t, int64_t b, int64_t h, int64_t i) {
    return t->values + ((b * t->dims[1] + h) * t->dims[2] + i) * t->dims[3];
}

static void run_mod(const bwd_call *c, fj_eval *eval, const row *r, int64_t kv, int count,
                    const double *adjoint, double *after, bool *live, double *dscore,
                    const fj_eval_sinks *sinks) {
    const fj_eval_input input = {.captures = c->captures};
    const fj_eval_lanes lanes = {
        (int32_t)r->b, (int32_t)r->h, c->s->q_offset + (int32_t)r->q, c->s->kv_offset + (int32_t)kv, count,
        r->score + kv, adjoint,       dscore ? r->live + kv : NULL};
    fj_eval_run(eval, &input, &lanes, after, live, dscore, NULL, sinks);
}

static void make_probabilities(bwd_call *c, fj_eval *eval, row *r) {
    const int64_t n = c->s->kv_len;
    const fj_ir *ir = c->graphs->ir;
    double size, top = -(double)INFINITY, sum = 0;
    r->most = 1;
    for (int64_t kv = 0; kv < n; kv++) {
        r->score[kv] = c->s->scale * dot(of_row(&c->query, r->b, r->h, r->q),
                                         of_row(&c->key, r->b, r->hk, kv), c->query.dims[3], &size);
        r->after[kv] = r->score[kv];
        r->live[kv] = true;
        r->most = fmax(r->most, fabs(c->s->scale) * size);
    }
    for (int64_t kv = 0; kv < n; kv++)
        run_mod(c, eval, r, kv, 1, NULL, ir->score ? r->after + kv : NULL, ir->mask ? r->live + kv : NULL,
                NULL, NULL);
    for (int64_t kv = 0; kv < n; kv++)
        if (r->live[kv]) top = fmax(top, r->after[kv]);
    for (int64_t kv = 0; kv < n && top > -(double)INFINITY; kv++)
        if (r->live[kv]) sum += exp(r->after[kv] - top);
    r->lse = sum > 0 ? top + log(sum) : -(double)INFINITY;
    for (int64_t kv = 0; kv < n; kv++) r->p[kv] = r->live[kv] && sum > 0 ? exp(r->after[kv] - r->lse) : 0;
}

/* out and lse, as they are stored. */
static void forward_row(bwd_call *c, const row *r) {
    const int64_t v = c->value.dims[3];
    for (int64_t j = 0; j < v; j++) {
        double x = 0;
        for (int64_t kv = 0; kv < c->s->kv_len; kv++)
            if (r->p[kv] > 0) x += r->p[kv] * of_row(&c->value, r->b, r->hk, kv)[j];
        c->out.values[r->at * v + j] = fj_dtype_round(c->out.dtype, x);
    }
    c->lse.values[r->at] = r->lse;
}

/* What dP is measured from: of out as it is rounded, or of P where captures have gradients in 16 bits (FJ_MEASURES).
 * size: of what is summed. */
static double row_sum(const bwd_call *c, const row *r, const double *dout, double *size) {
    const int64_t v = c->value.dims[3];
    const bool half = c->query.dtype == FJ_DTYPE_F16 || c->query.dtype == FJ_DTYPE_BF16;
    double sum = 0, each;
    if (!half || c->graphs->gradient->scatters.len == 0)
        return dot(of_row(&c->out, r->b, r->h, r->q), dout, v, size);
    *size = 0;
    for (int64_t kv = 0; kv < c->s->kv_len; kv++) {
        if (!(r->p[kv] > 0)) continue;
        sum += r->p[kv] * dot(dout, of_row(&c->value, r->b, r->hk, kv), v, &each);
        *size += r->p[kv] * each;
    }
    return sum;
}

static void make_adjoints(bwd_call *c, fj_eval *eval, row *r) {
    const int64_t n = c->s->kv_len, v = c->value.dims[3];
    const double *dout = of_row(&c->dout, r->b, r->h, r->q);
    double delta_size, size;
    const double delta = row_sum(c, r, dout, &delta_size) - (c->with_dlse ? c->dlse.values[r->at] : 0);
    for (int64_t kv = 0; kv < n; kv++) {
        const double dp = dot(dout, of_row(&c->value, r->b, r->hk, kv), v, &size);
        r->ds[kv] = r->p[kv] * (dp - delta);
        r->mass[kv] = r->p[kv] * (size + delta_size + fabs(delta) + 1e-30);
        r->mass_ds[kv] = r->mass[kv];
    }
    if (!c->graphs->ir->score) return;
    double *arrays[MAX_CAPTURES + 1] = {0}, scalars[MAX_SCALARS] = {0};
    for (int i = 0; i < MAX_CAPTURES; i++) {
        arrays[i] = c->sinks[i].want;
        for (int64_t kv = 0; kv < n; kv++) c->sinks[i].mass += r->mass[kv];
    }
    for (int64_t kv = 0; kv < n; kv++) c->sinks[MAX_CAPTURES].mass += r->mass[kv] * 64;
    const fj_eval_sinks sinks = {arrays, scalars}, none = {(double * [MAX_CAPTURES + 1]){0}, NULL};
    for (int64_t kv = 0; kv < n; kv++) {
        const double adjoint = r->ds[kv], mass = r->mass[kv];
        run_mod(c, eval, r, kv, 1, &adjoint, NULL, NULL, r->ds + kv, &sinks);
        run_mod(c, eval, r, kv, 1, &mass, NULL, NULL, r->mass_ds + kv, &none);
        if (!r->live[kv]) r->ds[kv] = r->mass_ds[kv] = 0;
    }
    for (int i = 0; i < MAX_SCALARS; i++) c->sinks[MAX_CAPTURES + i].want[0] += scalars[i];
}

static void add_gradients(bwd_call *c, const row *r, double unit) {
    const double scale = c->s->scale;
    const int64_t e = c->query.dims[3], v = c->value.dims[3];
    for (int64_t kv = 0; kv < c->s->kv_len; kv++) {
        const int64_t key = (r->b * c->s->heads_kv + r->hk) * c->s->kv_len + kv;
        const double slack = 0x1p-18 * (4 + r->most),
                     off = unit * fabs(r->ds[kv]) + slack * fabs(r->mass_ds[kv]);
        const double *q = of_row(&c->query, r->b, r->h, r->q), *k = of_row(&c->key, r->b, r->hk, kv);
        const double *dout = of_row(&c->dout, r->b, r->h, r->q);
        for (int64_t i = 0; i < e; i++) {
            c->want[0][r->at * e + i] += scale * r->ds[kv] * k[i];
            c->bound[0][r->at * e + i] += fabs(scale * k[i]) * off;
            c->want[1][key * e + i] += scale * r->ds[kv] * q[i];
            c->bound[1][key * e + i] += fabs(scale * q[i]) * off;
        }
        for (int64_t i = 0; i < v; i++) {
            c->want[2][key * v + i] += r->p[kv] * dout[i];
            c->bound[2][key * v + i] += (unit + slack) * r->p[kv] * fabs(dout[i]);
        }
    }
}

static void run_body(fj_scope *scope, void *argument) {
    bwd_call *c = argument;
    const shape *s = c->s;
    const fj_dtype dtype = c->query.dtype;
    const double unit = dtype == FJ_DTYPE_BF16 ? 0x1p-8 : dtype == FJ_DTYPE_F16 ? 0x1p-11 : 0x1p-24;
    fj_eval *eval = fj_eval_create(scope->arena, c->graphs->gradient);
    row r = {0};
    double **arrays[] = {&r.score, &r.after, &r.p, &r.ds, &r.mass, &r.mass_ds};
    for (int i = 0; i < 6; i++) *arrays[i] = FJ_NEW_ARRAY(scope->arena, double, s->kv_len + 1);
    r.live = FJ_NEW_ARRAY(scope->arena, bool, s->kv_len + 1);
    for (r.at = 0; r.at < s->batch * s->heads_q * s->q_len; r.at++) {
        r.q = r.at % s->q_len, r.h = r.at / s->q_len % s->heads_q, r.b = r.at / s->q_len / s->heads_q;
        r.hk = r.h / (s->heads_q / s->heads_kv);
        make_probabilities(c, eval, &r);
        forward_row(c, &r);
        memcpy(c->visible + r.at * s->kv_len, r.live, (size_t)s->kv_len);
        make_adjoints(c, eval, &r);
        add_gradients(c, &r, unit);
    }
    const tensor *outputs[] = {&c->dquery, &c->dkey, &c->dvalue};
    for (int n = 0; n < 3; n++) {
        const int64_t *d = outputs[n]->dims, count = d[0] * d[1] * d[2] * d[3];
        for (int64_t i = 0; i < count; i++) c->bound[n][i] += 2 * unit * fabs(c->want[n][i]) + 1e-7;
    }
}

void bwd_reference_run(bwd_call *c) {
    const tensor *outputs[] = {&c->dquery, &c->dkey, &c->dvalue};
    for (int n = 0; n < 3; n++) {
        const int64_t *d = outputs[n]->dims;
        const size_t count = (size_t)(d[0] * d[1] * d[2] * d[3]) + 1;
        c->want[n] = calloc(count, sizeof(double));
        c->bound[n] = calloc(count, sizeof(double));
    }
    for (int i = 0; i < MAX_CAPTURES + MAX_SCALARS; i++)
        c->sinks[i].want = calloc((size_t)c->sinks[i].count + 1, sizeof(double));
    c->visible = calloc((size_t)(c->s->batch * c->s->heads_q * c->s->q_len * c->s->kv_len) + 1, sizeof(bool));
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    if (fj_scope_run(&arena, NULL, run_body, c) != FJ_OK) abort();
    fj_arena_finish(&arena);
}

void bwd_reference_finish(bwd_call *c) {
    free(c->visible);
    for (int n = 0; n < 3; n++) free(c->want[n]), free(c->bound[n]);
    for (int i = 0; i < MAX_CAPTURES + MAX_SCALARS; i++) free(c->sinks[i].want);
}
