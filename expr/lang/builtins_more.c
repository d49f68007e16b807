/* More of torch's pointwise functions, made of the operations of the IR. */
#include <float.h>
#include <math.h>

#include "expr/lang/builtins.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

static fj_value arg(fj_elab *e, const fj_builtin_args *call, int i) {
    return fj_operand(e, call->args[i], call->place, call->name);
}

/* As a float. */
static fj_value real(fj_elab *e, const fj_builtin_args *call, int i) {
    return fj_convert(e, arg(e, call, i), FJ_TYPE_FLOAT, call->place);
}

static fj_value real_or(fj_elab *e, const fj_builtin_args *call, int i, double otherwise) {
    return fj_is_given(call->args[i]) ? real(e, call, i) : fj_value_float(otherwise);
}

static fj_value op1(fj_elab *e, const fj_builtin_args *call, fj_op op, fj_value a) {
    return fj_pointwise(e, op, FJ_TYPE_FLOAT, &a, 1, call->place);
}

static fj_value op2(fj_elab *e, const fj_builtin_args *call, fj_op op, fj_value a, fj_value b) {
    return fj_pointwise(e, op, FJ_TYPE_FLOAT, (fj_value[]){a, b}, 2, call->place);
}

static fj_value choose(fj_elab *e, const fj_builtin_args *call, fj_value condition, fj_value a, fj_value b) {
    if (condition.kind == FJ_VALUE_BOOL) return condition.b ? a : b;
    return fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_FLOAT, (fj_value[]){condition, a, b}, 3, call->place);
}

static fj_value number(double value) { return fj_value_float(value); }

/* ---- Functions -------------------------------------------------------------------------------------------- */

fj_value fj_build_log10(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (x.kind != FJ_VALUE_SCALAR) return number(log10(fj_value_as_double(x)));
    return op2(e, call, FJ_OP_DIV, op1(e, call, FJ_OP_LOG, x), number(2.30258509299404568402));
}

/* max + log1p(exp(-|a - b|)); where both are equal, infinities too, both take half of the gradient. */
fj_value fj_build_logaddexp(fj_elab *e, const fj_builtin_args *call) {
    const fj_value a = real(e, call, 0), b = real(e, call, 1);
    const fj_value distance = op1(e, call, FJ_OP_ABS, op2(e, call, FJ_OP_SUB, a, b));
    const fj_value tail =
        op1(e, call, FJ_OP_LOG1P, op1(e, call, FJ_OP_EXP, op1(e, call, FJ_OP_NEG, distance)));
    const fj_value apart = op2(e, call, FJ_OP_ADD, op2(e, call, FJ_OP_MAXIMUM, a, b), tail);
    const fj_value half = op2(e, call, FJ_OP_ADD, op2(e, call, FJ_OP_MUL, a, number(0.5)),
                              op2(e, call, FJ_OP_MUL, b, number(0.5)));
    const fj_value same = op2(e, call, FJ_OP_ADD, half, number(0.69314718055994530942));
    return choose(e, call, fj_operate_compare(e, FJ_OPERATOR_EQ, a, b, call->place), same, apart);
}

/* Infinities become the greatest and the least float32, as a tensor of that dtype has them. */
fj_value fj_build_nan_to_num(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = arg(e, call, 0);
    if (fj_value_type(x) != FJ_TYPE_FLOAT) return x;
    const fj_value high = fj_operate_compare(e, FJ_OPERATOR_EQ, x, number((double)INFINITY), call->place);
    const fj_value low = fj_operate_compare(e, FJ_OPERATOR_EQ, x, number(-(double)INFINITY), call->place);
    fj_value result = choose(e, call, low, real_or(e, call, 3, -(double)FLT_MAX), x);
    result = choose(e, call, high, real_or(e, call, 2, (double)FLT_MAX), result);
    return choose(e, call, op1(e, call, FJ_OP_ISNAN, x), real_or(e, call, 1, 0.0), result);
}

/* start + weight (end - start), from the nearer end as PyTorch does. */
fj_value fj_build_lerp(fj_elab *e, const fj_builtin_args *call) {
    const fj_value start = real(e, call, 0), end = real(e, call, 1), weight = real(e, call, 2);
    const fj_value step = op2(e, call, FJ_OP_SUB, end, start);
    const fj_value up = op2(e, call, FJ_OP_ADD, start, op2(e, call, FJ_OP_MUL, weight, step));
    const fj_value rest = op2(e, call, FJ_OP_SUB, number(1.0), weight);
    const fj_value down = op2(e, call, FJ_OP_SUB, end, op2(e, call, FJ_OP_MUL, step, rest));
    const fj_value near =
        fj_operate_compare(e, FJ_OPERATOR_LT, op1(e, call, FJ_OP_ABS, weight), number(0.5), call->place);
    return choose(e, call, near, up, down);
}

fj_value fj_build_addcmul(fj_elab *e, const fj_builtin_args *call) {
    const fj_value value = fj_is_given(call->args[3]) ? arg(e, call, 3) : fj_value_int(1);
    const fj_value scaled = fj_operate(e, FJ_OPERATOR_MUL, arg(e, call, 1), value, call->place);
    const fj_value change = fj_operate(e, (fj_operator)call->data, scaled, arg(e, call, 2), call->place);
    return fj_operate(e, FJ_OPERATOR_ADD, arg(e, call, 0), change, call->place);
}

/* ---- Activations -------------------------------------------------------------------------------------------- */

fj_value fj_build_elu(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0), alpha = real_or(e, call, 1, 1.0);
    const fj_value below = op2(e, call, FJ_OP_MUL, alpha, op1(e, call, FJ_OP_EXPM1, x));
    return choose(e, call, fj_operate_compare(e, FJ_OPERATOR_GT, x, number(0.0), call->place), x, below);
}

static fj_value between(fj_elab *e, const fj_builtin_args *call, fj_value x, fj_value low, fj_value high) {
    return op2(e, call, FJ_OP_CLAMP_MAX, op2(e, call, FJ_OP_CLAMP_MIN, x, low), high);
}

/* No gradient at the bounds. */
fj_value fj_build_hardtanh(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    if (call->data == 6) return between(e, call, x, number(0.0), number(6.0));
    return between(e, call, x, real_or(e, call, 1, -1.0), real_or(e, call, 2, 1.0));
}

fj_value fj_build_softsign(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    return op2(e, call, FJ_OP_DIV, x, op2(e, call, FJ_OP_ADD, number(1.0), op1(e, call, FJ_OP_ABS, x)));
}

fj_value fj_build_threshold(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    const fj_value low = fj_operate_compare(e, FJ_OPERATOR_LE, x, arg(e, call, 1), call->place);
    return choose(e, call, low, real(e, call, 2), x);
}

fj_value fj_build_mish(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    fj_builtin_args soft = *call;
    soft.args = (fj_value[]){x, FJ_UNSET, FJ_UNSET};
    soft.count = 3;
    return op2(e, call, FJ_OP_MUL, x, op1(e, call, FJ_OP_TANH, fj_build_softplus(e, &soft)));
}

/* clamp(x + 3, 0, 6) / 6 */
static fj_value hard_sigmoid(fj_elab *e, const fj_builtin_args *call, fj_value x) {
    const fj_value moved = op2(e, call, FJ_OP_ADD, x, number(3.0));
    return op2(e, call, FJ_OP_DIV, between(e, call, moved, number(0.0), number(6.0)), number(6.0));
}

fj_value fj_build_hardsigmoid(fj_elab *e, const fj_builtin_args *call) {
    return hard_sigmoid(e, call, real(e, call, 0));
}

fj_value fj_build_hardswish(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    return op2(e, call, FJ_OP_MUL, x, hard_sigmoid(e, call, x));
}

fj_value fj_build_tanhshrink(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = real(e, call, 0);
    return op2(e, call, FJ_OP_SUB, x, op1(e, call, FJ_OP_TANH, x));
}
