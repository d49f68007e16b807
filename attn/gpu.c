/* Launches of the kernels of templates/cuda. gpu.h says how the files share the work. */
#include "attn/gpu.h"

#include <string.h>

#include "attn/mask/mask.h"
#include "base/dtype.h"

/* ---- Getting ready --------------------------------------------------------------------------------- */

static size_t literal_size(const fj_tensor *literal) {
    size_t size = literal->present ? (size_t)fj_attn_gpu_count(literal) * fj_dtype_size(literal->dtype) : 0;
    return (size + 15) / 16 * 16;
}

/* The tables of the mod's text, where a GPU can read them. */
static fj_status upload_literals(fj_kernel *kernel, fj_error *error) {
    const fj_mod *mod = kernel->plan->mod;
    const fj_driver *driver = kernel->plan->device->driver;
    uint64_t address = 0;
    size_t size = 0;
    for (size_t i = 0; i < mod->program.ir->captures.len; i++) size += literal_size(&mod->literals[i]);
    if (driver->is_host || size == 0) return FJ_OK;
    fj_status status =
        driver->alloc(driver, &kernel->plan->device->context->allocator, size, &address, error);
    kernel->gpu->literals = (char *)(uintptr_t)address;
    for (size_t i = 0; i < mod->program.ir->captures.len && status == FJ_OK; i++) {
        const fj_tensor *literal = &mod->literals[i];
        if (!literal->present) continue;
        size_t bytes = (size_t)fj_attn_gpu_count(literal) * fj_dtype_size(literal->dtype);
        status = driver->upload(driver, address, literal->data, bytes, NULL, error);
        address += literal_size(literal);
    }
    return status == FJ_OK ? driver->wait(driver, NULL, error) : status;
}

static void use_literals(const fj_kernel *kernel, fj_tensor *captures) {
    const fj_mod *mod = kernel->plan->mod;
    char *at = kernel->gpu->literals;
    for (size_t i = 0; i < mod->program.ir->captures.len && at; i++) {
        if (!mod->literals[i].present) continue;
        captures[i].data = at;
        at += literal_size(&mod->literals[i]);
    }
}

fj_status fj_attn_gpu_prepare(fj_kernel *kernel, fj_error *error) {
    const fj_device *device = kernel->plan->device;
    const fj_variant *variant = kernel->variant;
    const fj_code *code = fj_jit_object_code(kernel->object);
    kernel->gpu = fj_alloc_zeroed(&device->context->allocator, sizeof *kernel->gpu);
    if (!kernel->gpu) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    fj_status status = FJ_OK;
    for (int i = 0; i < variant->entry_count && status == FJ_OK; i++) {
        const fj_entry *entry = &variant->entries[i];
        status = device->driver->prepare(code, entry->name, entry->threads, entry->shared,
                                         &kernel->gpu->entries[i], error);
    }
    return status == FJ_OK ? upload_literals(kernel, error) : status;
}

void fj_attn_gpu_finish(fj_kernel *kernel) {
    const fj_device *device = kernel->plan->device;
    if (!kernel->gpu) return;
    device->driver->free(device->driver, &device->context->allocator,
                         (uint64_t)(uintptr_t)kernel->gpu->literals);
    fj_free(&device->context->allocator, kernel->gpu, sizeof *kernel->gpu);
    kernel->gpu = NULL;
}

/* ---- Extents ------------------------------------------------------------------------------------------- */

static fj_status too_large(fj_error *error, const char *what, int64_t value) {
    return fj_error_set(error, FJ_ERR_UNSUPPORTED, "%s: %lld; the limit is %d", what, (long long)value,
                        FJ_GPU_MOST_GRID);
}

static fj_status check_extents(const fj_resolved *all, fj_error *error) {
    int64_t value = 0;
    const char *what = fj_gpu_too_large(all, all->form == FJ_FORM_PACKED, &value);
    return what ? too_large(error, what, value) : FJ_OK;
}

static fj_status check_captures(const fj_kernel *kernel, const fj_resolved *all, fj_error *error) {
    const fj_ir *ir = kernel->plan->mod->program.ir;
    for (size_t i = 0; i < ir->captures.len && !kernel->variant->wide_captures; i++)
        for (int d = 0; d < all->captures[i].rank; d++)
            if (all->captures[i].shape[d] > INT32_MAX)
                return fj_error_set(
                    error, FJ_ERR_UNSUPPORTED,
                    "captured tensor '%.100s' has an extent of %lld: kernel %s takes 2147483647",
                    ir->captures.data[i].name, (long long)all->captures[i].shape[d], kernel->variant->name);
    return FJ_OK;
}

static bool add_gradients(fj_launch_extents *of, const fj_plan *plan, const fj_resolved *all) {
    bool fits = true;
    for (size_t i = 0; i < plan->mod->program.ir->captures.len; i++)
        fits &= fj_gpu_add_gradient(of, &all->dcaptures[i]);
    for (size_t i = 0; i < plan->mod->scalar_count; i++) fits &= fj_gpu_add_gradient(of, &all->dscalars[i]);
    return fits;
}

/* What the launches of a call are made from: extents, and with them blocks, that kernels can count, and a workspace. */
static fj_status measure(const fj_kernel *kernel, const fj_resolved *all, fj_launch_extents *ret_extents,
                         fj_workspace *ret_workspace, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    const fj_variant *variant = kernel->variant;
    fj_status status = check_extents(all, error);
    if (status == FJ_OK) status = check_captures(kernel, all, error);
    if (status != FJ_OK) return status;
    *ret_extents = fj_attn_gpu_extents(kernel, all);
    if (plan->problem.shared_keys && plan->problem.direction == FJ_BACKWARD) {
        const int64_t keys = all->heads_kv * all->kv_len;
        ret_extents->key_elements = all->dkey.present ? keys * all->head_dim : 0;
        ret_extents->value_elements = all->dvalue.present ? keys * all->value_dim : 0;
    }
    const bool fits = add_gradients(ret_extents, plan, all);
    for (int i = 0; i < variant->entry_count; i++) {
        const int64_t blocks = fj_jit_blocks(variant, &variant->entries[i], ret_extents);
        if (blocks > FJ_GPU_MOST_GRID) return too_large(error, "blocks of a launch", blocks);
    }
    if (fits && fj_jit_lay_out(&plan->jit_problem, variant, ret_extents, ret_workspace)) return FJ_OK;
    return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the workspace is larger than memory can be addressed");
}

int64_t fj_attn_gpu_splits(const fj_kernel *kernel, const fj_resolved *all) {
    const fj_launch_extents extents = fj_attn_gpu_extents(kernel, all);
    return fj_jit_splits(&kernel->plan->jit_problem, kernel->variant, &extents);
}

fj_status fj_attn_gpu_lay_out(const fj_kernel *kernel, const fj_resolved *all, fj_workspace *ret_layout,
                              fj_error *error) {
    fj_launch_extents extents;
    return measure(kernel, all, &extents, ret_layout, error);
}

/* ---- Launching --------------------------------------------------------------------------------------------- */

/* A call as it is launched, on the stack. */
typedef struct ready {
    const fj_kernel *kernel;
    const fj_call *call;
    fj_resolved all;
    fj_launch_extents extents;
    fj_workspace layout;
    char *workspace, *storage; /* of the arrays of all */
} ready;

static fj_status resolve(ready *r, size_t workspace_size, fj_error *error) {
    const fj_plan *plan = r->kernel->plan;
    fj_status status = fj_attn_resolve(plan, &r->call->args, false, r->storage, &r->all, error);
    if (status == FJ_OK && plan->problem.block_mask)
        status = fj_mask_check_device(r->all.block_mask, plan->device, error);
    if (status != FJ_OK) return status;
    use_literals(r->kernel, (fj_tensor *)(void *)r->storage);
    status = measure(r->kernel, &r->all, &r->extents, &r->layout, error);
    if (status == FJ_OK && r->layout.size > 0 && !r->workspace)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is missing");
    if (status != FJ_OK || workspace_size >= r->layout.size) return status;
    return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace has %zu bytes, this launch needs %zu",
                        workspace_size, r->layout.size);
}

static fj_status launch_entry(const ready *r, int index, const fj_gpu_parameters *parameters,
                              fj_error *error) {
    const fj_driver *driver = r->kernel->plan->device->driver;
    const fj_entry *entry = &r->kernel->variant->entries[index];
    const int64_t parts = entry->grid == FJ_GRID_QUERY_TILES
                            ? fj_jit_splits(&r->kernel->plan->jit_problem, r->kernel->variant, &r->extents)
                            : 1;
    const uint32_t grid[3] = {(uint32_t)fj_jit_blocks(r->kernel->variant, entry, &r->extents),
                              (uint32_t)parts, (uint32_t)entry->slices};
    return driver->launch(driver, &r->kernel->gpu->entries[index], grid, parameters->bytes, &r->call->launch,
                          error);
}

static fj_status fill(const ready *r, char *to, size_t size, fj_error *error) {
    return fj_device_fill(r->kernel->plan->device, to, 0, size, r->call->launch.stream, error);
}

typedef struct filling {
    const ready *of;
    fj_error *error;
} filling;

static int fill_run(void *user, char *to, size_t size) {
    const filling *f = user;
    return (int)fill(f->of, to, size, f->error);
}

/* Zeros for a gradient. */
static fj_status clear(const ready *r, const fj_tensor *tensor, fj_error *error) {
    filling f = {r, error};
    return (fj_status)fj_gpu_clear(tensor, (int64_t)fj_dtype_size(tensor->dtype), fill_run, &f);
}

/* Gradients that are zero by the mod's text, so that no kernel makes them; without query heads, all. */
static fj_status clear_gradients(const ready *r, fj_error *error) {
    const fj_plan *plan = r->kernel->plan;
    fj_status status = FJ_OK;
    if (fj_jit_adds_gradients(&plan->jit_problem) && r->all.heads_q > 0) return FJ_OK;
    if (r->all.heads_q == 0) status = clear(r, &r->all.dkey, error);
    if (r->all.heads_q == 0 && status == FJ_OK) status = clear(r, &r->all.dvalue, error);
    for (size_t i = 0; i < plan->mod->program.ir->captures.len && status == FJ_OK; i++)
        status = clear(r, &r->all.dcaptures[i], error);
    for (size_t i = 0; i < plan->mod->scalar_count && status == FJ_OK; i++)
        status = clear(r, &r->all.dscalars[i], error);
    return status;
}

/* Of a launch that is done. */
static fj_status report_fault(const ready *r, fj_error *error) {
    const struct fj_cuda_fault *noted = (const void *)(r->workspace + r->layout.fault);
    const fj_fault fault = {noted->found != 0, noted->b,  noted->h,
                            noted->q,          noted->kv, (fj_fault_of)noted->where};
    return fault.found ? fj_attn_explain(r->kernel->plan, &r->all, &fault, NULL, error) : FJ_OK;
}

fj_status fj_attn_gpu_launch(const fj_kernel *kernel, const fj_call *call, char *workspace,
                             size_t workspace_size, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    _Alignas(16) char storage[FJ_GPU_RESOLVED];
    fj_gpu_parameters parameters;
    ready r = {.kernel = kernel, .call = call, .workspace = workspace, .storage = storage};
    fj_status status = resolve(&r, workspace_size, error);
    if (status != FJ_OK) return status;
    bool forward = plan->problem.direction == FJ_FORWARD,
         notes = forward && fj_jit_notes_faults(&plan->jit_problem);
    fj_attn_gpu_fill_parameters(kernel, &r.all, &r.layout, workspace, false, &parameters);
    const fj_driver *driver = plan->device->driver;
    if (driver->check) status = driver->check(&kernel->gpu->entries[0], call->launch.stream, error);
    if (status == FJ_OK && notes)
        status = fill(&r, workspace + r.layout.fault, sizeof(struct fj_cuda_fault), error);
    /* Kernels divide by heads. */
    for (int i = 0; i < kernel->variant->entry_count && status == FJ_OK && r.all.heads_q > 0; i++) {
        const bool merge = forward && i == 1; /* of the parts of split keys */
        if (merge) fj_attn_gpu_fill_parameters(kernel, &r.all, &r.layout, workspace, true, &parameters);
        status = launch_entry(&r, i, &parameters, error);
    }
    if (status == FJ_OK && !forward) status = clear_gradients(&r, error);
    return status == FJ_OK && notes && driver->is_host ? report_fault(&r, error) : status;
}

fj_status fj_attn_gpu_check(const fj_kernel *kernel, const fj_call *call,
                            char *workspace, /* NOLINT(readability-non-const-parameter): as in a launch */
                            size_t workspace_size, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    const fj_driver *driver = plan->device->driver;
    _Alignas(16) char storage[FJ_GPU_RESOLVED];
    ready r = {.kernel = kernel, .call = call, .workspace = workspace, .storage = storage};
    struct fj_cuda_fault noted = {0};
    fj_status status = resolve(&r, workspace_size, error);
    if (status == FJ_OK) status = driver->wait(driver, call->launch.stream, error);
    if (status != FJ_OK || plan->problem.direction != FJ_FORWARD || !fj_jit_notes_faults(&plan->jit_problem))
        return status;
    uint64_t from = (uint64_t)(uintptr_t)(workspace + r.layout.fault);
    status = driver->download(driver, &noted, from, sizeof noted, call->launch.stream, error);
    if (status == FJ_OK) status = driver->wait(driver, call->launch.stream, error);
    if (status != FJ_OK || !noted.found) return status;
    const fj_fault fault = {true, noted.b, noted.h, noted.q, noted.kv, (fj_fault_of)noted.where};
    const int64_t columns = fault.of == FJ_FAULT_OUT ? r.all.value_dim : r.all.kv_len;
    bool inside = noted.where >= FJ_CUDA_FAULT_SCORE && noted.where <= FJ_CUDA_FAULT_SINK && noted.b >= 0 &&
                  noted.b < r.all.batch && noted.h >= 0 && noted.h < r.all.heads_q && noted.q >= 0 &&
                  (noted.q < r.all.q_len || r.all.sequences.q_offset) && noted.kv >= 0 &&
                  (noted.kv < columns || fault.of == FJ_FAULT_SINK);
    if (!inside)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "no launch of this kernel used this workspace last");
    return fj_attn_explain(plan, &r.all, &fault, call->launch.stream, error);
}
