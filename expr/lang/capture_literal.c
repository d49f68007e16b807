/* Captured tensors whose values the source spells out: torch.tensor([...]). */
#include <string.h>

#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"

fj_table *fj_table_create(fj_elab *e, fj_place place) {
    fj_table *table = FJ_NEW(e->arena, fj_table);
    table->place = place;
    table->rank = -1;
    table->identity = table;
    for (int i = 0; i < FJ_MAX_RANK; i++) table->dims[i] = -1;
    return table;
}

typedef struct table_shape {
    int rank;
    int64_t dims[FJ_MAX_RANK], count;
    bool floating, integral; /* what its numbers are; neither: bools */
} table_shape;

static void measure(fj_elab *e, fj_value v, int depth, table_shape *shape, fj_place place) {
    fj_elab_step(e, place, 1);
    if (!fj_value_is_sequence(v)) {
        if (!fj_value_is_number(v)) {
            fj_elab_fail(e, place, "torch.tensor(...) takes constants in the mod language, not %s",
                         fj_value_describe(v));
        }
        if (shape->rank < 0) shape->rank = depth;
        if (shape->rank != depth) fj_elab_fail(e, place, "the rows of this table differ in depth");
        shape->floating |= v.kind == FJ_VALUE_FLOAT;
        shape->integral |= v.kind == FJ_VALUE_INT;
        shape->count++;
        return;
    }
    if (depth >= FJ_MAX_RANK) fj_elab_fail(e, place, "a table has at most %d dimensions", FJ_MAX_RANK);
    const int64_t len = (int64_t)v.seq->len;
    if (shape->dims[depth] < 0) shape->dims[depth] = len;
    if (shape->dims[depth] != len) fj_elab_fail(e, place, "the rows of this table differ in length");
    if (len == 0 && shape->rank < 0) shape->rank = depth + 1;
    for (size_t i = 0; i < v.seq->len; i++) measure(e, v.seq->items[i], depth + 1, shape, place);
}

static void fill(fj_value v, fj_capture *literal, bool floating, double *floats, int64_t *ints, size_t *at) {
    if (fj_value_is_sequence(v)) {
        for (size_t i = 0; i < v.seq->len; i++) fill(v.seq->items[i], literal, floating, floats, ints, at);
    } else if (floating) {
        floats[(*at)++] = fj_value_as_double(v);
    } else {
        const double number = v.kind == FJ_VALUE_FLOAT && v.f > -9e18 && v.f < 9e18 ? v.f : 0.0;
        ints[(*at)++] = v.kind == FJ_VALUE_BOOL ? v.b : v.kind == FJ_VALUE_INT ? v.i : (int64_t)number;
        if (literal->dtype == FJ_DTYPE_BOOL) ints[*at - 1] = ints[*at - 1] != 0;
    }
}

static bool same_literal(const fj_capture *a, const fj_capture *b, size_t count) {
    if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->dims, b->dims, sizeof a->dims) != 0)
        return false;
    return a->values != NULL ? memcmp(a->values, b->values, count * sizeof *a->values) == 0
                             : memcmp(a->int_values, b->int_values, count * sizeof *a->int_values) == 0;
}

/* A table that is written once is one table, however often its place is evaluated. */
static const fj_table *literal_table(fj_elab *e, const fj_capture *literal, int64_t count, fj_place place) {
    const size_t len = e->literals.len;
    for (size_t i = len > 64 ? len - 64 : 0; i < len; i++) {
        const fj_table *table = e->literals.data[i];
        const bool here = table->place.source == place.source && table->place.offset == place.offset;
        if (here && same_literal(table->literal, literal, (size_t)count)) return table;
    }
    fj_table *table = fj_table_create(e, place);
    table->literal = literal;
    table->number = len;
    FJ_PUSH(e->arena, &e->literals, table);
    return table;
}

static bool is_float_dtype(fj_dtype dtype) { return dtype >= FJ_DTYPE_F8_E4M3; }

fj_value fj_capture_literal(fj_elab *e, fj_value list, fj_value dtype, fj_place place) {
    table_shape shape = {.rank = -1};
    for (int i = 0; i < FJ_MAX_RANK; i++) shape.dims[i] = -1;
    measure(e, list, 0, &shape, place);
    fj_capture *literal = FJ_NEW(e->arena, fj_capture);
    literal->literal = true;
    literal->rank = shape.rank;
    /* Floats keep their digits: the reference path computes in double. */
    literal->dtype = shape.floating || shape.count == 0 ? FJ_DTYPE_F64
                   : shape.integral                     ? FJ_DTYPE_I64
                                                        : FJ_DTYPE_BOOL;
    if (dtype.kind == FJ_VALUE_DTYPE) literal->dtype = dtype.dtype;
    if (literal->dtype == FJ_DTYPE_I8 || literal->dtype == FJ_DTYPE_U8 || literal->dtype == FJ_DTYPE_I16) {
        literal->dtype = FJ_DTYPE_I32;
    }
    if (literal->dtype == FJ_DTYPE_F8_E4M3 || literal->dtype == FJ_DTYPE_F8_E5M2)
        literal->dtype = FJ_DTYPE_F32;
    for (int i = 0; i < FJ_MAX_RANK; i++) literal->dims[i] = i < shape.rank ? shape.dims[i] : -1;
    const bool floating = is_float_dtype(literal->dtype);
    double *floats = floating ? FJ_NEW_ARRAY(e->arena, double, shape.count + 1) : NULL;
    int64_t *ints = floating ? NULL : FJ_NEW_ARRAY(e->arena, int64_t, shape.count + 1);
    size_t at = 0;
    fill(list, literal, floating, floats, ints, &at);
    literal->values = floats;
    literal->int_values = ints;
    return fj_capture_unnamed(e, literal_table(e, literal, shape.count, place));
}
