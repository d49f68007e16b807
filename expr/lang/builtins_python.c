/* Functions that are built into Python, functools, and what joins mods. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <string.h>

typedef FJ_VEC(fj_value) value_list;

static fj_value finish(fj_elab *e, const value_list *items, fj_value_kind kind) {
    return fj_value_sequence(e->arena, kind, items->data, items->len);
}

static void push(fj_elab *e, const fj_builtin_args *call, value_list *items, fj_value value) {
    fj_elab_step(e, call->place, 1);
    if (items->len >= FJ_ELAB_MAX_ITEMS)
        fj_elab_fail(e, call->place, "more than %d items", FJ_ELAB_MAX_ITEMS);
    FJ_PUSH(e->arena, items, value);
}

/* ---- Sequences --------------------------------------------------------------------------------------------- */

fj_value fj_build_len(fj_elab *e, const fj_builtin_args *call) {
    const fj_value v = call->args[0];
    if (v.kind != FJ_VALUE_TENSOR) return fj_value_int((int64_t)fj_elab_iterate(e, v, call->place).len);
    fj_capture_fail_broken(e, v.tensor, call->place);
    if (fj_tensor_rank(e, v.tensor, call->place) < 0) {
        fj_capture_want(e, fj_capture_resolve(e, v.tensor, call->place), call->place);
        return fj_scalar_value(e, fj_ir_i64(e->ir, 1), true);
    }
    if (fj_tensor_rank(e, v.tensor, call->place) == 0)
        fj_elab_fail(e, call->place, "a tensor of rank 0 has no len()");
    return fj_tensor_dim(e, v.tensor, 0, call->place);
}

fj_value fj_build_range(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *given = call->args[0].seq;
    int64_t parts[3] = {0, 0, 1};
    if (given->len < 1 || given->len > 3) fj_elab_fail(e, call->place, "range() takes 1 to 3 arguments");
    for (size_t i = 0; i < given->len; i++) {
        if (given->items[i].kind == FJ_VALUE_FLOAT)
            fj_elab_fail(e, call->place, "range() needs ints, not a float");
        parts[given->len == 1 ? 1 : i] = fj_elab_int(e, given->items[i], call->place, "range");
    }
    if (parts[2] == 0) fj_elab_fail(e, call->place, "the step of range() is 0");
    value_list items = {0};
    for (int64_t i = parts[0]; parts[2] > 0 ? i < parts[1] : i > parts[1];) {
        push(e, call, &items, fj_value_int(i));
        if (__builtin_add_overflow(i, parts[2], &i)) break;
    }
    return finish(e, &items, FJ_VALUE_LIST);
}

fj_value fj_build_enumerate(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    const int64_t start =
        fj_is_given(call->args[1]) ? fj_elab_int(e, call->args[1], call->place, "enumerate") : 0;
    value_list items = {0};
    for (size_t i = 0; i < from.len; i++) {
        const fj_value pair[2] = {fj_value_int((int64_t)((uint64_t)start + i)), from.items[i]};
        push(e, call, &items, fj_value_sequence(e->arena, FJ_VALUE_TUPLE, pair, 2));
    }
    return finish(e, &items, FJ_VALUE_LIST);
}

/* The i-th items of several sequences; false at the end of the shortest. */
static bool column(fj_elab *e, const fj_builtin_args *call, const fj_sequence *rows, size_t count, size_t i,
                   value_list *ret_items) {
    *ret_items = (value_list){0};
    for (size_t j = 0; j < count; j++) {
        if (i >= rows[j].len) return false;
        push(e, call, ret_items, rows[j].items[i]);
    }
    return count > 0;
}

static fj_sequence *all_rows(fj_elab *e, const fj_builtin_args *call, fj_value sequences) {
    fj_sequence *rows = FJ_NEW_ARRAY(e->arena, fj_sequence, sequences.seq->len);
    for (size_t i = 0; i < sequences.seq->len; i++)
        rows[i] = fj_elab_iterate(e, sequences.seq->items[i], call->place);
    return rows;
}

fj_value fj_build_zip(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *rows = all_rows(e, call, call->args[0]);
    value_list items = {0}, at;
    for (size_t i = 0; column(e, call, rows, call->args[0].seq->len, i, &at); i++) {
        push(e, call, &items, finish(e, &at, FJ_VALUE_TUPLE));
    }
    return finish(e, &items, FJ_VALUE_LIST);
}

fj_value fj_build_map(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *rows = all_rows(e, call, call->args[1]);
    value_list items = {0}, at;
    for (size_t i = 0; column(e, call, rows, call->args[1].seq->len, i, &at); i++) {
        push(e, call, &items, fj_elab_call_values(e, call->args[0], at.data, at.len, call->place));
    }
    return finish(e, &items, FJ_VALUE_LIST);
}

fj_value fj_build_sequence(fj_elab *e, const fj_builtin_args *call) {
    fj_sequence from = {.items = NULL};
    if (call->args[0].kind != FJ_VALUE_UNSET) from = fj_elab_iterate(e, call->args[0], call->place);
    fj_elab_step(e, call->place, from.len);
    return fj_value_sequence(e->arena, (fj_value_kind)call->data, from.items, from.len);
}

fj_value fj_build_reversed(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    value_list items = {0};
    for (size_t i = from.len; i-- > 0;) push(e, call, &items, from.items[i]);
    return finish(e, &items, FJ_VALUE_LIST);
}

/* By insertion: stable, and each comparison is a step. */
fj_value fj_build_sorted(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    const bool reverse =
        fj_is_given(call->args[1]) && fj_elab_truth(e, call->args[1], call->place, "reverse");
    value_list items = {0};
    for (size_t i = 0; i < from.len; i++) {
        push(e, call, &items, from.items[i]);
        for (size_t j = i; j > 0; j--) {
            const fj_value a = items.data[j - 1], b = items.data[j];
            fj_elab_step(e, call->place, 1);
            if (!fj_value_is_constant(a) || !fj_value_is_constant(b))
                fj_elab_fail(e, call->place, "sorted() takes constants");
            if (!fj_constant_compare(e, reverse ? FJ_OPERATOR_LT : FJ_OPERATOR_GT, a, b, call->place)) break;
            items.data[j - 1] = b;
            items.data[j] = a;
        }
    }
    return finish(e, &items, FJ_VALUE_LIST);
}

fj_value fj_build_divmod(fj_elab *e, const fj_builtin_args *call) {
    const fj_value pair[2] = {fj_operate(e, FJ_OPERATOR_FLOORDIV, call->args[0], call->args[1], call->place),
                              fj_operate(e, FJ_OPERATOR_MOD, call->args[0], call->args[1], call->place)};
    return fj_value_sequence(e->arena, FJ_VALUE_TUPLE, pair, 2);
}

/* ---- Reductions of sequences -------------------------------------------------------------------------------------- */

static fj_value lesser(fj_elab *e, const fj_builtin_args *call, fj_value a, fj_value b) {
    const bool is_max = call->data == FJ_OP_MAXIMUM;
    if (fj_value_is_constant(a) && fj_value_is_constant(b)) { /* the first of equals */
        return fj_constant_compare(e, is_max ? FJ_OPERATOR_GT : FJ_OPERATOR_LT, b, a, call->place) ? b : a;
    }
    fj_value pair[2] = {a, b};
    const fj_builtin_args joined = {
        .args = pair, .count = 2, .data = call->data, .name = call->name, .place = call->place};
    return fj_tensor_map(e, fj_build_num2, &joined);
}

fj_value fj_build_python_extreme(fj_elab *e, const fj_builtin_args *call) {
    fj_sequence given = *call->args[0].seq;
    if (given.len == 1 && given.items[0].kind == FJ_VALUE_TENSOR) {
        const fj_op op = call->data == FJ_OP_MAXIMUM ? FJ_OP_REDUCE_MAX : FJ_OP_REDUCE_MIN;
        return fj_tensor_reduce(e, op, given.items[0], FJ_UNSET, false, call->place);
    }
    if (given.len == 1) given = fj_elab_iterate(e, given.items[0], call->place);
    if (given.len == 0) fj_elab_fail(e, call->place, "%s() of nothing", call->name);
    fj_value best = given.items[0];
    for (size_t i = 1; i < given.len; i++) best = lesser(e, call, best, given.items[i]);
    return best;
}

static fj_value accumulate(fj_elab *e, const fj_builtin_args *call, fj_operator op, fj_value total) {
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    if (fj_is_given(call->args[1])) total = call->args[1];
    for (size_t i = 0; i < from.len; i++) total = fj_operate(e, op, total, from.items[i], call->place);
    return total;
}

fj_value fj_build_python_sum(fj_elab *e, const fj_builtin_args *call) {
    if (call->args[0].kind == FJ_VALUE_TENSOR) {
        return fj_tensor_reduce(e, FJ_OP_REDUCE_SUM, call->args[0], fj_value_int(0), false, call->place);
    }
    return accumulate(e, call, FJ_OPERATOR_ADD, fj_value_int(0));
}

fj_value fj_build_python_prod(fj_elab *e, const fj_builtin_args *call) {
    return accumulate(e, call, FJ_OPERATOR_MUL, fj_value_int(1));
}

fj_value fj_build_python_any(fj_elab *e, const fj_builtin_args *call) {
    const bool is_all = call->data != 0;
    if (call->args[0].kind == FJ_VALUE_TENSOR) {
        return fj_tensor_reduce(e, is_all ? FJ_OP_REDUCE_ALL : FJ_OP_REDUCE_ANY, call->args[0], FJ_UNSET,
                                false, call->place);
    }
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    fj_value found = fj_value_bool(is_all);
    for (size_t i = 0; i < from.len; i++) {
        const fj_value item = from.items[i];
        const bool runtime =
            item.kind == FJ_VALUE_TENSOR || (item.kind == FJ_VALUE_SCALAR && item.known == NULL);
        if (runtime) {
            found =
                found.kind == FJ_VALUE_BOOL ? item : fj_operate_logical(e, is_all, found, item, call->place);
        } else if (fj_elab_truth(e, item, call->place, call->name) != is_all) {
            return fj_value_bool(!is_all);
        }
    }
    return found;
}

/* ---- Kinds -------------------------------------------------------------------------------------------------------------- */

static bool is_instance(fj_value value, fj_value type) {
    if (type.kind == FJ_VALUE_BUILTIN) {
        const char *name = type.builtin->name;
        if (strcmp(name, "int") == 0) return value.kind == FJ_VALUE_INT || value.kind == FJ_VALUE_BOOL;
        if (strcmp(name, "float") == 0) return value.kind == FJ_VALUE_FLOAT;
        if (strcmp(name, "bool") == 0) return value.kind == FJ_VALUE_BOOL;
        if (strcmp(name, "str") == 0) return value.kind == FJ_VALUE_STR;
        if (strcmp(name, "tuple") == 0) return value.kind == FJ_VALUE_TUPLE;
        if (strcmp(name, "list") == 0) return value.kind == FJ_VALUE_LIST;
        if (strcmp(name, "dict") == 0) return value.kind == FJ_VALUE_DICT;
    }
    if (type.kind == FJ_VALUE_CLASS) return fj_is_instance(value, type.class);
    if (type.kind == FJ_VALUE_UNKNOWN && strstr(type.unknown->name, "Tensor") != NULL) {
        return value.kind == FJ_VALUE_TENSOR || value.kind == FJ_VALUE_SCALAR;
    }
    return false;
}

fj_value fj_build_isinstance(fj_elab *e, const fj_builtin_args *call) {
    (void)e;
    const fj_value type = call->args[1];
    if (!fj_value_is_sequence(type)) return fj_value_bool(is_instance(call->args[0], type));
    bool found = false;
    for (size_t i = 0; i < type.seq->len; i++) found |= is_instance(call->args[0], type.seq->items[i]);
    return fj_value_bool(found);
}

fj_value fj_build_callable(fj_elab *e, const fj_builtin_args *call) {
    const fj_value value = fj_callable(e, call->args[0], call->place);
    return fj_value_bool(fj_value_is_function(value) || value.kind == FJ_VALUE_CLASS);
}

fj_value fj_build_str(fj_elab *e, const fj_builtin_args *call) {
    const fj_value v = call->args[0];
    switch (v.kind) {
    case FJ_VALUE_STR: return v;
    case FJ_VALUE_UNSET: return fj_value_str(FJ_STR(""));
    case FJ_VALUE_NONE: return fj_value_str(FJ_STR("None"));
    case FJ_VALUE_BOOL: return fj_value_str(v.b ? FJ_STR("True") : FJ_STR("False"));
    case FJ_VALUE_INT: return fj_value_str(fj_str_from(fj_arena_printf(e->arena, "%lld", (long long)v.i)));
    default: return fj_value_vague(FJ_TEXT_UNKNOWN);
    }
}

fj_value fj_build_nothing(fj_elab *e, const fj_builtin_args *call) {
    (void)e, (void)call;
    return FJ_NONE;
}

/* All tensors are in one place, as far as a mod can tell. */
fj_value fj_build_device(fj_elab *e, const fj_builtin_args *call) {
    (void)e, (void)call;
    return fj_value_vague(FJ_TEXT_DEVICE);
}

/* torch.cuda.is_available() */
fj_value fj_build_never(fj_elab *e, const fj_builtin_args *call) {
    (void)e, (void)call;
    return fj_value_bool(false);
}

/* ---- functools ------------------------------------------------------------------------------------------------------------- */

static void name_arguments(fj_elab *e, const fj_function *function, fj_arguments *arguments, fj_place place) {
    for (size_t i = 0; i < arguments->count && i < function->parameter_count; i++) {
        if (function->parameters[i].kind != FJ_PARAMETER_PLAIN) break;
        arguments->values[i] =
            fj_capture_name(e, arguments->values[i], function->parameters[i].name, false, place);
    }
    for (size_t i = 0; i < arguments->keyword_count; i++) {
        arguments->keywords[i] =
            fj_capture_name(e, arguments->keywords[i], arguments->names[i], false, place);
    }
}

fj_value fj_build_partial(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    const fj_value target = given->count > 0 ? fj_callable(e, given->values[0], call->place) : FJ_NONE;
    if (target.kind == FJ_VALUE_TENSOR) fj_capture_fail_broken(e, target.tensor, call->place);
    if (!fj_value_is_function(target) && target.kind != FJ_VALUE_CLASS) {
        fj_elab_fail(e, call->place, "functools.partial() needs a function");
    }
    fj_arguments rest = *given;
    rest.values++;
    rest.count--;
    if (!e->in_mod && target.kind == FJ_VALUE_FUNCTION) {
        name_arguments(e, target.function->function, &rest, call->place);
    }
    return fj_partial_create(e, target, &rest);
}

fj_value fj_build_functools_reduce(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence from = fj_elab_iterate(e, call->args[1], call->place);
    const bool has_start = call->args[2].kind != FJ_VALUE_UNSET;
    if (from.len == 0 && !has_start) fj_elab_fail(e, call->place, "reduce() of nothing");
    fj_value total = has_start ? call->args[2] : from.items[0];
    for (size_t i = has_start ? 0 : 1; i < from.len; i++) {
        total = fj_elab_call_values(e, call->args[0], (fj_value[]){total, from.items[i]}, 2, call->place);
    }
    return total;
}

/* ---- Mods ---------------------------------------------------------------------------------------------------------------------- */

fj_value fj_build_noop(fj_elab *e, const fj_builtin_args *call) {
    (void)call;
    return fj_scalar_value(e, fj_ir_bool(e->ir, true), false);
}

static fj_value delay(fj_elab *e, const fj_builtin_args *call, const char *name) {
    const fj_value functions = call->args[0];
    for (size_t i = 0; i < functions.seq->len; i++) {
        const fj_value f = fj_callable(e, functions.seq->items[i], call->place);
        if (f.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, call->place, "%s", f.unknown->why);
        if (f.kind == FJ_VALUE_TENSOR) fj_capture_fail_broken(e, f.tensor, call->place);
        if (!fj_value_is_function(f))
            fj_elab_fail(e, call->place, "%s() takes functions, not %s", call->name, fj_value_describe(f));
    }
    fj_arguments first = {.values = FJ_NEW(e->arena, fj_value), .count = 1};
    first.values[0] = functions;
    return fj_partial_create(e, fj_builtin_value(fj_builtin_find(fj_str_from(name), 0)), &first);
}

fj_value fj_build_join(fj_elab *e, const fj_builtin_args *call) {
    return delay(e, call, call->data ? "apply and_masks" : "apply or_masks");
}

fj_value fj_build_compose(fj_elab *e, const fj_builtin_args *call) { return delay(e, call, "apply compose"); }

fj_value fj_build_joined(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *masks = call->args[0].seq;
    fj_value all = fj_scalar_value(e, fj_ir_bool(e->ir, call->data != 0), false);
    for (size_t i = 0; i < masks->len; i++) {
        const fj_value mask = fj_elab_call_values(e, masks->items[i], call->args + 1, 4, call->place);
        all = i == 0 ? mask
                     : fj_operate(e, call->data ? FJ_OPERATOR_AND : FJ_OPERATOR_OR, all, mask, call->place);
    }
    return all;
}

/* f(g(score)): the last function sees the score first. */
fj_value fj_build_composed(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *functions = call->args[0].seq;
    fj_value args[5];
    for (int i = 0; i < 5; i++) args[i] = call->args[i + 1];
    for (size_t i = functions->len; i-- > 0;)
        args[0] = fj_elab_call_values(e, functions->items[i], args, 5, call->place);
    return args[0];
}
