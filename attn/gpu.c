/* Launches of the kernels of templates/cuda. gpu.h says how the files share the work.
 *
 * The workspace of a launch; each part at a multiple of 256 bytes:
 *
 *     forward     | fault |                                  zeroed on the stream, where the mod may read badly
 *     backward    | rows | sums | most | dquery_sums |       templates/cuda/abi.h
 */
#include "attn/gpu.h"

#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"

enum { MOST_GRID = INT32_MAX, TILE_MARGIN = 1024, BLOCKS_PER_MULTIPROCESSOR = 8 };

/* ---- Getting ready --------------------------------------------------------------------------------- */

static size_t literal_size(const fj_tensor *literal) {
    size_t size = literal->present ? (size_t)fj_attn_gpu_count(literal) * fj_dtype_size(literal->dtype) : 0;
    return (size + 15) / 16 * 16;
}

/* The tables of the mod's text, where a GPU can read them. */
static fj_status upload_literals(fj_kernel *kernel, fj_error *error) {
    const fj_mod *mod = kernel->plan->mod;
    const fj_cuda_device *gpu = kernel->plan->device->cuda;
    uint64_t address = 0;
    size_t size = 0;
    for (size_t i = 0; i < mod->program.ir->captures.len; i++) size += literal_size(&mod->literals[i]);
    if (!gpu || size == 0) return FJ_OK;
    fj_status status = fj_cuda_alloc(gpu, size, &address, error);
    kernel->gpu->literals = (char *)(uintptr_t)address;
    for (size_t i = 0; i < mod->program.ir->captures.len && status == FJ_OK; i++) {
        const fj_tensor *literal = &mod->literals[i];
        if (!literal->present) continue;
        size_t bytes = (size_t)fj_attn_gpu_count(literal) * fj_dtype_size(literal->dtype);
        status = fj_cuda_upload(gpu, address, literal->data, bytes, NULL, error);
        address += literal_size(literal);
    }
    return status == FJ_OK ? fj_cuda_wait(gpu, NULL, error) : status;
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

static fj_status prepare_emulated(const fj_code *code, const fj_variant *variant, const fj_entry *entry,
                                  const fj_emu_kernel **ret_kernel, fj_error *error) {
    const fj_emu_kernel *kernel = fj_driver_cpu.symbol(code, entry->name);
    if (!kernel || kernel->abi != FJ_EMU_ABI)
        return fj_error_set(error, FJ_ERR_DEVICE, "kernel %s exports no %s of emulator interface %d",
                            variant->name, entry->name, FJ_EMU_ABI);
    *ret_kernel = kernel;
    return FJ_OK;
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
        fj_gpu_entry *ready = &kernel->gpu->entries[i];
        status = device->cuda ? fj_cuda_kernel_prepare(code, entry->name, entry->threads, entry->shared,
                                                       &ready->cuda, error)
                              : prepare_emulated(code, variant, entry, &ready->emu, error);
    }
    return status == FJ_OK ? upload_literals(kernel, error) : status;
}

void fj_attn_gpu_finish(fj_kernel *kernel) {
    const fj_device *device = kernel->plan->device;
    if (!kernel->gpu) return;
    if (device->cuda) fj_cuda_free(device->cuda, (uint64_t)(uintptr_t)kernel->gpu->literals);
    fj_free(&device->context->allocator, kernel->gpu, sizeof *kernel->gpu);
    kernel->gpu = NULL;
}

/* ---- Grids --------------------------------------------------------------------------------------------- */

/* What the grids are made from. Products do not overflow where check_sizes was content. */
typedef struct sizes {
    const fj_variant *variant;
    const fj_resolved *all;
    int64_t rows;     /* of queries, all heads and batches */
    int64_t gradient; /* elements of the largest gradient of a capture or scalar that is wanted, else -1 */
    int64_t multiprocessors;
} sizes;

static int64_t forward_blocks(const sizes *s) {
    if (s->all->heads_q == 0) return 0; /* of any number of key heads */
    int64_t group = s->variant->pack_heads ? s->all->heads_q / s->all->heads_kv : 1;
    return FJ_CEIL_DIV(s->all->q_len * group, s->variant->tile_q) * (s->all->batch * s->all->heads_q / group);
}
static int64_t kv_blocks(const sizes *s) {
    return FJ_CEIL_DIV(s->all->kv_len, s->variant->tile_q) * (s->all->batch * s->all->heads_kv);
}
static int64_t q_blocks(const sizes *s) {
    return FJ_CEIL_DIV(s->all->q_len, s->variant->tile_q) * (s->all->batch * s->all->heads_q);
}

/* Kernels that take any grid: as many blocks as there is work for, some for each multiprocessor at most. */
static int64_t some_blocks(const sizes *s, int64_t work) {
    int64_t most = s->multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    return work < most ? work : most;
}
enum { DELTA_WARPS = 4, ELEMENTS_PER_BLOCK = 1024 };
static int64_t delta_blocks(const sizes *s) {
    int64_t rows = FJ_CEIL_DIV(s->rows, DELTA_WARPS), sums = s->gradient / ELEMENTS_PER_BLOCK + 1;
    return some_blocks(s, s->gradient >= 0 && sums > rows ? sums : rows);
}
static int64_t end_blocks(const sizes *s) {
    return s->gradient < 0 ? 0 : some_blocks(s, s->gradient / ELEMENTS_PER_BLOCK + 1);
}

static const struct {
    const char *name;
    int64_t (*blocks)(const sizes *);
} grids[] = {
    {"fj_fwd", forward_blocks},   {"fj_bwd_delta", delta_blocks}, {"fj_bwd_kv", kv_blocks},
    {"fj_bwd_measure", q_blocks}, {"fj_bwd_q", q_blocks},         {"fj_bwd_end", end_blocks},
};

static int64_t blocks_of(const sizes *s, const char *name) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(grids); i++)
        if (strcmp(grids[i].name, name) == 0) return grids[i].blocks(s);
    return 0;
}

static fj_status too_large(fj_error *error, const char *what, int64_t value) {
    return fj_error_set(error, FJ_ERR_UNSUPPORTED, "%s: %lld; the limit is %d", what, (long long)value,
                        MOST_GRID);
}

static bool multiply(int64_t a, int64_t b, int64_t *result) { return !__builtin_mul_overflow(a, b, result); }

/* Whether the kernels' 32-bit counters hold: lengths and rows with room for a tile past the last one, steps of a
 * walk twice. */
static fj_status check_sizes(const sizes *s, fj_error *error) {
    const fj_resolved *all = s->all;
    const int64_t most = MOST_GRID - TILE_MARGIN;
    int64_t rows, columns = 0, queries = 0;
    int64_t group = all->heads_kv > 0 ? all->heads_q / all->heads_kv : 0;
    if (all->q_len > most) return too_large(error, "queries of a head", all->q_len);
    if (all->kv_len > most) return too_large(error, "keys of a head", all->kv_len);
    if (!multiply(all->batch, all->heads_q, &columns) || columns > MOST_GRID)
        return too_large(error, "heads of all batches", columns);
    if (!multiply(all->batch, all->heads_kv, &columns) || columns > MOST_GRID)
        return too_large(error, "key heads of all batches", columns);
    if (!multiply(group, all->q_len, &queries) || queries > most)
        return too_large(error, "queries of all heads that share keys", queries);
    /* 2^62 divided by the most that a row takes of the workspace */
    if (!multiply(all->batch * all->heads_q, all->q_len, &rows) || rows > (int64_t)1 << 50)
        return too_large(error, "queries of all heads and batches", rows);
    return FJ_OK;
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

static int64_t largest_gradient(const fj_plan *plan, const fj_resolved *all) {
    int64_t largest = -1;
    for (size_t i = 0; i < plan->mod->program.ir->captures.len; i++)
        if (all->dcaptures[i].present) largest = FJ_MOST(largest, fj_attn_gpu_count(&all->dcaptures[i]));
    for (size_t i = 0; i < plan->mod->scalar_count; i++)
        if (all->dscalars[i].present) largest = FJ_MOST(largest, 1);
    return largest;
}

static fj_status measure(const fj_kernel *kernel, const fj_resolved *all, sizes *ret_sizes, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    sizes s = {kernel->variant, all, 0, largest_gradient(plan, all), plan->device->features.multiprocessors};
    fj_status status = check_sizes(&s, error);
    if (status == FJ_OK) status = check_captures(kernel, all, error);
    if (status != FJ_OK) return status;
    s.rows = all->batch * all->heads_q * all->q_len;
    for (int i = 0; i < kernel->variant->entry_count; i++) {
        int64_t blocks = blocks_of(&s, kernel->variant->entries[i].name);
        if (blocks > MOST_GRID) return too_large(error, "blocks of a launch", blocks);
    }
    *ret_sizes = s;
    return FJ_OK;
}

/* ---- The workspace --------------------------------------------------------------------------------------- */

static bool add_part(fj_gpu_layout *layout, size_t *ret_at, int64_t count, int64_t each) {
    size_t size;
    *ret_at = layout->size;
    if (count == 0 || each == 0) return true;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &size) || size > SIZE_MAX / 4 - layout->size)
        return false;
    layout->size += (size + 255) / 256 * 256;
    return true;
}

static bool lay_out_backward(const fj_plan *plan, const fj_resolved *all, const sizes *s,
                             fj_gpu_layout *layout) {
    const fj_ir *gradient = plan->jit_problem.gradient;
    int64_t captures = (int64_t)plan->mod->program.ir->captures.len,
            scalars = (int64_t)plan->mod->scalar_count;
    int64_t real = plan->problem.dtype == FJ_DTYPE_F64 ? 8 : 4, elements = 0;
    bool over = false;
    for (int64_t i = 0; i < captures; i++)
        if (all->dcaptures[i].present)
            over |= __builtin_add_overflow(elements, fj_attn_gpu_count(&all->dcaptures[i]), &elements);
    for (int64_t i = 0; i < scalars; i++) elements += all->dscalars[i].present;
    bool sinks = gradient->scatters.len > 0, exact = !plan->problem.nondeterministic;
    return !over &&
           add_part(layout, &layout->rows, FJ_BWD_ROWS(all->batch * all->heads_q, all->q_len),
                    FJ_CUDA_ROW_REALS * real) &&
           add_part(layout, &layout->sums, elements, 8) &&
           add_part(layout, &layout->most, sinks && exact ? captures + scalars : 0, 4) &&
           add_part(layout, &layout->dquery_sums, !exact && s->variant->mma ? s->rows : 0,
                    (int64_t)sizeof(float) * s->variant->head_pad);
}

static fj_status lay_out(const fj_plan *plan, const fj_resolved *all, const sizes *s,
                         fj_gpu_layout *ret_layout, fj_error *error) {
    fj_gpu_layout layout = {0};
    bool fits = plan->problem.direction == FJ_BACKWARD
                  ? lay_out_backward(plan, all, s, &layout)
                  : add_part(&layout, &layout.fault, plan->mod->program.ir->fault != 0,
                             sizeof(struct fj_cuda_fault));
    if (!fits)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "the workspace is larger than memory can be addressed");
    *ret_layout = layout;
    return FJ_OK;
}

fj_status fj_attn_gpu_lay_out(const fj_kernel *kernel, const fj_resolved *all, fj_gpu_layout *ret_layout,
                              fj_error *error) {
    sizes s;
    fj_status status = measure(kernel, all, &s, error);
    return status == FJ_OK ? lay_out(kernel->plan, all, &s, ret_layout, error) : status;
}

/* ---- Launching --------------------------------------------------------------------------------------------- */

/* A call as it is launched, on the stack. */
typedef struct ready {
    const fj_kernel *kernel;
    const fj_call *call;
    fj_resolved all;
    sizes sizes;
    fj_gpu_layout layout;
    char *workspace, *storage; /* of the arrays of all */
} ready;

static fj_status resolve(ready *r, size_t workspace_size, fj_error *error) {
    const fj_plan *plan = r->kernel->plan;
    fj_status status = fj_attn_resolve(plan, &r->call->args, false, r->storage, &r->all, error);
    if (status != FJ_OK) return status;
    use_literals(r->kernel, (fj_tensor *)(void *)r->storage);
    status = measure(r->kernel, &r->all, &r->sizes, error);
    if (status == FJ_OK) status = lay_out(plan, &r->all, &r->sizes, &r->layout, error);
    if (status == FJ_OK && r->layout.size > 0 && !r->workspace)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is missing");
    if (status != FJ_OK || workspace_size >= r->layout.size) return status;
    return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace has %zu bytes, this launch needs %zu",
                        workspace_size, r->layout.size);
}

static fj_status launch_entry(const ready *r, int index, const fj_gpu_parameters *parameters,
                              fj_error *error) {
    const fj_device *device = r->kernel->plan->device;
    const fj_variant *variant = r->kernel->variant;
    const fj_entry *entry = &variant->entries[index];
    const fj_gpu_entry *to = &r->kernel->gpu->entries[index];
    bool sliced = r->kernel->plan->problem.direction == FJ_FORWARD && !variant->mma;
    const uint32_t grid[3] = {(uint32_t)blocks_of(&r->sizes, entry->name), 1,
                              sliced ? (uint32_t)FJ_FWD_SIMT_SLICES(variant->value_pad) : 1};
    if (grid[0] == 0) return FJ_OK;
    if (device->cuda)
        return fj_cuda_launch(&to->cuda, grid, parameters->bytes, r->call->launch.stream, error);
    const fj_emu_shape shape = {
        {grid[0], grid[1], grid[2]}, (uint32_t)entry->threads, (uint32_t)entry->shared};
    const fj_emu_options options = {.launch = &r->call->launch,
                                    .shared_limit = (uint32_t)device->features.shared_limit};
    return fj_emu_launch(device->emu, to->emu, &shape, parameters->bytes, &options, error);
}

static fj_status fill(const ready *r, char *to, size_t size, fj_error *error) {
    return fj_device_fill(r->kernel->plan->device, to, 0, size, r->call->launch.stream, error);
}

/* Zeros for a gradient, wherever its strides put it: the longest runs that it has. */
static fj_status clear(const ready *r, const fj_tensor *tensor, fj_error *error) {
    int64_t size = (int64_t)fj_dtype_size(tensor->dtype), run = 1, index[FJ_MAX_RANK] = {0};
    int rank = tensor->rank;
    fj_status status = FJ_OK;
    if (!tensor->present || fj_attn_gpu_count(tensor) == 0) return FJ_OK;
    while (rank > 0 && (tensor->shape[rank - 1] == 1 || tensor->strides[rank - 1] == run))
        run *= tensor->shape[--rank];
    for (bool more = true; more && status == FJ_OK;) {
        int64_t at = 0;
        int d = rank - 1;
        for (int i = 0; i < rank; i++) at += index[i] * tensor->strides[i];
        status = fill(r, tensor->data + at * size, (size_t)(run * size), error);
        while (d >= 0 && ++index[d] == tensor->shape[d]) index[d--] = 0;
        more = d >= 0;
    }
    return status;
}

/* Gradients that are zero by the mod's text, so that no kernel makes them; without query heads, all. */
static fj_status clear_gradients(const ready *r, fj_error *error) {
    const fj_plan *plan = r->kernel->plan;
    fj_status status = FJ_OK;
    if (plan->jit_problem.gradient->scatters.len > 0 && r->all.heads_q > 0) return FJ_OK;
    if (r->all.heads_q == 0) status = clear(r, &r->all.dkey, error);
    if (r->all.heads_q == 0 && status == FJ_OK) status = clear(r, &r->all.dvalue, error);
    for (size_t i = 0; i < plan->mod->program.ir->captures.len && status == FJ_OK; i++)
        status = clear(r, &r->all.dcaptures[i], error);
    for (size_t i = 0; i < plan->mod->scalar_count && status == FJ_OK; i++)
        status = clear(r, &r->all.dscalars[i], error);
    return status;
}

/* Of the emulator, which is done. */
static fj_status report_fault(const ready *r, fj_error *error) {
    const struct fj_cuda_fault *noted = (const void *)(r->workspace + r->layout.fault);
    const fj_fault fault = {noted->found != 0, noted->b, noted->h, noted->q, noted->kv};
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
         notes = forward && plan->mod->program.ir->fault != 0;
    fj_attn_gpu_fill_parameters(kernel, &r.all, &r.layout, workspace, &parameters);
    if (plan->device->cuda)
        status = fj_cuda_launch_check(&kernel->gpu->entries[0].cuda, call->launch.stream, error);
    if (status == FJ_OK && notes)
        status = fill(&r, workspace + r.layout.fault, sizeof(struct fj_cuda_fault), error);
    /* Kernels divide by heads. */
    for (int i = 0; i < kernel->variant->entry_count && status == FJ_OK && r.all.heads_q > 0; i++)
        status = launch_entry(&r, i, &parameters, error);
    if (status == FJ_OK && !forward) status = clear_gradients(&r, error);
    return status == FJ_OK && notes && !plan->device->cuda ? report_fault(&r, error) : status;
}

fj_status fj_attn_gpu_check(const fj_kernel *kernel, const fj_call *call,
                            char *workspace, /* NOLINT(readability-non-const-parameter): as in a launch */
                            size_t workspace_size, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    const fj_cuda_device *gpu = plan->device->cuda;
    _Alignas(16) char storage[FJ_GPU_RESOLVED];
    ready r = {.kernel = kernel, .call = call, .workspace = workspace, .storage = storage};
    struct fj_cuda_fault noted = {0};
    fj_status status = resolve(&r, workspace_size, error);
    if (status == FJ_OK) status = fj_cuda_wait(gpu, call->launch.stream, error);
    if (status != FJ_OK || plan->problem.direction != FJ_FORWARD || plan->mod->program.ir->fault == 0)
        return status;
    uint64_t from = (uint64_t)(uintptr_t)(workspace + r.layout.fault);
    status = fj_cuda_download(gpu, &noted, from, sizeof noted, call->launch.stream, error);
    if (status == FJ_OK) status = fj_cuda_wait(gpu, call->launch.stream, error);
    if (status != FJ_OK || !noted.found) return status;
    const fj_fault fault = {true, noted.b, noted.h, noted.q, noted.kv};
    bool inside = noted.b >= 0 && noted.b < r.all.batch && noted.h >= 0 && noted.h < r.all.heads_q &&
                  noted.q >= 0 && noted.q < r.all.q_len && noted.kv >= 0 && noted.kv < r.all.kv_len;
    if (!inside)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "no launch of this kernel used this workspace last");
    return fj_attn_explain(plan, &r.all, &fault, call->launch.stream, error);
}
