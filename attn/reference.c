/* The reference path: the definition of attention, unfused, row by row.
 *
 *     s  = q K^T * scale       s' = score_mod(s), -inf where masked      p = softmax(s')
 *     o  = p V                 lse = log(sum(exp(s')))                   max = max(s')
 *
 *     dp = do V^T              ds' = p (dp - sum(p dp) + dlse)           ds = d s'/d s (ds')
 *     dq = ds K scale          dK += ds^T q scale                        dV += p^T do
 *
 * A sink is one more score of each row, of a key that has no value: it joins the sums and lse, and its own gradient is that of a
 * score with dp = 0. Dropout has o and dV take p keep / (1 - P) in place of p, and ds' take dp keep / (1 - P) in place of dp. The mod of
 * the output is applied to o in the end, and its derivative to do in the beginning.
 *
 * 1. Backward recomputes p and the row sum from the definition; it does not read out and lse.
 * 2. A masked position contributes exactly 0 to everything: what the mod or V hold there is never
 *    multiplied in, nor is what a dropped one holds in V and do. A row without any finite score gives out = 0, lse = -inf (with a
 *    sink that), zero gradients.
 * 3. reference_tmpl.inc is included twice: in double, and for the unfused yardstick in float, where
 *    products and probabilities are rounded to the problem's dtype and every sum is float32.
 * 4. An item is one key head with its group of query heads, of one batch, or of all where they share their keys. Packed,
 *    paged, and with offsets a batch is seen as a call of its own (sequences.c). Gradients of captures are added in the
 *    order of items, so a call that wants any runs its items one after the other.
 */
#include "attn/mask/mask.h"
#include "base/dtype.h"
#include "base/philox.h"
#include "driver/parallel.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* What all items share. */
typedef struct reference_call {
    const fj_allocator *allocator;
    fj_graphs graphs;
    const fj_resolved *args;
    fj_dtype dtype; /* of the problem: what the yardstick rounds to */
    bool backward, tf32;
    fj_reference_pass pass;
    fj_philox_key dropout_key;
    fj_eval_input input;
    fj_eval_grads grads;
    fj_fault *faults;   /* one per item */
    atomic_bool failed; /* out of memory somewhere */
} reference_call;

/* One row of scores and what the mods made of it, S values each. */
typedef struct score_row {
    double *before, *after; /* s and s' */
    double *adjoint, *dscore;
    bool *visible, *kept; /* kept: visible, and not dropped */
} score_row;

/* One row of the output, Ev values each: before the mod and after it; the adjoint after the mod and before it. */
typedef struct out_row {
    double *before, *after, *dafter, *dbefore;
} out_row;

/* NULL: there is no such graph. */
typedef struct evaluators {
    fj_eval *score, *score_gradient, *out, *out_gradient, *sink, *sink_gradient;
} evaluators;

/* One item: a key head, on one thread. */
typedef struct reference_item {
    reference_call *call;
    fj_resolved sequence;    /* the batch at work, where it is seen alone */
    const fj_resolved *args; /* it, or the whole call */
    fj_arena *arena;
    evaluators eval;
    int64_t batch, batch_end; /* of the call: the one at work, the item's last */
    int64_t b, h_kv;          /* of args */
    fj_fault fault;
    double sink; /* of the head at work; -inf: none */
    score_row row;
    out_row out;
} reference_item;

static char *element(const fj_tensor *tensor, int64_t i, int64_t j, int64_t k) {
    if (!tensor->data) return NULL; /* empty */
    int64_t offset = i * tensor->strides[0] + j * tensor->strides[1] + k * tensor->strides[2];
    return tensor->data + offset * (int64_t)fj_dtype_size(tensor->dtype);
}

/* A row of the item's keys or values; NULL: on a page that is not there. */
static char *key_element(const reference_item *item, const fj_tensor *tensor, int64_t row) {
    const fj_sequences *s = &item->args->sequences;
    if (item->args->form != FJ_FORM_PAGED) return element(tensor, item->b, item->h_kv, row);
    const int32_t page = s->page_table[row / s->page_size];
    return page < 0 ? NULL : element(tensor, page, item->h_kv, row % s->page_size);
}

static void enter_batch(reference_item *item) {
    const fj_resolved *all = item->call->args;
    const bool alone = fj_attn_has_sequences(all) && item->batch < item->batch_end;
    if (alone) item->sequence = fj_attn_sequence(all, item->batch);
    item->args = alone ? &item->sequence : all;
    item->b = alone ? 0 : item->batch;
}

/* Keys may serve a batch of none: their gradients are 0. */
static bool has_batch(const reference_item *item) { return item->batch < item->batch_end; }

/* The next batch of the item; false after the last. */
static bool next_batch(reference_item *item) {
    if (item->batch + 1 >= item->batch_end) return false;
    item->batch++;
    enter_batch(item);
    return true;
}

static void store_value(const fj_tensor *tensor, int64_t b, int64_t h, int64_t q, double value) {
    if (tensor->present) fj_dtype_store_float(tensor->dtype, element(tensor, b, h, q), 0, value);
}

/* The logarithm of the sum of a row in two parts: what lse holds of it, and the rest. log_sum -inf: an empty row. */
static void store_lse(const fj_resolved *args, int64_t b, int64_t h, int64_t q, double max, double log_sum) {
    double lse = log_sum == (double)-INFINITY ? log_sum : max + log_sum;
    store_value(&args->lse, b, h, q, lse);
    double kept = fj_dtype_round(args->lse.dtype, lse);
    store_value(&args->lse_low, b, h, q, isfinite(kept) ? max - kept + log_sum : 0);
}

#include "attn/reference_mods.inc"

/* ---- The definition, twice ---------------------------------------------------------------------- */

#define REAL double
#define REAL_EXP exp
#define REAL_LOG log
#define NAME(name) name##_double
#define ROUND(call, value) (value)
#include "attn/reference_tmpl.inc"

#define REAL float
#define REAL_EXP expf
#define REAL_LOG logf
#define NAME(name) name##_unfused
#define ROUND(call, value) ((float)fj_dtype_round((call)->dtype, (double)(value)))
#include "attn/reference_tmpl.inc"

#include "attn/rounding.inc"

static evaluators make_evaluators(fj_arena *arena, const fj_graphs *graphs) {
    const fj_ir *const of[] = {graphs->ir,           graphs->gradient, graphs->out,
                               graphs->out_gradient, graphs->sink,     graphs->sink_gradient};
    evaluators all;
    fj_eval **const to[] = {&all.score,        &all.score_gradient, &all.out,
                            &all.out_gradient, &all.sink,           &all.sink_gradient};
    for (size_t i = 0; i < FJ_ARRAY_LEN(of); i++) *to[i] = of[i] ? fj_eval_create(arena, of[i]) : NULL;
    return all;
}

static void item_body(fj_scope *scope, void *argument) {
    reference_item *item = argument;
    const reference_call *call = item->call;
    item->arena = scope->arena;
    item->eval = make_evaluators(scope->arena, &call->graphs);
    int64_t kv_len = item->args->kv_len, width = item->args->value_dim;
    item->row = (score_row){
        .before = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .after = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .adjoint = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .dscore = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .visible = FJ_NEW_ARRAY(scope->arena, bool, kv_len),
        .kept = FJ_NEW_ARRAY(scope->arena, bool, kv_len),
    };
    item->out = (out_row){
        .before = FJ_NEW_ARRAY(scope->arena, double, width),
        .after = FJ_NEW_ARRAY(scope->arena, double, width),
        .dafter = FJ_NEW_ARRAY(scope->arena, double, width),
        .dbefore = FJ_NEW_ARRAY(scope->arena, double, width),
    };
    if (call->pass == FJ_PASS_ROUNDING)
        run_item_rounding(item);
    else if (call->pass == FJ_PASS_UNFUSED && call->dtype != FJ_DTYPE_F64)
        run_item_unfused(item);
    else
        run_item_double(item);
}

static void run_item(void *argument, int64_t index, int worker) {
    (void)worker;
    reference_call *call = argument;
    const int64_t batch = index / call->args->heads_kv;
    reference_item item = {
        .call = call,
        .batch = batch,
        .batch_end = call->args->shared_keys ? call->args->batch : batch + 1,
        .h_kv = index % call->args->heads_kv,
    };
    enter_batch(&item);
    fj_arena arena;
    fj_arena_init(&arena, call->allocator);
    if (fj_scope_run(&arena, NULL, item_body, &item) != FJ_OK) atomic_store(&call->failed, true);
    call->faults[index] = item.fault;
    fj_arena_finish(&arena);
}

/* ---- Gradients of captures ------------------------------------------------------------------------ */

static int64_t element_count(const fj_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->shape[i];
    return count;
}

/* packed, row-major -> the tensor; of squares the roots. low: what rounding took from the sums, or NULL. */
static void store_packed(const fj_tensor *tensor, bool squares, const double *packed, const double *low) {
    int64_t count = element_count(tensor);
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, offset = 0;
        for (int axis = tensor->rank - 1; axis >= 0; axis--) {
            offset += rest % tensor->shape[axis] * tensor->strides[axis];
            rest /= tensor->shape[axis];
        }
        const double sum = low && isfinite(packed[i]) ? packed[i] + low[i] : packed[i];
        fj_dtype_store_float(tensor->dtype, tensor->data, offset, squares ? sqrt(sum) : sum);
    }
}

/* Zeroed sums for every gradient that is wanted. True if there is any. */
static bool make_grads(reference_call *call, fj_arena *arena) {
    const fj_resolved *args = call->args;
    size_t captures = call->graphs.ir->captures.len, scalars = call->graphs.ir->scalars.len;
    double **grads = FJ_NEW_ARRAY(arena, double *, captures);
    bool any = false;
    for (size_t i = 0; i < captures; i++)
        if (args->dcaptures && args->dcaptures[i].present) {
            grads[i] = FJ_NEW_ARRAY(arena, double, 2 * element_count(&args->dcaptures[i]));
            any = true;
        }
    call->grads.captures = grads;
    call->grads.squares = call->pass == FJ_PASS_ROUNDING;
    call->grads.compensated = call->pass == FJ_PASS_EXACT;
    for (size_t i = 0; i < scalars; i++) any |= args->dscalars && args->dscalars[i].present;
    call->grads.scalars = any ? FJ_NEW_ARRAY(arena, double, 2 * scalars) : NULL;
    return any;
}

static void store_grads(const reference_call *call) {
    const fj_resolved *args = call->args;
    const bool exact = call->grads.compensated;
    const size_t scalars = call->graphs.ir->scalars.len;
    for (size_t i = 0; i < call->graphs.ir->captures.len; i++)
        if (call->grads.captures[i])
            store_packed(&args->dcaptures[i], call->grads.squares, call->grads.captures[i],
                         exact ? call->grads.captures[i] + element_count(&args->dcaptures[i]) : NULL);
    for (size_t i = 0; i < call->graphs.ir->scalars.len; i++)
        if (call->grads.scalars && args->dscalars[i].present)
            store_packed(&args->dscalars[i], call->grads.squares, &call->grads.scalars[i],
                         exact ? &call->grads.scalars[scalars + i] : NULL);
}

/* ---- The call --------------------------------------------------------------------------------------- */

static const fj_eval_tensor *bind_captures(const reference_call *call, fj_arena *arena) {
    size_t count = call->graphs.ir->captures.len;
    fj_eval_tensor *bound = FJ_NEW_ARRAY(arena, fj_eval_tensor, count);
    for (size_t i = 0; i < count; i++) {
        const fj_tensor *tensor = &call->args->captures[i];
        bound[i] = (fj_eval_tensor){.data = tensor->data, .dtype = tensor->dtype};
        memcpy(bound[i].dims, tensor->shape, sizeof bound[i].dims);
        memcpy(bound[i].strides, tensor->strides, sizeof bound[i].strides);
    }
    return bound;
}

typedef struct call_setup {
    reference_call *call;
    const fj_launch *launch;
    fj_fault *ret_fault;
} call_setup;

static void call_body(fj_scope *scope, void *argument) {
    call_setup *setup = argument;
    reference_call *call = setup->call;
    const fj_resolved *args = call->args;
    int64_t items = (args->shared_keys ? 1 : args->batch) * args->heads_kv;
    call->input.captures = bind_captures(call, scope->arena);
    call->input.scalars = args->scalars;
    call->input.round_f32 = call->pass == FJ_PASS_UNFUSED && call->dtype != FJ_DTYPE_F64;
    call->faults = FJ_NEW_ARRAY(scope->arena, fj_fault, items);
    bool sequential = call->backward && make_grads(call, scope->arena);
    if (sequential)
        for (int64_t item = 0; item < items; item++) run_item(call, item, 0);
    else
        fj_driver_parallel(setup->launch, fj_driver_workers(setup->launch), items, run_item, call);
    if (atomic_load(&call->failed)) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
    if (sequential) store_grads(call);
    for (int64_t item = 0; item < items; item++) {
        const fj_fault *fault = &call->faults[item], *least = setup->ret_fault;
        if (fault->found &&
            (!least->found || fault->b < least->b || (fault->b == least->b && fault->h < least->h)))
            *setup->ret_fault = *fault;
    }
}

fj_status fj_reference_run(const fj_allocator *allocator, const fj_graphs *graphs, const fj_problem *problem,
                           const fj_resolved *args, fj_reference_pass pass, const fj_launch *launch,
                           fj_fault *ret_fault, fj_error *error) {
    reference_call call = {
        .allocator = allocator,
        .graphs = *graphs,
        .args = args,
        .dtype = problem->dtype,
        .backward = problem->direction == FJ_BACKWARD,
        .tf32 = problem->tf32,
        .pass = pass,
        .dropout_key = fj_dropout_key(args->dropout.seed, args->dropout.offset),
    };
    fj_fault fault = {0};
    call_setup setup = {&call, launch, &fault};
    fj_arena arena;
    fj_arena_init(&arena, allocator);
    fj_status status = fj_scope_run(&arena, error, call_body, &setup);
    fj_arena_finish(&arena);
    if (status == FJ_OK && fault.found) {
        *ret_fault = fault;
        return FJ_ERR_INDEX;
    }
    return status;
}
