/* Searching small tables: bucketize, searchsorted, isin. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* With this many axes of one element behind its own. */
static fj_value with_axes(fj_elab *e, fj_value value, int axes, fj_place place) {
    if (value.kind != FJ_VALUE_TENSOR) return value;
    for (int i = 0; i < axes; i++) value = fj_tensor_unsqueeze(e, value, fj_value_int(-1), place);
    return value;
}

static fj_value last_axes(fj_elab *e, int count) {
    fj_value axes[FJ_MAX_RANK];
    for (int i = 0; i < count; i++) axes[i] = fj_value_int(-1 - i);
    return fj_value_sequence(e->arena, FJ_VALUE_TUPLE, axes, (size_t)count);
}

/* The rank of a table that is searched; one that is not known is 1. */
static int searched_rank(fj_elab *e, const fj_builtin_args *call, fj_value *table) {
    if (table->kind == FJ_VALUE_TENSOR && fj_tensor_rank(e, table->tensor, call->place) < 0)
        fj_capture_hint_indices(e, fj_capture_resolve(e, table->tensor, call->place), 1);
    *table = fj_tensor_settle(e, *table, call->place);
    return table->kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, table->tensor, call->place) : 0;
}

static bool is_right(fj_elab *e, const fj_builtin_args *call) {
    const fj_value side = call->count > 4 ? call->args[4] : FJ_UNSET;
    if (fj_is_given(side)) {
        const bool right = side.kind == FJ_VALUE_STR && fj_str_is(side.str, "right");
        if (!right && !(side.kind == FJ_VALUE_STR && fj_str_is(side.str, "left")))
            fj_elab_fail(e, call->place, "side is 'left' or 'right'");
        return right;
    }
    return fj_is_given(call->args[3]) && fj_elab_truth(e, call->args[3], call->place, "right");
}

/* How many of the sorted boundaries are below the input (with right: not above it). NaN is behind all. */
fj_value fj_build_bucketize(fj_elab *e, const fj_builtin_args *call) {
    fj_value table = call->args[call->data != 0 ? 0 : 1], input = call->args[call->data != 0 ? 1 : 0];
    if (call->count > 5 && fj_is_given(call->args[5]))
        fj_elab_fail(e, call->place, "'sorter' is not in the mod language: sort the boundaries");
    const int rank = searched_rank(e, call, &table);
    if (rank != 1)
        fj_elab_fail(e, call->place, "%s() searches boundaries of rank 1 in the mod language, not of rank %d",
                     call->name, rank);
    input = with_axes(e, fj_tensor_settle(e, input, call->place), 1, call->place);
    const fj_operator op = is_right(e, call) ? FJ_OPERATOR_GT : FJ_OPERATOR_GE;
    const fj_value beyond = fj_operate_compare(e, op, table, input, call->place);
    const fj_value before = fj_operate_not(e, beyond, call->place);
    const fj_value count =
        fj_tensor_reduce(e, FJ_OP_REDUCE_SUM, before, fj_value_int(-1), false, call->place);
    const bool narrow =
        fj_is_given(call->args[2]) && fj_elab_truth(e, call->args[2], call->place, "out_int32");
    if (!narrow) return count;
    fj_value self = count;
    const fj_builtin_args to = {
        .args = &self, .count = 1, .data = FJ_TYPE_I32, .name = call->name, .place = call->place};
    return fj_tensor_map(e, fj_build_cast, &to);
}

fj_value fj_build_isin(fj_elab *e, const fj_builtin_args *call) {
    fj_value table = call->args[1], input = fj_tensor_settle(e, call->args[0], call->place);
    const int rank = searched_rank(e, call, &table);
    const fj_value same =
        fj_operate_compare(e, FJ_OPERATOR_EQ, with_axes(e, input, rank, call->place), table, call->place);
    const fj_value found =
        rank == 0 ? same
                  : fj_tensor_reduce(e, FJ_OP_REDUCE_ANY, same, last_axes(e, rank), false, call->place);
    const bool inverted =
        fj_is_given(call->args[3]) && fj_elab_truth(e, call->args[3], call->place, "invert");
    if (!inverted) return found;
    return found.kind == FJ_VALUE_BOOL ? fj_value_bool(!found.b) : fj_operate_not(e, found, call->place);
}
