/* What goes along a dimension: softmaxes, norms, reductions. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/eval.h"

typedef struct axis_shape {
    int64_t outer, length, inner;
} axis_shape;

static axis_shape axis_of(const fj_array *array, int dim) {
    axis_shape axis = {1, array->rank > 0 ? array->dims[dim] : 1, 1};
    for (int d = 0; d < array->rank; d++) {
        if (d < dim) axis.outer *= array->dims[d];
        if (d > dim) axis.inner *= array->dims[d];
    }
    return axis;
}

void fj_eval_softmax_row(double *row, int64_t length, int64_t step, bool logarithm, bool safe) {
    double most = -HUGE_VAL, sum = 0;
    for (int64_t i = 0; i < length; i++)
        if (row[i * step] > most || isnan(row[i * step])) most = row[i * step];
    if (safe && most == -HUGE_VAL) {
        for (int64_t i = 0; i < length; i++) row[i * step] = 0;
        return;
    }
    for (int64_t i = 0; i < length; i++) sum += exp(row[i * step] - most);
    for (int64_t i = 0; i < length; i++)
        row[i * step] = logarithm ? row[i * step] - most - log(sum) : exp(row[i * step] - most) / sum;
}

static bool is_safe(const fj_node *node) {
    return node->target != NULL && strstr(node->target, "_safe_softmax") != NULL;
}

void fj_eval_softmax(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const axis_shape axis = axis_of(out, fj_node_dim(eval->graph, node, &node->args[1], out->rank));
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    memcpy(out->data, in->data, (size_t)in->count * sizeof(double));
    fj_eval_settle(eval, out); /* the argument is converted first */
    for (int64_t o = 0; o < axis.outer; o++)
        for (int64_t i = 0; i < axis.inner; i++)
            fj_eval_softmax_row(out->data + o * axis.length * axis.inner + i, axis.length, axis.inner,
                                node->op == FJ_NODE_LOG_SOFTMAX, is_safe(node));
}

void fj_eval_cumsum(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const axis_shape axis = axis_of(out, fj_node_dim(eval->graph, node, &node->args[1], out->rank));
    fj_eval_require(eval, node, in->count == out->count, "the result has another size");
    for (int64_t at = 0; at < out->count; at++) {
        const bool begins = at / axis.inner % axis.length == 0;
        out->data[at] = in->data[at] + (begins ? 0 : out->data[at - axis.inner]);
    }
}

void fj_eval_norm(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const bool centred = node->op == FJ_NODE_LAYER_NORM;
    const fj_arg *eps_arg = &node->args[centred ? 4 : 3];
    double eps = eps_arg->kind == FJ_ARG_FLOAT ? eps_arg->real
               : out->dtype == FJ_DTYPE_F64    ? 2.220446049250313e-16
                                               : 1.1920928955078125e-07;
    int64_t length = 1;
    for (int i = 0; i < node->args[1].count && i < in->rank; i++) length *= in->dims[in->rank - 1 - i];
    const fj_array *weight =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    const fj_array *bias =
        centred && node->args[3].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[3].value) : NULL;
    fj_eval_require(eval, node,
                    length > 0 && in->count == out->count && (!weight || weight->count == length) &&
                        (!bias || bias->count == length),
                    "its weight or bias has another size");
    for (int64_t row = 0; row < out->count; row += length) {
        double mean = 0, square = 0;
        for (int64_t i = 0; centred && i < length; i++) mean += in->data[row + i] / (double)length;
        for (int64_t i = 0; i < length; i++) square += pow(in->data[row + i] - mean, 2) / (double)length;
        for (int64_t i = 0; i < length; i++)
            out->data[row + i] =
                (in->data[row + i] - mean) / sqrt(square + eps) * (weight ? weight->data[i] : 1) +
                (bias ? bias->data[i] : 0);
    }
}

void fj_eval_reduce(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value);
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    bool gone[FJ_MAX_RANK] = {false};
    int64_t index[FJ_MAX_RANK] = {0}, kept = 1;
    const fj_arg *list = &node->args[1];
    fj_eval_require(eval, node, list->kind == FJ_ARG_INTS, "its dimensions are not numbers");
    for (int i = 0; i < list->count; i++) {
        const fj_arg dim = {.kind = FJ_ARG_INT, .size = list->sizes[i]};
        gone[fj_node_dim(eval->graph, node, &dim, in->rank)] = true;
    }
    for (int d = 0; d < in->rank; d++) {
        gone[d] |= list->count == 0;
        kept *= gone[d] ? 1 : in->dims[d];
    }
    fj_eval_require(eval, node, kept == out->count, "the result has another size");
    const double first = node->op == FJ_NODE_AMAX ? -HUGE_VAL
                       : node->op == FJ_NODE_AMIN ? HUGE_VAL
                                                  : node->op == FJ_NODE_ALL;
    for (int64_t i = 0; i < out->count; i++) out->data[i] = first;
    for (int64_t at = 0; at < in->count; at++) {
        int64_t to = 0;
        for (int d = 0; d < in->rank; d++)
            if (!gone[d]) to = to * in->dims[d] + index[d];
        double *sum = &out->data[to], x = in->data[at];
        switch (node->op) {
        case FJ_NODE_AMAX: *sum = isnan(x) || x > *sum ? x : *sum; break;
        case FJ_NODE_AMIN: *sum = isnan(x) || x < *sum ? x : *sum; break;
        case FJ_NODE_ANY: *sum = *sum != 0 || x != 0; break;
        case FJ_NODE_ALL: *sum = *sum != 0 && x != 0; break;
        default: *sum += x;
        }
        (void)fj_next_index(in->dims, in->rank, index);
    }
    for (int64_t i = 0; node->op == FJ_NODE_MEAN && i < out->count; i++)
        out->data[i] /= (double)in->count / (double)(out->count > 0 ? out->count : 1);
}
