/* Arguments of a GPU's kernel and its launches, on the emulator too. */
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "templates/cuda/shapes.h"
#include "tests/kern/kern.h"

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
    if (!call_has(c, t)) return (struct fj_cuda_tensor){0};
    return sequences_tensor(c, t, tensor_describe(&c->tensors[t]));
}

/* Bits of enum fj_cuda_vector. */
static uint32_t vectors_of(const call *c) {
    static const int order[] = {QUERY, KEY, VALUE, OUT, DOUT, DQUERY, DKEY, DVALUE};
    uint32_t bits = 0;
    for (uint32_t i = 0; i < FJ_ARRAY_LEN(order); i++) {
        const int t = order[i] == OUT && kernel_is_backward(c->kernel) ? call_output(c) : order[i];
        if (c->tensors[t].values && tensor_is_vector(&c->tensors[t])) bits |= 1u << i;
    }
    /* Another one, of no stride that is a multiple of 16 bytes. */
    return c->kernel->problem.out && kernel_is_backward(c->kernel) ? bits & ~(uint32_t)FJ_CUDA_VECTOR_DOUT
                                                                   : bits;
}

/* Packed: the outputs of all splits, then each one's lse, its lesser part, then each one's maximum. */
typedef struct parts {
    struct fj_cuda_tensor out, lse, low, max;
    int64_t split_out, split_lse;
} parts;

static struct fj_cuda_tensor describe_part(const call *c, int64_t first, int64_t columns) {
    const shape *s = c->shape;
    const int64_t q_len = sequences_rows(c, s->q_len);
    const bool packed = c->kernel->problem.packed;
    return (struct fj_cuda_tensor){
        (void *)(uintptr_t)(c->parts.address + (size_t)(first * c->kernel->splits) * call_real_size(c)),
        {packed ? 0 : s->heads_q * q_len * columns, q_len * columns, columns}};
}

static parts parts_of(const call *c) {
    const int64_t rows = c->shape->batch * c->shape->heads_q * c->shape->q_len;
    const int64_t v = c->kernel->problem.value_dim;
    parts p = {describe_part(c, 0, v),
               describe_part(c, rows * v, 1),
               describe_part(c, rows * (v + 1), 1),
               {0},
               rows * v,
               rows};
    if (c->kernel->problem.max) p.max = describe_part(c, rows * (v + 2), 1);
    return p;
}

static void put_merge(packet *p, const call *c) {
    const shape *s = c->shape;
    const parts from = parts_of(c);
    const struct fj_cuda_merge args = {
        .part_out = from.out,
        .part_lse = from.lse,
        .part_low = from.low,
        .part_max = from.max,
        .split_out = from.split_out,
        .split_lse = from.split_lse,
        .out = describe(c, OUT),
        .lse = describe(c, LSE),
        .lse_low = describe(c, LOW),
        .max = describe(c, MAX),
        .q_position = address_of(&c->positions[0]),
        .q_position_stride = c->position_stride[0],
        .fault = address_of(&c->fault),
        .q_offset = kernel_has_sequences(c->kernel) ? 0 : s->q_offset,
        .splits = c->kernel->splits,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .q_len = (int32_t)sequences_rows(c, s->q_len),
    };
    put(p, &args, sizeof args);
}

static void put_forward(packet *p, const call *c) {
    const shape *s = c->shape;
    const bool whole = c->kernel->splits == 0;
    const parts to = whole
                       ? (parts){describe(c, OUT), describe(c, LSE), describe(c, LOW), describe(c, MAX), 0, 0}
                       : parts_of(c);
    const struct fj_cuda_forward args = {
        .query = describe(c, QUERY),
        .key = describe(c, KEY),
        .value = describe(c, VALUE),
        .out = to.out,
        .lse = to.lse,
        .lse_low = to.low,
        .max = to.max,
        .split_out = to.split_out,
        .split_lse = to.split_lse,
        .q_position = address_of(&c->positions[0]),
        .kv_position = address_of(&c->positions[1]),
        .q_position_stride = c->position_stride[0],
        .kv_position_stride = c->position_stride[1],
        .fault = address_of(&c->fault),
        .scale = s->scale,
        .q_offset = kernel_has_sequences(c->kernel) ? 0 : s->q_offset,
        .kv_offset = s->kv_offset,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .heads_kv = (int32_t)s->heads_kv,
        .q_len = (int32_t)sequences_rows(c, s->q_len),
        .kv_len = (int32_t)sequences_rows(c, s->kv_len),
        .l2_group = s->l2_group,
        .vector = vectors_of(c),
    };
    put(p, &args, sizeof args);
}

/* As DOUT, packed. */
static struct fj_cuda_tensor describe_dout_before(const call *c) {
    const int64_t columns = c->kernel->problem.value_dim, rows = sequences_rows(c, c->shape->q_len);
    return (struct fj_cuda_tensor){
        address_of(&c->dout_before),
        {c->kernel->problem.packed ? 0 : c->shape->heads_q * rows * columns, rows * columns, columns}};
}

static void put_backward(packet *p, const call *c) {
    const shape *s = c->shape;
    const struct fj_cuda_backward args = {
        .query = describe(c, QUERY),
        .key = describe(c, KEY),
        .value = describe(c, VALUE),
        .out = describe(c, call_output(c)),
        .dout = c->kernel->problem.out ? describe_dout_before(c) : describe(c, DOUT),
        .lse = describe(c, LSE),
        .lse_low = describe(c, LOW),
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
        .runs = address_of(&c->runs),
        .scale = s->scale,
        .q_offset = kernel_has_sequences(c->kernel) ? 0 : s->q_offset,
        .kv_offset = s->kv_offset,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .heads_kv = (int32_t)s->heads_kv,
        .q_len = (int32_t)sequences_rows(c, s->q_len),
        .kv_len = (int32_t)sequences_rows(c, s->kv_len),
        .l2_group = s->l2_group,
        .vector = vectors_of(c),
        .workspace_rows = (int32_t)sequences_workspace_rows(c),
    };
    put(p, &args, sizeof args);
}

static void put_sequences(packet *p, const call *c) {
    const struct fj_cuda_sequences sequences = sequences_describe(c);
    put(p, &sequences, sizeof sequences);
}

static void put_blocks(packet *p, const call *c) {
    const struct fj_cuda_block_mask blocks = blocks_describe(c);
    put(p, &blocks, sizeof blocks);
}

static void put_dropout(packet *p, const call *c) {
    const shape *s = c->shape;
    const struct fj_cuda_dropout dropout = {
        .state = address_of(&c->dropout_state),
        .seed = c->dropout_state.size > 0 ? 1 : s->seed, /* which the state replaces */
        .offset = c->dropout_state.size > 0 ? 1 : s->offset,
        .threshold = fj_dropout_threshold(s->dropout),
        .scale = call_keep_scale(c),
        .kept = 1 - s->dropout,
    };
    put(p, &dropout, sizeof dropout);
}

static void put_epilogue(packet *p, const call *c) {
    const struct fj_cuda_epilogue epilogue = {
        .raw = describe(c, RAW),
        .dout = kernel_is_backward(c->kernel) ? describe(c, DOUT) : (struct fj_cuda_tensor){0},
        .raw_vector = call_has(c, RAW) && tensor_is_vector(&c->tensors[RAW]),
    };
    put(p, &epilogue, sizeof epilogue);
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
static void put_grads(packet *p, const call *c) {
    const fj_ir *ir = c->kernel->problem.ir;
    for (size_t i = 0; i < ir->captures.len + ir->scalars.len; i++) {
        const size_t at = i < ir->captures.len ? i : MAX_CAPTURES + i - ir->captures.len;
        struct fj_cuda_capture_grad to = {0};
        if (call_wants_grads(c, (int)at))
            to = (struct fj_cuda_capture_grad){.sums = address_of(&c->grads[at].sums),
                                               .most = address_of(&c->grads[at].most),
                                               .out = address_of(&c->grads[at].out),
                                               .count = c->grads[at].count};
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
    if (c->kernel->problem.block_mask) put_blocks(p, c);
    if (kernel_has_sequences(c->kernel)) put_sequences(p, c);
    if (c->kernel->problem.dropout) put_dropout(p, c);
    if (c->kernel->problem.out) put_epilogue(p, c);
    put_captures(p, c);
    if (backward) put_grads(p, c);
}

/* As abi.h says; where any will do, another one in other modes. */
static void grid_of(const call *c, const char *entry, const mode *how, uint32_t grid[3]) {
    const shape *s = c->shape;
    const kernel *k = c->kernel;
    const int64_t m = k->variant.tile_m;
    grid[0] = grid[1] = grid[2] = 1;
    if (strcmp(entry, "fj_fwd") == 0) {
        const int64_t group = kernel_packs(k) && s->heads_kv > 0 ? s->heads_q / s->heads_kv : 1;
        grid[0] = product(sequences_tiles(c, s->q_len * group, m), 1, s->heads_q / group);
        if (k->splits > 0) grid[1] = (uint32_t)k->splits;
        if (!k->variant.mma) grid[2] = (uint32_t)FJ_FWD_SIMT_SLICES(k->problem.value_dim);
    } else if (strcmp(entry, "fj_bwd_kv") == 0) {
        grid[0] = product(sequences_tiles(c, s->kv_len, m), 1, s->heads_kv);
    } else if (strcmp(entry, "fj_bwd_recompute") == 0) {
        grid[0] = product(sequences_tiles(c, s->q_len, m), 1, s->heads_q);
    } else if (strcmp(entry, "fj_bwd_q") == 0) {
        grid[0] = product(sequences_tiles(c, s->q_len, m), 1, s->heads_q);
        const bool adds = k->problem.gradient->scatters.len > 0 && k->problem.deterministic;
        if ((s->absent & ABSENT_DQUERY) && !adds) grid[0] = 0; /* may be left out */
    } else {
        grid[0] = ((uint32_t)s->l2_group + how->schedule + how->copies) % 5 + 1;
    }
}

fj_status gpu_run(const call *c, const object *o, const mode *m, fj_emu_counts *counts, fj_error *error) {
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
        const bool measures = strcmp(k->variant.entries[i].name, "fj_bwd_recompute") == 0;
        const fj_status status = c->device->launch(o, i, grid, p.bytes, m, measures ? NULL : counts, error);
        if (status != FJ_OK) return status;
    }
    return FJ_OK;
}
