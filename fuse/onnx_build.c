/* Nodes of a graph from nodes of ONNX. */
#include <string.h>

#include "base/dtype.h"
#include "fuse/onnx.h"

/* ---- Arguments --------------------------------------------------------------------------- */

const fj_onnx_attribute *fj_onnx_find(const fj_onnx_node *node, const char *name) {
    for (size_t i = 0; i < node->attributes.len; i++)
        if (fj_str_is(node->attributes.data[i].name, name)) return &node->attributes.data[i];
    return NULL;
}

int64_t fj_onnx_integer(const fj_onnx_node *node, const char *name, int64_t otherwise) {
    const fj_onnx_attribute *found = fj_onnx_find(node, name);
    return found ? found->i : otherwise;
}

bool fj_onnx_has_input(const fj_onnx_node *node, int index) {
    return index < node->input_count && node->inputs[index][0] != '\0';
}

int fj_onnx_input(fj_onnx *onnx, const fj_onnx_node *node, int index) {
    const char *name = fj_onnx_has_input(node, index) ? node->inputs[index] : "";
    const int value = fj_read_find(onnx->reader, name);
    if (value < 0) fj_read_fail(onnx->reader, "input %d, '%.80s', is not a value made before", index, name);
    return value;
}

static const fj_value *value_of(const fj_onnx *onnx, int value) {
    return &onnx->reader->graph->values.data[value];
}
fj_arg fj_onnx_of_int(fj_onnx *onnx, int64_t value) {
    return (fj_arg){.kind = FJ_ARG_INT, .size = fj_size_of(&onnx->reader->graph->sizes, value)};
}
fj_arg fj_onnx_of_ints(fj_onnx *onnx, const int64_t *values, int count) {
    fj_arg arg = {
        .kind = FJ_ARG_INTS, .count = count, .sizes = FJ_NEW_ARRAY(onnx->reader->arena, fj_size, count + 1)};
    for (int i = 0; i < count; i++) arg.sizes[i] = fj_size_of(&onnx->reader->graph->sizes, values[i]);
    return arg;
}

/* Integers of a constant; -1: they are not known. */
int fj_onnx_constant(fj_onnx *onnx, int index, int64_t *ret, int room) {
    const fj_value *value = value_of(onnx, index);
    int64_t count = 1;
    if (value->data == NULL || value->kind != FJ_VALUE_CONSTANT || value->rank > 1 ||
        fj_dtype_is_float(value->dtype))
        return -1;
    if (value->rank == 1 && !fj_size_is_const(&onnx->reader->graph->sizes, value->dims[0], &count)) return -1;
    if (count > room) return -1;
    for (int64_t i = 0; i < count; i++) ret[i] = fj_to_int(fj_value_element(value, i));
    return (int)count;
}

/* ---- Nodes ------------------------------------------------------------------------------- */

static int declare(fj_onnx *onnx, const char *name) {
    const fj_onnx_type type = fj_onnx_type_of(onnx, name);
    return fj_read_value(onnx->reader, name, FJ_VALUE_RESULT, type.dtype, type.rank, type.dims);
}

void fj_onnx_begin(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op) {
    fj_read_node(onnx->reader, op, node->name, NULL);
    onnx->reader->target = fj_arena_strdup(onnx->reader->arena, node->op);
}

void fj_onnx_end(fj_onnx *onnx, const fj_onnx_node *node) {
    int outputs[FJ_ONNX_INPUTS], count = 0;
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i][0] != '\0') outputs[count++] = declare(onnx, node->outputs[i]);
    fj_read_node_end(onnx->reader, outputs, count);
    onnx->reader->node = node->name;
}

void fj_onnx_unknown(fj_onnx *onnx, const fj_onnx_node *node, const int *more, size_t count) {
    fj_onnx_begin(onnx, node, FJ_NODE_UNKNOWN);
    for (int i = 0; i < node->input_count; i++)
        if (fj_onnx_has_input(node, i))
            fj_read_arg(onnx->reader, "tensors", fj_onnx_of_value(fj_onnx_input(onnx, node, i)));
    for (size_t i = 0; i < count; i++) fj_read_arg(onnx->reader, "tensors", fj_onnx_of_value(more[i]));
    fj_onnx_end(onnx, node);
}

/* A value between, for what is more than one of our operations. */
int fj_onnx_between(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op, int from, const fj_arg *more,
                    int count, int rank, const fj_size *dims) {
    fj_graph *graph = onnx->reader->graph;
    fj_arg args[5] = {fj_onnx_of_value(from)};
    for (int i = 0; i < count; i++) args[i + 1] = more[i];
    const char *name = fj_arena_printf(onnx->reader->arena, "%s.%zu", node->name, graph->values.len);
    const int out =
        fj_read_value(onnx->reader, name, FJ_VALUE_RESULT, value_of(onnx, from)->dtype, rank, dims);
    (void)fj_graph_node(graph, op, name, args, count + 1, &out, 1);
    return out;
}
