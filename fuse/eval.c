/* The reference evaluation of a graph, value by value. */
#include "fuse/eval.h"

#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/call.h"

int64_t fj_eval_size(fj_eval *eval, fj_size size) {
    int64_t value;
    if (!fj_size_value(&eval->graph->sizes, size, eval->symbols, &value))
        fj_fail(eval->scope, FJ_ERR_TENSOR, "size %s is too large", fj_size_text(&eval->graph->sizes, size));
    return value;
}

void fj_eval_require(fj_eval *eval, const fj_node *node, bool holds, const char *what) {
    if (!holds) fj_node_fail(eval->graph, node, "%s", what);
}

fj_array *fj_eval_make(fj_eval *eval, int index) {
    const fj_value *value = &eval->graph->values.data[index];
    fj_array *array = &eval->arrays[index];
    *array = (fj_array){.dtype = value->dtype, .rank = value->rank, .count = 1};
    for (int i = 0; i < value->rank; i++) {
        array->dims[i] = fj_eval_size(eval, value->dims[i]);
        if (array->dims[i] < 0 || __builtin_mul_overflow(array->count, array->dims[i], &array->count) ||
            array->count > INT64_MAX / 16)
            fj_fail(eval->scope, FJ_ERR_TENSOR, "'%.80s' has the extent %lld", value->name,
                    (long long)array->dims[i]);
    }
    array->data = fj_arena_alloc(eval->arena, ((size_t)array->count + 1) * sizeof(double));
    return array;
}

const fj_array *fj_eval_of(fj_eval *eval, const fj_node *node, int value) {
    const fj_value *wanted = &eval->graph->values.data[value];
    if (eval->arrays[value].data == NULL && wanted->file != NULL)
        fj_node_fail(eval->graph, node,
                     "the data of '%.80s' is in '%.100s', which is not in the model's folder", wanted->name,
                     wanted->file);
    if (eval->arrays[value].data == NULL)
        fj_node_fail(eval->graph, node, "'%.80s' cannot be evaluated", eval->graph->values.data[value].name);
    return &eval->arrays[value];
}

void fj_eval_settle(const fj_eval *eval, fj_array *array) {
    double *data = array->data;
    if (array->dtype == FJ_DTYPE_BOOL)
        for (int64_t i = 0; i < array->count; i++) data[i] = data[i] != 0;
    else if (!fj_dtype_is_float(array->dtype))
        for (int64_t i = 0; i < array->count; i++) data[i] = trunc(data[i]);
    else if (!eval->how->exact && array->dtype != FJ_DTYPE_F64)
        for (int64_t i = 0; i < array->count; i++) data[i] = fj_dtype_round(array->dtype, data[i]);
}

/* ---- Inputs ------------------------------------------------------------------------------ */

static void load(fj_eval *eval, int index, const void *data) {
    const fj_value *value = &eval->graph->values.data[index];
    fj_array *array = fj_eval_make(eval, index);
    fj_value given = *value;
    given.data = data;
    for (int64_t i = 0; i < array->count; i++) array->data[i] = fj_value_element(&given, i);
}

/* A dimension that is a symbol of its own says how long that is. */
static void bind_dims(fj_eval *eval, const fj_value *value, const int64_t *dims) {
    fj_sizes *sizes = &eval->graph->sizes;
    for (int d = 0; d < value->rank; d++) {
        const struct fj_poly *poly = &sizes->polys.data[value->dims[d]];
        if (poly->count != 1 || poly->terms[0].coef != 1 || poly->terms[0].symbols[0] < 0 ||
            poly->terms[0].symbols[1] >= 0)
            continue;
        int64_t *symbol = &eval->symbols[poly->terms[0].symbols[0]];
        if (*symbol >= 0 && *symbol != dims[d])
            fj_fail(eval->scope, FJ_ERR_TENSOR, "dimension %d of '%.80s' is %lld; %s is %lld already", d,
                    value->name, (long long)dims[d], fj_size_text(sizes, value->dims[d]), (long long)*symbol);
        *symbol = dims[d];
    }
}

static const void *ask(fj_eval *eval, const fj_value *value, const int64_t **ret_dims) {
    fj_dtype dtype;
    int rank;
    const void *data;
    if (!eval->how->input(eval->how->user, value->name, &dtype, &rank, ret_dims, &data)) return NULL;
    if (dtype != value->dtype || rank != value->rank)
        fj_fail(eval->scope, FJ_ERR_TENSOR, "input '%.80s' is %s of rank %d, not %s of rank %d", value->name,
                fj_dtype_name(dtype), rank, fj_dtype_name(value->dtype), value->rank);
    return data;
}

static void replace(fj_eval *eval, int value) {
    const fj_evaluation *how = eval->how;
    fj_array *array = &eval->arrays[value];
    for (int i = 0; i < how->override_count && array->data != NULL; i++)
        if (how->overrides[i].value == value)
            memcpy(array->data, how->overrides[i].data, (size_t)array->count * sizeof *array->data);
}

static void take_inputs(fj_eval *eval) {
    fj_graph *graph = eval->graph;
    const int64_t *dims = NULL;
    for (size_t i = 0; i < graph->inputs.len; i++) {
        const fj_value *value = &graph->values.data[graph->inputs.data[i]];
        if (value->data == NULL && ask(eval, value, &dims) != NULL) bind_dims(eval, value, dims);
    }
    for (size_t i = 0; i < graph->sizes.symbols.len; i++)
        if (eval->symbols[i] < 0) eval->symbols[i] = 0; /* no size that is met has it, or it fails there */
    for (size_t i = 0; i < graph->inputs.len; i++) {
        const fj_value *value = &graph->values.data[graph->inputs.data[i]];
        const void *data = value->data != NULL ? value->data : ask(eval, value, &dims);
        if (data == NULL && value->kind != FJ_VALUE_INPUT) continue; /* told where it is needed */
        if (data == NULL) fj_fail(eval->scope, FJ_ERR_TENSOR, "input '%.80s' is missing", value->name);
        for (int d = 0; value->data == NULL && d < value->rank; d++)
            if (fj_eval_size(eval, value->dims[d]) != dims[d])
                fj_fail(eval->scope, FJ_ERR_TENSOR, "dimension %d of input '%.80s' is %lld, not %s", d,
                        value->name, (long long)dims[d], fj_size_text(&graph->sizes, value->dims[d]));
        load(eval, graph->inputs.data[i], data);
        replace(eval, graph->inputs.data[i]);
    }
}

/* ---- The walk ---------------------------------------------------------------------------- */

static void call_fused(fj_eval *eval, const fj_node *node) {
    const fj_array *inputs[3],
        **captures = FJ_NEW_ARRAY(eval->arena, const fj_array *, node->args[3].count + 1);
    const fj_fused *fused = NULL;
    for (size_t i = 0; i < eval->findings->fused.len; i++)
        if (node->args[5].kind == FJ_ARG_TEXT &&
            strcmp(eval->findings->fused.data[i].name, node->args[5].text) == 0)
            fused = &eval->findings->fused.data[i];
    if (fused == NULL || eval->how->device == NULL)
        fj_node_fail(eval->graph, node,
                     "its mod is not at hand: only the graph that was fused in this call can be run");
    for (int i = 0; i < 3; i++) inputs[i] = fj_eval_of(eval, node, node->args[i].value);
    for (int i = 0; i < node->args[3].count; i++)
        captures[i] = fj_eval_of(eval, node, node->args[3].values[i]);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const fj_status status =
        fj_fuse_call(eval->how, fused, eval->arena, inputs, captures, out, NULL, eval->scope->error);
    if (status != FJ_OK) fj_escape(eval->scope, status);
}

typedef struct evaluating {
    fj_eval eval;
    fj_array *outputs;
} evaluating;

static void evaluate(fj_scope *scope, void *argument) {
    evaluating *e = argument;
    fj_eval *eval = &e->eval;
    fj_graph *graph = eval->graph;
    eval->scope = scope;
    graph->arena->scope = scope; /* sizes that are made on the way are the graph's */
    eval->arrays = FJ_NEW_ARRAY(eval->arena, fj_array, graph->values.len + 1);
    eval->symbols = FJ_NEW_ARRAY(eval->arena, int64_t, graph->sizes.symbols.len + 1);
    for (size_t i = 0; i < graph->sizes.symbols.len; i++) eval->symbols[i] = -1;
    if (graph->mutation >= 0)
        fj_node_fail(graph, &graph->nodes.data[graph->mutation],
                     "it changes a tensor that others read; such a graph cannot be evaluated");
    take_inputs(eval);
    const size_t last = eval->how->until > 0 ? (size_t)eval->how->until : graph->nodes.len;
    for (size_t i = 0; i < last; i++) {
        const fj_node *node = &graph->nodes.data[i];
        if (node->op == FJ_NODE_ATTENTION)
            call_fused(eval, node);
        else
            fj_eval_node(eval, node);
        for (int j = 0; j < node->output_count; j++) replace(eval, node->outputs[j]);
    }
    if (eval->how->ret_arrays != NULL) *eval->how->ret_arrays = eval->arrays;
    for (size_t i = 0; i < graph->outputs.len && e->outputs != NULL; i++) {
        const fj_array *array = &eval->arrays[graph->outputs.data[i]];
        if (array->data == NULL)
            fj_fail(scope, FJ_ERR_TENSOR, "output %zu cannot be evaluated: its tensor is missing", i);
        e->outputs[i] = *array;
    }
}

fj_status fj_fuse_evaluate(fj_model *model, fj_arena *arena, const fj_evaluation *evaluation,
                           fj_array *outputs, fj_error *error) {
    evaluating e = {
        .outputs = outputs,
        .eval = {.arena = arena, .graph = &model->graph, .how = evaluation, .findings = &model->findings}};
    const fj_status status = fj_scope_run(arena, error, evaluate, &e);
    model->arena.scope = NULL;
    return status;
}
