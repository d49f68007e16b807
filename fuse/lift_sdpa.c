/* Attention that is one node: scaled_dot_product_attention. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/lift.h"

static fj_value *value_of(const fj_lifter *lifter, int value) { return &lifter->graph->values.data[value]; }
static const fj_node *node_of(const fj_lifter *lifter, int node) { return &lifter->graph->nodes.data[node]; }

static void operand_index(fj_lifter *lifter, fj_region *region, int value, int row_var, fj_index *index) {
    const fj_value *v = value_of(lifter, value);
    fj_sizes *sizes = &lifter->graph->sizes;
    const fj_index zero = fj_index_size(&region->indices, fj_size_of(sizes, 0));
    const int lead = v->rank - 2;
    fj_size group;
    for (int d = 0; d < lead; d++) {
        const bool is_heads = d == lead - 1;
        const fj_size whole = region->extents[is_heads ? FJ_VAR_H : FJ_VAR_B];
        int64_t by;
        index[d] = region->vars[is_heads ? FJ_VAR_H : FJ_VAR_B];
        if (v->dims[d] == whole) continue;
        if (fj_size_is(sizes, v->dims[d], 1))
            index[d] = zero;
        else if (is_heads && fj_size_divide(sizes, whole, v->dims[d], &group) &&
                 fj_size_is_const(sizes, group, &by))
            index[d] = fj_index_div(&region->indices, index[d], group);
        else
            fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                            "'%.80s' has other batch dimensions than the queries", v->name);
    }
    index[lead] = region->vars[row_var];
    index[lead + 1] = region->vars[FJ_VAR_E];
}

static int sdpa_mask(fj_lifter *lifter, fj_region *region, const fj_node *node, const fj_index *scores,
                     int rank, int *root) {
    const fj_arg *mask = &node->args[3];
    int condition = -1;
    if (mask->kind == FJ_ARG_VALUE) {
        const fj_value *value = value_of(lifter, mask->value);
        fj_index at[FJ_MAX_RANK];
        if (value->rank > rank) {
            fj_region_raise(region, FJ_REASON_MASK_DOES_NOT_BROADCAST,
                            "'%.80s' has a larger rank than the scores", value->name);
            return -1;
        }
        for (int d = 0; d < value->rank; d++) {
            const int var = rank - value->rank + d, which = var == rank - 1 ? FJ_VAR_KV
                                                          : var == rank - 2 ? FJ_VAR_Q
                                                          : var == rank - 3 ? FJ_VAR_H
                                                                            : FJ_VAR_B;
            if (!fj_size_is(&lifter->graph->sizes, value->dims[d], 1) &&
                value->dims[d] != region->extents[which])
                fj_region_raise(region, FJ_REASON_MASK_DOES_NOT_BROADCAST,
                                "dimension %d of '%.80s' is not that of the scores", d, value->name);
        }
        fj_broadcast(region, value, rank, scores, at);
        const int term = fj_trace(region, mask->value, at);
        if (value->dtype == FJ_DTYPE_BOOL)
            condition = term;
        else if (fj_dtype_is_float(value->dtype))
            *root = fj_term_op(region, FJ_NODE_ADD, FJ_TERM_FLOAT, 2, (int[]){*root, term});
        else
            fj_region_raise(region, FJ_REASON_MASK_DTYPE, "'%.80s' is %s", value->name,
                            fj_dtype_name(value->dtype));
    }
    if (node->args[5].kind == FJ_ARG_BOOL && node->args[5].flag) {
        const int causal = fj_term_op(region, FJ_NODE_LE, FJ_TERM_BOOL, 2,
                                      (int[]){fj_term_index(region, region->vars[FJ_VAR_KV]),
                                              fj_term_index(region, region->vars[FJ_VAR_Q])});
        condition = condition < 0
                      ? causal
                      : fj_term_op(region, FJ_NODE_LOGICAL_AND, FJ_TERM_BOOL, 2, (int[]){condition, causal});
    }
    return condition;
}

void fj_lift_sdpa(fj_lifter *lifter, int index) {
    fj_graph *graph = lifter->graph;
    fj_region *region = FJ_NEW(graph->arena, fj_region);
    fj_sources *from = FJ_NEW(graph->arena, fj_sources);
    const fj_node *node = node_of(lifter, index);
    const fj_value *q = value_of(lifter, node->args[0].value), *k = value_of(lifter, node->args[1].value),
                   *v = value_of(lifter, node->args[2].value);
    const fj_anchor anchor = {.node = index, .output = node->outputs[0], .pattern = "sdpa", .sink = -1};
    fj_index scores[FJ_MAX_RANK] = {0}, at[FJ_MAX_RANK] = {0};
    int64_t columns = 1;
    double scale = 1;
    fj_region_init(region, graph, lifter->options);
    region->dtype = q->dtype;
    region->product = index;
    fj_lift_leading(lifter, region, q, q->dims[q->rank - 2], k->dims[k->rank - 2], scores);
    scores[q->rank - 2] = region->vars[FJ_VAR_Q];
    scores[q->rank - 1] = region->vars[FJ_VAR_KV];
    if (q->dtype != k->dtype || q->dtype != v->dtype || q->dtype < FJ_DTYPE_F16)
        fj_region_raise(region, FJ_REASON_DTYPE_MIX, "queries, keys and values are %s, %s and %s",
                        fj_dtype_name(q->dtype), fj_dtype_name(k->dtype), fj_dtype_name(v->dtype));
    if (k->rank != q->rank || v->rank != q->rank || v->dims[v->rank - 2] != k->dims[k->rank - 2] ||
        q->dims[q->rank - 1] != k->dims[k->rank - 1]) {
        fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER, "queries, keys and values do not fit");
        fj_lift_refuse(lifter, region, node->name);
        return;
    }
    if (!(node->args[4].kind == FJ_ARG_FLOAT && node->args[4].real == 0) &&
        !(node->args[4].kind == FJ_ARG_INT && fj_size_is(&graph->sizes, node->args[4].size, 0)))
        fj_region_raise(region, FJ_REASON_DROPOUT_IN_TRAINING, "it drops weights");
    from->columns[0] = from->columns[1] = q->dims[q->rank - 1];
    from->columns[2] = v->dims[v->rank - 1];
    (void)fj_size_is_const(&graph->sizes, from->columns[0], &columns);
    if (node->args[6].kind == FJ_ARG_FLOAT)
        scale = node->args[6].real;
    else if (node->args[6].kind == FJ_ARG_NONE && columns > 0)
        scale = 1 / sqrt((double)columns);
    else
        fj_region_raise(region, FJ_REASON_SCALE_NOT_CONSTANT, "its scale is not a number");
    static const int rows[3] = {FJ_VAR_Q, FJ_VAR_KV, FJ_VAR_KV};
    for (int i = 0; i < 3; i++) {
        fj_lift_set_columns(region, from->columns[i]);
        operand_index(lifter, region, node->args[i].value, rows[i], at);
        fj_operand_find(region, node->args[i].value, at, rows[i], &from->candidates[i]);
    }
    int root = fj_term_make(region, (fj_term){.kind = FJ_TERM_SCORE,
                                              .type = FJ_TERM_FLOAT,
                                              .scored = true,
                                              .printable = true,
                                              .number = scale});
    const int mask = sdpa_mask(lifter, region, node, scores, q->rank, &root);
    const fj_roots roots = {root, mask, -1};
    fj_lift_finish(lifter, region, &anchor, from, index, false, &roots, NULL, 1, true, NULL);
}
