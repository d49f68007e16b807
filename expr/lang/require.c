/* Requirements on extents and scalars: see require.h. */
#include "expr/lang/require.h"

#include <string.h>

/* ---- Expressions ------------------------------------------------------------------------------------------ */

static bool is_leaf(fj_op op) { return op == FJ_OP_SCALAR || op == FJ_OP_DIM || fj_op_is_const(op); }

/* Marks what ref is made of; false: not only of what is uniform, or of too much. */
static bool collect(const fj_ir *ir, fj_ref ref, fj_ref *refs, int *count, int depth) {
    if (depth > FJ_UNIFORM_MAX_STEPS) return false;
    for (int i = 0; i < *count; i++) {
        if (refs[i] == ref) return true;
    }
    const fj_node *node = fj_ir_at(ir, ref);
    const fj_op op = (fj_op)node->op;
    if (!is_leaf(op) && !fj_op_is_pointwise(op)) return false;
    for (int i = 0; i < node->argc; i++) {
        if (!collect(ir, fj_ir_args(ir, ref)[i], refs, count, depth + 1)) return false;
    }
    if (*count == FJ_UNIFORM_MAX_STEPS) return false;
    refs[(*count)++] = ref;
    return true;
}

static uint8_t position(const fj_ref *refs, int count, fj_ref ref) {
    int at = 0;
    while (at < count - 1 && refs[at] != ref) at++;
    return (uint8_t)at;
}

bool fj_uniform_compile(const fj_ir *ir, fj_ref ref, fj_arena *arena, fj_uniform *ret_uniform) {
    fj_ref refs[FJ_UNIFORM_MAX_STEPS];
    int count = 0;
    if (!collect(ir, ref, refs, &count, 0)) return false;
    fj_uniform_step *steps = FJ_NEW_ARRAY(arena, fj_uniform_step, count);
    for (int i = 0; i < count; i++) {
        const fj_node *node = fj_ir_at(ir, refs[i]);
        steps[i] =
            (fj_uniform_step){.op = node->op, .type = node->type, .argc = node->argc, .imm = node->imm.i};
        for (int k = 0; k < node->argc; k++)
            steps[i].args[k] = position(refs, count, fj_ir_args(ir, refs[i])[k]);
    }
    *ret_uniform = (fj_uniform){steps, count};
    return true;
}

typedef union lane {
    bool b;
    int32_t i;
    int64_t l;
    double f;
} lane;

static bool leaf_value(const fj_uniform_step *step, const fj_ir *ir, const fj_scalar *scalars,
                       fj_extents dims, lane *ret) {
    switch ((fj_op)step->op) {
    case FJ_OP_CONST_BOOL: ret->b = step->imm != 0; return true;
    case FJ_OP_CONST_I32: ret->i = (int32_t)step->imm; return true;
    case FJ_OP_CONST_I64: ret->l = step->imm; return true;
    case FJ_OP_CONST_FLOAT: memcpy(&ret->f, &step->imm, sizeof ret->f); return true;
    case FJ_OP_DIM:
        ret->l = dims.first[(size_t)(step->imm >> 8) * dims.step + (size_t)(step->imm & 255)];
        return ret->l >= 0;
    default: break;
    }
    const fj_runtime_scalar *scalar = &ir->scalars.data[step->imm];
    const int64_t i = scalars != NULL && scalar->type != FJ_TYPE_FLOAT ? scalars[step->imm].i : scalar->i;
    if (scalar->type == FJ_TYPE_FLOAT)
        ret->f = scalars != NULL ? scalars[step->imm].f : scalar->f;
    else if (scalar->type == FJ_TYPE_BOOL)
        ret->b = i != 0;
    else
        ret->l = i;
    return true;
}

bool fj_uniform_value(const fj_uniform *uniform, const fj_ir *ir, const fj_scalar *scalars, fj_extents dims,
                      int64_t *ret_value) {
    lane lanes[FJ_UNIFORM_MAX_STEPS];
    for (int i = 0; i < uniform->count; i++) {
        const fj_uniform_step *step = &uniform->steps[i];
        lanes[i].l = 0;
        if (is_leaf((fj_op)step->op)) {
            if (!leaf_value(step, ir, scalars, dims, &lanes[i])) return false;
            continue;
        }
        const uint8_t typed = step->args[step->op == FJ_OP_WHERE ? 1 : 0];
        lane args[3] = {{.l = 0}};
        for (int k = 0; k < step->argc; k++) args[k] = lanes[step->args[k]];
        fj_op_lanes_table[step->op][uniform->steps[typed].type](&lanes[i], &args[0], &args[1], &args[2], 1);
    }
    const fj_uniform_step *last = &uniform->steps[uniform->count - 1];
    *ret_value = last->type == FJ_TYPE_I32 ? lanes[uniform->count - 1].i : lanes[uniform->count - 1].l;
    return true;
}

/* ---- Checking -------------------------------------------------------------------------------------------------- */

static const char *operator_of(fj_require_kind kind) {
    static const char *const texts[] = {
        [FJ_REQUIRE_ADD] = "+",  [FJ_REQUIRE_SUB] = "-",  [FJ_REQUIRE_MUL] = "*",
        [FJ_REQUIRE_POW] = "**", [FJ_REQUIRE_SHL] = "<<",
    };
    return texts[kind];
}

/* A negative exponent truncates, as the op does. */
static bool power_fits(int64_t base, int64_t exponent) {
    int64_t result = 1;
    if (exponent <= 0 || base == 0 || base == 1 || base == -1) return true;
    if (exponent > 63) return false;
    while (exponent-- > 0) {
        if (__builtin_mul_overflow(result, base, &result)) return false;
    }
    return true;
}

static bool shift_fits(int64_t a, int64_t by) {
    int64_t result;
    if (by <= 0 || a == 0) return true;
    return by < 63 && !__builtin_mul_overflow(a, INT64_C(1) << by, &result);
}

static bool holds(fj_require_kind kind, int64_t a, int64_t b) {
    int64_t result;
    switch (kind) {
    case FJ_REQUIRE_EQUAL:
    case FJ_REQUIRE_DOT: return a == b;
    case FJ_REQUIRE_SOME: return a > 0;
    case FJ_REQUIRE_INT32: return a >= INT32_MIN && a <= INT32_MAX;
    case FJ_REQUIRE_ADD: return !__builtin_add_overflow(a, b, &result);
    case FJ_REQUIRE_SUB: return !__builtin_sub_overflow(a, b, &result);
    case FJ_REQUIRE_POW: return power_fits(a, b);
    case FJ_REQUIRE_SHL: return shift_fits(a, b);
    default: return !__builtin_mul_overflow(a, b, &result);
    }
}

static fj_status fail(const fj_requirement *r, int64_t a, int64_t b, fj_error *error) {
    const long long x = a, y = b;
    const char *of = *r->name != '\0' ? "run-time parameter " : "", *name = r->name;
    switch (r->kind) {
    case FJ_REQUIRE_EQUAL:
        return fj_expr_error(error, r->place, FJ_ERR_TENSOR,
                             "an extent of 1 is broadcast where it is known when the mod is made",
                             "the extents %lld and %lld of what is combined here differ", x, y);
    case FJ_REQUIRE_DOT:
        return fj_expr_error(
            error, r->place, FJ_ERR_TENSOR, "'(a * b).sum()' broadcasts an extent of 1",
            "the extents %lld and %lld of what is combined here differ: a dot product needs equal ones", x,
            y);
    case FJ_REQUIRE_SOME:
        return fj_expr_error(error, r->place, FJ_ERR_TENSOR, NULL,
                             "the greatest or least of no elements: the extent that is reduced here is %lld",
                             x);
    case FJ_REQUIRE_INT32:
        return fj_expr_error(error, r->place, FJ_ERR_TENSOR, "'.long()' makes the other operand an int64",
                             "%s%s%s%lld does not fit into an int32", of, name, *name != '\0' ? ": " : "", x);
    default:
        return fj_expr_error(error, r->place, FJ_ERR_TENSOR, NULL,
                             "%s%s%s%lld %s %lld does not fit into an int64", of, name,
                             *name != '\0' ? ": " : "", x, operator_of(r->kind), y);
    }
}

fj_status fj_requirements_check(const fj_requirements *requirements, const fj_ir *ir,
                                const fj_scalar *scalars, fj_extents dims, fj_error *error) {
    for (size_t i = 0; i < requirements->count; i++) {
        const fj_requirement *r = &requirements->items[i];
        int64_t a, b = 0;
        if (!fj_uniform_value(&r->a, ir, scalars, dims, &a)) continue;
        if (r->b.count > 0 && !fj_uniform_value(&r->b, ir, scalars, dims, &b)) continue;
        if (!holds(r->kind, a, b)) return fail(r, a, b, error);
    }
    return FJ_OK;
}
