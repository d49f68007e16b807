/* Says which read or division is at fault at a position: follows the fault root down to a condition
 * that holds. A fault root is an or of (fails & guard), below reduce_any for loops (guard.c). */
#include <stdio.h>

#include "expr/ir/eval.h"

typedef struct explainer {
    fj_eval *eval;
    int32_t kv;
    char *text;
    size_t size;
    int depth;
} explainer;

enum { MAX_DEPTH = 64 }; /* nested ands and loops; a chain of ors is walked, not nested */

static bool is_true(const explainer *x, fj_ref ref) { return *(const bool *)x->eval->values[ref].lanes; }

static void append_position(const explainer *x, size_t at) {
    if (at >= x->size) return;
    (void)snprintf(x->text + at, x->size - at, " at b=%d h=%d q=%d kv=%d", (int)x->eval->b, (int)x->eval->h,
                   (int)x->eval->q, (int)x->kv);
}

static size_t append_shape(const explainer *x, size_t at, const fj_eval_tensor *tensor, int rank) {
    for (int d = 0; d < rank && at < x->size; d++) {
        at += (size_t)snprintf(x->text + at, x->size - at, "%s%lld", d > 0 ? "," : "",
                               (long long)tensor->dims[d]);
    }
    return at;
}

static bool explain_read(const explainer *x, fj_ref ref) {
    const fj_node *node = fj_ir_at(x->eval->ir, ref);
    const fj_ref *args = fj_ir_args(x->eval->ir, ref);
    const fj_capture *capture = &x->eval->ir->captures.data[node->imm.i];
    const fj_eval_tensor *tensor = &x->eval->input->captures[node->imm.i];
    for (int d = 0; d < node->argc; d++) {
        const int64_t index = fj_eval_index(x->eval, args[d]);
        if (index >= -tensor->dims[d] && index < tensor->dims[d]) continue;
        size_t at = (size_t)snprintf(x->text, x->size, "captured tensor '%s' %s [", capture->name,
                                     fj_dtype_name(tensor->dtype));
        at = append_shape(x, at, tensor, capture->rank);
        if (at < x->size && index == FJ_IR_OUTSIDE) {
            at +=
                (size_t)snprintf(x->text + at, x->size - at, "] is read at an index outside of a view of it");
        } else if (at < x->size) {
            at += (size_t)snprintf(x->text + at, x->size - at, "] is read at index %lld (dimension %d)",
                                   (long long)index, d);
        }
        append_position(x, at);
        return true;
    }
    return false;
}

static bool explain_division(const explainer *x) {
    const int at = snprintf(x->text, x->size, "an integer is divided by 0 (// or %%)");
    append_position(x, (size_t)at);
    return true;
}

static bool explain(explainer *x, const fj_sched_item *items, size_t count, fj_ref ref);

/* Repeats the loop up to the first counter whose body holds; its values then stay in place. */
static bool explain_loop(explainer *x, const fj_sched_item *items, size_t count, fj_ref ref) {
    for (size_t k = 0; k < count; k++) {
        if (items[k].ref != ref) continue;
        const fj_ref loop = items[k].loop, body = fj_ir_args(x->eval->ir, ref)[1];
        const int64_t extent = *(const int64_t *)x->eval->values[fj_ir_args(x->eval->ir, loop)[0]].lanes;
        const fj_sched_block *block = items[k].body;
        for (int64_t counter = 0; counter < extent; counter++) {
            *(int64_t *)x->eval->values[loop].lanes = counter;
            for (size_t i = 0; i < block->items.len; i++) fj_eval_item_run(x->eval, &block->items.data[i], 1);
            if (is_true(x, body)) return explain(x, block->items.data, block->items.len, body);
        }
    }
    return false;
}

static bool is_zero(const fj_ir *ir, fj_ref ref) {
    const fj_node *node = fj_ir_at(ir, ref);
    return (node->op == FJ_OP_CONST_I32 || node->op == FJ_OP_CONST_I64) && node->imm.i == 0;
}

static bool explain(explainer *x, const fj_sched_item *items, size_t count, fj_ref ref) {
    const fj_ir *ir = x->eval->ir;
    bool found = false;
    if (++x->depth > MAX_DEPTH) return false;
    while (!found) {
        const fj_node *node = fj_ir_at(ir, ref);
        const fj_ref *args = fj_ir_args(ir, ref);
        if (node->op == FJ_OP_OR) {
            ref = is_true(x, args[0]) ? args[0] : args[1];
            continue;
        }
        if (node->op == FJ_OP_OUT_OF_RANGE)
            found = explain_read(x, ref);
        else if (node->op == FJ_OP_EQ && (is_zero(ir, args[1]) || is_zero(ir, args[0])))
            found = explain_division(x);
        else if (node->op == FJ_OP_REDUCE_ANY)
            found = explain_loop(x, items, count, ref);
        else if (node->op == FJ_OP_AND) {
            found = explain(x, items, count, args[0]) || explain(x, items, count, args[1]);
        }
        break;
    }
    x->depth--;
    return found;
}

bool fj_eval_explain(fj_eval *eval, const fj_eval_input *input, int32_t b, int32_t h, int32_t q, int32_t kv,
                     double score, char *text, size_t size) {
    const fj_eval_lanes lanes = {.b = b, .h = h, .q = q, .kv0 = kv, .count = 1, .score = &score};
    explainer x = {.eval = eval, .kv = kv, .text = text, .size = size};
    bool fault = false;
    if (size > 0) text[0] = '\0';
    eval->cached = false;
    fj_eval_run(eval, input, &lanes, NULL, NULL, NULL, &fault, NULL);
    /* A division by a constant 0 leaves no condition to follow. */
    if (fault && !explain(&x, eval->items, eval->item_count, eval->ir->fault)) (void)explain_division(&x);
    eval->cached = false; /* values of loops were left in the middle */
    return fault;
}
