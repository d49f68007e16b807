/* The graph after: each second product gives way to a fused attention, and what nobody reads any more goes. */
#include <string.h>

#include "fuse/lift.h"

static int new_value(fj_graph *graph, const char *name, fj_dtype dtype, int rank, const fj_size *dims) {
    return fj_graph_value(graph, fj_arena_printf(graph->arena, "%s_%zu", name, graph->values.len),
                          FJ_VALUE_RESULT, dtype, rank, dims);
}

static void put(fj_lifter *lifter, const fj_plan_of *plan, int result) {
    static const char *const names[] = {"query", "key", "value"};
    static const int rows[] = {FJ_VAR_Q, FJ_VAR_KV, FJ_VAR_KV};
    fj_graph *graph = lifter->graph;
    fj_region *region = plan->region;
    fj_fused *fused = &lifter->model->findings.fused.data[plan->fused];
    fj_arg args[6] = {{.kind = FJ_ARG_NONE}};
    for (int i = 0; i < 3; i++) {
        region->extents[FJ_VAR_E] = plan->columns[i];
        region->vars[FJ_VAR_E] = fj_index_var(&region->indices, FJ_VAR_E, plan->columns[i]);
        const int value = fj_operand_emit(region, &plan->operands[i], rows[i],
                                          fj_arena_printf(graph->arena, "%s_%s", fused->name, names[i]));
        args[i] = (fj_arg){.kind = FJ_ARG_VALUE, .value = value};
    }
    args[3] = (fj_arg){.kind = FJ_ARG_VALUES, .count = fused->capture_count, .values = fused->captures};
    args[4] = (fj_arg){.kind = FJ_ARG_FLOAT, .real = fused->scale};
    args[5] = (fj_arg){.kind = FJ_ARG_TEXT, .text = fused->name};
    const fj_size dims[4] = {fused->batch, fused->heads, fused->q_len, fused->value_dim};
    const fj_value out = graph->values.data[result];
    const bool same = !plan->transposed && out.rank == 4 && memcmp(out.dims, dims, sizeof dims) == 0;
    int made = same ? result : new_value(graph, fused->name, out.dtype, 4, dims);
    (void)fj_graph_node(graph, FJ_NODE_ATTENTION, fused->name, args, 6, &made, 1);
    if (same) return;
    if (plan->transposed) {
        const fj_size turned[4] = {dims[0], dims[1], dims[3], dims[2]};
        fj_size order[4];
        for (int i = 0; i < 4; i++) order[i] = fj_size_of(&graph->sizes, i < 2 ? i : 5 - i);
        const fj_arg turn[2] = {{.kind = FJ_ARG_VALUE, .value = made},
                                {.kind = FJ_ARG_INTS, .count = 4, .sizes = order}};
        made = new_value(graph, fused->name, out.dtype, 4, turned);
        (void)fj_graph_node(graph, FJ_NODE_PERMUTE, graph->values.data[made].name, turn, 2, &made, 1);
    }
    const fj_arg shape = {.kind = FJ_ARG_VALUE, .value = made};
    (void)fj_graph_node(graph, FJ_NODE_RESHAPE, fj_arena_printf(graph->arena, "%s_result", fused->name),
                        &shape, 1, &result, 1);
}

void fj_rewrite(fj_lifter *lifter) {
    fj_graph *graph = lifter->graph;
    const size_t count = graph->nodes.len;
    fj_node *old = FJ_NEW_ARRAY(graph->arena, fj_node, count + 1);
    if (lifter->plans.len == 0) return;
    memcpy(old, graph->nodes.data, sizeof *old * count);
    graph->nodes.len = 0;
    for (size_t i = 0; i < count; i++) {
        const fj_plan_of *plan = NULL;
        for (size_t p = 0; p < lifter->plans.len; p++)
            if (lifter->plans.data[p].node == (int)i) plan = &lifter->plans.data[p];
        if (plan != NULL) {
            put(lifter, plan, old[i].outputs[0]);
            continue;
        }
        for (int j = 0; j < old[i].output_count; j++)
            graph->values.data[old[i].outputs[j]].node = (int)graph->nodes.len;
        if (graph->mutation == (int)i) graph->mutation = (int)graph->nodes.len;
        FJ_PUSH(graph->arena, &graph->nodes, old[i]);
    }
    fj_graph_sweep(graph);
}
