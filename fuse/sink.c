/* What a softmax is of, when it is of more than the scores: a column that the softmax sees and the product with the values does
 * not (an attention sink), and the row's maximum, subtracted first. */
#include <math.h>
#include <string.h>

#include "fuse/lift.h"

static const fj_node *maker(const fj_graph *graph, int value) {
    const int node = graph->values.data[value].node;
    return node >= 0 ? &graph->nodes.data[node] : NULL;
}

/* x of x - amax(x), over the last dimension: a softmax does not change. */
static int unshifted(fj_graph *graph, int value) {
    const fj_node *node = maker(graph, value);
    int64_t alpha = 0;
    if (node == NULL || node->op != FJ_NODE_SUB || node->args[0].kind != FJ_ARG_VALUE ||
        node->args[1].kind != FJ_ARG_VALUE || node->args[2].kind != FJ_ARG_INT ||
        !fj_size_is_const(&graph->sizes, node->args[2].size, &alpha) || alpha != 1)
        return value;
    const int from = node->args[0].value;
    const fj_value rows = graph->values.data[from], *out = &graph->values.data[value];
    const bool same = rows.rank == out->rank && rows.dtype == out->dtype &&
                      memcmp(rows.dims, out->dims, sizeof *rows.dims * (size_t)rows.rank) == 0;
    return same && fj_row_reduced(graph, node->args[1].value, FJ_NODE_AMAX, &rows) == from ? from : value;
}

static bool fits(const fj_graph *graph, const fj_value *part, const fj_value *whole) {
    (void)graph;
    return part->rank == whole->rank && part->dtype == whole->dtype &&
           memcmp(part->dims, whole->dims, sizeof *whole->dims * (size_t)(whole->rank - 1)) == 0;
}

void fj_sink_find(fj_graph *graph, fj_anchor *anchor) {
    anchor->scores = unshifted(graph, anchor->input);
    anchor->sink = -1;
    const fj_value whole = graph->values.data[anchor->scores];
    const fj_node *node = maker(graph, anchor->scores);
    int64_t dim;
    if (node == NULL || node->op != FJ_NODE_CAT || whole.rank < 2 || node->args[0].kind != FJ_ARG_VALUES ||
        node->args[0].count != 2 || node->args[1].kind != FJ_ARG_INT ||
        !fj_size_is_const(&graph->sizes, node->args[1].size, &dim) || (dim != -1 && dim != whole.rank - 1))
        return;
    const fj_size columns =
        fj_size_sub(&graph->sizes, whole.dims[whole.rank - 1], fj_size_of(&graph->sizes, 1));
    for (int at = 0; at < 2; at++) { /* behind the scores, or before them */
        const int sink = node->args[0].values[!at], scores = node->args[0].values[at];
        if (sink < 0 || scores < 0) return;
        const fj_value *a = &graph->values.data[sink], *b = &graph->values.data[scores];
        if (!fits(graph, a, &whole) || !fits(graph, b, &whole) ||
            !fj_size_is(&graph->sizes, a->dims[whole.rank - 1], 1) || b->dims[whole.rank - 1] != columns)
            continue;
        anchor->sink = sink;
        anchor->sink_first = at == 1;
        anchor->scores = scores;
        return;
    }
}

/* Variables that a term's positions have. */
static unsigned vars_of(const fj_region *region, int term) {
    const fj_term t = region->terms.data[term];
    unsigned vars = t.kind == FJ_TERM_INDEX ? fj_index_vars(&region->indices, t.index) : 0;
    for (int i = 0; i < t.count; i++) vars |= vars_of(region, t.args[i]);
    return vars;
}

int fj_sink_trace(fj_region *region, const fj_anchor *anchor, const fj_index *scores) {
    const fj_value *sink = &region->graph->values.data[anchor->sink];
    fj_index at[FJ_MAX_RANK] = {0};
    memcpy(at, scores, sizeof *at * (size_t)sink->rank);
    at[sink->rank - 1] = fj_index_size(&region->indices, fj_size_of(&region->graph->sizes, 0));
    const int term = fj_trace(region, anchor->sink, at);
    if (region->terms.data[term].scored)
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE,
                        "'%.80s', a column beside the scores, is of the scores", sink->name);
    else if ((vars_of(region, term) & ~(1u << FJ_VAR_B | 1u << FJ_VAR_H)) != 0)
        fj_region_raise(
            region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE,
            "'%.80s', a column beside the scores, differs between queries: a sink is one for each head",
            sink->name);
    return term;
}

void fj_sink_columns(fj_region *region, const fj_anchor *anchor, fj_index *index) {
    fj_indices *x = &region->indices;
    const int last = region->graph->values.data[anchor->output].rank - 1;
    if (anchor->sink >= 0 && anchor->sink_first)
        index[last] = fj_index_add(x, index[last], fj_index_size(x, fj_size_of(x->sizes, 1)));
}
