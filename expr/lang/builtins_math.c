/* Pointwise functions: their arguments are numbers and scalars. */
#include "expr/lang/builtins.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <math.h>

/* ---- Helpers --------------------------------------------------------------------------------------------- */

static fj_value arg(fj_elab *e, const fj_builtin_args *call, int i) {
    return fj_operand(e, call->args[i], call->place, call->name);
}

static fj_value op1(fj_elab *e, const fj_builtin_args *call, fj_op op, fj_value a) {
    return fj_pointwise(e, op, FJ_TYPE_FLOAT, &a, 1, call->place);
}

static fj_value op2(fj_elab *e, const fj_builtin_args *call, fj_op op, fj_value a, fj_value b) {
    return fj_pointwise(e, op, FJ_TYPE_FLOAT, (fj_value[]){a, b}, 2, call->place);
}

static fj_value number(double value) { return fj_value_float(value); }

/* Where the condition is a constant, the choice is made now. */
static fj_value choose(fj_elab *e, const fj_builtin_args *call, fj_value condition, fj_value a, fj_value b) {
    const fj_type type = fj_promote((fj_value[]){a, b}, 2, NULL);
    if (condition.kind == FJ_VALUE_BOOL) return fj_convert(e, condition.b ? a : b, type, call->place);
    fj_value value = fj_pointwise(e, FJ_OP_WHERE, type, (fj_value[]){condition, a, b}, 3, call->place);
    value.weak = false;
    return value;
}

static bool is_float(fj_value v) { return fj_value_type(v) == FJ_TYPE_FLOAT; }

static fj_type number_type(fj_elab *e, const fj_builtin_args *call, const fj_value *values, int count) {
    const fj_type type = fj_promote(values, (size_t)count, NULL);
    if (type != FJ_TYPE_BOOL) return type;
    bool constant = true;
    for (int i = 0; i < count; i++) constant &= values[i].kind != FJ_VALUE_SCALAR;
    if (!constant) fj_elab_fail(e, call->place, "%s() does not take a bool", call->name);
    return FJ_TYPE_I64;
}

/* ---- Floats ------------------------------------------------------------------------------------------------- */

fj_value fj_build_float1(fj_elab *e, const fj_builtin_args *call) {
    return op1(e, call, (fj_op)call->data, arg(e, call, 0));
}

fj_value fj_build_float2(fj_elab *e, const fj_builtin_args *call) {
    return op2(e, call, (fj_op)call->data, arg(e, call, 0), arg(e, call, 1));
}

/* As Python: an error where the result is not defined. */
static fj_value check_domain(fj_elab *e, const fj_builtin_args *call, fj_value given, fj_value result) {
    if (given.kind == FJ_VALUE_SCALAR) return result;
    if (isfinite(fj_value_as_double(given)) && !isfinite(result.f)) {
        fj_elab_fail(e, call->place, "math.%s() is not defined for this number", call->name);
    }
    return result;
}

fj_value fj_build_math1(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    return check_domain(e, call, x, op1(e, call, (fj_op)call->data, x));
}

fj_value fj_build_math_log(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    const fj_value log = check_domain(e, call, x, op1(e, call, FJ_OP_LOG, x));
    if (!fj_is_given(call->args[1])) return log;
    const fj_value base = arg(e, call, 1);
    return fj_operate(e, FJ_OPERATOR_DIV, log, check_domain(e, call, base, op1(e, call, FJ_OP_LOG, base)),
                      call->place);
}

fj_value fj_build_math_log10(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (x.kind != FJ_VALUE_SCALAR) return check_domain(e, call, x, number(log10(fj_value_as_double(x))));
    return fj_operate(e, FJ_OPERATOR_MUL, op1(e, call, FJ_OP_LOG, x), number(0.43429448190325182765),
                      call->place);
}

fj_value fj_build_math_pow(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = fj_convert(e, arg(e, call, 0), FJ_TYPE_FLOAT, call->place);
    return fj_operate(e, FJ_OPERATOR_POW, x, arg(e, call, 1), call->place);
}

fj_value fj_build_math_fabs(fj_elab *e, const fj_builtin_args *call) {
    return op1(e, call, FJ_OP_ABS, arg(e, call, 0));
}

fj_value fj_build_math_fmod(fj_elab *e, const fj_builtin_args *call) {
    return op2(e, call, FJ_OP_FMOD, arg(e, call, 0), arg(e, call, 1));
}

/* An int, as in Python. */
fj_value fj_build_math_round(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (!is_float(x)) return x;
    if (x.kind == FJ_VALUE_FLOAT && !(fabs(x.f) < 9.2e18))
        fj_elab_fail(e, call->place, "this number does not fit into an int");
    fj_value value = fj_convert(e, op1(e, call, (fj_op)call->data, x), FJ_TYPE_I64, call->place);
    value.weak = x.kind == FJ_VALUE_SCALAR && x.weak && value.known != NULL;
    return value;
}

fj_value fj_build_reciprocal(fj_elab *e, const fj_builtin_args *call) {
    return op2(e, call, FJ_OP_DIV, number(1.0), arg(e, call, 0));
}

fj_value fj_build_test(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    return is_float(x) ? op1(e, call, (fj_op)call->data, x) : fj_value_bool(false);
}

fj_value fj_build_isfinite(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (!is_float(x)) return fj_value_bool(true);
    const fj_value bad = fj_pointwise(
        e, FJ_OP_OR, FJ_TYPE_BOOL, (fj_value[]){op1(e, call, FJ_OP_ISNAN, x), op1(e, call, FJ_OP_ISINF, x)},
        2, call->place);
    return fj_pointwise(e, FJ_OP_NOT, FJ_TYPE_BOOL, &bad, 1, call->place);
}

fj_value fj_build_gcd(fj_elab *e, const fj_builtin_args *call) {
    int64_t a = fj_elab_int(e, call->args[0], call->place, "gcd"),
            b = fj_elab_int(e, call->args[1], call->place, "gcd");
    if (a == INT64_MIN || b == INT64_MIN)
        fj_elab_fail(e, call->place, "this constant does not fit into 64 bits");
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return fj_value_int(a < 0 ? -a : a);
}

fj_value fj_build_isqrt(fj_elab *e, const fj_builtin_args *call) {
    const int64_t n = fj_elab_int(e, call->args[0], call->place, "isqrt");
    if (n < 0) fj_elab_fail(e, call->place, "math.isqrt() is not defined for this number");
    int64_t root = (int64_t)sqrt((double)n);
    while (root > 0 && (root > 3037000499 || root * root > n)) root--;
    while (root < 3037000499 && (root + 1) * (root + 1) <= n) root++;
    return fj_value_int(root);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------- */

fj_value fj_build_num1(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (x.kind == FJ_VALUE_INT && x.i == INT64_MIN && call->data != FJ_OP_SIGN) {
        fj_elab_fail(e, call->place, "this constant does not fit into 64 bits");
    }
    return fj_pointwise(e, (fj_op)call->data, number_type(e, call, &x, 1), &x, 1, call->place);
}

fj_value fj_build_square(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    return fj_operate(e, FJ_OPERATOR_MUL, x, x, call->place);
}

fj_value fj_build_round(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    return is_float(x) ? op1(e, call, (fj_op)call->data, x) : x;
}

fj_value fj_build_python_round(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (!fj_is_given(call->args[1])) {
        if (!is_float(x)) return x;
        const fj_value rounded = op1(e, call, FJ_OP_ROUND, x);
        if (x.kind == FJ_VALUE_SCALAR) return rounded;
        if (!(fabs(x.f) < 9.2e18)) fj_elab_fail(e, call->place, "this number does not fit into an int");
        return fj_value_int((int64_t)rounded.f);
    }
    const int64_t digits = fj_elab_int(e, call->args[1], call->place, "round");
    if (!is_float(x) && digits >= 0) return x;
    if (x.kind == FJ_VALUE_FLOAT && digits == 0) return number(rint(x.f));
    fj_elab_fail_note(e, call->place, "write the rounded number, or round to an int and divide",
                      "round() to %lld digits is not in the mod language", (long long)digits);
}

fj_value fj_build_num2(fj_elab *e, const fj_builtin_args *call) {
    const fj_value values[2] = {arg(e, call, 0), arg(e, call, 1)};
    return fj_pointwise(e, (fj_op)call->data, number_type(e, call, values, 2), values, 2, call->place);
}

fj_value fj_build_operator(fj_elab *e, const fj_builtin_args *call) {
    return fj_operate(e, (fj_operator)call->data, call->args[0], call->args[1], call->place);
}

fj_value fj_build_div(fj_elab *e, const fj_builtin_args *call) {
    const fj_value mode = call->args[2];
    if (!fj_is_given(mode)) return fj_operate(e, FJ_OPERATOR_DIV, call->args[0], call->args[1], call->place);
    if (mode.kind == FJ_VALUE_STR && fj_str_is(mode.str, "floor")) {
        return fj_operate(e, FJ_OPERATOR_FLOORDIV, call->args[0], call->args[1], call->place);
    }
    if (mode.kind != FJ_VALUE_STR || !fj_str_is(mode.str, "trunc")) {
        fj_elab_fail(e, call->place, "rounding_mode is 'floor', 'trunc' or None");
    }
    const fj_value values[2] = {arg(e, call, 0), arg(e, call, 1)};
    const fj_type type = number_type(e, call, values, 2);
    if (type == FJ_TYPE_FLOAT)
        return op1(e, call, FJ_OP_TRUNC, op2(e, call, FJ_OP_DIV, values[0], values[1]));
    /* (a - fmod(a, b)) // b is exact */
    const fj_value rest = fj_pointwise(e, FJ_OP_FMOD, type, values, 2, call->place);
    const fj_value whole = fj_operate(e, FJ_OPERATOR_SUB, values[0], rest, call->place);
    return fj_operate(e, FJ_OPERATOR_FLOORDIV, whole, values[1], call->place);
}

fj_value fj_build_invert(fj_elab *e, const fj_builtin_args *call) {
    return fj_operate_unary(e, FJ_OPERATOR_INVERT, call->args[0], call->place);
}

/* At a bound that is a number there is no gradient; one that is a tensor takes half, as PyTorch has it. */
static fj_op clamp_op(fj_op of_number, fj_value bound) {
    if (fj_value_is_number(bound)) return of_number;
    return of_number == FJ_OP_CLAMP_MIN ? FJ_OP_MAXIMUM : FJ_OP_MINIMUM;
}

fj_value fj_build_clamp_one(fj_elab *e, const fj_builtin_args *call) {
    const fj_value values[2] = {arg(e, call, 0), arg(e, call, 1)};
    const fj_type type = number_type(e, call, values, 2);
    return fj_pointwise(e, clamp_op((fj_op)call->data, values[1]), type, values, 2, call->place);
}

/* min(max(x, lo), hi): hi wins where lo > hi. */
fj_value fj_build_clamp(fj_elab *e, const fj_builtin_args *call) {
    fj_value values[3] = {arg(e, call, 0)};
    int count = 1;
    for (int i = 1; i < 3; i++) {
        if (fj_is_given(call->args[i])) values[count++] = arg(e, call, i);
    }
    if (count == 1) fj_elab_fail(e, call->place, "clamp() needs a 'min' or a 'max'");
    const fj_type type = number_type(e, call, values, count);
    fj_value x = values[0];
    int at = 1;
    if (fj_is_given(call->args[1])) {
        const fj_op op = clamp_op(FJ_OP_CLAMP_MIN, values[at]);
        x = fj_pointwise(e, op, type, (fj_value[]){x, values[at++]}, 2, call->place);
    }
    if (fj_is_given(call->args[2])) {
        const fj_op op = clamp_op(FJ_OP_CLAMP_MAX, values[at]);
        x = fj_pointwise(e, op, type, (fj_value[]){x, values[at]}, 2, call->place);
    }
    return x;
}

/* ---- Activations ----------------------------------------------------------------------------------------------- */

/* The gradient at 0 is 0. */
fj_value fj_build_relu(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0), zero = is_float(x) ? number(0.0) : fj_value_int(0);
    const fj_value low = fj_operate_compare(e, FJ_OPERATOR_LE, x, zero, call->place);
    return choose(e, call, low, zero, x);
}

fj_value fj_build_silu(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    return op2(e, call, FJ_OP_MUL, x, op1(e, call, FJ_OP_SIGMOID, x));
}

fj_value fj_build_gelu(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0), form = call->args[1];
    const fj_value half = op2(e, call, FJ_OP_MUL, x, number(0.5));
    fj_value inner;
    if (!fj_is_given(form) || (form.kind == FJ_VALUE_STR && fj_str_is(form.str, "none"))) {
        inner = op1(e, call, FJ_OP_ERF, op2(e, call, FJ_OP_MUL, x, number(0.70710678118654752440)));
    } else if (form.kind == FJ_VALUE_STR && fj_str_is(form.str, "tanh")) {
        const fj_value cube = op2(e, call, FJ_OP_MUL, op2(e, call, FJ_OP_MUL, x, x), x);
        const fj_value sum = op2(e, call, FJ_OP_ADD, x, op2(e, call, FJ_OP_MUL, cube, number(0.044715)));
        inner = op1(e, call, FJ_OP_TANH, op2(e, call, FJ_OP_MUL, sum, number(0.79788456080286535588)));
    } else {
        fj_elab_fail(e, call->place, "approximate is 'none' or 'tanh'");
    }
    return op2(e, call, FJ_OP_MUL, half, op2(e, call, FJ_OP_ADD, inner, number(1.0)));
}

fj_value fj_build_softplus(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = fj_convert(e, arg(e, call, 0), FJ_TYPE_FLOAT, call->place);
    const fj_value beta = fj_is_given(call->args[1]) ? arg(e, call, 1) : number(1.0);
    const fj_value threshold = fj_is_given(call->args[2]) ? arg(e, call, 2) : number(20.0);
    const fj_value scaled = op2(e, call, FJ_OP_MUL, x, beta);
    const fj_value soft =
        op2(e, call, FJ_OP_DIV, op1(e, call, FJ_OP_LOG1P, op1(e, call, FJ_OP_EXP, scaled)), beta);
    return choose(e, call, fj_operate_compare(e, FJ_OPERATOR_GT, scaled, threshold, call->place), x, soft);
}

fj_value fj_build_leaky_relu(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = fj_convert(e, arg(e, call, 0), FJ_TYPE_FLOAT, call->place);
    const fj_value slope = fj_is_given(call->args[1]) ? arg(e, call, 1) : number(0.01);
    const fj_value high = fj_operate_compare(e, FJ_OPERATOR_GT, x, number(0.0), call->place);
    return choose(e, call, high, x, op2(e, call, FJ_OP_MUL, x, slope));
}

/* min(x, 0) - log1p(exp(-|x|)) */
fj_value fj_build_logsigmoid(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = fj_convert(e, arg(e, call, 0), FJ_TYPE_FLOAT, call->place);
    const fj_value tail = op1(e, call, FJ_OP_LOG1P,
                              op1(e, call, FJ_OP_EXP, op1(e, call, FJ_OP_NEG, op1(e, call, FJ_OP_ABS, x))));
    return op2(e, call, FJ_OP_SUB, op2(e, call, FJ_OP_MINIMUM, x, number(0.0)), tail);
}

/* ---- Comparison, logic, choice -------------------------------------------------------------------------------------- */

fj_value fj_build_compare(fj_elab *e, const fj_builtin_args *call) {
    return fj_operate_compare(e, (fj_operator)call->data, call->args[0], call->args[1], call->place);
}

static fj_value truth(fj_elab *e, const fj_builtin_args *call, int i) {
    return fj_convert(e, arg(e, call, i), FJ_TYPE_BOOL, call->place);
}

fj_value fj_build_logical(fj_elab *e, const fj_builtin_args *call) {
    return fj_pointwise(e, (fj_op)call->data, FJ_TYPE_BOOL,
                        (fj_value[]){truth(e, call, 0), truth(e, call, 1)}, 2, call->place);
}

fj_value fj_build_logical_not(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = truth(e, call, 0);
    return fj_pointwise(e, FJ_OP_NOT, FJ_TYPE_BOOL, &x, 1, call->place);
}

static fj_value condition(fj_elab *e, const fj_builtin_args *call, int i, const char *what) {
    const fj_value value = arg(e, call, i);
    if (fj_value_type(value) == FJ_TYPE_BOOL) return value;
    fj_type_fail(e, value, FJ_DTYPE_BOOL, call->place, "%s must be a bool, not %s: compare it with something",
                 what, fj_value_describe(value));
}

fj_value fj_build_where(fj_elab *e, const fj_builtin_args *call) {
    return choose(e, call, condition(e, call, 0, "the condition of where"), arg(e, call, 1), arg(e, call, 2));
}

fj_value fj_build_where_method(fj_elab *e, const fj_builtin_args *call) {
    return choose(e, call, condition(e, call, 1, "the condition of where"), arg(e, call, 0), arg(e, call, 2));
}

fj_value fj_build_masked_fill(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0), mask = condition(e, call, 1, "the mask of masked_fill"),
                   value = arg(e, call, 2);
    const fj_type type = fj_value_type(x);
    if (type != FJ_TYPE_FLOAT && is_float(value)) {
        fj_elab_fail(e, call->place, "masked_fill() puts a float among ints: use '.float()' first");
    }
    const fj_value filled = fj_convert(e, value, type, call->place);
    if (mask.kind == FJ_VALUE_BOOL) return mask.b ? filled : x;
    return fj_pointwise(e, FJ_OP_WHERE, type, (fj_value[]){mask, filled, x}, 3, call->place);
}

/* ---- Types ---------------------------------------------------------------------------------------------------------- */

fj_value fj_build_cast(fj_elab *e, const fj_builtin_args *call) {
    return fj_convert(e, arg(e, call, 0), (fj_type)call->data, call->place);
}

static fj_value filled(fj_elab *e, const fj_builtin_args *call, fj_value value, int dtype_at) {
    const fj_value dtype = call->args[dtype_at], like = arg(e, call, 0);
    const fj_type type = dtype.kind == FJ_VALUE_DTYPE ? fj_ir_value_type(dtype.dtype) : fj_value_type(like);
    return fj_scalar_value(e, fj_to_ref(e, fj_convert(e, value, type, call->place), type, call->place),
                           false);
}

fj_value fj_build_like(fj_elab *e, const fj_builtin_args *call) {
    return filled(e, call, fj_value_int(call->data), 1);
}
fj_value fj_build_full_like(fj_elab *e, const fj_builtin_args *call) {
    return filled(e, call, arg(e, call, 1), 2);
}

/* int(x), float(x), bool(x) */
fj_value fj_build_python_cast(fj_elab *e, const fj_builtin_args *call) {
    const fj_type type = (fj_type)call->data;
    const fj_value given = call->args[0];
    if (given.kind == FJ_VALUE_UNSET) return fj_convert(e, fj_value_int(0), type, call->place);
    if (type == FJ_TYPE_BOOL && given.kind != FJ_VALUE_SCALAR)
        return fj_value_bool(fj_elab_truth(e, given, call->place, "bool"));
    if (given.kind == FJ_VALUE_STR) {
        fj_constant_need_text(e, given, call->place);
        static const struct {
            const char *text;
            double value;
        } words[] = {{"inf", (double)INFINITY},
                     {"-inf", -(double)INFINITY},
                     {"+inf", (double)INFINITY},
                     {"nan", (double)NAN},
                     {"infinity", (double)INFINITY},
                     {"-infinity", -(double)INFINITY},
                     {"Infinity", (double)INFINITY},
                     {"-Infinity", -(double)INFINITY},
                     {"Inf", (double)INFINITY},
                     {"-Inf", -(double)INFINITY},
                     {"NaN", (double)NAN}};
        for (size_t i = 0; i < FJ_ARRAY_LEN(words) && type == FJ_TYPE_FLOAT; i++) {
            if (fj_str_is(given.str, words[i].text)) return number(words[i].value);
        }
        fj_elab_fail(e, call->place, "%s() reads only 'inf', '-inf' and 'nan' from a string", call->name);
    }
    const fj_value x = arg(e, call, 0);
    if (x.kind == FJ_VALUE_FLOAT && type == FJ_TYPE_I64 && !(fabs(x.f) < 9.2e18)) {
        fj_elab_fail(e, call->place, "this number does not fit into an int");
    }
    fj_value value = fj_convert(e, x, type, call->place);
    if (x.kind == FJ_VALUE_SCALAR) value.weak = x.weak;
    return value;
}

/* ---- Mods ------------------------------------------------------------------------------------------------------------- */

fj_value fj_build_causal(fj_elab *e, const fj_builtin_args *call) {
    return fj_operate_compare(e, FJ_OPERATOR_GE, call->args[2], call->args[3], call->place);
}
