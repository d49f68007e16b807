/* x[i, ..., a:b, None]: reading a tensor, wholly or in part; and what only moves axes. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- The items of an index ------------------------------------------------------------------------------ */

typedef struct indexing {
    const fj_lazy_tensor *base;
    fj_lazy_tensor *result;
    int axis; /* of base: the next */
    int base_rank;
    int gather_rank;               /* axes that tensors of indices make; 0: none */
    int gather_at;                 /* the axis of the result where they stand */
    int gather_first, gather_last; /* items */
    fj_value gather_dims[FJ_MAX_RANK];
    fj_place place;
} indexing;

static bool is_full(fj_value item) {
    if (item.kind != FJ_VALUE_SLICE) return false;
    for (int i = 0; i < 3; i++) {
        if (item.seq->items[i].kind != FJ_VALUE_NONE) return false;
    }
    return true;
}

static void add_axis(fj_elab *e, indexing *ix, fj_value dim, bool plain) {
    if (ix->result->rank >= FJ_MAX_RANK)
        fj_elab_fail(e, ix->place, "a tensor has at most %d dimensions", FJ_MAX_RANK);
    ix->result->dims[ix->result->rank] = dim;
    ix->result->plain[ix->result->rank++] = plain;
}

static bool base_is_plain(const indexing *ix) {
    return ix->base->kind == FJ_TENSOR_CAPTURE || ix->base->plain[ix->axis];
}

static void add_full(fj_elab *e, indexing *ix) {
    const bool plain = base_is_plain(ix);
    ix->result->sources[ix->axis] = (fj_axis_source){FJ_AXIS_RANGE, fj_value_int(0), ix->result->rank, 1};
    add_axis(e, ix, fj_tensor_dim(e, ix->base, ix->axis, ix->place), plain);
    ix->axis++;
}

/* A bound of a slice within [0, dim]; counts from the end where it is negative. */
static fj_value slice_bound(fj_elab *e, const indexing *ix, fj_value bound, fj_value dim) {
    const fj_place place = ix->place;
    const fj_value zero = fj_value_int(0);
    bound = fj_operand(e, bound, place, "a slice");
    const fj_type type = fj_value_type(bound);
    if (type == FJ_TYPE_FLOAT || type == FJ_TYPE_BOOL)
        fj_elab_fail(e, place, "a slice needs ints, not %s", fj_value_describe(bound));
    if (bound.kind == FJ_VALUE_SCALAR && !fj_is_uniform(e, bound.ref)) {
        fj_elab_fail(e, place, "a slice cannot depend on a position: the number of elements would differ");
    }
    if (bound.kind == FJ_VALUE_INT) {
        if (bound.i >= 0) return bound.i == 0 ? bound : fj_dim_min(e, bound, dim, place);
        return fj_dim_max(e, fj_operate(e, FJ_OPERATOR_ADD, dim, bound, place), zero, place);
    }
    const fj_value wide = bound;
    const fj_value negative = fj_operate_compare(e, FJ_OPERATOR_LT, wide, zero, place);
    const fj_value from_end = fj_operate(e, FJ_OPERATOR_ADD, wide, dim, place);
    fj_value at = fj_pointwise(e, FJ_OP_WHERE, FJ_TYPE_I64, (fj_value[]){negative, from_end, wide}, 3, place);
    if (wide.known != NULL && dim.kind == FJ_VALUE_SCALAR && dim.known != NULL) {
        fj_value *known = FJ_NEW(e->arena, fj_value);
        *known = wide.known->i < 0 ? fj_value_int(wide.known->i + dim.known->i) : *wide.known;
        at.known = known;
    }
    return fj_dim_max(e, fj_dim_min(e, at, dim, place), zero, place);
}

static void add_slice(fj_elab *e, indexing *ix, fj_value item) {
    const fj_value *parts = item.seq->items;
    const fj_place place = ix->place;
    if (is_full(item)) {
        add_full(e, ix);
        return;
    }
    const fj_value dim = fj_tensor_dim(e, ix->base, ix->axis, place);
    const fj_value start =
        parts[0].kind == FJ_VALUE_NONE ? fj_value_int(0) : slice_bound(e, ix, parts[0], dim);
    const fj_value stop = parts[1].kind == FJ_VALUE_NONE ? dim : slice_bound(e, ix, parts[1], dim);
    const int64_t step =
        parts[2].kind == FJ_VALUE_NONE ? 1 : fj_elab_int(e, parts[2], place, "the step of a slice");
    if (step < 1)
        fj_elab_fail(e, place, "the step of a slice of a tensor is %lld: it must be positive",
                     (long long)step);
    fj_value len = fj_dim_max(e, fj_operate(e, FJ_OPERATOR_SUB, stop, start, place), fj_value_int(0), place);
    if (step > 1) {
        /* Rounded up, without a sum that could wrap. */
        len = fj_operate_unary(e, FJ_OPERATOR_NEGATIVE, len, place);
        len = fj_operate(e, FJ_OPERATOR_FLOORDIV, len, fj_value_int(step), place);
        len = fj_operate_unary(e, FJ_OPERATOR_NEGATIVE, len, place);
    }
    ix->result->sources[ix->axis++] = (fj_axis_source){FJ_AXIS_RANGE, start, ix->result->rank, step};
    add_axis(e, ix, len, false);
}

static _Noreturn void fail_index_type(fj_elab *e, const indexing *ix, fj_value item) {
    const bool is_float = fj_value_type(item) == FJ_TYPE_FLOAT;
    fj_type_fail(e, item, FJ_DTYPE_I32, ix->place, "an index is %s: %s", is_float ? "a float" : "a bool",
                 is_float ? "divide with // to get an int" : "use torch.where, or '.int()'");
}

static void add_fixed(fj_elab *e, indexing *ix, fj_value item) {
    item = fj_operand(e, item, ix->place, "an index");
    const fj_type type = fj_value_type(item);
    if (type != FJ_TYPE_I32 && type != FJ_TYPE_I64) fail_index_type(e, ix, item);
    const fj_value dim = ix->base->kind == FJ_TENSOR_CAPTURE && ix->base->table->literal == NULL
                           ? FJ_NONE
                           : fj_tensor_dim(e, ix->base, ix->axis, ix->place);
    if (item.kind == FJ_VALUE_INT && dim.kind == FJ_VALUE_INT && (item.i < -dim.i || item.i >= dim.i)) {
        fj_elab_fail(e, ix->place, "index %lld is outside of a dimension of %lld", (long long)item.i,
                     (long long)dim.i);
    }
    const bool narrow = item.kind == FJ_VALUE_INT && item.i >= INT32_MIN && item.i <= INT32_MAX;
    const fj_ref ref = fj_to_ref(e, item, narrow ? FJ_TYPE_I32 : type, ix->place);
    ix->result->sources[ix->axis++] = (fj_axis_source){FJ_AXIS_FIXED, fj_scalar_value(e, ref, false), 0, 0};
}

/* ---- Tensors as indices ------------------------------------------------------------------------------------ */

static void measure_gather(fj_elab *e, indexing *ix, fj_value item, size_t at) {
    const int rank = fj_tensor_rank(e, item.tensor, ix->place);
    const fj_type type = fj_tensor_type(e, item.tensor, ix->place);
    if (type != FJ_TYPE_I32 && type != FJ_TYPE_I64) {
        fj_elab_fail(e, ix->place, "a tensor of %s is used as an index: it takes ints",
                     type == FJ_TYPE_BOOL ? "bools" : "floats");
    }
    if (ix->gather_rank == 0) ix->gather_first = (int)at;
    ix->gather_last = (int)at;
    for (int i = ix->gather_rank; i < rank; i++) { /* new axes come in front */
        for (int j = i; j > 0; j--) ix->gather_dims[j] = ix->gather_dims[j - 1];
        ix->gather_dims[0] = fj_value_int(1);
    }
    if (rank > ix->gather_rank) ix->gather_rank = rank;
    for (int i = 0; i < rank; i++) {
        fj_value *dim = &ix->gather_dims[ix->gather_rank - rank + i];
        *dim = fj_dim_join(e, *dim, fj_tensor_dim(e, item.tensor, i, ix->place), ix->place);
    }
}

/* Tensors of indices broadcast against each other. */
static void require_gathered(fj_elab *e, const indexing *ix, const fj_lazy_tensor *item) {
    const int rank = fj_tensor_rank(e, item, ix->place);
    for (int i = 0; i < rank; i++) {
        const fj_value dim = fj_tensor_dim(e, item, i, ix->place);
        fj_require_extent(e, dim, ix->gather_dims[ix->gather_rank - rank + i], ix->place);
    }
}

/* As PyTorch: the axes of indices stand where the first of them does, or in front when something
 * stands between them. */
static bool is_adjacent(const indexing *ix, const fj_value *items, size_t count) {
    int first = -1, last = -1;
    for (size_t i = 0; i < count; i++) {
        if (items[i].kind != FJ_VALUE_TENSOR && items[i].kind != FJ_VALUE_SCALAR) continue;
        if (first < 0) first = (int)i;
        last = (int)i;
    }
    for (int i = first; i <= last; i++) {
        if (items[i].kind == FJ_VALUE_SLICE || items[i].kind == FJ_VALUE_NONE ||
            items[i].kind == FJ_VALUE_ELLIPSIS)
            return false;
    }
    (void)ix;
    return true;
}

static void add_gather_axes(fj_elab *e, indexing *ix) {
    ix->gather_at = ix->result->rank;
    for (int i = 0; i < ix->gather_rank; i++) add_axis(e, ix, ix->gather_dims[i], false);
}

/* ---- Indexing ------------------------------------------------------------------------------------------------- */

static _Noreturn void fail_rank(fj_elab *e, const fj_lazy_tensor *tensor, int rank, int given,
                                fj_place place) {
    const char *indices = given == 1 ? "index" : "indices";
    const fj_lazy_tensor *root = tensor;
    while (root->kind == FJ_TENSOR_INDEX) root = root->base;
    if (root != tensor && root->kind == FJ_TENSOR_CAPTURE) {
        fj_captured *assumed = fj_capture_resolve(e, root, place);
        fj_capture_hint_indices(e, assumed, assumed->rank + given - rank);
    }
    if (tensor->kind != FJ_TENSOR_CAPTURE) {
        fj_elab_fail(e, place, "a tensor of rank %d is read with %d %s", rank, given, indices);
    }
    const fj_captured *captured = fj_capture_resolve(e, tensor, place);
    fj_elab_fail_note(e, place, fj_capture_note(e, captured),
                      "captured tensor '%.*s' has rank %d but is read with %d %s", (int)captured->name.len,
                      captured->name.data, rank, given, indices);
}

static int count_axes(fj_elab *e, const fj_value *items, size_t count, fj_place place) {
    int axes = 0, dots = 0;
    for (size_t i = 0; i < count; i++) {
        axes += items[i].kind != FJ_VALUE_NONE && items[i].kind != FJ_VALUE_ELLIPSIS;
        dots += items[i].kind == FJ_VALUE_ELLIPSIS;
    }
    if (dots > 1) fj_elab_fail(e, place, "an index has at most one '...'");
    return axes;
}

static void add_item(fj_elab *e, indexing *ix, fj_value item, int rest) {
    switch (item.kind) {
    case FJ_VALUE_NONE: add_axis(e, ix, fj_value_int(1), false); break;
    case FJ_VALUE_ELLIPSIS:
        for (int i = 0; i < rest; i++) add_full(e, ix);
        break;
    case FJ_VALUE_SLICE: add_slice(e, ix, item); break;
    case FJ_VALUE_TENSOR:
        ix->result->sources[ix->axis++] =
            (fj_axis_source){FJ_AXIS_GATHER, item, ix->gather_at + ix->gather_rank, 0};
        break;
    default: add_fixed(e, ix, item); break;
    }
}

static fj_value run_index(fj_elab *e, indexing *ix, fj_value *items, size_t count, int axes) {
    for (size_t i = 0; i < count; i++) {
        if (items[i].kind != FJ_VALUE_TENSOR) continue;
        items[i] = fj_tensor_settle(e, items[i], ix->place);
        if (items[i].kind == FJ_VALUE_TENSOR) measure_gather(e, ix, items[i], i);
    }
    for (size_t i = 0; i < count; i++) {
        if (items[i].kind == FJ_VALUE_TENSOR) require_gathered(e, ix, items[i].tensor);
    }
    const bool adjacent = ix->gather_rank > 0 && is_adjacent(ix, items, count);
    if (ix->gather_rank > 0 && !adjacent) add_gather_axes(e, ix);
    bool dots = false;
    for (size_t i = 0; i < count; i++) {
        if (adjacent && (int)i == ix->gather_first) add_gather_axes(e, ix);
        dots |= items[i].kind == FJ_VALUE_ELLIPSIS;
        add_item(e, ix, items[i], ix->base_rank - axes);
    }
    while (!dots && ix->axis < ix->base_rank) add_full(e, ix);
    ix->result->type = fj_tensor_type(e, ix->base, ix->place);
    return fj_tensor_settle(e, fj_value_tensor(ix->result), ix->place);
}

fj_value fj_tensor_index(fj_elab *e, const fj_lazy_tensor *tensor, const fj_value *given, size_t count,
                         fj_place place) {
    fj_value opaque;
    if (fj_gives_opaque(e, fj_value_tensor(tensor), &opaque)) {
        if (e->in_mod) fj_capture_fail_opaque(e, opaque, place);
        return opaque;
    }
    fj_value items[2 * FJ_MAX_RANK];
    if (count > FJ_ARRAY_LEN(items)) fj_elab_fail(e, place, "an index has at most %d parts", 2 * FJ_MAX_RANK);
    for (size_t i = 0; i < count; i++) {
        if (!e->in_mod && fj_gives_opaque(e, given[i], &opaque)) return opaque;
        items[i] = given[i];
    }
    const int axes = count_axes(e, items, count, place);
    if (tensor->kind == FJ_TENSOR_CAPTURE)
        fj_capture_hint_indices(e, fj_capture_resolve(e, tensor, place), axes);
    const int rank = fj_tensor_rank(e, tensor, place);
    if (axes > rank) fail_rank(e, tensor, rank, axes, place);
    indexing ix = {.base = tensor, .base_rank = rank, .place = place};
    ix.result = fj_tensor_create(e, FJ_TENSOR_INDEX, tensor, place);
    return run_index(e, &ix, items, count, axes);
}

/* ---- Axes ------------------------------------------------------------------------------------------------------ */

static const fj_lazy_tensor *tensor_of(fj_elab *e, fj_value value, int rank, fj_place place) {
    value = fj_tensor_settle(e, value, place);
    return value.kind == FJ_VALUE_TENSOR
             ? value.tensor
             : fj_tensor_wrap(e, fj_operand(e, value, place, "this"), rank, place);
}

static fj_value full_slice(fj_elab *e) {
    return fj_value_sequence(e->arena, FJ_VALUE_SLICE, (fj_value[]){FJ_NONE, FJ_NONE, FJ_NONE}, 3);
}

fj_value fj_tensor_unsqueeze(fj_elab *e, fj_value value, fj_value axis, fj_place place) {
    value = fj_tensor_settle(e, value, place);
    const int rank = value.kind == FJ_VALUE_TENSOR ? fj_tensor_rank(e, value.tensor, place) : 0;
    const int at = fj_tensor_axis(e, axis, rank + 1, place);
    if (rank == 0)
        return fj_value_tensor(fj_tensor_wrap(e, fj_operand(e, value, place, "unsqueeze"), 1, place));
    fj_value items[FJ_MAX_RANK + 1];
    for (int i = 0; i < at; i++) items[i] = full_slice(e);
    items[at] = FJ_NONE;
    return fj_tensor_index(e, value.tensor, items, (size_t)at + 1, place);
}

fj_value fj_tensor_squeeze(fj_elab *e, fj_value value, fj_value axis, fj_place place) {
    const fj_lazy_tensor *tensor = tensor_of(e, value, 0, place);
    const int rank = fj_tensor_rank(e, tensor, place);
    fj_value items[FJ_MAX_RANK];
    if (rank == 0) return value;
    for (int i = 0; i < rank; i++) {
        const fj_value dim = fj_tensor_dim(e, tensor, i, place);
        const bool one = dim.kind == FJ_VALUE_INT && dim.i == 1;
        const bool wanted = axis.kind == FJ_VALUE_UNSET || fj_tensor_axis(e, axis, rank, place) == i;
        items[i] = one && wanted ? fj_value_int(0) : full_slice(e);
    }
    return fj_tensor_index(e, tensor, items, (size_t)rank, place);
}

fj_value fj_tensor_transpose(fj_elab *e, fj_value value, fj_value a, fj_value b, fj_place place) {
    const fj_lazy_tensor *tensor = tensor_of(e, value, 0, place);
    const int rank = fj_tensor_rank(e, tensor, place);
    if (rank < 2) return value;
    const int x = fj_tensor_axis(e, a, rank, place), y = fj_tensor_axis(e, b, rank, place);
    fj_lazy_tensor *result = fj_tensor_create(e, FJ_TENSOR_INDEX, tensor, place);
    result->rank = rank;
    result->type = fj_tensor_type(e, tensor, place);
    for (int i = 0; i < rank; i++) {
        const int to = i == x ? y : i == y ? x : i;
        result->sources[i] = (fj_axis_source){FJ_AXIS_RANGE, fj_value_int(0), to, 1};
        result->dims[to] = fj_tensor_dim(e, tensor, i, place);
        result->plain[to] = tensor->kind == FJ_TENSOR_CAPTURE || tensor->plain[i];
    }
    return fj_value_tensor(result);
}
