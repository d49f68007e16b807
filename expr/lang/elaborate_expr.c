/* Expressions, evaluated at compile time. */
#include "expr/lang/builtins.h"
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
        if (scalar != NULL && e->desc->bindings_open) return 1; /* a dimension that nobody gave */
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

/* ---- Attributes ------------------------------------------------------------------------------------------ */

static _Noreturn void fail_attribute(fj_elab *e, fj_value object, fj_str name, fj_place place) {
    if (object.kind == FJ_VALUE_TENSOR) fj_capture_fail_broken(e, object.tensor, place);
    if (fj_str_is(name, "item")) {
        fj_elab_fail(e, place, "'.item()' is not in the mod language: a tensor of rank 0 is used as it is");
    }
    fj_suggestion suggestion = fj_suggest_begin(name);
    if (object.kind == FJ_VALUE_SCALAR || object.kind == FJ_VALUE_TENSOR)
        fj_builtin_suggest(&suggestion, FJ_IN_METHOD);
    fj_elab_fail(e, place, "%s has no attribute '%.*s' in the mod language%s", fj_value_describe(object),
                 (int)name.len, name.data, fj_suggest_text(e, &suggestion));
}

static fj_value shape_of(fj_elab *e, fj_value object, fj_place place) {
    fj_value dims[FJ_MAX_RANK];
    int rank = 0;
    if (object.kind == FJ_VALUE_TENSOR) {
        rank = fj_tensor_rank(e, object.tensor, place);
        if (rank < 0) { /* not known: as many as an index may reach */
            fj_capture_want(e, fj_capture_resolve(e, object.tensor, place), place);
            rank = FJ_MAX_RANK;
            for (int i = 0; i < rank; i++) dims[i] = fj_scalar_value(e, fj_ir_i64(e->ir, 1), true);
            return fj_value_sequence(e->arena, FJ_VALUE_TUPLE, dims, (size_t)rank);
        }
        for (int i = 0; i < rank; i++) dims[i] = fj_tensor_dim(e, object.tensor, i, place);
    }
    return fj_value_sequence(e->arena, FJ_VALUE_TUPLE, dims, (size_t)rank);
}

static fj_value rank_of(fj_elab *e, fj_value object, fj_place place) {
    const int rank = object.kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, object.tensor, place) : 0;
    if (rank < 0) fj_capture_want(e, fj_capture_resolve(e, object.tensor, place), place);
    return rank >= 0 ? fj_value_int(rank) : fj_scalar_value(e, fj_ir_i64(e->ir, 1), true);
}

/* Properties of tensors and run-time values. */
static bool property(fj_elab *e, fj_value object, fj_str name, fj_place place, fj_value *ret_value) {
    fj_value unnamed;
    const bool opaque = fj_gives_opaque(e, object, &unnamed);
    if (fj_str_is(name, "device")) {
        *ret_value = fj_value_vague(FJ_TEXT_DEVICE);
        return true;
    }
    if (fj_str_is(name, "requires_grad") || fj_str_is(name, "is_cuda")) {
        *ret_value = fj_value_bool(false);
        return true;
    }
    const bool known = fj_str_is(name, "shape") || fj_str_is(name, "ndim") || fj_str_is(name, "dtype") ||
                       fj_str_is(name, "T") || fj_str_is(name, "data");
    if (!known) return false;
    if (opaque) {
        if (e->in_mod) fj_capture_fail_opaque(e, object, place);
        *ret_value = unnamed;
    } else if (fj_str_is(name, "shape")) {
        *ret_value = shape_of(e, object, place);
    } else if (fj_str_is(name, "ndim")) {
        *ret_value = rank_of(e, object, place);
    } else if (fj_str_is(name, "T")) {
        *ret_value = fj_tensor_transpose(e, object, fj_value_int(0), fj_value_int(1), place);
    } else if (fj_str_is(name, "dtype")) {
        const bool is_tensor = object.kind == FJ_VALUE_TENSOR;
        const bool capture = is_tensor && object.tensor->kind == FJ_TENSOR_CAPTURE;
        const fj_type type = is_tensor ? fj_tensor_type(e, object.tensor, place) : object.type;
        *ret_value = fj_value_dtype(capture ? fj_capture_resolve(e, object.tensor, place)->dtype
                                            : fj_type_dtype(type));
    } else {
        *ret_value = object;
    }
    return true;
}

static bool field(fj_value object, fj_str name, fj_value *ret_value) {
    for (size_t i = 0; object.seq->fields != NULL && i < object.seq->len; i++) {
        if (!fj_str_is(name, object.seq->fields[i])) continue;
        *ret_value = object.seq->items[i];
        return true;
    }
    return false;
}

static fj_value member_of_unknown(fj_elab *e, fj_value object, fj_str name, fj_place place) {
    const fj_unknown *unknown = object.unknown;
    if (fj_str_is(fj_str_from(unknown->name), "_TanhApprox") && fj_str_is(name, "apply")) {
        return fj_builtin_value(fj_builtin_find(FJ_STR("tanh_approx"), 0));
    }
    if (fj_str_is(name, "is_available")) return fj_builtin_value(fj_builtin_find(name, 0));
    (void)place;
    const char *full = fj_arena_printf(e->arena, "%s.%.*s", unknown->name, (int)name.len, name.data);
    return fj_value_unknown(e->arena, full, unknown->why);
}

static fj_value bind_method(fj_elab *e, fj_value object, const fj_builtin *method) {
    const fj_arguments self = {.values = FJ_NEW(e->arena, fj_value), .count = 1};
    self.values[0] = object;
    return fj_partial_create(e, fj_builtin_value(method), &self);
}

fj_value fj_elab_attribute(fj_elab *e, fj_value object, fj_str name, fj_place place) {
    fj_value value;
    switch (object.kind) {
    case FJ_VALUE_MODULE: return fj_module_member(e, object.str, name);
    case FJ_VALUE_UNKNOWN: return member_of_unknown(e, object, name, place);
    case FJ_VALUE_SCALAR:
    case FJ_VALUE_TENSOR: {
        if (property(e, object, name, place, &value)) return value;
        const fj_builtin *method = fj_builtin_find(name, FJ_IN_METHOD);
        if (method != NULL) return bind_method(e, object, method);
        if (object.kind == FJ_VALUE_TENSOR && !e->in_mod) {
            const char *full = fj_arena_printf(e->arena, "Tensor.%.*s", (int)name.len, name.data);
            const char *why = fj_arena_printf(e->arena, "the method '%.*s' is not in the mod language",
                                              (int)name.len, name.data);
            return fj_value_unknown(e->arena, full, why);
        }
        break;
    }
    case FJ_VALUE_TUPLE:
    case FJ_VALUE_LIST:
        if (field(object, name, &value)) return value;
        if (object.seq->fields == NULL && fj_str_is(name, "numel")) { /* torch.Size */
            const fj_builtin *prod = fj_builtin_find(FJ_STR("prod"), FJ_IN_MATH);
            return bind_method(e, object, prod);
        }
        if (object.kind == FJ_VALUE_LIST || fj_str_is(name, "index") || fj_str_is(name, "count")) {
            const fj_builtin *method = fj_builtin_find(name, FJ_IN_LIST);
            if (method != NULL) return bind_method(e, object, method);
        }
        break;
    case FJ_VALUE_DICT: {
        const fj_builtin *method = fj_builtin_find(name, FJ_IN_DICT);
        if (method != NULL) return bind_method(e, object, method);
        break;
    }
    case FJ_VALUE_OBJECT:
        if (fj_object_find(e, object, name, place, &value)) return value;
        break;
    case FJ_VALUE_CLASS:
        if (fj_class_find(e, object.class, name, place, &value)) return value;
        if (fj_str_is(name, "__name__")) return fj_value_str(object.class->function->name);
        break;
    case FJ_VALUE_FUNCTION:
    case FJ_VALUE_BUILTIN:
    case FJ_VALUE_PARTIAL:
        if (fj_str_is(name, "__name__") && object.kind == FJ_VALUE_FUNCTION)
            return fj_value_str(object.function->function->name);
        if (fj_str_is(name, "__name__") || fj_str_is(name, "__doc__")) return fj_value_vague(FJ_TEXT_UNKNOWN);
        break;
    default: break;
    }
    fail_attribute(e, object, name, place);
}

static fj_value attribute(fj_elab *e, const fj_expr *x) {
    /* self.scale: the usual slip when a method is pasted. */
    if (x->left->kind == FJ_EXPR_NAME && fj_str_is(x->left->text, "self")) {
        fj_value *found = NULL;
        for (fj_frame *frame = e->frame; frame != NULL && found == NULL; frame = frame->parent) {
            for (size_t i = 0; i < frame->count; i++) {
                if (fj_str_is(frame->names[i], "self")) found = &frame->values[i];
            }
        }
        if (found == NULL) {
            fj_elab_fail(e, x->place,
                         "'self' is not known: make '%.*s' a parameter of a factory, or a module constant",
                         (int)x->text.len, x->text.data);
        }
    }
    const fj_expr *of = x->left;
    if (of->kind == FJ_EXPR_CALL && of->left->kind == FJ_EXPR_NAME && fj_str_is(of->left->text, "super"))
        return fj_super_find(e, x->text, x->place);
    return fj_elab_attribute(e, fj_elab_expr(e, x->left), x->text, x->place);
}

/* ---- Subscripts --------------------------------------------------------------------------------------------- */

static fj_value slice_value(fj_elab *e, const fj_expr *x) {
    const fj_expr *parts[3] = {x->left, x->right, x->condition};
    fj_value values[3];
    for (int i = 0; i < 3; i++) values[i] = parts[i] == NULL ? FJ_NONE : fj_elab_expr(e, parts[i]);
    return fj_value_sequence(e->arena, FJ_VALUE_SLICE, values, 3);
}

static int64_t slice_bound(fj_elab *e, fj_value v, int64_t otherwise, int64_t low, int64_t high, int64_t len,
                           fj_place place) {
    if (v.kind == FJ_VALUE_NONE) return otherwise;
    int64_t i = fj_elab_int(e, v, place, "a slice");
    if (i < 0) i += len;
    return i < low ? low : i > high ? high : i;
}

static fj_value slice_sequence(fj_elab *e, fj_value object, fj_value slice, fj_place place) {
    const fj_value *parts = slice.seq->items;
    const int64_t len = (int64_t)object.seq->len;
    const int64_t step = parts[2].kind == FJ_VALUE_NONE ? 1 : fj_elab_int(e, parts[2], place, "a slice");
    if (step == 0) fj_elab_fail(e, place, "the step of a slice is 0");
    const bool up = step > 0;
    const int64_t start =
        slice_bound(e, parts[0], up ? 0 : len - 1, up ? 0 : -1, up ? len : len - 1, len, place);
    const int64_t stop = slice_bound(e, parts[1], up ? len : -1, up ? 0 : -1, up ? len : len - 1, len, place);
    FJ_VEC(fj_value) items = {0};
    for (int64_t i = start; up ? i < stop : i > stop; i += step) {
        FJ_PUSH(e->arena, &items, object.seq->items[i]);
        if (up ? step > len : step < -len) break;
    }
    return fj_value_sequence(e->arena, object.kind, items.data, items.len);
}

static fj_value index_sequence(fj_elab *e, fj_value object, fj_value index, fj_place place) {
    if (index.kind == FJ_VALUE_SLICE) return slice_sequence(e, object, index, place);
    if (index.kind == FJ_VALUE_SCALAR && index.known == NULL && !fj_is_uniform(e, index.ref)) {
        fj_elab_fail(e, place,
                     "a %s is indexed by a run-time value: make it a table with torch.tensor([...])",
                     object.kind == FJ_VALUE_LIST ? "list" : "tuple");
    }
    const int64_t len = (int64_t)object.seq->len;
    const int64_t given = fj_elab_int(e, index, place, "an index of a list");
    const int64_t i = given < 0 ? given + len : given;
    if (i < 0 || i >= len)
        fj_elab_fail(e, place, "index %lld is outside of a %s of %lld", (long long)given,
                     object.kind == FJ_VALUE_LIST ? "list" : "tuple", (long long)len);
    return object.seq->items[i];
}

static _Noreturn void fail_key(fj_elab *e, fj_value key, fj_place place) {
    fj_buf text;
    fj_buf_init(&text, &fj_allocator_libc);
    fj_value_print(key, &text);
    const char *name = fj_arena_printf(e->arena, "%.80s", text.data != NULL ? text.data : "");
    fj_buf_finish(&text);
    fj_elab_fail(e, place, "this dict has no key %s", name);
}

static fj_value subscript(fj_elab *e, const fj_expr *x) {
    const fj_value object = fj_elab_expr(e, x->left);
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, x->items.len);
    for (size_t i = 0; i < x->items.len; i++) {
        const fj_expr *item = x->items.data[i];
        items[i] = item->kind == FJ_EXPR_SLICE ? slice_value(e, item) : fj_elab_expr(e, item);
    }
    /* x[(i, j)] is x[i, j]; of a list, x[i,] is an error anyway. */
    size_t count = x->items.len;
    if (count == 1 && items[0].kind == FJ_VALUE_TUPLE && object.kind == FJ_VALUE_TENSOR) {
        count = items[0].seq->len;
        items = items[0].seq->items;
    }
    switch (object.kind) {
    case FJ_VALUE_TUPLE:
    case FJ_VALUE_LIST:
        if (count != 1) fj_elab_fail(e, x->place, "%s takes one index", fj_value_describe(object));
        return index_sequence(e, object, items[0], x->place);
    case FJ_VALUE_TENSOR: return fj_tensor_index(e, object.tensor, items, count, x->place);
    case FJ_VALUE_DICT: {
        fj_value found;
        const fj_value key =
            count == 1 ? items[0] : fj_value_sequence(e->arena, FJ_VALUE_TUPLE, items, count);
        if (!fj_dict_find(e, object.dict, key, x->place, &found)) fail_key(e, key, x->place);
        return found;
    }
    case FJ_VALUE_CLASS:
        if (!e->in_mod) return object; /* Generic[T] */
        fj_elab_fail(e, x->place, "a class cannot be indexed");
    case FJ_VALUE_UNKNOWN:
        if (!e->in_mod) return object; /* Callable[[Tensor], Tensor] */
        fj_elab_fail(e, x->place, "%s", object.unknown->why);
    case FJ_VALUE_SCALAR:
        fj_capture_hint_rank(e, object);
        fj_elab_fail(e, x->place, "a value of rank 0 is read with %zu %s", count,
                     count == 1 ? "index" : "indices");
    default: fj_elab_fail(e, x->place, "%s cannot be indexed", fj_value_describe(object));
    }
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
    case FJ_EXPR_ATTRIBUTE: return attribute(e, x);
    case FJ_EXPR_SUBSCRIPT: return subscript(e, x);
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
