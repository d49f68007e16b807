/* Tensors that are others seen in another shape: expand, permute, reshape; stack and cat.
 *
 * requires: as tensor.c; an index that is marked as outside stays outside of what it leads to.
 */
#include <string.h>

#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Sizes ----------------------------------------------------------------------------------------------- */

typedef struct sizes {
    fj_value dims[FJ_MAX_RANK];
    int count;
} sizes;

/* x.reshape(2, 3), x.reshape((2, 3)), torch.reshape(x, shape=(2, 3)): what stands behind the tensor. */
static sizes read_sizes(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    sizes s = {.count = 0};
    const fj_value *values = given->values + 1;
    size_t count = given->count > 0 ? given->count - 1 : 0;
    if (given->count == 0) fj_elab_fail(e, call->place, "%s() needs a tensor", call->name);
    if (count == 0 && given->keyword_count == 1) values = given->keywords, count = 1;
    if (count == 1 && fj_value_is_sequence(values[0]))
        count = values[0].seq->len, values = values[0].seq->items;
    if (count > FJ_MAX_RANK) fj_elab_fail(e, call->place, "a tensor has at most %d dimensions", FJ_MAX_RANK);
    for (size_t i = 0; i < count; i++) {
        const fj_value size = fj_operand(e, values[i], call->place, "a size");
        const fj_type type = fj_value_type(size);
        if (type != FJ_TYPE_I32 && type != FJ_TYPE_I64)
            fj_elab_fail(e, call->place, "%s() needs ints, not %s", call->name, fj_value_describe(size));
        if (size.kind == FJ_VALUE_SCALAR && !fj_is_uniform(e, size.ref))
            fj_elab_fail(e, call->place, "a size cannot depend on a position");
        s.dims[s.count++] = size;
    }
    return s;
}

static bool is_minus_one(fj_value v) { return v.kind == FJ_VALUE_INT && v.i == -1; }
static bool same_dim(fj_value a, fj_value b) {
    if (a.kind == FJ_VALUE_INT && b.kind == FJ_VALUE_INT) return a.i == b.i;
    return a.kind == FJ_VALUE_SCALAR && b.kind == FJ_VALUE_SCALAR && a.ref == b.ref;
}

static const fj_lazy_tensor *tensor_of(fj_elab *e, const fj_builtin_args *call, fj_value value) {
    value = fj_tensor_settle(e, value, call->place);
    if (value.kind == FJ_VALUE_TENSOR) return value.tensor;
    return fj_tensor_wrap(e, fj_operand(e, value, call->place, call->name), 0, call->place);
}

/* Both extents are the same, at the latest at a launch. */
static void require_same(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    int64_t x, y;
    if (fj_known_dim(a, &x) && fj_known_dim(b, &y) && x != y)
        fj_elab_fail(e, place, "dimensions of %lld and %lld do not fit together", (long long)x, (long long)y);
    const fj_ref p = fj_dim_ref(e, a, place), q = fj_dim_ref(e, b, place);
    if (p != q) fj_require(e, FJ_REQUIRE_EQUAL, p, q, place);
}

/* ---- expand, permute ---------------------------------------------------------------------------------------- */

static bool base_plain(const fj_lazy_tensor *base, int axis) {
    return base->kind == FJ_TENSOR_CAPTURE || base->plain[axis];
}

static void expand_axis(fj_elab *e, fj_lazy_tensor *result, int from, int to, fj_value size, fj_place place) {
    const fj_value dim = fj_tensor_dim(e, result->base, from, place);
    int64_t known = 0, wanted = 0;
    const bool one = fj_known_dim(dim, &known) && known == 1;
    result->sources[from] = (fj_axis_source){FJ_AXIS_RANGE, fj_value_int(0), to, 1};
    result->dims[to] = dim;
    result->plain[to] = base_plain(result->base, from);
    if (is_minus_one(size) || (one && fj_known_dim(size, &wanted) && wanted == 1)) return;
    if (!one) {
        require_same(e, dim, size, place);
        return;
    }
    if (dim.kind == FJ_VALUE_SCALAR) fj_capture_specialise(e, dim.ref);
    result->sources[from].step = 0; /* always the first element */
    result->dims[to] = size;
    result->plain[to] = false;
}

fj_value fj_build_expand(fj_elab *e, const fj_builtin_args *call) {
    const sizes s = read_sizes(e, call);
    const fj_lazy_tensor *base = tensor_of(e, call, call->arguments->values[0]);
    const int rank = fj_tensor_rank(e, base, call->place), lead = s.count - rank;
    if (lead < 0)
        fj_elab_fail(e, call->place, "%s() gets %d sizes for a tensor of rank %d", call->name, s.count, rank);
    fj_lazy_tensor *result = fj_tensor_create(e, FJ_TENSOR_INDEX, base, call->place);
    result->rank = s.count;
    result->type = fj_tensor_type(e, base, call->place);
    for (int i = 0; i < lead; i++) {
        if (is_minus_one(s.dims[i])) fj_elab_fail(e, call->place, "-1 stands for no new dimension");
        result->dims[i] = s.dims[i];
    }
    for (int i = 0; i < rank; i++) expand_axis(e, result, i, lead + i, s.dims[lead + i], call->place);
    return fj_tensor_settle(e, fj_value_tensor(result), call->place);
}

fj_value fj_build_permute(fj_elab *e, const fj_builtin_args *call) {
    const sizes s = read_sizes(e, call);
    const fj_lazy_tensor *base = tensor_of(e, call, call->arguments->values[0]);
    const int rank = fj_tensor_rank(e, base, call->place);
    fj_lazy_tensor *result = fj_tensor_create(e, FJ_TENSOR_INDEX, base, call->place);
    bool seen[FJ_MAX_RANK] = {false};
    if (s.count != rank) fj_elab_fail(e, call->place, "permute() gets %d of %d dimensions", s.count, rank);
    result->rank = rank;
    result->type = fj_tensor_type(e, base, call->place);
    for (int to = 0; to < rank; to++) {
        const int from = fj_tensor_axis(e, s.dims[to], rank, call->place);
        if (seen[from]) fj_elab_fail(e, call->place, "dim %d is given twice", from);
        seen[from] = true;
        result->sources[from] = (fj_axis_source){FJ_AXIS_RANGE, fj_value_int(0), to, 1};
        result->dims[to] = fj_tensor_dim(e, base, from, call->place);
        result->plain[to] = base_plain(base, from);
    }
    return fj_tensor_settle(e, fj_value_tensor(result), call->place);
}

/* ---- reshape -------------------------------------------------------------------------------------------------- */

static fj_value product(fj_elab *e, const fj_value *dims, int count, int but, fj_place place) {
    fj_value total = fj_value_int(1);
    for (int i = 0; i < count; i++) {
        if (i != but) total = fj_operate(e, FJ_OPERATOR_MUL, total, dims[i], place);
    }
    return total;
}

static fj_value reshape(fj_elab *e, const fj_lazy_tensor *base, sizes s, fj_place place) {
    const int rank = fj_tensor_rank(e, base, place);
    fj_value from[FJ_MAX_RANK];
    int open = -1;
    for (int i = 0; i < rank; i++) from[i] = fj_tensor_dim(e, base, i, place);
    for (int i = 0; i < s.count; i++) {
        if (!is_minus_one(s.dims[i])) continue;
        if (open >= 0) fj_elab_fail(e, place, "-1 stands for one dimension only");
        open = i;
    }
    const fj_value total = product(e, from, rank, -1, place), rest = product(e, s.dims, s.count, open, place);
    if (open >= 0) {
        int64_t known;
        if (fj_known_dim(rest, &known) && known == 0)
            fj_elab_fail(e, place, "-1 beside a dimension of 0 could be anything");
        s.dims[open] = fj_operate(e, FJ_OPERATOR_FLOORDIV, total, rest, place);
    }
    require_same(e, product(e, s.dims, s.count, -1, place), total, place);
    fj_lazy_tensor *result = fj_tensor_create(e, FJ_TENSOR_RESHAPE, base, place);
    result->rank = s.count;
    result->type = fj_tensor_type(e, base, place);
    memcpy(result->dims, s.dims, sizeof result->dims);
    return fj_tensor_settle(e, fj_value_tensor(result), place);
}

fj_value fj_build_reshape(fj_elab *e, const fj_builtin_args *call) {
    const sizes s = read_sizes(e, call);
    return reshape(e, tensor_of(e, call, call->arguments->values[0]), s, call->place);
}

fj_value fj_build_flatten(fj_elab *e, const fj_builtin_args *call) {
    const fj_lazy_tensor *base = tensor_of(e, call, call->args[0]);
    const int rank = fj_tensor_rank(e, base, call->place);
    const bool given = call->count > 1;
    const fj_value first = given && fj_is_given(call->args[1]) ? call->args[1] : fj_value_int(0);
    const fj_value last = given && fj_is_given(call->args[2]) ? call->args[2] : fj_value_int(-1);
    const int start = fj_tensor_axis(e, first, rank, call->place),
              end = fj_tensor_axis(e, last, rank, call->place);
    sizes s = {.count = 0};
    if (start > end) fj_elab_fail(e, call->place, "flatten() ends before it starts");
    for (int i = 0; i < start; i++) s.dims[s.count++] = fj_tensor_dim(e, base, i, call->place);
    fj_value joined = fj_value_int(1);
    for (int i = start; i <= end && i < rank; i++)
        joined = fj_operate(e, FJ_OPERATOR_MUL, joined, fj_tensor_dim(e, base, i, call->place), call->place);
    s.dims[s.count++] = joined;
    for (int i = end + 1; i < rank; i++) s.dims[s.count++] = fj_tensor_dim(e, base, i, call->place);
    return reshape(e, base, s, call->place);
}

static fj_value wide(fj_elab *e, fj_ref index, fj_place place) {
    return fj_convert(e, fj_scalar_value(e, index, false), FJ_TYPE_I64, place);
}

/* Row-major: leading and trailing dimensions that are the same keep their index, what is between them is
 * counted through. */
fj_value fj_reshape_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    const int to = tensor->rank, from = fj_tensor_rank(e, tensor->base, place);
    fj_value dims[FJ_MAX_RANK] = {{0}};
    fj_ref inner[FJ_MAX_RANK];
    int lead = 0, tail = 0;
    for (int i = 0; i < from; i++) dims[i] = fj_tensor_dim(e, tensor->base, i, place);
    while (lead < to && lead < from && same_dim(tensor->dims[lead], dims[lead])) lead++;
    while (tail < to - lead && tail < from - lead &&
           same_dim(tensor->dims[to - 1 - tail], dims[from - 1 - tail]))
        tail++;
    for (int i = 0; i < lead; i++) inner[i] = indices[i];
    for (int i = 0; i < tail; i++) inner[from - 1 - i] = indices[to - 1 - i];
    fj_value flat = fj_value_int(0), outside = fj_value_bool(false);
    for (int i = lead; i < to - tail; i++) {
        const fj_value at = wide(e, indices[i], place);
        if (i > lead) flat = fj_operate(e, FJ_OPERATOR_MUL, flat, tensor->dims[i], place);
        flat = i > lead ? fj_operate(e, FJ_OPERATOR_ADD, flat, at, place) : at;
        if (fj_ir_at(e->ir, indices[i])->op != FJ_OP_WHERE) continue;
        const fj_value out = fj_operate_compare(e, FJ_OPERATOR_LT, at, fj_value_int(0), place);
        outside = outside.kind == FJ_VALUE_BOOL ? out : fj_operate_logical(e, false, outside, out, place);
    }
    for (int i = from - tail - 1; i >= lead; i--) {
        fj_value at = i > lead ? fj_operate(e, FJ_OPERATOR_MOD, flat, dims[i], place) : flat;
        if (i > lead) flat = fj_operate(e, FJ_OPERATOR_FLOORDIV, flat, dims[i], place);
        if (outside.kind != FJ_VALUE_BOOL)
            at = fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64,
                              (fj_value[]){outside, fj_value_int(FJ_IR_OUTSIDE), at}, 3, place);
        inner[i] = fj_to_ref(e, at, FJ_TYPE_I64, place);
    }
    return fj_tensor_element(e, tensor->base, inner, place);
}

/* ---- stack, cat ------------------------------------------------------------------------------------------------- */

static fj_type part_type(fj_elab *e, fj_value part, fj_place place) {
    return part.kind == FJ_VALUE_TENSOR ? fj_tensor_type(e, part.tensor, place) : fj_value_type(part);
}

static int part_rank(fj_elab *e, fj_value part, fj_place place) {
    return part.kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, part.tensor, place) : 0;
}

/* Dimensions of the result: those of the parts, with one more (stack) or a longer one (cat). */
static void join_dims(fj_elab *e, const fj_builtin_args *call, fj_lazy_tensor *result, int rank) {
    const bool cat = call->data != 0;
    fj_value length = fj_value_int(cat ? 0 : result->part_count);
    for (int k = 0; k < result->part_count; k++) {
        const fj_value part = result->parts[k];
        if (part_rank(e, part, call->place) != rank)
            fj_elab_fail(e, call->place, "%s() takes tensors of one rank", call->name);
        for (int i = 0; i < rank; i++) {
            const fj_value dim = fj_tensor_dim(e, part.tensor, i, call->place);
            const int to = !cat && i >= result->axis ? i + 1 : i;
            if (cat && i == result->axis)
                length = fj_operate(e, FJ_OPERATOR_ADD, length, dim, call->place);
            else if (k == 0)
                result->dims[to] = dim;
            else
                require_same(e, dim, result->dims[to], call->place);
        }
    }
    result->dims[result->axis] = length;
}

fj_value fj_build_stack(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence parts = fj_elab_iterate(e, call->args[0], call->place);
    const bool cat = call->data != 0;
    if (parts.len == 0 || parts.len > 64)
        fj_elab_fail(e, call->place, "%s() takes 1 to 64 tensors, not %zu", call->name, parts.len);
    fj_value *settled = FJ_NEW_ARRAY(e->arena, fj_value, parts.len);
    fj_lazy_tensor *result = fj_tensor_create(e, FJ_TENSOR_STACK, NULL, call->place);
    result->type = FJ_TYPE_BOOL;
    for (size_t i = 0; i < parts.len; i++) {
        settled[i] = fj_tensor_settle(e, parts.items[i], call->place);
        if (settled[i].kind != FJ_VALUE_TENSOR)
            settled[i] = fj_operand(e, settled[i], call->place, call->name);
        const fj_type type = part_type(e, settled[i], call->place);
        if (type > result->type) result->type = type;
        if (settled[i].kind == FJ_VALUE_TENSOR && settled[i].tensor->depth >= result->depth)
            result->depth = settled[i].tensor->depth + 1;
    }
    const int rank = part_rank(e, settled[0], call->place);
    if (cat && rank == 0) fj_elab_fail(e, call->place, "%s() takes tensors of rank 1 or more", call->name);
    if (rank + !cat > FJ_MAX_RANK)
        fj_elab_fail(e, call->place, "a tensor has at most %d dimensions", FJ_MAX_RANK);
    result->parts = settled;
    result->part_count = (int)parts.len;
    result->joined = cat;
    result->rank = rank + !cat;
    result->axis =
        fj_is_given(call->args[1]) ? fj_tensor_axis(e, call->args[1], result->rank, call->place) : 0;
    join_dims(e, call, result, rank);
    return fj_value_tensor(result);
}

static fj_value part_element(fj_elab *e, const fj_lazy_tensor *tensor, int k, const fj_ref *inner,
                             fj_place place) {
    const fj_value part = tensor->parts[k];
    const fj_value element =
        part.kind == FJ_VALUE_TENSOR ? fj_tensor_element(e, part.tensor, inner, place) : part;
    const fj_ref ref = fj_to_ref(e, element, fj_value_type(element), place);
    return fj_scalar_value(e, fj_ir_cast(e->ir, ref, tensor->type), false);
}

static fj_value pick(fj_elab *e, fj_type type, fj_value condition, fj_value a, fj_value b, fj_place place) {
    if (condition.kind == FJ_VALUE_BOOL) return condition.b ? a : b;
    return fj_pointwise(e, FJ_OP_WHERE, type, (fj_value[]){condition, a, b}, 3, place);
}

/* An index that a mod computes is read from a table of 0, 1, ..., so that one outside of it is a bad read. */
static fj_value checked_index(fj_elab *e, fj_ref index, int count, fj_place place) {
    if (fj_ir_at(e->ir, index)->op != FJ_OP_WHERE) return wide(e, index, place);
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, count);
    for (int i = 0; i < count; i++) items[i] = fj_value_int(i);
    const fj_value list = fj_value_sequence(e->arena, FJ_VALUE_LIST, items, (size_t)count);
    const fj_value table = fj_capture_literal(e, list, fj_value_dtype(FJ_DTYPE_I32), place);
    return fj_tensor_element(e, table.tensor, &index, place);
}

/* A choice along the axis. */
static fj_value stacked(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    fj_ref inner[FJ_MAX_RANK];
    for (int i = 0, at = 0; i < tensor->rank; i++) {
        if (i != tensor->axis) inner[at++] = indices[i];
    }
    const fj_node *node = fj_ir_at(e->ir, indices[tensor->axis]);
    const bool constant = fj_op_is_const((fj_op)node->op);
    if (constant && node->imm.i >= 0 && node->imm.i < tensor->part_count)
        return part_element(e, tensor, (int)node->imm.i, inner, place);
    const fj_value index = checked_index(e, indices[tensor->axis], tensor->part_count, place);
    fj_value value = part_element(e, tensor, tensor->part_count - 1, inner, place);
    for (int k = tensor->part_count - 2; k >= 0; k--) {
        const fj_value here = fj_operate_compare(e, FJ_OPERATOR_EQ, index, fj_value_int(k), place);
        value = pick(e, tensor->type, here, part_element(e, tensor, k, inner, place), value, place);
    }
    return value;
}

static fj_value joined(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    fj_value ends[64] = {{0}}, value = FJ_NONE, start = fj_value_int(0);
    fj_ref inner[FJ_MAX_RANK];
    const fj_value index = wide(e, indices[tensor->axis], place);
    memcpy(inner, indices, sizeof(fj_ref) * (size_t)tensor->rank);
    for (int k = 0; k < tensor->part_count; k++) {
        const fj_value dim = fj_tensor_dim(e, tensor->parts[k].tensor, tensor->axis, place);
        ends[k] = start = fj_operate(e, FJ_OPERATOR_ADD, start, dim, place);
    }
    for (int k = tensor->part_count - 1; k >= 0; k--) {
        fj_value at = k == 0 ? index : fj_operate(e, FJ_OPERATOR_SUB, index, ends[k - 1], place);
        inner[tensor->axis] = fj_to_ref(e, at, FJ_TYPE_I64, place);
        const fj_value element = part_element(e, tensor, k, inner, place);
        const fj_value here = fj_operate_compare(e, FJ_OPERATOR_LT, index, ends[k], place);
        value = value.kind == FJ_VALUE_NONE ? element : pick(e, tensor->type, here, element, value, place);
    }
    return value;
}

fj_value fj_stack_element(fj_elab *e, const fj_lazy_tensor *tensor, const fj_ref *indices, fj_place place) {
    return tensor->joined ? joined(e, tensor, indices, place) : stacked(e, tensor, indices, place);
}
