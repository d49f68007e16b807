/* Building, checking and cleaning graphs. */
#include "fuse/graph.h"

#include <stdio.h>
#include <string.h>

#include "base/dtype.h"

void fj_graph_init(fj_graph *graph, fj_arena *arena) {
    *graph = (fj_graph){.arena = arena, .mutation = -1};
    fj_sizes_init(&graph->sizes, arena);
}

int fj_graph_value(fj_graph *graph, const char *name, fj_value_kind kind, fj_dtype dtype, int rank,
                   const fj_size *dims) {
    const int index = (int)graph->values.len;
    fj_value value = {.name = name, .kind = kind, .dtype = dtype, .rank = rank, .node = -1};
    for (int i = 0; i < rank; i++) value.dims[i] = dims[i];
    FJ_PUSH(graph->arena, &graph->values, value);
    if (kind != FJ_VALUE_RESULT) FJ_PUSH(graph->arena, &graph->inputs, index);
    return index;
}

static void *copy(fj_arena *arena, const void *data, size_t size) {
    void *kept = fj_arena_alloc(arena, size > 0 ? size : 1);
    if (size > 0) memcpy(kept, data, size);
    return kept;
}

int fj_graph_node(fj_graph *graph, fj_node_op op, const char *name, const fj_arg *args, int arg_count,
                  const int *outputs, int output_count) {
    fj_node node = {.op = op, .name = name, .arg_count = arg_count, .output_count = output_count};
    const int index = (int)graph->nodes.len;
    for (int i = 0; i < arg_count; i++) {
        node.args[i] = args[i];
        if (args[i].kind == FJ_ARG_VALUES)
            node.args[i].values =
                copy(graph->arena, args[i].values, sizeof *args[i].values * (size_t)args[i].count);
        if (args[i].kind == FJ_ARG_INTS)
            node.args[i].sizes =
                copy(graph->arena, args[i].sizes, sizeof *args[i].sizes * (size_t)args[i].count);
    }
    node.outputs = copy(graph->arena, outputs, sizeof *outputs * (size_t)output_count);
    for (int i = 0; i < output_count; i++) {
        graph->values.data[outputs[i]].node = index;
        graph->values.data[outputs[i]].output = i;
    }
    FJ_PUSH(graph->arena, &graph->nodes, node);
    return index;
}

int fj_node_input(const fj_node *node, int index) {
    for (int i = 0; i < node->arg_count; i++) {
        const fj_arg *arg = &node->args[i];
        if (arg->kind == FJ_ARG_VALUE && index-- == 0) return arg->value;
        if (arg->kind != FJ_ARG_VALUES) continue;
        for (int j = 0; j < arg->count; j++)
            if (arg->values[j] >= 0 && index-- == 0) return arg->values[j];
    }
    return -1;
}

void fj_node_fail(fj_graph *graph, const fj_node *node, const char *format, ...) {
    va_list list;
    char text[320];
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fj_fail(graph->arena->scope, FJ_ERR_TENSOR, "node '%.80s' (%.60s): %s", node->name,
            node->target ? node->target : fj_node_ops[node->op].name, text);
}

int fj_node_dim(fj_graph *graph, const fj_node *node, const fj_arg *arg, int rank) {
    int64_t dim = 0;
    if (arg->kind != FJ_ARG_INT || !fj_size_is_const(&graph->sizes, arg->size, &dim))
        fj_node_fail(graph, node, "a dimension is not a number");
    const int64_t room = rank > 0 ? rank : 1;
    if (dim < -room || dim >= room)
        fj_node_fail(graph, node, "dimension %lld of a tensor of rank %d", (long long)dim, rank);
    return (int)(dim < 0 ? dim + room : dim);
}

double fj_value_element(const fj_value *value, int64_t index) {
    const size_t size = fj_dtype_size(value->dtype);
    uint64_t word = 0;
    memcpy(&word, (const char *)value->data + (size_t)index * size, size);
    if (fj_dtype_is_float(value->dtype)) return fj_dtype_load_float(value->dtype, &word, 0);
    return value->dtype == FJ_DTYPE_BOOL ? (double)((word & 0xff) != 0)
                                         : (double)fj_dtype_load_int(value->dtype, &word, 0);
}

bool fj_value_size(const fj_graph *graph, const fj_value *value, uint64_t *ret_bytes) {
    int64_t extent;
    *ret_bytes = fj_dtype_size(value->dtype);
    for (int d = 0; d < value->rank; d++)
        if (!fj_size_is_const(&graph->sizes, value->dims[d], &extent) || extent < 0 ||
            __builtin_mul_overflow(*ret_bytes, (uint64_t)extent, ret_bytes))
            return false;
    return true;
}

bool fj_value_is_number(const fj_graph *graph, int index, double *ret) {
    const fj_value *value = &graph->values.data[index];
    for (int i = 0; i < value->rank; i++)
        if (!fj_size_is(&graph->sizes, value->dims[i], 1)) return false;
    if (value->node >= 0) {
        const fj_node *node = &graph->nodes.data[value->node];
        if (node->op == FJ_NODE_ZEROS || node->op == FJ_NODE_ONES)
            return *ret = node->op == FJ_NODE_ONES, true;
        if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_FLOAT)
            return *ret = node->args[0].real, true;
        int64_t number;
        if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_INT &&
            fj_size_is_const(&graph->sizes, node->args[0].size, &number))
            return *ret = (double)number, true;
        const fj_node_class class = fj_node_ops[node->op].class;
        if (class == FJ_CLASS_VIEW || (node->op == FJ_NODE_CAST && value->dtype >= FJ_DTYPE_F32 &&
                                       graph->values.data[node->args[0].value].dtype == value->dtype))
            return node->args[0].kind == FJ_ARG_VALUE && fj_value_is_number(graph, node->args[0].value, ret);
        return false;
    }
    if (value->kind != FJ_VALUE_BUFFER && value->kind != FJ_VALUE_CONSTANT) return false;
    if (value->data == NULL) return false;
    *ret = fj_value_element(value, 0);
    return true;
}

/* ---- Validation -------------------------------------------------------------------------- */

/* Whether two sizes may be equal: only numbers are known to differ. */
static bool differ(const fj_graph *graph, fj_size a, fj_size b) {
    int64_t x, y;
    return fj_size_is_const(&graph->sizes, a, &x) && fj_size_is_const(&graph->sizes, b, &y) && x != y;
}

static const fj_value *arg_value(fj_graph *graph, const fj_node *node, int index) {
    if (index >= node->arg_count || node->args[index].kind != FJ_ARG_VALUE)
        fj_node_fail(graph, node, "argument %d is not a tensor", index + 1);
    return &graph->values.data[node->args[index].value];
}

static const fj_value *result(const fj_graph *graph, const fj_node *node) {
    return &graph->values.data[node->outputs[0]];
}

static void check_broadcast(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out) {
    if (in->rank > out->rank)
        fj_node_fail(graph, node, "'%.60s' of rank %d does not broadcast to rank %d", in->name, in->rank,
                     out->rank);
    for (int i = 0; i < in->rank; i++) {
        const fj_size a = in->dims[i], b = out->dims[out->rank - in->rank + i];
        if (!fj_size_is(&graph->sizes, a, 1) && differ(graph, a, b))
            fj_node_fail(graph, node, "dimension %d of '%.60s' is %s, which does not broadcast to %s", i,
                         in->name, fj_size_text(&graph->sizes, a), fj_size_text(&graph->sizes, b));
    }
}

static void check_point(fj_graph *graph, const fj_node *node) {
    const fj_value *out = result(graph, node);
    const fj_node_op_info *info = &fj_node_ops[node->op];
    for (int i = 0; i < info->arity; i++) {
        const fj_arg *arg = &node->args[i];
        if (arg->kind == FJ_ARG_VALUE)
            check_broadcast(graph, node, &graph->values.data[arg->value], out);
        else if (arg->kind != FJ_ARG_INT && arg->kind != FJ_ARG_FLOAT && arg->kind != FJ_ARG_BOOL &&
                 !(arg->kind == FJ_ARG_NONE && node->op == FJ_NODE_CLAMP && i > 0))
            fj_node_fail(graph, node, "argument %d is neither a tensor nor a number", i + 1);
    }
    for (int d = 0; d < out->rank; d++) { /* a size of the result comes from an operand */
        bool found = fj_size_is(&graph->sizes, out->dims[d], 1);
        for (int i = 0; i < info->arity && !found; i++) {
            if (node->args[i].kind != FJ_ARG_VALUE) continue;
            const fj_value *in = &graph->values.data[node->args[i].value];
            const int at = d - (out->rank - in->rank);
            found = at >= 0 && !differ(graph, in->dims[at], out->dims[d]);
        }
        if (!found) fj_node_fail(graph, node, "no operand has the result's dimension %d", d);
    }
    if (info->bool_result && out->dtype != FJ_DTYPE_BOOL)
        fj_node_fail(graph, node, "the result is %s, not BOOL", fj_dtype_name(out->dtype));
}

static fj_size element_count(fj_graph *graph, const fj_value *value) {
    fj_size count = fj_size_of(&graph->sizes, 1);
    for (int i = 0; i < value->rank; i++) count = fj_size_mul(&graph->sizes, count, value->dims[i]);
    return count;
}

static void check_view(fj_graph *graph, const fj_node *node, int output) {
    const fj_value *in = arg_value(graph, node, 0), *out = &graph->values.data[node->outputs[output]];
    fj_move moves[FJ_MAX_RANK];
    if (!fj_view_moves(graph, node, output, moves) &&
        differ(graph, element_count(graph, in), element_count(graph, out)))
        fj_node_fail(graph, node, "'%.60s' has %s elements, the result %s", in->name,
                     fj_size_text(&graph->sizes, element_count(graph, in)),
                     fj_size_text(&graph->sizes, element_count(graph, out)));
}

static void check_matmul(fj_graph *graph, const fj_node *node, int first) {
    const fj_value *a = arg_value(graph, node, first), *b = arg_value(graph, node, first + 1),
                   *out = result(graph, node);
    if (a->rank == 0 || b->rank == 0) fj_node_fail(graph, node, "a product of a number");
    const fj_size left = a->dims[a->rank - 1], right = b->dims[b->rank > 1 ? b->rank - 2 : 0];
    if (differ(graph, left, right))
        fj_node_fail(graph, node, "columns of '%.60s' (%s) differ from rows of '%.60s' (%s)", a->name,
                     fj_size_text(&graph->sizes, left), b->name, fj_size_text(&graph->sizes, right));
    const int rank = (a->rank > b->rank ? a->rank : b->rank) - (a->rank == 1) - (b->rank == 1);
    if (out->rank != (a->rank == 1 && b->rank == 1 ? 0 : rank))
        fj_node_fail(graph, node, "the result has rank %d, not %d", out->rank, rank);
    if (a->rank > 1 && b->rank > 1 &&
        (differ(graph, out->dims[rank - 2], a->dims[a->rank - 2]) ||
         differ(graph, out->dims[rank - 1], b->dims[b->rank - 1])))
        fj_node_fail(graph, node, "the result's rows and columns are not those of its factors");
    const int batch = out->rank - (a->rank > 1) - (b->rank > 1); /* dimensions; a vector has none */
    for (int i = 0; i < batch; i++)
        for (int j = 0; j < 2; j++) {
            const fj_value *in = j ? b : a;
            const int at = i - (batch - (in->rank - 2));
            if (at >= 0 && in->rank > 2 && !fj_size_is(&graph->sizes, in->dims[at], 1) &&
                differ(graph, in->dims[at], out->dims[i]))
                fj_node_fail(graph, node, "batch dimension %d of '%.60s' does not broadcast to the result's",
                             at, in->name);
        }
}

static void check_same(fj_graph *graph, const fj_node *node) {
    const fj_value *in = arg_value(graph, node, 0), *out = result(graph, node);
    if (in->rank != out->rank) fj_node_fail(graph, node, "the result has another rank than the argument");
    check_broadcast(graph, node, in, out);
}

static void check_rank(fj_graph *graph, const fj_node *node, int expected) {
    if (result(graph, node)->rank != expected)
        fj_node_fail(graph, node, "the result has rank %d, not %d", result(graph, node)->rank, expected);
}

static void check_sdpa(fj_graph *graph, const fj_node *node) {
    const int rank = arg_value(graph, node, 0)->rank;
    for (int i = 0; i < 3; i++)
        if (arg_value(graph, node, i)->rank < 2 || arg_value(graph, node, i)->rank > 4)
            fj_node_fail(graph, node, "argument %d is not of rank 2 to 4", i + 1);
    check_rank(graph, node, rank);
}

static void check_node(fj_graph *graph, const fj_node *node) {
    const fj_node_class class = fj_node_ops[node->op].class;
    if (class == FJ_CLASS_UNKNOWN) return;
    if (node->output_count == 0) fj_node_fail(graph, node, "it has no result");
    switch (class) {
    case FJ_CLASS_POINT: check_point(graph, node); break;
    case FJ_CLASS_VIEW: check_view(graph, node, 0); break;
    case FJ_CLASS_SPLIT:
        for (int i = 0; i < node->output_count; i++) check_view(graph, node, i);
        break;
    case FJ_CLASS_MATMUL: check_matmul(graph, node, 0); break;
    case FJ_CLASS_ADDMM: check_matmul(graph, node, 1); break;
    case FJ_CLASS_SDPA: check_sdpa(graph, node); break;
    case FJ_CLASS_SOFTMAX:
    case FJ_CLASS_CUMSUM:
        check_same(graph, node);
        (void)fj_node_dim(graph, node, &node->args[1], result(graph, node)->rank);
        break;
    case FJ_CLASS_SAME:
    case FJ_CLASS_TRIANGLE:
    case FJ_CLASS_GELU:
    case FJ_CLASS_NORM: check_same(graph, node); break;
    case FJ_CLASS_CONV:
    case FJ_CLASS_LINEAR: check_rank(graph, node, arg_value(graph, node, 0)->rank); break;
    case FJ_CLASS_EMBEDDING: check_rank(graph, node, arg_value(graph, node, 1)->rank + 1); break;
    case FJ_CLASS_REDUCE:
    case FJ_CLASS_INDEX:
    case FJ_CLASS_ATTENTION:
    case FJ_CLASS_GATHER: (void)arg_value(graph, node, 0); break;
    case FJ_CLASS_CAT:
    case FJ_CLASS_STACK:
        if (node->args[0].kind != FJ_ARG_VALUES || node->args[0].count == 0)
            fj_node_fail(graph, node, "there are no tensors");
        break;
    case FJ_CLASS_CREATE:
    case FJ_CLASS_UNKNOWN: break;
    }
}

/* An operation in place is one that makes a new value, when nobody reads the old one afterwards, or shares its memory. */
static void check_in_place(fj_graph *graph, int index) {
    const fj_node *node = &graph->nodes.data[index];
    const int changed = fj_node_input(node, 0);
    if (!node->in_place || changed < 0 || graph->mutation >= 0) return;
    const fj_value *value = &graph->values.data[changed];
    bool seen = value->node < 0 || value->is_output || node->op == FJ_NODE_UNKNOWN;
    if (!seen) {
        const fj_node_class class = fj_node_ops[graph->nodes.data[value->node].op].class;
        seen = class == FJ_CLASS_VIEW || class == FJ_CLASS_SPLIT || class == FJ_CLASS_UNKNOWN ||
               class == FJ_CLASS_SAME || graph->nodes.data[value->node].op == FJ_NODE_CAST;
    }
    for (size_t i = 0; i < graph->nodes.len && !seen; i++) {
        const fj_node *other = &graph->nodes.data[i];
        const fj_node_class class = fj_node_ops[other->op].class;
        const bool shares = class == FJ_CLASS_VIEW || class == FJ_CLASS_SPLIT || class == FJ_CLASS_UNKNOWN ||
                            class == FJ_CLASS_SAME || other->op == FJ_NODE_CAST;
        for (int j = 0, v; (v = fj_node_input(other, j)) >= 0; j++)
            seen |= v == changed && (int)i != index && (shares || (int)i > index);
    }
    if (seen) graph->mutation = index;
}

void fj_graph_validate(fj_graph *graph) {
    for (size_t i = 0; i < graph->nodes.len; i++) {
        const fj_node *node = &graph->nodes.data[i];
        for (int j = 0, v; (v = fj_node_input(node, j)) >= 0; j++)
            if (graph->values.data[v].node >= (int)i)
                fj_node_fail(graph, node, "it reads '%.80s', which is made later: the graph has a cycle",
                             graph->values.data[v].name);
        check_node(graph, node);
    }
    for (size_t i = 0; i < graph->nodes.len; i++) check_in_place(graph, (int)i);
}

void fj_graph_sweep(fj_graph *graph) {
    bool *used = FJ_NEW_ARRAY(graph->arena, bool, graph->values.len + 1);
    size_t kept = 0;
    for (size_t i = 0; i < graph->outputs.len; i++) used[graph->outputs.data[i]] = true;
    bool *alive = FJ_NEW_ARRAY(graph->arena, bool, graph->nodes.len + 1);
    for (size_t i = graph->nodes.len; i-- > 0;) {
        const fj_node *node = &graph->nodes.data[i];
        for (int j = 0; j < node->output_count; j++) alive[i] |= used[node->outputs[j]];
        alive[i] |= (node->in_place && node->op == FJ_NODE_UNKNOWN) || graph->mutation == (int)i;
        for (int j = 0, v; alive[i] && (v = fj_node_input(node, j)) >= 0; j++) used[v] = true;
    }
    for (size_t i = 0; i < graph->nodes.len; i++) {
        fj_node *node = &graph->nodes.data[i];
        if (!alive[i]) {
            for (int j = 0; j < node->output_count; j++) graph->values.data[node->outputs[j]].node = -2;
            continue;
        }
        for (int j = 0; j < node->output_count; j++) graph->values.data[node->outputs[j]].node = (int)kept;
        if (graph->mutation == (int)i) graph->mutation = (int)kept;
        graph->nodes.data[kept++] = *node;
    }
    graph->nodes.len = kept;
}
