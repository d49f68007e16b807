/* A region that was walked, to a fused attention or a reason: its operands, what is inside of it, its mod. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/lift.h"

static fj_value *value_of(const fj_lifter *lifter, int value) { return &lifter->graph->values.data[value]; }
static const fj_node *node_of(const fj_lifter *lifter, int node) { return &lifter->graph->nodes.data[node]; }

/* ---- Operands ---------------------------------------------------------------------------- */

static bool choose(fj_region *region, const fj_sources *from, int64_t group, fj_operand operands[3]) {
    return fj_operand_choose(region, &from->candidates[0], 1, &operands[0]) &&
           fj_operand_choose(region, &from->candidates[1], group, &operands[1]) &&
           fj_operand_choose(region, &from->candidates[2], group, &operands[2]);
}

/* The largest group of heads that k and v share. */
static bool choose_operands(fj_region *region, const fj_sources *from, fj_operand operands[3]) {
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

static void check_operands(fj_lifter *lifter, fj_region *region, const fj_sources *from,
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

void fj_lift_mark(fj_lifter *lifter, int product, int last, int weights, fj_interior *ret) {
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

void fj_lift_check_inside(fj_lifter *lifter, fj_region *region, int last, fj_interior *inside) {
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

void fj_lift_refuse(fj_lifter *lifter, fj_region *region, const char *softmax) {
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
void fj_lift_finish(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const fj_sources *from,
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
        fj_lift_refuse(lifter, region, fused.softmax);
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
        fj_lift_refuse(lifter, region, fused.softmax);
        return;
    }
    for (size_t i = 0; i < region->notes.len; i++) FJ_PUSH(graph->arena, &fused.notes, region->notes.data[i]);
    plan.fused = lifter->model->findings.fused.len;
    FJ_PUSH(graph->arena, &lifter->model->findings.fused, fused);
    FJ_PUSH(graph->arena, &lifter->plans, plan);
}
