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
static void leading(fj_lifter *lifter, fj_region *region, const fj_value *value, fj_size q_len,
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

static void set_columns(fj_region *region, fj_size columns) {
    region->extents[FJ_VAR_E] = columns;
    region->vars[FJ_VAR_E] = fj_index_var(&region->indices, FJ_VAR_E, columns);
}

/* ---- Operands ---------------------------------------------------------------------------- */

typedef struct sources {
    fj_candidates candidates[3];
    fj_size columns[3];
} sources;

static bool choose(fj_region *region, const sources *from, int64_t group, fj_operand operands[3]) {
    return fj_operand_choose(region, &from->candidates[0], 1, &operands[0]) &&
           fj_operand_choose(region, &from->candidates[1], group, &operands[1]) &&
           fj_operand_choose(region, &from->candidates[2], group, &operands[2]);
}

/* The largest group of heads that k and v share. */
static bool choose_operands(fj_region *region, const sources *from, fj_operand operands[3]) {
    static const char *const names[] = {"queries", "keys", "values"};
    int64_t best = 0;
    for (int i = 0; i < from->candidates[1].count; i++) {
        const int64_t group = from->candidates[1].items[i].group;
        if (group > best && choose(region, from, group, operands)) best = group;
    }
    if (best > 0) return choose(region, from, best, operands);
    for (int i = 0; i < 3; i++) {
        if (from->candidates[i].count == 0)
            fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER,
                            "the %s are not laid out as [batch, heads, length, columns]", names[i]);
        else
            fj_region_raise(region, FJ_REASON_DTYPE_MIX, "queries, keys and values are not all %s",
                            fj_dtype_name(region->dtype));
    }
    return false;
}

static void check_operands(fj_lifter *lifter, fj_region *region, const sources *from,
                           const fj_operand operands[3]) {
    const char *device = value_of(lifter, operands[0].value)->device;
    for (int i = 0; i < 3; i++) {
        int64_t columns = 0;
        const char *other = value_of(lifter, operands[i].value)->device;
        if (device != NULL && other != NULL && strcmp(device, other) != 0)
            fj_region_raise(region, FJ_REASON_DEVICE_MIX, "queries are on %s, others on %s", device, other);
        if (!fj_size_is_const(&lifter->graph->sizes, from->columns[i], &columns) || columns < 1 ||
            columns > 256)
            fj_region_raise(region, FJ_REASON_SIZE_BOUND, "a head dimension is %s; 1 to 256 are supported",
                            fj_size_text(&lifter->graph->sizes, from->columns[i]));
    }
    const double scale = operands[0].scale * operands[1].scale;
    int exponent;
    if (region->dtype < FJ_DTYPE_F32 && fabs(frexp(scale, &exponent)) != 0.5)
        fj_region_note(
            region,
            "queries or keys are scaled before the product and rounded to %s; kernels scale the product",
            fj_dtype_name(region->dtype));
}

/* ---- What is inside ---------------------------------------------------------------------- */

typedef struct interior {
    bool *depends; /* values that are made of the product */
    bool *leads;   /* values that the second product is made of */
    int count;
} interior;

static void mark(fj_lifter *lifter, int product, int last, int weights, interior *ret) {
    fj_graph *graph = lifter->graph;
    ret->depends = FJ_NEW_ARRAY(graph->arena, bool, graph->values.len + 1);
    ret->leads = FJ_NEW_ARRAY(graph->arena, bool, graph->values.len + 1);
    ret->depends[graph->nodes.data[product].outputs[0]] = true;
    ret->leads[weights] = true;
    for (int i = product + 1; i < (int)graph->nodes.len; i++) {
        const fj_node *node = &graph->nodes.data[i];
        bool depends = false;
        for (int j = 0, v; (v = fj_node_input(node, j)) >= 0; j++) depends |= ret->depends[v];
        for (int j = 0; depends && j < node->output_count; j++) ret->depends[node->outputs[j]] = true;
    }
    for (int i = last; i-- > 0;) {
        const fj_node *node = &graph->nodes.data[i];
        bool leads = false;
        for (int j = 0; j < node->output_count; j++) leads |= ret->leads[node->outputs[j]];
        for (int j = 0, v; leads && (v = fj_node_input(node, j)) >= 0; j++) ret->leads[v] = true;
    }
}

static void check_inside(fj_lifter *lifter, fj_region *region, int last, interior *inside) {
    fj_graph *graph = lifter->graph;
    for (int i = region->product; i < last; i++) {
        const fj_node *node = &graph->nodes.data[i];
        bool in = false;
        for (int j = 0; j < node->output_count; j++)
            in |= inside->depends[node->outputs[j]] && inside->leads[node->outputs[j]];
        if (!in) continue;
        inside->count++;
        for (int j = 0; j < node->output_count; j++) {
            const int value = node->outputs[j];
            if (value_of(lifter, value)->is_output)
                fj_region_raise(region, FJ_REASON_OUTPUTS_USED, "'%.80s' is an output of the graph",
                                value_of(lifter, value)->name);
            for (int u = 0; u < fj_user_count(lifter, value); u++) {
                const int user = fj_user(lifter, value, u);
                const int made =
                    node_of(lifter, user)->output_count > 0 ? node_of(lifter, user)->outputs[0] : -1;
                if (user != last && (made < 0 || !inside->leads[made]))
                    fj_region_raise(region, FJ_REASON_OUTPUTS_USED, "'%.80s' is also read by '%.80s'",
                                    value_of(lifter, value)->name, node_of(lifter, user)->name);
            }
        }
    }
}

static void check_terms(fj_lifter *lifter, fj_region *region, int term, const bool *depends, bool *seen) {
    const fj_term t = region->terms.data[term];
    if (seen[term]) return;
    seen[term] = true;
    if (!t.printable)
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "an index has a size that is a symbol");
    if (t.kind == FJ_TERM_READ) {
        const fj_value *value = value_of(lifter, t.value);
        if (depends != NULL && depends[t.value])
            fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "'%.80s' (%s) of the scores",
                            value->name,
                            value->node >= 0 ? fj_node_ops[node_of(lifter, value->node)->op].name : "input");
        if (value->dtype == FJ_DTYPE_F64 && region->dtype != FJ_DTYPE_F64)
            fj_region_raise(region, FJ_REASON_MASK_DTYPE, "'%.80s' is F64 where queries are %s", value->name,
                            fj_dtype_name(region->dtype));
    }
    for (int i = 0; i < t.count; i++) check_terms(lifter, region, t.args[i], depends, seen);
}

/* ---- One result -------------------------------------------------------------------------- */

static void refuse(fj_lifter *lifter, fj_region *region, const char *softmax) {
    int reason = 0;
    while (!(region->reasons >> reason & 1)) reason++;
    FJ_PUSH(lifter->graph->arena, &lifter->model->findings.refused,
            (fj_refused){softmax, (fj_reason)reason, region->details[reason]});
}

static bool is_scale(const fj_region *region, double scale) {
    const double most = region->dtype == FJ_DTYPE_F64 ? 0x1p1022 : 0x1p126;
    return fabs(scale) >= 1 / most && fabs(scale) <= most;
}

static bool has_score(const fj_region *region, int term, bool *seen) {
    const fj_term t = region->terms.data[term];
    if (seen[term]) return false;
    seen[term] = true;
    if (t.kind == FJ_TERM_SCORE) return true;
    for (int i = 0; i < t.count; i++)
        if (has_score(region, t.args[i], seen)) return true;
    return false;
}

/* Whether the mod is one for the compiler of mods: what it does not take is refused here, not when the kernel is made. */
static bool compiles(fj_lifter *lifter, fj_region *region, const fj_fused *fused) {
    fj_binding *bindings = FJ_NEW_ARRAY(lifter->graph->arena, fj_binding, fused->capture_count + 1);
    fj_mod *mod = NULL;
    fj_error error = {0};
    if (lifter->options->context == NULL || (!fused->has_score && !fused->has_mask && !fused->has_sink))
        return true;
    for (int i = 0; i < fused->capture_count; i++) {
        const fj_value *value = value_of(lifter, fused->captures[i]);
        bindings[i] =
            (fj_binding){.name = fused->capture_names[i], .dtype = value->dtype, .rank = value->rank};
        for (int d = 0; d < value->rank; d++)
            if (!fj_size_is_const(&lifter->graph->sizes, value->dims[d], &bindings[i].dims[d]))
                bindings[i].dims[d] = -1;
    }
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = fused->mod,
                              .source_length = strlen(fused->mod),
                              .file = fused->name,
                              .bindings = bindings,
                              .binding_count = (size_t)fused->capture_count};
    const fj_status status = fj_mod_create(lifter->options->context, &desc, &mod, &error);
    fj_mod_unref(&mod);
    if (status == FJ_ERR_MEMORY)
        fj_fail(lifter->graph->arena->scope, FJ_ERR_MEMORY, "not enough memory for a mod");
    if (status != FJ_OK)
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "the mod does not compile: %.180s",
                        error.text);
    fj_error_finish(&error);
    return status == FJ_OK;
}

static void check_devices(fj_lifter *lifter, fj_region *region, const fj_plan_of *plan,
                          const fj_fused *fused) {
    const char *device = value_of(lifter, plan->operands[0].value)->device;
    for (int i = 0; i < fused->capture_count; i++) {
        const fj_value *value = value_of(lifter, fused->captures[i]);
        if (device != NULL && value->device != NULL && strcmp(device, value->device) != 0)
            fj_region_raise(region, FJ_REASON_DEVICE_MIX, "queries are on %s, '%.80s' on %s", device,
                            value->name, value->device);
    }
}

/* Captured floats may be -inf. */
static bool reads_floats(const fj_region *region, int term, bool *seen) {
    const fj_term t = region->terms.data[term];
    if (seen[term]) return false;
    seen[term] = true;
    if (t.kind == FJ_TERM_READ && t.type == FJ_TERM_FLOAT) return true;
    for (int i = 0; i < t.count; i++)
        if (reads_floats(region, t.args[i], seen)) return true;
    return false;
}

/* The score's term, and what else hides it, to a mod and a plan. */
static void finish(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const sources *from,
                   int last, bool transposed, const fj_roots *roots, const bool *depends, int nodes,
                   bool safe, const char *guard) {
    int root = roots->score, mask = roots->mask;
    fj_graph *graph = lifter->graph;
    fj_plan_of plan = {.region = region, .node = last, .transposed = transposed};
    int split = -1;
    fj_fused fused = {
        .pattern = anchor->pattern, .softmax = node_of(lifter, anchor->node)->name, .dtype = region->dtype};
    if (graph->mutation >= 0)
        fj_region_raise(region, FJ_REASON_MUTATION_BETWEEN, "'%.80s' changes a tensor that others read",
                        node_of(lifter, graph->mutation)->name);
    const bool chosen = choose_operands(region, from, plan.operands);
    if (chosen) check_operands(lifter, region, from, plan.operands);
    root = fj_split_mask(region, root, &split);
    if (split >= 0)
        mask =
            mask < 0 ? split : fj_term_op(region, FJ_NODE_LOGICAL_AND, FJ_TERM_BOOL, 2, (int[]){mask, split});
    fused.scale = fj_take_scale(region, &root);
    if (chosen) fused.scale *= plan.operands[0].scale * plan.operands[1].scale;
    if (!is_scale(region, fused.scale))
        fj_region_raise(region, FJ_REASON_SCALE_NOT_CONSTANT,
                        "the scale's magnitude is outside of what kernels take");
    bool *seen = FJ_NEW_ARRAY(graph->arena, bool, region->terms.len + 1);
    check_terms(lifter, region, root, depends, seen);
    if (mask >= 0) check_terms(lifter, region, mask, depends, seen);
    if (roots->sink >= 0) check_terms(lifter, region, roots->sink, depends, seen);
    memset(seen, 0, region->terms.len);
    if (mask >= 0 && has_score(region, mask, seen))
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "a mask depends on the scores");
    if (guard != NULL && !fj_term_is_finite(region, root))
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE,
                        "'%.80s' hides NaN that the scores may have", guard);
    if (region->reasons != 0) {
        refuse(lifter, region, fused.softmax);
        return;
    }
    memset(seen, 0, region->terms.len);
    if (!safe && (mask >= 0 || !fj_term_is_finite(region, root) || reads_floats(region, root, seen)))
        fj_region_note(region, "rows that see nothing are 0; the graph gives NaN");
    fused.name = fj_arena_printf(graph->arena, "attention_%zu", lifter->model->findings.fused.len);
    fused.batch = region->extents[FJ_VAR_B];
    fused.heads = region->extents[FJ_VAR_H];
    (void)fj_size_divide(&graph->sizes, fused.heads, fj_size_of(&graph->sizes, plan.operands[1].group),
                         &fused.kv_heads);
    fused.q_len = region->extents[FJ_VAR_Q];
    fused.kv_len = region->extents[FJ_VAR_KV];
    fused.head_dim = from->columns[1];
    fused.value_dim = from->columns[2];
    fused.nodes = nodes;
    fused.result = node_of(lifter, last)->outputs[0];
    fused.transposed = transposed;
    for (int i = 0; i < 3; i++) fused.inputs[i] = plan.operands[i].value;
    memcpy(plan.columns, from->columns, sizeof plan.columns);
    fj_emit_mod(region, &fused, &(fj_roots){root, mask, roots->sink});
    check_devices(lifter, region, &plan, &fused);
    if (region->reasons != 0 || !compiles(lifter, region, &fused)) {
        refuse(lifter, region, fused.softmax);
        return;
    }
    for (size_t i = 0; i < region->notes.len; i++) FJ_PUSH(graph->arena, &fused.notes, region->notes.data[i]);
    plan.fused = lifter->model->findings.fused.len;
    FJ_PUSH(graph->arena, &lifter->model->findings.fused, fused);
    FJ_PUSH(graph->arena, &lifter->plans, plan);
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
                        const fj_second *second, const fj_index *scores, sources *from) {
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
    set_columns(region, from->columns[2]);
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
    sources *from = FJ_NEW(graph->arena, sources);
    fj_index scores[FJ_MAX_RANK] = {0};
    interior inside = {0};
    fj_sink_find(graph, anchor);
    const fj_value *input = value_of(lifter, anchor->scores);
    int sink = -1;
    const char *name = node_of(lifter, anchor->node)->name;
    fj_region_init(region, graph, lifter->options);
    if (wrong != NULL) fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "%s", wrong);
    if (input->rank < 2) {
        fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "the scores have rank %d", input->rank);
        refuse(lifter, region, name);
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
    leading(lifter, region, input, input->dims[input->rank - 2], input->dims[input->rank - 1], scores);
    scores[input->rank - 2] = region->vars[FJ_VAR_Q];
    scores[input->rank - 1] = region->vars[FJ_VAR_KV];
    const int root = fj_trace(region, anchor->scores, scores);
    if (anchor->sink >= 0) sink = fj_sink_trace(region, anchor, scores);
    if (region->product < 0) explain(lifter, region, anchor->scores);
    if (region->product < 0 || !has_second) {
        refuse(lifter, region, name);
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
    mark(lifter, region->product, second.node, weights, &inside);
    check_inside(lifter, region, second.node, &inside);
    if (!read_second(lifter, region, anchor, &second, scores, from)) {
        refuse(lifter, region, name);
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
    finish(lifter, region, &named, from, second.node, second.place == 1, &roots, inside.depends,
           inside.count + 1, safe || sink >= 0, second.guard);
}

/* ---- Attention as one node --------------------------------------------------------------- */

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

static void look_at_sdpa(fj_lifter *lifter, int index) {
    fj_graph *graph = lifter->graph;
    fj_region *region = FJ_NEW(graph->arena, fj_region);
    sources *from = FJ_NEW(graph->arena, sources);
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
    leading(lifter, region, q, q->dims[q->rank - 2], k->dims[k->rank - 2], scores);
    scores[q->rank - 2] = region->vars[FJ_VAR_Q];
    scores[q->rank - 1] = region->vars[FJ_VAR_KV];
    if (q->dtype != k->dtype || q->dtype != v->dtype || q->dtype < FJ_DTYPE_F16)
        fj_region_raise(region, FJ_REASON_DTYPE_MIX, "queries, keys and values are %s, %s and %s",
                        fj_dtype_name(q->dtype), fj_dtype_name(k->dtype), fj_dtype_name(v->dtype));
    if (k->rank != q->rank || v->rank != q->rank || v->dims[v->rank - 2] != k->dims[k->rank - 2] ||
        q->dims[q->rank - 1] != k->dims[k->rank - 1]) {
        fj_region_raise(region, FJ_REASON_BATCH_DIMS_DIFFER, "queries, keys and values do not fit");
        refuse(lifter, region, node->name);
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
        set_columns(region, from->columns[i]);
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
    finish(lifter, region, &anchor, from, index, false, &roots, NULL, 1, true, NULL);
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
            look_at_sdpa(&lifter, (int)i);
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
