/* The definition of attention and of its gradients, row by row, in double; and once more unfused in the dtype of the
 * inputs (products and probabilities rounded to it, sums in float32), whose error is the yardstick.
 *
 * bound: how much one element may be off, from the roundings that a fused kernel makes; unit is half the distance of
 * numbers of the dtype. Scores carry float32 sums of E products: `slack`, relative to what was summed. Weights below the
 * normal numbers of F16 are rounded absolutely: `tiny`.
 *
 * Mods are evaluated in float32, as kernels do, by the exact pass too: a score of 2000, as a slope makes them over long
 * rows, is rounded by 1e-4, and out, lse and the gradients have to belong to the same rounded scores. What is left is
 * that the kernel's raw score is another one in the last digits, so that now and then the sum with it is rounded the
 * other way: `flip`, of a score; large ones only where they are seen to depend on the raw score. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern/kern.h"

/* One row of queries: values for each key. */
typedef struct row {
    int64_t b, h, hk, q, at; /* at: of [B,Hq,L] */
    double *score, *after, *p, *dp, *ds, *mass, *mass_ds, lse, log_sum, top, base, sink, most, flip;
    double *out, *dout, *mass_out; /* of a row of the output: before the mod; what its adjoint is there */
    double delta, delta_size;
    bool *live, *kept;
} row;

typedef struct pass {
    call *c;
    fj_eval *eval, *out, *sink;
    bool unfused;
    double unit, slack, tiny, keep_scale;
} pass;

/* ---- Arithmetic --------------------------------------------------------------------------------------- */

static double dot(const pass *p, const double *x, const double *y, int64_t n) {
    double sum = 0;
    float narrow = 0;
    if (!p->unfused)
        for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    else
        for (int64_t i = 0; i < n; i++) narrow += (float)x[i] * (float)y[i];
    return p->unfused ? (double)narrow : sum;
}

static void axpy(const pass *p, int64_t n, double a, const double *x, double *y) {
    if (!p->unfused)
        for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
    else
        for (int64_t i = 0; i < n; i++) y[i] = (double)((float)y[i] + (float)a * (float)x[i]);
}

static double size_of(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs(x[i] * y[i]);
    return sum;
}

/* To the dtype of the yardstick; F64 has that of F32. */
static double rounded(const pass *p, double x) {
    const fj_dtype dtype = p->c->kernel->problem.dtype;
    return p->unfused ? fj_dtype_round(dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F32 : dtype, x) : x;
}

static double *result(const pass *p, int which) {
    answer *a = &p->c->answers[which];
    return p->unfused ? a->unfused : a->exact;
}

static const double *of_row(const call *c, int which, int64_t b, int64_t h, int64_t i) {
    const tensor *t = &c->tensors[which];
    return t->values + ((b * t->dims[1] + h) * t->dims[2] + i) * t->dims[3];
}

/* ---- Scores ---------------------------------------------------------------------------------------------- */

/* Runs of keys whose positions follow each other: all of them, or one. */
static int run_length(const call *c, int64_t kv) {
    const int64_t left = c->shape->kv_len - kv;
    if (c->positions[1].size > 0) return 1;
    return left < FJ_EVAL_LANES ? (int)left : FJ_EVAL_LANES;
}

static fj_eval_lanes lanes_of(const call *c, const row *r, int64_t kv) {
    return (fj_eval_lanes){(int32_t)r->b,
                           (int32_t)r->h,
                           call_position(c, 0, r->b, r->q),
                           call_position(c, 1, r->b, kv),
                           run_length(c, kv),
                           r->score + kv,
                           NULL,
                           NULL};
}

static fj_eval_input input_of(const pass *p) {
    return (fj_eval_input){.captures = p->c->captures,
                           .round_f32 = p->c->kernel->problem.dtype != FJ_DTYPE_F64};
}

static void look_for_faults(const pass *p, const row *r) {
    const fj_eval_input input = input_of(p);
    bool found[FJ_EVAL_LANES];
    if (!p->c->kernel->problem.ir->fault || p->unfused) return;
    for (int64_t kv = 0; kv < p->c->shape->kv_len; kv += run_length(p->c, kv)) {
        fj_eval_lanes lanes = lanes_of(p->c, r, kv);
        lanes.live = r->live + kv;
        fj_eval_run(p->eval, &input, &lanes, NULL, NULL, NULL, found, NULL);
        for (int i = 0; i < lanes.count; i++) p->c->want_fault |= found[i];
    }
}

static void make_scores(const pass *p, row *r) {
    call *c = p->c;
    const fj_ir *ir = c->kernel->problem.ir;
    const fj_eval_input input = input_of(p);
    const int64_t n = c->shape->kv_len, e = c->kernel->problem.head_dim;
    const double *query = of_row(c, QUERY, r->b, r->h, r->q);
    r->most = 1;
    for (int64_t kv = 0; kv < n; kv++) {
        const double *key = of_row(c, KEY, r->b, r->hk, kv);
        r->after[kv] = r->score[kv] = c->shape->scale * rounded(p, dot(p, query, key, e));
        if (!p->unfused) r->most = fmax(r->most, fabs(c->shape->scale) * size_of(query, key, e));
        r->live[kv] = true;
    }
    for (int64_t kv = 0; kv < n && (ir->score || ir->mask); kv += run_length(c, kv)) {
        const fj_eval_lanes lanes = lanes_of(c, r, kv);
        fj_eval_run(p->eval, &input, &lanes, ir->score ? r->after + kv : NULL, ir->mask ? r->live + kv : NULL,
                    NULL, NULL, NULL);
    }
    blocks_show(c, r->b, r->h, r->q, r->live);
    look_for_faults(p, r);
}

enum { LARGE_SCORE = 1024 };

/* Marks, in r->ds, the scores that are another one where the raw score is a little greater or less. */
static void find_flips(const pass *p, row *r) {
    const fj_ir *ir = p->c->kernel->problem.ir;
    const fj_eval_input input = input_of(p);
    const int64_t n = p->c->shape->kv_len;
    bool any = false;
    for (int64_t kv = 0; kv < n; kv++) {
        r->ds[kv] = !(fabs(r->after[kv]) >= LARGE_SCORE); /* small ones are not looked at */
        any |= r->ds[kv] == 0;
    }
    if (p->unfused || !ir->score || !any) return;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int64_t kv = 0; kv < n; kv++) r->mass[kv] = r->score[kv] + sign * p->slack * r->most;
        for (int64_t kv = 0; kv < n; kv += run_length(p->c, kv)) {
            fj_eval_lanes lanes = lanes_of(p->c, r, kv);
            lanes.score = r->mass + kv;
            fj_eval_run(p->eval, &input, &lanes, r->dp + kv, NULL, NULL, NULL, NULL);
        }
        for (int64_t kv = 0; kv < n; kv++)
            if (r->dp[kv] != r->after[kv]) r->ds[kv] = 1;
    }
}

/* ---- The output and the sink ------------------------------------------------------------------------------- */

static fj_eval_lanes lanes_of_columns(const call *c, const row *r, const double *x, int64_t d) {
    const int64_t left = c->kernel->problem.value_dim - d;
    return (fj_eval_lanes){.b = (int32_t)r->b,
                           .h = (int32_t)r->h,
                           .q = call_position(c, 0, r->b, r->q),
                           .kv0 = (int32_t)d,
                           .count = left < FJ_EVAL_LANES ? (int)left : FJ_EVAL_LANES,
                           .score = x + d};
}

/* The mod of the output on a row; to may be x. */
static void apply_output(const pass *p, const row *r, const double *x, double *to) {
    const call *c = p->c;
    const fj_eval_input input = input_of(p);
    const int64_t v = c->kernel->problem.value_dim;
    for (int64_t d = 0; d < v; d++)
        if (!p->out) to[d] = x[d];
    for (int64_t d = 0; p->out && d < v; d += FJ_EVAL_LANES) {
        const fj_eval_lanes lanes = lanes_of_columns(c, r, x, d);
        fj_eval_run(p->out, &input, &lanes, to + d, NULL, NULL, NULL, NULL);
    }
}

static double sink_of(const pass *p, const row *r) {
    const fj_eval_input input = input_of(p);
    double sink = 0;
    const fj_eval_lanes lanes = {
        .b = (int32_t)r->b, .h = (int32_t)r->h, .kv0 = 0, .count = 1, .score = &sink};
    if (!p->sink) return -(double)INFINITY;
    fj_eval_run(p->sink, &input, &lanes, &sink, NULL, NULL, NULL, NULL);
    return sink;
}

/* ---- Probabilities ------------------------------------------------------------------------------------------ */

static void make_probabilities(const pass *p, row *r) {
    const int64_t n = p->c->shape->kv_len;
    const double extra = r->sink = sink_of(p, r);
    make_scores(p, r);
    find_flips(p, r);
    r->top = -(double)INFINITY;
    for (int64_t kv = 0; kv < n; kv++)
        if (r->live[kv] && !isnan(r->top) && !(r->after[kv] <= r->top))
            r->top = r->after[kv]; /* a NaN stays */
    const double base = r->base = isnan(r->top) ? r->top : fmax(r->top, extra);
    const bool sees = !(base <= -(double)INFINITY);
    const double real = p->c->kernel->problem.dtype == FJ_DTYPE_F64 ? 0x1p-53 : 0x1p-24;
    r->flip = 0;
    double sum = sees ? exp(extra - base) : 0;
    for (int64_t kv = 0; kv < n; kv++) {
        r->p[kv] = r->live[kv] && sees ? exp(r->after[kv] - base) : 0;
        if (r->p[kv] > 0 && isfinite(r->after[kv]) && r->ds[kv] != 0)
            r->flip = fmax(r->flip, 2 * real * fabs(r->after[kv]));
        if (p->unfused) r->p[kv] = (double)(float)r->p[kv];
        sum += r->p[kv];
    }
    r->log_sum = log(sum);
    r->lse = sees ? base + r->log_sum : -(double)INFINITY;
    for (int64_t kv = 0; kv < n && sees; kv++) r->p[kv] /= sum;
    for (int64_t kv = 0; kv < n; kv++) r->kept[kv] = call_keeps(p->c, r->b, r->h, r->q, kv);
}

/* Of a key, after dropout. */
static double weight_of(const pass *p, const row *r, int64_t kv) {
    return r->kept[kv] ? r->p[kv] * p->keep_scale : 0;
}

/* ---- Forward ------------------------------------------------------------------------------------------------ */

/* The bound of a row's elements, before the mod, to one of what the mod makes of them, whose terms may cancel. */
static void bound_output(const pass *p, const row *r, const double *out, double *bound) {
    const int64_t v = p->c->kernel->problem.value_dim;
    double *off = r->dout; /* not used yet */
    for (int64_t j = 0; j < v; j++) bound[j] += 1e-30;
    for (int sign = -1; sign <= 1 && p->out; sign += 2) {
        for (int64_t j = 0; j < v; j++)
            off[j] = r->out[j] + sign * (bound[j] + 4 * p->slack * fabs(r->out[j]));
        apply_output(p, r, off, off);
        for (int64_t j = 0; j < v; j++)
            r->mass_out[j] = fmax(sign < 0 ? 0 : r->mass_out[j], fabs(off[j] - out[j]));
    }
    for (int64_t j = 0; j < v; j++)
        bound[j] = (p->out ? r->mass_out[j] + p->slack * (1 + fabs(r->out[j])) : bound[j]) +
                   p->unit * fabs(out[j]) + p->tiny + 1e-30;
}

/* Bad reads of the mods of the output and of the sink. */
static void look_for_own_faults(const pass *p, const row *r) {
    call *c = p->c;
    const fj_eval_input input = input_of(p);
    const fj_jit_problem *problem = &c->kernel->problem;
    const double zero = 0;
    bool found[FJ_EVAL_LANES];
    for (int64_t d = 0; p->out && problem->out->fault && d < problem->value_dim; d += FJ_EVAL_LANES) {
        const fj_eval_lanes lanes = lanes_of_columns(c, r, r->out, d);
        fj_eval_run(p->out, &input, &lanes, NULL, NULL, NULL, found, NULL);
        for (int i = 0; i < lanes.count; i++) c->want_fault |= found[i];
    }
    if (!p->sink || !problem->sink->fault) return;
    const fj_eval_lanes lanes = {.b = (int32_t)r->b, .h = (int32_t)r->h, .count = 1, .score = &zero};
    fj_eval_run(p->sink, &input, &lanes, NULL, NULL, NULL, found, NULL);
    c->want_fault |= found[0];
}

static void forward_row(const pass *p, row *r) {
    call *c = p->c;
    const int64_t v = c->kernel->problem.value_dim, n = c->shape->kv_len;
    double *out = result(p, OUT) + r->at * v, *raw = result(p, RAW) + r->at * v;
    memset(r->out, 0, (size_t)v * sizeof *r->out);
    for (int64_t kv = 0; kv < n; kv++)
        if (weight_of(p, r, kv) > 0)
            axpy(p, v, rounded(p, weight_of(p, r, kv)), of_row(c, VALUE, r->b, r->hk, kv), r->out);
    for (int64_t j = 0; j < v && isnan(r->lse); j++) r->out[j] = r->lse;
    apply_output(p, r, r->out, out);
    look_for_own_faults(p, r);
    for (int64_t j = 0; j < v; j++) {
        out[j] = isnan(r->lse) ? r->lse : rounded(p, out[j]);
        raw[j] = rounded(p, r->out[j]);
    }
    result(p, LSE)[r->at] = p->unfused ? (double)(float)r->lse : r->lse;
    result(p, LOW)[r->at] = r->lse;
    result(p, MAX)[r->at] = isnan(r->lse) ? r->lse : p->unfused ? (double)(float)r->top : r->top;
    if (p->unfused) return;
    const double off = p->slack * (r->most + 1) + r->flip;
    c->answers[LSE].bound[r->at] = c->answers[MAX].bound[r->at] =
        p->slack * (r->most + (isfinite(r->lse) ? fabs(r->lse) : 0));
    /* Both parts together: scores after the mod are real, no more is rounded of them. */
    c->answers[LOW].bound[r->at] = p->slack * (r->most + fmin(isfinite(r->lse) ? fabs(r->lse) : 0, 1e3));
    double *bound = c->answers[OUT].bound + r->at * v, *raw_bound = c->answers[RAW].bound + r->at * v;
    for (int64_t kv = 0; kv < n; kv++) {
        const double *value = of_row(c, VALUE, r->b, r->hk, kv), weight = weight_of(p, r, kv);
        for (int64_t j = 0; j < v && weight > 0; j++)
            bound[j] += ((p->unit + off) * weight + p->tiny * p->keep_scale) * fabs(value[j]);
    }
    for (int64_t j = 0; j < v; j++) raw_bound[j] = bound[j] + p->unit * fabs(r->out[j]) + p->tiny + 1e-30;
    bound_output(p, r, out, bound);
}

/* out and lse as a forward kernel stores them: inputs of the backward ones. */
static void keep_row(const pass *p, const row *r) {
    const int which = call_output(p->c);
    tensor *out = &p->c->tensors[which], *lse = &p->c->tensors[LSE], *low = &p->c->tensors[LOW];
    const int64_t v = p->c->kernel->problem.value_dim;
    for (int64_t j = 0; j < v; j++)
        out->values[r->at * v + j] = fj_dtype_round(out->dtype, p->c->answers[which].exact[r->at * v + j]);
    lse->values[r->at] = r->lse;
    /* Differences first: a double cannot hold the sum of a large maximum and a logarithm either. */
    low->values[r->at] = isfinite(r->lse) ? r->base - fj_dtype_round(lse->dtype, r->lse) + r->log_sum : 0;
}

/* ---- Backward ----------------------------------------------------------------------------------------------- */

/* Where the gradients of what a mod captures are added up: results, or squares of errors (check_grad). */
typedef enum scatter { SCATTER_NOTHING, SCATTER_GRADIENTS, SCATTER_SQUARES } scatter;

/* Through the mod. */
static void adjoin_mod(const pass *p, const row *r, const double *adjoint, double *dscore, scatter what) {
    const call *c = p->c;
    const fj_eval_input input = input_of(p);
    double *arrays[GRADS] = {0};
    for (int i = 0; i < GRADS; i++)
        if (c->grads[i].count > 0 && what != SCATTER_NOTHING)
            arrays[i] = what == SCATTER_SQUARES ? c->answers[TENSORS + i].bound : result(p, TENSORS + i);
    const fj_eval_grads grads = {
        .captures = arrays, .scalars = arrays[MAX_CAPTURES], .squares = what == SCATTER_SQUARES};
    for (int64_t kv = 0; kv < c->shape->kv_len; kv += run_length(c, kv)) {
        fj_eval_lanes lanes = lanes_of(c, r, kv);
        lanes.adjoint = adjoint + kv;
        lanes.live = r->live + kv;
        fj_eval_run(p->eval, &input, &lanes, NULL, NULL, dscore + kv, NULL, &grads);
    }
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++)
        if (!r->live[kv]) dscore[kv] = 0;
}

/* Whether delta is. */
static bool is_measured(const kernel *k) {
    if (fj_dtype_size(k->problem.dtype) > 2) return false;
    if (kernel_is_cpu(k)) return k->problem.gradient->scatters.len > 0; /* templates/cpu/bwd.c, invariant 7 */
    for (int i = 0; i < k->variant.entry_count; i++)
        if (strcmp(k->variant.entries[i].name, "fj_bwd_recompute") == 0) return true;
    return false;
}

/* Arrays of the gradients that are wanted. */
static void arrays_of(const pass *p, double *arrays[GRADS]) {
    for (int i = 0; i < GRADS; i++) arrays[i] = p->c->grads[i].count > 0 ? result(p, TENSORS + i) : NULL;
}

static void add_mass(const pass *p, double mass) {
    for (int i = 0; i < GRADS && !p->unfused; i++) p->c->grads[i].mass += mass;
}

/* dout before the mod of the output, as it is stored; its gradients of captures. */
static void adjoin_output(const pass *p, row *r) {
    call *c = p->c;
    const fj_eval_input input = input_of(p);
    const int64_t v = c->kernel->problem.value_dim;
    const double *dout = of_row(c, DOUT, r->b, r->h, r->q);
    double *arrays[GRADS];
    arrays_of(p, arrays);
    const fj_eval_grads grads = {.captures = arrays, .scalars = arrays[MAX_CAPTURES]};
    memcpy(r->dout, dout, (size_t)v * sizeof *dout);
    for (int64_t d = 0; p->out && d < v; d += FJ_EVAL_LANES) {
        const double *raw = of_row(c, RAW, r->b, r->h, r->q);
        fj_eval_lanes lanes = lanes_of_columns(c, r, raw, d);
        lanes.adjoint = dout + d;
        fj_eval_run(p->out, &input, &lanes, NULL, NULL, r->dout + d, NULL, &grads);
        for (int i = 0; i < lanes.count; i++) {
            r->dout[d + i] = fj_dtype_round(c->tensors[DOUT].dtype, r->dout[d + i]);
            add_mass(p, fabs(dout[d + i]) * (1 + fabs(raw[d + i])));
        }
    }
}

/* The sink's own: it is a key of which the value is 0. */
static void adjoin_sink(const pass *p, const row *r) {
    const fj_eval_input input = input_of(p);
    const double zero = 0, prob = r->lse > -(double)INFINITY ? exp(r->sink - r->base - r->log_sum) : 0;
    const double adjoint = -prob * r->delta;
    double *arrays[GRADS], ignored;
    if (!p->sink) return;
    arrays_of(p, arrays);
    const fj_eval_grads grads = {.captures = arrays, .scalars = arrays[MAX_CAPTURES]};
    const fj_eval_lanes lanes = {
        .b = (int32_t)r->b, .h = (int32_t)r->h, .count = 1, .score = &zero, .adjoint = &adjoint};
    fj_eval_run(p->sink, &input, &lanes, NULL, NULL, &ignored, NULL, &grads);
    add_mass(p, prob * r->delta_size);
}

/* What dP is measured from: rowsum(out dout), of out as it is rounded, or rowsum(P dP). */
static double row_sum(const pass *p, const row *r, const double *dout, double *ret_size) {
    const call *c = p->c;
    const int64_t v = c->kernel->problem.value_dim;
    const double *out = of_row(c, call_output(c), r->b, r->h, r->q);
    double sum = 0;
    *ret_size = size_of(out, dout, v);
    if (!is_measured(c->kernel)) return dot(p, out, dout, v);
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++)
        if (r->p[kv] > 0) sum += weight_of(p, r, kv) * dot(p, dout, of_row(c, VALUE, r->b, r->hk, kv), v);
    return sum;
}

static void make_adjoints(const pass *p, row *r) {
    call *c = p->c;
    const int64_t n = c->shape->kv_len, v = c->kernel->problem.value_dim;
    const double *dout = r->dout;
    double size;
    const double delta = r->delta =
        row_sum(p, r, dout, &size) - (c->shape->dlse ? c->tensors[DLSE].values[r->at] : 0);
    const double delta_size = r->delta_size = size + fabs(delta) + 1e-30;
    for (int64_t kv = 0; kv < n; kv++) {
        const double *value = of_row(c, VALUE, r->b, r->hk, kv);
        const double scale = r->kept[kv] ? p->keep_scale : 0;
        r->dp[kv] = r->p[kv] * ((scale > 0 ? scale * rounded(p, dot(p, dout, value, v)) : 0) - delta);
        r->mass[kv] = p->unfused ? 0 : r->p[kv] * (scale * size_of(dout, value, v) + delta_size);
        for (int i = 0; i < GRADS; i++) c->grads[i].mass += r->mass[kv] * (i < MAX_CAPTURES ? 1 : 64);
    }
    memcpy(r->ds, r->dp, (size_t)n * sizeof *r->ds);
    memcpy(r->mass_ds, r->mass, (size_t)n * sizeof *r->ds);
    if (!c->kernel->problem.ir->score) return;
    adjoin_mod(p, r, r->dp, r->ds, SCATTER_GRADIENTS);
    if (p->unfused) return;
    for (int64_t kv = 0; kv < n; kv++) r->mass_ds[kv] = r->flip * r->dp[kv];
    adjoin_mod(p, r, r->mass_ds, r->mass_ds, SCATTER_SQUARES);
    adjoin_mod(p, r, r->mass, r->mass_ds, SCATTER_NOTHING);
}

static void add_bounds(const pass *p, const row *r, int64_t kv) {
    call *c = p->c;
    const double scale = c->shape->scale, slack = p->slack * (4 + r->most) + r->flip;
    const double off =
        p->unit * fabs(r->ds[kv]) + slack * fabs(r->mass_ds[kv]) + (r->p[kv] > 0 ? p->tiny : 0);
    const int64_t e = c->kernel->problem.head_dim, v = c->kernel->problem.value_dim;
    const int64_t key = (r->b * c->shape->heads_kv + r->hk) * c->shape->kv_len + kv;
    const double *q = of_row(c, QUERY, r->b, r->h, r->q), *k = of_row(c, KEY, r->b, r->hk, kv);
    const double *dout = r->dout, weight = weight_of(p, r, kv);
    for (int64_t i = 0; i < e; i++) {
        c->answers[DQUERY].bound[r->at * e + i] += fabs(scale * k[i]) * off;
        c->answers[DKEY].bound[key * e + i] += fabs(scale * q[i]) * off;
    }
    for (int64_t i = 0; i < v; i++)
        c->answers[DVALUE].bound[key * v + i] +=
            ((p->unit + slack) * weight + (weight > 0 ? p->tiny * p->keep_scale : 0)) * fabs(dout[i]);
}

static void add_gradients(const pass *p, const row *r) {
    call *c = p->c;
    const int64_t e = c->kernel->problem.head_dim, v = c->kernel->problem.value_dim;
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++) {
        const int64_t key = (r->b * c->shape->heads_kv + r->hk) * c->shape->kv_len + kv;
        const double ds = rounded(p, r->ds[kv] * c->shape->scale);
        axpy(p, e, ds, of_row(c, KEY, r->b, r->hk, kv), result(p, DQUERY) + r->at * e);
        axpy(p, e, ds, of_row(c, QUERY, r->b, r->h, r->q), result(p, DKEY) + key * e);
        axpy(p, v, rounded(p, weight_of(p, r, kv)), r->dout, result(p, DVALUE) + key * v);
        if (!p->unfused) add_bounds(p, r, kv);
    }
}

static bool sees_any(const call *c, int64_t at) {
    bool any = false;
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++) any |= c->visible[at * c->shape->kv_len + kv];
    return any && c->answers[LSE].exact[at] > -(double)INFINITY;
}

/* A row that sees nothing has a gradient of exactly 0. */
static void end_gradients(const pass *p) {
    const double least = p->c->kernel->problem.dtype == FJ_DTYPE_F64 ? 1e-15 : 1e-7;
    const int64_t e = p->c->kernel->problem.head_dim;
    for (int t = DQUERY; t <= DVALUE; t++) {
        answer *a = &p->c->answers[t];
        for (int64_t i = 0; i < a->count; i++) {
            result(p, t)[i] = rounded(p, result(p, t)[i]);
            const bool sees = t != DQUERY || sees_any(p->c, i / e);
            if (!p->unfused && sees) a->bound[i] += 2 * p->unit * fabs(a->exact[i]) + least;
        }
    }
}

/* ---- All ------------------------------------------------------------------------------------------------------ */

static void run_rows(fj_scope *scope, void *argument) {
    pass *p = argument;
    call *c = p->c;
    const shape *s = c->shape;
    const bool backward = kernel_is_backward(c->kernel);
    const fj_jit_problem *problem = &c->kernel->problem;
    p->eval = fj_eval_create(scope->arena, backward ? problem->gradient : problem->ir);
    p->out =
        problem->out ? fj_eval_create(scope->arena, backward ? problem->out_gradient : problem->out) : NULL;
    p->sink = problem->sink ? fj_eval_create(scope->arena, backward ? problem->sink_gradient : problem->sink)
                            : NULL;
    row r = {0};
    double **arrays[] = {&r.score, &r.after, &r.p, &r.dp, &r.ds, &r.mass, &r.mass_ds};
    for (size_t i = 0; i < FJ_ARRAY_LEN(arrays); i++)
        *arrays[i] = FJ_NEW_ARRAY(scope->arena, double, s->kv_len + 1);
    double **rows[] = {&r.out, &r.dout, &r.mass_out};
    for (size_t i = 0; i < FJ_ARRAY_LEN(rows); i++)
        *rows[i] = FJ_NEW_ARRAY(scope->arena, double, problem->value_dim);
    r.live = FJ_NEW_ARRAY(scope->arena, bool, s->kv_len + 1);
    r.kept = FJ_NEW_ARRAY(scope->arena, bool, s->kv_len + 1);
    for (r.at = 0; r.at < s->batch * s->heads_q * s->q_len; r.at++) {
        r.q = r.at % s->q_len, r.h = r.at / s->q_len % s->heads_q, r.b = r.at / s->q_len / s->heads_q;
        r.hk = r.h / (s->heads_q / s->heads_kv);
        make_probabilities(p, &r);
        if (!p->unfused) memcpy(c->visible + r.at * s->kv_len, r.live, (size_t)s->kv_len);
        if (!backward || !p->unfused) forward_row(p, &r);
        if (!backward) continue;
        if (!p->unfused) keep_row(p, &r);
        adjoin_output(p, &r);
        make_adjoints(p, &r);
        adjoin_sink(p, &r);
        add_gradients(p, &r);
    }
    if (backward) end_gradients(p);
}

static void run_pass(pass *p) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    if (fj_scope_run(&arena, NULL, run_rows, p) != FJ_OK) abort();
    fj_arena_finish(&arena);
}

static void make_answer(answer *a, int64_t count) {
    a->count = count;
    a->exact = calloc((size_t)count + 1, sizeof(double));
    a->unfused = calloc((size_t)count + 1, sizeof(double));
    a->bound = calloc((size_t)count + 1, sizeof(double));
    if (!a->exact || !a->unfused || !a->bound) abort();
}

/* Outputs that see values that are not finite are not either; but a row without a sum is 0. */
static void spread_spoils(call *c) {
    if (c->spoil_count == 0) return;
    const int64_t kv_len = c->shape->kv_len, v = c->kernel->problem.value_dim,
                  group = c->shape->heads_q / c->shape->heads_kv;
    for (int64_t at = 0; at < c->answers[LSE].count; at++)
        for (int i = 0; i < c->spoil_count; i++) {
            const int64_t key = c->spoils[i].at / v, column = c->spoils[i].at % v;
            if (c->spoils[i].tensor != VALUE || key / kv_len != at / c->shape->q_len / group) continue;
            const int64_t plane = at / c->shape->q_len, b = plane / c->shape->heads_q;
            if (!c->visible[at * kv_len + key % kv_len] || !(c->answers[LSE].exact[at] > -(double)INFINITY) ||
                !call_keeps(c, b, plane % c->shape->heads_q, at % c->shape->q_len, key % kv_len))
                continue;
            c->answers[OUT].exact[at * v + column] = c->answers[RAW].exact[at * v + column] = (double)NAN;
        }
}

void reference_run(call *c) {
    const shape *s = c->shape;
    const fj_dtype dtype = c->kernel->problem.dtype;
    const int64_t rows = s->batch * s->heads_q * s->q_len;
    make_answer(&c->answers[OUT], rows * c->kernel->problem.value_dim);
    make_answer(&c->answers[RAW], rows * c->kernel->problem.value_dim);
    make_answer(&c->answers[LSE], rows);
    make_answer(&c->answers[LOW], rows);
    make_answer(&c->answers[MAX], rows);
    for (int t = DQUERY; t <= DVALUE && kernel_is_backward(c->kernel); t++)
        make_answer(&c->answers[t], tensor_count(&c->tensors[t]));
    for (int i = 0; i < GRADS; i++) make_answer(&c->answers[TENSORS + i], c->grads[i].count);
    c->visible = calloc((size_t)(rows * s->kv_len) + 1, sizeof(bool));
    const bool tf32 = c->kernel->problem.tf32;
    pass p = {.c = c, .slack = tf32 ? 0x1p-9 : dtype == FJ_DTYPE_F64 ? 0x1p-46 : 0x1p-18};
    p.unit = dtype == FJ_DTYPE_BF16 ? 0x1p-8
           : dtype == FJ_DTYPE_F16  ? 0x1p-11
           : dtype == FJ_DTYPE_F64  ? 0x1p-52
           : tf32                   ? 0x1p-10
                                    : 0x1p-24;
    p.keep_scale = call_keep_scale(c);
    p.tiny = dtype == FJ_DTYPE_F16 ? 0x1p-25 : 0;
    run_pass(&p);
    if (kernel_is_backward(c->kernel)) {
        tensor_store(&c->tensors[call_output(c)]);
        tensor_store(&c->tensors[LSE]);
        tensor_store(&c->tensors[LOW]);
    }
    p.unfused = true;
    run_pass(&p);
    spread_spoils(c);
}

typedef struct question {
    const call *c;
    fj_eval_lanes lanes;
    const fj_ir *ir; /* of the mod that is asked */
    bool faults;
    int64_t area;
} question;

static void ask_body(fj_scope *scope, void *argument) {
    question *q = argument;
    const fj_eval_input input = {.captures = q->c->captures};
    const fj_ir *ir = q->ir;
    bool live = true;
    fj_eval *eval = fj_eval_create(scope->arena, ir);
    if (ir == q->c->kernel->problem.ir && ir->mask && !q->c->blocks.classes)
        fj_eval_run(eval, &input, &q->lanes, NULL, &live, NULL, NULL, NULL);
    q->lanes.live = &live;
    fj_eval_run(eval, &input, &q->lanes, NULL, NULL, NULL, &q->faults, NULL);
}

static void count_body(fj_scope *scope, void *argument) {
    question *q = argument;
    const call *c = q->c;
    const fj_eval_input input = {.captures = c->captures};
    fj_eval *eval = fj_eval_create(scope->arena, c->kernel->problem.ir);
    bool seen[FJ_EVAL_LANES];
    for (row r = {0}; r.q < c->shape->q_len; r.q++)
        for (int64_t kv = 0; kv < c->shape->kv_len; kv += run_length(c, kv)) {
            fj_eval_lanes lanes = lanes_of(c, &r, kv);
            lanes.score = NULL;
            fj_eval_run(eval, &input, &lanes, NULL, seen, NULL, NULL, NULL);
            for (int i = 0; i < lanes.count; i++) q->area += seen[i];
        }
}

int64_t reference_area(const call *c) {
    question ask = {.c = c};
    if (!c->kernel->problem.ir->mask) return c->shape->q_len * c->shape->kv_len;
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    if (fj_scope_run(&arena, NULL, count_body, &ask) != FJ_OK) abort();
    fj_arena_finish(&arena);
    return ask.area;
}

bool reference_faults(const call *c, const struct fj_cuda_fault *fault) {
    const double score = 0;
    const fj_jit_problem *p = &c->kernel->problem;
    const fj_ir *const of[] = {
        [FJ_CUDA_FAULT_SCORE] = p->ir, [FJ_CUDA_FAULT_OUT] = p->out, [FJ_CUDA_FAULT_SINK] = p->sink};
    question ask = {.c = c, .lanes = {fault->b, fault->h, fault->q, fault->kv, 1, &score, NULL, NULL}};
    if (fault->where < 0 || fault->where >= (int32_t)FJ_ARRAY_LEN(of)) return false;
    ask.ir = of[fault->where];
    if (!ask.ir || (fault->where == FJ_CUDA_FAULT_SINK && (fault->q || fault->kv))) return false;
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    if (fj_scope_run(&arena, NULL, ask_body, &ask) != FJ_OK) abort();
    fj_arena_finish(&arena);
    return ask.faults;
}
