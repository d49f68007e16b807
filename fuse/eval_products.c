/* Products, and attention as one node. Sums of products are float32 sums, as those of libraries are, unless the evaluation is exact or
 * the dtype F64. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/eval.h"

/* ---- Products ---------------------------------------------------------------------------- */

static double add_product(const fj_eval *eval, fj_dtype dtype, double sum, double a, double b) {
    const double more = sum + a * b;
    return eval->how->exact || dtype == FJ_DTYPE_F64 ? more : (double)(float)more;
}

/* out[..., i, j] = sum over e of a[..., i, e] b[..., e, j]; vectors count as a row, a column. */
void fj_eval_multiply(fj_eval *eval, const fj_node *node, const fj_array *a, const fj_array *b,
                      fj_array *out) {
    fj_array left = *a, right = *b, whole = *out;
    int rank = whole.rank;
    if (a->rank == 1) {
        left = (fj_array){.rank = 2, .dims = {1, a->dims[0]}, .data = a->data};
        for (int d = rank++; d > (b->rank == 1 ? rank - 1 : rank - 2); d--) whole.dims[d] = whole.dims[d - 1];
        whole.dims[b->rank == 1 ? rank - 1 : rank - 2] = 1;
    }
    if (b->rank == 1) {
        right = (fj_array){.rank = 2, .dims = {b->dims[0], 1}, .data = b->data};
        whole.dims[rank++] = 1;
    }
    whole.rank = rank;
    fj_eval_require(eval, node, rank >= 2 && rank <= FJ_MAX_RANK, "a product of this rank");
    const int64_t inner = left.dims[left.rank - 1], rows = left.dims[left.rank - 2],
                  columns = right.dims[right.rank - 1];
    fj_eval_require(eval, node,
                    right.dims[right.rank - 2] == inner && whole.dims[rank - 2] == rows &&
                        whole.dims[rank - 1] == columns,
                    "the factors of its product do not fit");
    const fj_spread x = fj_spread_of(eval, node, &left, &whole, 2),
                    y = fj_spread_of(eval, node, &right, &whole, 2);
    int64_t index[FJ_MAX_RANK] = {0};
    for (int64_t at = 0; at < out->count; at++) {
        const int64_t i = index[rank - 2], j = index[rank - 1];
        const double *row = x.data + fj_spread_offset(&x, index, rank - 2) + i * inner,
                     *column = y.data + fj_spread_offset(&y, index, rank - 2) + j;
        double sum = 0;
        for (int64_t e = 0; e < inner; e++)
            sum = add_product(eval, out->dtype, sum, row[e], column[e * columns]);
        out->data[at] = sum;
        (void)fj_next_index(whole.dims, rank, index);
    }
}

void fj_eval_linear(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value),
                   *weight = fj_eval_of(eval, node, node->args[1].value);
    const fj_array *bias =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    fj_eval_require(eval, node, weight->rank == 2 && in->rank > 0, "its weight is not a matrix");
    const int64_t width = weight->dims[1], columns = weight->dims[0];
    fj_eval_require(eval, node,
                    in->dims[in->rank - 1] == width && columns > 0 &&
                        out->count / columns * columns == out->count &&
                        (bias == NULL || bias->count == columns) &&
                        (width == 0 || in->count / width == out->count / columns),
                    "its weight does not fit its argument");
    for (int64_t i = 0; i < out->count; i++) {
        const double *row = in->data + i / columns * width, *other = weight->data + i % columns * width;
        double sum = 0;
        for (int64_t e = 0; e < width; e++) sum = add_product(eval, out->dtype, sum, row[e], other[e]);
        out->data[i] = sum + (bias ? bias->data[i % columns] : 0);
    }
}

/* One number for each of the last two dimensions; those of a list that is shorter or absent are `otherwise`. */
static void spatial(fj_eval *eval, const fj_arg *arg, int64_t otherwise, int count, int64_t ret[2]) {
    for (int i = 0; i < count; i++) {
        const int at = arg->count == 1 ? 0 : i;
        ret[i] = arg->kind == FJ_ARG_INTS && at < arg->count ? fj_eval_size(eval, arg->sizes[at]) : otherwise;
    }
}

/* A correlation in one or two dimensions; one dimension is a second of extent 1. */
void fj_eval_convolution(fj_eval *eval, const fj_node *node) {
    const fj_array *in = fj_eval_of(eval, node, node->args[0].value),
                   *weight = fj_eval_of(eval, node, node->args[1].value);
    const fj_array *bias =
        node->args[2].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[2].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    int64_t stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1}, index[FJ_MAX_RANK] = {0};
    const int count = in->rank - 2;
    const int64_t groups = node->args[6].kind == FJ_ARG_INT ? fj_eval_size(eval, node->args[6].size) : 0;
    fj_eval_require(eval, node,
                    (count == 1 || count == 2) && weight->rank == in->rank &&
                        !(node->args[7].kind == FJ_ARG_BOOL && node->args[7].flag),
                    "it is not a convolution in one or two dimensions");
    spatial(eval, &node->args[3], 1, count, stride);
    spatial(eval, &node->args[4], 0, count, padding);
    spatial(eval, &node->args[5], 1, count, dilation);
    fj_eval_require(eval, node,
                    groups > 0 && in->dims[1] == weight->dims[1] * groups &&
                        out->dims[1] == weight->dims[0] && weight->dims[0] % groups == 0 &&
                        (bias == NULL || bias->count == weight->dims[0]) && in->dims[0] == out->dims[0],
                    "its weight does not fit its argument");
    const int64_t height = in->dims[2], width = count == 2 ? in->dims[3] : 1,
                  kw = count == 2 ? weight->dims[3] : 1;
    for (int64_t at = 0; at < out->count; at++) {
        const int64_t each = groups > 0 && weight->dims[0] > groups ? weight->dims[0] / groups : 1,
                      first = index[1] / each * weight->dims[1];
        double sum = 0;
        for (int64_t k = 0; k < weight->dims[1] * weight->dims[2] * kw; k++) {
            const int64_t c = k / (weight->dims[2] * kw), ky = k / kw % weight->dims[2], kx = k % kw;
            const int64_t y = index[2] * stride[0] - padding[0] + ky * dilation[0];
            const int64_t x = count == 2 ? index[3] * stride[1] - padding[1] + kx * dilation[1] : 0;
            if (y < 0 || y >= height || x < 0 || x >= width) continue;
            sum = add_product(eval, out->dtype, sum,
                              in->data[((index[0] * in->dims[1] + first + c) * height + y) * width + x],
                              weight->data[index[1] * weight->dims[1] * weight->dims[2] * kw + k]);
        }
        out->data[at] = sum + (bias ? bias->data[index[1]] : 0);
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

void fj_eval_addmm(fj_eval *eval, const fj_node *node) {
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const fj_spread add = fj_eval_argument(eval, node, 0, out);
    const double beta = fj_eval_argument(eval, node, 3, out).number,
                 alpha = fj_eval_argument(eval, node, 4, out).number;
    int64_t index[FJ_MAX_RANK] = {0};
    fj_eval_multiply(eval, node, fj_eval_of(eval, node, node->args[1].value),
                     fj_eval_of(eval, node, node->args[2].value), out);
    if (add.data == NULL) fj_node_fail(eval->graph, node, "argument 1 is not a tensor");
    for (int64_t at = 0; at < out->count; at++) {
        const double more = beta == 0 ? 0 : beta * add.data[fj_spread_offset(&add, index, out->rank)];
        out->data[at] = alpha * out->data[at] + more;
        (void)fj_next_index(out->dims, out->rank, index);
    }
}

/* ---- Attention as one node --------------------------------------------------------------- */

void fj_eval_sdpa(fj_eval *eval, const fj_node *node) {
    const fj_array *q = fj_eval_of(eval, node, node->args[0].value),
                   *k = fj_eval_of(eval, node, node->args[1].value),
                   *v = fj_eval_of(eval, node, node->args[2].value);
    const fj_array *mask =
        node->args[3].kind == FJ_ARG_VALUE ? fj_eval_of(eval, node, node->args[3].value) : NULL;
    fj_array *out = fj_eval_make(eval, node->outputs[0]);
    const int rank = q->rank;
    const int64_t e = q->dims[rank - 1], l = q->dims[rank - 2], s = k->dims[k->rank - 2],
                  ev = v->dims[v->rank - 1];
    const bool causal = node->args[5].kind == FJ_ARG_BOOL && node->args[5].flag;
    const double scale = node->args[6].kind == FJ_ARG_FLOAT ? node->args[6].real : 1 / sqrt((double)e);
    fj_eval_require(eval, node, node->args[4].kind != FJ_ARG_FLOAT || node->args[4].real == 0,
                    "dropout in training is not evaluated");
    fj_eval_require(eval, node,
                    k->rank == rank && v->rank == rank && k->dims[rank - 1] == e && v->dims[rank - 2] == s,
                    "query, key and value do not fit");
    fj_array scores = {.rank = rank};
    int64_t index[FJ_MAX_RANK] = {0};
    memcpy(scores.dims, out->dims, sizeof scores.dims);
    scores.dims[rank - 1] = s;
    for (int d = 0; d + 2 < rank; d++)
        for (int i = 0; i < 2; i++) {
            const int64_t extent = (i ? v : k)->dims[d];
            fj_eval_require(eval, node, q->dims[d] == out->dims[d] && extent > 0 && q->dims[d] % extent == 0,
                            "its heads do not fit");
        }
    const fj_spread added = mask ? fj_spread_of(eval, node, mask, &scores, 0) : (fj_spread){0};
    double *row = fj_arena_alloc(eval->arena, ((size_t)s + 1) * sizeof *row);
    for (int64_t at = 0; at < out->count / (ev > 0 ? ev : 1); at++) { /* a row of queries */
        int64_t kb = 0, vb = 0, rest = at / l, place = 1, kplace = 1, vplace = 1;
        for (int d = rank - 2; d-- > 0;) {
            const int64_t i = rest % q->dims[d];
            index[d] = i;
            kb += i / (q->dims[d] / k->dims[d]) * kplace;
            vb += i / (q->dims[d] / v->dims[d]) * vplace;
            rest /= q->dims[d], place *= q->dims[d], kplace *= k->dims[d], vplace *= v->dims[d];
        }
        index[rank - 2] = at % l;
        for (int64_t j = 0; j < s; j++) {
            index[rank - 1] = j;
            double sum = 0;
            for (int64_t i = 0; i < e; i++)
                sum = add_product(eval, out->dtype, sum, q->data[at * e + i], k->data[(kb * s + j) * e + i]);
            row[j] = sum * scale;
            const double x = mask ? added.data[fj_spread_offset(&added, index, rank)] : 0;
            if (mask && mask->dtype == FJ_DTYPE_BOOL)
                row[j] = x != 0 ? row[j] : -HUGE_VAL;
            else
                row[j] += x;
            if (causal && j > at % l) row[j] = -HUGE_VAL;
        }
        fj_eval_softmax_row(row, s, 1, false, true);
        for (int64_t i = 0; i < ev; i++) {
            double sum = 0;
            for (int64_t j = 0; j < s; j++)
                sum = add_product(eval, out->dtype, sum, row[j], v->data[(vb * s + j) * ev + i]);
            out->data[at * ev + i] = sum;
        }
    }
}
