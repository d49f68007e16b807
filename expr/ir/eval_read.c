/* The evaluator's memory: reads of captured tensors, their range checks, and gradients that are added
 * to them. The index rule is here once: [-n, -1] counts from the end, outside of [-n, n) there is
 * nothing. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "expr/ir/eval.h"

int64_t fj_eval_index(const fj_eval *eval, fj_ref index) {
    const void *lanes = eval->values[index].lanes;
    return fj_ir_type(eval->ir, index) == FJ_TYPE_I64 ? *(const int64_t *)lanes : *(const int32_t *)lanes;
}

/* Adds index * stride of one dimension to the offsets; an index outside makes the offset -1. */
static void add_dimension(fj_eval *eval, fj_ref index, int64_t dim, int64_t stride, int count) {
    const bool is_i64 = fj_ir_type(eval->ir, index) == FJ_TYPE_I64;
    const int64_t *wide = eval->values[index].lanes;
    const int32_t *narrow = eval->values[index].lanes;
    for (int i = 0; i < count; i++) {
        const int64_t at = is_i64 ? wide[i] : narrow[i];
        const int64_t wrapped = at < 0 ? at + dim : at;
        if (wrapped < 0 || wrapped >= dim)
            eval->flags[i] = true;
        else
            eval->offsets[i] += wrapped * stride;
    }
}

/* Offsets of a read or a scatter whose indices begin at argument `first`; flags: outside. */
static void find_offsets(fj_eval *eval, fj_ref ref, int first, const int64_t *dims, const int64_t *strides,
                         int count) {
    const fj_ref *args = fj_ir_args(eval->ir, ref);
    const int rank = fj_ir_at(eval->ir, ref)->argc - first;
    memset(eval->flags, 0, sizeof(bool) * (size_t)count);
    memset(eval->offsets, 0, sizeof(int64_t) * (size_t)count);
    for (int d = 0; d < rank; d++) add_dimension(eval, args[first + d], dims[d], strides[d], count);
}

static void gather_f32(const fj_eval *eval, const float *data, double *result, int count) {
    for (int i = 0; i < count; i++) result[i] = eval->flags[i] ? 0.0 : (double)data[eval->offsets[i]];
}

static void gather_float(const fj_eval *eval, const fj_eval_tensor *tensor, double *result, int count) {
    for (int i = 0; i < count; i++) {
        result[i] = eval->flags[i] ? 0.0 : fj_dtype_load_float(tensor->dtype, tensor->data, eval->offsets[i]);
    }
}

static int64_t load_int(const fj_eval *eval, const fj_eval_tensor *tensor, int i) {
    return eval->flags[i] ? 0 : fj_dtype_load_int(tensor->dtype, tensor->data, eval->offsets[i]);
}

void fj_eval_load(fj_eval *eval, fj_ref ref, int count) {
    const fj_node *node = fj_ir_at(eval->ir, ref);
    const fj_eval_tensor *tensor = &eval->input->captures[node->imm.i];
    void *result = eval->values[ref].lanes;
    find_offsets(eval, ref, 0, tensor->dims, tensor->strides, count);
    switch ((fj_type)node->type) {
    case FJ_TYPE_FLOAT:
        if (tensor->dtype == FJ_DTYPE_F32)
            gather_f32(eval, tensor->data, result, count);
        else
            gather_float(eval, tensor, result, count);
        break;
    case FJ_TYPE_I64:
        for (int i = 0; i < count; i++) ((int64_t *)result)[i] = load_int(eval, tensor, i);
        break;
    case FJ_TYPE_I32:
        for (int i = 0; i < count; i++) ((int32_t *)result)[i] = (int32_t)load_int(eval, tensor, i);
        break;
    default:
        for (int i = 0; i < count; i++) ((bool *)result)[i] = load_int(eval, tensor, i) != 0;
    }
}

void fj_eval_out_of_range(fj_eval *eval, fj_ref ref, int count) {
    const fj_eval_tensor *tensor = &eval->input->captures[fj_ir_at(eval->ir, ref)->imm.i];
    find_offsets(eval, ref, 0, tensor->dims, tensor->strides, count);
    memcpy(eval->values[ref].lanes, eval->flags, sizeof(bool) * (size_t)count);
}

static double added(const fj_eval *eval, double value) {
    fj_eval_noted *noted = eval->grads->noted;
    if (!noted) return eval->grads->squares ? value * value : value;
    if (!noted->is_second) {
        FJ_PUSH(eval->arena, &noted->values, value);
        return 0;
    }
    const double difference = noted->at < noted->values.len ? value - noted->values.data[noted->at++] : 0;
    return isfinite(difference) ? difference * difference : 0;
}

/* count: of the sums that begin at `sums`. */
static void add_to(const fj_eval *eval, double *sums, int64_t count, int64_t at, double x) {
    const double before = sums[at], sum = before + x, taken = sum - before;
    if (eval->grads->compensated && isfinite(sum)) sums[count + at] += (before - (sum - taken)) + (x - taken);
    sums[at] = sum;
}

static void scatter_capture(fj_eval *eval, fj_ref ref, double *grad, const double *value, int count) {
    const int64_t capture = fj_ir_at(eval->ir, ref)->imm.i;
    const int64_t *dims = eval->input->captures[capture].dims;
    const int rank = eval->ir->captures.data[capture].rank;
    int64_t strides[FJ_MAX_RANK] = {0}, stride = 1;
    for (int d = rank - 1; d >= 0; d--) {
        strides[d] = stride;
        stride *= dims[d];
    }
    find_offsets(eval, ref, 1, dims, strides, count);
    for (int i = 0; i < count; i++) {
        if (!eval->flags[i]) add_to(eval, grad, stride, eval->offsets[i], added(eval, value[i]));
    }
}

void fj_eval_scatter(fj_eval *eval, fj_ref ref, int count) {
    const fj_node *node = fj_ir_at(eval->ir, ref);
    const double *value = eval->values[fj_ir_args(eval->ir, ref)[0]].lanes;
    if (eval->grads == NULL) return;
    if (node->op == FJ_OP_SCATTER) {
        double *grad = eval->grads->captures != NULL ? eval->grads->captures[node->imm.i] : NULL;
        if (grad != NULL) scatter_capture(eval, ref, grad, value, count);
    } else if (eval->grads->scalars != NULL) {
        for (int i = 0; i < count; i++)
            add_to(eval, eval->grads->scalars, (int64_t)eval->ir->scalars.len, node->imm.i,
                   added(eval, value[i]));
    }
}
