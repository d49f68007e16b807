/* What an expression reads of a value: attributes, items, slices. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

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

fj_value fj_elab_attribute_expr(fj_elab *e, const fj_expr *x) {
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

fj_value fj_elab_subscript_expr(fj_elab *e, const fj_expr *x) {
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
