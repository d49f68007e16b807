/* What each class of operations computes: elements and moves here, products and rows in files of their own. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/eval.h"

/* ---- Elements ---------------------------------------------------------------------------- */

fj_spread fj_spread_of(fj_eval *eval, const fj_node *node, const fj_array *in, const fj_array *out,
                       int keep) {
    fj_spread operand = {.data = in->data};
    int64_t stride = 1;
    fj_eval_require(eval, node, in->rank <= out->rank, "an operand has a larger rank than the result");
    for (int i = in->rank; i-- > 0;) {
        const int at = out->rank - in->rank + i;
        const bool kept = at >= out->rank - keep; /* a dimension that is not the broadcast's */
        fj_eval_require(eval, node, kept || in->dims[i] == 1 || in->dims[i] == out->dims[at],
                        "its operands do not broadcast");
        operand.strides[at] = in->dims[i] == 1 && !kept ? 0 : stride;
        stride *= in->dims[i];
    }
    return operand;
}

/* The next index in row-major order; false after the last. */
bool fj_next_index(const int64_t *dims, int rank, int64_t *index) {
    for (int d = rank; d-- > 0;) {
        if (++index[d] < dims[d]) return true;
        index[d] = 0;
    }
    return false;
}

int64_t fj_spread_offset(const fj_spread *operand, const int64_t *index, int rank) {
    int64_t offset = 0;
    for (int d = 0; d < rank; d++) offset += operand->strides[d] * index[d];
    return offset;
}

fj_spread fj_eval_argument(fj_eval *eval, const fj_node *node, int index, const fj_array *out) {
    const fj_arg *arg = &node->args[index];
    switch (arg->kind) {
    case FJ_ARG_VALUE: return fj_spread_of(eval, node, fj_eval_of(eval, node, arg->value), out, 0);
    case FJ_ARG_INT: return (fj_spread){.number = (double)fj_eval_size(eval, arg->size)};
    case FJ_ARG_FLOAT: return (fj_spread){.number = arg->real};
    case FJ_ARG_BOOL: return (fj_spread){.number = arg->flag};
    default: return (fj_spread){.number = index == 1 ? -HUGE_VAL : HUGE_VAL}; /* clamp's open ends */
    }
}

static double largest(fj_dtype dtype) {
    return dtype == FJ_DTYPE_F64  ? DBL_MAX
         : dtype == FJ_DTYPE_F32  ? (double)FLT_MAX
         : dtype == FJ_DTYPE_BF16 ? 0x1.fep127
                                  : 65504;
}

/* NaN becomes 0, infinities the ends of the dtype, or what the node says. */
static void nan_to_num(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    double said[3] = {0, largest(out->dtype), -largest(out->dtype)};
    for (int i = 0; i < 3; i++)
        if (node->args[i + 1].kind != FJ_ARG_NONE) said[i] = fj_eval_argument(eval, node, i + 1, out).number;
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    for (int64_t i = 0; i < out->count; i++) {
        const double x = in->data[i];
        out->data[i] = isnan(x) ? said[0] : x == HUGE_VAL ? said[1] : x == -HUGE_VAL ? said[2] : x;
    }
}

static void point(fj_eval *eval, const fj_node *node) {
    const fj_node_op_info *info = &fj_node_ops[node->op];
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    fj_spread operands[3] = {{0}};
    int64_t index[FJ_MAX_RANK] = {0};
    for (int i = 0; i < info->arity; i++) operands[i] = fj_eval_argument(eval, node, i, out);
    for (int i = 0; info->bool_result && i < info->arity;
         i++) { /* a number has the dtype of what it is compared with */
        const fj_arg *other = &node->args[i == 0 ? 1 : 0];
        if (operands[i].data != NULL || other->kind != FJ_ARG_VALUE) continue;
        const fj_dtype dtype = eval->graph->values.data[other->value].dtype;
        if (dtype >= FJ_DTYPE_F16) operands[i].number = fj_dtype_round(dtype, operands[i].number);
    }
    for (int64_t at = 0; at < out->count; at++) {
        double x[3];
        for (int i = 0; i < 3; i++)
            x[i] = operands[i].data ? operands[i].data[fj_spread_offset(&operands[i], index, out->rank)]
                                    : operands[i].number;
        if (node->op == FJ_NODE_BIT_NOT && out->dtype != FJ_DTYPE_BOOL)
            out->data[at] = (double)~fj_to_int(x[0]);
        else
            out->data[at] = info->value(x[0], x[1], x[2]);
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

static void gelu(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const bool tanh_form = node->args[1].kind == FJ_ARG_TEXT && strcmp(node->args[1].text, "tanh") == 0;
    for (int64_t i = 0; i < out->count; i++) {
        const double x = in->data[i];
        out->data[i] = tanh_form ? 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)))
                                 : 0.5 * x * (1 + erf(x / M_SQRT2));
    }
}

/* ---- Moves ------------------------------------------------------------------------------- */

static void view(fj_eval *eval, const fj_node *node, int output) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[output]);
    fj_move moves[FJ_MAX_RANK];
    int64_t index[FJ_MAX_RANK] = {0}, offsets[FJ_MAX_RANK];
    if (!fj_view_moves(eval->graph, node, output, moves)) {
        fj_eval_require(eval, node, in->count == out->count, "the result has another number of elements");
        memcpy(out->data, in->data, (size_t)in->count * sizeof(double));
        return;
    }
    for (int d = 0; d < in->rank; d++) offsets[d] = fj_eval_size(eval, moves[d].offset);
    for (int64_t at = 0; at < out->count; at++) {
        int64_t from = 0;
        for (int d = 0; d < in->rank; d++) {
            const int64_t i = index[moves[d].from];
            const int64_t found = moves[d].kind == FJ_MOVE_FIXED  ? offsets[d]
                                : moves[d].kind == FJ_MOVE_AFFINE ? offsets[d] + moves[d].step * i
                                : moves[d].kind == FJ_MOVE_WRAPS  ? i % (in->dims[d] > 0 ? in->dims[d] : 1)
                                                                  : i / moves[d].step;
            fj_eval_require(eval, node, found >= 0 && found < in->dims[d], "it reads outside its argument");
            from = from * in->dims[d] + found;
        }
        out->data[at] = in->data[from];
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

static void create(fj_eval *eval, const fj_node *node) {
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    if (node->op == FJ_NODE_EYE) {
        fj_eval_require(eval, node, out->rank == 2, "the result is not of rank 2");
        for (int64_t i = 0; i < out->count; i++) out->data[i] = i / out->dims[1] == i % out->dims[1];
        return;
    }
    const double first = node->op == FJ_NODE_ONES  ? 1
                       : node->op == FJ_NODE_ZEROS ? 0
                                                   : fj_eval_argument(eval, node, 0, out).number;
    const double step = node->op == FJ_NODE_ARANGE ? fj_eval_argument(eval, node, 1, out).number : 0;
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_VALUE) {
        const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
        fj_eval_require(eval, node, in->count == 1, "its fill value is not a number");
        for (int64_t i = 0; i < out->count; i++) out->data[i] = in->data[0];
        return;
    }
    fj_eval_require(eval, node, !isnan(step) && fabs(step) < HUGE_VAL, "its step is not a number");
    for (int64_t i = 0; i < out->count; i++) out->data[i] = first + step * (double)i;
}

static void triangle(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    fj_eval_require(eval, node, out->rank >= 2 && in->count == out->count, "it is not a matrix");
    const int64_t rows = out->dims[out->rank - 2], columns = out->dims[out->rank - 1];
    const int64_t diagonal = node->args[1].kind == FJ_ARG_INT ? fj_eval_size(eval, node->args[1].size) : 0;
    for (int64_t i = 0; i < out->count; i++) {
        const int64_t row = i / columns % rows, column = i % columns;
        const bool below = column - row <= diagonal, above = column - row >= diagonal;
        out->data[i] = (node->op == FJ_NODE_TRIL ? below : above) ? in->data[i] : 0;
    }
}

static void cat(fj_eval *eval, const fj_node *node, bool stack) {
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const int dim = fj_node_dim(eval->graph, node, &node->args[1], out->rank);
    int64_t outer = 1, inner = 1, begin = 0;
    for (int d = 0; d < dim; d++) outer *= out->dims[d];
    for (int d = dim + 1; d < out->rank; d++) inner *= out->dims[d];
    for (int i = 0; i < node->args[0].count; i++) {
        fj_eval_require(eval, node, node->args[0].values[i] >= 0, "a tensor is missing");
        const fj_array *in = fj_eval_of(eval, node, node->args[0].values[i]);
        fj_eval_require(eval, node, in->rank == out->rank - stack, "its tensors have different ranks");
        const int64_t length = stack ? 1 : in->dims[dim], run = length * inner;
        fj_eval_require(eval, node, begin + length <= out->dims[dim] && in->count == outer * run,
                        "its tensors do not make up the result");
        for (int64_t o = 0; o < outer; o++)
            memcpy(out->data + (o * out->dims[dim] + begin) * inner, in->data + o * run,
                   (size_t)run * sizeof(double));
        begin += length;
    }
    fj_eval_require(eval, node, begin == out->dims[dim], "its tensors do not make up the result");
}

static int64_t position(fj_eval *eval, const fj_node *node, double index, int64_t extent) {
    if (index < 0) index += (double)extent;
    fj_eval_require(eval, node, index >= 0 && index < (double)extent, "an index is out of range");
    return (int64_t)index;
}

/* self[i0, i1, None, ...]: tensors of indices broadcast; where they stand side by side, their place is the first one's. */
static void index_tensors(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const fj_arg *list = &node->args[1];
    int first = -1, last = -1, given = 0;
    fj_array spread = {.rank = 0};
    fj_eval_require(eval, node, list->count <= in->rank, "it has more indices than its argument dimensions");
    for (int i = 0; i < list->count; i++) {
        if (list->values[i] < 0) continue;
        const fj_array *each = fj_eval_of(eval, node, list->values[i]);
        fj_eval_require(eval, node, each->dtype != FJ_DTYPE_BOOL, "an index of bools is not supported");
        if (first < 0) first = i;
        last = i, given++;
        if (each->rank > spread.rank) spread.rank = each->rank;
    }
    fj_eval_require(eval, node, given > 0 && last - first + 1 == given, "its indices are not side by side");
    fj_eval_require(eval, node, in->rank - given + spread.rank == out->rank, "the result has another rank");
    for (int d = 0; d < spread.rank; d++) spread.dims[d] = out->dims[first + d];
    fj_spread *operands = FJ_NEW_ARRAY(eval->arena, fj_spread, list->count);
    for (int i = first; i <= last; i++)
        operands[i] = fj_spread_of(eval, node, fj_eval_of(eval, node, list->values[i]), &spread, 0);
    int64_t index[FJ_MAX_RANK] = {0};
    for (int64_t at = 0; at < out->count; at++) {
        int64_t from = 0;
        for (int d = 0; d < in->rank; d++) {
            const bool indexed = d >= first && d <= last;
            const int64_t i =
                indexed
                    ? position(eval, node,
                               operands[d].data[fj_spread_offset(&operands[d], index + first, spread.rank)],
                               in->dims[d])
                    : index[d < first ? d : d - given + spread.rank];
            fj_eval_require(eval, node, i < in->dims[d], "the result is larger than its argument");
            from = from * in->dims[d] + i;
        }
        out->data[at] = in->data[from];
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

static void embedding(fj_eval *eval, const fj_node *node) {
    const fj_array *table = fj_eval_of(eval, node, node->args[0].value),
                   *in = fj_eval_of(eval, node, node->args[1].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    fj_eval_require(eval, node, table->rank == 2 && out->count == in->count * table->dims[1],
                    "the result has another size");
    const int64_t width = table->dims[1];
    for (int64_t i = 0; i < in->count; i++)
        memcpy(out->data + i * width, table->data + position(eval, node, in->data[i], table->dims[0]) * width,
               (size_t)width * sizeof(double));
}

static void gather(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value),
                   *places = fj_eval_of(eval, node, node->args[2].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const int dim = fj_node_dim(eval->graph, node, &node->args[1], in->rank);
    int64_t index[FJ_MAX_RANK] = {0};
    fj_eval_require(eval, node, in->rank == out->rank && places->count == out->count,
                    "the result has another size");
    for (int64_t at = 0; at < out->count; at++) {
        int64_t from = 0;
        for (int d = 0; d < in->rank; d++) {
            const int64_t i = d == dim ? position(eval, node, places->data[at], in->dims[d]) : index[d];
            fj_eval_require(eval, node, i < in->dims[d], "the result is larger than its argument");
            from = from * in->dims[d] + i;
        }
        out->data[at] = in->data[from];
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

static void same(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const bool training = node->args[2].kind == FJ_ARG_BOOL && node->args[2].flag;
    fj_eval_require(eval, node, !training || (node->args[1].kind == FJ_ARG_FLOAT && node->args[1].real == 0),
                    "dropout in training is not evaluated");
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    memcpy(out->data, in->data, (size_t)in->count * sizeof(double));
}

void fj_eval_node(fj_eval *eval, const fj_node *node) {
    switch (fj_node_ops[node->op].class) {
    case FJ_CLASS_POINT: (node->op == FJ_NODE_NAN_TO_NUM ? nan_to_num : point)(eval, node); break;
    case FJ_CLASS_GELU: gelu(eval, node); break;
    case FJ_CLASS_VIEW: view(eval, node, 0); break;
    case FJ_CLASS_SPLIT:
        for (int i = 0; i < node->output_count; i++) view(eval, node, i);
        return;
    case FJ_CLASS_CREATE: create(eval, node); break;
    case FJ_CLASS_TRIANGLE: triangle(eval, node); break;
    case FJ_CLASS_MATMUL:
        fj_eval_multiply(eval, node, fj_eval_of(eval, node, node->args[0].value),
                         fj_eval_of(eval, node, node->args[1].value), fj_eval_make(eval, node->outputs[0]));
        break;
    case FJ_CLASS_LINEAR: fj_eval_linear(eval, node); break;
    case FJ_CLASS_CONV: fj_eval_convolution(eval, node); break;
    case FJ_CLASS_ADDMM: fj_eval_addmm(eval, node); break;
    case FJ_CLASS_SOFTMAX: fj_eval_softmax(eval, node); break;
    case FJ_CLASS_SAME: same(eval, node); break;
    case FJ_CLASS_SDPA: fj_eval_sdpa(eval, node); break;
    case FJ_CLASS_NORM: fj_eval_norm(eval, node); break;
    case FJ_CLASS_REDUCE: fj_eval_reduce(eval, node); break;
    case FJ_CLASS_CUMSUM: fj_eval_cumsum(eval, node); break;
    case FJ_CLASS_CAT: cat(eval, node, false); break;
    case FJ_CLASS_STACK: cat(eval, node, true); break;
    case FJ_CLASS_INDEX: index_tensors(eval, node); break;
    case FJ_CLASS_EMBEDDING: embedding(eval, node); break;
    case FJ_CLASS_GATHER: gather(eval, node); break;
    case FJ_CLASS_ATTENTION:
    case FJ_CLASS_UNKNOWN: fj_node_fail(eval->graph, node, "the operation is not one that flexjit evaluates");
    }
    fj_eval_settle(eval, &eval->arrays[node->outputs[0]]);
}
