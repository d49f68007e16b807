/* What an element of a value is, as a term. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/region.h"

enum { MOST_DEPTH = 300 };

static const fj_value *value_of(const fj_region *region, int value) {
    return &region->graph->values.data[value];
}

static fj_term_type type_of(fj_dtype dtype) {
    return dtype == FJ_DTYPE_BOOL ? FJ_TERM_BOOL : fj_dtype_is_float(dtype) ? FJ_TERM_FLOAT : FJ_TERM_INT;
}

static bool is_half(fj_dtype dtype) { return dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16; }

/* ---- Captures ---------------------------------------------------------------------------- */

static int read_terms(fj_region *region, int value, const int *indices) {
    const fj_value *v = value_of(region, value);
    fj_term term = {
        .kind = FJ_TERM_READ, .type = type_of(v->dtype), .value = value, .count = v->rank, .printable = true};
    for (int i = 0; i < v->rank; i++) {
        term.args[i] = indices[i];
        term.printable &= region->terms.data[indices[i]].printable;
    }
    return fj_term_make(region, term);
}

int fj_term_read(fj_region *region, int value, const fj_index *index) {
    int indices[FJ_MAX_RANK] = {0};
    for (int i = 0; i < value_of(region, value)->rank; i++) indices[i] = fj_term_index(region, index[i]);
    return read_terms(region, value, indices);
}

void fj_broadcast(fj_region *region, const fj_value *in, int out_rank, const fj_index *index, fj_index *ret) {
    const fj_index zero = fj_index_size(&region->indices, fj_size_of(&region->graph->sizes, 0));
    for (int i = 0; i < in->rank; i++)
        ret[i] = fj_size_is(&region->graph->sizes, in->dims[i], 1) ? zero : index[out_rank - in->rank + i];
}

/* Whether each dimension is 1 or that of the result, as sizes: a symbol of another name may be 1 too, and then it is not what
 * it seems. dims: the result's last ones. The first that is not, or -1. */
int fj_unproven(const fj_region *region, const fj_value *in, const fj_size *dims, int rank) {
    for (int i = 0; i < in->rank; i++)
        if (!fj_size_is(&region->graph->sizes, in->dims[i], 1) && in->dims[i] != dims[rank - in->rank + i])
            return i;
    return -1;
}

/* ---- The product ------------------------------------------------------------------------- */

static int score(fj_region *region) {
    return fj_term_make(
        region,
        (fj_term){
            .kind = FJ_TERM_SCORE, .type = FJ_TERM_FLOAT, .scored = true, .printable = true, .number = 1});
}

/* q.k where rows are queries and columns keys, or the other way round; -1 for any other product. */
static int product(fj_region *region, int node_index, int first, const fj_index *index) {
    const fj_node *node = &region->graph->nodes.data[node_index];
    const int values[2] = {node->args[first].value, node->args[first + 1].value};
    const fj_value *a = value_of(region, values[0]), *b = value_of(region, values[1]),
                   *out = value_of(region, node->outputs[0]);
    fj_index factor[2][FJ_MAX_RANK] = {{0}};
    if (a->rank < 2 || b->rank < 2 || out->rank < 2 || !fj_dtype_is_float(out->dtype)) return -1;
    const fj_index row = index[out->rank - 2], column = index[out->rank - 1];
    const fj_size rows = a->dims[a->rank - 2], columns = b->dims[b->rank - 1];
    bool swapped;
    if (row == region->vars[FJ_VAR_Q] && column == region->vars[FJ_VAR_KV] &&
        rows == region->extents[FJ_VAR_Q] && columns == region->extents[FJ_VAR_KV])
        swapped = false;
    else if (row == region->vars[FJ_VAR_KV] && column == region->vars[FJ_VAR_Q] &&
             rows == region->extents[FJ_VAR_KV] && columns == region->extents[FJ_VAR_Q])
        swapped = true;
    else
        return -1;
    const fj_size inner = a->dims[a->rank - 1];
    if (inner != b->dims[b->rank - 2]) return -1;
    fj_index whole[FJ_MAX_RANK] = {0};
    memcpy(whole, index, sizeof *index * (size_t)out->rank);
    for (int i = 0; i < out->rank - 2; i++)
        if ((fj_index_vars(&region->indices, index[i]) & ~(1u << FJ_VAR_B | 1u << FJ_VAR_H)) != 0) return -1;
    const fj_index element = fj_index_var(&region->indices, FJ_VAR_E, inner);
    fj_broadcast(region, a, out->rank, whole, factor[0]);
    factor[0][a->rank - 2] = row;
    factor[0][a->rank - 1] = element;
    fj_broadcast(region, b, out->rank, whole, factor[1]);
    factor[1][b->rank - 2] = element;
    factor[1][b->rank - 1] = column;
    if (region->product >= 0) { /* the same elements again, or other ones, which are captured */
        if (region->product != node_index || region->factors[0] != values[swapped] ||
            region->factors[1] != values[!swapped] ||
            memcmp(region->factor_index[0], factor[swapped], sizeof factor[0]) != 0 ||
            memcmp(region->factor_index[1], factor[!swapped], sizeof factor[0]) != 0)
            return -1;
        return score(region);
    }
    region->product = node_index;
    region->extents[FJ_VAR_E] = inner;
    region->vars[FJ_VAR_E] = element;
    for (int i = 0; i < 2; i++) {
        region->factors[i] = values[i != (int)swapped];
        memcpy(region->factor_index[i], factor[i != (int)swapped], sizeof factor[0]);
    }
    if (is_half(out->dtype))
        fj_region_note(region, "'%.60s' rounds the products to %s; kernels keep float32", node->name,
                       fj_dtype_name(out->dtype));
    return score(region);
}

static int addmm(fj_region *region, int node_index, const fj_index *index, int value) {
    const fj_node *node = &region->graph->nodes.data[node_index];
    double factors[2];
    for (int i = 0; i < 2; i++) {
        const fj_arg *arg = &node->args[3 + i];
        int64_t number = 0;
        if (arg->kind != FJ_ARG_FLOAT &&
            !(arg->kind == FJ_ARG_INT && fj_size_is_const(&region->graph->sizes, arg->size, &number)))
            return fj_term_read(region, value, index);
        factors[i] = arg->kind == FJ_ARG_FLOAT ? arg->real : (double)number;
    }
    if (node->args[0].kind != FJ_ARG_VALUE || node->args[1].kind != FJ_ARG_VALUE ||
        node->args[2].kind != FJ_ARG_VALUE ||
        fj_unproven(region, value_of(region, node->args[0].value), value_of(region, value)->dims,
                    value_of(region, value)->rank) >= 0)
        return fj_term_read(region, value, index);
    const int found = product(region, node_index, 1, index);
    if (found < 0) return fj_term_read(region, value, index);
    const int scaled = fj_term_op(region, FJ_NODE_MUL, FJ_TERM_FLOAT, 2,
                                  (int[]){found, fj_term_number(region, factors[1], FJ_TERM_FLOAT)});
    if (factors[0] == 0) return scaled;
    fj_index at[FJ_MAX_RANK] = {0};
    fj_broadcast(region, value_of(region, node->args[0].value), value_of(region, value)->rank, index, at);
    int added = fj_trace(region, node->args[0].value, at);
    if (factors[0] != 1)
        added = fj_term_op(region, FJ_NODE_MUL, FJ_TERM_FLOAT, 2,
                           (int[]){added, fj_term_number(region, factors[0], FJ_TERM_FLOAT)});
    return fj_term_op(region, FJ_NODE_ADD, FJ_TERM_FLOAT, 2, (int[]){scaled, added});
}

/* ---- The rest ---------------------------------------------------------------------------- */

static int eye(fj_region *region, fj_term_type type, const fj_index *index) {
    const int same = fj_term_op(region, FJ_NODE_EQ, FJ_TERM_BOOL, 2,
                                (int[]){fj_term_index(region, index[0]), fj_term_index(region, index[1])});
    if (type == FJ_TERM_BOOL) return same;
    return fj_term_op(region, FJ_NODE_WHERE, type, 3,
                      (int[]){same, fj_term_number(region, 1, type), fj_term_number(region, 0, type)});
}

/* arange: first + step * index. */
static int create(fj_region *region, int value, const fj_index *index) {
    const fj_value *out = value_of(region, value);
    const fj_node *node = &region->graph->nodes.data[out->node];
    const fj_term_type type = type_of(out->dtype);
    int64_t step, number;
    if (node->op == FJ_NODE_ZEROS || node->op == FJ_NODE_ONES)
        return fj_term_number(region, node->op == FJ_NODE_ONES, type);
    if (node->op == FJ_NODE_EYE && out->rank == 2 && type != FJ_TERM_FLOAT) return eye(region, type, index);
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_FLOAT)
        return fj_term_number(region,
                              fj_dtype_is_float(out->dtype) && out->dtype >= FJ_DTYPE_F16
                                  ? fj_dtype_round(out->dtype, node->args[0].real)
                              : type == FJ_TERM_BOOL ? node->args[0].real != 0
                                                     : trunc(node->args[0].real),
                              type);
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_BOOL)
        return fj_term_number(region, node->args[0].flag, type);
    if (node->op == FJ_NODE_FULL && node->args[0].kind == FJ_ARG_INT &&
        fj_size_is_const(&region->graph->sizes, node->args[0].size, &number) && llabs(number) < 2048)
        return fj_term_number(region, (double)number, type);
    if (node->op != FJ_NODE_ARANGE || node->args[0].kind != FJ_ARG_INT || node->args[1].kind != FJ_ARG_INT ||
        out->rank != 1 || !fj_size_is_const(&region->graph->sizes, node->args[1].size, &step) ||
        type == FJ_TERM_BOOL)
        return fj_term_read(region, value, index);
    fj_indices *x = &region->indices;
    const int position = fj_term_index(region, fj_index_add(x, fj_index_size(x, node->args[0].size),
                                                            fj_index_scale(x, index[0], node->args[1].size)));
    if (type == FJ_TERM_INT) return position;
    return fj_is_kernel_float(region, out->dtype)
             ? fj_term_op(region, FJ_NODE_CAST, FJ_TERM_FLOAT, 1, &position)
             : fj_term_read(region, value, index);
}

static int triangle(fj_region *region, int value, const fj_index *index) {
    const fj_value *out = value_of(region, value);
    const fj_node *node = &region->graph->nodes.data[out->node];
    int64_t diagonal;
    if (out->rank < 2 || node->args[1].kind != FJ_ARG_INT ||
        !fj_size_is_const(&region->graph->sizes, node->args[1].size, &diagonal))
        return fj_term_read(region, value, index);
    const int inside = fj_trace(region, node->args[0].value, index);
    const int row = fj_term_index(region, index[out->rank - 2]),
              column = fj_term_index(region, index[out->rank - 1]);
    const int limit = fj_term_op(region, FJ_NODE_ADD, FJ_TERM_INT, 2,
                                 (int[]){row, fj_term_number(region, (double)diagonal, FJ_TERM_INT)});
    const int condition = fj_term_op(region, node->op == FJ_NODE_TRIL ? FJ_NODE_LE : FJ_NODE_GE, FJ_TERM_BOOL,
                                     2, (int[]){column, limit});
    if (type_of(out->dtype) == FJ_TERM_BOOL)
        return fj_term_op(region, FJ_NODE_LOGICAL_AND, FJ_TERM_BOOL, 2, (int[]){inside, condition});
    const int zero = fj_term_number(region, 0, type_of(out->dtype));
    return fj_term_op(region, FJ_NODE_WHERE, type_of(out->dtype), 3, (int[]){condition, inside, zero});
}

/* A table read at indices that are terms: positions go on as such. */
static int lookup(fj_region *region, int table, const int *terms) {
    const fj_value *in = value_of(region, table);
    fj_index index[FJ_MAX_RANK] = {0};
    bool positions = true;
    for (int d = 0; d < in->rank; d++) {
        const fj_term *t = &region->terms.data[terms[d]];
        positions &= t->kind == FJ_TERM_INDEX || (t->kind == FJ_TERM_NUMBER && t->number >= 0);
        if (t->kind == FJ_TERM_INDEX)
            index[d] = t->index;
        else if (t->kind == FJ_TERM_NUMBER)
            index[d] =
                fj_index_size(&region->indices, fj_size_of(&region->graph->sizes, fj_to_int(t->number)));
        /* An index that may be negative counts from the end. */
        if (t->kind == FJ_TERM_INDEX) {
            const fj_index_sum *sum = &region->indices.sums.data[t->index];
            positions &= fj_size_at_least_0(&region->graph->sizes, sum->base);
            for (int i = 0; i < sum->count; i++)
                positions &= fj_size_at_least_0(&region->graph->sizes, sum->coefs[i]);
        }
    }
    return positions ? fj_trace(region, table, index) : read_terms(region, table, terms);
}

static int indexed(fj_region *region, int value, const fj_index *index) {
    const fj_value *out = value_of(region, value);
    const fj_node *node = &region->graph->nodes.data[out->node];
    const fj_arg *list = &node->args[1];
    const fj_value *in = value_of(region, node->args[0].value);
    int first = -1, last = -1, given = 0, spread = 0, terms[FJ_MAX_RANK] = {0};
    if (list->kind != FJ_ARG_VALUES || list->count > in->rank) return fj_term_read(region, value, index);
    for (int i = 0; i < list->count; i++) {
        if (list->values[i] < 0) continue;
        const fj_value *each = value_of(region, list->values[i]);
        if (type_of(each->dtype) != FJ_TERM_INT) return fj_term_read(region, value, index);
        if (first < 0) first = i;
        last = i, given++;
        if (each->rank > spread) spread = each->rank;
    }
    if (given == 0 || last - first + 1 != given || in->rank - given + spread != out->rank)
        return fj_term_read(region, value, index);
    for (int d = 0; d < in->rank; d++) {
        if (d < first || d > last) {
            terms[d] = fj_term_index(region, index[d < first ? d : d - given + spread]);
            continue;
        }
        fj_index at[FJ_MAX_RANK] = {0};
        if (fj_unproven(region, value_of(region, list->values[d]), out->dims + first, spread) >= 0)
            return fj_term_read(region, value, index);
        fj_broadcast(region, value_of(region, list->values[d]), spread, index + first, at);
        terms[d] = fj_trace(region, list->values[d], at);
        if (region->terms.data[terms[d]].scored) return fj_term_read(region, value, index);
    }
    return lookup(region, node->args[0].value, terms);
}

static int embedding(fj_region *region, int value, const fj_index *index) {
    const fj_value *out = value_of(region, value);
    const fj_node *node = &region->graph->nodes.data[out->node];
    if (node->args[0].kind != FJ_ARG_VALUE || node->args[1].kind != FJ_ARG_VALUE ||
        value_of(region, node->args[0].value)->rank != 2)
        return fj_term_read(region, value, index);
    const int row = fj_trace(region, node->args[1].value, index);
    if (region->terms.data[row].scored) return fj_term_read(region, value, index);
    const int terms[FJ_MAX_RANK] = {row, fj_term_index(region, index[out->rank - 1])};
    return lookup(region, node->args[0].value, terms);
}

static int trace(fj_region *region, int value, const fj_index *index) {
    const fj_value *v = value_of(region, value);
    double number;
    if (fj_value_is_number(region->graph, value, &number)) {
        const bool rounds = is_half(v->dtype) || (v->dtype == FJ_DTYPE_F32 && region->dtype != FJ_DTYPE_F64);
        return fj_term_number(region, rounds ? fj_dtype_round(v->dtype, number) : number, type_of(v->dtype));
    }
    if (v->node < 0 || region->depth > MOST_DEPTH) return fj_term_read(region, value, index);
    const fj_node *node = &region->graph->nodes.data[v->node];
    fj_index at[FJ_MAX_RANK] = {0};
    int found;
    switch (fj_node_ops[node->op].class) {
    case FJ_CLASS_POINT: return fj_trace_point(region, value, index);
    case FJ_CLASS_VIEW:
    case FJ_CLASS_SPLIT:
        if (!fj_index_view(region->graph, &region->indices, node, v->output, index, at))
            return fj_term_read(region, value, index);
        return fj_trace(region, node->args[0].value, at);
    case FJ_CLASS_CREATE: return create(region, value, index);
    case FJ_CLASS_TRIANGLE: return triangle(region, value, index);
    case FJ_CLASS_MATMUL:
        found = product(region, v->node, 0, index);
        return found >= 0 ? found : fj_term_read(region, value, index);
    case FJ_CLASS_ADDMM: return addmm(region, v->node, index, value);
    case FJ_CLASS_INDEX: return indexed(region, value, index);
    case FJ_CLASS_EMBEDDING: return embedding(region, value, index);
    case FJ_CLASS_SAME:
        if (node->args[2].kind == FJ_ARG_BOOL && !node->args[2].flag)
            return fj_trace(region, node->args[0].value, index);
        return fj_term_read(region, value, index);
    default: return fj_term_read(region, value, index);
    }
}

int fj_trace(fj_region *region, int value, const fj_index *index) {
    const int rank = value_of(region, value)->rank;
    for (int at = region->memo_of[value]; at > 0; at = region->memo.data[at - 1].next)
        if (memcmp(region->memo.data[at - 1].index, index, sizeof *index * (size_t)rank) == 0)
            return region->memo.data[at - 1].term;
    region->depth++;
    int term = trace(region, value, index);
    region->depth--;
    const fj_term *t = &region->terms.data[term];
    if (!t->scored && !t->printable)
        term = fj_term_read(region, value, index); /* its own indices may be numbers */
    fj_memo memo = {.value = value, .term = term, .next = region->memo_of[value]};
    memcpy(memo.index, index, sizeof *index * (size_t)rank);
    FJ_PUSH(region->arena, &region->memo, memo);
    region->memo_of[value] = (int)region->memo.len;
    return term;
}
