/* Where the elements of views lie. */
#include "fuse/graph.h"

static int64_t number(fj_graph *graph, const fj_node *node, fj_size size) {
    int64_t value = 0;
    if (!fj_size_is_const(&graph->sizes, size, &value))
        fj_node_fail(graph, node, "%s is not a number", fj_size_text(&graph->sizes, size));
    return value;
}

static void need_rank(fj_graph *graph, const fj_node *node, const fj_value *out, int rank) {
    if (out->rank != rank) fj_node_fail(graph, node, "the result has rank %d, not %d", out->rank, rank);
}

static void need_size(fj_graph *graph, const fj_node *node, fj_size found, fj_size expected) {
    int64_t a, b;
    if (fj_size_is_const(&graph->sizes, found, &a) && fj_size_is_const(&graph->sizes, expected, &b) && a != b)
        fj_node_fail(graph, node, "a dimension of the result is %lld, not %lld", (long long)a, (long long)b);
}

static void expand(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                   fj_move *moves) {
    const int lead = out->rank - in->rank;
    if (lead < 0) fj_node_fail(graph, node, "the result has a smaller rank than the argument");
    for (int i = 0; i < in->rank; i++) {
        if (fj_size_is(&graph->sizes, in->dims[i], 1)) {
            moves[i].kind = FJ_MOVE_FIXED;
        } else {
            moves[i].from = lead + i;
            need_size(graph, node, out->dims[lead + i], in->dims[i]);
        }
    }
}

static void permute(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                    fj_move *moves) {
    bool seen[FJ_MAX_RANK] = {false};
    need_rank(graph, node, out, in->rank);
    if (node->args[1].kind != FJ_ARG_INTS || node->args[1].count != in->rank)
        fj_node_fail(graph, node, "it does not permute %d dimensions", in->rank);
    for (int i = 0; i < in->rank; i++) {
        const fj_arg dim = {.kind = FJ_ARG_INT, .size = node->args[1].sizes[i]};
        const int from = fj_node_dim(graph, node, &dim, in->rank);
        if (seen[from]) fj_node_fail(graph, node, "dimension %d is permuted twice", from);
        seen[from] = true;
        moves[from].from = i;
        need_size(graph, node, out->dims[i], in->dims[from]);
    }
}

static void transpose(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                      fj_move *moves) {
    need_rank(graph, node, out, in->rank);
    if (node->op == FJ_NODE_T && in->rank < 2) return;
    if (node->op == FJ_NODE_T && in->rank > 2)
        fj_node_fail(graph, node, "a transposition of rank %d", in->rank);
    const int a = node->op == FJ_NODE_T ? 0 : fj_node_dim(graph, node, &node->args[1], in->rank);
    const int b = node->op == FJ_NODE_T ? 1 : fj_node_dim(graph, node, &node->args[2], in->rank);
    if (in->rank == 0) return;
    moves[a].from = b;
    moves[b].from = a;
    for (int i = 0; i < in->rank; i++) need_size(graph, node, out->dims[moves[i].from], in->dims[i]);
}

/* A start counted from the end, or beyond it. */
static fj_size place(fj_graph *graph, fj_size start, fj_size extent) {
    int64_t value, most;
    if (!fj_size_is_const(&graph->sizes, start, &value)) return start;
    if (value < 0) {
        start = fj_size_add(&graph->sizes, start, extent);
        if (fj_size_is_const(&graph->sizes, start, &value) && value < 0) return fj_size_of(&graph->sizes, 0);
        return start;
    }
    return fj_size_is_const(&graph->sizes, extent, &most) && value > most ? extent : start;
}

static void slice(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                  fj_move *moves) {
    const int dim = fj_node_dim(graph, node, &node->args[1], in->rank);
    int64_t extent, length, start;
    need_rank(graph, node, out, in->rank);
    if (in->rank == 0) fj_node_fail(graph, node, "a slice of a number");
    moves[dim].offset = node->args[2].kind == FJ_ARG_INT ? place(graph, node->args[2].size, in->dims[dim])
                                                         : fj_size_of(&graph->sizes, 0);
    moves[dim].step = node->args[4].kind == FJ_ARG_INT ? number(graph, node, node->args[4].size) : 1;
    if (moves[dim].step < 1) fj_node_fail(graph, node, "step %lld", (long long)moves[dim].step);
    if (fj_size_is_const(&graph->sizes, in->dims[dim], &extent) &&
        fj_size_is_const(&graph->sizes, out->dims[dim], &length) &&
        fj_size_is_const(&graph->sizes, moves[dim].offset, &start) && length > 0 &&
        (length > extent || moves[dim].step > extent || start + (length - 1) * moves[dim].step >= extent))
        fj_node_fail(graph, node, "the slice is longer than '%.60s'", in->name);
    for (int i = 0; i < in->rank; i++)
        if (i != dim) need_size(graph, node, out->dims[i], in->dims[i]);
}

/* One index of a dimension: the others follow without it. */
static void select(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out, int dim,
                   fj_size index, fj_move *moves) {
    int64_t extent, at;
    need_rank(graph, node, out, in->rank - 1);
    moves[dim].kind = FJ_MOVE_FIXED;
    moves[dim].offset = fj_size_is_const(&graph->sizes, index, &at) && at < 0
                          ? fj_size_add(&graph->sizes, index, in->dims[dim])
                          : index;
    if (fj_size_is_const(&graph->sizes, in->dims[dim], &extent) &&
        fj_size_is_const(&graph->sizes, moves[dim].offset, &at) && (at < 0 || at >= extent))
        fj_node_fail(graph, node, "index %lld of %lld", (long long)at, (long long)extent);
    for (int i = 0; i < in->rank; i++) {
        if (i == dim) continue;
        moves[i].from = i - (i > dim);
        need_size(graph, node, out->dims[moves[i].from], in->dims[i]);
    }
}

static void flip(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                 fj_move *moves) {
    need_rank(graph, node, out, in->rank);
    for (int i = 0; i < node->args[1].count; i++) {
        const fj_arg arg = {.kind = FJ_ARG_INT, .size = node->args[1].sizes[i]};
        const int dim = fj_node_dim(graph, node, &arg, in->rank);
        moves[dim].step = -1;
        moves[dim].offset = fj_size_sub(&graph->sizes, in->dims[dim], fj_size_of(&graph->sizes, 1));
    }
    for (int i = 0; i < in->rank; i++) need_size(graph, node, out->dims[i], in->dims[i]);
}

static void repeat(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                   fj_move *moves) {
    const int lead = out->rank - in->rank;
    int64_t extent, whole;
    if (lead < 0) fj_node_fail(graph, node, "the result has a smaller rank than the argument");
    for (int i = 0; i < in->rank; i++) {
        moves[i].from = lead + i;
        if (in->dims[i] != out->dims[lead + i]) moves[i].kind = FJ_MOVE_WRAPS;
        if (fj_size_is_const(&graph->sizes, in->dims[i], &extent) &&
            fj_size_is_const(&graph->sizes, out->dims[lead + i], &whole) &&
            (extent == 0 ? whole != 0 : whole % extent != 0))
            fj_node_fail(graph, node, "%lld is not a multiple of %lld", (long long)whole, (long long)extent);
    }
}

static void interleave(fj_graph *graph, const fj_node *node, const fj_value *in, const fj_value *out,
                       fj_move *moves) {
    if (node->args[2].kind != FJ_ARG_INT && in->rank != 1)
        fj_node_fail(graph, node, "repeat_interleave without a dimension is supported for rank 1 only");
    const int dim = node->args[2].kind == FJ_ARG_INT ? fj_node_dim(graph, node, &node->args[2], in->rank) : 0;
    const int64_t times = node->args[1].kind == FJ_ARG_INT ? number(graph, node, node->args[1].size) : -1;
    need_rank(graph, node, out, in->rank);
    if (times < 1 || in->rank == 0) fj_node_fail(graph, node, "repeats is not a number above 0");
    moves[dim].kind = FJ_MOVE_SHARES;
    moves[dim].step = times;
    for (int i = 0; i < in->rank; i++)
        need_size(graph, node, out->dims[i],
                  i == dim ? fj_size_mul(&graph->sizes, in->dims[i], fj_size_of(&graph->sizes, times))
                           : in->dims[i]);
}

static void split(fj_graph *graph, const fj_node *node, int output, const fj_value *in, fj_move *moves) {
    const int dim = fj_node_dim(graph, node, &node->args[1], in->rank);
    if (in->rank == 0) fj_node_fail(graph, node, "a split of a number");
    fj_size begin = fj_size_of(&graph->sizes, 0);
    for (int i = 0; i < node->output_count; i++) {
        const fj_value *out = &graph->values.data[node->outputs[i]];
        need_rank(graph, node, out, in->rank);
        if (i == output) {
            moves[dim].offset = begin;
            for (int d = 0; d < in->rank; d++)
                if (d != dim) need_size(graph, node, out->dims[d], in->dims[d]);
        }
        begin = fj_size_add(&graph->sizes, begin, out->dims[dim]);
    }
    need_size(graph, node, begin, in->dims[dim]);
}

bool fj_view_moves(fj_graph *graph, const fj_node *node, int output, fj_move moves[FJ_MAX_RANK]) {
    if (node->op == FJ_NODE_RESHAPE) return false;
    if (node->args[0].kind != FJ_ARG_VALUE) fj_node_fail(graph, node, "argument 1 is not a tensor");
    const fj_value *in = &graph->values.data[node->args[0].value],
                   *out = &graph->values.data[node->outputs[output]];
    const fj_size zero = fj_size_of(&graph->sizes, 0);
    for (int i = 0; i < FJ_MAX_RANK; i++)
        moves[i] = (fj_move){.kind = FJ_MOVE_AFFINE, .from = i, .offset = zero, .step = 1};
    switch (node->op) {
    case FJ_NODE_EXPAND: expand(graph, node, in, out, moves); break;
    case FJ_NODE_PERMUTE: permute(graph, node, in, out, moves); break;
    case FJ_NODE_TRANSPOSE:
    case FJ_NODE_T: transpose(graph, node, in, out, moves); break;
    case FJ_NODE_SLICE: slice(graph, node, in, out, moves); break;
    case FJ_NODE_FLIP: flip(graph, node, in, out, moves); break;
    case FJ_NODE_REPEAT: repeat(graph, node, in, out, moves); break;
    case FJ_NODE_REPEAT_INTERLEAVE: interleave(graph, node, in, out, moves); break;
    case FJ_NODE_SPLIT: split(graph, node, output, in, moves); break;
    case FJ_NODE_SELECT:
    case FJ_NODE_UNBIND: {
        const int dim = fj_node_dim(graph, node, &node->args[1], in->rank);
        if (in->rank == 0) fj_node_fail(graph, node, "an index of a number");
        if (node->op == FJ_NODE_SELECT && node->args[2].kind != FJ_ARG_INT)
            fj_node_fail(graph, node, "its index is not a number");
        select(graph, node, in, out, dim,
               node->op == FJ_NODE_UNBIND ? fj_size_of(&graph->sizes, output) : node->args[2].size, moves);
        break;
    }
    default: fj_node_fail(graph, node, "it is not a view");
    }
    return true;
}
