/* Each softmax: a fused attention, or a reason. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/lift.h"

static fj_value *value_of(const fj_lifter *lifter, int value) { return &lifter->graph->values.data[value]; }
static const fj_node *node_of(const fj_lifter *lifter, int node) { return &lifter->graph->nodes.data[node]; }

/* ---- Positions --------------------------------------------------------------------------- */

/* Variables of a tensor [..., rows, columns]: two dimensions before these are batch and heads, more are a batch and heads in
 * parts, one is heads. index: those of its dimensions but the last two. */
void fj_lift_leading(fj_lifter *lifter, fj_region *region, const fj_value *value, fj_size q_len,
                     fj_size kv_len, fj_index *index) {
    fj_sizes *sizes = &lifter->graph->sizes;
    const int count = value->rank - 2;
    fj_size heads = fj_size_of(sizes, 1);
    const fj_size batch = count >= 2 ? value->dims[0] : heads;
    for (int d = count >= 2; d < count; d++) heads = fj_size_mul(sizes, heads, value->dims[d]);
    fj_region_extents(region, batch, heads, q_len, kv_len);
    if (count >= 2) index[0] = region->vars[FJ_VAR_B];
    if (count == 1) index[0] = region->vars[FJ_VAR_H];
    if (count == 2) index[1] = region->vars[FJ_VAR_H];
    if (count > 2) {
        fj_value whole = {.rank = 1, .dims = {heads}}, parts = {.rank = count - 1};
        for (int d = 1; d < count; d++) parts.dims[d - 1] = value->dims[d];
        (void)fj_index_reshape(&region->indices, &whole, &region->vars[FJ_VAR_H], &parts, index + 1);
    }
}

/* The batch dimensions of a product that [batch, heads] are, in the order of its own. */
static bool batch_index(fj_region *region, const fj_value *out, fj_index *ret) {
    fj_value whole = {.rank = 2, .dims = {region->extents[FJ_VAR_B], region->extents[FJ_VAR_H]}},
             parts = {.rank = out->rank - 2};
    const fj_index vars[2] = {region->vars[FJ_VAR_B], region->vars[FJ_VAR_H]};
    for (int d = 0; d < parts.rank; d++) parts.dims[d] = out->dims[d];
    return fj_index_reshape(&region->indices, &whole, vars, &parts, ret);
}

void fj_lift_set_columns(fj_region *region, fj_size columns) {
    region->extents[FJ_VAR_E] = columns;
    region->vars[FJ_VAR_E] = fj_index_var(&region->indices, FJ_VAR_E, columns);
}

/* ---- A softmax between two products ------------------------------------------------------ */

/* Why there is no product: an operation on the way to one, or none at all. */
static void explain(fj_lifter *lifter, fj_region *region, int value) {
    const char *name = NULL, *op = "";
    for (int steps = 0; steps < 24 && value >= 0 && value_of(lifter, value)->node >= 0; steps++) {
        const fj_node *node = node_of(lifter, value_of(lifter, value)->node);
        const fj_node_op_info *info = &fj_node_ops[node->op];
        if (node->op == FJ_NODE_MATMUL || node->op == FJ_NODE_ADDMM) break;
        const bool plain = info->class == FJ_CLASS_VIEW ||
                           (info->class == FJ_CLASS_POINT && info->text != NULL) || node->op == FJ_NODE_CAST;
        if (!plain && name == NULL) name = node->name, op = node->target ? node->target : info->name;
        value = fj_node_input(node, 0);
    }
    const bool found = value >= 0 && value_of(lifter, value)->node >= 0;
    region->reasons &= ~(1u << FJ_REASON_OUTPUTS_USED);
    if (found && name != NULL)
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "'%.80s' (%.60s) of the scores", name,
                        op);
    else
        fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "no product of queries and keys leads to it");
}

static bool read_second(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor,
                        const fj_second *second, const fj_index *scores, fj_sources *from) {
    const fj_node *node = node_of(lifter, second->node);
    const fj_value *out = value_of(lifter, node->outputs[0]);
    const fj_value *weights = value_of(lifter, node->args[second->place].value),
                   *other = value_of(lifter, node->args[!second->place].value);
    fj_index index[FJ_MAX_RANK] = {0}, at[FJ_MAX_RANK] = {0}, back[FJ_MAX_RANK] = {0};
    if (out->rank < 2 || weights->rank < 2 || other->rank < 2 || !batch_index(region, out, index))
        return fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                               "'%.80s' has other batch dimensions than the scores", node->name),
               false;
    const int left = second->place == 0 ? FJ_VAR_Q : FJ_VAR_KV,
              right = second->place == 0 ? FJ_VAR_KV : FJ_VAR_Q;
    fj_broadcast(region, weights, out->rank, index, at);
    at[weights->rank - 2] = region->vars[left];
    at[weights->rank - 1] = region->vars[right];
    fj_index expected[FJ_MAX_RANK] = {0};
    memcpy(expected, scores, sizeof *scores * (size_t)value_of(lifter, anchor->output)->rank);
    fj_sink_columns(region, anchor, expected);
    if (!fj_second_back(lifter, region, anchor, second, at, back) ||
        memcmp(back, expected, sizeof *scores * (size_t)value_of(lifter, anchor->output)->rank) != 0)
        return fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                               "'%.80s' does not multiply rows of the weights with values", node->name),
               false;
    /* A slice or a repetition of the rows has the same indices, and other rows. */
    if (out->dims[out->rank - (second->place == 0 ? 2 : 1)] != region->extents[FJ_VAR_Q])
        return fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                               "'%.80s' has another number of rows than the scores", node->name),
               false;
    from->columns[2] = second->place == 0 ? other->dims[other->rank - 1] : other->dims[other->rank - 2];
    if (other->dims[second->place == 0 ? other->rank - 2 : other->rank - 1] != region->extents[FJ_VAR_KV])
        return fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                               "'%.80s' has another number of values than keys", node->name),
               false;
    fj_lift_set_columns(region, from->columns[2]);
    fj_broadcast(region, other, out->rank, index, at);
    at[other->rank - 2] = second->place == 0 ? region->vars[FJ_VAR_KV] : region->vars[FJ_VAR_E];
    at[other->rank - 1] = second->place == 0 ? region->vars[FJ_VAR_E] : region->vars[FJ_VAR_KV];
    fj_candidates *values = &from->candidates[2];
    fj_operand_find(region, node->args[!second->place].value, at, FJ_VAR_KV, values);
    int kept = 0; /* no call scales values: they are taken as they are scaled */
    for (int i = 0; i < values->count; i++)
        if (values->items[i].scale == 1) values->items[kept++] = values->items[i];
    values->count = kept;
    return true;
}

static void check_dtypes(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor,
                         const fj_second *second) {
    const fj_value *out = value_of(lifter, node_of(lifter, second->node)->outputs[0]);
    const fj_dtype softmax = value_of(lifter, anchor->output)->dtype;
    if (region->dtype < FJ_DTYPE_F16 || out->dtype != region->dtype)
        fj_region_raise(region, FJ_REASON_DTYPE_MIX, "the values are %s, the result %s",
                        fj_dtype_name(region->dtype), fj_dtype_name(out->dtype));
    if (fj_dtype_size(second->narrow) < fj_dtype_size(region->dtype) ||
        (fj_dtype_size(second->narrow) == fj_dtype_size(region->dtype) && second->narrow != region->dtype))
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "the weights are rounded to %s",
                        fj_dtype_name(second->narrow));
    const fj_dtype scores = value_of(lifter, anchor->input)->dtype;
    if (fj_dtype_size(softmax) < fj_dtype_size(scores) ||
        (fj_dtype_size(softmax) == fj_dtype_size(scores) && softmax != scores))
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' converts the scores from %s to %s",
                        node_of(lifter, anchor->node)->name, fj_dtype_name(scores), fj_dtype_name(softmax));
    if (softmax == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64)
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' computes in F64",
                        node_of(lifter, anchor->node)->name);
    if (softmax < FJ_DTYPE_F32)
        fj_region_note(region, "'%.60s' rounds the weights to %s before they are multiplied",
                       node_of(lifter, anchor->node)->name, fj_dtype_name(softmax));
}

static void look_at(fj_lifter *lifter, fj_anchor *anchor, const char *wrong) {
    fj_graph *graph = lifter->graph;
    fj_region *region = FJ_NEW(graph->arena, fj_region);
    fj_second second;
    fj_sources *from = FJ_NEW(graph->arena, fj_sources);
    fj_index scores[FJ_MAX_RANK] = {0};
    fj_interior inside = {0};
    fj_sink_find(graph, anchor);
    const fj_value *input = value_of(lifter, anchor->scores);
    int sink = -1;
    const char *name = node_of(lifter, anchor->node)->name;
    fj_region_init(region, graph, lifter->options);
    if (wrong != NULL) fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "%s", wrong);
    if (input->rank < 2) {
        fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "the scores have rank %d", input->rank);
        fj_lift_refuse(lifter, region, name);
        return;
    }
    if (node_of(lifter, anchor->node)->op == FJ_NODE_SOFTMAX) {
        const int dim = fj_node_dim(graph, node_of(lifter, anchor->node),
                                    &node_of(lifter, anchor->node)->args[1], input->rank);
        if (dim != input->rank - 1)
            fj_region_raise(region, FJ_REASON_SOFTMAX_DIM, "it is over dimension %d of %d", dim, input->rank);
    }
    const bool has_second = fj_second_find(lifter, region, anchor, &second);
    region->dtype = has_second
                      ? value_of(lifter, node_of(lifter, second.node)->args[!second.place].value)->dtype
                      : input->dtype;
    fj_lift_leading(lifter, region, input, input->dims[input->rank - 2], input->dims[input->rank - 1],
                    scores);
    scores[input->rank - 2] = region->vars[FJ_VAR_Q];
    scores[input->rank - 1] = region->vars[FJ_VAR_KV];
    const int root = fj_trace(region, anchor->scores, scores);
    if (anchor->sink >= 0) sink = fj_sink_trace(region, anchor, scores);
    if (region->product < 0) explain(lifter, region, anchor->scores);
    if (region->product < 0 || !has_second) {
        fj_lift_refuse(lifter, region, name);
        return;
    }
    from->columns[0] = from->columns[1] = region->extents[FJ_VAR_E];
    fj_operand_find(region, region->factors[0], region->factor_index[0], FJ_VAR_Q, &from->candidates[0]);
    fj_operand_find(region, region->factors[1], region->factor_index[1], FJ_VAR_KV, &from->candidates[1]);
    check_dtypes(lifter, region, anchor, &second);
    const fj_dtype products = value_of(lifter, node_of(lifter, region->product)->outputs[0])->dtype;
    if (fj_dtype_size(products) < fj_dtype_size(region->dtype) ||
        (fj_dtype_size(products) == fj_dtype_size(region->dtype) && products != region->dtype))
        fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' rounds the products to %s",
                        node_of(lifter, region->product)->name, fj_dtype_name(products));
    const int weights = node_of(lifter, second.node)->args[second.place].value;
    fj_lift_mark(lifter, region->product, second.node, weights, &inside);
    fj_lift_check_inside(lifter, region, second.node, &inside);
    if (!read_second(lifter, region, anchor, &second, scores, from)) {
        fj_lift_refuse(lifter, region, name);
        return;
    }
    if (inside.depends[node_of(lifter, second.node)->args[!second.place].value])
        fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "the values are made of the scores");
    const bool safe = second.safe || (node_of(lifter, anchor->node)->target &&
                                      strstr(node_of(lifter, anchor->node)->target, "_safe_softmax"));
    if (strcmp(anchor->pattern, "written-out, no maximum") == 0)
        fj_region_note(region, "'%.60s' subtracts no maximum: it overflows where a kernel does not", name);
    fj_anchor named = *anchor;
    if (safe && strcmp(named.pattern, "softmax") == 0) named.pattern = "safe-softmax";
    const fj_roots roots = {root, -1, sink};
    fj_lift_finish(lifter, region, &named, from, second.node, second.place == 1, &roots, inside.depends,
                   inside.count + 1, safe || sink >= 0, second.guard);
}

/* ---- All of them ------------------------------------------------------------------------- */

static void find_users(fj_lifter *lifter) {
    fj_graph *graph = lifter->graph;
    lifter->user_begin = FJ_NEW_ARRAY(graph->arena, int, graph->values.len + 2);
    for (int pass = 0; pass < 2; pass++) {
        int *at = FJ_NEW_ARRAY(graph->arena, int, graph->values.len + 1);
        int *last = FJ_NEW_ARRAY(graph->arena, int, graph->values.len + 1);
        if (pass == 1)
            lifter->users = FJ_NEW_ARRAY(graph->arena, int, lifter->user_begin[graph->values.len] + 1);
        for (size_t i = 0; i < graph->nodes.len; i++)
            for (int j = 0, v; (v = fj_node_input(&graph->nodes.data[i], j)) >= 0; j++) {
                if (last[v] == (int)i + 1) continue; /* each node once */
                last[v] = (int)i + 1;
                if (pass == 1) lifter->users[lifter->user_begin[v] + at[v]] = (int)i;
                at[v]++;
            }
        for (size_t v = 0; pass == 0 && v < graph->values.len; v++)
            lifter->user_begin[v + 1] = lifter->user_begin[v] + at[v];
    }
}

typedef struct finding {
    fj_model *model;
    const fj_fuse_options *options;
} finding;

static void find(fj_scope *scope, void *argument) {
    const finding *what = argument;
    fj_lifter lifter = {.model = what->model, .graph = &what->model->graph, .options = what->options};
    fj_graph *graph = lifter.graph;
    (void)scope;
    find_users(&lifter);
    for (size_t i = 0; i < graph->unread.len; i++) {
        const fj_unread *each = &graph->unread.data[i];
        FJ_PUSH(graph->arena, &what->model->findings.refused,
                (fj_refused){each->name, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, each->reason});
    }
    for (size_t i = 0; i < graph->nodes.len; i++) {
        const fj_node *node = &graph->nodes.data[i];
        const char *wrong = NULL;
        fj_anchor anchor = {0};
        if (node->op == FJ_NODE_SOFTMAX) {
            anchor = (fj_anchor){.node = (int)i,
                                 .input = node->args[0].value,
                                 .output = node->outputs[0],
                                 .pattern = "softmax"};
            look_at(&lifter, &anchor, NULL);
        } else if (node->op == FJ_NODE_SDPA) {
            fj_lift_sdpa(&lifter, (int)i);
        } else if (fj_written_out(&lifter, (int)i, &anchor, &wrong)) {
            look_at(&lifter, &anchor, wrong);
        }
    }
    fj_rewrite(&lifter);
}

fj_status fj_fuse_find(fj_model *model, const fj_fuse_options *options, fj_error *error) {
    static const fj_fuse_options plain = {0};
    finding what = {model, options ? options : &plain};
    return fj_scope_run(&model->arena, error, find, &what);
}
