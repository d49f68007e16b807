/* q, k and v: values of the graph whose elements are theirs, and the nodes that bring them into shape. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/region.h"

/* ---- Where from -------------------------------------------------------------------------- */

static const fj_value *value_of(const fj_region *region, int value) {
    return &region->graph->values.data[value];
}

/* Dimensions that it is to have: batch, heads, rows, columns; and their variables. */
typedef struct operand_goal {
    fj_size dims[4];
    fj_index vars[4];
} operand_goal;

static operand_goal goal_of(fj_region *region, int64_t group, int row_var) {
    operand_goal goal = {
        {region->extents[FJ_VAR_B], region->extents[FJ_VAR_H], region->extents[row_var],
         region->extents[FJ_VAR_E]},
        {region->vars[FJ_VAR_B], region->vars[FJ_VAR_H], region->vars[row_var], region->vars[FJ_VAR_E]}};
    if (group > 1) {
        (void)fj_size_divide(&region->graph->sizes, goal.dims[1], fj_size_of(&region->graph->sizes, group),
                             &goal.dims[1]);
        goal.vars[1] = fj_index_var(&region->indices, FJ_VAR_GROUP, goal.dims[1]);
    }
    return goal;
}

/* Each dimension a variable of the goal or of extent 1, none twice; batch and heads may be absent from k and v. */
static bool is_permuted(fj_region *region, const fj_operand *operand, const operand_goal *goal,
                        int places[4]) {
    const fj_value *value = value_of(region, operand->value);
    fj_sizes *sizes = &region->graph->sizes;
    for (int g = 0; g < 4; g++) places[g] = -1;
    for (int d = 0; d < value->rank; d++) {
        if (fj_size_is(sizes, value->dims[d], 1)) continue;
        int g = 0;
        while (g < 4 &&
               (goal->vars[g] != operand->index[d] || places[g] >= 0 || fj_size_is(sizes, goal->dims[g], 1)))
            g++;
        if (g == 4 || value->dims[d] != goal->dims[g]) return false;
        places[g] = d;
    }
    for (int g = 1; g < 4; g++)
        if (places[g] < 0 && !fj_size_is(sizes, goal->dims[g], 1)) return false;
    return true;
}

static bool is_reshaped(fj_region *region, const fj_operand *operand, const operand_goal *goal) {
    const fj_value *value = value_of(region, operand->value);
    fj_value whole = {.rank = 4};
    fj_index index[FJ_MAX_RANK];
    memcpy(whole.dims, goal->dims, sizeof goal->dims);
    return fj_index_reshape(&region->indices, &whole, goal->vars, value, index) &&
           memcmp(index, operand->index, sizeof *index * (size_t)value->rank) == 0;
}

/* What it costs to bring it into shape: -1: it cannot be. */
static int cost_of(fj_region *region, const fj_operand *operand, const operand_goal *goal) {
    int places[4], last = -1;
    if (is_permuted(region, operand, goal, places)) {
        bool ordered = true;
        for (int g = 0; g < 4; g++) {
            if (places[g] >= 0 && places[g] < last) ordered = false;
            if (places[g] >= 0) last = places[g];
        }
        return !ordered ? 3 : value_of(region, operand->value)->rank == 4 ? 0 : 1;
    }
    return is_reshaped(region, operand, goal) ? 2 : -1;
}

/* The group that it serves, if its heads are h // group: it is written in terms of these. */
static bool in_groups(fj_region *region, fj_operand *operand, int64_t group) {
    fj_sizes *sizes = &region->graph->sizes;
    fj_indices *x = &region->indices;
    fj_size heads;
    const fj_size by = fj_size_of(sizes, group);
    if (!fj_size_divide(sizes, region->extents[FJ_VAR_H], by, &heads)) return false;
    const fj_index of_group = fj_index_var(x, FJ_VAR_GROUP, heads),
                   in_group = fj_index_var(x, FJ_VAR_IN_GROUP, by);
    const fj_index head = fj_index_add(x, fj_index_scale(x, of_group, by), in_group);
    const int rank = value_of(region, operand->value)->rank;
    for (int d = 0; d < rank; d++) {
        operand->index[d] = fj_index_replace(x, operand->index[d], FJ_VAR_H, head);
        if (fj_index_vars(x, operand->index[d]) >> FJ_VAR_IN_GROUP & 1) return false;
    }
    operand->group = group;
    return true;
}

static void add(fj_region *region, const fj_operand *operand, int row_var, fj_candidates *ret) {
    fj_indices *x = &region->indices;
    const int rank = value_of(region, operand->value)->rank;
    int64_t groups[8], heads, by;
    int count = 0;
    groups[count++] = 1;
    unsigned vars = 0;
    for (int d = 0; d < rank; d++) {
        const fj_index_sum *sum = &x->sums.data[operand->index[d]];
        vars |= fj_index_vars(x, operand->index[d]);
        for (int i = 0; i < sum->count; i++) {
            const fj_index_atom *atom = &x->atoms.data[sum->atoms[i]];
            if (atom->kind == FJ_ATOM_DIV && atom->of == region->vars[FJ_VAR_H] && count < 8 &&
                fj_size_is_const(x->sizes, atom->by, &by) && by > 1)
                groups[count++] = by;
        }
    }
    if (!(vars >> FJ_VAR_H & 1) && fj_size_is_const(x->sizes, region->extents[FJ_VAR_H], &heads) && heads > 1)
        groups[count++] = heads;
    for (int i = 0; i < count && ret->count < FJ_MOST_CANDIDATES; i++) {
        fj_operand found = *operand;
        if (groups[i] > 1 && !in_groups(region, &found, groups[i])) continue;
        found.group = groups[i];
        const operand_goal goal = goal_of(region, groups[i], row_var);
        found.cost = cost_of(region, &found, &goal);
        if (found.cost >= 0) ret->items[ret->count++] = found;
    }
}

/* A step from a value to one that has the same elements, perhaps times a number. */
static bool step(fj_region *region, fj_operand *operand) {
    const fj_value *value = value_of(region, operand->value);
    fj_index index[FJ_MAX_RANK] = {0};
    double number = 1;
    int other = 0;
    if (value->node < 0) return false;
    const fj_node *node = &region->graph->nodes.data[value->node];
    const fj_node_class class = fj_node_ops[node->op].class;
    if (class == FJ_CLASS_VIEW || class == FJ_CLASS_SPLIT) {
        if (!fj_index_view(region->graph, &region->indices, node, value->output, operand->index, index))
            return false;
        operand->value = node->args[0].value;
        memcpy(operand->index, index, sizeof index);
        return true;
    }
    if (node->op == FJ_NODE_CAST) {
        const fj_value *in = value_of(region, node->args[0].value);
        if (!fj_dtype_is_float(in->dtype) || in->dtype < FJ_DTYPE_F16 ||
            (in->dtype != value->dtype && fj_dtype_size(in->dtype) >= fj_dtype_size(value->dtype)))
            return false;
        operand->value = node->args[0].value;
        return true;
    }
    if (node->op != FJ_NODE_MUL && node->op != FJ_NODE_DIV && node->op != FJ_NODE_NEG) return false;
    const bool first = node->args[0].kind == FJ_ARG_VALUE &&
                       value_of(region, node->args[0].value)->rank == value->rank &&
                       !(node->op == FJ_NODE_MUL && node->args[1].kind == FJ_ARG_VALUE &&
                         fj_value_is_number(region->graph, node->args[0].value, &number));
    other = first ? 1 : 0;
    if (!first && node->op != FJ_NODE_MUL) return false;
    const fj_arg *factor = &node->args[other], *kept = &node->args[!other];
    int64_t integer;
    if (kept->kind != FJ_ARG_VALUE || value_of(region, kept->value)->dtype != value->dtype) return false;
    if (node->op == FJ_NODE_NEG)
        number = -1;
    else if (factor->kind == FJ_ARG_FLOAT)
        number = factor->real;
    else if (factor->kind == FJ_ARG_INT && fj_size_is_const(&region->graph->sizes, factor->size, &integer))
        number = (double)integer;
    else if (factor->kind != FJ_ARG_VALUE || !fj_value_is_number(region->graph, factor->value, &number))
        return false;
    const double scale = node->op == FJ_NODE_DIV ? operand->scale / number : operand->scale * number;
    if (!isfinite(scale) || scale == 0) return false;
    /* Broadcasting may not add elements. */
    for (int d = 0; d < value->rank; d++)
        if (value_of(region, kept->value)->rank != value->rank ||
            value_of(region, kept->value)->dims[d] != value->dims[d])
            return false;
    operand->scale = scale;
    operand->value = kept->value;
    return true;
}

void fj_operand_find(fj_region *region, int value, const fj_index *index, int row_var, fj_candidates *ret) {
    fj_operand operand = {.value = value, .scale = 1, .group = 1};
    ret->count = 0;
    memcpy(operand.index, index, sizeof *index * (size_t)value_of(region, value)->rank);
    for (int steps = 0; steps < 64; steps++) {
        add(region, &operand, row_var, ret);
        if (!step(region, &operand)) break;
    }
}

/* The scale is taken off as far as it goes: first those of the most scaled kind, then the cheapest, then the nearest. */
bool fj_operand_choose(const fj_region *region, const fj_candidates *candidates, int64_t group,
                       fj_operand *ret) {
    const fj_operand *best = NULL;
    for (int i = 0; i < candidates->count; i++) {
        const fj_operand *each = &candidates->items[i];
        if (each->group != group || value_of(region, each->value)->dtype != region->dtype) continue;
        if (best == NULL || each->scale != best->scale || each->cost < best->cost) best = each;
    }
    if (best != NULL) *ret = *best;
    return best != NULL;
}

/* ---- Into shape -------------------------------------------------------------------------- */

static int append(fj_region *region, fj_node_op op, int value, const fj_arg *more, int rank,
                  const fj_size *dims, const char *name) {
    fj_graph *graph = region->graph;
    const fj_value from = graph->values.data[value];
    const fj_arg args[2] = {{.kind = FJ_ARG_VALUE, .value = value},
                            more ? *more : (fj_arg){.kind = FJ_ARG_NONE}};
    const char *unique = fj_arena_printf(graph->arena, "%s_%zu", name, graph->values.len);
    const int out = fj_graph_value(graph, unique, FJ_VALUE_RESULT, from.dtype, rank, dims);
    graph->values.data[out].device = from.device;
    (void)fj_graph_node(graph, op, unique, args, more ? 2 : 1, &out, 1);
    return out;
}

int fj_operand_emit(fj_region *region, const fj_operand *operand, int row_var, const char *name) {
    const operand_goal goal = goal_of(region, operand->group, row_var);
    const fj_size one = fj_size_of(&region->graph->sizes, 1);
    int places[4], value = operand->value;
    fj_size dims[FJ_MAX_RANK];
    if (is_permuted(region, operand, &goal, places)) {
        if (operand->cost == 3) {
            fj_size order[FJ_MAX_RANK];
            int count = 0;
            for (int d = 0; d < value_of(region, value)->rank; d++)
                if (fj_size_is(&region->graph->sizes, value_of(region, value)->dims[d], 1)) {
                    dims[count] = one;
                    order[count++] = fj_size_of(&region->graph->sizes, d);
                }
            for (int g = 0; g < 4; g++)
                if (places[g] >= 0) {
                    dims[count] = goal.dims[g];
                    order[count++] = fj_size_of(&region->graph->sizes, places[g]);
                }
            const fj_arg arg = {.kind = FJ_ARG_INTS, .count = count, .sizes = order};
            value = append(region, FJ_NODE_PERMUTE, value, &arg, count, dims, name);
        }
        for (int g = 0; g < 4; g++) dims[g] = places[g] >= 0 ? goal.dims[g] : one;
        const bool same = value_of(region, value)->rank == 4 &&
                          memcmp(value_of(region, value)->dims, dims, sizeof *dims * 4) == 0;
        if (!same) value = append(region, FJ_NODE_RESHAPE, value, NULL, 4, dims, name);
        /* Batches that share it: k and v could, q cannot; all are expanded alike. */
        if (dims[0] != goal.dims[0]) value = append(region, FJ_NODE_EXPAND, value, NULL, 4, goal.dims, name);
        return value;
    }
    memcpy(dims, goal.dims, sizeof goal.dims);
    return append(region, FJ_NODE_RESHAPE, value, NULL, 4, dims, name);
}
