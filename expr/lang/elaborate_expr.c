/* Expressions, evaluated at compile time. */
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Compile-time conditions and ints -------------------------------------------------------------- */

/* Sees through tensors of rank 0. */
static fj_value settle(fj_elab *e, fj_value value, fj_place place) {
    fj_value opaque;
    if (fj_gives_opaque(e, value, &opaque)) fj_capture_fail_opaque(e, opaque, place);
    return value.kind == FJ_VALUE_TENSOR ? fj_tensor_settle(e, value, place) : value;
}

/* NULL: depends on a position; else the run-time parameter that it depends on, or "". */
static const char *reading_runtime(fj_elab *e, fj_value value) {
    return fj_is_uniform(e, value.ref) ? fj_runtime_name(e, value.ref) : NULL;
}

bool fj_elab_truth(fj_elab *e, fj_value value, fj_place place, const char *what) {
    value = settle(e, value, place);
    if (value.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, place, "%s", value.unknown->why);
    if (value.kind == FJ_VALUE_TENSOR) fj_elab_fail(e, place, "%s is a tensor", what);
    if (value.kind == FJ_VALUE_STR) fj_constant_need_text(e, value, place);
    if (value.kind != FJ_VALUE_SCALAR) return fj_value_truth(value);
    if (value.known != NULL) {
        fj_capture_specialise(e, value.ref);
        return fj_value_truth(*value.known);
    }
    if (reading_runtime(e, value) != NULL) {
        fj_elab_fail_note(
            e, place,
            "a run-time parameter, or a dimension that is not known yet, cannot decide what is compiled",
            "%s is not known at compile time", what);
    }
    fj_elab_fail_note(e, place, "torch.where(condition, a, b) chooses at run time",
                      "%s is a run-time value: use torch.where", what);
}

int fj_elab_claim(fj_elab *e, fj_value value, fj_place place, const char *what) {
    if (fj_is_opaque(value) && e->desc->bindings_open) return -1;
    value = settle(e, value, place);
    if (value.kind != FJ_VALUE_SCALAR) return fj_elab_truth(e, value, place, what);
    if (value.known != NULL) return fj_value_truth(*value.known);
    if (e->desc->bindings_open && fj_is_uniform(e, value.ref)) return -1;
    fj_elab_fail(e, place, "%s is not known at compile time", what);
}

int64_t fj_elab_int(fj_elab *e, fj_value value, fj_place place, const char *what) {
    value = settle(e, value, place);
    if (value.kind == FJ_VALUE_BOOL) return value.b;
    if (value.kind == FJ_VALUE_INT) return value.i;
    if (value.kind == FJ_VALUE_SCALAR && value.type != FJ_TYPE_FLOAT) {
        if (value.known != NULL) {
            fj_capture_specialise(e, value.ref);
            return fj_elab_int(e, *value.known, place, what);
        }
        const char *scalar = reading_runtime(e, value);
        if (scalar != NULL && *scalar != '\0') {
            fj_elab_fail(e, place,
                         "the run-time parameter '%s' cannot be used in %s: it is not known at compile time",
                         scalar, what);
        }
        if (scalar != NULL && e->desc->bindings_open) return 1; /* a dimension that is not given */
        fj_elab_fail(e, place, "%s needs an int that is known at compile time", what);
    }
    if (value.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, place, "%s", value.unknown->why);
    fj_elab_fail(e, place, "%s needs an int, not %s", what, fj_value_describe(value));
}

/* ---- Displays and comprehensions -------------------------------------------------------------------- */

static fj_value display(fj_elab *e, const fj_expr *x, fj_value_kind kind) {
    FJ_VEC(fj_value) items = {0};
    for (size_t i = 0; i < x->items.len; i++) {
        const fj_expr *item = x->items.data[i];
        if (item->kind != FJ_EXPR_STARRED) {
            FJ_PUSH(e->arena, &items, fj_elab_expr(e, item));
            continue;
        }
        const fj_sequence more = fj_elab_iterate(e, fj_elab_expr(e, item->left), item->place);
        fj_elab_step(e, x->place, more.len);
        for (size_t j = 0; j < more.len; j++) FJ_PUSH(e->arena, &items, more.items[j]);
    }
    return fj_value_sequence(e->arena, kind, items.data, items.len);
}

typedef FJ_VEC(fj_value) value_list;
typedef FJ_VEC(fj_str) name_list;

static void collect_names(fj_elab *e, const fj_expr *target, name_list *names) {
    if (target->kind == FJ_EXPR_NAME) FJ_PUSH(e->arena, names, target->text);
    if (target->kind == FJ_EXPR_STARRED) collect_names(e, target->left, names);
    for (size_t i = 0; i < target->items.len; i++) collect_names(e, target->items.data[i], names);
}

static void run_clause(fj_elab *e, const fj_expr *x, size_t at, value_list *items) {
    if (at == x->clause_count) {
        FJ_PUSH(e->arena, items, fj_elab_expr(e, x->left));
        return;
    }
    fj_elab_enter(e, x->place);
    const fj_clause *clause = &x->clauses[at];
    const fj_sequence from = fj_elab_iterate(e, fj_elab_expr(e, clause->iterable), clause->iterable->place);
    for (size_t i = 0; i < from.len; i++) {
        fj_elab_step(e, x->place, 1);
        fj_names_assign_target(e, clause->target, from.items[i]);
        bool wanted = true;
        for (size_t j = 0; j < clause->conditions.len && wanted; j++) {
            const fj_expr *condition = clause->conditions.data[j];
            wanted = fj_elab_truth(e, fj_elab_expr(e, condition), condition->place,
                                   "the condition of a comprehension");
        }
        if (wanted) run_clause(e, x, at + 1, items);
    }
    fj_elab_leave(e);
}

static fj_value comprehension(fj_elab *e, const fj_expr *x) {
    name_list names = {0};
    for (size_t i = 0; i < x->clause_count; i++) collect_names(e, x->clauses[i].target, &names);
    fj_frame *outer = e->frame;
    e->frame = fj_frame_create(e, outer, names.data, names.len);
    e->frame->is_comprehension = true;
    value_list items = {0};
    run_clause(e, x, 0, &items);
    e->frame = outer;
    if (x->integer == 0) return fj_value_sequence(e->arena, FJ_VALUE_LIST, items.data, items.len);
    const fj_value dict = fj_dict_create(e);
    for (size_t i = 0; i < items.len; i++) {
        const fj_value *pair = items.data[i].seq->items;
        fj_dict_set(e, dict.dict, pair[0], pair[1], x->place);
    }
    return dict;
}

static fj_value dict_display(fj_elab *e, const fj_expr *x) {
    const fj_value dict = fj_dict_create(e);
    for (size_t i = 0; i + 1 < x->items.len; i += 2) {
        const fj_expr *key = x->items.data[i];
        if (key->kind != FJ_EXPR_STARRED) {
            const fj_value name = fj_elab_expr(e, key);
            fj_dict_set(e, dict.dict, name, fj_elab_expr(e, x->items.data[i + 1]), key->place);
            continue;
        }
        const fj_value other = fj_elab_expr(e, key->left);
        if (other.kind == FJ_VALUE_TENSOR) fj_capture_fail_broken(e, other.tensor, key->place);
        if (other.kind != FJ_VALUE_DICT)
            fj_elab_fail(e, key->place, "'**' takes a dict, not %s", fj_value_describe(other));
        for (size_t k = 0; k < other.dict->items.len; k++) {
            const fj_pair pair = other.dict->items.data[k];
            fj_dict_set(e, dict.dict, pair.key, pair.value, key->place);
        }
    }
    return dict;
}

/* name := value */
static fj_value named(fj_elab *e, const fj_expr *x) {
    const fj_value value = fj_elab_expr(e, x->left);
    fj_frame *const frame = e->frame;
    while (e->frame != NULL && e->frame->is_comprehension) e->frame = e->frame->parent;
    fj_names_assign(e, x->text, value, x->place);
    e->frame = frame;
    return value;
}

/* ---- Operators ----------------------------------------------------------------------------------------- */

static bool is_runtime(fj_value v) {
    return v.kind == FJ_VALUE_TENSOR || (v.kind == FJ_VALUE_SCALAR && v.known == NULL);
}

static fj_value logical(fj_elab *e, const fj_expr *x) {
    const bool is_and = x->kind == FJ_EXPR_AND;
    fj_value left = fj_elab_expr(e, x->items.data[0]);
    for (size_t i = 1; i < x->items.len; i++) {
        if (is_runtime(left)) {
            left = fj_operate_logical(e, is_and, left, fj_elab_expr(e, x->items.data[i]), x->place);
            continue;
        }
        const bool truth = fj_elab_truth(e, left, x->items.data[i - 1]->place, "an operand of 'and' or 'or'");
        if (truth != is_and) return left;
        left = fj_elab_expr(e, x->items.data[i]);
    }
    return left;
}

static fj_value negation(fj_elab *e, const fj_expr *x) {
    const fj_value value = fj_elab_expr(e, x->left);
    if (is_runtime(value)) return fj_operate_not(e, value, x->place);
    return fj_value_bool(!fj_elab_truth(e, value, x->place, "the operand of 'not'"));
}

static fj_value comparison(fj_elab *e, const fj_expr *x) {
    fj_value left = fj_elab_expr(e, x->left), result = FJ_UNSET;
    for (size_t i = 0; i < x->items.len; i++) {
        const fj_value right = fj_elab_expr(e, x->items.data[i]);
        const fj_value link = fj_operate_compare(e, x->ops[i], left, right, x->place);
        if (result.kind == FJ_VALUE_UNSET) {
            result = link;
        } else if (result.kind == FJ_VALUE_BOOL && !result.b) {
            return result;
        } else {
            result =
                result.kind == FJ_VALUE_BOOL ? link : fj_operate_logical(e, true, result, link, x->place);
        }
        left = right;
    }
    return result;
}

static fj_value condition(fj_elab *e, const fj_expr *x) {
    const fj_value test = fj_elab_expr(e, x->condition);
    const bool truth = fj_elab_truth(e, test, x->condition->place, "the condition of 'if'");
    return fj_elab_expr(e, truth ? x->left : x->right);
}

/* ---- Dispatch -------------------------------------------------------------------------------------------------- */

static fj_value unary(fj_elab *e, const fj_expr *x) {
    return fj_operate_unary(e, x->op, fj_elab_expr(e, x->left), x->place);
}

/* (q >= kv) & kv > 2 is ((q >= kv) & kv) > 2 in Python: a bool and an int show that its author means another thing. */
static void refuse_mixed_bits(fj_elab *e, const fj_expr *x, fj_value left, fj_value right) {
    const char *op = fj_operator_text(x->op);
    const fj_type a = fj_value_type(left), b = fj_value_type(right);
    if ((a == FJ_TYPE_BOOL) == (b == FJ_TYPE_BOOL)) return;
    fj_elab_fail(
        e, x->place,
        "'%s' binds tighter than a comparison, so this compares the '%s' of a bool and an int: write "
        "(a >= b) %s (c < d), or put parentheses around what is compared",
        op, op, op);
}

static fj_value binary(fj_elab *e, const fj_expr *x) {
    const fj_value left = fj_elab_expr(e, x->left), right = fj_elab_expr(e, x->right),
                   value = fj_operate(e, x->op, left, right, x->place);
    if (x->bare) refuse_mixed_bits(e, x, left, right);
    return value;
}

static fj_value evaluate(fj_elab *e, const fj_expr *x) {
    switch (x->kind) {
    case FJ_EXPR_NUMBER_INT: return fj_value_int(x->integer);
    case FJ_EXPR_NUMBER_FLOAT: return fj_value_float(x->number);
    case FJ_EXPR_STRING: return x->integer == 0 ? fj_value_str(x->text) : fj_value_vague(FJ_TEXT_UNKNOWN);
    case FJ_EXPR_TRUE: return fj_value_bool(true);
    case FJ_EXPR_FALSE: return fj_value_bool(false);
    case FJ_EXPR_NONE: return FJ_NONE;
    case FJ_EXPR_NAME: return fj_names_lookup(e, x->text, x->place);
    case FJ_EXPR_TUPLE: return display(e, x, FJ_VALUE_TUPLE);
    case FJ_EXPR_LIST: return display(e, x, FJ_VALUE_LIST);
    case FJ_EXPR_UNARY: return unary(e, x);
    case FJ_EXPR_BINARY: return binary(e, x);
    case FJ_EXPR_COMPARE: return comparison(e, x);
    case FJ_EXPR_AND:
    case FJ_EXPR_OR: return logical(e, x);
    case FJ_EXPR_NOT: return negation(e, x);
    case FJ_EXPR_CONDITION: return condition(e, x);
    case FJ_EXPR_CALL: return fj_elab_call_expr(e, x);
    case FJ_EXPR_ATTRIBUTE: return fj_elab_attribute_expr(e, x);
    case FJ_EXPR_SUBSCRIPT: return fj_elab_subscript_expr(e, x);
    case FJ_EXPR_LAMBDA: return fj_elab_define(e, x->function);
    case FJ_EXPR_COMPREHENSION: return comprehension(e, x);
    case FJ_EXPR_DICT: return dict_display(e, x);
    case FJ_EXPR_NAMED: return named(e, x);
    case FJ_EXPR_ELLIPSIS: return (fj_value){.kind = FJ_VALUE_ELLIPSIS};
    case FJ_EXPR_UNSUPPORTED: fj_elab_fail(e, x->place, "%.*s", (int)x->text.len, x->text.data);
    default: fj_elab_fail(e, x->place, "this is not a value");
    }
}

fj_value fj_elab_expr(fj_elab *e, const fj_expr *x) {
    fj_elab_enter(e, x->place);
    const fj_value value = evaluate(e, x);
    fj_elab_leave(e);
    return value;
}
