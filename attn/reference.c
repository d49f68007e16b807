/* The reference path: the definition of attention, unfused, row by row.
 *
 *     s  = q K^T * scale       s' = score_mod(s), -inf where masked      p = softmax(s')
 *     o  = p V                 lse = log(sum(exp(s')))                   max = max(s')
 *
 *     dp = do V^T              ds' = p (dp - sum(p dp) + dlse)           ds = d s'/d s (ds')
 *     dq = ds K scale          dK += ds^T q scale                        dV += p^T do
 *
 * 1. Backward recomputes p and the row sum from the definition; it does not read out and lse.
 * 2. A masked position contributes exactly 0 to everything: what the mod or V hold there is never
 *    multiplied in. A row without any finite score gives out = 0, lse = -inf, zero gradients.
 * 3. reference_tmpl.inc is included twice: in double, and for the unfused yardstick in float, where
 *    products and probabilities are rounded to the problem's dtype and every sum is float32.
 * 4. An item is one key head with its group of query heads, of one batch, or of all where they share their keys. Packed,
 *    paged, and with offsets a batch is seen as a call of its own (sequences.c). Gradients of captures are added in the
 *    order of items, so a call that wants any runs its items one after the other.
 */
#include "attn/mask/mask.h"
#include "base/dtype.h"
#include "driver/parallel.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* What all items share. */
typedef struct reference_call {
    const fj_allocator *allocator;
    const fj_ir *ir, *gradient;
    const fj_resolved *args;
    fj_dtype dtype; /* of the problem: what the yardstick rounds to */
    bool backward, tf32;
    fj_reference_pass pass;
    fj_eval_input input;
    fj_eval_grads grads;
    fj_fault *faults;   /* one per item */
    atomic_bool failed; /* out of memory somewhere */
} reference_call;

/* One row of scores and what the mods made of it, S values each. */
typedef struct score_row {
    double *before, *after; /* s and s' */
    double *adjoint, *dscore;
    bool *visible;
} score_row;

/* One item: a key head, on one thread. */
typedef struct reference_item {
    reference_call *call;
    fj_resolved sequence;    /* the batch at work, where it is seen alone */
    const fj_resolved *args; /* it, or the whole call */
    fj_arena *arena;
    fj_eval *eval, *eval_gradient;
    int64_t batch, batch_end; /* of the call: the one at work, the item's last */
    int64_t b, h_kv;          /* of args */
    fj_fault fault;
    score_row row;
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

/* ---- The mods over a row ------------------------------------------------------------------------ */

static void note_fault(reference_item *item, const fj_eval_lanes *lanes, const bool *fault) {
    for (int i = 0; i < lanes->count && !item->fault.found; i++)
        if (fault[i]) item->fault = (fj_fault){true, lanes->b, lanes->h, lanes->q, lanes->kv0 + i};
}

static fj_eval_lanes lanes_of(const reference_item *item, int64_t h, int64_t q, int64_t kv) {
    const int64_t left = item->args->kv_len - kv;
    return (fj_eval_lanes){
        .b = (int32_t)(item->args->first_batch + item->b),
        .h = (int32_t)h,
        .q = (int32_t)q + item->args->q_offset,
        .kv0 = (int32_t)kv,
        .count = left < FJ_EVAL_LANES ? (int)left : FJ_EVAL_LANES,
        .score = item->row.before + kv,
    };
}

/* Narrows row->visible, which the mod made, to a block mask: full blocks are visible whatever the mod says. */
static void apply_block_mask(reference_item *item, int64_t h, int64_t q) {
    const fj_block_mask *mask = item->args->block_mask;
    const fj_mask_shape *shape = &mask->shape;
    const int64_t plane = fj_mask_plane(shape, item->batch, h), kv_len = item->args->kv_len;
    fj_row_cursor cursor = fj_row_begin(&mask->rows, plane * mask->q_blocks + q / shape->block_q);
    for (int32_t at = 0, end; at < mask->kv_blocks; at = end) {
        const fj_block_class class = fj_row_stretch(&cursor, at, &end);
        const int64_t from = at * shape->block_kv,
                      to = end * shape->block_kv < kv_len ? end * shape->block_kv : kv_len;
        if (class == FJ_BLOCK_PARTIAL || from >= kv_len) continue;
        memset(item->row.visible + from, class == FJ_BLOCK_FULL, (size_t)(to - from) * sizeof(bool));
    }
}

/* Hides what is on pages that are not there. */
static void apply_pages(reference_item *item) {
    for (int64_t kv = 0; kv < item->args->kv_len; kv++)
        if (!key_element(item, &item->args->key, kv)) item->row.visible[kv] = false;
}

/* row->before -> row->after, row->visible. */
static void apply_mods(reference_item *item, int64_t h, int64_t q) {
    const reference_call *call = item->call;
    score_row *row = &item->row;
    bool fault[FJ_EVAL_LANES];
    for (int64_t kv = 0; kv < item->args->kv_len; kv += FJ_EVAL_LANES) {
        const fj_eval_lanes lanes = lanes_of(item, h, q, kv);
        double *after = call->ir->score ? row->after + kv : NULL;
        fj_eval_run(item->eval, &call->input, &lanes, after, row->visible + kv, NULL, NULL, NULL);
        if (!call->ir->score)
            memcpy(row->after + kv, row->before + kv, (size_t)lanes.count * sizeof *row->after);
    }
    if (item->args->block_mask) apply_block_mask(item, h, q);
    if (item->args->form == FJ_FORM_PAGED) apply_pages(item);
    for (int64_t kv = 0; kv < item->args->kv_len && call->ir->fault; kv += FJ_EVAL_LANES) {
        fj_eval_lanes lanes = lanes_of(item, h, q, kv);
        lanes.live = row->visible + kv;
        fj_eval_run(item->eval, &call->input, &lanes, NULL, NULL, NULL, fault, NULL);
        note_fault(item, &lanes, fault);
    }
}

/* row->adjoint -> row->dscore, and the gradients of captures. */
static void apply_gradient(reference_item *item, int64_t h, int64_t q) {
    const reference_call *call = item->call;
    score_row *row = &item->row;
    int64_t kv_len = item->args->kv_len;
    if (!call->ir->score) {
        memcpy(row->dscore, row->adjoint, (size_t)kv_len * sizeof *row->dscore);
        return;
    }
    for (int64_t kv = 0; kv < kv_len; kv += FJ_EVAL_LANES) {
        fj_eval_lanes lanes = lanes_of(item, h, q, kv);
        lanes.adjoint = row->adjoint + kv;
        lanes.live = row->visible + kv;
        fj_eval_run(item->eval_gradient, &call->input, &lanes, NULL, NULL, row->dscore + kv, NULL,
                    &call->grads);
    }
}

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

static void item_body(fj_scope *scope, void *argument) {
    reference_item *item = argument;
    const reference_call *call = item->call;
    item->arena = scope->arena;
    item->eval = fj_eval_create(scope->arena, call->ir);
    item->eval_gradient = call->gradient ? fj_eval_create(scope->arena, call->gradient) : NULL;
    int64_t kv_len = item->args->kv_len;
    item->row = (score_row){
        .before = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .after = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .adjoint = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .dscore = FJ_NEW_ARRAY(scope->arena, double, kv_len),
        .visible = FJ_NEW_ARRAY(scope->arena, bool, kv_len),
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
    size_t captures = call->ir->captures.len, scalars = call->ir->scalars.len;
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
    const size_t scalars = call->ir->scalars.len;
    for (size_t i = 0; i < call->ir->captures.len; i++)
        if (call->grads.captures[i])
            store_packed(&args->dcaptures[i], call->grads.squares, call->grads.captures[i],
                         exact ? call->grads.captures[i] + element_count(&args->dcaptures[i]) : NULL);
    for (size_t i = 0; i < call->ir->scalars.len; i++)
        if (call->grads.scalars && args->dscalars[i].present)
            store_packed(&args->dscalars[i], call->grads.squares, &call->grads.scalars[i],
                         exact ? &call->grads.scalars[scalars + i] : NULL);
}

/* ---- The call --------------------------------------------------------------------------------------- */

static const fj_eval_tensor *bind_captures(const reference_call *call, fj_arena *arena) {
    size_t count = call->ir->captures.len;
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

fj_status fj_reference_run(const fj_allocator *allocator, const fj_ir *ir, const fj_ir *gradient,
                           const fj_problem *problem, const fj_resolved *args, fj_reference_pass pass,
                           const fj_launch *launch, fj_fault *ret_fault, fj_error *error) {
    reference_call call = {
        .allocator = allocator,
        .ir = ir,
        .gradient = gradient,
        .args = args,
        .dtype = problem->dtype,
        .backward = problem->direction == FJ_BACKWARD,
        .tf32 = problem->tf32,
        .pass = pass,
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
