/* What the kernels of templates/cuda are given: their one parameter, from the tensors of a call. */
#include <string.h>

#include "attn/gpu.h"
#include "attn/mask/mask.h"
#include "base/dtype.h"
#include "base/philox.h"

_Static_assert(FJ_CUDA_MAX_RANK == FJ_MAX_RANK, "one rank on both sides");

/* ---- How much ------------------------------------------------------------------------------------- */

static size_t parameter_size(const fj_plan *plan) {
    size_t captures = plan->mod->program.ir->captures.len, scalars = plan->mod->scalar_count;
    size_t inputs = captures * sizeof(struct fj_cuda_capture) + scalars * sizeof(struct fj_cuda_scalar) +
                    (plan->problem.block_mask ? sizeof(struct fj_cuda_block_mask) : 0) +
                    (fj_jit_has_sequences(&plan->jit_problem) ? sizeof(struct fj_cuda_sequences) : 0) +
                    (plan->problem.shared_keys ? sizeof(struct fj_cuda_shared_keys) : 0) +
                    (plan->problem.dropout ? sizeof(struct fj_cuda_dropout) : 0) +
                    (plan->jit_problem.out ? sizeof(struct fj_cuda_epilogue) : 0);
    if (plan->problem.direction == FJ_FORWARD)
        return FJ_MOST(sizeof(struct fj_cuda_forward), sizeof(struct fj_cuda_merge)) + inputs;
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

/* ---- The parameter ---------------------------------------------------------------------------------- */

int64_t fj_attn_gpu_count(const fj_tensor *tensor) { return fj_gpu_count(tensor); }

static void put_inputs(const fj_plan *plan, const fj_resolved *all, fj_gpu_parameters *to) {
    const fj_ir *ir = plan->mod->program.ir;
    for (size_t i = 0; i < ir->captures.len; i++) fj_gpu_put_capture(&all->captures[i], to);
    for (size_t i = 0; i < plan->mod->scalar_count; i++)
        fj_gpu_put_scalar(ir->scalars.data[i].type == FJ_TYPE_FLOAT, all->scalars[i], to);
}

static void put_grads(const fj_plan *plan, const fj_gpu_facts *facts, const fj_resolved *all,
                      const fj_workspace *layout, char *workspace, fj_gpu_parameters *to) {
    size_t captures = plan->mod->program.ir->captures.len, scalars = plan->mod->scalar_count;
    char *sums = workspace + layout->sums, *most = workspace + layout->most;
    for (size_t i = 0; i < captures + scalars; i++)
        fj_gpu_put_grad(facts, i < captures ? &all->dcaptures[i] : &all->dscalars[i - captures], &sums, &most,
                        to);
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
    fj_gpu_put(to, &sequences, sizeof sequences);
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
    const struct fj_cuda_shared_keys shared = {fj_gpu_describe(&all->dkey), fj_gpu_describe(&all->dvalue)};
    fj_gpu_put(to, &shared, sizeof shared);
}

static void put_dropout(const fj_dropout *of, fj_gpu_parameters *to) {
    const struct fj_cuda_dropout dropout = {
        .state = of->state,
        .seed = of->seed,
        .offset = of->offset,
        .threshold = fj_dropout_threshold(of->probability),
        .scale = fj_dropout_scale(of),
        .kept = 1 - of->probability,
    };
    fj_gpu_put(to, &dropout, sizeof dropout);
}

/* The gradient of the output before its mod, in the workspace: as dout, packed. */
static fj_tensor dout_before(const fj_tensor *dout, char *at) {
    fj_tensor before = *dout;
    int64_t stride = 1;
    before.data = at;
    for (int d = 3; d >= 0; d--) {
        before.strides[d] = d > 0 || dout->shape[d] > 1 ? stride : 0; /* packed sequences: one batch */
        stride *= dout->shape[d];
    }
    return before;
}

static void put_epilogue(const fj_resolved *all, int64_t element, fj_gpu_parameters *to) {
    const struct fj_cuda_epilogue epilogue = {fj_gpu_describe(&all->out_raw), fj_gpu_describe(&all->dout),
                                              fj_gpu_is_vector(&all->out_raw, element)};
    fj_gpu_put(to, &epilogue, sizeof epilogue);
}

static int64_t workspace_rows(const fj_resolved *all) {
    return fj_gpu_workspace_rows(&(fj_launch_extents){
        .batch = all->batch, .q_len = all->q_len, .packed = all->form == FJ_FORM_PACKED});
}

fj_launch_extents fj_attn_gpu_extents(const fj_kernel *kernel, const fj_resolved *all) {
    return (fj_launch_extents){.batch = all->batch,
                               .heads_q = all->heads_q,
                               .heads_kv = all->heads_kv,
                               .q_len = all->q_len,
                               .kv_len = all->kv_len,
                               .packed = all->form == FJ_FORM_PACKED,
                               .largest = -1,
                               .multiprocessors = kernel->plan->device->features.multiprocessors};
}

void fj_attn_gpu_fill_parameters(const fj_kernel *kernel, const fj_resolved *all, const fj_workspace *layout,
                                 char *workspace, bool merge, fj_gpu_parameters *ret_parameters) {
    const fj_launch_extents of = fj_attn_gpu_extents(kernel, all);
    const fj_plan *plan = kernel->plan;
    const bool backward = plan->problem.direction == FJ_BACKWARD,
               shared = backward && plan->problem.shared_keys;
    fj_resolved call = *all;
    if (shared) {
        call.dkey = parts_of(&all->dkey, all, workspace + layout->dkey);
        call.dvalue = parts_of(&all->dvalue, all, workspace + layout->dvalue);
    }
    if (backward && plan->jit_problem.out) {
        call.out = all->out_raw;
        call.dout = dout_before(&all->dout, workspace + layout->dout);
    }
    const fj_gpu_facts facts = fj_jit_facts(&plan->jit_problem, kernel->variant);
    const int64_t cache = plan->device->driver->cache;
    ret_parameters->size = 0;
    if (backward)
        fj_gpu_put_backward(&facts, &call, cache, layout, workspace, workspace_rows(all), ret_parameters);
    else if (merge)
        fj_gpu_put_merge(&facts, &call, &of, layout, workspace, ret_parameters);
    else
        fj_gpu_put_forward(&facts, &call, &of, cache, layout, workspace, ret_parameters);
    if (plan->problem.block_mask)
        fj_gpu_put(ret_parameters, &all->block_mask->lists, sizeof all->block_mask->lists);
    if (fj_jit_has_sequences(&plan->jit_problem)) put_sequences(all, ret_parameters);
    if (shared) put_shared_keys(all, ret_parameters);
    if (plan->problem.dropout) put_dropout(&all->dropout, ret_parameters);
    if (plan->jit_problem.out) put_epilogue(all, facts.element, ret_parameters);
    put_inputs(plan, all, ret_parameters);
    if (backward) put_grads(plan, &facts, all, layout, workspace, ret_parameters);
}
