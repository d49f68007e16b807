/* Simplifications, each exact: the same bits for every argument, infinities, NaN and -0 included (a NaN
 * is a NaN whatever its sign). What is only nearly right (x * 0, x + 0, pow(x, 2)) is not here. */
#include <math.h>

#include "expr/ir/guard.h"
#include "expr/ir/optimise.h"

/* ---- Looking ------------------------------------------------------------------------------------ */

static const fj_node *at(const fj_ir *ir, fj_ref ref) { return fj_ir_at(ir, ref); }
static fj_ref arg(const fj_ir *ir, fj_ref ref, int i) { return fj_ir_args(ir, ref)[i]; }
static bool is_op(const fj_ir *ir, fj_ref ref, fj_op op) { return at(ir, ref)->op == op; }

static bool is_float(const fj_ir *ir, fj_ref ref, double value) {
    const fj_node *node = at(ir, ref);
    return node->op == FJ_OP_CONST_FLOAT && node->imm.f == value && signbit(node->imm.f) == signbit(value);
}

/* An int or bool constant. */
static bool is_int(const fj_ir *ir, fj_ref ref, int64_t value) {
    const fj_node *node = at(ir, ref);
    return fj_op_is_const((fj_op)node->op) && node->op != FJ_OP_CONST_FLOAT && node->imm.i == value;
}

static bool is_int_const(const fj_ir *ir, fj_ref ref) {
    return fj_opt_is_const(ir, ref) && !is_op(ir, ref, FJ_OP_CONST_FLOAT);
}

static fj_ref make(fj_ir *ir, fj_op op, fj_ref a, fj_ref b) {
    const fj_type type = (fj_type)fj_op_result(op, (int)fj_ir_type(ir, a));
    return fj_opt_node(ir, op, type, 0, (fj_ref[]){a, b}, fj_op_table[op].arity);
}

/* ---- Floats ---------------------------------------------------------------------------------------- */

static fj_ref rule_float(fj_ir *ir, fj_op op, const fj_ref *args) {
    const fj_ref a = args[0], b = args[1];
    switch (op) {
    case FJ_OP_ADD: return is_float(ir, b, -0.0) ? a : 0;
    case FJ_OP_SUB: return is_float(ir, b, 0.0) ? a : 0;
    case FJ_OP_MUL:
        if (is_float(ir, b, 1.0)) return a;
        return is_float(ir, b, -1.0) ? make(ir, FJ_OP_NEG, a, 0) : 0;
    case FJ_OP_DIV:
        if (is_float(ir, b, 1.0)) return a;
        return is_float(ir, b, -1.0) ? make(ir, FJ_OP_NEG, a, 0) : 0;
    case FJ_OP_POW: return is_float(ir, b, 1.0) ? a : 0;
    default: return 0;
    }
}

/* ---- Ints -------------------------------------------------------------------------------------------- */

/* The exponent of a power of two above 1, or 0. */
static int log2_of(const fj_ir *ir, fj_ref ref) {
    if (!is_int_const(ir, ref)) return 0;
    const int64_t value = at(ir, ref)->imm.i;
    if (value < 2 || (value & (value - 1)) != 0) return 0;
    int log = 0;
    while (INT64_C(1) << log != value) log++;
    return log;
}

/* Floors, as the shift and the mask do. */
static fj_ref rule_division(fj_ir *ir, fj_op op, fj_type type, fj_ref a, fj_ref b) {
    const int log = log2_of(ir, b);
    if (is_int(ir, b, 1)) return op == FJ_OP_FLOORDIV ? a : fj_opt_const(ir, type, 0, 0.0);
    if (log == 0) return 0;
    if (op == FJ_OP_FLOORDIV) return make(ir, FJ_OP_SHR, a, fj_opt_const(ir, type, log, 0.0));
    return make(ir, FJ_OP_AND, a, fj_opt_const(ir, type, at(ir, b)->imm.i - 1, 0.0));
}

/* (x + 1) + 2 is x + 3: ints wrap. */
static fj_ref rule_add_twice(fj_ir *ir, fj_ref a, fj_ref b) {
    if (!is_int_const(ir, b) || !is_op(ir, a, FJ_OP_ADD) || !is_int_const(ir, arg(ir, a, 1))) return 0;
    const fj_ref first = arg(ir, a, 0);
    return make(ir, FJ_OP_ADD, first, make(ir, FJ_OP_ADD, arg(ir, a, 1), b));
}

static fj_ref rule_int(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args) {
    const fj_ref a = args[0], b = args[1];
    switch (op) {
    case FJ_OP_ADD: return is_int(ir, b, 0) ? a : rule_add_twice(ir, a, b);
    case FJ_OP_SUB:
        if (a == b) return fj_opt_const(ir, type, 0, 0.0);
        return is_int(ir, b, 0) ? a : is_int(ir, a, 0) ? make(ir, FJ_OP_NEG, b, 0) : 0;
    case FJ_OP_MUL:
        if (is_int(ir, b, 0)) return b;
        return is_int(ir, b, 1) ? a : is_int(ir, b, -1) ? make(ir, FJ_OP_NEG, a, 0) : 0;
    case FJ_OP_FLOORDIV:
    case FJ_OP_FLOORMOD: return rule_division(ir, op, type, a, b);
    case FJ_OP_SHL:
    case FJ_OP_SHR: return is_int(ir, b, 0) ? a : 0;
    default: return 0;
    }
}

/* The comparison that holds where this one does not, except for NaN. */
static const fj_op opposites[FJ_OP_COUNT] = {
    [FJ_OP_EQ] = FJ_OP_NE, [FJ_OP_NE] = FJ_OP_EQ, [FJ_OP_LT] = FJ_OP_GE,
    [FJ_OP_GE] = FJ_OP_LT, [FJ_OP_LE] = FJ_OP_GT, [FJ_OP_GT] = FJ_OP_LE,
};

/* ---- Bits and bools ------------------------------------------------------------------------------------ */

/* For bools: whether one is the not of the other. */
static bool is_opposite(fj_ir *ir, fj_ref a, fj_ref b) {
    const fj_node *left = at(ir, a), *right = at(ir, b);
    if (left->op == FJ_OP_NOT) return arg(ir, a, 0) == b;
    if (right->op == FJ_OP_NOT) return arg(ir, b, 0) == a;
    if (fj_op_table[left->op].rule != FJ_RULE_COMPARE || opposites[left->op] != (fj_op)right->op)
        return false;
    const bool floats =
        fj_ir_type(ir, arg(ir, a, 0)) == FJ_TYPE_FLOAT && left->op != FJ_OP_EQ && left->op != FJ_OP_NE;
    return !floats && arg(ir, a, 0) == arg(ir, b, 0) && arg(ir, a, 1) == arg(ir, b, 1);
}

/* The argument of a two-sided bool operation that is beside `one`; 0: `one` is none of its arguments. */
static fj_ref beside(const fj_ir *ir, fj_ref ref, fj_op op, fj_ref one) {
    if (!is_op(ir, ref, op)) return 0;
    return arg(ir, ref, 0) == one ? arg(ir, ref, 1) : arg(ir, ref, 1) == one ? arg(ir, ref, 0) : 0;
}

/* Guards: c or not c; (g and c) or (g and not c); g or (g and c); g and (g or c). */
static fj_ref rule_bools(fj_ir *ir, fj_op op, fj_ref a, fj_ref b) {
    const fj_op other = op == FJ_OP_AND ? FJ_OP_OR : FJ_OP_AND;
    if (op != FJ_OP_AND && op != FJ_OP_OR) return 0;
    if (is_opposite(ir, a, b)) return fj_ir_bool(ir, op == FJ_OP_OR);
    if (beside(ir, b, other, a) != 0) return a;
    if (beside(ir, a, other, b) != 0) return b;
    if (!is_op(ir, a, other) || !is_op(ir, b, other)) return 0;
    for (int i = 0; i < 2; i++) {
        const fj_ref shared = arg(ir, a, i), rest = arg(ir, a, 1 - i),
                     opposite = beside(ir, b, other, shared);
        if (opposite != 0 && is_opposite(ir, rest, opposite)) return shared;
    }
    return 0;
}

static fj_ref rule_bits(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args) {
    const fj_ref a = args[0], b = args[1];
    const int64_t ones = type == FJ_TYPE_BOOL ? 1 : -1;
    const bool left_zero = is_int(ir, a, 0), right_zero = is_int(ir, b, 0);
    const bool left_ones = is_int(ir, a, ones), right_ones = is_int(ir, b, ones);
    const fj_ref joined = type == FJ_TYPE_BOOL ? rule_bools(ir, op, a, b) : 0;
    if (joined != 0) return joined;
    switch (op) {
    case FJ_OP_AND:
        if (left_ones || right_zero || a == b) return b;
        if (right_ones || left_zero) return a;
        if (is_op(ir, b, FJ_OP_AND) && (arg(ir, b, 0) == a || arg(ir, b, 1) == a)) return b;
        return is_op(ir, a, FJ_OP_AND) && (arg(ir, a, 0) == b || arg(ir, a, 1) == b) ? a : 0;
    case FJ_OP_OR:
        if (left_zero || right_ones || a == b) return b;
        if (right_zero || left_ones) return a;
        if (is_op(ir, b, FJ_OP_OR) && (arg(ir, b, 0) == a || arg(ir, b, 1) == a)) return b;
        return is_op(ir, a, FJ_OP_OR) && (arg(ir, a, 0) == b || arg(ir, a, 1) == b) ? a : 0;
    case FJ_OP_XOR:
        if (a == b) return fj_opt_const(ir, type, 0, 0.0);
        if (left_zero) return b;
        if (right_zero) return a;
        return left_ones ? make(ir, FJ_OP_NOT, b, 0) : right_ones ? make(ir, FJ_OP_NOT, a, 0) : 0;
    default: return 0;
    }
}

/* not of a comparison; of floats only == and != have an opposite, because of NaN. */
static fj_ref rule_not(fj_ir *ir, fj_ref a) {
    const fj_op op = (fj_op)at(ir, a)->op, opposite = opposites[op];
    if (op == FJ_OP_NOT) return arg(ir, a, 0);
    if (opposite == FJ_OP_NONE) return 0;
    if (fj_ir_type(ir, arg(ir, a, 0)) == FJ_TYPE_FLOAT && op != FJ_OP_EQ && op != FJ_OP_NE) return 0;
    return make(ir, opposite, arg(ir, a, 0), arg(ir, a, 1));
}

/* ---- Comparisons ------------------------------------------------------------------------------------------ */

/* The int32 that this int64 was widened from, or that the constant is; 0: none. */
static fj_ref narrow(fj_ir *ir, fj_ref ref) {
    const fj_node *node = at(ir, ref);
    if (node->op == FJ_OP_CAST_I64 && fj_ir_type(ir, arg(ir, ref, 0)) == FJ_TYPE_I32) return arg(ir, ref, 0);
    if (node->op != FJ_OP_CONST_I64 || node->imm.i < INT32_MIN || node->imm.i > INT32_MAX) return 0;
    return fj_ir_i32(ir, (int32_t)node->imm.i);
}

static fj_ref rule_compare(fj_ir *ir, fj_op op, const fj_ref *args) {
    const fj_ref a = args[0], b = args[1];
    const fj_type type = fj_ir_type(ir, a);
    if (type == FJ_TYPE_FLOAT) return 0;
    if (a == b) return fj_ir_bool(ir, op == FJ_OP_EQ || op == FJ_OP_LE || op == FJ_OP_GE);
    if (is_op(ir, a, FJ_OP_CAST_I32) && fj_ir_type(ir, arg(ir, a, 0)) == FJ_TYPE_BOOL && is_int(ir, b, 0)) {
        if (op == FJ_OP_NE || op == FJ_OP_GT) return arg(ir, a, 0);
        if (op == FJ_OP_EQ || op == FJ_OP_LE) return make(ir, FJ_OP_NOT, arg(ir, a, 0), 0);
    }
    if (type != FJ_TYPE_I64) return 0;
    const fj_ref left = narrow(ir, a), right = left != 0 ? narrow(ir, b) : 0;
    return right != 0 ? make(ir, op, left, right) : 0;
}

/* ---- Choice and casts ---------------------------------------------------------------------------------------- */

static fj_ref make_where(fj_ir *ir, fj_ref c, fj_ref a, fj_ref b) {
    return fj_opt_node(ir, FJ_OP_WHERE, fj_ir_type(ir, a), 0, (fj_ref[]){c, a, b}, 3);
}

/* Whether a value is of a few nodes, none of which can fail. */
static bool is_total(const fj_ir *ir, fj_ref ref, int *budget) {
    if (--*budget < 0 || fj_guards_can_fail(ir, ref)) return false;
    for (int i = 0; i < at(ir, ref)->argc; i++)
        if (!is_total(ir, arg(ir, ref, i), budget)) return false;
    return true;
}

/* And and or take both of their arguments, where does not: what could fail stays guarded by it. */
static fj_ref rule_where_bool(fj_ir *ir, fj_ref c, fj_ref a, fj_ref b) {
    enum { MOST_NODES = 64 };
    int budget = MOST_NODES;
    if (!is_total(ir, is_int(ir, a, 0) || is_int(ir, a, 1) ? b : a, &budget)) return 0;
    if (is_int(ir, b, 0)) return make(ir, FJ_OP_AND, c, a);
    if (is_int(ir, a, 1)) return make(ir, FJ_OP_OR, c, b);
    if (is_int(ir, a, 0)) return make(ir, FJ_OP_AND, make(ir, FJ_OP_NOT, c, 0), b);
    return is_int(ir, b, 1) ? make(ir, FJ_OP_OR, make(ir, FJ_OP_NOT, c, 0), a) : 0;
}

static fj_ref rule_where(fj_ir *ir, const fj_ref *args) {
    const fj_ref c = args[0], a = args[1], b = args[2];
    if (a == b || is_int(ir, c, 1)) return a;
    if (is_int(ir, c, 0)) return b;
    if (is_op(ir, c, FJ_OP_NOT)) return make_where(ir, arg(ir, c, 0), b, a);
    if (is_op(ir, a, FJ_OP_WHERE) && arg(ir, a, 0) == c) return make_where(ir, c, arg(ir, a, 1), b);
    if (is_op(ir, b, FJ_OP_WHERE) && arg(ir, b, 0) == c) return make_where(ir, c, a, arg(ir, b, 2));
    return fj_ir_type(ir, a) == FJ_TYPE_BOOL ? rule_where_bool(ir, c, a, b) : 0;
}

/* A cast of a cast that keeps the value: bool -> i32 -> i64 -> float in any steps upwards, and back to
 * where it came from. */
static fj_ref rule_cast(fj_ir *ir, fj_type type, fj_ref a) {
    const fj_node *node = at(ir, a);
    if (fj_op_table[node->op].rule < FJ_RULE_CAST_BOOL) return 0;
    const fj_ref source = arg(ir, a, 0);
    const fj_type from = fj_ir_type(ir, source), middle = (fj_type)node->type;
    const bool widened = from < middle && !(from == FJ_TYPE_I64 && middle == FJ_TYPE_FLOAT);
    if (!widened) return 0;
    if (type == from) return from == FJ_TYPE_I32 && middle == FJ_TYPE_FLOAT ? 0 : source;
    return type > middle
             ? fj_opt_node(ir, (fj_op)(FJ_OP_CAST_BOOL + (int)type - (int)FJ_TYPE_BOOL), type, 0, &source, 1)
             : 0;
}
_Static_assert(FJ_OP_CAST_FLOAT - FJ_OP_CAST_BOOL == (int)FJ_TYPE_FLOAT - (int)FJ_TYPE_BOOL, "rule_cast");

static fj_ref rule_unary(fj_ir *ir, fj_op op, fj_ref a) {
    if (op == FJ_OP_NOT) return rule_not(ir, a);
    if (op == FJ_OP_NEG) return is_op(ir, a, FJ_OP_NEG) ? arg(ir, a, 0) : 0;
    if (op != FJ_OP_ABS) return 0;
    if (is_op(ir, a, FJ_OP_ABS)) return fj_ir_type(ir, a) == FJ_TYPE_FLOAT ? a : 0;
    return is_op(ir, a, FJ_OP_NEG) ? make(ir, FJ_OP_ABS, arg(ir, a, 0), 0) : 0;
}

/* ---- Reductions ------------------------------------------------------------------------------------------------ */

static fj_ref rule_reduction(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args) {
    const fj_reduction_info *info = &fj_reduction_table[op];
    const bool is_arg = fj_op_table[op].rule == FJ_RULE_REDUCE_ARG;
    if (is_int(ir, arg(ir, args[0], 0), 0)) {
        if (is_arg) return fj_ir_i64(ir, 0);
        return fj_opt_const(ir, type, type == FJ_TYPE_I64 ? info->empty_i64 : info->empty_i32, info->empty);
    }
    /* What joins the neutral element with itself any number of times. */
    const bool zero = is_float(ir, args[1], 0.0) || is_int(ir, args[1], 0);
    const bool one = is_float(ir, args[1], 1.0) || is_int(ir, args[1], 1);
    if (zero && (op == FJ_OP_REDUCE_SUM || op == FJ_OP_REDUCE_ANY)) return args[1];
    return one && (op == FJ_OP_REDUCE_PROD || op == FJ_OP_REDUCE_ALL) ? args[1] : 0;
}

fj_ref fj_opt_rule(fj_ir *ir, fj_op op, fj_type type, const fj_ref *args) {
    const fj_rule rule = fj_op_table[op].rule;
    if (fj_op_is_reduction(op)) return rule_reduction(ir, op, type, args);
    if (rule < FJ_RULE_NUM) return 0;
    if (rule >= FJ_RULE_CAST_BOOL) return rule_cast(ir, type, args[0]);
    if (rule == FJ_RULE_WHERE) return rule_where(ir, args);
    if (fj_op_table[op].arity == 1) return rule_unary(ir, op, args[0]);
    if (rule == FJ_RULE_COMPARE) return rule_compare(ir, op, args);
    if (rule == FJ_RULE_BITS) return rule_bits(ir, op, type, args);
    const bool keeps_equal =
        op == FJ_OP_MINIMUM || op == FJ_OP_MAXIMUM || op == FJ_OP_CLAMP_MIN || op == FJ_OP_CLAMP_MAX;
    if (keeps_equal && args[0] == args[1]) return args[0];
    return type == FJ_TYPE_FLOAT ? rule_float(ir, op, args) : rule_int(ir, op, type, args);
}
