/* Small tensors: lazy, with a shape and a rule for their elements.
 *
 * requires: indices of elements are int nodes, one per axis; an axis is `plain` when any index in
 * [-n, n) may be given to it (it reaches the captured tensor as it is), else it must be in [0, n).
 */
#include "expr/lang/tensor.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"

enum { DEEPEST = 64 };

/* ---- Shapes --------------------------------------------------------------------------------------------- */

int fj_tensor_rank(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place) {
    return tensor->kind == FJ_TENSOR_CAPTURE ? fj_capture_resolve(e, tensor, place)->rank : tensor->rank;
}

fj_type fj_tensor_type(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place) {
    if (tensor->kind != FJ_TENSOR_CAPTURE) return tensor->type;
    return fj_ir_value_type(fj_capture_resolve(e, tensor, place)->dtype);
}

fj_value fj_tensor_dim(fj_elab *e, const fj_lazy_tensor *tensor, int axis, fj_place place) {
    if (tensor->kind != FJ_TENSOR_CAPTURE) return tensor->dims[axis];
    fj_captured *captured = fj_capture_resolve(e, tensor, place);
    if (captured->table->literal != NULL) return fj_value_int(captured->dims[axis]);
    const uint32_t index = fj_capture_register(e, captured, place);
    fj_value dim = fj_scalar_value(e, fj_ir_dim(e->ir, index, axis), true);
    if (captured->dims[axis] >= 0) {
        fj_value *known = FJ_NEW(e->arena, fj_value);
        *known = fj_value_int(captured->dims[axis]);
        dim.known = known;
    }
    return dim;
}

fj_lazy_tensor *fj_tensor_create(fj_elab *e, fj_tensor_kind kind, const fj_lazy_tensor *base,
                                 fj_place place) {
    fj_lazy_tensor *tensor = FJ_NEW(e->arena, fj_lazy_tensor);
    tensor->kind = kind;
    tensor->base = base;
    tensor->depth = base == NULL ? 1 : base->depth + 1;
    if (tensor->depth > DEEPEST)
        fj_elab_fail(e, place, "small tensors are nested more than %d deep", DEEPEST);
    return tensor;
}

/* ---- Elements --------------------------------------------------------------------------------------------- */

static fj_value capture_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices,
                                fj_place place) {
    fj_captured *captured = fj_capture_resolve(e, tensor, place);
    const uint32_t index = fj_capture_register(e, captured, place);
    return fj_scalar_value(e, fj_ir_load(e->ir, index, indices, captured->rank), false);
}

/* For an axis that is not plain: counts from the end, and leads outside to the outside of base. */
static fj_ref normalise(fj_elab *e, fj_ref index, fj_value dim, fj_place place) {
    const fj_value zero = fj_value_int(0), size = dim;
    const fj_value i = fj_convert(e, fj_scalar_value(e, index, false), FJ_TYPE_I64, place);
    const fj_value from_end = fj_operate(e, FJ_OPERATOR_ADD, i, size, place);
    const fj_value negative = fj_operate_compare(e, FJ_OPERATOR_LT, i, zero, place);
    const fj_value at =
        fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64, (fj_value[]){negative, from_end, i}, 3, place);
    const fj_value low = fj_operate_compare(e, FJ_OPERATOR_GE, at, zero, place);
    const fj_value high = fj_operate_compare(e, FJ_OPERATOR_LT, at, size, place);
    const fj_value inside = fj_operate_logical(e, true, low, high, place);
    const fj_value outside = fj_value_int(FJ_IR_OUTSIDE);
    return fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64, (fj_value[]){inside, at, outside}, 3, place).ref;
}

static fj_ref gathered_index(fj_elab *e, const fj_lazy_tensor *tensor, const fj_axis_source *source,
                             const fj_ref *indices, fj_place place) {
    const fj_lazy_tensor *gather = source->value.tensor;
    const int rank = fj_tensor_rank(e, gather, place);
    fj_ref inner[FJ_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        const int axis = source->axis - rank + i; /* axis: the end of the gathered axes */
        inner[i] = fj_dim_index(e, fj_tensor_dim(e, gather, i, place), tensor->dims[axis], indices[axis]);
    }
    const fj_value element = fj_tensor_element(e, gather, inner, place);
    return element.ref;
}

/* The index of base for one of a slice: start + step * index; outside stays outside, whatever the step. */
static fj_ref slice_index(fj_elab *e, const fj_axis_source *source, fj_ref index, fj_place place) {
    const bool guarded = fj_ir_at(e->ir, index)->op == FJ_OP_WHERE; /* else it counts a loop */
    const bool whole = source->step == 1 && source->value.kind == FJ_VALUE_INT && source->value.i == 0;
    if (whole) return index;
    const fj_value given = fj_convert(e, fj_scalar_value(e, index, false), FJ_TYPE_I64, place);
    fj_value at = given;
    if (source->step != 1) at = fj_operate(e, FJ_OPERATOR_MUL, at, fj_value_int(source->step), place);
    at = fj_operate(e, FJ_OPERATOR_ADD, at, source->value, place);
    if (!guarded) return at.ref;
    const fj_value out = fj_operate_compare(e, FJ_OPERATOR_LT, given, fj_value_int(0), place);
    return fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64, (fj_value[]){out, fj_value_int(FJ_IR_OUTSIDE), at}, 3,
                        place)
        .ref;
}

static fj_ref source_index(fj_elab *e, const fj_lazy_tensor *tensor, int axis, const fj_ref *indices,
                           fj_place place) {
    const fj_axis_source *source = &tensor->sources[axis];
    if (source->kind == FJ_AXIS_RANGE) {
        const fj_ref index = indices[source->axis];
        return tensor->plain[source->axis] ? index : slice_index(e, source, index, place);
    }
    const fj_ref index =
        source->kind == FJ_AXIS_FIXED ? source->value.ref : gathered_index(e, tensor, source, indices, place);
    const bool plain = tensor->base->kind == FJ_TENSOR_CAPTURE || tensor->base->plain[axis];
    return plain ? index : normalise(e, index, tensor->base->dims[axis], place);
}

/* Axes that lead nowhere (None, expanded ones) have bounds too: outside of one is outside of base. */
static fj_ref outside_free_axes(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices,
                                int base_rank, fj_ref first, fj_place place) {
    bool used[FJ_MAX_RANK] = {false};
    for (int i = 0; i < base_rank; i++) {
        const fj_axis_source *source = &tensor->sources[i];
        const int rank = source->kind == FJ_AXIS_GATHER ? fj_tensor_rank(e, source->value.tensor, place) : 0;
        if (source->kind == FJ_AXIS_RANGE) used[source->axis] = true;
        for (int k = 0; k < rank; k++) used[source->axis - 1 - k] = true;
    }
    for (int i = 0; i < tensor->rank; i++) {
        if (used[i] || fj_ir_at(e->ir, indices[i])->op != FJ_OP_WHERE) continue;
        const fj_value at = fj_convert(e, fj_scalar_value(e, indices[i], false), FJ_TYPE_I64, place);
        const fj_value out = fj_operate_compare(e, FJ_OPERATOR_LT, at, fj_value_int(0), place);
        const fj_value given = fj_convert(e, fj_scalar_value(e, first, false), FJ_TYPE_I64, place);
        const fj_value choice[3] = {out, fj_value_int(FJ_IR_OUTSIDE), given};
        first = fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64, choice, 3, place).ref;
    }
    return first;
}

static fj_value index_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices,
                              fj_place place) {
    fj_ref inner[FJ_MAX_RANK];
    const int rank = fj_tensor_rank(e, tensor->base, place);
    for (int i = 0; i < rank; i++) inner[i] = source_index(e, tensor, i, indices, place);
    if (rank > 0) inner[0] = outside_free_axes(e, tensor, indices, rank, inner[0], place);
    return fj_tensor_element(e, tensor->base, inner, place);
}

static fj_value map_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    fj_builtin_args call = tensor->call;
    call.args = FJ_NEW_ARRAY(e->arena, fj_value, call.count);
    for (int i = 0; i < call.count; i++) {
        const fj_value arg = tensor->call.args[i];
        call.args[i] = arg;
        if (arg.kind != FJ_VALUE_TENSOR) continue;
        const int rank = fj_tensor_rank(e, arg.tensor, place);
        fj_ref inner[FJ_MAX_RANK];
        for (int j = 0; j < rank; j++) {
            const int axis = tensor->rank - rank + j;
            inner[j] =
                fj_dim_index(e, fj_tensor_dim(e, arg.tensor, j, place), tensor->dims[axis], indices[axis]);
        }
        call.args[i] = fj_tensor_element(e, arg.tensor, inner, place);
    }
    return tensor->apply(e, &call);
}

/* The indices of base for those of a reduced tensor; reduced axes are filled by the caller. */
static void base_indices(const fj_lazy_tensor *tensor, int base_rank, const fj_ref *indices,
                         fj_ref *ret_inner) {
    for (int i = 0, at = 0; i < base_rank; i++) {
        if (!tensor->reduced[i]) ret_inner[i] = indices[at];
        if (!tensor->reduced[i] || tensor->keep) at++;
    }
}

static fj_value reduction_body(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *inner,
                               fj_place place) {
    const fj_value element = fj_tensor_element(e, tensor->base, inner, place);
    fj_type type = tensor->type;
    if (tensor->op == FJ_OP_ARGMAX || tensor->op == FJ_OP_ARGMIN)
        type = element.type == FJ_TYPE_BOOL ? FJ_TYPE_I32 : element.type;
    return fj_convert(e, element, type, place);
}

static bool is_max(fj_op op) { return op == FJ_OP_REDUCE_MAX || op == FJ_OP_REDUCE_MIN; }

/* Ties of max over several axes are split evenly over all of them, so one loop runs over all. */
static fj_value flat_reduction(fj_elab *e, const fj_lazy_tensor *tensor, fj_ref *inner, int rank,
                               fj_place place) {
    fj_value total = fj_value_int(1);
    for (int i = 0; i < rank; i++) {
        if (tensor->reduced[i])
            total = fj_operate(e, FJ_OPERATOR_MUL, total, fj_tensor_dim(e, tensor->base, i, place), place);
    }
    const fj_ref loop = fj_ir_loop(e->ir, fj_dim_ref(e, total, place));
    fj_value rest = fj_scalar_value(e, loop, false);
    for (int i = rank - 1; i >= 0; i--) {
        if (!tensor->reduced[i]) continue;
        const fj_value dim = fj_tensor_dim(e, tensor->base, i, place);
        inner[i] = fj_operate(e, FJ_OPERATOR_MOD, rest, dim, place).ref;
        rest = fj_operate(e, FJ_OPERATOR_FLOORDIV, rest, dim, place);
    }
    return fj_scalar_value(
        e, fj_ir_reduce(e->ir, tensor->op, loop, reduction_body(e, tensor, inner, place).ref), false);
}

static fj_value reduce_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices,
                               fj_place place) {
    const int rank = fj_tensor_rank(e, tensor->base, place);
    fj_ref inner[FJ_MAX_RANK], loops[FJ_MAX_RANK];
    int count = 0;
    base_indices(tensor, rank, indices, inner);
    for (int i = 0; i < rank; i++) count += tensor->reduced[i];
    if (count > 1 && is_max(tensor->op)) return flat_reduction(e, tensor, inner, rank, place);
    count = 0;
    for (int i = 0; i < rank; i++) {
        if (!tensor->reduced[i]) continue;
        const fj_ref extent = fj_dim_ref(e, fj_tensor_dim(e, tensor->base, i, place), place);
        inner[i] = loops[count++] = fj_ir_loop(e->ir, extent);
    }
    fj_ref value = reduction_body(e, tensor, inner, place).ref;
    while (count > 0) value = fj_ir_reduce(e->ir, tensor->op, loops[--count], value);
    return fj_scalar_value(e, value, false);
}

/* base at the argmax: its gradient goes there. */
static fj_value pick_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices,
                             fj_place place) {
    const int rank = fj_tensor_rank(e, tensor->base, place);
    const fj_ref at = reduce_element(e, tensor, indices, place).ref;
    fj_ref inner[FJ_MAX_RANK];
    base_indices(tensor, rank, indices, inner);
    for (int i = 0; i < rank; i++) {
        if (tensor->reduced[i]) inner[i] = at;
    }
    return fj_tensor_element(e, tensor->base, inner, place);
}

static fj_value as_scalar(fj_elab *e, fj_value value, fj_place place) {
    if (value.kind == FJ_VALUE_SCALAR) return value;
    return fj_scalar_value(e, fj_to_ref(e, value, fj_value_type(value), place), true);
}

fj_value fj_tensor_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    fj_elab_enter(e, place);
    fj_value value;
    switch (tensor->kind) {
    case FJ_TENSOR_CAPTURE: value = capture_element(e, tensor, indices, place); break;
    case FJ_TENSOR_INDEX: value = index_element(e, tensor, indices, place); break;
    case FJ_TENSOR_MAP: value = as_scalar(e, map_element(e, tensor, indices, place), place); break;
    case FJ_TENSOR_REDUCE: value = reduce_element(e, tensor, indices, place); break;
    case FJ_TENSOR_RESHAPE: value = fj_reshape_element(e, tensor, indices, place); break;
    case FJ_TENSOR_STACK: value = fj_stack_element(e, tensor, indices, place); break;
    default: value = pick_element(e, tensor, indices, place); break;
    }
    fj_elab_leave(e);
    return value;
}

/* ---- Maps ---------------------------------------------------------------------------------------------------- */

static const fj_ref no_indices[1]; /* of a tensor of rank 0 */

fj_value fj_tensor_settle(fj_elab *e, fj_value value, fj_place place) {
    if (value.kind != FJ_VALUE_TENSOR) return value;
    const int rank = fj_tensor_rank(e, value.tensor, place);
    if (rank > 0) return value;
    if (rank < 0) {
        fj_captured *captured = fj_capture_resolve(e, value.tensor, place);
        if (captured->table->free) {
            fj_elab_fail(e, captured->table->place, "unknown name '%.*s'", (int)captured->name.len,
                         captured->name.data);
        }
        captured->rank = 0;
    }
    return fj_tensor_element(e, value.tensor, no_indices, place);
}

bool fj_value_has_tensor(const fj_value *values, int count) {
    for (int i = 0; i < count; i++) {
        if (values[i].kind == FJ_VALUE_TENSOR) return true;
    }
    return false;
}

static void broadcast(fj_elab *e, fj_lazy_tensor *map, const fj_lazy_tensor *arg, fj_place place) {
    const int rank = fj_tensor_rank(e, arg, place);
    if (arg->depth >= map->depth) map->depth = arg->depth + 1;
    if (map->depth > DEEPEST) fj_elab_fail(e, place, "small tensors are nested more than %d deep", DEEPEST);
    for (int i = 0; i < rank; i++) {
        const int axis = map->rank - rank + i;
        const fj_value dim = fj_tensor_dim(e, arg, i, place);
        if (!fj_dim_is_one(dim) && arg->kind != FJ_TENSOR_CAPTURE && !arg->plain[i]) map->plain[axis] = false;
        map->dims[axis] = fj_dim_join(e, map->dims[axis], dim, place);
    }
}

/* Each extent is 1 or that of the result, once all of them have joined. */
static void require_extents(fj_elab *e, const fj_lazy_tensor *map, const fj_lazy_tensor *arg,
                            fj_place place) {
    const int rank = fj_tensor_rank(e, arg, place);
    for (int i = 0; i < rank; i++)
        fj_require_extent(e, fj_tensor_dim(e, arg, i, place), map->dims[map->rank - rank + i], place);
}

/* The type of the elements: the function, applied to constants of the arguments' types. */
static void infer_type(fj_elab *e, fj_lazy_tensor *map) {
    fj_builtin_args call = map->call;
    call.args = FJ_NEW_ARRAY(e->arena, fj_value, call.count);
    for (int i = 0; i < call.count; i++) {
        const fj_value arg = map->call.args[i];
        call.args[i] = arg;
        if (arg.kind != FJ_VALUE_TENSOR) continue;
        const fj_type type = fj_tensor_type(e, arg.tensor, call.place);
        const bool weak = arg.tensor->kind != FJ_TENSOR_CAPTURE && arg.tensor->weak;
        const fj_ref zero =
            fj_to_ref(e, type == FJ_TYPE_FLOAT ? fj_value_float(0.0) : fj_value_int(0), type, call.place);
        call.args[i] = fj_scalar_value(e, zero, weak);
    }
    const fj_value value = as_scalar(e, map->apply(e, &call), call.place);
    map->type = value.type;
    map->weak = value.weak;
}

fj_value fj_tensor_map(fj_elab *e, fj_apply apply, const fj_builtin_args *call) {
    fj_builtin_args settled = *call;
    settled.args = FJ_NEW_ARRAY(e->arena, fj_value, call->count);
    for (int i = 0; i < call->count; i++) settled.args[i] = fj_tensor_settle(e, call->args[i], call->place);
    if (!fj_value_has_tensor(settled.args, call->count)) return apply(e, &settled);
    fj_lazy_tensor *map = fj_tensor_create(e, FJ_TENSOR_MAP, NULL, call->place);
    map->apply = apply;
    map->call = settled;
    for (int i = 0; i < call->count; i++) {
        const fj_value arg = settled.args[i];
        const int rank = arg.kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, arg.tensor, call->place) : 0;
        if (rank > map->rank) map->rank = rank;
    }
    for (int i = 0; i < FJ_MAX_RANK; i++) {
        map->dims[i] = fj_value_int(1);
        map->plain[i] = true;
    }
    for (int i = 0; i < call->count; i++) {
        if (settled.args[i].kind == FJ_VALUE_TENSOR) broadcast(e, map, settled.args[i].tensor, call->place);
    }
    for (int i = 0; i < call->count; i++) {
        if (settled.args[i].kind == FJ_VALUE_TENSOR)
            require_extents(e, map, settled.args[i].tensor, call->place);
    }
    for (int i = 0; i < map->rank; i++) map->plain[i] &= !fj_dim_is_one(map->dims[i]);
    infer_type(e, map);
    return fj_value_tensor(map);
}

static fj_value same(fj_elab *e, const fj_builtin_args *call) {
    (void)e;
    return call->args[0];
}

const fj_lazy_tensor *fj_tensor_wrap(fj_elab *e, fj_value value, int rank, fj_place place) {
    fj_lazy_tensor *tensor = fj_tensor_create(e, FJ_TENSOR_MAP, NULL, place);
    tensor->apply = same;
    tensor->call =
        (fj_builtin_args){.args = FJ_NEW(e->arena, fj_value), .count = 1, .name = "a value", .place = place};
    tensor->call.args[0] = value;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++) tensor->dims[i] = fj_value_int(1);
    tensor->type = fj_value_type(value);
    tensor->weak = value.kind != FJ_VALUE_SCALAR || value.weak;
    return tensor;
}
