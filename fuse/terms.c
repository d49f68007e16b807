/* Terms, folded as they are made. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/region.h"

void fj_region_init(fj_region *region, fj_graph *graph, const fj_fuse_options *options) {
    *region = (fj_region){.arena = graph->arena, .graph = graph, .options = options, .product = -1};
    fj_indices_init(&region->indices, &graph->sizes, graph->arena);
    region->memo_of = FJ_NEW_ARRAY(graph->arena, int, graph->values.len + 1);
}

void fj_region_extents(fj_region *region, fj_size batch, fj_size heads, fj_size q_len, fj_size kv_len) {
    const fj_size extents[] = {batch, heads, q_len, kv_len};
    for (int i = 0; i < 4; i++) {
        region->extents[i] = extents[i];
        region->vars[i] = fj_index_var(&region->indices, i, extents[i]);
    }
}

void fj_region_raise(fj_region *region, fj_reason reason, const char *format, ...) {
    va_list list;
    char text[256];
    if (region->reasons >> reason & 1) return;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    region->reasons |= 1u << reason;
    region->details[reason] = fj_arena_strdup(region->arena, fj_str_from(text));
}

void fj_region_note(fj_region *region, const char *format, ...) {
    va_list list;
    char text[256];
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    for (size_t i = 0; i < region->notes.len; i++)
        if (strcmp(region->notes.data[i], text) == 0) return;
    FJ_PUSH(region->arena, &region->notes, fj_arena_strdup(region->arena, fj_str_from(text)));
}

/* ---- Making ------------------------------------------------------------------------------ */

/* To the bit: a NaN is equal to itself, 0 is not equal to -0. */
static bool same_number(double a, double b) {
    uint64_t x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y;
}

int fj_term_make(fj_region *region, fj_term term) {
    for (size_t i = 0; i < region->terms.len; i++) {
        const fj_term *other = &region->terms.data[i];
        if (other->kind == term.kind && other->type == term.type && same_number(other->number, term.number) &&
            other->index == term.index && other->value == term.value && other->op == term.op &&
            other->count == term.count && memcmp(other->args, term.args, sizeof term.args) == 0)
            return (int)i;
    }
    if (region->terms.len >= 4096) {
        fj_region_raise(region, FJ_REASON_OP_NOT_IN_THE_MOD_LANGUAGE, "the mod has more than 4096 terms");
        return 0;
    }
    FJ_PUSH(region->arena, &region->terms, term);
    return (int)region->terms.len - 1;
}

int fj_term_number(fj_region *region, double number, fj_term_type type) {
    return fj_term_make(region,
                        (fj_term){.kind = FJ_TERM_NUMBER, .type = type, .printable = true, .number = number});
}

static bool sizes_are_numbers(const fj_region *region, fj_index index) {
    const fj_indices *x = &region->indices;
    const fj_index_sum *sum = &x->sums.data[index];
    int64_t number;
    /* Positions have 32 bits in kernels: what is added may not bring them near their end. */
    if (!fj_size_is_const(x->sizes, sum->base, &number) || llabs(number) > 1 << 30) return false;
    for (int i = 0; i < sum->count; i++) {
        const fj_index_atom *atom = &x->atoms.data[sum->atoms[i]];
        if (!fj_size_is_const(x->sizes, sum->coefs[i], &number) || llabs(number) > INT32_MAX) return false;
        if (atom->kind != FJ_ATOM_VAR && (!fj_size_is_const(x->sizes, atom->by, &number) || number <= 0 ||
                                          !sizes_are_numbers(region, atom->of)))
            return false;
    }
    return true;
}

int fj_term_index(fj_region *region, fj_index index) {
    fj_size size;
    int64_t number;
    if (fj_index_is_size(&region->indices, index, &size) &&
        fj_size_is_const(&region->graph->sizes, size, &number))
        return fj_term_number(region, (double)number, FJ_TERM_INT);
    return fj_term_make(region, (fj_term){.kind = FJ_TERM_INDEX,
                                          .type = FJ_TERM_INT,
                                          .index = index,
                                          .printable = sizes_are_numbers(region, index)});
}

/* ---- Folding ----------------------------------------------------------------------------- */

static bool as_index(fj_region *region, int term, fj_index *ret) {
    const fj_term *t = &region->terms.data[term];
    if (t->kind == FJ_TERM_INDEX) return *ret = t->index, true;
    if (t->kind != FJ_TERM_NUMBER || t->type != FJ_TERM_INT || fabs(t->number) > 1e9) return false;
    *ret = fj_index_size(&region->indices, fj_size_of(&region->graph->sizes, fj_to_int(t->number)));
    return true;
}

/* Sums, differences and multiples of positions are positions. */
static int fold_index(fj_region *region, fj_node_op op, int a, int b) {
    fj_index x, y;
    fj_size by;
    fj_indices *indices = &region->indices;
    const fj_size minus = fj_size_of(&region->graph->sizes, -1);
    if (!as_index(region, a, &x) || !as_index(region, b, &y)) return -1;
    if (op == FJ_NODE_ADD) return fj_term_index(region, fj_index_add(indices, x, y));
    if (op == FJ_NODE_SUB)
        return fj_term_index(region, fj_index_add(indices, x, fj_index_scale(indices, y, minus)));
    if (op != FJ_NODE_MUL) return -1;
    if (fj_index_is_size(indices, y, &by)) return fj_term_index(region, fj_index_scale(indices, x, by));
    if (fj_index_is_size(indices, x, &by)) return fj_term_index(region, fj_index_scale(indices, y, by));
    return -1;
}

/* A factor of q.k becomes part of the scale. */
static int fold_score(fj_region *region, fj_node_op op, int a, int b) {
    const fj_term x = region->terms.data[a], y = region->terms.data[b];
    double scale;
    if (op == FJ_NODE_MUL && x.kind == FJ_TERM_SCORE && y.kind == FJ_TERM_NUMBER)
        scale = x.number * y.number;
    else if (op == FJ_NODE_MUL && y.kind == FJ_TERM_SCORE && x.kind == FJ_TERM_NUMBER)
        scale = x.number * y.number;
    else if (op == FJ_NODE_DIV && x.kind == FJ_TERM_SCORE && y.kind == FJ_TERM_NUMBER)
        scale = x.number / y.number;
    else
        return -1;
    if (!isfinite(scale) || scale == 0) return -1;
    fj_term score = x.kind == FJ_TERM_SCORE ? x : y;
    score.number = scale;
    return fj_term_make(region, score);
}

static int fold(fj_region *region, fj_node_op op, fj_term_type type, int count, const int *args) {
    const fj_term *a = &region->terms.data[args[0]];
    const fj_term *b = count > 1 ? &region->terms.data[args[1]] : NULL;
    int folded = -1;
    if (op == FJ_NODE_WHERE && a->kind == FJ_TERM_NUMBER) return args[a->number != 0 ? 1 : 2];
    if (op == FJ_NODE_WHERE && args[1] == args[2]) return args[1];
    if (op == FJ_NODE_NEG && a->kind == FJ_TERM_INDEX)
        return fold_index(region, FJ_NODE_MUL, args[0], fj_term_number(region, -1, FJ_TERM_INT));
    if (op == FJ_NODE_NEG && a->kind == FJ_TERM_SCORE)
        return fold_score(region, FJ_NODE_MUL, args[0], fj_term_number(region, -1, FJ_TERM_FLOAT));
    if ((op == FJ_NODE_BIT_AND || op == FJ_NODE_LOGICAL_AND) && b != NULL && type == FJ_TERM_BOOL) {
        if (a->kind == FJ_TERM_NUMBER) return a->number != 0 ? args[1] : args[0];
        if (b->kind == FJ_TERM_NUMBER) return b->number != 0 ? args[0] : args[1];
    }
    if (b != NULL && type == FJ_TERM_INT) folded = fold_index(region, op, args[0], args[1]);
    if (folded < 0 && b != NULL) folded = fold_score(region, op, args[0], args[1]);
    if (folded >= 0) return folded;
    bool numbers = true;
    for (int i = 0; i < count; i++) numbers &= region->terms.data[args[i]].kind == FJ_TERM_NUMBER;
    if (!numbers || fj_node_ops[op].value == NULL || count > 3) return -1;
    double x[3] = {0, 0, op == FJ_NODE_ADD || op == FJ_NODE_SUB || op == FJ_NODE_RSUB};
    for (int i = 0; i < count; i++) x[i] = region->terms.data[args[i]].number;
    /* Only what double and float32 give alike. */
    const double value = fj_node_ops[op].value(x[0], x[1], x[2]);
    if (type == FJ_TERM_FLOAT && fj_node_ops[op].trust != FJ_TRUST_EXACT &&
        !same_number((double)(float)value, value))
        return -1;
    return fj_term_number(region, value, type);
}

int fj_term_op(fj_region *region, fj_node_op op, fj_term_type type, int count, const int *args) {
    const int folded = fold(region, op, type, count, args);
    if (folded >= 0) return folded;
    fj_term term = {.kind = FJ_TERM_OP, .type = type, .op = op, .count = count, .printable = true};
    for (int i = 0; i < count; i++) {
        term.args[i] = args[i];
        term.scored |= region->terms.data[args[i]].scored;
        term.printable &= region->terms.data[args[i]].printable;
    }
    return fj_term_make(region, term);
}

int fj_term_bool(fj_region *region, int term) {
    const fj_term_type type = region->terms.data[term].type;
    if (type == FJ_TERM_BOOL) return term;
    return fj_term_op(region, FJ_NODE_NE, FJ_TERM_BOOL, 2, (int[]){term, fj_term_number(region, 0, type)});
}

int fj_term_not(fj_region *region, int term) {
    static const struct {
        fj_node_op op, opposite;
    } opposites[] = {{FJ_NODE_EQ, FJ_NODE_NE}, {FJ_NODE_NE, FJ_NODE_EQ}, {FJ_NODE_LT, FJ_NODE_GE},
                     {FJ_NODE_GE, FJ_NODE_LT}, {FJ_NODE_GT, FJ_NODE_LE}, {FJ_NODE_LE, FJ_NODE_GT}};
    const fj_term t = region->terms.data[fj_term_bool(region, term)];
    bool integers = t.kind == FJ_TERM_OP && t.count == 2;
    for (int i = 0; integers && i < 2; i++) integers = region->terms.data[t.args[i]].type == FJ_TERM_INT;
    for (size_t i = 0; integers && i < FJ_ARRAY_LEN(opposites); i++) /* of floats, NaN is on both sides */
        if (t.op == opposites[i].op)
            return fj_term_op(region, opposites[i].opposite, FJ_TERM_BOOL, 2, t.args);
    if (t.kind == FJ_TERM_OP && t.op == FJ_NODE_LOGICAL_NOT) return t.args[0];
    return fj_term_op(region, FJ_NODE_LOGICAL_NOT, FJ_TERM_BOOL, 1, (int[]){fj_term_bool(region, term)});
}
