/* The operators of Python on run-time values, and on tensors of them: see promote.c. */
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

static bool is_int_type(fj_type type) { return type == FJ_TYPE_I32 || type == FJ_TYPE_I64; }
static bool is_float_type(fj_value v) { return fj_value_type(v) == FJ_TYPE_FLOAT; }

/* ---- Arithmetic on run-time values -------------------------------------------------------------------------- */

static fj_value pair(fj_elab *e, fj_op op, fj_type type, fj_value a, fj_value b, fj_place place) {
    return fj_pointwise(e, op, type, (fj_value[]){a, b}, 2, place);
}

static fj_value power_float(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    const fj_type type = FJ_TYPE_FLOAT;
    if (fj_value_is_number(b)) { /* as PyTorch does */
        const double exponent = fj_value_as_double(b);
        if (exponent == 2.0) return pair(e, FJ_OP_MUL, type, a, a, place);
        if (exponent == 3.0) return pair(e, FJ_OP_MUL, type, pair(e, FJ_OP_MUL, type, a, a, place), a, place);
        if (exponent == 0.5) return fj_pointwise(e, FJ_OP_SQRT, type, &a, 1, place);
        if (exponent == -0.5) return fj_pointwise(e, FJ_OP_RSQRT, type, &a, 1, place);
        if (exponent == -1.0) return pair(e, FJ_OP_DIV, type, fj_value_float(1.0), a, place);
    }
    return pair(e, FJ_OP_POW, type, a, b, place);
}

static fj_value power(fj_elab *e, fj_value a, fj_value b, fj_type type, fj_place place) {
    if (type == FJ_TYPE_FLOAT) return power_float(e, a, b, place);
    if (type == FJ_TYPE_BOOL) fj_elab_fail(e, place, "'**' does not take bools");
    if (b.kind == FJ_VALUE_INT && b.i < 0) {
        fj_elab_fail_note(e, place, "make the base a float, for instance with '.float()'",
                          "an int to a negative power is not an int");
    }
    return pair(e, FJ_OP_IPOW, type, a, b, place);
}

static fj_value bits(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_type type, fj_place place) {
    const fj_op node = op == FJ_OPERATOR_AND ? FJ_OP_AND : op == FJ_OPERATOR_OR ? FJ_OP_OR : FJ_OP_XOR;
    const fj_value values[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (!is_float_type(values[i])) continue;
        const bool other_bool = fj_value_type(values[1 - i]) == FJ_TYPE_BOOL || is_float_type(values[1 - i]);
        fj_type_fail(e, values[i], other_bool ? FJ_DTYPE_BOOL : FJ_DTYPE_I32, place,
                     "'%s' needs bools or ints, not a float", fj_operator_text(op));
    }
    return pair(e, node, type, a, b, place);
}

static fj_value shift(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_type type, fj_place place) {
    const fj_value values[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (is_int_type(fj_value_type(values[i]))) continue;
        if (values[i].kind == FJ_VALUE_BOOL) continue;
        fj_type_fail(e, values[i], FJ_DTYPE_I32, place, "'%s' needs ints, not %s", fj_operator_text(op),
                     fj_value_describe(values[i]));
    }
    return pair(e, op == FJ_OPERATOR_SHL ? FJ_OP_SHL : FJ_OP_SHR, type, a, b, place);
}

static fj_value bool_arithmetic(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    switch (op) {
    case FJ_OPERATOR_ADD: return pair(e, FJ_OP_OR, FJ_TYPE_BOOL, a, b, place);
    case FJ_OPERATOR_MUL: return pair(e, FJ_OP_AND, FJ_TYPE_BOOL, a, b, place);
    case FJ_OPERATOR_SUB:
        fj_elab_fail_note(e, place, "'^' tells whether they differ, '~' negates",
                          "'-' does not take two bools");
    default: fj_elab_fail(e, place, "'%s' does not take two bools", fj_operator_text(op));
    }
}

static fj_value arithmetic(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    const fj_value values[2] = {a, b};
    const fj_type type = fj_promote(values, 2, NULL);
    switch (op) {
    case FJ_OPERATOR_DIV: return pair(e, FJ_OP_DIV, FJ_TYPE_FLOAT, a, b, place);
    case FJ_OPERATOR_POW: return power(e, a, b, type, place);
    case FJ_OPERATOR_AND:
    case FJ_OPERATOR_OR:
    case FJ_OPERATOR_XOR: return bits(e, op, a, b, type, place);
    case FJ_OPERATOR_SHL:
    case FJ_OPERATOR_SHR: return shift(e, op, a, b, type, place);
    default: break;
    }
    if (type == FJ_TYPE_BOOL) return bool_arithmetic(e, op, a, b, place);
    static const fj_op ops[] = {
        [FJ_OPERATOR_ADD] = FJ_OP_ADD,           [FJ_OPERATOR_SUB] = FJ_OP_SUB,
        [FJ_OPERATOR_MUL] = FJ_OP_MUL,           [FJ_OPERATOR_DIV] = FJ_OP_DIV,
        [FJ_OPERATOR_FLOORDIV] = FJ_OP_FLOORDIV, [FJ_OPERATOR_MOD] = FJ_OP_FLOORMOD,
    };
    return pair(e, ops[op], type, a, b, place);
}

/* A float op of Python differs from the IR's on what is known at compile time: `/` by 0 and so on
 * keep no known value. */
static bool known_is_defined(fj_operator op, const fj_value *known) {
    const bool divides = op == FJ_OPERATOR_DIV || op == FJ_OPERATOR_FLOORDIV || op == FJ_OPERATOR_MOD;
    if (divides) return fj_value_as_double(known[1]) != 0.0;
    return op != FJ_OPERATOR_SHL && op != FJ_OPERATOR_POW;
}

/* Arithmetic on run-time parameters alone is Python's, which does not wrap. */
static void require_int64(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    static const fj_require_kind kinds[] = {
        [FJ_OPERATOR_ADD] = FJ_REQUIRE_ADD, [FJ_OPERATOR_SUB] = FJ_REQUIRE_SUB,
        [FJ_OPERATOR_MUL] = FJ_REQUIRE_MUL, [FJ_OPERATOR_POW] = FJ_REQUIRE_POW,
        [FJ_OPERATOR_SHL] = FJ_REQUIRE_SHL,
    };
    bool weak;
    const fj_type type = fj_promote((fj_value[]){a, b}, 2, &weak);
    const bool wraps = op == FJ_OPERATOR_ADD || op == FJ_OPERATOR_SUB || op == FJ_OPERATOR_MUL ||
                       op == FJ_OPERATOR_POW || op == FJ_OPERATOR_SHL;
    if (e->ir->scalars.len == 0 || !wraps || !weak || type != FJ_TYPE_I64) return;
    const fj_ref x = fj_to_ref(e, a, type, place), y = fj_to_ref(e, b, type, place);
    if (*fj_runtime_name(e, x) != '\0' || *fj_runtime_name(e, y) != '\0')
        fj_require(e, kinds[op], x, y, place);
}

static fj_value operate_scalars(fj_elab *e, const fj_builtin_args *call) {
    const fj_operator op = (fj_operator)call->data;
    const fj_value a = fj_operand(e, call->args[0], call->place, call->name);
    const fj_value b = fj_operand(e, call->args[1], call->place, call->name);
    if (fj_value_is_number(a) && fj_value_is_number(b)) return fj_constant_binary(e, op, a, b, call->place);
    require_int64(e, op, a, b, call->place);
    fj_value value = arithmetic(e, op, a, b, call->place), known[2];
    value.known = NULL;
    if (!fj_known_values((fj_value[]){a, b}, 2, known) || !known_is_defined(op, known)) return value;
    return fj_with_known(e, value, fj_constant_binary(e, op, known[0], known[1], call->place));
}

/* ---- Operators on anything ------------------------------------------------------------------------------------ */

/* Outside of a mod, what is made of a tensor without a name is one too. */
static bool opaque_result(fj_elab *e, const fj_value *values, int count, fj_place place,
                          fj_value *ret_value) {
    for (int i = 0; i < count; i++) {
        if (values[i].kind == FJ_VALUE_UNKNOWN) {
            if (e->in_mod) fj_elab_fail(e, place, "%s", values[i].unknown->why);
            *ret_value = values[i];
            return true;
        }
        if (!fj_gives_opaque(e, values[i], ret_value)) continue;
        if (e->in_mod) fj_capture_fail_opaque(e, values[i], place);
        return true;
    }
    return false;
}

fj_value fj_operate(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    fj_value values[2] = {a, b}, result;
    if (opaque_result(e, values, 2, place, &result)) return result;
    if (fj_value_is_sequence(a) && b.kind == FJ_VALUE_SCALAR)
        b = fj_value_int(fj_elab_int(e, b, place, "the length of a list"));
    const bool runtime = a.kind == FJ_VALUE_SCALAR || a.kind == FJ_VALUE_TENSOR ||
                         b.kind == FJ_VALUE_SCALAR || b.kind == FJ_VALUE_TENSOR;
    if (!runtime) return fj_constant_binary(e, op, a, b, place);
    if (op == FJ_OPERATOR_MATMUL) return fj_tensor_dot(e, a, b, place);
    const char *name = fj_arena_printf(e->arena, "'%s'", fj_operator_text(op));
    const fj_builtin_args call = {.args = values, .count = 2, .data = (int)op, .name = name, .place = place};
    return fj_tensor_map(e, operate_scalars, &call);
}

static fj_value unary_scalar(fj_elab *e, const fj_builtin_args *call) {
    const fj_operator op = (fj_operator)call->data;
    const fj_value a = fj_operand(e, call->args[0], call->place, call->name);
    const fj_type type = fj_value_type(a);
    if (fj_value_is_number(a)) return fj_constant_unary(e, op, a, call->place);
    if (op == FJ_OPERATOR_INVERT) {
        if (type == FJ_TYPE_FLOAT)
            fj_type_fail(e, a, FJ_DTYPE_BOOL, call->place, "'~' needs a bool or an int, not a float");
        return fj_pointwise(e, FJ_OP_NOT, type, &a, 1, call->place);
    }
    if (type == FJ_TYPE_BOOL) {
        fj_elab_fail_note(e, call->place, "'~' negates a bool", "%s does not take a bool", call->name);
    }
    return op == FJ_OPERATOR_POSITIVE ? a : fj_pointwise(e, FJ_OP_NEG, type, &a, 1, call->place);
}

fj_value fj_operate_unary(fj_elab *e, fj_operator op, fj_value a, fj_place place) {
    fj_value result;
    if (opaque_result(e, &a, 1, place, &result)) return result;
    if (a.kind != FJ_VALUE_SCALAR && a.kind != FJ_VALUE_TENSOR) return fj_constant_unary(e, op, a, place);
    const char *name = fj_arena_printf(e->arena, "'%s'", fj_operator_text(op));
    const fj_builtin_args call = {.args = &a, .count = 1, .data = (int)op, .name = name, .place = place};
    return fj_tensor_map(e, unary_scalar, &call);
}

/* ---- Comparisons ------------------------------------------------------------------------------------------------ */

static fj_value compare_bools(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    const fj_value differ = pair(e, FJ_OP_XOR, FJ_TYPE_BOOL, a, b, place);
    return op == FJ_OPERATOR_NE ? differ : fj_pointwise(e, FJ_OP_NOT, FJ_TYPE_BOOL, &differ, 1, place);
}

/* A Python number beyond int32 makes the comparison one of int64; a run-time parameter by its default. */
static bool fits_int32(fj_elab *e, fj_value v) {
    int64_t i;
    return !fj_default_value(e, v, &i) || (i >= INT32_MIN && i <= INT32_MAX);
}

static fj_value compare_scalars(fj_elab *e, const fj_builtin_args *call) {
    static const fj_op ops[] = {
        [FJ_OPERATOR_EQ] = FJ_OP_EQ, [FJ_OPERATOR_NE] = FJ_OP_NE, [FJ_OPERATOR_LT] = FJ_OP_LT,
        [FJ_OPERATOR_LE] = FJ_OP_LE, [FJ_OPERATOR_GT] = FJ_OP_GT, [FJ_OPERATOR_GE] = FJ_OP_GE,
    };
    const fj_operator op = (fj_operator)call->data;
    const fj_value values[2] = {fj_operand(e, call->args[0], call->place, call->name),
                                fj_operand(e, call->args[1], call->place, call->name)};
    if (fj_value_is_number(values[0]) && fj_value_is_number(values[1])) {
        return fj_value_bool(fj_constant_compare(e, op, values[0], values[1], call->place));
    }
    fj_type type = fj_promote(values, 2, NULL);
    if (type == FJ_TYPE_BOOL && (op == FJ_OPERATOR_EQ || op == FJ_OPERATOR_NE)) {
        return compare_bools(e, op, values[0], values[1], call->place);
    }
    if (type == FJ_TYPE_BOOL) type = FJ_TYPE_I32;
    if (type == FJ_TYPE_I32 && !(fits_int32(e, values[0]) && fits_int32(e, values[1]))) type = FJ_TYPE_I64;
    return pair(e, ops[op], type, values[0], values[1], call->place);
}

static fj_value compare_sequences(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    if (op != FJ_OPERATOR_EQ && op != FJ_OPERATOR_NE) {
        fj_elab_fail(e, place, "'%s' does not compare tuples of run-time values", fj_operator_text(op));
    }
    if (a.kind != b.kind || a.seq->len != b.seq->len) return fj_value_bool(op == FJ_OPERATOR_NE);
    fj_elab_enter(e, place);
    fj_value all = fj_value_bool(true);
    for (size_t i = 0; i < a.seq->len; i++) {
        const fj_value same = fj_operate_compare(e, FJ_OPERATOR_EQ, a.seq->items[i], b.seq->items[i], place);
        if (same.kind == FJ_VALUE_BOOL && !same.b) {
            all = same;
            break;
        }
        all = all.kind == FJ_VALUE_BOOL ? same : fj_operate_logical(e, true, all, same, place);
    }
    fj_elab_leave(e);
    if (op == FJ_OPERATOR_EQ) return all;
    return all.kind == FJ_VALUE_BOOL ? fj_value_bool(!all.b) : fj_operate_not(e, all, place);
}

static fj_value find_in(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    if (!fj_value_is_sequence(b))
        fj_elab_fail(e, place, "'in' looks into tuples and lists, not into %s", fj_value_describe(b));
    fj_value found = fj_value_bool(false);
    for (size_t i = 0; i < b.seq->len; i++) {
        const fj_value same = fj_operate_compare(e, FJ_OPERATOR_EQ, a, b.seq->items[i], place);
        found = i == 0 ? same : fj_operate_logical(e, false, found, same, place);
    }
    if (op == FJ_OPERATOR_IN) return found;
    return found.kind == FJ_VALUE_BOOL ? fj_value_bool(!found.b) : fj_operate_not(e, found, place);
}

fj_value fj_operate_compare(fj_elab *e, fj_operator op, fj_value a, fj_value b, fj_place place) {
    fj_value values[2] = {a, b}, result;
    const bool identity = op == FJ_OPERATOR_IS || op == FJ_OPERATOR_IS_NOT;
    const bool equality = op == FJ_OPERATOR_EQ || op == FJ_OPERATOR_NE || identity;
    const bool none = a.kind == FJ_VALUE_NONE || b.kind == FJ_VALUE_NONE;
    if (equality && none)
        return fj_value_bool((a.kind == b.kind) == (op == FJ_OPERATOR_EQ || op == FJ_OPERATOR_IS));
    if (opaque_result(e, values, 2, place, &result)) return result;
    if (fj_value_is_constant(a) && fj_value_is_constant(b))
        return fj_value_bool(fj_constant_compare(e, op, a, b, place));
    if (op == FJ_OPERATOR_IN || op == FJ_OPERATOR_NOT_IN) return find_in(e, op, a, b, place);
    if (identity) fj_elab_fail(e, place, "'is' compares with None; values are compared with '=='");
    if (fj_value_is_sequence(a) && fj_value_is_sequence(b)) return compare_sequences(e, op, a, b, place);
    const char *name = fj_arena_printf(e->arena, "'%s'", fj_operator_text(op));
    const fj_builtin_args call = {.args = values, .count = 2, .data = (int)op, .name = name, .place = place};
    return fj_tensor_map(e, compare_scalars, &call);
}

/* ---- Logic --------------------------------------------------------------------------------------------------------- */

static fj_value truth_of(fj_elab *e, fj_value value, fj_place place, const char *what) {
    const fj_value a = fj_operand(e, value, place, what);
    if (fj_value_type(a) == FJ_TYPE_BOOL) return a;
    fj_type_fail(e, a, FJ_DTYPE_BOOL, place, "%s takes bools, not %s: compare it with something", what,
                 fj_value_describe(a));
}

static fj_value not_scalar(fj_elab *e, const fj_builtin_args *call) {
    const fj_value a = truth_of(e, call->args[0], call->place, "'not'");
    return fj_pointwise(e, FJ_OP_NOT, FJ_TYPE_BOOL, &a, 1, call->place);
}

fj_value fj_operate_not(fj_elab *e, fj_value a, fj_place place) {
    fj_value result;
    if (opaque_result(e, &a, 1, place, &result)) return result;
    const fj_builtin_args call = {.args = &a, .count = 1, .name = "'not'", .place = place};
    return fj_tensor_map(e, not_scalar, &call);
}

static fj_value logical_scalars(fj_elab *e, const fj_builtin_args *call) {
    const char *what = call->data ? "'and'" : "'or'";
    const fj_value a = truth_of(e, call->args[0], call->place, what),
                   b = truth_of(e, call->args[1], call->place, what);
    return pair(e, call->data ? FJ_OP_AND : FJ_OP_OR, FJ_TYPE_BOOL, a, b, call->place);
}

fj_value fj_operate_logical(fj_elab *e, bool is_and, fj_value a, fj_value b, fj_place place) {
    fj_value values[2] = {a, b}, result;
    if (opaque_result(e, values, 2, place, &result)) return result;
    const fj_builtin_args call = {
        .args = values, .count = 2, .data = is_and, .name = is_and ? "'and'" : "'or'", .place = place};
    return fj_tensor_map(e, logical_scalars, &call);
}
