/* Reductions of small tensors: sum, prod, max, min, any, all, argmax, dot. They stay loops. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

static const fj_lazy_tensor *reducible(fj_elab *e, fj_value value, fj_place place) {
    if (value.kind == FJ_VALUE_TENSOR && fj_tensor_rank(e, value.tensor, place) < 0) {
        fj_capture_hint_indices(e, fj_capture_resolve(e, value.tensor, place), 1);
    }
    value = fj_tensor_settle(e, value, place);
    if (value.kind == FJ_VALUE_TENSOR) return value.tensor;
    value = fj_operand(e, value, place, "a reduction");
    fj_capture_hint_rank(e, value);
    return fj_tensor_wrap(e, value, 0, place);
}

static fj_type result_type(fj_op op, fj_type type) {
    switch (op) {
    case FJ_OP_REDUCE_ANY:
    case FJ_OP_REDUCE_ALL: return FJ_TYPE_BOOL;
    case FJ_OP_ARGMAX:
    case FJ_OP_ARGMIN: return FJ_TYPE_I64;
    case FJ_OP_REDUCE_SUM:
    case FJ_OP_REDUCE_PROD: return type == FJ_TYPE_FLOAT ? type : FJ_TYPE_I64;
    default: return type;
    }
}

static void mark_axes(fj_elab *e, fj_lazy_tensor *result, fj_value axes, int rank, fj_place place) {
    if (axes.kind == FJ_VALUE_UNSET || axes.kind == FJ_VALUE_NONE ||
        (fj_value_is_sequence(axes) && axes.seq->len == 0)) {
        for (int i = 0; i < rank; i++) result->reduced[i] = true;
    } else if (fj_value_is_sequence(axes)) {
        for (size_t i = 0; i < axes.seq->len; i++) {
            const int axis = fj_tensor_axis(e, axes.seq->items[i], rank, place);
            if (result->reduced[axis]) fj_elab_fail(e, place, "dim %d is given twice", axis);
            result->reduced[axis] = true;
        }
    } else {
        result->reduced[fj_tensor_axis(e, axes, rank, place)] = true;
    }
}

static fj_lazy_tensor *create(fj_elab *e, fj_tensor_kind kind, fj_op op, const fj_lazy_tensor *base,
                              fj_value axes, bool keep, fj_place place) {
    const int rank = fj_tensor_rank(e, base, place);
    fj_lazy_tensor *result = fj_tensor_create(e, kind, base, place);
    result->op = op;
    result->keep = keep;
    mark_axes(e, result, axes, rank, place);
    for (int i = 0; i < rank; i++) {
        if (result->reduced[i] && !keep) continue;
        const bool kept = !result->reduced[i];
        result->dims[result->rank] = kept ? fj_tensor_dim(e, base, i, place) : fj_value_int(1);
        result->plain[result->rank++] = kept && (base->kind == FJ_TENSOR_CAPTURE || base->plain[i]);
    }
    return result;
}

static bool needs_elements(fj_op op) {
    return op == FJ_OP_REDUCE_MAX || op == FJ_OP_REDUCE_MIN || op == FJ_OP_ARGMAX || op == FJ_OP_ARGMIN;
}

/* There is no greatest and no least of nothing. */
static void require_elements(fj_elab *e, const fj_lazy_tensor *result, fj_place place) {
    const int rank = fj_tensor_rank(e, result->base, place);
    for (int i = 0; i < rank; i++) {
        if (!result->reduced[i]) continue;
        const fj_value dim = fj_tensor_dim(e, result->base, i, place);
        if (dim.kind != FJ_VALUE_INT || dim.i <= 0)
            fj_require(e, FJ_REQUIRE_SOME, fj_dim_ref(e, dim, place), 0, place);
    }
}

fj_value fj_tensor_reduce(fj_elab *e, fj_op op, fj_value value, fj_value axes, bool keep, fj_place place) {
    const fj_lazy_tensor *base = reducible(e, value, place);
    const fj_type type = fj_tensor_type(e, base, place);
    const bool needs = needs_elements(op);
    if (type == FJ_TYPE_BOOL && op == FJ_OP_REDUCE_MAX) op = FJ_OP_REDUCE_ANY;
    if (type == FJ_TYPE_BOOL && op == FJ_OP_REDUCE_MIN) op = FJ_OP_REDUCE_ALL;
    fj_lazy_tensor *result = create(e, FJ_TENSOR_REDUCE, op, base, axes, keep, place);
    result->type = result_type(op, type);
    if (needs) require_elements(e, result, place);
    int reduced = 0;
    for (int i = 0; i < FJ_MAX_RANK; i++) reduced += result->reduced[i];
    if ((op == FJ_OP_ARGMAX || op == FJ_OP_ARGMIN) && reduced > 1) {
        fj_elab_fail(e, place, "argmax and argmin need a dim in the mod language");
    }
    if (op == FJ_OP_ARGMAX || op == FJ_OP_ARGMIN) {
        if (reduced == 0 || fj_tensor_rank(e, base, place) == 0)
            return fj_scalar_value(e, fj_ir_i64(e->ir, 0), false);
    }
    return fj_tensor_settle(e, fj_value_tensor(result), place);
}

fj_value fj_tensor_pick(fj_elab *e, fj_op op, fj_value value, fj_value axis, bool keep, fj_place place) {
    static const char *const fields[] = {"values", "indices"};
    const fj_lazy_tensor *base = reducible(e, value, place);
    const int rank = fj_tensor_rank(e, base, place);
    fj_value parts[2];
    if (rank == 0) {
        (void)fj_tensor_axis(e, axis, 0, place);
        parts[0] = fj_tensor_settle(e, fj_value_tensor(base), place);
        parts[1] = fj_scalar_value(e, fj_ir_i64(e->ir, 0), false);
    } else {
        fj_lazy_tensor *values = create(e, FJ_TENSOR_PICK, op, base, axis, keep, place);
        values->type = fj_tensor_type(e, base, place);
        parts[0] = fj_tensor_settle(e, fj_value_tensor(values), place);
        parts[1] = fj_tensor_reduce(e, op, fj_value_tensor(base), axis, keep, place);
    }
    fj_sequence *seq = FJ_NEW(e->arena, fj_sequence);
    *seq = *fj_value_sequence(e->arena, FJ_VALUE_TUPLE, parts, 2).seq;
    seq->fields = fields;
    return (fj_value){.kind = FJ_VALUE_TUPLE, .seq = seq};
}

static const fj_lazy_tensor *vector(fj_elab *e, fj_value value, fj_place place) {
    if (fj_is_opaque(value)) fj_capture_fail_opaque(e, value, place);
    value = fj_tensor_settle(e, value, place);
    const int rank = value.kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, value.tensor, place) : 0;
    if (rank == 0) fj_capture_hint_rank(e, value);
    if (rank != 1) fj_elab_fail(e, place, "a dot product takes two vectors, not a tensor of rank %d", rank);
    return value.tensor;
}

fj_value fj_tensor_dot(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    const fj_lazy_tensor *x = vector(e, a, place), *y = vector(e, b, place);
    const fj_value dims[2] = {fj_tensor_dim(e, x, 0, place), fj_tensor_dim(e, y, 0, place)};
    const fj_ref lengths[2] = {fj_dim_ref(e, dims[0], place), fj_dim_ref(e, dims[1], place)};
    if (lengths[0] != lengths[1]) fj_require(e, FJ_REQUIRE_DOT, lengths[0], lengths[1], place);
    const fj_ref loop = fj_ir_loop(e->ir, lengths[dims[1].kind == FJ_VALUE_INT]);
    const fj_value left = fj_tensor_element(e, x, &loop, place),
                   right = fj_tensor_element(e, y, &loop, place);
    const fj_value product = fj_operate(e, FJ_OPERATOR_MUL, left, right, place);
    if (product.type == FJ_TYPE_BOOL) fj_elab_fail(e, place, "a dot product does not take bools");
    return fj_scalar_value(e, fj_ir_reduce(e->ir, FJ_OP_REDUCE_SUM, loop, product.ref), false);
}
