/* Launching, and what is known before it: workspaces and block counts.
 *
 * The workspace of a launch on cpu, front to back, all of it the caller's:
 *
 *     | captures, gradients, scalars as resolved | the same as the kernel reads them, faults | what launch_cpu.c needs |
 *
 * so a launch allocates nothing. On the reference devices it is the first part; of those with kernels for a GPU gpu.c tells.
 */
#include <string.h>

#include "attn/capture.h"
#include "attn/cpu.h"
#include "attn/gpu.h"
#include "attn/mask/mask.h"
#include "driver/parallel.h"

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

/* Where the front of the workspace ends: on the reference devices it is all. */
static fj_cpu_front front_of(const fj_kernel *kernel, int workers) {
    const size_t resolved = fj_attn_resolve_size(kernel->plan);
    return kernel->cpu ? fj_attn_cpu_front(kernel, resolved, workers)
                       : (fj_cpu_front){.size = (resolved + 15) & ~(size_t)15};
}

/* About 50 captures. */
enum { SIZED_HERE = 32 << 10 };

/* Sizes and block counts read shapes only, outside of any workspace. Faults and what is behind them are not touched. */
struct sized {
    fj_resolved all;
    fj_cpu_front at;
    fj_cpu_call cpu;
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
    ret->at = front_of(kernel, call->workers);
    ret->size = kernel->cpu ? ret->at.faults : ret->at.size;
    ret->front = ret->size <= sizeof ret->here ? ret->here : fj_alloc_zeroed(allocator, ret->size);
    if (!ret->front) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    fj_status status = fj_attn_resolve(kernel->plan, &call->args, sizing, ret->front, &ret->all, error);
    if (status != FJ_OK) {
        free_front(kernel, ret);
        return status;
    }
    if (kernel->cpu)
        ret->cpu = fj_attn_cpu_begin(kernel, &ret->all, &call->launch, call->workers, &ret->at, ret->front);
    return FJ_OK;
}

fj_status fj_attn_check_call(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                             fj_call *ret_call, fj_error *error) {
    struct sized sized; /* large: size_call fills what is used of it */
    fj_status status = read_call(kernel, args, launch, ret_call, error);
    if (status == FJ_OK) status = size_call(kernel, ret_call, false, &sized, error);
    if (status == FJ_OK) free_front(kernel, &sized);
    return status;
}

fj_status fj_kernel_workspace(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                              size_t *ret_size, fj_error *error) {
    fj_call call = {0};
    struct sized sized; /* large: size_call fills what is used of it */
    if (!ret_size) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_size is NULL");
    fj_status status = read_call(kernel, args, launch, &call, error);
    if (status == FJ_OK) status = size_call(kernel, &call, true, &sized, error);
    if (status != FJ_OK) return status;
    size_t size = sized.at.size + (kernel->cpu ? fj_attn_cpu_size(&sized.cpu) : 0);
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

_Static_assert(FJ_CPU_FAULT_OUT - FJ_CPU_FAULT_SCORE == (int)FJ_FAULT_OUT &&
                   FJ_CPU_FAULT_SINK - FJ_CPU_FAULT_SCORE == (int)FJ_FAULT_SINK,
               "one order");

static bool is_before(const fj_fault *a, const struct fj_cpu_fault *b) {
    if (a->b != b->b) return a->b < b->b;
    if (a->h != b->h) return a->h < b->h;
    if (a->q != b->q) return a->q < b->q;
    return a->kv != b->kv ? a->kv < b->kv : (int)a->of <= b->found - FJ_CPU_FAULT_SCORE;
}

/* The least position over all workers: which one it is does not depend on how many there were. */
static fj_fault least_fault(const struct fj_cpu_fault *faults, int workers) {
    fj_fault least = {0};
    for (int i = 0; i < workers; i++)
        if (faults[i].found && !(least.found && is_before(&least, &faults[i])))
            least =
                (fj_fault){true,        faults[i].b,  faults[i].h,
                           faults[i].q, faults[i].kv, (fj_fault_of)(faults[i].found - FJ_CPU_FAULT_SCORE)};
    return least;
}

static fj_status too_small(size_t size, size_t needed, fj_error *error) {
    return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace has %zu bytes, this launch needs %zu", size,
                        needed);
}

static fj_status launch_cpu(const fj_kernel *kernel, const fj_call *call, const fj_resolved *all,
                            const fj_cpu_front *front, char *workspace, size_t workspace_size,
                            fj_error *error) {
    fj_cpu_call cpu = fj_attn_cpu_begin(kernel, all, &call->launch, call->workers, front, workspace);
    size_t needed = front->size + fj_attn_cpu_size(&cpu);
    if (workspace_size < needed) return too_small(workspace_size, needed, error);
    fj_attn_cpu_run(&cpu, workspace + front->size);
    fj_fault fault = least_fault(cpu.args.faults, call->workers);
    return fault.found ? fj_attn_explain(kernel->plan, all, &fault, NULL, error) : FJ_OK;
}

static fj_status launch_reference(const fj_kernel *kernel, const fj_call *call, const fj_resolved *all,
                                  fj_error *error) {
    const fj_plan *plan = kernel->plan;
    const fj_jit_problem *problem = &plan->jit_problem;
    const fj_graphs graphs = {.ir = problem->ir,
                              .gradient = problem->gradient,
                              .out = problem->out,
                              .out_gradient = problem->out_gradient,
                              .sink = problem->sink,
                              .sink_gradient = problem->sink_gradient};
    fj_fault fault = {0};
    fj_status status = fj_reference_run(&plan->device->context->allocator, &graphs, &plan->problem, all,
                                        plan->device->traits->pass, &call->launch, &fault, error);
    return status == FJ_ERR_INDEX ? fj_attn_explain(plan, all, &fault, NULL, error) : status;
}

fj_status fj_kernel_launch(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                           void *workspace, size_t workspace_size, fj_error *error) {
    fj_call call = {0};
    fj_resolved all = {0};
    fj_status status = read_call(kernel, args, launch, &call, error);
    if (status != FJ_OK) return status;
    if (kernel->plan->device->context->capture) fj_attn_capture_launch(kernel, &call);
    if ((uintptr_t)workspace % 256 != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is not aligned to 256 bytes");
    if (kernel->gpu) return fj_attn_gpu_launch(kernel, &call, workspace, workspace_size, error);
    const fj_cpu_front front = front_of(kernel, call.workers);
    if (workspace_size < front.size || (front.size > 0 && !workspace))
        return workspace ? too_small(workspace_size, front.size, error)
                         : fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is missing");
    status = fj_attn_resolve(kernel->plan, &call.args, false, workspace, &all, error);
    if (status != FJ_OK) return status;
    if (kernel->cpu) return launch_cpu(kernel, &call, &all, &front, workspace, workspace_size, error);
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
static fj_block_counts count_mask(const fj_resolved *all) {
    const fj_block_mask_info info = fj_block_mask_describe(all->block_mask);
    const int64_t times =
        info.batch * info.heads > 0 ? all->batch * all->heads_q / (info.batch * info.heads) : 0;
    return (fj_block_counts){
        .full = times * info.full, .partial = times * info.partial, .empty = times * info.empty};
}

/* On devices whose kernels cannot be asked. */
static fj_block_counts count_without_kernel(const fj_kernel *kernel, const fj_resolved *all) {
    const fj_plan *plan = kernel->plan;
    fj_block_counts counts = {0};
    if (kernel->gpu)
        counts = fj_attn_count_blocks(plan, all, kernel->variant->tile_m, kernel->variant->tile_n);
    else if (all->block_mask)
        counts = count_mask(all);
    else /* everything is computed: each head is one block */
        *(plan->mod->program.ir->mask ? &counts.partial : &counts.full) = all->batch * all->heads_q;
    counts.scores = fj_attn_count_scores(plan, all);
    return counts;
}

static fj_block_counts count_call(const fj_kernel *kernel, const struct sized *sized) {
    const fj_resolved *all = &sized->all;
    fj_block_counts sum = {0};
    if (kernel->cpu) {
        int64_t counts[4] = {0};
        fj_attn_cpu_blocks(&sized->cpu, counts);
        return (fj_block_counts){
            .full = counts[0], .partial = counts[1], .empty = counts[2], .scores = counts[3]};
    }
    if (!fj_attn_has_sequences(all)) return count_without_kernel(kernel, all);
    if (!kernel->plan->device->driver->is_host) return sum; /* lengths are not the host's to read */
    for (int64_t b = 0; b < all->batch; b++) {
        const fj_resolved one = fj_attn_sequence(all, b);
        const fj_block_counts counts = count_without_kernel(kernel, &one);
        sum.full += counts.full;
        sum.partial += counts.partial;
        sum.empty += counts.empty;
        sum.scores += counts.scores;
    }
    return sum;
}

fj_status fj_kernel_blocks(const fj_kernel *kernel, const fj_args *args, fj_block_counts *ret_counts,
                           fj_error *error) {
    fj_call call = {0};
    struct sized sized; /* large: size_call fills what is used of it */
    if (!ret_counts) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_counts is NULL");
    fj_status status = read_call(kernel, args, NULL, &call, error);
    if (status == FJ_OK) status = size_call(kernel, &call, false, &sized, error);
    if (status != FJ_OK) return status;
    *ret_counts = count_call(kernel, &sized);
    free_front(kernel, &sized);
    return FJ_OK;
}

fj_status fj_kernel_splits(const fj_kernel *kernel, const fj_args *args, int64_t *ret_splits,
                           fj_error *error) {
    fj_call call = {0};
    struct sized sized; /* large: size_call fills what is used of it */
    if (!ret_splits) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_splits is NULL");
    fj_status status = read_call(kernel, args, NULL, &call, error);
    if (status == FJ_OK) status = size_call(kernel, &call, true, &sized, error);
    if (status != FJ_OK) return status;
    *ret_splits = kernel->gpu ? fj_attn_gpu_splits(kernel, &sized.all) : 1;
    free_front(kernel, &sized);
    return FJ_OK;
}
