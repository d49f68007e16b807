/* Functions of whole tensors: shapes, reductions, literals, and tensors that the caller supplies. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <float.h>
#include <math.h>

/* ---- Shapes ---------------------------------------------------------------------------------------------- */

fj_value fj_build_dim(fj_elab *e, const fj_builtin_args *call) {
    return fj_elab_attribute(e, call->args[0], FJ_STR("ndim"), call->place);
}

fj_value fj_build_size(fj_elab *e, const fj_builtin_args *call) {
    const fj_value shape = fj_elab_attribute(e, call->args[0], FJ_STR("shape"), call->place);
    if (!fj_is_given(call->args[1])) return shape;
    return shape.seq->items[fj_tensor_axis(e, call->args[1], (int)shape.seq->len, call->place)];
}

fj_value fj_build_numel(fj_elab *e, const fj_builtin_args *call) {
    const fj_value shape = fj_elab_attribute(e, call->args[0], FJ_STR("shape"), call->place);
    fj_value count = fj_value_int(1);
    for (size_t i = 0; i < shape.seq->len; i++)
        count = fj_operate(e, FJ_OPERATOR_MUL, shape.seq->items[i], count, call->place);
    return count;
}

fj_value fj_build_unsqueeze(fj_elab *e, const fj_builtin_args *call) {
    return fj_tensor_unsqueeze(e, call->args[0], call->args[1], call->place);
}

fj_value fj_build_squeeze(fj_elab *e, const fj_builtin_args *call) {
    return fj_tensor_squeeze(e, call->args[0], call->args[1], call->place);
}

fj_value fj_build_transpose(fj_elab *e, const fj_builtin_args *call) {
    return fj_tensor_transpose(e, call->args[0], call->args[1], call->args[2], call->place);
}

fj_value fj_build_same(fj_elab *e, const fj_builtin_args *call) {
    (void)e;
    return call->args[0];
}

/* ---- Reductions -------------------------------------------------------------------------------------------- */

bool fj_is_keep(fj_elab *e, fj_value keepdim, fj_place place) {
    return fj_is_given(keepdim) && fj_elab_truth(e, keepdim, place, "keepdim");
}

fj_value fj_build_reduce(fj_elab *e, const fj_builtin_args *call) {
    const bool keep = fj_is_keep(e, call->args[2], call->place);
    return fj_tensor_reduce(e, (fj_op)call->data, call->args[0], call->args[1], keep, call->place);
}

static fj_value cast(fj_elab *e, const fj_builtin_args *call) {
    const fj_value x = fj_operand(e, call->args[0], call->place, "a reduction");
    return fj_convert(e, x, (fj_type)call->data, call->place);
}

static fj_value converted(fj_elab *e, const fj_builtin_args *call, fj_value value, fj_value dtype) {
    if (dtype.kind != FJ_VALUE_DTYPE) return value;
    const fj_builtin_args to = {
        .args = &value, .count = 1, .data = (int)fj_ir_value_type(dtype.dtype), .place = call->place};
    return fj_tensor_map(e, cast, &to);
}

fj_value fj_build_sum(fj_elab *e, const fj_builtin_args *call) {
    const fj_value value = converted(e, call, call->args[0], call->args[3]);
    return fj_tensor_reduce(e, (fj_op)call->data, value, call->args[1],
                            fj_is_keep(e, call->args[2], call->place), call->place);
}

static bool is_reduced(fj_elab *e, fj_value axes, int rank, int axis, fj_place place) {
    if (!fj_is_given(axes)) return true;
    if (!fj_value_is_sequence(axes)) return fj_tensor_axis(e, axes, rank, place) == axis;
    for (size_t i = 0; i < axes.seq->len; i++) {
        if (fj_tensor_axis(e, axes.seq->items[i], rank, place) == axis) return true;
    }
    return axes.seq->len == 0;
}

fj_value fj_build_mean(fj_elab *e, const fj_builtin_args *call) {
    const fj_value value = fj_tensor_settle(e, converted(e, call, call->args[0], call->args[3]), call->place);
    const bool is_tensor = value.kind == FJ_VALUE_TENSOR;
    const fj_type type = is_tensor ? fj_tensor_type(e, value.tensor, call->place)
                                   : fj_value_type(fj_operand(e, value, call->place, "mean"));
    if (type != FJ_TYPE_FLOAT) fj_elab_fail(e, call->place, "mean() takes floats: use '.float()' first");
    const bool keep = fj_is_keep(e, call->args[2], call->place);
    const fj_value sum = fj_tensor_reduce(e, FJ_OP_REDUCE_SUM, value, call->args[1], keep, call->place);
    if (!is_tensor) return sum;
    fj_value count = fj_value_int(1);
    const int rank = fj_tensor_rank(e, value.tensor, call->place);
    for (int i = 0; i < rank; i++) {
        if (!is_reduced(e, call->args[1], rank, i, call->place)) continue;
        count = fj_operate(e, FJ_OPERATOR_MUL, fj_tensor_dim(e, value.tensor, i, call->place), count,
                           call->place);
    }
    return fj_operate(e, FJ_OPERATOR_DIV, sum, count, call->place);
}

/* max(x), max(x, dim) with its pair, max(x, other) */
fj_value fj_build_extreme(fj_elab *e, const fj_builtin_args *call) {
    const bool is_max = call->data == FJ_OP_REDUCE_MAX;
    const fj_value input = fj_tensor_settle(e, call->args[0], call->place), second = call->args[1];
    fj_value other = call->args[3];
    const bool is_axis =
        second.kind == FJ_VALUE_INT && (input.kind == FJ_VALUE_TENSOR || call->arguments->keyword_count > 0);
    if (fj_is_given(second) && !is_axis) other = second;
    if (fj_is_given(other)) {
        fj_value pair[2] = {input, other};
        const fj_builtin_args joined = {.args = pair,
                                        .count = 2,
                                        .data = is_max ? FJ_OP_MAXIMUM : FJ_OP_MINIMUM,
                                        .name = call->name,
                                        .place = call->place};
        return fj_tensor_map(e, fj_build_num2, &joined);
    }
    const bool keep = fj_is_keep(e, call->args[2], call->place);
    if (!fj_is_given(second))
        return fj_tensor_reduce(e, (fj_op)call->data, input, FJ_UNSET, keep, call->place);
    return fj_tensor_pick(e, is_max ? FJ_OP_ARGMAX : FJ_OP_ARGMIN, input, second, keep, call->place);
}

fj_value fj_build_dot(fj_elab *e, const fj_builtin_args *call) {
    return fj_tensor_dot(e, call->args[0], call->args[1], call->place);
}

/* ---- Casts ----------------------------------------------------------------------------------------------------- */

/* Of a tensor whose rank is not known yet: what is learned is its dtype. */
static bool learn_dtype(fj_elab *e, const fj_builtin_args *call, fj_value value, fj_dtype dtype) {
    if (value.kind != FJ_VALUE_TENSOR || fj_tensor_rank(e, value.tensor, call->place) >= 0) return false;
    fj_captured *captured = fj_capture_resolve(e, value.tensor, call->place);
    if (captured->assumed_dtype && captured->index < 0) captured->dtype = dtype;
    return true;
}

/* x.to(dtype), x.to(device), x.to(other), x.to(device, dtype) */
fj_value fj_build_to(fj_elab *e, const fj_builtin_args *call) {
    fj_value x = call->args[0], dtype = FJ_UNSET;
    for (int i = 1; i < call->count; i++) {
        const fj_value to = call->args[i];
        if (to.kind == FJ_VALUE_DTYPE) dtype = to;
        if (to.kind == FJ_VALUE_SCALAR) dtype = fj_value_dtype(fj_type_dtype(to.type));
        if (to.kind == FJ_VALUE_TENSOR && !fj_is_opaque(to))
            dtype = fj_value_dtype(fj_type_dtype(fj_tensor_type(e, to.tensor, call->place)));
    }
    if (dtype.kind == FJ_VALUE_UNSET || learn_dtype(e, call, x, dtype.dtype)) return x;
    x = fj_tensor_settle(e, x, call->place);
    const bool same = x.kind == FJ_VALUE_TENSOR &&
                      fj_tensor_type(e, x.tensor, call->place) == fj_ir_value_type(dtype.dtype);
    return same ? x : converted(e, call, x, dtype);
}

/* ---- Literals -------------------------------------------------------------------------------------------------- */

static fj_value scalar_of(fj_elab *e, fj_value value, fj_value dtype, fj_place place) {
    const fj_type type = dtype.kind == FJ_VALUE_DTYPE ? fj_ir_value_type(dtype.dtype) : fj_value_type(value);
    return fj_scalar_value(e, fj_to_ref(e, fj_convert(e, value, type, place), type, place), false);
}

fj_value fj_build_tensor(fj_elab *e, const fj_builtin_args *call) {
    const fj_value data = call->args[0], dtype = call->args[1];
    if (fj_value_is_sequence(data)) return fj_capture_literal(e, data, dtype, call->place);
    if (data.kind == FJ_VALUE_TENSOR) return converted(e, call, data, dtype);
    return scalar_of(e, fj_operand(e, data, call->place, "torch.tensor"), dtype, call->place);
}

/* The element type of what a method is called on. */
static fj_value own_dtype(fj_elab *e, const fj_builtin_args *call, fj_value dtype) {
    if (dtype.kind == FJ_VALUE_DTYPE) return dtype;
    const fj_value self = call->args[0];
    const fj_type type = self.kind == FJ_VALUE_TENSOR
                           ? fj_tensor_type(e, self.tensor, call->place)
                           : fj_value_type(fj_operand(e, self, call->place, call->name));
    return fj_value_dtype(fj_type_dtype(type));
}

fj_value fj_build_new_tensor(fj_elab *e, const fj_builtin_args *call) {
    const fj_value data = call->args[1], dtype = own_dtype(e, call, call->args[2]);
    if (fj_value_is_sequence(data)) return fj_capture_literal(e, data, dtype, call->place);
    return scalar_of(e, fj_operand(e, data, call->place, "new_tensor"), dtype, call->place);
}

fj_value fj_build_new_filled(fj_elab *e, const fj_builtin_args *call) {
    const fj_value size = call->args[1], dtype = own_dtype(e, call, call->args[2]);
    const fj_value one = scalar_of(e, fj_value_int(call->data), dtype, call->place);
    const size_t rank = fj_value_is_sequence(size) ? size.seq->len : 1;
    if (rank == 0) return one;
    for (size_t i = 0; i < rank; i++) {
        const fj_value dim = fj_value_is_sequence(size) ? size.seq->items[i] : size;
        if (fj_elab_int(e, dim, call->place, call->name) != 1 || rank > FJ_MAX_RANK) {
            fj_elab_fail(e, call->place, "%s() makes values of rank 0 in a mod: leave the size empty, ()",
                         call->name);
        }
    }
    return fj_value_tensor(fj_tensor_wrap(e, one, (int)rank, call->place));
}

/* ---- finfo, iinfo ------------------------------------------------------------------------------------------------ */

static fj_value named(fj_elab *e, const char *const *fields, const fj_value *values, size_t count) {
    fj_sequence *seq = FJ_NEW(e->arena, fj_sequence);
    *seq = *fj_value_sequence(e->arena, FJ_VALUE_TUPLE, values, count).seq;
    seq->fields = fields;
    return (fj_value){.kind = FJ_VALUE_TUPLE, .seq = seq};
}

fj_value fj_build_finfo(fj_elab *e, const fj_builtin_args *call) {
    static const char *const fields[] = {"min", "max", "eps", "tiny", "smallest_normal"};
    static const double limits[FJ_DTYPE_COUNT][3] = {
        [FJ_DTYPE_F8_E4M3] = {448.0, 0.125, 0.015625},
        [FJ_DTYPE_F8_E5M2] = {57344.0, 0.25, 6.103515625e-05},
        [FJ_DTYPE_F16] = {65504.0, 0x1p-10, 0x1p-14},
        [FJ_DTYPE_BF16] = {0x1.fep127, 0x1p-7, 0x1p-126},
        [FJ_DTYPE_F32] = {(double)FLT_MAX, (double)FLT_EPSILON, (double)FLT_MIN},
        [FJ_DTYPE_F64] = {DBL_MAX, DBL_EPSILON, DBL_MIN},
    };
    const fj_value type = call->args[0].kind == FJ_VALUE_UNSET ? fj_value_dtype(FJ_DTYPE_F32) : call->args[0];
    if (type.kind != FJ_VALUE_DTYPE || type.dtype < FJ_DTYPE_F8_E4M3) {
        fj_elab_fail(e, call->place, "torch.finfo() takes a floating dtype");
    }
    const double *limit = limits[type.dtype];
    const fj_value values[] = {fj_value_float(-limit[0]), fj_value_float(limit[0]), fj_value_float(limit[1]),
                               fj_value_float(limit[2]), fj_value_float(limit[2])};
    return named(e, fields, values, FJ_ARRAY_LEN(values));
}

fj_value fj_build_iinfo(fj_elab *e, const fj_builtin_args *call) {
    static const char *const fields[] = {"min", "max"};
    static const int64_t limits[FJ_DTYPE_COUNT][2] = {
        [FJ_DTYPE_I8] = {INT8_MIN, INT8_MAX},    [FJ_DTYPE_U8] = {0, UINT8_MAX},
        [FJ_DTYPE_I16] = {INT16_MIN, INT16_MAX}, [FJ_DTYPE_I32] = {INT32_MIN, INT32_MAX},
        [FJ_DTYPE_I64] = {INT64_MIN, INT64_MAX},
    };
    const fj_value type = call->args[0];
    if (type.kind != FJ_VALUE_DTYPE || type.dtype < FJ_DTYPE_I8 || type.dtype > FJ_DTYPE_I64) {
        fj_elab_fail(e, call->place, "torch.iinfo() takes an integer dtype");
    }
    const fj_value values[] = {fj_value_int(limits[type.dtype][0]), fj_value_int(limits[type.dtype][1])};
    return named(e, fields, values, FJ_ARRAY_LEN(values));
}

/* ---- Tensors that the caller supplies -------------------------------------------------------------------------------- */

static fj_value keyword(const fj_builtin_args *call, const char *name) {
    for (size_t i = 0; i < call->arguments->keyword_count; i++) {
        if (fj_str_is(call->arguments->names[i], name)) return call->arguments->keywords[i];
    }
    return FJ_UNSET;
}

static fj_table *placeholder(fj_elab *e, const fj_builtin_args *call, fj_dtype otherwise) {
    if (e->in_mod) {
        fj_elab_fail_note(e, call->place,
                          "make it outside of the mod, under a name: the caller binds its value",
                          "torch.%s() makes a tensor inside a mod", call->name);
    }
    fj_table *table = fj_table_create(e, call->place);
    const fj_value dtype = keyword(call, "dtype");
    table->has_dtype = true;
    table->dtype = dtype.kind == FJ_VALUE_DTYPE ? dtype.dtype : otherwise;
    return table;
}

static void set_dims(fj_table *table, const fj_value *dims, size_t count) {
    if (count > FJ_MAX_RANK) return;
    table->rank = (int)count;
    for (size_t i = 0; i < count; i++)
        table->dims[i] = dims[i].kind == FJ_VALUE_INT && dims[i].i >= 0 ? dims[i].i : -1;
}

fj_value fj_build_sized(fj_elab *e, const fj_builtin_args *call) {
    fj_table *table = placeholder(e, call, (fj_dtype)call->data);
    const fj_value size = keyword(call, "size");
    const fj_value first = call->arguments->count > 0 ? call->arguments->values[0] : size;
    if (fj_value_is_sequence(first)) {
        set_dims(table, first.seq->items, first.seq->len);
    } else {
        set_dims(table, call->arguments->values, call->arguments->count);
    }
    return fj_capture_unnamed(e, table);
}

static fj_dtype dtype_of_number(fj_value v) {
    return v.kind == FJ_VALUE_BOOL ? FJ_DTYPE_BOOL : v.kind == FJ_VALUE_INT ? FJ_DTYPE_I64 : FJ_DTYPE_F32;
}

/* ---- Tables that the source spells out by a rule ------------------------------------------------------------- */

static fj_value table_dtype(const fj_builtin_args *call) {
    const fj_value dtype = keyword(call, "dtype");
    return dtype.kind == FJ_VALUE_DTYPE ? dtype : FJ_NONE;
}

/* A literal of these rows; small enough, since its items are counted. */
static fj_value table_of(fj_elab *e, const fj_builtin_args *call, const fj_value *items, size_t count) {
    const fj_value list = fj_value_sequence(e->arena, FJ_VALUE_LIST, items, count);
    return fj_capture_literal(e, list, table_dtype(call), call->place);
}

static bool is_size(fj_value v) { return v.kind == FJ_VALUE_INT && v.i >= 0 && v.i <= FJ_ELAB_MAX_ITEMS; }

/* full((2, 3), x): rows of rows. */
static fj_value filled(fj_elab *e, const fj_value *dims, size_t rank, fj_value value) {
    if (rank == 0) return value;
    const fj_value row = filled(e, dims + 1, rank - 1, value);
    fj_value *rows = FJ_NEW_ARRAY(e->arena, fj_value, dims[0].i);
    for (int64_t i = 0; i < dims[0].i; i++) rows[i] = row;
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, rows, (size_t)dims[0].i);
}

fj_value fj_build_full(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    const fj_value value = given->count > 1 ? given->values[1] : keyword(call, "fill_value");
    const fj_value size = given->count > 0 ? given->values[0] : keyword(call, "size");
    int64_t count = 1;
    bool known = fj_value_is_number(value) && fj_value_is_sequence(size) && size.seq->len <= FJ_MAX_RANK;
    for (size_t i = 0; known && i < size.seq->len; i++) {
        known = is_size(size.seq->items[i]);
        if (known) count *= size.seq->items[i].i;
        known &= count <= FJ_ELAB_MAX_ITEMS;
    }
    if (known && size.seq->len > 0)
        return fj_capture_literal(e, filled(e, size.seq->items, size.seq->len, value), table_dtype(call),
                                  call->place);
    fj_table *table = placeholder(e, call, dtype_of_number(value));
    if (fj_value_is_sequence(size)) set_dims(table, size.seq->items, size.seq->len);
    return fj_capture_unnamed(e, table);
}

fj_value fj_build_eye(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    const fj_value n = given->count > 0 ? given->values[0] : FJ_NONE,
                   m = given->count > 1 ? given->values[1] : n;
    if (is_size(n) && is_size(m) && n.i * m.i <= FJ_ELAB_MAX_ITEMS) {
        fj_value *rows = FJ_NEW_ARRAY(e->arena, fj_value, n.i), *row = FJ_NEW_ARRAY(e->arena, fj_value, m.i);
        for (int64_t i = 0; i < n.i; i++) {
            for (int64_t k = 0; k < m.i; k++) row[k] = fj_value_float(i == k ? 1.0 : 0.0);
            rows[i] = fj_value_sequence(e->arena, FJ_VALUE_LIST, row, (size_t)m.i);
        }
        return table_of(e, call, rows, (size_t)n.i);
    }
    fj_table *table = placeholder(e, call, FJ_DTYPE_F32);
    if (given->count > 0) set_dims(table, (fj_value[]){n, m}, 2);
    return fj_capture_unnamed(e, table);
}

/* arange(end), arange(start, end), arange(start, end, step), where they are numbers. */
static bool counted(fj_elab *e, const fj_builtin_args *call, fj_value *ret_table) {
    const fj_arguments *given = call->arguments;
    fj_value parts[3] = {fj_value_int(0), FJ_UNSET, fj_value_int(1)};
    bool integral = true;
    if (given->count < 1 || given->count > 3) return false;
    for (size_t i = 0; i < given->count; i++) parts[given->count == 1 ? 1 : i] = given->values[i];
    for (int i = 0; i < 3; i++) {
        if (!fj_value_is_number(parts[i])) return false;
        integral &= parts[i].kind != FJ_VALUE_FLOAT;
    }
    const double start = fj_value_as_double(parts[0]), step = fj_value_as_double(parts[2]);
    const double count = step != 0 ? ceil((fj_value_as_double(parts[1]) - start) / step) : -1.0;
    if (!(count >= 0 && count <= FJ_ELAB_MAX_ITEMS)) return false;
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, (size_t)count);
    for (size_t i = 0; i < (size_t)count; i++)
        items[i] = integral ? fj_value_int((int64_t)start + (int64_t)i * (int64_t)step)
                            : fj_value_float(start + (double)i * step);
    fj_elab_step(e, call->place, (size_t)count / 16);
    const fj_value dtype = table_dtype(call);
    const fj_value list = fj_value_sequence(e->arena, FJ_VALUE_LIST, items, (size_t)count);
    *ret_table = fj_capture_literal(
        e, list,
        dtype.kind == FJ_VALUE_DTYPE ? dtype : fj_value_dtype(integral ? FJ_DTYPE_I64 : FJ_DTYPE_F32),
        call->place);
    return true;
}

fj_value fj_build_arange(fj_elab *e, const fj_builtin_args *call) {
    bool floating = false;
    fj_value counted_out;
    const fj_arguments *given = call->arguments;
    if (counted(e, call, &counted_out)) return counted_out;
    for (size_t i = 0; i < given->count; i++) floating |= given->values[i].kind == FJ_VALUE_FLOAT;
    fj_table *table = placeholder(e, call, floating ? FJ_DTYPE_F32 : FJ_DTYPE_I64);
    table->rank = 1;
    if (given->count == 1) set_dims(table, given->values, 1);
    return fj_capture_unnamed(e, table);
}

fj_value fj_build_randint(fj_elab *e, const fj_builtin_args *call) {
    fj_table *table = placeholder(e, call, FJ_DTYPE_I64);
    const fj_arguments *given = call->arguments;
    for (size_t i = 0; i < given->count; i++) {
        if (fj_value_is_sequence(given->values[i]))
            set_dims(table, given->values[i].seq->items, given->values[i].seq->len);
    }
    return fj_capture_unnamed(e, table);
}
