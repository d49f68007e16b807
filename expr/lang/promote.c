/* Promotion of run-time values, and their nodes in the IR.
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
bool fj_known_values(const fj_value *values, int count, fj_value *ret_known) {
    bool any = false;
    for (int i = 0; i < count; i++) {
        if (values[i].kind == FJ_VALUE_SCALAR && values[i].known == NULL) return false;
        any |= values[i].kind == FJ_VALUE_SCALAR;
        ret_known[i] = values[i].kind == FJ_VALUE_SCALAR ? *values[i].known : values[i];
    }
    return any;
}

fj_value fj_with_known(fj_elab *e, fj_value value, fj_value known) {
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
    if (op == FJ_OP_WHERE || !fj_known_values(values, count, known)) return value;
    return fj_with_known(e, value, fold(op, type, known, count));
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
    return value.known == NULL ? result : fj_with_known(e, result, convert_constant(*value.known, type));
}
