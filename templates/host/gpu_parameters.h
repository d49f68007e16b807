/* The one parameter of the kernels for a GPU, from the tensors of a call. Reads fj_tensor, fj_scalar and fj_resolved, which
 * are defined before it: the library's (attn/resolved.h), and of the files that fj_plan_emit_c writes call.h's.
 *
 *     | call | block mask, sequences, shared keys (the library) | captures | scalars | gradients of both |     templates/cuda/abi.h
 */
#ifndef FJ_HOST_GPU_PARAMETERS_H
#define FJ_HOST_GPU_PARAMETERS_H

#include <string.h>

#include "gpu_launch.h"

enum { FJ_GPU_PARAMETERS = 32764 }; /* bytes, on any device */

typedef struct fj_gpu_parameters {
    _Alignas(16) char bytes[FJ_GPU_PARAMETERS];
    size_t size;
} fj_gpu_parameters;

static inline void fj_gpu_put(fj_gpu_parameters *to, const void *bytes, size_t size) {
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

/* ---- Tensors -------------------------------------------------------------------------------------- */

/* Of rank 4, or 3 (rows). Absent: NULL. */
static inline struct fj_cuda_tensor fj_gpu_describe(const fj_tensor *tensor) {
    struct fj_cuda_tensor out = {.data = tensor->data};
    if (tensor->present) memcpy(out.stride, tensor->strides, sizeof out.stride);
    return out;
}

/* Elements of a gradient. */
static inline int64_t fj_gpu_count(const fj_tensor *tensor) {
    int64_t count = 1;
    for (int d = 0; d < tensor->rank; d++) count *= tensor->shape[d];
    return count;
}

static inline bool fj_gpu_is_vector(const fj_tensor *tensor, int64_t size) {
    bool yes = tensor->present && (uintptr_t)tensor->data % 16 == 0;
    for (int d = 0; d < 3; d++) yes &= tensor->shape[d] <= 1 || tensor->strides[d] % 16 * size % 16 == 0;
    return yes;
}

static inline uint32_t fj_gpu_vectors(const fj_gpu_facts *facts, const fj_resolved *all) {
    const struct {
        const fj_tensor *tensor;
        uint32_t bit;
    } tensors[] = {
        {&all->query, FJ_CUDA_VECTOR_QUERY}, {&all->key, FJ_CUDA_VECTOR_KEY},
        {&all->value, FJ_CUDA_VECTOR_VALUE}, {&all->out, FJ_CUDA_VECTOR_OUT},
        {&all->dout, FJ_CUDA_VECTOR_DOUT},   {&all->dquery, FJ_CUDA_VECTOR_DQUERY},
        {&all->dkey, FJ_CUDA_VECTOR_DKEY},   {&all->dvalue, FJ_CUDA_VECTOR_DVALUE},
    };
    const size_t count = facts->backward ? sizeof tensors / sizeof *tensors : 4;
    uint32_t vector = 0;
    for (size_t i = 0; i < count; i++)
        if (fj_gpu_is_vector(tensors[i].tensor, facts->element)) vector |= tensors[i].bit;
    return vector;
}

/* Columns of the grid whose keys and values half of L2, of `cache` bytes, holds. Query heads of one group share theirs. */
static inline int32_t fj_gpu_l2_group(const fj_gpu_facts *facts, const fj_resolved *all, int64_t cache) {
    int64_t each = all->kv_len * (all->head_dim + all->value_dim) * facts->element;
    int64_t columns = all->batch * all->heads_kv, most = each > 0 ? cache / 2 / each : columns;
    if (most > columns) most = columns;
    if (most < 1) most = 1;
    bool by_query = !facts->backward && !facts->pack_heads;
    return (int32_t)(by_query && all->heads_kv > 0 ? most * (all->heads_q / all->heads_kv) : most);
}

/* ---- Calls ---------------------------------------------------------------------------------------- */

/* What the parts of split keys give: of each row, for all parts, out, then lse, then lse_low, then the maximum. */
typedef struct fj_gpu_parts {
    struct fj_cuda_tensor out, lse, low, max;
    int64_t split_out, split_lse;
} fj_gpu_parts;

/* Of the first part; packed sequences have one batch. */
static inline struct fj_cuda_tensor fj_gpu_part(const fj_launch_extents *of, char *at, int64_t columns) {
    return (struct fj_cuda_tensor){
        at, {of->packed ? 0 : of->heads_q * of->q_len * columns, of->q_len * columns, columns}};
}
static inline fj_gpu_parts fj_gpu_parts_of(const fj_gpu_facts *facts, const fj_launch_extents *of,
                                           const fj_workspace *layout, char *workspace) {
    const int64_t rows = fj_gpu_rows(of), v = facts->value_dim,
                  each = fj_gpu_splits(facts, of) * rows * facts->real;
    char *at = workspace + layout->parts;
    fj_gpu_parts parts = {.out = fj_gpu_part(of, at, v),
                          .lse = fj_gpu_part(of, at + each * v, 1),
                          .low = fj_gpu_part(of, at + each * (v + 1), 1),
                          .split_out = rows * v,
                          .split_lse = rows};
    if (facts->max) parts.max = fj_gpu_part(of, at + each * (v + 2), 1);
    return parts;
}

static inline struct fj_cuda_fault *fj_gpu_fault(const fj_gpu_facts *facts, const fj_workspace *layout,
                                                 char *workspace) {
    return facts->notes ? (struct fj_cuda_fault *)(void *)(workspace + layout->fault) : NULL;
}

/* Of fj_fwd. */
static inline void fj_gpu_put_forward(const fj_gpu_facts *facts, const fj_resolved *all,
                                      const fj_launch_extents *of, int64_t cache, const fj_workspace *layout,
                                      char *workspace, fj_gpu_parameters *to) {
    fj_gpu_parts results = {.out = fj_gpu_describe(&all->out),
                            .lse = fj_gpu_describe(&all->lse),
                            .low = fj_gpu_describe(&all->lse_low),
                            .max = fj_gpu_describe(&all->max)};
    if (facts->splits != 1) results = fj_gpu_parts_of(facts, of, layout, workspace);
    const struct fj_cuda_forward forward = {
        .query = fj_gpu_describe(&all->query),
        .key = fj_gpu_describe(&all->key),
        .value = fj_gpu_describe(&all->value),
        .out = results.out,
        .lse = results.lse,
        .max = results.max,
        .lse_low = results.low,
        .split_out = results.split_out,
        .split_lse = results.split_lse,
        .fault = fj_gpu_fault(facts, layout, workspace),
        .scale = all->scale,
        .batch = (int32_t)all->batch,
        .heads_q = (int32_t)all->heads_q,
        .heads_kv = (int32_t)all->heads_kv,
        .q_len = (int32_t)all->q_len,
        .kv_len = (int32_t)all->kv_len,
        .l2_group = fj_gpu_l2_group(facts, all, cache),
        .vector = fj_gpu_vectors(facts, all),
    };
    fj_gpu_put(to, &forward, sizeof forward);
}

/* Of fj_fwd_merge, in the place of fj_fwd's. */
static inline void fj_gpu_put_merge(const fj_gpu_facts *facts, const fj_resolved *all,
                                    const fj_launch_extents *of, const fj_workspace *layout, char *workspace,
                                    fj_gpu_parameters *to) {
    const fj_gpu_parts parts = fj_gpu_parts_of(facts, of, layout, workspace);
    const struct fj_cuda_merge merge = {
        .part_out = parts.out,
        .part_lse = parts.lse,
        .part_low = parts.low,
        .part_max = parts.max,
        .split_out = parts.split_out,
        .split_lse = parts.split_lse,
        .out = fj_gpu_describe(&all->out),
        .lse = fj_gpu_describe(&all->lse),
        .max = fj_gpu_describe(&all->max),
        .lse_low = fj_gpu_describe(&all->lse_low),
        .fault = fj_gpu_fault(facts, layout, workspace),
        .splits = (int32_t)fj_gpu_splits(facts, of),
        .batch = (int32_t)all->batch,
        .heads_q = (int32_t)all->heads_q,
        .q_len = (int32_t)all->q_len,
    };
    fj_gpu_put(to, &merge, sizeof merge);
}

/* rows: queries of a head in the workspace. */
static inline void fj_gpu_put_backward(const fj_gpu_facts *facts, const fj_resolved *all, int64_t cache,
                                       const fj_workspace *layout, char *workspace, int64_t rows,
                                       fj_gpu_parameters *to) {
    const bool atomic = !facts->deterministic && facts->mma;
    const struct fj_cuda_backward backward = {
        .query = fj_gpu_describe(&all->query),
        .key = fj_gpu_describe(&all->key),
        .value = fj_gpu_describe(&all->value),
        .out = fj_gpu_describe(&all->out),
        .dout = fj_gpu_describe(&all->dout),
        .lse = fj_gpu_describe(&all->lse),
        .dlse = fj_gpu_describe(&all->dlse),
        .lse_low = fj_gpu_describe(&all->lse_low),
        .dquery = fj_gpu_describe(&all->dquery),
        .dkey = fj_gpu_describe(&all->dkey),
        .dvalue = fj_gpu_describe(&all->dvalue),
        .rows = workspace + layout->rows,
        .dquery_sums = atomic ? (float *)(void *)(workspace + layout->dquery_sums) : NULL,
        .runs = (int64_t *)(void *)(workspace + layout->runs),
        .scale = all->scale,
        .batch = (int32_t)all->batch,
        .heads_q = (int32_t)all->heads_q,
        .heads_kv = (int32_t)all->heads_kv,
        .q_len = (int32_t)all->q_len,
        .kv_len = (int32_t)all->kv_len,
        .l2_group = fj_gpu_l2_group(facts, all, cache),
        .vector = fj_gpu_vectors(facts, all),
        .workspace_rows = (int32_t)rows,
    };
    fj_gpu_put(to, &backward, sizeof backward);
}

/* ---- Captures and scalars --------------------------------------------------------------------------- */

static inline void fj_gpu_put_capture(const fj_tensor *tensor, fj_gpu_parameters *to) {
    struct fj_cuda_capture capture = {.data = tensor->data};
    memcpy(capture.shape, tensor->shape, sizeof capture.shape);
    memcpy(capture.stride, tensor->strides, sizeof capture.stride);
    fj_gpu_put(to, &capture, sizeof capture);
}

static inline void fj_gpu_put_scalar(bool is_float, fj_scalar value, fj_gpu_parameters *to) {
    const struct fj_cuda_scalar scalar = {.f = is_float ? value.f : 0, .i = is_float ? 0 : value.i};
    fj_gpu_put(to, &scalar, sizeof scalar);
}

/* sums, most: where those of this gradient are; moved on to the next. */
static inline void fj_gpu_put_grad(const fj_gpu_facts *facts, const fj_tensor *tensor, char **sums,
                                   char **most, fj_gpu_parameters *to) {
    struct fj_cuda_capture_grad grad = {.sums = NULL};
    if (tensor->present) {
        grad.sums = *sums;
        grad.most = (uint32_t *)(void *)*most;
        grad.out = tensor->data;
        grad.count = fj_gpu_count(tensor);
        memcpy(grad.stride, tensor->strides, sizeof grad.stride);
        *sums += grad.count * (facts->deterministic ? 16 : 8);
        *most += grad.count * 4;
    }
    fj_gpu_put(to, &grad, sizeof grad);
}

/* ---- Extents -------------------------------------------------------------------------------------------- */

enum { FJ_GPU_MOST_GRID = INT32_MAX, FJ_GPU_TILE_MARGIN = 1024 };

/* Whether the kernels' 32-bit counters hold: lengths and rows with room for a tile past the last one, steps of a walk
 * twice. What does not, and its value, or NULL. */
static inline const char *fj_gpu_too_large(const fj_resolved *all, bool packed, int64_t *ret_value) {
    const int64_t most = FJ_GPU_MOST_GRID - FJ_GPU_TILE_MARGIN, batch = packed ? 1 : all->batch;
    const int64_t group = all->heads_kv > 0 ? all->heads_q / all->heads_kv : 0;
    *ret_value = all->q_len;
    if (*ret_value > most) return "queries of a head";
    *ret_value = all->kv_len;
    if (*ret_value > most) return "keys of a head";
    if (__builtin_mul_overflow(all->batch, all->heads_q, ret_value) || *ret_value > FJ_GPU_MOST_GRID)
        return "heads of all batches";
    if (__builtin_mul_overflow(all->batch, all->heads_kv, ret_value) || *ret_value > FJ_GPU_MOST_GRID)
        return "key heads of all batches";
    if (__builtin_mul_overflow(group, all->q_len, ret_value) || *ret_value > most)
        return "queries of all heads that share keys";
    /* 2^62 divided by the most that a row takes of the workspace */
    if (__builtin_mul_overflow(batch * all->heads_q, all->q_len, ret_value) || *ret_value > (int64_t)1 << 50)
        return "queries of all heads and batches";
    return NULL;
}

/* One more gradient that the extents count. False: there are too many elements. */
static inline bool fj_gpu_add_gradient(fj_launch_extents *of, const fj_tensor *tensor) {
    const int64_t count = tensor->present ? fj_gpu_count(tensor) : -1;
    if (count > of->largest) of->largest = count;
    return count <= 0 || !__builtin_add_overflow(of->gradients, count, &of->gradients);
}

/* ---- Zeros ---------------------------------------------------------------------------------------------- */

/* Zeros for a gradient of elements of `size` bytes, wherever its strides put it: the longest runs that it has. What `fill`
 * gives, 0 to go on. */
static inline int fj_gpu_clear(const fj_tensor *tensor, int64_t size,
                               int (*fill)(void *user, char *to, size_t bytes), void *user) {
    int64_t run = 1, index[FJ_CUDA_MAX_RANK] = {0};
    int rank = tensor->rank, status = 0;
    if (!tensor->present || fj_gpu_count(tensor) == 0) return 0;
    while (rank > 0 && (tensor->shape[rank - 1] == 1 || tensor->strides[rank - 1] == run))
        run *= tensor->shape[--rank];
    for (bool more = true; more && status == 0;) {
        int64_t at = 0;
        int d = rank - 1;
        for (int i = 0; i < rank; i++) at += index[i] * tensor->strides[i];
        status = fill(user, tensor->data + at * size, (size_t)(run * size));
        while (d >= 0 && ++index[d] == tensor->shape[d]) index[d--] = 0;
        more = d >= 0;
    }
    return status;
}

#endif
