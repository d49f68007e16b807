/* From the weights to the product with the values; softmaxes that are written out. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/lift.h"

int fj_user_count(const fj_lifter *lifter, int value) {
    return lifter->user_begin[value + 1] - lifter->user_begin[value];
}
int fj_user(const fj_lifter *lifter, int value, int index) {
    return lifter->users[lifter->user_begin[value] + index];
}

static const fj_node *maker(const fj_graph *graph, int value) {
    const int node = value >= 0 ? graph->values.data[value].node : -1;
    return node >= 0 ? &graph->nodes.data[node] : NULL;
}

static int arg_of(const fj_node *node, int index) {
    return node != NULL && index < node->arg_count && node->args[index].kind == FJ_ARG_VALUE
             ? node->args[index].value
             : -1;
}

/* One number in every element. */
static bool is_uniform(const fj_graph *graph, int value, double *ret, int depth) {
    const fj_node *node = maker(graph, value);
    if (value >= 0 && fj_value_is_number(graph, value, ret)) return true;
    if (node == NULL || depth > 16) return false;
    if (node->op == FJ_NODE_ZEROS || node->op == FJ_NODE_ONES) return *ret = node->op == FJ_NODE_ONES, true;
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_FLOAT)
        return *ret = node->args[0].real, true;
    int64_t number;
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_INT &&
        fj_size_is_const(&graph->sizes, node->args[0].size, &number))
        return *ret = (double)number, true;
    if (fj_node_ops[node->op].class == FJ_CLASS_VIEW)
        return is_uniform(graph, arg_of(node, 0), ret, depth + 1);
    return false;
}

static bool arg_is(const fj_graph *graph, const fj_arg *arg, double number) {
    double found = (double)NAN;
    int64_t integer;
    if (arg->kind == FJ_ARG_FLOAT) return arg->real == number;
    if (arg->kind == FJ_ARG_INT)
        return fj_size_is_const(&graph->sizes, arg->size, &integer) && (double)integer == number;
    return arg->kind == FJ_ARG_VALUE && is_uniform(graph, arg->value, &found, 0) && found == number;
}

/* Copies and views that keep the shape. */
static int strip(const fj_graph *graph, int value) {
    for (int i = 0; i < 16; i++) {
        const fj_node *node = maker(graph, value);
        if (node == NULL || (node->op != FJ_NODE_RESHAPE && node->op != FJ_NODE_EXPAND)) break;
        const int from = arg_of(node, 0);
        const fj_value *a = &graph->values.data[from], *b = &graph->values.data[value];
        if (a->rank != b->rank || memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank) != 0) break;
        value = from;
    }
    return value;
}

/* Whether a value has one element for each row of `rows`, or that element in all of the row: it broadcasts to the rows as they
 * are. A reduction that dropped its dimension has the right number of elements and broadcasts along other dimensions. */
static bool is_of_rows(const fj_graph *graph, const fj_value *value, const fj_value *rows) {
    const int last = rows->rank - 1;
    return last >= 0 && value->rank == rows->rank &&
           memcmp(value->dims, rows->dims, sizeof *rows->dims * (size_t)last) == 0 &&
           (fj_size_is(&graph->sizes, value->dims[last], 1) || value->dims[last] == rows->dims[last]);
}

/* Of a value with one element for each row of `rows`: what makes it, before it was unsqueezed or spread over the row; -1. */
static int row_maker(const fj_graph *graph, int value, const fj_value *rows) {
    for (int i = 0; i < 8 && value >= 0 && is_of_rows(graph, &graph->values.data[value], rows); i++) {
        const fj_node *node = maker(graph, value);
        if (node == NULL) return -1;
        if (node->op != FJ_NODE_EXPAND && node->op != FJ_NODE_RESHAPE) return value;
        const int from = arg_of(node, 0);
        /* A reshape keeps the order of the rows, whatever the shape before it. */
        if (node->op == FJ_NODE_RESHAPE &&
            fj_size_is(&graph->sizes, graph->values.data[value].dims[rows->rank - 1], 1) &&
            maker(graph, from) != NULL && fj_node_ops[maker(graph, from)->op].class == FJ_CLASS_REDUCE)
            return from;
        value = from;
    }
    return -1;
}

int fj_row_reduced(fj_graph *graph, int value, fj_node_op op, const fj_value *rows) {
    const int made = row_maker(graph, value, rows);
    const fj_node *node = maker(graph, made);
    if (node == NULL || node->op != op || graph->values.data[made].output != 0) return -1;
    const int from = arg_of(node, 0);
    const fj_arg *dims = &node->args[1];
    int64_t dim;
    if (from < 0 || dims->kind != FJ_ARG_INTS || dims->count != 1 ||
        graph->values.data[from].rank != rows->rank ||
        memcmp(graph->values.data[from].dims, rows->dims, sizeof *rows->dims * (size_t)rows->rank) != 0 ||
        !fj_size_is_const(&graph->sizes, dims->sizes[0], &dim) || (dim != -1 && dim != rows->rank - 1))
        return -1;
    return from;
}

/* ---- Written out ------------------------------------------------------------------------- */

bool fj_written_out(fj_lifter *lifter, int index, fj_anchor *ret, const char **ret_detail) {
    fj_graph *graph = lifter->graph;
    const fj_node *node = &graph->nodes.data[index];
    *ret_detail = NULL;
    if (node->op != FJ_NODE_DIV) return false;
    const int above = strip(graph, arg_of(node, 0)), below = arg_of(node, 1);
    const fj_node *exponential = maker(graph, above);
    if (above < 0 || below < 0 || exponential == NULL || exponential->op != FJ_NODE_EXP) return false;
    const fj_value rows = graph->values.data[above], quotient = graph->values.data[node->outputs[0]];
    /* The quotient is of the rows: nothing broadcasts them, nothing rounds between. */
    if (rows.rank == 0 || quotient.rank != rows.rank ||
        memcmp(quotient.dims, rows.dims, sizeof *rows.dims * (size_t)rows.rank) != 0 ||
        quotient.dtype != rows.dtype || arg_of(exponential, 0) < 0 ||
        graph->values.data[arg_of(exponential, 0)].dtype != rows.dtype)
        return false;
    int summed = fj_row_reduced(graph, below, FJ_NODE_SUM, &rows);
    if (summed < 0) { /* with an eps in the divisor it is another function */
        const fj_node *added = maker(graph, below);
        if (added != NULL && added->op == FJ_NODE_ADD)
            summed = fj_row_reduced(graph, arg_of(added, 0), FJ_NODE_SUM, &rows);
        if (summed < 0 || strip(graph, summed) != above) return false;
        *ret_detail =
            fj_arena_printf(graph->arena, "'%.80s' adds to the divisor of '%.80s'", added->name, node->name);
    }
    if (strip(graph, summed) != above) return false;
    *ret = (fj_anchor){.node = index,
                       .input = arg_of(exponential, 0),
                       .output = node->outputs[0],
                       .pattern = "written-out, no maximum"};
    const fj_node *difference = maker(graph, strip(graph, ret->input));
    if (difference == NULL || difference->op != FJ_NODE_SUB || !arg_is(graph, &difference->args[2], 1))
        return true;
    const int scores = arg_of(difference, 0),
              most = scores >= 0 ? fj_row_reduced(graph, arg_of(difference, 1), FJ_NODE_AMAX, &rows) : -1;
    if (most >= 0 && strip(graph, most) == strip(graph, scores) &&
        graph->values.data[scores].dtype == rows.dtype) {
        ret->input = scores;
        ret->pattern = "written-out";
    }
    return true;
}

/* ---- Guards ------------------------------------------------------------------------------ */

/* not any(not (x == -inf)), over the last dimension: the row sees nothing. */
static bool is_empty_row(fj_graph *graph, int value, int scores) {
    const fj_value rows = graph->values.data[scores];
    const fj_node *outer = maker(graph, row_maker(graph, value, &rows));
    int hidden;
    if (outer == NULL) return false;
    if (outer->op == FJ_NODE_LOGICAL_NOT || outer->op == FJ_NODE_BIT_NOT) {
        const int inner = fj_row_reduced(graph, arg_of(outer, 0), FJ_NODE_ANY, &rows);
        const fj_node *seen = maker(graph, inner);
        if (seen == NULL || (seen->op != FJ_NODE_LOGICAL_NOT && seen->op != FJ_NODE_BIT_NOT)) return false;
        hidden = arg_of(seen, 0);
    } else if (outer->op == FJ_NODE_ALL) {
        hidden = fj_row_reduced(graph, value, FJ_NODE_ALL, &rows);
    } else {
        return false;
    }
    const fj_node *equal = maker(graph, hidden);
    return equal != NULL && equal->op == FJ_NODE_EQ &&
           strip(graph, arg_of(equal, 0)) == strip(graph, scores) &&
           arg_is(graph, &equal->args[1], -HUGE_VAL);
}

static bool is_nan_of(const fj_graph *graph, int value, int weights) {
    const fj_node *node = maker(graph, value);
    return node != NULL && node->op == FJ_NODE_ISNAN && arg_of(node, 0) == weights;
}

/* Whether a node turns the weights of rows that see nothing to 0, and changes no others. */
static bool is_guard(fj_graph *graph, const fj_node *node, int weights, const fj_anchor *anchor) {
    if (node->op == FJ_NODE_NAN_TO_NUM) /* weights are never infinite */
        return arg_of(node, 0) == weights &&
               (node->args[1].kind == FJ_ARG_NONE || arg_is(graph, &node->args[1], 0));
    if (node->op == FJ_NODE_FILL)
        return arg_of(node, 0) == weights && is_nan_of(graph, arg_of(node, 1), weights) &&
               arg_is(graph, &node->args[2], 0);
    if (node->op != FJ_NODE_WHERE) return false;
    const int condition = arg_of(node, 0);
    return condition >= 0 && arg_of(node, 2) == weights && arg_is(graph, &node->args[1], 0) &&
           (is_nan_of(graph, condition, weights) ||
            /* the rows of the scores are those of the weights as long as nothing has moved these */
            (strip(graph, weights) == strip(graph, anchor->output) &&
             is_empty_row(graph, condition, anchor->input)));
}

/* nan_to_num taken apart also asks whether weights are infinite, which they never are: where(w == inf, number, w). These are the
 * questions, until the way comes to the choice that each is for. */
typedef struct open_questions {
    int asked[4]; /* values */
    int count;
} open_questions;

/* Whether a node asks whether the weights are infinite, for one choice alone. */
static bool asks_infinite(const fj_lifter *lifter, const fj_node *node, int weights, open_questions *open) {
    if (node->op != FJ_NODE_EQ || arg_of(node, 0) != weights ||
        !(arg_is(lifter->graph, &node->args[1], HUGE_VAL) ||
          arg_is(lifter->graph, &node->args[1], -HUGE_VAL)))
        return false;
    const int asked = node->outputs[0];
    const fj_value *a = &lifter->graph->values.data[asked], *b = &lifter->graph->values.data[weights];
    if (fj_user_count(lifter, asked) != 1 || lifter->graph->values.data[asked].is_output ||
        open->count == (int)FJ_ARRAY_LEN(open->asked) || a->rank != b->rank ||
        memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->rank) != 0)
        return false;
    open->asked[open->count++] = asked;
    return true;
}

/* Whether a node is the choice of one of them: it gives the weights as they are. */
static bool answers(const fj_graph *graph, const fj_node *node, int weights, open_questions *open) {
    const fj_value *in = &graph->values.data[weights], *out = &graph->values.data[node->outputs[0]];
    if (node->op != FJ_NODE_WHERE || arg_of(node, 2) != weights || out->dtype != in->dtype ||
        out->rank != in->rank || memcmp(out->dims, in->dims, sizeof *in->dims * (size_t)in->rank) != 0)
        return false;
    for (int i = 0; i < open->count; i++) {
        if (open->asked[i] != arg_of(node, 0)) continue;
        open->asked[i] = open->asked[--open->count];
        return true;
    }
    return false;
}

/* ---- The way ----------------------------------------------------------------------------- */

static bool goes_on(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const fj_node *node,
                    int weights, fj_second *ret) {
    fj_graph *graph = lifter->graph;
    const fj_value *out = &graph->values.data[node->outputs[0]];
    if (fj_node_ops[node->op].class == FJ_CLASS_VIEW) return true;
    if (node->op == FJ_NODE_CAST) {
        if (!fj_dtype_is_float(out->dtype)) return false;
        if (fj_dtype_size(out->dtype) == fj_dtype_size(ret->narrow) && out->dtype != ret->narrow)
            fj_region_raise(region, FJ_REASON_ROUNDING_DIFFERS, "'%.80s' rounds weights of %s to %s",
                            node->name, fj_dtype_name(ret->narrow), fj_dtype_name(out->dtype));
        if (fj_dtype_size(out->dtype) < fj_dtype_size(ret->narrow)) ret->narrow = out->dtype;
        return true;
    }
    if (node->op == FJ_NODE_DROPOUT) {
        const bool off =
            (node->args[2].kind == FJ_ARG_BOOL && !node->args[2].flag) || arg_is(graph, &node->args[1], 0);
        if (!off) fj_region_raise(region, FJ_REASON_DROPOUT_IN_TRAINING, "'%.80s' drops weights", node->name);
        return true;
    }
    if (!is_guard(graph, node, weights, anchor)) return false;
    ret->safe = true;
    if (node->op == FJ_NODE_NAN_TO_NUM || node->op == FJ_NODE_FILL ||
        is_nan_of(graph, arg_of(node, 0), weights)) {
        fj_region_note(region, "'%.60s' also hides NaN of the scores, which a kernel keeps", node->name);
        ret->guard = node->name;
    }
    return true;
}

bool fj_second_find(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, fj_second *ret) {
    fj_graph *graph = lifter->graph;
    int weights = anchor->output;
    open_questions open = {.count = 0};
    *ret = (fj_second){.node = -1, .narrow = graph->values.data[weights].dtype};
    for (int steps = 0; steps < 64; steps++) {
        const int count = fj_user_count(lifter, weights);
        int next = count > 0 ? fj_user(lifter, weights, 0) : -1;
        if (graph->values.data[weights].is_output) {
            fj_region_raise(region, FJ_REASON_OUTPUTS_USED, "'%.80s' is an output of the graph",
                            graph->values.data[weights].name);
            return false;
        }
        if (count == 0)
            return fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "nothing multiplies the weights"), false;
        for (int i = 0; i < count; i++) { /* a guard reads them twice, and asks whether they are NaN */
            const fj_node *user = &graph->nodes.data[fj_user(lifter, weights, i)];
            if (count > 1 && is_guard(graph, user, weights, anchor)) next = fj_user(lifter, weights, i);
        }
        for (int i = 0; i < count; i++) {
            const int user = fj_user(lifter, weights, i);
            const fj_node *node = &graph->nodes.data[user];
            const bool asks = node->op == FJ_NODE_ISNAN && fj_user_count(lifter, node->outputs[0]) == 1 &&
                              fj_user(lifter, node->outputs[0], 0) == next;
            if (user == next || asks || asks_infinite(lifter, node, weights, &open)) continue;
            fj_region_raise(region, FJ_REASON_OUTPUTS_USED, "'%.80s' is also read by '%.80s'",
                            graph->values.data[weights].name, node->name);
            return false;
        }
        const fj_node *node = &graph->nodes.data[next];
        if (node->op == FJ_NODE_MATMUL) {
            if (open.count > 0) {
                fj_region_raise(region, FJ_REASON_OUTPUTS_USED, "'%.80s' is read outside",
                                graph->values.data[open.asked[0]].name);
                return false;
            }
            ret->node = next;
            ret->place = arg_of(node, 0) == weights ? 0 : 1;
            if (arg_of(node, 0) == arg_of(node, 1))
                return fj_region_raise(region, FJ_REASON_NOT_ATTENTION,
                                       "the weights are multiplied with themselves"),
                       false;
            return true;
        }
        if (!answers(graph, node, weights, &open) && !goes_on(lifter, region, anchor, node, weights, ret)) {
            fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "'%.80s' (%s) of the weights",
                            node->name, fj_node_ops[node->op].name);
            return false;
        }
        weights = node->outputs[0];
    }
    return fj_region_raise(region, FJ_REASON_NOT_ATTENTION, "nothing multiplies the weights"), false;
}

bool fj_second_back(fj_lifter *lifter, fj_region *region, const fj_anchor *anchor, const fj_second *second,
                    const fj_index *index, fj_index *ret) {
    fj_graph *graph = lifter->graph;
    int value = graph->nodes.data[second->node].args[second->place].value;
    fj_index at[FJ_MAX_RANK] = {0}, before[FJ_MAX_RANK] = {0};
    memcpy(at, index, sizeof *index * (size_t)graph->values.data[value].rank);
    while (value != anchor->output) {
        const fj_node *node = maker(graph, value);
        if (node == NULL) return false;
        if (fj_node_ops[node->op].class == FJ_CLASS_VIEW) {
            if (!fj_index_view(graph, &region->indices, node, 0, at, before)) return false;
            memcpy(at, before, sizeof at);
            value = arg_of(node, 0);
        } else if (node->op == FJ_NODE_WHERE) { /* a guard: the weights are its last operand */
            const fj_value *in = &graph->values.data[arg_of(node, 2)];
            if (in->rank != graph->values.data[value].rank) return false;
            value = arg_of(node, 2);
        } else {
            value = arg_of(node, 0);
        }
    }
    memcpy(ret, at, sizeof at);
    return true;
}
