/* What a kernel is called with, and its launches, on any device. */
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/kern.h"

const char *const tensor_names[TENSORS] = {"query", "key",  "value",  "out",  "lse",   "max",
                                           "dout",  "dlse", "dquery", "dkey", "dvalue"};

void shape_name(const shape *s, char name[128]) {
    static const char *const layouts[] = {"packed", "rows", "odd", "shared"};
    _Static_assert(FJ_ARRAY_LEN(layouts) == LAYOUT_COUNT, "a name for each");
    (void)snprintf(name, 128, "b%d hq%d hkv%d l%d s%d %s scale %.3g at %d,%d section %d%s absent %u",
                   (int)s->batch, (int)s->heads_q, (int)s->heads_kv, (int)s->q_len, (int)s->kv_len,
                   layouts[s->how], s->scale, s->q_offset, s->kv_offset, s->section, s->dlse ? " dlse" : "",
                   s->absent);
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
        if (kernel_is_backward(c->kernel) && ir->captures.data[i].gradient) c->sinks[i].count = count;
    }
    if (kernel_is_backward(c->kernel) && ir->scalars.len > 0) c->sinks[MAX_CAPTURES].count = 1;
}

/* ---- Tensors ------------------------------------------------------------------------------------------ */

static unsigned absence_of(int t) {
    return t == DQUERY ? ABSENT_DQUERY
         : t == DKEY   ? ABSENT_DKEY
         : t == DVALUE ? ABSENT_DVALUE
         : t == LSE    ? ABSENT_LSE
         : t == MAX    ? ABSENT_MAX
                       : 0;
}

static bool is_there(const call *c, int t) {
    if (t == DLSE) return c->shape->dlse;
    const bool output = kernel_is_backward(c->kernel) ? t >= DQUERY : t >= OUT;
    return !output || (c->shape->absent & absence_of(t)) == 0;
}

bool call_writes(const call *c, int t) {
    if (!is_there(c, t)) return false;
    if (kernel_is_backward(c->kernel)) return t >= DQUERY;
    return t == OUT || t == LSE || (t == MAX && c->kernel->problem.max);
}

static bool is_input(const call *c, int t) {
    return t <= VALUE || (kernel_is_backward(c->kernel) && (t == OUT || t == LSE || t == DOUT || t == DLSE));
}

static void make_tensor(call *c, int which) {
    const shape *s = c->shape;
    const fj_jit_problem *p = &c->kernel->problem;
    const bool of_keys = which == KEY || which == VALUE || which == DKEY || which == DVALUE;
    const bool of_rows = which == LSE || which == MAX || which == DLSE;
    const bool values = which == VALUE || which == OUT || which == DOUT || which == DVALUE;
    const int64_t dims[4] = {s->batch, of_keys ? s->heads_kv : s->heads_q, of_keys ? s->kv_len : s->q_len,
                             of_rows  ? 1
                             : values ? p->value_dim
                                      : p->head_dim};
    const fj_dtype real = p->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    layout how = s->how;
    if (how == LAYOUT_SHARED && which > VALUE && which != DOUT) how = LAYOUT_PACKED;
    if (of_rows && which != MAX) how = which == DLSE ? LAYOUT_ROWS : LAYOUT_PACKED;
    tensor_make(&c->tensors[which], c->device, of_rows ? real : p->dtype, dims, how);
}

static void make_tensors(call *c, generator *random, bool values) {
    for (int t = 0; t < TENSORS; t++) {
        const bool forward_too = t <= MAX;
        if (!kernel_is_backward(c->kernel) && !forward_too) continue;
        if (kernel_is_backward(c->kernel) && t == MAX) continue;
        make_tensor(c, t);
        if (is_input(c, t))
            (values ? tensor_fill : tensor_repeat)(&c->tensors[t], random, t < VALUE ? 1.5 : 2);
    }
}

/* ---- Workspace ------------------------------------------------------------------------------------------ */

static size_t real_size(const call *c) { return c->kernel->problem.dtype == FJ_DTYPE_F64 ? 8 : 4; }

static void make_work(call *c) {
    const shape *s = c->shape;
    const kernel *k = c->kernel;
    const device *d = c->device;
    const size_t rows = (size_t)(s->batch * s->heads_q * s->q_len);
    d->create(&c->fault, sizeof(struct fj_cuda_fault) + 12);
    d->create(&c->parts, FJ_FWD_PART_REALS(rows, (size_t)k->problem.value_dim, (size_t)k->problem.max) *
                             (size_t)k->splits * real_size(c));
    if (!kernel_is_backward(k)) return;
    d->create(&c->rows, rows * 2 * real_size(c));
    d->create(&c->most, (k->problem.ir->captures.len + k->problem.ir->scalars.len) * 4);
    if (!k->problem.deterministic && k->variant.mma)
        d->create(&c->query_sums, rows * (size_t)k->variant.head_pad * sizeof(float));
    for (int i = 0; i < SINKS; i++) {
        if (c->sinks[i].count == 0 && (i == MAX_CAPTURES || !c->captures[i].data)) continue;
        d->create(&c->sinks[i].sums, (size_t)c->sinks[i].count * 8);
        d->create(&c->sinks[i].out, (size_t)c->sinks[i].count * real_size(c));
    }
}

void call_make(call *c, const device *d, const kernel *k, const shape *s, uint64_t seed, bool answers) {
    generator random = random_of(seed, k->name);
    *c = (call){.kernel = k, .shape = s, .device = d};
    make_positions(c, &random);
    make_captures(c, &random);
    make_tensors(c, &random, answers);
    make_work(c);
    if (answers) reference_run(c);
}

void call_finish(call *c) {
    const device *d = c->device;
    buffer *work[] = {&c->rows,  &c->query_sums,   &c->most,        &c->parts,
                      &c->fault, &c->positions[0], &c->positions[1]};
    for (int t = 0; t < TENSORS; t++) tensor_finish(&c->tensors[t], d);
    for (size_t i = 0; i < FJ_ARRAY_LEN(work); i++) d->destroy(work[i]);
    for (int i = 0; i < MAX_CAPTURES; i++) d->destroy(&c->capture_data[i]);
    for (int i = 0; i < SINKS; i++) d->destroy(&c->sinks[i].sums), d->destroy(&c->sinks[i].out);
    for (int i = 0; i < TENSORS + SINKS; i++)
        free(c->answers[i].exact), free(c->answers[i].unfused), free(c->answers[i].bound);
    free(c->visible);
}

/* ---- Arguments -------------------------------------------------------------------------------------------- */

typedef struct packet {
    _Alignas(16) unsigned char bytes[8192];
    size_t size;
} packet;

static void put(packet *p, const void *part, size_t size) {
    if (p->size + size > sizeof p->bytes) abort();
    memcpy(p->bytes + p->size, part, size);
    p->size += size;
}

static void *address_of(const buffer *b) { return (void *)(uintptr_t)b->address; }

static struct fj_cuda_tensor describe(const call *c, int t) {
    if (!is_there(c, t)) return (struct fj_cuda_tensor){0};
    return tensor_describe(&c->tensors[t]);
}

/* Bits of enum fj_cuda_vector. */
static uint32_t vectors_of(const call *c) {
    static const int order[] = {QUERY, KEY, VALUE, OUT, DOUT, DQUERY, DKEY, DVALUE};
    uint32_t bits = 0;
    for (uint32_t i = 0; i < FJ_ARRAY_LEN(order); i++)
        if (c->tensors[order[i]].values && tensor_is_vector(&c->tensors[order[i]])) bits |= 1u << i;
    return bits;
}

/* Packed: the outputs of all splits, then each one's lse, then each one's maximum. */
typedef struct parts {
    struct fj_cuda_tensor out, lse, max;
    int64_t split_out, split_lse;
} parts;

static struct fj_cuda_tensor describe_part(const call *c, int64_t first, int64_t columns) {
    const shape *s = c->shape;
    return (struct fj_cuda_tensor){
        (void *)(uintptr_t)(c->parts.address + (size_t)(first * c->kernel->splits) * real_size(c)),
        {s->heads_q * s->q_len * columns, s->q_len * columns, columns}};
}

static parts parts_of(const call *c) {
    const int64_t rows = c->shape->batch * c->shape->heads_q * c->shape->q_len;
    const int64_t v = c->kernel->problem.value_dim;
    parts p = {describe_part(c, 0, v), describe_part(c, rows * v, 1), {0}, rows * v, rows};
    if (c->kernel->problem.max) p.max = describe_part(c, rows * (v + 1), 1);
    return p;
}

static void put_merge(packet *p, const call *c) {
    const shape *s = c->shape;
    const parts from = parts_of(c);
    const struct fj_cuda_merge args = {
        .part_out = from.out,
        .part_lse = from.lse,
        .part_max = from.max,
        .split_out = from.split_out,
        .split_lse = from.split_lse,
        .out = describe(c, OUT),
        .lse = describe(c, LSE),
        .max = describe(c, MAX),
        .q_position = address_of(&c->positions[0]),
        .q_position_stride = c->position_stride[0],
        .q_offset = s->q_offset,
        .splits = c->kernel->splits,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .q_len = (int32_t)s->q_len,
    };
    put(p, &args, sizeof args);
}

static void put_forward(packet *p, const call *c) {
    const shape *s = c->shape;
    const bool whole = c->kernel->splits == 0;
    const parts to =
        whole ? (parts){describe(c, OUT), describe(c, LSE), describe(c, MAX), 0, 0} : parts_of(c);
    const struct fj_cuda_forward args = {
        .query = describe(c, QUERY),
        .key = describe(c, KEY),
        .value = describe(c, VALUE),
        .out = to.out,
        .lse = to.lse,
        .max = to.max,
        .split_out = to.split_out,
        .split_lse = to.split_lse,
        .q_position = address_of(&c->positions[0]),
        .kv_position = address_of(&c->positions[1]),
        .q_position_stride = c->position_stride[0],
        .kv_position_stride = c->position_stride[1],
        .fault = address_of(&c->fault),
        .scale = s->scale,
        .q_offset = s->q_offset,
        .kv_offset = s->kv_offset,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .heads_kv = (int32_t)s->heads_kv,
        .q_len = (int32_t)s->q_len,
        .kv_len = (int32_t)s->kv_len,
        .section = s->section,
        .vector = vectors_of(c),
    };
    put(p, &args, sizeof args);
}

static void put_backward(packet *p, const call *c) {
    const shape *s = c->shape;
    const struct fj_cuda_backward args = {
        .query = describe(c, QUERY),
        .key = describe(c, KEY),
        .value = describe(c, VALUE),
        .out = describe(c, OUT),
        .dout = describe(c, DOUT),
        .lse = describe(c, LSE),
        .dlse = describe(c, DLSE),
        .dquery = describe(c, DQUERY),
        .dkey = describe(c, DKEY),
        .dvalue = describe(c, DVALUE),
        .q_position = address_of(&c->positions[0]),
        .kv_position = address_of(&c->positions[1]),
        .q_position_stride = c->position_stride[0],
        .kv_position_stride = c->position_stride[1],
        .rows = address_of(&c->rows),
        .dquery_sums = address_of(&c->query_sums),
        .most = address_of(&c->most),
        .scale = s->scale,
        .q_offset = s->q_offset,
        .kv_offset = s->kv_offset,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .heads_kv = (int32_t)s->heads_kv,
        .q_len = (int32_t)s->q_len,
        .kv_len = (int32_t)s->kv_len,
        .section = s->section,
        .vector = vectors_of(c),
    };
    put(p, &args, sizeof args);
}

static void put_captures(packet *p, const call *c) {
    const fj_ir *ir = c->kernel->problem.ir;
    for (size_t i = 0; i < ir->captures.len; i++) {
        struct fj_cuda_capture capture = {.data = address_of(&c->capture_data[i])};
        for (int d = 0; d < FJ_CUDA_MAX_RANK; d++)
            capture.shape[d] = d < ir->captures.data[i].rank ? c->captures[i].dims[d] : 1;
        memcpy(capture.stride, c->captures[i].strides, sizeof capture.stride);
        put(p, &capture, sizeof capture);
    }
    for (size_t i = 0; i < ir->scalars.len; i++) {
        const struct fj_cuda_scalar scalar = {ir->scalars.data[i].f, ir->scalars.data[i].i};
        put(p, &scalar, sizeof scalar);
    }
}

/* Gradients of captures go to column-major memory. */
static void put_sinks(packet *p, const call *c) {
    const fj_ir *ir = c->kernel->problem.ir;
    for (size_t i = 0; i < ir->captures.len + ir->scalars.len; i++) {
        const size_t at = i < ir->captures.len ? i : MAX_CAPTURES + i - ir->captures.len;
        struct fj_cuda_sink to = {0};
        const bool wanted = c->sinks[at].count > 0 && (c->shape->absent & ABSENT_SINKS) == 0;
        if (wanted)
            to = (struct fj_cuda_sink){.sums = address_of(&c->sinks[at].sums),
                                       .out = address_of(&c->sinks[at].out),
                                       .count = c->sinks[at].count};
        int64_t stride = 1;
        for (int d = 0; i < ir->captures.len && d < ir->captures.data[i].rank; d++) {
            to.stride[d] = stride;
            stride *= c->captures[i].dims[d];
        }
        put(p, &to, sizeof to);
    }
}

/* ---- Launching ------------------------------------------------------------------------------------------------ */

static uint32_t product(int64_t a, int64_t b, int64_t c) { return (uint32_t)(a * b * c); }

static void put_args(packet *p, const call *c, const char *entry) {
    const bool backward = kernel_is_backward(c->kernel);
    p->size = 0;
    if (backward)
        put_backward(p, c);
    else
        (strcmp(entry, "fj_fwd_merge") == 0 ? put_merge : put_forward)(p, c);
    put_captures(p, c);
    if (backward) put_sinks(p, c);
}

/* As abi.h says; where any will do, another one in other modes. */
static void grid_of(const call *c, const char *entry, const mode *how, uint32_t grid[3]) {
    const shape *s = c->shape;
    const kernel *k = c->kernel;
    const int64_t m = k->variant.tile_q;
    grid[0] = grid[1] = grid[2] = 1;
    if (strcmp(entry, "fj_fwd") == 0) {
        const int64_t group = kernel_packs(k) && s->heads_kv > 0 ? s->heads_q / s->heads_kv : 1;
        grid[0] = product(FJ_CEIL_DIV(s->q_len * group, m), s->batch, s->heads_q / group);
        if (k->splits > 0) grid[1] = (uint32_t)k->splits;
        if (!k->variant.mma) grid[2] = (uint32_t)FJ_FWD_SIMT_SLICES(k->problem.value_dim);
    } else if (strcmp(entry, "fj_bwd_kv") == 0) {
        grid[0] = product(FJ_CEIL_DIV(s->kv_len, m), s->batch, s->heads_kv);
    } else if (strcmp(entry, "fj_bwd_measure") == 0) {
        grid[0] = product(FJ_CEIL_DIV(s->q_len, m), s->batch, s->heads_q);
    } else if (strcmp(entry, "fj_bwd_q") == 0) {
        grid[0] = product(FJ_CEIL_DIV(s->q_len, m), s->batch, s->heads_q);
        const bool adds = k->problem.gradient->scatters.len > 0 && k->problem.deterministic;
        if ((s->absent & ABSENT_DQUERY) && !adds) grid[0] = 0; /* may be left out */
    } else {
        grid[0] = ((uint32_t)s->section + how->schedule + how->copies) % 5 + 1;
    }
}

fj_status call_launch(const call *c, const object *o, const mode *m, fj_emu_counts *counts, fj_error *error) {
    const kernel *k = c->kernel;
    packet p;
    for (int i = 0; i < k->variant.entry_count; i++) {
        uint32_t grid[3];
        const uint32_t expected = c->device->args_size(o, i);
        grid_of(c, k->variant.entries[i].name, m, grid);
        put_args(&p, c, k->variant.entries[i].name);
        if (expected != 0 && expected != p.size)
            return fj_error_set(error, FJ_ERR_DEVICE, "%s: arguments of %u bytes, not %zu",
                                k->variant.entries[i].name, expected, p.size);
        if (grid[0] == 0) continue; /* there is nothing to do */
        /* What is counted is held against what gradients need: delta by a pass of its own is beside that. */
        const bool measures = strcmp(k->variant.entries[i].name, "fj_bwd_measure") == 0;
        const fj_status status = c->device->launch(o, i, grid, p.bytes, m, measures ? NULL : counts, error);
        if (status != FJ_OK) return status;
    }
    return FJ_OK;
}

/* ---- A pass ------------------------------------------------------------------------------------------------------- */

/* All that a kernel is given; outputs, and whatever else it writes, are NaN. */
static bool put_all(call *c) {
    bool there = true;
    for (int t = 0; t < TENSORS; t++) {
        if (!c->tensors[t].values) continue;
        if (!is_input(c, t)) tensor_clear(&c->tensors[t]);
        there &= c->device->put(&c->tensors[t].memory);
    }
    memset(c->fault.host, 0, c->fault.size);
    buffer *const fresh[] = {&c->rows, &c->query_sums, &c->most, &c->parts};
    for (size_t i = 0; i < FJ_ARRAY_LEN(fresh); i++) {
        if (fresh[i]->size) memset(fresh[i]->host, 0xff, fresh[i]->size);
        there &= c->device->put(fresh[i]);
    }
    for (int i = 0; i < SINKS; i++) {
        buffer *both[] = {&c->sinks[i].sums, &c->sinks[i].out};
        for (int n = 0; n < 2; n++) {
            if (both[n]->size)
                memset(both[n]->host, n == 0 ? 0x55 : 0xff, both[n]->size); /* -1 would add little */
            there &= c->device->put(both[n]);
        }
    }
    for (int i = 0; i < MAX_CAPTURES; i++) there &= c->device->put(&c->capture_data[i]);
    return there && c->device->put(&c->fault) && c->device->put(&c->positions[0]) &&
           c->device->put(&c->positions[1]);
}

/* Everything comes back: so what is around each is looked at. */
static bool get_all(call *c, FILE *out) {
    bool clean = true;
    for (int t = 0; t < TENSORS; t++)
        if (c->tensors[t].values && !c->device->get(&c->tensors[t].memory)) {
            (void)fprintf(out, "    %s: written around it\n", tensor_names[t]);
            clean = false;
        }
    buffer *const work[] = {&c->rows, &c->query_sums, &c->most, &c->parts, &c->fault};
    for (size_t i = 0; i < FJ_ARRAY_LEN(work); i++) clean &= c->device->get(work[i]);
    for (int i = 0; i < SINKS; i++)
        clean &= c->device->get(&c->sinks[i].sums) && c->device->get(&c->sinks[i].out);
    if (!clean) (void)fprintf(out, "    memory around a tensor or the workspace was written\n");
    return clean;
}

bool call_run(call *c, const object *o, const mode *m, fj_emu_counts *counts, FILE *out) {
    fj_error error = {0};
    if (!put_all(c)) return (void)fprintf(out, "    memory cannot be written\n"), false;
    if (call_launch(c, o, m, counts, &error) != FJ_OK) {
        (void)fprintf(out, "    %s %s\n", error.text, error.detail ? error.detail : "");
        fj_error_finish(&error);
        return false;
    }
    return get_all(c, out);
}
