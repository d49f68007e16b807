/* What the kernels of templates/cuda are given: their one parameter, from the tensors of a call. */
#include <string.h>

#include "attn/gpu.h"
#include "attn/mask/mask.h"
#include "base/dtype.h"

_Static_assert(FJ_CUDA_MAX_RANK == FJ_MAX_RANK, "one rank on both sides");

/* ---- How much ------------------------------------------------------------------------------------- */

static size_t parameter_size(const fj_plan *plan) {
    size_t captures = plan->mod->program.ir->captures.len, scalars = plan->mod->scalar_count;
    size_t inputs = captures * sizeof(struct fj_cuda_capture) + scalars * sizeof(struct fj_cuda_scalar) +
                    (plan->problem.block_mask ? sizeof(struct fj_cuda_block_mask) : 0) +
                    (fj_jit_has_sequences(&plan->jit_problem) ? sizeof(struct fj_cuda_sequences) : 0) +
                    (plan->problem.shared_keys ? sizeof(struct fj_cuda_shared_keys) : 0);
    if (plan->problem.direction == FJ_FORWARD) return sizeof(struct fj_cuda_forward) + inputs;
    return sizeof(struct fj_cuda_backward) + inputs +
           (captures + scalars) * sizeof(struct fj_cuda_capture_grad);
}

fj_status fj_attn_gpu_check_parameters(const fj_plan *plan, fj_error *error) {
    const fj_device *device = plan->device;
    int limit = device->driver ? device->driver->parameter_limit : (int)FJ_DRIVER_PARAMETERS;
    size_t size = parameter_size(plan),
           inputs = plan->mod->program.ir->captures.len + plan->mod->scalar_count;
    if (inputs > FJ_GPU_MOST_INPUTS)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "the mod has %zu captured tensors, tables and scalars: the %s device takes %d",
                            inputs, fj_device_name(device), FJ_GPU_MOST_INPUTS);
    if (size <= (size_t)limit) return FJ_OK;
    return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                        "the mod has too many captured tensors and scalars for the %s device: %zu bytes of a "
                        "kernel's parameters, and %d is the most",
                        fj_device_name(device), size, limit);
}

/* ---- Tensors -------------------------------------------------------------------------------------- */

/* Of rank 4, or 3 (rows). Absent: NULL. */
static struct fj_cuda_tensor describe(const fj_tensor *tensor) {
    struct fj_cuda_tensor out = {.data = tensor->data};
    if (tensor->present) memcpy(out.stride, tensor->strides, sizeof out.stride);
    return out;
}

static bool is_vector(const fj_tensor *tensor) {
    int64_t size = (int64_t)fj_dtype_size(tensor->dtype);
    bool yes = tensor->present && (uintptr_t)tensor->data % 16 == 0;
    for (int d = 0; d < 3; d++) yes &= tensor->shape[d] <= 1 || tensor->strides[d] % 16 * size % 16 == 0;
    return yes;
}

static uint32_t vectors(const fj_resolved *all, bool backward) {
    const struct {
        const fj_tensor *tensor;
        uint32_t bit;
    } tensors[] = {
        {&all->query, FJ_CUDA_VECTOR_QUERY}, {&all->key, FJ_CUDA_VECTOR_KEY},
        {&all->value, FJ_CUDA_VECTOR_VALUE}, {&all->out, FJ_CUDA_VECTOR_OUT},
        {&all->dout, FJ_CUDA_VECTOR_DOUT},   {&all->dquery, FJ_CUDA_VECTOR_DQUERY},
        {&all->dkey, FJ_CUDA_VECTOR_DKEY},   {&all->dvalue, FJ_CUDA_VECTOR_DVALUE},
    };
    uint32_t vector = 0;
    for (size_t i = 0; i < (backward ? FJ_ARRAY_LEN(tensors) : 4); i++)
        if (is_vector(tensors[i].tensor)) vector |= tensors[i].bit;
    return vector;
}

/* Columns of the grid whose keys and values half of L2 holds. Query heads of one group share theirs. */
static int32_t l2_group(const fj_kernel *kernel, const fj_resolved *all) {
    int64_t half = kernel->plan->device->driver->cache / 2;
    int64_t each = all->kv_len * (all->head_dim + all->value_dim) * (int64_t)fj_dtype_size(all->key.dtype);
    int64_t columns = all->batch * all->heads_kv, most = each > 0 ? half / each : columns;
    if (most > columns) most = columns;
    if (most < 1) most = 1;
    bool by_query = kernel->plan->problem.direction == FJ_FORWARD && !kernel->variant->pack_heads;
    return (int32_t)(by_query && all->heads_kv > 0 ? most * (all->heads_q / all->heads_kv) : most);
}

/* ---- The parameter ---------------------------------------------------------------------------------- */

static void put(fj_gpu_parameters *to, const void *bytes, size_t size) {
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void put_inputs(const fj_plan *plan, const fj_resolved *all, fj_gpu_parameters *to) {
    const fj_ir *ir = plan->mod->program.ir;
    for (size_t i = 0; i < ir->captures.len; i++) {
        const fj_tensor *tensor = &all->captures[i];
        struct fj_cuda_capture capture = {.data = tensor->data};
        memcpy(capture.shape, tensor->shape, sizeof capture.shape);
        memcpy(capture.stride, tensor->strides, sizeof capture.stride);
        put(to, &capture, sizeof capture);
    }
    for (size_t i = 0; i < plan->mod->scalar_count; i++) {
        bool is_float = ir->scalars.data[i].type == FJ_TYPE_FLOAT;
        const struct fj_cuda_scalar scalar = {.f = is_float ? all->scalars[i].f : 0,
                                              .i = is_float ? 0 : all->scalars[i].i};
        put(to, &scalar, sizeof scalar);
    }
}

int64_t fj_attn_gpu_count(const fj_tensor *tensor) {
    int64_t count = 1;
    for (int d = 0; d < tensor->rank; d++) count *= tensor->shape[d];
    return count;
}

static void put_grads(const fj_plan *plan, const fj_resolved *all, const fj_workspace *layout,
                      char *workspace, fj_gpu_parameters *to) {
    size_t captures = plan->mod->program.ir->captures.len, scalars = plan->mod->scalar_count;
    char *sums = workspace + layout->sums, *most = workspace + layout->most;
    const int64_t each = plan->problem.nondeterministic ? 8 : 16;
    for (size_t i = 0; i < captures + scalars; i++) {
        const fj_tensor *tensor = i < captures ? &all->dcaptures[i] : &all->dscalars[i - captures];
        struct fj_cuda_capture_grad grad = {0};
        if (tensor->present) {
            grad.sums = sums;
            grad.most = (void *)most;
            grad.out = tensor->data;
            grad.count = fj_attn_gpu_count(tensor);
            memcpy(grad.stride, tensor->strides, sizeof grad.stride);
            sums += grad.count * each;
            most += grad.count * 4;
        }
        put(to, &grad, sizeof grad);
    }
}

static void put_sequences(const fj_resolved *all, fj_gpu_parameters *to) {
    const fj_sequences *s = &all->sequences;
    const struct fj_cuda_sequences sequences = {
        .cu_q = s->cu_q,
        .cu_kv = s->cu_kv,
        .page_table = s->page_table,
        .kv_lens = s->kv_lens,
        .q_offset = s->q_offset,
        .table_row = s->table_row,
        .page_size = (int32_t)s->page_size,
        .pages = (int32_t)s->pages,
    };
    put(to, &sequences, sizeof sequences);
}

/* The parts of all batches, in the workspace. */
static fj_tensor parts_of(const fj_tensor *result, const fj_resolved *all, char *at) {
    fj_tensor parts = *result;
    if (!result->present) return parts;
    parts.data = at;
    parts.shape[0] = all->batch;
    parts.strides[3] = 1;
    for (int d = 2; d >= 0; d--) parts.strides[d] = parts.strides[d + 1] * parts.shape[d + 1];
    return parts;
}

static void put_shared_keys(const fj_resolved *all, fj_gpu_parameters *to) {
    const struct fj_cuda_shared_keys shared = {describe(&all->dkey), describe(&all->dvalue)};
    put(to, &shared, sizeof shared);
}

static int64_t workspace_rows(const fj_resolved *all) {
    return fj_jit_workspace_rows(&(fj_launch_extents){
        .batch = all->batch, .q_len = all->q_len, .packed = all->form == FJ_FORM_PACKED});
}

static void put_forward(const fj_kernel *kernel, const fj_resolved *all, const fj_workspace *layout,
                        char *workspace, /* NOLINT(readability-non-const-parameter): kernels write there */
                        fj_gpu_parameters *to) {
    const struct fj_cuda_forward forward = {
        .query = describe(&all->query),
        .key = describe(&all->key),
        .value = describe(&all->value),
        .out = describe(&all->out),
        .lse = describe(&all->lse),
        .max = describe(&all->max),
        .lse_low = describe(&all->lse_low),
        .fault = kernel->plan->mod->program.ir->fault ? (void *)(workspace + layout->fault) : NULL,
        .scale = all->scale,
        .batch = (int32_t)all->batch,
        .heads_q = (int32_t)all->heads_q,
        .heads_kv = (int32_t)all->heads_kv,
        .q_len = (int32_t)all->q_len,
        .kv_len = (int32_t)all->kv_len,
        .l2_group = l2_group(kernel, all),
        .vector = vectors(all, false),
    };
    put(to, &forward, sizeof forward);
}

static void put_backward(const fj_kernel *kernel, const fj_resolved *all, const fj_workspace *layout,
                         char *workspace, /* NOLINT(readability-non-const-parameter): kernels write there */
                         fj_gpu_parameters *to) {
    bool atomic = kernel->plan->problem.nondeterministic && kernel->variant->mma;
    const struct fj_cuda_backward backward = {
        .query = describe(&all->query),
        .key = describe(&all->key),
        .value = describe(&all->value),
        .out = describe(&all->out),
        .dout = describe(&all->dout),
        .lse = describe(&all->lse),
        .dlse = describe(&all->dlse),
        .lse_low = describe(&all->lse_low),
        .dquery = describe(&all->dquery),
        .dkey = describe(&all->dkey),
        .dvalue = describe(&all->dvalue),
        .rows = workspace + layout->rows,
        .dquery_sums = atomic ? (void *)(workspace + layout->dquery_sums) : NULL,
        .runs = (void *)(workspace + layout->runs),
        .scale = all->scale,
        .batch = (int32_t)all->batch,
        .heads_q = (int32_t)all->heads_q,
        .heads_kv = (int32_t)all->heads_kv,
        .q_len = (int32_t)all->q_len,
        .kv_len = (int32_t)all->kv_len,
        .l2_group = l2_group(kernel, all),
        .vector = vectors(all, true),
        .workspace_rows = (int32_t)workspace_rows(all),
    };
    put(to, &backward, sizeof backward);
}

void fj_attn_gpu_fill_parameters(const fj_kernel *kernel, const fj_resolved *all, const fj_workspace *layout,
                                 char *workspace, fj_gpu_parameters *ret_parameters) {
    const fj_plan *plan = kernel->plan;
    const bool backward = plan->problem.direction == FJ_BACKWARD,
               shared = backward && plan->problem.shared_keys;
    fj_resolved call = *all;
    if (shared) {
        call.dkey = parts_of(&all->dkey, all, workspace + layout->dkey);
        call.dvalue = parts_of(&all->dvalue, all, workspace + layout->dvalue);
    }
    ret_parameters->size = 0;
    (backward ? put_backward : put_forward)(kernel, &call, layout, workspace, ret_parameters);
    if (plan->problem.block_mask) put(ret_parameters, &all->block_mask->lists, sizeof all->block_mask->lists);
    if (fj_jit_has_sequences(&plan->jit_problem)) put_sequences(all, ret_parameters);
    if (shared) put_shared_keys(all, ret_parameters);
    put_inputs(plan, all, ret_parameters);
    if (backward) put_grads(plan, all, layout, workspace, ret_parameters);
}
