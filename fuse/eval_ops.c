/* What each class of operations computes. Sums of products are float32 sums, as those of libraries are, unless the evaluation is
 * exact or the dtype F64. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/eval.h"

/* ---- Elements ---------------------------------------------------------------------------- */

/* An operand that broadcasts to a result: its strides along the result's dimensions, or a number. */
typedef struct spread_operand {
    const double *data;
    double number;
    int64_t strides[FJ_MAX_RANK];
} spread_operand;

static spread_operand operand_of(fj_eval *eval, const fj_node *node, const fj_array *in, const fj_array *out,
                                 int keep) {
    spread_operand operand = {.data = in->data};
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
static bool next(const int64_t *dims, int rank, int64_t *index) {
    for (int d = rank; d-- > 0;) {
        if (++index[d] < dims[d]) return true;
        index[d] = 0;
    }
    return false;
}

static int64_t offset_of(const spread_operand *operand, const int64_t *index, int rank) {
    int64_t offset = 0;
    for (int d = 0; d < rank; d++) offset += operand->strides[d] * index[d];
    return offset;
}

static spread_operand argument(fj_eval *eval, const fj_node *node, int index, const fj_array *out) {
    const fj_arg *arg = &node->args[index];
    switch (arg->kind) {
    case FJ_ARG_VALUE: return operand_of(eval, node, fj_eval_of(eval, node, arg->value), out, 0);
    case FJ_ARG_INT: return (spread_operand){.number = (double)fj_eval_size(eval, arg->size)};
    case FJ_ARG_FLOAT: return (spread_operand){.number = arg->real};
    case FJ_ARG_BOOL: return (spread_operand){.number = arg->flag};
    default: return (spread_operand){.number = index == 1 ? -HUGE_VAL : HUGE_VAL}; /* clamp's open ends */
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
        if (node->args[i + 1].kind != FJ_ARG_NONE) said[i] = argument(eval, node, i + 1, out).number;
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    for (int64_t i = 0; i < out->count; i++) {
        const double x = in->data[i];
        out->data[i] = isnan(x) ? said[0] : x == HUGE_VAL ? said[1] : x == -HUGE_VAL ? said[2] : x;
    }
}

static void point(fj_eval *eval, const fj_node *node) {
    const fj_node_op_info *info = &fj_node_ops[node->op];
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    spread_operand operands[3] = {{0}};
    int64_t index[FJ_MAX_RANK] = {0};
    for (int i = 0; i < info->arity; i++) operands[i] = argument(eval, node, i, out);
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
            x[i] = operands[i].data ? operands[i].data[offset_of(&operands[i], index, out->rank)]
                                    : operands[i].number;
        if (node->op == FJ_NODE_BIT_NOT && out->dtype != FJ_DTYPE_BOOL)
            out->data[at] = (double)~fj_to_int(x[0]);
        else
            out->data[at] = info->value(x[0], x[1], x[2]);
        (void)next(out->dims, out->rank, index);
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
        (void)next(out->dims, out->rank, index);
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
                                                   : argument(eval, node, 0, out).number;
    const double step = node->op == FJ_NODE_ARANGE ? argument(eval, node, 1, out).number : 0;
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
    spread_operand *operands = FJ_NEW_ARRAY(eval->arena, spread_operand, list->count);
    for (int i = first; i <= last; i++)
        operands[i] = operand_of(eval, node, fj_eval_of(eval, node, list->values[i]), &spread, 0);
    int64_t index[FJ_MAX_RANK] = {0};
    for (int64_t at = 0; at < out->count; at++) {
        int64_t from = 0;
        for (int d = 0; d < in->rank; d++) {
            const bool indexed = d >= first && d <= last;
            const int64_t i =
                indexed ? position(eval, node,
                                   operands[d].data[offset_of(&operands[d], index + first, spread.rank)],
                                   in->dims[d])
                        : index[d < first ? d : d - given + spread.rank];
            fj_eval_require(eval, node, i < in->dims[d], "the result is larger than its argument");
            from = from * in->dims[d] + i;
        }
        out->data[at] = in->data[from];
        (void)next(out->dims, out->rank, index);
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
        (void)next(out->dims, out->rank, index);
    }
}

/* ---- Products ---------------------------------------------------------------------------- */

static double add_product(const fj_eval *eval, fj_dtype dtype, double sum, double a, double b) {
    const double more = sum + a * b;
    return eval->how->exact || dtype == FJ_DTYPE_F64 ? more : (double)(float)more;
}

/* out[..., i, j] = sum over e of a[..., i, e] b[..., e, j]; vectors count as a row, a column. */
static void multiply(fj_eval *eval, const fj_node *node, const fj_array *a, const fj_array *b,
                     fj_array *out) {
    fj_array left = *a, right = *b, whole = *out;
    int rank = whole.rank;
    if (a->rank == 1) {
        left = (fj_array){.rank = 2, .dims = {1, a->dims[0]}, .data = a->data};
        for (int d = rank++; d > (b->rank == 1 ? rank - 1 : rank - 2); d--) whole.dims[d] = whole.dims[d - 1];
        whole.dims[b->rank == 1 ? rank - 1 : rank - 2] = 1;
    }
    if (b->rank == 1) {
        right = (fj_array){.rank = 2, .dims = {b->dims[0], 1}, .data = b->data};
        whole.dims[rank++] = 1;
    }
    whole.rank = rank;
    fj_eval_require(eval, node, rank >= 2 && rank <= FJ_MAX_RANK, "a product of this rank");
    const int64_t inner = left.dims[left.rank - 1], rows = left.dims[left.rank - 2],
                  columns = right.dims[right.rank - 1];
    fj_eval_require(eval, node,
                    right.dims[right.rank - 2] == inner && whole.dims[rank - 2] == rows &&
                        whole.dims[rank - 1] == columns,
                    "the factors of its product do not fit");
    const spread_operand x = operand_of(eval, node, &left, &whole, 2),
                         y = operand_of(eval, node, &right, &whole, 2);
    int64_t index[FJ_MAX_RANK] = {0};
    for (int64_t at = 0; at < out->count; at++) {
        const int64_t i = index[rank - 2], j = index[rank - 1];
        const double *row = x.data + offset_of(&x, index, rank - 2) + i * inner,
                     *column = y.data + offset_of(&y, index, rank - 2) + j;
        double sum = 0;
        for (int64_t e = 0; e < inner; e++)
            sum = add_product(eval, out->dtype, sum, row[e], column[e * columns]);
        out->data[at] = sum;
        (void)next(whole.dims, rank, index);
    }
}

static void linear(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value),
                   *weight = fj_eval_of(eval, node, node->args[1].value);
    const fj_array *bias =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    fj_eval_require(eval, node, weight->rank == 2 && in->rank > 0, "its weight is not a matrix");
    const int64_t width = weight->dims[1], columns = weight->dims[0];
    fj_eval_require(eval, node,
                    in->dims[in->rank - 1] == width && columns > 0 &&
                        out->count / columns * columns == out->count &&
                        (bias == NULL || bias->count == columns) &&
                        (width == 0 || in->count / width == out->count / columns),
                    "its weight does not fit its argument");
    for (int64_t i = 0; i < out->count; i++) {
        const double *row = in->data + i / columns * width, *other = weight->data + i % columns * width;
        double sum = 0;
        for (int64_t e = 0; e < width; e++) sum = add_product(eval, out->dtype, sum, row[e], other[e]);
        out->data[i] = sum + (bias ? bias->data[i % columns] : 0);
    }
}

/* One number for each of the last two dimensions; those of a list that is shorter or absent are `otherwise`. */
static void spatial(fj_eval *eval, const fj_arg *arg, int64_t otherwise, int count, int64_t ret[2]) {
    for (int i = 0; i < count; i++) {
        const int at = arg->count == 1 ? 0 : i;
        ret[i] = arg->kind == FJ_ARG_INTS && at < arg->count ? fj_eval_size(eval, arg->sizes[at]) : otherwise;
    }
}

/* A correlation in one or two dimensions; one dimension is a second of extent 1. */
static void convolution(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value),
                   *weight = fj_eval_of(eval, node, node->args[1].value);
    const fj_array *bias =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    int64_t stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1}, index[FJ_MAX_RANK] = {0};
    const int count = in->rank - 2;
    const int64_t groups = node->args[6].kind == FJ_ARG_INT ? fj_eval_size(eval, node->args[6].size) : 0;
    fj_eval_require(eval, node,
                    (count == 1 || count == 2) && weight->rank == in->rank &&
                        !(node->args[7].kind == FJ_ARG_BOOL && node->args[7].flag),
                    "it is not a convolution in one or two dimensions");
    spatial(eval, &node->args[3], 1, count, stride);
    spatial(eval, &node->args[4], 0, count, padding);
    spatial(eval, &node->args[5], 1, count, dilation);
    fj_eval_require(eval, node,
                    groups > 0 && in->dims[1] == weight->dims[1] * groups &&
                        out->dims[1] == weight->dims[0] && weight->dims[0] % groups == 0 &&
                        (bias == NULL || bias->count == weight->dims[0]) && in->dims[0] == out->dims[0],
                    "its weight does not fit its argument");
    const int64_t height = in->dims[2], width = count == 2 ? in->dims[3] : 1,
                  kw = count == 2 ? weight->dims[3] : 1;
    for (int64_t at = 0; at < out->count; at++) {
        const int64_t each = groups > 0 && weight->dims[0] > groups ? weight->dims[0] / groups : 1,
                      first = index[1] / each * weight->dims[1];
        double sum = 0;
        for (int64_t k = 0; k < weight->dims[1] * weight->dims[2] * kw; k++) {
            const int64_t c = k / (weight->dims[2] * kw), ky = k / kw % weight->dims[2], kx = k % kw;
            const int64_t y = index[2] * stride[0] - padding[0] + ky * dilation[0];
            const int64_t x = count == 2 ? index[3] * stride[1] - padding[1] + kx * dilation[1] : 0;
            if (y < 0 || y >= height || x < 0 || x >= width) continue;
            sum = add_product(eval, out->dtype, sum,
                              in->data[((index[0] * in->dims[1] + first + c) * height + y) * width + x],
                              weight->data[index[1] * weight->dims[1] * weight->dims[2] * kw + k]);
        }
        out->data[at] = sum + (bias ? bias->data[index[1]] : 0);
        (void)next(out->dims, out->rank, index);
    }
}

static void addmm(fj_eval *eval, const fj_node *node) {
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const spread_operand add = argument(eval, node, 0, out);
    const double beta = argument(eval, node, 3, out).number, alpha = argument(eval, node, 4, out).number;
    int64_t index[FJ_MAX_RANK] = {0};
    multiply(eval, node, fj_eval_of(eval, node, node->args[1].value),
             fj_eval_of(eval, node, node->args[2].value), out);
    if (add.data == NULL) fj_node_fail(eval->graph, node, "argument 1 is not a tensor");
    for (int64_t at = 0; at < out->count; at++) {
        const double more = beta == 0 ? 0 : beta * add.data[offset_of(&add, index, out->rank)];
        out->data[at] = alpha * out->data[at] + more;
        (void)next(out->dims, out->rank, index);
    }
}

/* ---- Rows -------------------------------------------------------------------------------- */

typedef struct axis_shape {
    int64_t outer, length, inner;
} axis_shape;

static axis_shape axis_of(const fj_array *array, int dim) {
    axis_shape axis = {1, array->rank > 0 ? array->dims[dim] : 1, 1};
    for (int d = 0; d < array->rank; d++) {
        if (d < dim) axis.outer *= array->dims[d];
        if (d > dim) axis.inner *= array->dims[d];
    }
    return axis;
}

static void softmax_row(double *row, int64_t length, int64_t step, bool logarithm, bool safe) {
    double most = -HUGE_VAL, sum = 0;
    for (int64_t i = 0; i < length; i++)
        if (row[i * step] > most || isnan(row[i * step])) most = row[i * step];
    if (safe && most == -HUGE_VAL) {
        for (int64_t i = 0; i < length; i++) row[i * step] = 0;
        return;
    }
    for (int64_t i = 0; i < length; i++) sum += exp(row[i * step] - most);
    for (int64_t i = 0; i < length; i++)
        row[i * step] = logarithm ? row[i * step] - most - log(sum) : exp(row[i * step] - most) / sum;
}

static bool is_safe(const fj_node *node) {
    return node->target != NULL && strstr(node->target, "_safe_softmax") != NULL;
}

static void softmax(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const axis_shape axis = axis_of(out, fj_node_dim(eval->graph, node, &node->args[1], out->rank));
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    memcpy(out->data, in->data, (size_t)in->count * sizeof(double));
    fj_eval_settle(eval, out); /* the argument is converted first */
    for (int64_t o = 0; o < axis.outer; o++)
        for (int64_t i = 0; i < axis.inner; i++)
            softmax_row(out->data + o * axis.length * axis.inner + i, axis.length, axis.inner,
                        node->op == FJ_NODE_LOG_SOFTMAX, is_safe(node));
}

static void cumsum(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const axis_shape axis = axis_of(out, fj_node_dim(eval->graph, node, &node->args[1], out->rank));
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    for (int64_t at = 0; at < out->count; at++) {
        const bool begins = at / axis.inner % axis.length == 0;
        out->data[at] = in->data[at] + (begins ? 0 : out->data[at - axis.inner]);
    }
}

static void norm(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const bool centred = node->op == FJ_NODE_LAYER_NORM;
    const fj_arg *eps_arg = &node->args[centred ? 4 : 3];
    double eps = eps_arg->kind == FJ_ARG_FLOAT ? eps_arg->real
               : out->dtype == FJ_DTYPE_F64    ? 2.220446049250313e-16
                                               : 1.1920928955078125e-07;
    int64_t length = 1;
    for (int i = 0; i < node->args[1].count && i < in->rank; i++) length *= in->dims[in->rank - 1 - i];
    const fj_array *weight =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    const fj_array *bias =
        centred && node->args[3].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[3].value) : NULL;
    fj_eval_require(eval, node,
                    length > 0 && in->count == out->count && (!weight || weight->count == length) &&
                        (!bias || bias->count == length),
                    "its weight or bias has another size");
    for (int64_t row = 0; row < out->count; row += length) {
        double mean = 0, square = 0;
        for (int64_t i = 0; centred && i < length; i++) mean += in->data[row + i] / (double)length;
        for (int64_t i = 0; i < length; i++) square += pow(in->data[row + i] - mean, 2) / (double)length;
        for (int64_t i = 0; i < length; i++)
            out->data[row + i] =
                (in->data[row + i] - mean) / sqrt(square + eps) * (weight ? weight->data[i] : 1) +
                (bias ? bias->data[i] : 0);
    }
}

static void reduce(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    bool gone[FJ_MAX_RANK] = {false};
    int64_t index[FJ_MAX_RANK] = {0}, kept = 1;
    const fj_arg *list = &node->args[1];
    fj_eval_require(eval, node, list->kind == FJ_ARG_INTS, "its dimensions are not numbers");
    for (int i = 0; i < list->count; i++) {
        const fj_arg dim = {.kind = FJ_ARG_INT, .size = list->sizes[i]};
        gone[fj_node_dim(eval->graph, node, &dim, in->rank)] = true;
    }
    for (int d = 0; d < in->rank; d++) {
        gone[d] |= list->count == 0;
        kept *= gone[d] ? 1 : in->dims[d];
    }
    fj_eval_require(eval, node, kept == out->count, "the result has another size");
    const double first = node->op == FJ_NODE_AMAX ? -HUGE_VAL
                       : node->op == FJ_NODE_AMIN ? HUGE_VAL
                                                  : node->op == FJ_NODE_ALL;
    for (int64_t i = 0; i < out->count; i++) out->data[i] = first;
    for (int64_t at = 0; at < in->count; at++) {
        int64_t to = 0;
        for (int d = 0; d < in->rank; d++)
            if (!gone[d]) to = to * in->dims[d] + index[d];
        double *sum = &out->data[to], x = in->data[at];
        switch (node->op) {
        case FJ_NODE_AMAX: *sum = isnan(x) || x > *sum ? x : *sum; break;
        case FJ_NODE_AMIN: *sum = isnan(x) || x < *sum ? x : *sum; break;
        case FJ_NODE_ANY: *sum = *sum != 0 || x != 0; break;
        case FJ_NODE_ALL: *sum = *sum != 0 && x != 0; break;
        default: *sum += x;
        }
        (void)next(in->dims, in->rank, index);
    }
    for (int64_t i = 0; node->op == FJ_NODE_MEAN && i < out->count; i++)
        out->data[i] /= (double)in->count / (double)(out->count > 0 ? out->count : 1);
}

/* ---- Attention as one node --------------------------------------------------------------- */

static void sdpa(fj_eval *eval, const fj_node *node) {
    const fj_array *q = fj_eval_of(eval, node, node->args[0].value),
                   *k = fj_eval_of(eval, node, node->args[1].value),
                   *v = fj_eval_of(eval, node, node->args[2].value);
    const fj_array *mask =
        node->args[3].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[3].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const int rank = q->rank;
    const int64_t e = q->dims[rank - 1], l = q->dims[rank - 2], s = k->dims[k->rank - 2],
                  ev = v->dims[v->rank - 1];
    const bool causal = node->args[5].kind == FJ_ARG_BOOL && node->args[5].flag;
    const double scale = node->args[6].kind == FJ_ARG_FLOAT ? node->args[6].real : 1 / sqrt((double)e);
    fj_eval_require(eval, node, node->args[4].kind != FJ_ARG_FLOAT || node->args[4].real == 0,
                    "dropout in training is not evaluated");
    fj_eval_require(eval, node,
                    k->rank == rank && v->rank == rank && k->dims[rank - 1] == e && v->dims[rank - 2] == s,
                    "query, key and value do not fit");
    fj_array scores = {.rank = rank};
    int64_t index[FJ_MAX_RANK] = {0};
    memcpy(scores.dims, out->dims, sizeof scores.dims);
    scores.dims[rank - 1] = s;
    for (int d = 0; d + 2 < rank; d++)
        for (int i = 0; i < 2; i++) {
            const int64_t extent = (i ? v : k)->dims[d];
            fj_eval_require(eval, node, q->dims[d] == out->dims[d] && extent > 0 && q->dims[d] % extent == 0,
                            "its heads do not fit");
        }
    const spread_operand added = mask ? operand_of(eval, node, mask, &scores, 0) : (spread_operand){0};
    double *row = fj_arena_alloc(eval->arena, ((size_t)s + 1) * sizeof *row);
    for (int64_t at = 0; at < out->count / (ev > 0 ? ev : 1); at++) { /* a row of queries */
        int64_t kb = 0, vb = 0, rest = at / l, place = 1, kplace = 1, vplace = 1;
        for (int d = rank - 2; d-- > 0;) {
            const int64_t i = rest % q->dims[d];
            index[d] = i;
            kb += i / (q->dims[d] / k->dims[d]) * kplace;
            vb += i / (q->dims[d] / v->dims[d]) * vplace;
            rest /= q->dims[d], place *= q->dims[d], kplace *= k->dims[d], vplace *= v->dims[d];
        }
        index[rank - 2] = at % l;
        for (int64_t j = 0; j < s; j++) {
            index[rank - 1] = j;
            double sum = 0;
            for (int64_t i = 0; i < e; i++)
                sum = add_product(eval, out->dtype, sum, q->data[at * e + i], k->data[(kb * s + j) * e + i]);
            row[j] = sum * scale;
            const double x = mask ? added.data[offset_of(&added, index, rank)] : 0;
            if (mask && mask->dtype == FJ_DTYPE_BOOL)
                row[j] = x != 0 ? row[j] : -HUGE_VAL;
            else
                row[j] += x;
            if (causal && j > at % l) row[j] = -HUGE_VAL;
        }
        softmax_row(row, s, 1, false, true);
        for (int64_t i = 0; i < ev; i++) {
            double sum = 0;
            for (int64_t j = 0; j < s; j++)
                sum = add_product(eval, out->dtype, sum, row[j], v->data[(vb * s + j) * ev + i]);
            out->data[at * ev + i] = sum;
        }
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
        multiply(eval, node, fj_eval_of(eval, node, node->args[0].value),
                 fj_eval_of(eval, node, node->args[1].value), fj_eval_make(eval, node->outputs[0]));
        break;
    case FJ_CLASS_LINEAR: linear(eval, node); break;
    case FJ_CLASS_CONV: convolution(eval, node); break;
    case FJ_CLASS_ADDMM: addmm(eval, node); break;
    case FJ_CLASS_SOFTMAX: softmax(eval, node); break;
    case FJ_CLASS_SAME: same(eval, node); break;
    case FJ_CLASS_SDPA: sdpa(eval, node); break;
    case FJ_CLASS_NORM: norm(eval, node); break;
    case FJ_CLASS_REDUCE: reduce(eval, node); break;
    case FJ_CLASS_CUMSUM: cumsum(eval, node); break;
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
