/* ONNX's operations as ours. What is not known, or known under other conditions only, stays as an unknown operation. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/onnx.h"

static const fj_value *value_of(const fj_onnx *onnx, int value) {
    return &onnx->reader->graph->values.data[value];
}

static void arg(fj_onnx *onnx, const char *name, fj_arg value) { fj_read_arg(onnx->reader, name, value); }

static void unknown(fj_onnx *onnx, const fj_onnx_node *node) { fj_onnx_unknown(onnx, node, NULL, 0); }

static const struct {
    const char *name;
    fj_node_op op;
} plain[] = {
    {"Neg", FJ_NODE_NEG},           {"Abs", FJ_NODE_ABS},
    {"Relu", FJ_NODE_RELU},         {"Sign", FJ_NODE_SIGN},
    {"Floor", FJ_NODE_FLOOR},       {"Ceil", FJ_NODE_CEIL},
    {"Round", FJ_NODE_ROUND},       {"Exp", FJ_NODE_EXP},
    {"Log", FJ_NODE_LOG},           {"Sin", FJ_NODE_SIN},
    {"Cos", FJ_NODE_COS},           {"Tanh", FJ_NODE_TANH},
    {"Sigmoid", FJ_NODE_SIGMOID},   {"Erf", FJ_NODE_ERF},
    {"Sqrt", FJ_NODE_SQRT},         {"Reciprocal", FJ_NODE_RECIPROCAL},
    {"IsNaN", FJ_NODE_ISNAN},       {"Not", FJ_NODE_LOGICAL_NOT},
    {"Cast", FJ_NODE_CAST},         {"CastLike", FJ_NODE_CAST},
    {"Add", FJ_NODE_ADD},           {"Sub", FJ_NODE_SUB},
    {"Mul", FJ_NODE_MUL},           {"Div", FJ_NODE_DIV},
    {"Pow", FJ_NODE_POW},           {"Equal", FJ_NODE_EQ},
    {"Greater", FJ_NODE_GT},        {"GreaterOrEqual", FJ_NODE_GE},
    {"Less", FJ_NODE_LT},           {"LessOrEqual", FJ_NODE_LE},
    {"And", FJ_NODE_LOGICAL_AND},   {"Or", FJ_NODE_LOGICAL_OR},
    {"Xor", FJ_NODE_LOGICAL_XOR},   {"Min", FJ_NODE_MINIMUM},
    {"Max", FJ_NODE_MAXIMUM},       {"Where", FJ_NODE_WHERE},
    {"Identity", FJ_NODE_RESHAPE},  {"Reshape", FJ_NODE_RESHAPE},
    {"Flatten", FJ_NODE_RESHAPE},   {"Squeeze", FJ_NODE_RESHAPE},
    {"Unsqueeze", FJ_NODE_RESHAPE}, {"Expand", FJ_NODE_EXPAND},
    {"Tile", FJ_NODE_REPEAT},       {"MatMul", FJ_NODE_MATMUL},
};

/* Operands in order, as the row of the table has them. */
static bool translate_plain(fj_onnx *onnx, const fj_onnx_node *node) {
    size_t row = 0;
    while (row < FJ_ARRAY_LEN(plain) && !fj_str_is(node->op, plain[row].name)) row++;
    if (row == FJ_ARRAY_LEN(plain)) return false;
    const fj_node_op op = plain[row].op;
    const fj_node_op_info *info = &fj_node_ops[op];
    const bool views = info->class == FJ_CLASS_VIEW || op == FJ_NODE_CAST;
    const int operands = views                                  ? 1
                       : info->class == FJ_CLASS_MATMUL         ? 2
                       : op == FJ_NODE_ADD || op == FJ_NODE_SUB ? 2
                                                                : info->arity;
    const fj_onnx_type out = fj_onnx_type_of(onnx, node->output_count > 0 ? node->outputs[0] : "");
    /* Integers are divided toward zero. Min and Max take any number of operands; Expand also expands what it reads. */
    const bool other =
        (op == FJ_NODE_DIV && !fj_dtype_is_float(out.dtype)) || (!views && node->input_count != operands);
    if (other) return unknown(onnx, node), true;
    const char *signature = info->signature;
    fj_parameter parameter;
    fj_onnx_begin(onnx, node, op);
    for (int i = 0; i < operands && fj_parameter_next(&signature, &parameter); i++)
        arg(onnx, fj_arena_strdup(onnx->reader->arena, parameter.name),
            fj_onnx_of_value(fj_onnx_input(onnx, node, i)));
    fj_onnx_end(onnx, node);
    return true;
}

static void transpose(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_onnx_attribute *perm = fj_onnx_find(node, "perm");
    const int value = fj_onnx_input(onnx, node, 0), rank = value_of(onnx, value)->rank;
    int64_t reversed[FJ_MAX_RANK];
    for (int i = 0; i < rank; i++) reversed[i] = rank - 1 - i;
    fj_onnx_begin(onnx, node, FJ_NODE_PERMUTE);
    arg(onnx, "self", fj_onnx_of_value(value));
    arg(onnx, "dims",
        perm ? fj_onnx_of_ints(onnx, perm->ints, perm->count) : fj_onnx_of_ints(onnx, reversed, rank));
    fj_onnx_end(onnx, node);
}

static void softmax(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op) {
    const int value = fj_onnx_input(onnx, node, 0), rank = value_of(onnx, value)->rank;
    const int64_t axis = fj_onnx_integer(node, "axis", onnx->opset < 13 ? 1 : -1);
    /* Before opset 13 it is over all dimensions from the axis on. */
    if (onnx->opset < 13 && axis != -1 && axis != rank - 1) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, op);
    arg(onnx, "self", fj_onnx_of_value(value));
    arg(onnx, "dim", fj_onnx_of_int(onnx, axis));
    fj_onnx_end(onnx, node);
}

static void reduce(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op) {
    const fj_onnx_attribute *axes = fj_onnx_find(node, "axes");
    int64_t dims[FJ_MAX_RANK];
    int count = axes ? axes->count : 0;
    if (axes != NULL && count <= FJ_MAX_RANK) memcpy(dims, axes->ints, sizeof *dims * (size_t)count);
    if (fj_onnx_has_input(node, 1))
        count = fj_onnx_constant(onnx, fj_onnx_input(onnx, node, 1), dims, FJ_MAX_RANK);
    if (count < 0 || count > FJ_MAX_RANK ||
        (count == 0 && fj_onnx_integer(node, "noop_with_empty_axes", 0) != 0)) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, op);
    arg(onnx, "self", fj_onnx_of_value(fj_onnx_input(onnx, node, 0)));
    arg(onnx, "dim", fj_onnx_of_ints(onnx, dims, count));
    arg(onnx, "keepdim", (fj_arg){.kind = FJ_ARG_BOOL, .flag = fj_onnx_integer(node, "keepdims", 1) != 0});
    fj_onnx_end(onnx, node);
}

/* One of our slices for each axis. */
static void slice(fj_onnx *onnx, const fj_onnx_node *node) {
    int64_t lists[4][FJ_MAX_RANK];
    int count = -1, value = fj_onnx_input(onnx, node, 0);
    const int rank = value_of(onnx, value)->rank;
    bool known = true;
    for (int i = 0; i < 4; i++) {
        const bool given = fj_onnx_has_input(node, i + 1);
        const int found =
            given ? fj_onnx_constant(onnx, fj_onnx_input(onnx, node, i + 1), lists[i], FJ_MAX_RANK) : count;
        for (int j = 0; !given && j < count; j++) lists[i][j] = i == 2 ? j : 1;
        known &= found >= 0 && (count < 0 || found == count);
        count = found;
    }
    for (int j = 0; known && j < count; j++)
        known &= lists[3][j] >= 1 && lists[2][j] >= -rank && lists[2][j] < rank;
    if (!known || count < 1) {
        unknown(onnx, node);
        return;
    }
    const fj_onnx_type out = fj_onnx_type_of(onnx, node->output_count > 0 ? node->outputs[0] : "");
    fj_size dims[FJ_MAX_RANK];
    memcpy(dims, value_of(onnx, value)->dims, sizeof dims);
    for (int j = 0; j < count; j++) {
        const int64_t axis = lists[2][j] < 0 ? lists[2][j] + rank : lists[2][j];
        const fj_arg more[4] = {fj_onnx_of_int(onnx, axis),
                                fj_onnx_of_int(onnx, lists[0][j]),
                                {.kind = FJ_ARG_NONE},
                                fj_onnx_of_int(onnx, lists[3][j])};
        static const char *const names[] = {"dim", "start", "end", "step"};
        dims[axis] = out.dims[axis];
        if (out.rank != rank) fj_read_fail(onnx->reader, "the result has another rank");
        if (j + 1 < count) {
            value = fj_onnx_between(onnx, node, FJ_NODE_SLICE, value, more, 4, rank, dims);
            continue;
        }
        fj_onnx_begin(onnx, node, FJ_NODE_SLICE);
        arg(onnx, "self", fj_onnx_of_value(value));
        for (int k = 0; k < 4; k++) arg(onnx, names[k], more[k]);
        fj_onnx_end(onnx, node);
    }
}

static void index_by(fj_onnx *onnx, const fj_onnx_node *node, int table, int first, const int *indices,
                     int count) {
    fj_arg list = {.kind = FJ_ARG_VALUES,
                   .count = first + count,
                   .values = FJ_NEW_ARRAY(onnx->reader->arena, int, first + count + 1)};
    for (int i = 0; i < first; i++) list.values[i] = -1;
    for (int i = 0; i < count; i++) list.values[first + i] = indices[i];
    fj_onnx_begin(onnx, node, FJ_NODE_INDEX);
    arg(onnx, "self", fj_onnx_of_value(table));
    arg(onnx, "indices", list);
    fj_onnx_end(onnx, node);
}

static void gather(fj_onnx *onnx, const fj_onnx_node *node) {
    const int table = fj_onnx_input(onnx, node, 0), indices = fj_onnx_input(onnx, node, 1),
              rank = value_of(onnx, table)->rank;
    int64_t axis = fj_onnx_integer(node, "axis", 0), number;
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank)
        fj_read_fail(onnx->reader, "axis %lld of a tensor of rank %d", (long long)axis, rank);
    if (value_of(onnx, indices)->rank == 0 && fj_onnx_constant(onnx, indices, &number, 1) == 1) {
        fj_onnx_begin(onnx, node, FJ_NODE_SELECT);
        arg(onnx, "self", fj_onnx_of_value(table));
        arg(onnx, "dim", fj_onnx_of_int(onnx, axis));
        arg(onnx, "index", fj_onnx_of_int(onnx, number));
        fj_onnx_end(onnx, node);
        return;
    }
    index_by(onnx, node, table, (int)axis, &indices, 1);
}

/* Each tuple of indices, taken apart. */
static void gather_nd(fj_onnx *onnx, const fj_onnx_node *node) {
    const int table = fj_onnx_input(onnx, node, 0), tuples = fj_onnx_input(onnx, node, 1),
              rank = value_of(onnx, tuples)->rank;
    int64_t count = 0;
    int indices[FJ_MAX_RANK];
    if (fj_onnx_integer(node, "batch_dims", 0) != 0 || rank < 1 ||
        !fj_size_is_const(&onnx->reader->graph->sizes, value_of(onnx, tuples)->dims[rank - 1], &count) ||
        count < 1 || count > value_of(onnx, table)->rank) {
        unknown(onnx, node);
        return;
    }
    for (int i = 0; i < (int)count; i++) {
        const fj_arg more[2] = {fj_onnx_of_int(onnx, rank - 1), fj_onnx_of_int(onnx, i)};
        fj_size dims[FJ_MAX_RANK];
        memcpy(dims, value_of(onnx, tuples)->dims, sizeof dims);
        indices[i] = fj_onnx_between(onnx, node, FJ_NODE_SELECT, tuples, more, 2, rank - 1, dims);
    }
    index_by(onnx, node, table, 0, indices, (int)count);
}

static int turned(fj_onnx *onnx, const fj_onnx_node *node, int index, bool turn) {
    const int value = fj_onnx_input(onnx, node, index);
    if (!turn) return value;
    if (value_of(onnx, value)->rank != 2) fj_read_fail(onnx->reader, "its input %d is not a matrix", index);
    const fj_size dims[2] = {value_of(onnx, value)->dims[1], value_of(onnx, value)->dims[0]};
    return fj_onnx_between(onnx, node, FJ_NODE_T, value, NULL, 0, 2, dims);
}

static void gemm(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_onnx_attribute *alpha = fj_onnx_find(node, "alpha"), *beta = fj_onnx_find(node, "beta");
    const int a = turned(onnx, node, 0, fj_onnx_integer(node, "transA", 0) != 0),
              b = turned(onnx, node, 1, fj_onnx_integer(node, "transB", 0) != 0);
    const bool adds = fj_onnx_has_input(node, 2);
    if (!adds && alpha != NULL && alpha->f != 1) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, adds ? FJ_NODE_ADDMM : FJ_NODE_MATMUL);
    if (adds) arg(onnx, "self", fj_onnx_of_value(fj_onnx_input(onnx, node, 2)));
    arg(onnx, adds ? "mat1" : "self", fj_onnx_of_value(a));
    arg(onnx, adds ? "mat2" : "other", fj_onnx_of_value(b));
    if (adds && alpha != NULL) arg(onnx, "alpha", fj_onnx_of_real(alpha->f));
    if (adds && beta != NULL) arg(onnx, "beta", fj_onnx_of_real(beta->f));
    fj_onnx_end(onnx, node);
}

/* Reasons for attentions that stay unknown are those of softmaxes that are not fused. */
static void attention(fj_onnx *onnx, const fj_onnx_node *node) {
    const char *wrong = fj_onnx_attention(onnx, node);
    if (wrong == NULL) return;
    fj_graph *graph = onnx->reader->graph;
    FJ_PUSH(onnx->reader->arena, &graph->unread,
            (fj_unread){node->name, fj_arena_printf(onnx->reader->arena, "Attention: %s", wrong)});
    unknown(onnx, node);
}

static void constant(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_onnx_attribute *value = fj_onnx_find(node, "value");
    if (value != NULL && value->has_tensor && node->output_count == 1)
        (void)fj_onnx_tensor(onnx, value->tensor, node->outputs[0]);
    else
        unknown(onnx, node);
}

static void norm(fj_onnx *onnx, const fj_onnx_node *node, bool centred) {
    const int value = fj_onnx_input(onnx, node, 0), rank = value_of(onnx, value)->rank;
    const fj_onnx_attribute *epsilon = fj_onnx_find(node, "epsilon");
    const int64_t axis = fj_onnx_integer(node, "axis", -1), first = axis < 0 ? axis + rank : axis;
    int64_t extents[FJ_MAX_RANK] = {0};
    bool simple = node->output_count == 1 && first >= 0 && first < rank;
    for (int64_t d = first; simple && d < rank; d++)
        (void)fj_size_is_const(&onnx->reader->graph->sizes, value_of(onnx, value)->dims[d],
                               &extents[d - first]);
    if (!simple) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, centred ? FJ_NODE_LAYER_NORM : FJ_NODE_RMS_NORM);
    arg(onnx, "input", fj_onnx_of_value(value));
    arg(onnx, "normalized_shape", fj_onnx_of_ints(onnx, extents, rank - (int)first));
    if (fj_onnx_has_input(node, 1)) arg(onnx, "weight", fj_onnx_of_value(fj_onnx_input(onnx, node, 1)));
    if (centred && fj_onnx_has_input(node, 2))
        arg(onnx, "bias", fj_onnx_of_value(fj_onnx_input(onnx, node, 2)));
    arg(onnx, "eps", fj_onnx_of_real(epsilon ? epsilon->f : 1e-5));
    fj_onnx_end(onnx, node);
}

static void along(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op) {
    fj_arg list = {.kind = FJ_ARG_VALUES,
                   .count = node->input_count,
                   .values = FJ_NEW_ARRAY(onnx->reader->arena, int, node->input_count + 1)};
    for (int i = 0; i < node->input_count; i++)
        list.values[i] = op == FJ_NODE_CAT || i == 0 ? fj_onnx_input(onnx, node, i) : -1;
    fj_onnx_begin(onnx, node, op);
    if (op == FJ_NODE_CAT)
        arg(onnx, "tensors", list);
    else
        arg(onnx, "self", fj_onnx_of_value(list.values[0]));
    arg(onnx, "dim", fj_onnx_of_int(onnx, fj_onnx_integer(node, "axis", 0)));
    fj_onnx_end(onnx, node);
}

static void gelu(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_onnx_attribute *form = fj_onnx_find(node, "approximate");
    fj_onnx_begin(onnx, node, FJ_NODE_GELU);
    arg(onnx, "self", fj_onnx_of_value(fj_onnx_input(onnx, node, 0)));
    if (form != NULL && fj_str_is(form->s, "tanh"))
        arg(onnx, "approximate", (fj_arg){.kind = FJ_ARG_TEXT, .text = "tanh"});
    fj_onnx_end(onnx, node);
}

/* In one or two dimensions, with as much padding before as after. */
static void convolution(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_onnx_attribute *pads = fj_onnx_find(node, "pads"), *strides = fj_onnx_find(node, "strides"),
                            *dilations = fj_onnx_find(node, "dilations"),
                            *automatic = fj_onnx_find(node, "auto_pad");
    bool simple = automatic == NULL || fj_str_is(automatic->s, "NOTSET");
    for (int i = 0; pads != NULL && i < pads->count / 2; i++)
        simple &= pads->ints[i] == pads->ints[pads->count / 2 + i];
    if (!simple) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, FJ_NODE_CONV);
    arg(onnx, "input", fj_onnx_of_value(fj_onnx_input(onnx, node, 0)));
    arg(onnx, "weight", fj_onnx_of_value(fj_onnx_input(onnx, node, 1)));
    if (fj_onnx_has_input(node, 2)) arg(onnx, "bias", fj_onnx_of_value(fj_onnx_input(onnx, node, 2)));
    if (strides != NULL) arg(onnx, "stride", fj_onnx_of_ints(onnx, strides->ints, strides->count));
    if (pads != NULL) arg(onnx, "padding", fj_onnx_of_ints(onnx, pads->ints, pads->count / 2));
    if (dilations != NULL) arg(onnx, "dilation", fj_onnx_of_ints(onnx, dilations->ints, dilations->count));
    arg(onnx, "groups", fj_onnx_of_int(onnx, fj_onnx_integer(node, "group", 1)));
    fj_onnx_end(onnx, node);
}

static void gather_elements(fj_onnx *onnx, const fj_onnx_node *node) {
    fj_onnx_begin(onnx, node, FJ_NODE_GATHER);
    arg(onnx, "self", fj_onnx_of_value(fj_onnx_input(onnx, node, 0)));
    arg(onnx, "dim", fj_onnx_of_int(onnx, fj_onnx_integer(node, "axis", 0)));
    arg(onnx, "index", fj_onnx_of_value(fj_onnx_input(onnx, node, 1)));
    fj_onnx_end(onnx, node);
}

static void trilu(fj_onnx *onnx, const fj_onnx_node *node) {
    int64_t diagonal = 0;
    if (fj_onnx_has_input(node, 1) &&
        fj_onnx_constant(onnx, fj_onnx_input(onnx, node, 1), &diagonal, 1) != 1) {
        unknown(onnx, node);
        return;
    }
    fj_onnx_begin(onnx, node, fj_onnx_integer(node, "upper", 1) != 0 ? FJ_NODE_TRIU : FJ_NODE_TRIL);
    arg(onnx, "self", fj_onnx_of_value(fj_onnx_input(onnx, node, 0)));
    arg(onnx, "diagonal", fj_onnx_of_int(onnx, diagonal));
    fj_onnx_end(onnx, node);
}

void fj_onnx_translate(fj_onnx *onnx, const fj_onnx_node *node) {
    const fj_str op = node->op;
    if (node->domain.len > 0 && !fj_str_is(node->domain, "ai.onnx"))
        unknown(onnx, node);
    else if (fj_str_is(op, "Transpose"))
        transpose(onnx, node);
    else if (fj_str_is(op, "Softmax") || fj_str_is(op, "LogSoftmax"))
        softmax(onnx, node, op.data[0] == 'S' ? FJ_NODE_SOFTMAX : FJ_NODE_LOG_SOFTMAX);
    else if (fj_str_is(op, "ReduceMax"))
        reduce(onnx, node, FJ_NODE_AMAX);
    else if (fj_str_is(op, "ReduceMin"))
        reduce(onnx, node, FJ_NODE_AMIN);
    else if (fj_str_is(op, "ReduceSum"))
        reduce(onnx, node, FJ_NODE_SUM);
    else if (fj_str_is(op, "ReduceMean"))
        reduce(onnx, node, FJ_NODE_MEAN);
    else if (fj_str_is(op, "Slice"))
        slice(onnx, node);
    else if (fj_str_is(op, "Gather"))
        gather(onnx, node);
    else if (fj_str_is(op, "GatherND"))
        gather_nd(onnx, node);
    else if (fj_str_is(op, "GatherElements"))
        gather_elements(onnx, node);
    else if (fj_str_is(op, "Conv"))
        convolution(onnx, node);
    else if (fj_str_is(op, "Trilu"))
        trilu(onnx, node);
    else if (fj_str_is(op, "Gemm"))
        gemm(onnx, node);
    else if (fj_str_is(op, "Attention"))
        attention(onnx, node);
    else if (fj_str_is(op, "Constant"))
        constant(onnx, node);
    else if (fj_str_is(op, "LayerNormalization") || fj_str_is(op, "RMSNormalization"))
        norm(onnx, node, op.data[0] == 'L');
    else if (fj_str_is(op, "Concat"))
        along(onnx, node, FJ_NODE_CAT);
    else if (fj_str_is(op, "Split"))
        along(onnx, node, FJ_NODE_SPLIT);
    else if (fj_str_is(op, "Gelu"))
        gelu(onnx, node);
    else if (!translate_plain(onnx, node))
        unknown(onnx, node);
}
