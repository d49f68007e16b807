#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern_cuda/kern_cuda.h"

double random_uniform(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) * 0x1p-52 - 1.0;
}

/* ---- Tensors ---------------------------------------------------------------------------------- */

static int64_t count_of(const tensor *t) { return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; }

static size_t place_of(const tensor *t, int64_t i) {
    int64_t offset = 0;
    for (int d = 3; d >= 0; d--) {
        offset += i % t->dims[d] * t->stride[d];
        i /= t->dims[d];
    }
    return t->offset + (size_t)offset * fj_dtype_size(t->dtype);
}

/* PACKED: [B,H,L,E]. ROWS: [B,L,H,E], rows with gaps of eight elements. ODD: nothing is aligned. */
void tensor_make(tensor *t, fj_dtype dtype, const int64_t dims[4], layout how) {
    const int64_t pitch = dims[3] + (how == LAYOUT_PACKED ? 0 : how == LAYOUT_ROWS ? 8 : 3);
    const size_t size = fj_dtype_size(dtype), start = how == LAYOUT_ODD ? 1 : 0;
    *t = (tensor){.dtype = dtype, .offset = start * size};
    memcpy(t->dims, dims, sizeof t->dims);
    t->stride[3] = 1;
    t->stride[2] = how == LAYOUT_ROWS ? pitch * dims[1] : pitch;
    t->stride[1] = how == LAYOUT_ROWS ? pitch : pitch * dims[2];
    t->stride[0] = pitch * dims[1] * dims[2];
    /* Ends with the last element, but for what alignment needs. */
    size_t elements = start + (size_t)(dims[0] * t->stride[0] - (pitch - dims[3]));
    t->bytes = (elements * size + 15) / 16 * 16;
    t->memory = fj_emu_guarded_alloc(t->bytes);
    t->values = calloc((size_t)count_of(t) + 1, sizeof(double));
    if (!t->memory || !t->values) abort();
    memset(t->memory, 0xff, t->bytes);
}

void tensor_fill(tensor *t, double scale) {
    for (int64_t i = 0; i < count_of(t); i++) {
        t->values[i] = fj_dtype_round(t->dtype, random_uniform() * scale);
        fj_dtype_store_float(t->dtype, t->memory + place_of(t, i), 0, t->values[i]);
    }
}

void tensor_clear(tensor *t) { memset(t->memory, 0xff, t->bytes); }

bool tensor_read(tensor *t) {
    unsigned char *mine = calloc(1, t->bytes);
    bool clean = true;
    const size_t size = fj_dtype_size(t->dtype);
    if (!mine) abort();
    for (int64_t i = 0; i < count_of(t); i++) {
        const size_t place = place_of(t, i);
        t->values[i] = fj_dtype_load_float(t->dtype, t->memory + place, 0);
        memset(mine + place, 1, size);
    }
    for (size_t i = 0; i < t->bytes; i++) clean &= mine[i] || t->memory[i] == 0xff;
    free(mine);
    return clean;
}

void tensor_finish(tensor *t) {
    fj_emu_guarded_free(t->memory, t->bytes);
    free(t->values);
}

struct fj_cuda_tensor tensor_describe(const tensor *t) {
    return (struct fj_cuda_tensor){t->memory + t->offset, {t->stride[0], t->stride[1], t->stride[2]}};
}

bool tensor_is_vector(const tensor *t) {
    const size_t size = fj_dtype_size(t->dtype);
    bool yes = (uintptr_t)(t->memory + t->offset) % 16 == 0;
    for (int d = 0; d < 3; d++) yes &= (size_t)t->stride[d] * size % 16 == 0;
    return yes;
}

/* ---- The definition --------------------------------------------------------------------------- */

typedef struct row {
    double *score, *after;
    bool *visible;
} row;

/* Scores of one row, and their mod. */
static void make_scores(call *c, fj_eval *eval, row *r, int64_t b, int64_t h, int64_t q) {
    const shape *s = c->s;
    const int64_t hk = h / (s->heads_q / s->heads_kv), e = c->query.dims[3];
    const double *query = c->query.values + ((b * s->heads_q + h) * s->q_len + q) * e;
    const fj_eval_input input = {.captures = c->captures};
    for (int64_t kv = 0; kv < s->kv_len; kv++) {
        const double *key = c->key.values + ((b * s->heads_kv + hk) * s->kv_len + kv) * e;
        double dot = 0;
        for (int64_t i = 0; i < e; i++) dot += query[i] * key[i];
        r->score[kv] = dot * s->scale;
    }
    const int32_t q_at = c->q_position ? c->q_position[q] : s->q_offset + (int32_t)q;
    for (int64_t kv = 0; kv < s->kv_len; kv++) {
        const int32_t kv_at = c->kv_position ? c->kv_position[kv] : s->kv_offset + (int32_t)kv;
        fj_eval_lanes lanes = {(int32_t)b, (int32_t)h, q_at, kv_at, 1, r->score + kv, NULL, NULL};
        fj_eval_run(eval, &input, &lanes, r->after + kv, r->visible + kv, NULL, NULL, NULL);
        if (!c->ir->score) r->after[kv] = r->score[kv];
        if (!c->ir->mask) r->visible[kv] = true;
        if (!r->visible[kv]) r->after[kv] = -(double)INFINITY;
        if (c->ir->fault) {
            bool fault = false;
            lanes.live = r->visible + kv;
            fj_eval_run(eval, &input, &lanes, NULL, NULL, NULL, &fault, NULL);
            c->want_fault |= fault;
        }
        c->visible[((b * s->heads_q + h) * s->q_len + q) * s->kv_len + kv] = r->visible[kv];
    }
}

static void finish_row(call *c, const row *r, int64_t b, int64_t h, int64_t q, double unit) {
    const shape *s = c->s;
    const int64_t at = (b * s->heads_q + h) * s->q_len + q, v = c->value.dims[3];
    const int64_t hk = h / (s->heads_q / s->heads_kv);
    double top = -(double)INFINITY, sum = 0, most = 1;
    for (int64_t kv = 0; kv < s->kv_len; kv++) {
        if (r->after[kv] > top) top = r->after[kv];
        if (r->visible[kv]) most = fmax(most, fabs(r->score[kv]));
    }
    for (int64_t kv = 0; kv < s->kv_len && top > -(double)INFINITY; kv++) sum += exp(r->after[kv] - top);
    c->want_lse[at] = sum > 0 ? top + log(sum) : -(double)INFINITY;
    c->want_max[at] = top;
    c->bound_lse[at] = 0x1p-18 * (most + fabs(sum > 0 ? c->want_lse[at] : 0));
    for (int64_t j = 0; j < v; j++) {
        double out = 0, size = 0;
        for (int64_t kv = 0; kv < s->kv_len && sum > 0; kv++) {
            const double x = c->value.values[((b * s->heads_kv + hk) * s->kv_len + kv) * v + j];
            const double p = exp(r->after[kv] - top) / sum;
            if (p > 0) out += p * x, size += p * fabs(x);
        }
        c->want_out[at * v + j] = out;
        c->bound_out[at * v + j] = unit * fabs(out) + (unit + 0x1p-18 * (most + 1)) * size + 1e-30;
    }
}

static void run_body(fj_scope *scope, void *argument) {
    void **both = argument;
    call *c = both[0];
    const double unit = *(double *)both[1];
    const shape *s = c->s;
    fj_eval *eval = fj_eval_create(scope->arena, c->ir);
    row r = {FJ_NEW_ARRAY(scope->arena, double, s->kv_len + 1),
             FJ_NEW_ARRAY(scope->arena, double, s->kv_len + 1),
             FJ_NEW_ARRAY(scope->arena, bool, s->kv_len + 1)};
    for (int64_t i = 0; i < s->batch * s->heads_q * s->q_len; i++) {
        const int64_t q = i % s->q_len, h = i / s->q_len % s->heads_q, b = i / s->q_len / s->heads_q;
        make_scores(c, eval, &r, b, h, q);
        finish_row(c, &r, b, h, q, unit);
    }
}

void reference_run(call *c, fj_dtype dtype) {
    const size_t rows = (size_t)(c->s->batch * c->s->heads_q * c->s->q_len), v = (size_t)c->value.dims[3];
    double unit = dtype == FJ_DTYPE_BF16 ? 0x1p-8 : dtype == FJ_DTYPE_F16 ? 0x1p-11 : 0x1p-24;
    c->want_out = calloc(rows * v + 1, sizeof(double));
    c->bound_out = calloc(rows * v + 1, sizeof(double));
    c->want_lse = calloc(rows + 1, sizeof(double));
    c->want_max = calloc(rows + 1, sizeof(double));
    c->bound_lse = calloc(rows + 1, sizeof(double));
    c->visible = calloc(rows * (size_t)c->s->kv_len + 1, sizeof(bool));
    void *both[] = {c, &unit};
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    if (fj_scope_run(&arena, NULL, run_body, both) != FJ_OK) abort();
    fj_arena_finish(&arena);
}

void reference_finish(call *c) {
    free(c->want_out);
    free(c->bound_out);
    free(c->want_lse);
    free(c->want_max);
    free(c->bound_lse);
    free(c->visible);
}
