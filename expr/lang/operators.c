/* Promotion, and the operators of Python on run-time values.
 *
 * bool -> int32 -> int64 -> float among values of the kernel; Python numbers and what is made of
 * them alone (weak) only lift the kind: an int32 and an int are an int32, an int32 and a float are a
 * float, a bool and an int are an int64.
 */
#include <stdio.h>

#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Types ------------------------------------------------------------------------------------------ */

fj_type fj_value_type(fj_value value) {
    switch (value.kind) {
    case FJ_VALUE_BOOL: return FJ_TYPE_BOOL;
    case FJ_VALUE_INT: return FJ_TYPE_I64;
    case FJ_VALUE_FLOAT: return FJ_TYPE_FLOAT;
    default: return value.type;
    }
}

static bool is_weak(fj_value v) { return v.kind != FJ_VALUE_SCALAR || v.weak; }
static bool is_int_type(fj_type type) { return type == FJ_TYPE_I32 || type == FJ_TYPE_I64; }
static bool is_float_type(fj_value v) { return fj_value_type(v) == FJ_TYPE_FLOAT; }

static int category(fj_type type) { return type == FJ_TYPE_BOOL ? 0 : type == FJ_TYPE_FLOAT ? 2 : 1; }

fj_type fj_promote(const fj_value *values, size_t count, bool *weak) {
    fj_type strong = FJ_TYPE_VOID, soft = FJ_TYPE_VOID;
    for (size_t i = 0; i < count; i++) {
        fj_type *joined = is_weak(values[i]) ? &soft : &strong;
        const fj_type type = fj_value_type(values[i]);
        if (type > *joined) *joined = type;
    }
    _Static_assert(FJ_TYPE_BOOL < FJ_TYPE_I32 && FJ_TYPE_I32 < FJ_TYPE_I64 && FJ_TYPE_I64 < FJ_TYPE_FLOAT,
                   "order");
    if (weak != NULL) *weak = strong == FJ_TYPE_VOID;
    if (strong == FJ_TYPE_VOID) return soft;
    return soft != FJ_TYPE_VOID && category(soft) > category(strong) ? soft : strong;
}

_Noreturn void fj_type_fail(fj_elab *e, fj_value value, fj_dtype wanted, fj_place place, const char *format,
                            ...) {
    char text[512];
    va_list list;
    if (value.kind == FJ_VALUE_SCALAR) fj_capture_hint_dtype(e, value.ref, wanted);
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fj_elab_fail(e, place, "%s", text);
}

/* ---- Nodes --------------------------------------------------------------------------------------------- */

fj_value fj_scalar_value(fj_elab *e, fj_ref ref, bool weak) {
    return (fj_value){.kind = FJ_VALUE_SCALAR, .type = fj_ir_type(e->ir, ref), .weak = weak, .ref = ref};
}

const bool *fj_reachable(fj_elab *e, fj_ref ref) {
    bool *marks = FJ_NEW_ARRAY(e->arena, bool, ref + 1);
    e->steps += ref / 64;
    marks[ref] = true;
    for (fj_ref at = ref; at > 0; at--) {
        if (!marks[at]) continue;
        const fj_node *node = fj_ir_at(e->ir, at);
        for (int i = 0; i < node->argc; i++) marks[fj_ir_args(e->ir, at)[i]] = true;
    }
    return marks;
}

bool fj_is_uniform(fj_elab *e, fj_ref ref) {
    const bool *marks = fj_reachable(e, ref);
    for (fj_ref at = 1; at <= ref; at++) {
        if (!marks[at]) continue;
        const fj_node *node = fj_ir_at(e->ir, at);
        const bool leaf = node->argc == 0 && !fj_op_is_const((fj_op)node->op);
        if (leaf && node->op != FJ_OP_SCALAR && node->op != FJ_OP_DIM) return false;
        if (node->op == FJ_OP_LOAD || node->op == FJ_OP_LOOP || fj_op_is_reduction((fj_op)node->op))
            return false;
    }
    return true;
}

const char *fj_runtime_name(fj_elab *e, fj_ref ref) {
    const bool *marks = fj_reachable(e, ref);
    for (fj_ref at = 1; at <= ref; at++) {
        const fj_node *node = fj_ir_at(e->ir, at);
        if (marks[at] && node->op == FJ_OP_SCALAR) return e->ir->scalars.data[node->imm.i].name;
    }
    return "";
}

static fj_ref constant_ref(fj_elab *e, fj_value value, fj_type type, fj_place place) {
    const int64_t i = value.kind == FJ_VALUE_BOOL ? value.b : value.i;
    switch (type) {
    case FJ_TYPE_BOOL: return fj_ir_bool(e->ir, fj_value_as_double(value) != 0.0);
    case FJ_TYPE_FLOAT: return fj_ir_float(e->ir, fj_value_as_double(value));
    case FJ_TYPE_I64: return fj_ir_i64(e->ir, i);
    default:
        if (i < INT32_MIN || i > INT32_MAX) {
            fj_elab_fail_note(e, place, "'.long()' makes the other operand an int64",
                              "%lld does not fit into an int32", (long long)i);
        }
        return fj_ir_i32(e->ir, (int32_t)i);
    }
}

fj_ref fj_to_ref(fj_elab *e, fj_value value, fj_type type, fj_place place) {
    if (value.kind == FJ_VALUE_SCALAR) {
        /* A Python int that a call decides does not wrap where one of the source would be refused. */
        if (type == FJ_TYPE_I32 && value.type == FJ_TYPE_I64 && value.weak)
            fj_require(e, FJ_REQUIRE_INT32, value.ref, 0, place);
        return fj_ir_cast(e->ir, value.ref, type);
    }
    if (value.kind == FJ_VALUE_FLOAT && type != FJ_TYPE_FLOAT) {
        fj_elab_fail(e, place, "a float is given where an int is needed");
    }
    return constant_ref(e, value, type, place);
}

fj_value fj_operand(fj_elab *e, fj_value value, fj_place place, const char *what) {
    if (fj_value_is_number(value) || value.kind == FJ_VALUE_SCALAR) return value;
    if (value.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, place, "%s", value.unknown->why);
    if (value.kind == FJ_VALUE_TENSOR) {
        value = fj_tensor_settle(e, value, place);
        if (value.kind == FJ_VALUE_SCALAR) return value;
    }
    fj_elab_fail(e, place, "%s does not take %s", what, fj_value_describe(value));
}

/* ---- Pointwise operations of the IR ------------------------------------------------------------------------ */

typedef union lane {
    bool b;
    int32_t i;
    int64_t l;
    double f;
} lane;

static lane constant_lane(fj_value value, fj_type type) {
    const int64_t i = value.kind == FJ_VALUE_BOOL ? value.b : value.i;
    lane at = {.l = 0};
    if (type == FJ_TYPE_BOOL) at.b = fj_value_as_double(value) != 0.0;
    if (type == FJ_TYPE_I32) at.i = (int32_t)i;
    if (type == FJ_TYPE_I64) at.l = i;
    if (type == FJ_TYPE_FLOAT) at.f = fj_value_as_double(value);
    return at;
}

static fj_value lane_value(lane at, fj_type type) {
    switch (type) {
    case FJ_TYPE_BOOL: return fj_value_bool(at.b);
    case FJ_TYPE_I32: return fj_value_int(at.i);
    case FJ_TYPE_I64: return fj_value_int(at.l);
    default: return fj_value_float(at.f);
    }
}

static fj_value fold(fj_op op, fj_type type, const fj_value *values, int count) {
    lane lanes[3] = {{.l = 0}}, result = {.l = 0};
    for (int i = 0; i < count; i++) lanes[i] = constant_lane(values[i], type);
    fj_op_lanes_table[op][type](&result, &lanes[0], &lanes[1], &lanes[2], 1);
    return lane_value(result, (fj_type)fj_op_result(op, (int)type));
}

/* The constants behind the values, where all are known. */
static bool known_values(const fj_value *values, int count, fj_value *ret_known) {
    bool any = false;
    for (int i = 0; i < count; i++) {
        if (values[i].kind == FJ_VALUE_SCALAR && values[i].known == NULL) return false;
        any |= values[i].kind == FJ_VALUE_SCALAR;
        ret_known[i] = values[i].kind == FJ_VALUE_SCALAR ? *values[i].known : values[i];
    }
    return any;
}

static fj_value with_known(fj_elab *e, fj_value value, fj_value known) {
    fj_value *copy = FJ_NEW(e->arena, fj_value);
    *copy = known;
    value.known = copy;
    return value;
}

fj_value fj_pointwise(fj_elab *e, fj_op op, fj_type type, const fj_value *values, int count, fj_place place) {
    fj_ref refs[3];
    bool constant = true, weak = true;
    fj_elab_step(e, place, 1);
    for (int i = 0; i < count; i++) {
        constant &= values[i].kind != FJ_VALUE_SCALAR;
        weak &= is_weak(values[i]);
    }
    if (constant && op != FJ_OP_WHERE) return fold(op, type, values, count);
    for (int i = 0; i < count; i++) {
        refs[i] = fj_to_ref(e, values[i], op == FJ_OP_WHERE && i == 0 ? FJ_TYPE_BOOL : type, place);
    }
    const fj_type result = (fj_type)fj_op_result(op, (int)type);
    const fj_value value = fj_scalar_value(e, fj_ir_node(e->ir, op, result, 0, refs, count), weak);
    fj_value known[3];
    if (op == FJ_OP_WHERE || !known_values(values, count, known)) return value;
    return with_known(e, value, fold(op, type, known, count));
}

static fj_value convert_constant(fj_value value, fj_type type) {
    if (type == FJ_TYPE_FLOAT) return fj_value_float(fj_value_as_double(value));
    if (type == FJ_TYPE_BOOL) return fj_value_bool(fj_value_as_double(value) != 0.0);
    if (value.kind == FJ_VALUE_FLOAT) return fold(FJ_OP_CAST_I64, FJ_TYPE_FLOAT, &value, 1);
    return fj_value_int(value.kind == FJ_VALUE_BOOL ? value.b : value.i);
}

fj_value fj_convert(fj_elab *e, fj_value value, fj_type type, fj_place place) {
    (void)place;
    if (value.kind != FJ_VALUE_SCALAR) return convert_constant(value, type);
    const fj_value result = fj_scalar_value(e, fj_ir_cast(e->ir, value.ref, type), false);
    return value.known == NULL ? result : with_known(e, result, convert_constant(*value.known, type));
}

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
    if (!known_values((fj_value[]){a, b}, 2, known) || !known_is_defined(op, known)) return value;
    return with_known(e, value, fj_constant_binary(e, op, known[0], known[1], call->place));
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
