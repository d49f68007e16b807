/* Launches on the cpu.
 *
 *     dense                     one call of the kernel
 *     packed, paged, offsets    a call for each sequence. Forward runs the items of all of them together; backward one
 *                               after the other, in one workspace, and what they add up is carried on
 *     shared keys               backward as the last: a call for each batch, which carry dkey and dvalue
 *
 * Memory behind the front:  | scratch of workers | first items | workspaces |      forward
 *                           | scratch of workers | carry | the largest workspace |  backward
 */
#include <string.h>

#include "attn/cpu.h"
#include "attn/mask/mask.h"
#include "base/philox.h"
#include "driver/parallel.h"
#include "templates/host/cpu_arguments.h"

/* ---- Arguments ---------------------------------------------------------------------------------------------- */

_Static_assert(FJ_CPU_MAX_RANK == FJ_MAX_RANK, "one rank on both sides");
_Static_assert(sizeof(union fj_cpu_scalar) == sizeof(fj_scalar), "scalars are passed as they are");
_Static_assert(sizeof((struct fj_cpu_args *)0)->dropout_key == sizeof(fj_philox_key),
               "keys are passed as they are");
_Static_assert(sizeof(struct fj_cpu_run) == sizeof(fj_block_run), "runs are passed as they are");

fj_cpu_front fj_attn_cpu_front(const fj_kernel *kernel, size_t at, int workers) {
    const fj_mod *mod = kernel->plan->mod;
    const size_t tensor = sizeof(struct fj_cpu_tensor), captures = mod->program.ir->captures.len;
    fj_cpu_front front = {.captures = fj_cpu_align_up(at, 16)};
    front.dcaptures = front.captures + captures * tensor;
    front.dscalars = front.dcaptures + captures * tensor;
    front.block_mask = front.dscalars + mod->scalar_count * tensor;
    front.faults = front.block_mask + fj_cpu_align_up(sizeof(struct fj_cpu_block_mask), 16);
    front.size = fj_cpu_align_up(front.faults + (size_t)workers * sizeof(struct fj_cpu_fault), 256);
    return front;
}

static const struct fj_cpu_block_mask *put_block_mask(const fj_block_mask *mask, char *to) {
    struct fj_cpu_block_mask *out = (struct fj_cpu_block_mask *)(void *)to;
    if (!mask) return NULL;
    *out = (struct fj_cpu_block_mask){
        .starts = mask->rows.starts,
        .runs = (const struct fj_cpu_run *)(const void *)mask->rows.runs,
        .planes_b = mask->shape.planes_b,
        .planes_h = mask->shape.planes_h,
        .block_q = mask->shape.block_q,
        .block_kv = mask->shape.block_kv,
        .q_blocks = mask->q_blocks,
    };
    return out;
}

fj_cpu_call fj_attn_cpu_begin(const fj_kernel *kernel, const fj_resolved *all, const fj_launch *launch,
                              int workers, const fj_cpu_front *front, char *memory) {
    const fj_mod *mod = kernel->plan->mod;
    struct fj_cpu_tensor *captures = (struct fj_cpu_tensor *)(void *)(memory + front->captures);
    struct fj_cpu_tensor *dcaptures = (struct fj_cpu_tensor *)(void *)(memory + front->dcaptures);
    struct fj_cpu_tensor *dscalars = (struct fj_cpu_tensor *)(void *)(memory + front->dscalars);
    fj_cpu_put_inputs(all->captures, all->dcaptures, all->dscalars, mod->program.ir->captures.len,
                      mod->scalar_count, captures, dcaptures, dscalars);
    fj_cpu_call call = {.kernel = kernel->cpu, .all = all, .launch = launch};
    call.args = (struct fj_cpu_args){
        .captures = captures,
        .dcaptures = dcaptures,
        .scalars = (const union fj_cpu_scalar *)(const void *)all->scalars,
        .dscalars = dscalars,
        .heads_q = all->heads_q,
        .heads_kv = all->heads_kv,
        .scale = all->scale,
        .block_mask = put_block_mask(all->block_mask, memory + front->block_mask),
        .shared_keys = all->shared_keys,
        .workers = workers,
        .faults = (struct fj_cpu_fault *)(void *)(memory + front->faults),
    };
    const fj_philox_key key = fj_dropout_key(all->dropout.seed, all->dropout.offset);
    memcpy(call.args.dropout_key, key.word, sizeof key.word);
    call.args.dropout_threshold = fj_dropout_threshold(all->dropout.probability);
    call.args.dropout_scale = fj_dropout_scale(&all->dropout);
    fj_cpu_set_sequence(&call.args, all);
    return call;
}

/* ---- Sequences ------------------------------------------------------------------------------------------------ */

static bool is_backward(const fj_cpu_call *call) { return call->kernel->carry; }

/* Whether the kernel is called once for each batch; never for none. */
static bool is_many(const fj_cpu_call *call) {
    const fj_resolved *all = call->all;
    return (fj_attn_has_sequences(all) || (all->shared_keys && is_backward(call))) && all->batch > 0;
}

static struct fj_cpu_args sequence_args(const fj_cpu_call *call, int64_t b) {
    const fj_resolved one = fj_attn_sequence(call->all, b);
    struct fj_cpu_args args = call->args;
    fj_cpu_set_sequence(&args, &one);
    args.is_first = b == 0;
    args.is_last = b + 1 == call->all->batch;
    return args;
}

static size_t workspace_of(const fj_cpu_call *call, int64_t b) {
    const struct fj_cpu_args args = sequence_args(call, b);
    return fj_cpu_align_up(call->kernel->workspace(&args), 256);
}

static size_t scratch_size(const fj_cpu_call *call) {
    return fj_cpu_scratch_size(call->kernel, call->args.workers);
}
static size_t lists_size(const fj_cpu_call *call) {
    return fj_cpu_align_up(2 * ((size_t)call->all->batch + 1) * sizeof(int64_t), 256);
}

size_t fj_attn_cpu_size(const fj_cpu_call *call) {
    size_t size = scratch_size(call), most = 0, sum = 0;
    if (!is_many(call)) return size + call->kernel->workspace(&call->args);
    for (int64_t b = 0; b < call->all->batch; b++) {
        const size_t one = workspace_of(call, b);
        most = one > most ? one : most;
        sum += one;
    }
    if (!is_backward(call)) return size + lists_size(call) + sum;
    const struct fj_cpu_args args = sequence_args(call, 0); /* what is carried has one size */
    return size + fj_cpu_align_up(call->kernel->carry(&args), 256) + most;
}

/* ---- Running ---------------------------------------------------------------------------------------------------- */

/* The items of all sequences in one phase; those of sequence b begin at first_item[b]. */
typedef struct joint_phase {
    const fj_cpu_call *call;
    int number;
    const int64_t *first_item, *workspace; /* batch + 1 each; workspace: offsets */
    char *memory;
} joint_phase;

static void run_joint_item(void *argument, int64_t item, int worker) {
    const joint_phase *phase = argument;
    int64_t low = 0, high = phase->call->all->batch - 1;
    while (low < high) { /* the last sequence that begins at the item or before */
        const int64_t middle = low + (high - low + 1) / 2;
        if (phase->first_item[middle] <= item)
            low = middle;
        else
            high = middle - 1;
    }
    struct fj_cpu_args args = sequence_args(phase->call, low);
    args.workspace = phase->memory + phase->workspace[low];
    phase->call->kernel->run(&args, phase->number, item - phase->first_item[low], worker);
}

static void run_together(const fj_cpu_call *call, char *memory) {
    const int64_t batch = call->all->batch;
    int64_t *first_item = (int64_t *)(void *)memory, *workspace = first_item + batch + 1;
    memset(call->args.faults, 0, (size_t)call->args.workers * sizeof *call->args.faults);
    workspace[0] = (int64_t)lists_size(call);
    for (int64_t b = 0; b < batch; b++) workspace[b + 1] = workspace[b] + (int64_t)workspace_of(call, b);
    for (int number = 0;; number++) {
        const joint_phase phase = {call, number, first_item, workspace, memory};
        bool more = false;
        first_item[0] = 0;
        for (int64_t b = 0; b < batch; b++) {
            const struct fj_cpu_args args = sequence_args(call, b);
            const int64_t items = call->kernel->items(&args, number);
            more |= items >= 0;
            first_item[b + 1] = first_item[b] + (items > 0 ? items : 0);
        }
        if (!more) return;
        fj_driver_parallel(call->launch, call->args.workers, first_item[batch], run_joint_item,
                           (void *)(uintptr_t)&phase);
    }
}

static void run_in_turn(const fj_cpu_call *call, char *memory) {
    for (int64_t b = 0; b < call->all->batch; b++) {
        struct fj_cpu_args args = sequence_args(call, b);
        args.carry = memory;
        args.workspace = memory + fj_cpu_align_up(call->kernel->carry(&args), 256);
        fj_driver_cpu_run(call->kernel, &args, call->launch);
    }
}

/* Keys that serve a batch of none have gradients of 0. */
static void clear_rows(const struct fj_cpu_tensor *t, size_t element) {
    for (int64_t h = 0; t->data && h < t->shape[1]; h++)
        for (int64_t row = 0; row < t->shape[2]; row++)
            memset(t->data + (h * t->stride[1] + row * t->stride[2]) * (int64_t)element, 0,
                   (size_t)t->shape[3] * element);
}

void fj_attn_cpu_run(fj_cpu_call *call, char *memory) {
    struct fj_cpu_args *args = &call->args;
    args->scratch = memory;
    memory += scratch_size(call);
    if (is_many(call)) {
        (is_backward(call) ? run_in_turn : run_together)(call, memory);
        return;
    }
    args->workspace = memory;
    fj_driver_cpu_run(call->kernel, args, call->launch);
    if (!call->all->shared_keys || call->all->batch > 0) return;
    clear_rows(&args->dkey, fj_dtype_size(call->all->key.dtype));
    clear_rows(&args->dvalue, fj_dtype_size(call->all->key.dtype));
}

void fj_attn_cpu_blocks(const fj_cpu_call *call, int64_t counts[4]) {
    if (!is_many(call)) {
        call->kernel->blocks(&call->args, counts);
        return;
    }
    for (int64_t b = 0; b < call->all->batch; b++) {
        const struct fj_cpu_args args = sequence_args(call, b);
        int64_t one[4];
        call->kernel->blocks(&args, one);
        for (int i = 0; i < 4; i++) counts[i] += one[i];
    }
}
