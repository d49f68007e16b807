/* What a kernel is called with, on any device. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/philox.h"
#include "templates/cuda/shapes.h"
#include "tests/kern/kern.h"

const char *const tensor_names[TENSORS] = {"query", "key",  "value", "out",    "raw",  "lse",   "low",
                                           "max",   "dout", "dlse",  "dquery", "dkey", "dvalue"};

void shape_name(const shape *s, char name[128]) {
    static const char *const layouts[] = {"packed", "rows", "odd", "shared"};
    _Static_assert(FJ_ARRAY_LEN(layouts) == LAYOUT_COUNT, "a name for each");
    int length =
        snprintf(name, 128, "b%d hq%d hkv%d l%d s%d %s scale %.3g at %d,%d l2_group %d%s%s absent %u",
                 (int)s->batch, (int)s->heads_q, (int)s->heads_kv, (int)s->q_len, (int)s->kv_len,
                 layouts[s->how], s->scale, s->q_offset, s->kv_offset, s->l2_group, s->dlse ? " dlse" : "",
                 s->spoilt ? " spoilt" : "", s->absent);
    if (s->dropout > 0 && length < 128)
        length += snprintf(name + length, 128 - (size_t)length, " dropout %.3g", s->dropout);
    if (s->block[0] > 0 && length < 128)
        (void)snprintf(name + length, 128 - (size_t)length, " blocks %dx%d/%u", s->block[0], s->block[1],
                       s->block_planes);
}

/* ---- Positions and captures ------------------------------------------------------------------------ */

static bool has_table(const call *c, int side) { return c->positions[side].size > 0; }

int32_t call_position(const call *c, int side, int64_t b, int64_t index) {
    if (has_table(c, side))
        return ((const int32_t *)(const void *)c->positions[side].host)[b * c->position_stride[side] + index];
    return (side ? c->shape->kv_offset : c->shape->q_offset) + (int32_t)index;
}

/* Tables go back and forth; one of the two may be missing, and each batch may have its own. */
static void make_positions(call *c, generator *random) {
    static const int steps[] = {7, 5}, periods[] = {50, 64};
    const int missing = random_below(random, 4); /* 0: queries, 1: keys */
    const bool shared = random_below(random, 2);
    for (int side = 0; side < 2 && c->kernel->table; side++) {
        const int64_t length = side ? c->shape->kv_len : c->shape->q_len;
        const int64_t count = shared ? length : length * c->shape->batch;
        if (side == missing || count == 0) continue;
        c->position_stride[side] = shared ? 0 : length;
        c->device->create(&c->positions[side], (size_t)count * sizeof(int32_t));
        int32_t *table = (int32_t *)(void *)c->positions[side].host;
        for (int64_t i = 0; i < count; i++) table[i] = (int32_t)(i * steps[side] % periods[side]);
    }
}

/* One more than the greatest position. */
static int64_t extent(const call *c, int side) {
    const int64_t count = side ? c->shape->kv_len : c->shape->q_len;
    int64_t most = 0;
    for (int64_t i = 0; i < count * c->shape->batch; i++) {
        const int32_t at = call_position(c, side, i / count, i % count);
        if (at >= most) most = at + 1;
    }
    return most;
}

static int64_t capture_extent(const call *c, char letter) {
    switch (letter) {
    case 'b': return c->shape->batch;
    case 'h': return c->shape->heads_q;
    case 'q': return extent(c, 0);
    case 'k': return extent(c, 1);
    case 'd': return c->kernel->problem.value_dim;
    case '5': return 50;
    default: return extent(c, 0) + extent(c, 1) + 200;
    }
}

static void fill_capture(fj_eval_tensor *t, void *data, int64_t count, generator *random) {
    t->data = data;
    for (int64_t n = 0; n < count; n++)
        if (t->dtype == FJ_DTYPE_I32)
            ((int32_t *)data)[n] = (int32_t)(n / 23);
        else if (t->dtype == FJ_DTYPE_BOOL)
            ((uint8_t *)data)[n] = random_below(random, 4) != 0;
        else
            fj_dtype_store_float(t->dtype, data, n, random_uniform(random));
}

/* Row-major; column-major with the odd layout. */
static void make_captures(call *c, generator *random) {
    const fj_ir *ir = c->kernel->problem.ir;
    for (size_t i = 0; i < ir->captures.len; i++) {
        fj_eval_tensor *t = &c->captures[i];
        const char *dims = c->kernel->mod->capture[i].dims;
        const int rank = (int)strlen(dims);
        int64_t count = 1, stride = 1;
        for (int d = 0; d < rank; d++) count *= t->dims[d] = capture_extent(c, dims[d]);
        for (int n = 0; n < rank; n++) {
            const int d = c->shape->how == LAYOUT_ODD ? n : rank - 1 - n;
            t->strides[d] = stride;
            stride *= t->dims[d];
        }
        t->dtype = c->kernel->mod->capture[i].dtype;
        c->device->create(&c->capture_data[i], (size_t)count * fj_dtype_size(t->dtype));
        fill_capture(t, c->capture_data[i].host, count, random);
        if (kernel_is_backward(c->kernel) && ir->captures.data[i].gradient) c->grads[i].count = count;
    }
    if (kernel_is_backward(c->kernel) && ir->scalars.len > 0) c->grads[MAX_CAPTURES].count = 1;
}

/* ---- Tensors ------------------------------------------------------------------------------------------ */

static unsigned absence_of(int t) {
    return t == DQUERY ? ABSENT_DQUERY
         : t == DKEY   ? ABSENT_DKEY
         : t == DVALUE ? ABSENT_DVALUE
         : t == LSE    ? ABSENT_LSE
         : t == LOW    ? ABSENT_LOW
         : t == MAX    ? ABSENT_MAX
         : t == RAW    ? ABSENT_RAW
                       : 0;
}

bool call_has(const call *c, int t) {
    if (t == DLSE) return c->shape->dlse;
    if (t == RAW && !c->kernel->problem.out) return false;
    if (kernel_is_backward(c->kernel) && (t == OUT || t == RAW)) return t == call_output(c);
    if (t == LOW && kernel_is_backward(c->kernel) && c->kernel->mod->large) return true;
    return (c->shape->absent & absence_of(t)) == 0;
}

bool call_writes(const call *c, int t) {
    if (!call_has(c, t)) return false;
    if (kernel_is_backward(c->kernel)) return t >= DQUERY;
    return t == OUT || t == RAW || t == LSE || t == LOW || (t == MAX && c->kernel->problem.max);
}

int call_output(const call *c) { return c->kernel->problem.out ? RAW : OUT; }

bool call_keeps(const call *c, int64_t b, int64_t h, int64_t q, int64_t kv) {
    const shape *s = c->shape;
    if (!c->kernel->problem.dropout) return true;
    const uint32_t word =
        fj_dropout_word(fj_dropout_key(s->seed, s->offset), (uint64_t)(b * s->heads_q + h),
                        (uint32_t)call_position(c, 0, b, q), (uint32_t)call_position(c, 1, b, kv));
    return word >= fj_dropout_threshold(s->dropout);
}

double call_keep_scale(const call *c) {
    if (!c->kernel->problem.dropout) return 1;
    return c->shape->dropout < 1 ? 1 / (1 - c->shape->dropout) : 0;
}

bool call_reads(const call *c, int t) {
    return t <= VALUE || (kernel_is_backward(c->kernel) &&
                          (t == call_output(c) || t == LSE || t == LOW || t == DOUT || t == DLSE));
}

bool call_wants_grads(const call *c, int i) {
    return c->grads[i].count > 0 && (c->shape->absent & ABSENT_CAPTURE_GRADS) == 0;
}

static void make_tensor(call *c, int which) {
    const shape *s = c->shape;
    const fj_jit_problem *p = &c->kernel->problem;
    const bool of_keys = which == KEY || which == VALUE || which == DKEY || which == DVALUE;
    const bool of_rows = which == LSE || which == LOW || which == MAX || which == DLSE;
    const bool values = which == VALUE || which == OUT || which == RAW || which == DOUT || which == DVALUE;
    const int64_t dims[4] = {s->batch, of_keys ? s->heads_kv : s->heads_q, of_keys ? s->kv_len : s->q_len,
                             of_rows  ? 1
                             : values ? p->value_dim
                                      : p->head_dim};
    const fj_dtype real = p->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    layout how = s->how;
    if (how == LAYOUT_SHARED && which > VALUE && which != DOUT) how = LAYOUT_PACKED;
    if (of_rows && !p->packed && which != MAX && which != LOW)
        how = which == DLSE ? LAYOUT_ROWS : LAYOUT_PACKED;
    tensor_make(&c->tensors[which], c->device, of_rows ? real : p->dtype, dims, how);
}

static void make_tensors(call *c, generator *random, bool values) {
    for (int t = 0; t < TENSORS; t++) {
        const bool forward_too = t <= MAX;
        if (!kernel_is_backward(c->kernel) && !forward_too) continue;
        if (kernel_is_backward(c->kernel) && t == MAX) continue;
        make_tensor(c, t);
        if (call_reads(c, t))
            (values ? tensor_fill : tensor_repeat)(&c->tensors[t], random, t < VALUE ? 1.5 : 2);
    }
}

/* NaN in a query and in a key, whose scores are NaN by definition, and anything in values. Of values the definition is told
 * zeros: reference.c looks for the rows that see them. */
static void choose_spoils(call *c, generator *random) {
    static const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    for (int i = 0; i < SPOILS; i++) {
        const int which = i == 0 ? QUERY : i == 1 ? KEY : VALUE;
        tensor *t = &c->tensors[which];
        const int64_t count = tensor_count(t);
        if (count == 0) continue;
        const int64_t at = random_below(random, (int)count);
        c->spoils[c->spoil_count++] = (spoil){which, at, which == VALUE ? bad[i % 3] : bad[0]};
        t->values[at] = which == VALUE ? 0 : (double)NAN;
    }
    call_spoil(c, false);
}

void call_spoil(call *c, bool zeros) {
    for (int i = 0; i < c->spoil_count; i++)
        tensor_put(&c->tensors[c->spoils[i].tensor], c->spoils[i].at, zeros ? 0 : c->spoils[i].value);
}

/* ---- Workspace ------------------------------------------------------------------------------------------ */

size_t call_real_size(const call *c) { return c->kernel->problem.dtype == FJ_DTYPE_F64 ? 8 : 4; }

static void make_work(call *c) {
    const shape *s = c->shape;
    const kernel *k = c->kernel;
    const device *d = c->device;
    const size_t rows = (size_t)(s->batch * s->heads_q * s->q_len);
    d->create(&c->fault, sizeof(struct fj_cuda_fault) + 12);
    d->create(&c->parts, FJ_FWD_PART_REALS(rows, (size_t)k->problem.value_dim, (size_t)k->problem.max) *
                             (size_t)k->splits * call_real_size(c));
    if (k->problem.dropout && s->seed % 2) {
        d->create(&c->dropout_state, 2 * sizeof(uint64_t));
        ((uint64_t *)(void *)c->dropout_state.host)[0] = s->seed;
        ((uint64_t *)(void *)c->dropout_state.host)[1] = s->offset;
    }
    if (!kernel_is_backward(k)) return;
    if (k->problem.out)
        d->create(&c->dout_before, rows * (size_t)k->problem.value_dim * fj_dtype_size(k->problem.dtype));
    const size_t heads = (size_t)((k->problem.packed ? 1 : s->batch) * s->heads_q);
    d->create(&c->rows, FJ_BWD_ROWS(heads, (size_t)sequences_workspace_rows(c)) * FJ_CUDA_ROW_REALS *
                            call_real_size(c));
    d->create(&c->runs, (k->problem.ir->captures.len + k->problem.ir->scalars.len) * 8);
    if (!k->problem.deterministic && k->variant.mma)
        d->create(&c->query_sums, FJ_BWD_SUM_ROWS(heads, (size_t)sequences_workspace_rows(c)) *
                                      (size_t)k->variant.head_pad * sizeof(float));
    for (int i = 0; i < GRADS; i++) {
        if (c->grads[i].count == 0 && (i == MAX_CAPTURES || !c->captures[i].data)) continue;
        d->create(&c->grads[i].sums, (size_t)c->grads[i].count * (k->problem.deterministic ? 16 : 8));
        d->create(&c->grads[i].most, (size_t)c->grads[i].count * 4);
        d->create(&c->grads[i].out, (size_t)c->grads[i].count * call_real_size(c));
    }
}

void call_make(call *c, const device *d, const kernel *k, const shape *s, uint64_t seed, bool answers) {
    generator random = random_of(seed, k->name);
    *c = (call){.kernel = k, .shape = s, .device = d};
    make_positions(c, &random);
    make_captures(c, &random);
    blocks_make(c, &random);
    sequences_make(c);
    make_tensors(c, &random, answers);
    make_work(c);
    if (s->spoilt && answers) choose_spoils(c, &random);
    if (answers) reference_run(c);
}

void call_finish(call *c) {
    const device *d = c->device;
    buffer *work[] = {&c->rows,  &c->query_sums,   &c->runs,         &c->parts,       &c->sequences,
                      &c->fault, &c->positions[0], &c->positions[1], &c->dout_before, &c->dropout_state};
    for (int t = 0; t < TENSORS; t++) tensor_finish(&c->tensors[t], d);
    for (size_t i = 0; i < FJ_ARRAY_LEN(work); i++) d->destroy(work[i]);
    for (int i = 0; i < MAX_CAPTURES; i++) d->destroy(&c->capture_data[i]);
    for (int i = 0; i < GRADS; i++)
        d->destroy(&c->grads[i].sums), d->destroy(&c->grads[i].most), d->destroy(&c->grads[i].out);
    for (int i = 0; i < TENSORS + GRADS; i++)
        free(c->answers[i].exact), free(c->answers[i].unfused), free(c->answers[i].bound);
    blocks_finish(c);
    free(c->visible);
}
