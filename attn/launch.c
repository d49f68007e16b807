/* Launching, and what is known before it: workspaces and block counts.
 *
 * The workspace of a launch on cpu, front to back, all of it the caller's:
 *
 *     | captures, gradients, scalars as resolved | the same as the kernel reads them | faults |
 *     | padding to 256 | the kernel's own |
 *
 * so a launch allocates nothing. On the reference devices it is the first part; of those with kernels for a GPU gpu.c tells.
 */
#include <string.h>

#include "attn/gpu.h"
#include "attn/mask/mask.h"
#include "driver/parallel.h"

/* ---- Arguments of compiled kernels ------------------------------------------------------------------------ */

_Static_assert(FJ_CPU_MAX_RANK == FJ_MAX_RANK, "one rank on both sides");
_Static_assert(sizeof(union fj_cpu_scalar) == sizeof(fj_scalar), "scalars are passed as they are");

static struct fj_cpu_tensor cpu_tensor(const fj_tensor *tensor) {
    struct fj_cpu_tensor out = {.data = tensor->data};
    memcpy(out.shape, tensor->shape, sizeof out.shape);
    memcpy(out.stride, tensor->strides, sizeof out.stride);
    return out;
}

_Static_assert(sizeof(struct fj_cpu_run) == sizeof(fj_block_run), "runs are passed as they are");

static struct fj_cpu_block_mask cpu_block_mask(const fj_block_mask *mask) {
    if (!mask) return (struct fj_cpu_block_mask){0};
    return (struct fj_cpu_block_mask){
        .starts = mask->rows.starts,
        .runs = (const struct fj_cpu_run *)(const void *)mask->rows.runs,
        .planes_b = mask->shape.planes_b,
        .planes_h = mask->shape.planes_h,
        .block_q = mask->shape.block_q,
        .block_kv = mask->shape.block_kv,
        .q_blocks = mask->q_blocks,
    };
}

/* blocks: stays as long as the arguments. */
static struct fj_cpu_args cpu_args(const fj_resolved *all, int workers,
                                   const struct fj_cpu_block_mask *blocks) {
    return (struct fj_cpu_args){
        .query = cpu_tensor(&all->query),
        .key = cpu_tensor(&all->key),
        .value = cpu_tensor(&all->value),
        .out = cpu_tensor(&all->out),
        .lse = cpu_tensor(&all->lse),
        .max = cpu_tensor(&all->max),
        .lse_low = cpu_tensor(&all->lse_low),
        .dout = cpu_tensor(&all->dout),
        .dlse = cpu_tensor(&all->dlse),
        .dquery = cpu_tensor(&all->dquery),
        .dkey = cpu_tensor(&all->dkey),
        .dvalue = cpu_tensor(&all->dvalue),
        .batch = all->batch,
        .heads_q = all->heads_q,
        .heads_kv = all->heads_kv,
        .q_len = all->q_len,
        .kv_len = all->kv_len,
        .scale = all->scale,
        .block_mask = blocks,
        .workers = workers,
    };
}

/* ---- The workspace --------------------------------------------------------------------------------------------- */

static size_t align_up(size_t size, size_t alignment) { return (size + alignment - 1) & ~(alignment - 1); }

typedef struct layout {
    size_t captures, dcaptures, dscalars, faults; /* offsets; the resolved arrays are at 0 */
    size_t own;                                   /* where the kernel's own part begins */
} layout;

static layout lay_out(const fj_kernel *kernel, int workers) {
    const fj_mod *mod = kernel->plan->mod;
    size_t tensor = sizeof(struct fj_cpu_tensor), captures = mod->program.ir->captures.len;
    layout at = {.captures = align_up(fj_attn_resolve_size(kernel->plan), 16)};
    if (!kernel->cpu) {
        at.own = at.captures;
        return at;
    }
    at.dcaptures = at.captures + captures * tensor;
    at.dscalars = at.dcaptures + captures * tensor;
    at.faults = at.dscalars + mod->scalar_count * tensor;
    at.own = align_up(at.faults + (size_t)workers * sizeof(struct fj_cpu_fault), 256);
    return at;
}

/* Fills the front of the workspace and what of the arguments points into it. */
static void place(const fj_kernel *kernel, const fj_resolved *all, const layout *at, char *workspace,
                  struct fj_cpu_args *args) {
    const fj_mod *mod = kernel->plan->mod;
    struct fj_cpu_tensor *captures = (struct fj_cpu_tensor *)(void *)(workspace + at->captures);
    struct fj_cpu_tensor *dcaptures = (struct fj_cpu_tensor *)(void *)(workspace + at->dcaptures);
    struct fj_cpu_tensor *dscalars = (struct fj_cpu_tensor *)(void *)(workspace + at->dscalars);
    for (size_t i = 0; i < mod->program.ir->captures.len; i++) {
        captures[i] = cpu_tensor(&all->captures[i]);
        dcaptures[i] = cpu_tensor(&all->dcaptures[i]);
        if (!all->dcaptures[i].present)
            memcpy(dcaptures[i].shape, captures[i].shape, sizeof captures[i].shape);
    }
    for (size_t i = 0; i < mod->scalar_count; i++) dscalars[i] = cpu_tensor(&all->dscalars[i]);
    args->captures = captures;
    args->dcaptures = dcaptures;
    args->dscalars = dscalars;
    args->scalars = (const union fj_cpu_scalar *)(const void *)all->scalars;
    args->faults = (struct fj_cpu_fault *)(void *)(workspace + at->faults);
    args->workspace = workspace + at->own;
}

/* ---- Calls ------------------------------------------------------------------------------------------------------- */

static fj_status read_call(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                           fj_call *ret_call, fj_error *error) {
    if (!kernel) return fj_error_set(error, FJ_ERR_ARGUMENT, "kernel is NULL");
    fj_status status = fj_attn_read_desc(&ret_call->args, sizeof ret_call->args, args, "fj_args", error);
    if (status != FJ_OK) return status;
    ret_call->launch = (fj_launch){.struct_size = sizeof ret_call->launch};
    if (launch)
        status = fj_attn_read_desc(&ret_call->launch, sizeof ret_call->launch, launch, "fj_launch", error);
    if (status != FJ_OK) return status;
    const fj_executor *executor = ret_call->launch.executor;
    if (executor && (!executor->run || executor->workers < 1))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the executor has no run function or no workers");
    const int workers = executor ? executor->workers : ret_call->launch.workers;
    if (workers < 0 || workers > FJ_DRIVER_MAX_WORKERS)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "workers is %d; the limit is %d", workers,
                            FJ_DRIVER_MAX_WORKERS);
    status = fj_attn_check_scale(kernel->plan, ret_call->args.scale, error);
    if (status != FJ_OK) return status;
    ret_call->workers = fj_driver_workers(&ret_call->launch);
    return FJ_OK;
}

static size_t whole_size(const fj_kernel *kernel, const layout *at, const struct fj_cpu_args *args) {
    return kernel->cpu ? at->own + kernel->cpu->workspace(args) : at->own;
}

/* About 50 captures. */
enum { SIZED_HERE = 32 << 10 };

/* Sizes and block counts read shapes only, outside of any workspace. Faults and what is behind them are not touched. */
struct sized {
    fj_resolved all;
    struct fj_cpu_args args;
    struct fj_cpu_block_mask blocks;
    layout at;
    size_t size; /* of front */
    char *front; /* here, except for many captures */
    _Alignas(16) char here[SIZED_HERE];
};

static void free_front(const fj_kernel *kernel, struct sized *of) {
    if (of->front != of->here) fj_free(&kernel->plan->device->context->allocator, of->front, of->size);
}

static fj_status size_call(const fj_kernel *kernel, const fj_call *call, bool sizing, struct sized *ret,
                           fj_error *error) {
    const fj_allocator *allocator = &kernel->plan->device->context->allocator;
    ret->all = (fj_resolved){0};
    ret->args = (struct fj_cpu_args){0};
    ret->at = lay_out(kernel, call->workers);
    ret->size = kernel->cpu ? ret->at.faults : ret->at.own;
    ret->front = ret->size <= sizeof ret->here ? ret->here : fj_alloc_zeroed(allocator, ret->size);
    if (!ret->front) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    fj_status status = fj_attn_resolve(kernel->plan, &call->args, sizing, ret->front, &ret->all, error);
    if (status != FJ_OK) {
        free_front(kernel, ret);
        return status;
    }
    ret->blocks = cpu_block_mask(ret->all.block_mask);
    ret->args = cpu_args(&ret->all, call->workers, &ret->blocks);
    if (kernel->cpu) place(kernel, &ret->all, &ret->at, ret->front, &ret->args);
    return FJ_OK;
}

fj_status fj_kernel_workspace(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                              size_t *ret_size, fj_error *error) {
    fj_call call = {0};
    struct sized sized; /* large: size_call fills what is used of it */
    if (!ret_size) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_size is NULL");
    fj_status status = read_call(kernel, args, launch, &call, error);
    if (status == FJ_OK) status = size_call(kernel, &call, true, &sized, error);
    if (status != FJ_OK) return status;
    size_t size = whole_size(kernel, &sized.at, &sized.args);
    if (kernel->gpu) {
        fj_workspace gpu = {0};
        status = fj_attn_gpu_lay_out(kernel, &sized.all, &gpu, error);
        size = gpu.size;
    }
    free_front(kernel, &sized);
    if (status == FJ_OK) *ret_size = size;
    return status;
}

/* ---- Launching -------------------------------------------------------------------------------------------------- */

static bool is_before(const fj_fault *a, const struct fj_cpu_fault *b) {
    if (a->b != b->b) return a->b < b->b;
    if (a->h != b->h) return a->h < b->h;
    return a->q != b->q ? a->q < b->q : a->kv <= b->kv;
}

/* The least position over all workers: which one it is does not depend on how many there were. */
static fj_fault least_fault(const struct fj_cpu_fault *faults, int workers) {
    fj_fault least = {0};
    for (int i = 0; i < workers; i++)
        if (faults[i].found && !(least.found && is_before(&least, &faults[i])))
            least = (fj_fault){true, faults[i].b, faults[i].h, faults[i].q, faults[i].kv};
    return least;
}

static fj_status too_small(size_t size, size_t needed, fj_error *error) {
    return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace has %zu bytes, this launch needs %zu", size,
                        needed);
}

static fj_status launch_cpu(const fj_kernel *kernel, const fj_call *call, const fj_resolved *all,
                            const layout *at, char *workspace, size_t workspace_size, fj_error *error) {
    const struct fj_cpu_block_mask blocks = cpu_block_mask(all->block_mask);
    struct fj_cpu_args args = cpu_args(all, call->workers, &blocks);
    place(kernel, all, at, workspace, &args);
    size_t needed = whole_size(kernel, at, &args);
    if (workspace_size < needed) return too_small(workspace_size, needed, error);
    fj_driver_cpu_run(kernel->cpu, &args, &call->launch);
    fj_fault fault = least_fault(args.faults, call->workers);
    return fault.found ? fj_attn_explain(kernel->plan, all, &fault, NULL, error) : FJ_OK;
}

static fj_status launch_reference(const fj_kernel *kernel, const fj_call *call, const fj_resolved *all,
                                  fj_error *error) {
    const fj_plan *plan = kernel->plan;
    fj_fault fault = {0};
    fj_status status =
        fj_reference_run(&plan->device->context->allocator, plan->mod->program.ir, plan->jit_problem.gradient,
                         &plan->problem, all, plan->device->traits->pass, &call->launch, &fault, error);
    return status == FJ_ERR_INDEX ? fj_attn_explain(plan, all, &fault, NULL, error) : status;
}

fj_status fj_kernel_launch(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                           void *workspace, size_t workspace_size, fj_error *error) {
    fj_call call = {0};
    fj_resolved all = {0};
    fj_status status = read_call(kernel, args, launch, &call, error);
    if (status != FJ_OK) return status;
    if ((uintptr_t)workspace % 256 != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is not aligned to 256 bytes");
    if (kernel->gpu) return fj_attn_gpu_launch(kernel, &call, workspace, workspace_size, error);
    layout at = lay_out(kernel, call.workers);
    if (workspace_size < at.own || (at.own > 0 && !workspace))
        return workspace ? too_small(workspace_size, at.own, error)
                         : fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is missing");
    status = fj_attn_resolve(kernel->plan, &call.args, false, workspace, &all, error);
    if (status != FJ_OK) return status;
    if (kernel->cpu) return launch_cpu(kernel, &call, &all, &at, workspace, workspace_size, error);
    return launch_reference(kernel, &call, &all, error);
}

fj_status fj_kernel_check(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                          void *workspace, size_t workspace_size, fj_error *error) {
    fj_call call = {0};
    fj_status status = read_call(kernel, args, launch, &call, error);
    if (status != FJ_OK || !kernel->gpu || kernel->plan->device->driver->is_host) return status;
    return fj_attn_gpu_check(kernel, &call, workspace, workspace_size, error);
}

/* ---- Blocks -------------------------------------------------------------------------------------------------------- */

/* A mask's own blocks, for all batches and heads of the call. */
static void count_mask(const fj_resolved *all, int64_t counts[3]) {
    const fj_block_mask_info info = fj_block_mask_describe(all->block_mask);
    const int64_t times =
        info.batch * info.heads > 0 ? all->batch * all->heads_q / (info.batch * info.heads) : 0;
    counts[0] = times * info.full, counts[1] = times * info.partial, counts[2] = times * info.empty;
}

fj_status fj_kernel_blocks(const fj_kernel *kernel, const fj_args *args, fj_block_counts *ret_counts,
                           fj_error *error) {
    fj_call call = {0};
    struct sized sized; /* large: size_call fills what is used of it */
    if (!ret_counts) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_counts is NULL");
    fj_status status = read_call(kernel, args, NULL, &call, error);
    if (status == FJ_OK) status = size_call(kernel, &call, false, &sized, error);
    if (status != FJ_OK) return status;
    const fj_plan *plan = kernel->plan;
    int64_t counts[4] = {0};
    if (kernel->cpu && kernel->cpu->blocks)
        kernel->cpu->blocks(&sized.args, counts);
    else if (sized.all.block_mask) /* of the reference devices */
        count_mask(&sized.all, counts);
    else /* everything is computed: each head is one block */
        counts[plan->mod->program.ir->mask ? 1 : 0] = sized.all.batch * sized.all.heads_q;
    *ret_counts =
        (fj_block_counts){.full = counts[0], .partial = counts[1], .empty = counts[2], .scores = counts[3]};
    if (kernel->gpu)
        *ret_counts =
            fj_attn_count_blocks(plan, &sized.all, kernel->variant->tile_m, kernel->variant->tile_n);
    if (!kernel->cpu) ret_counts->scores = fj_attn_count_scores(plan, &sized.all);
    free_front(kernel, &sized);
    return FJ_OK;
}
