/* Masks and scales: what is taken off a score. */
#include <math.h>

#include "base/dtype.h"
#include "fuse/region.h"

/* ---- Masks ------------------------------------------------------------------------------- */

static fj_term term_of(const fj_region *region, int term) { return region->terms.data[term]; }

/* -inf; or, when the caller says that no row is empty, the lowest number of a dtype. */
static bool is_hidden(const fj_region *region, int term) {
    const fj_term t = term_of(region, term);
    if (t.kind != FJ_TERM_NUMBER) return false;
    if (t.number == -HUGE_VAL) return true;
    return region->options->no_empty_rows &&
           (t.number <= -3.3895313892515355e+38 || (region->dtype == FJ_DTYPE_F16 && t.number <= -65504));
}

static int both(fj_region *region, int a, int b) {
    return a < 0 ? b : b < 0 ? a : fj_term_op(region, FJ_NODE_LOGICAL_AND, FJ_TERM_BOOL, 2, (int[]){a, b});
}

/* where(c, x, -inf) or where(c, -inf, x): x, and when it is seen. */
static bool split_where(fj_region *region, int term, int *ret_kept, int *ret_condition) {
    const fj_term t = term_of(region, term);
    if (t.kind != FJ_TERM_OP || t.op != FJ_NODE_WHERE || term_of(region, t.args[0]).scored) return false;
    const bool hides = is_hidden(region, t.args[1]);
    if (!hides && !is_hidden(region, t.args[2])) return false;
    *ret_kept = t.args[hides ? 2 : 1];
    *ret_condition = hides ? fj_term_not(region, t.args[0]) : t.args[0];
    return true;
}

/* Numbers whose products overflow, to an infinity of either sign. */
static bool has_huge(const fj_region *region, int term) {
    const fj_term t = term_of(region, term);
    if (t.kind == FJ_TERM_NUMBER)
        return !(fabs(t.number) < 1e18) || (region->dtype == FJ_DTYPE_F16 && fabs(t.number) > 2000);
    for (int i = 0; t.kind == FJ_TERM_OP && i < t.count; i++)
        if (has_huge(region, t.args[i])) return true;
    return false;
}

bool fj_term_is_finite(const fj_region *region, int term) {
    const fj_term t = term_of(region, term);
    if (t.kind == FJ_TERM_OP && t.op == FJ_NODE_MUL && has_huge(region, term)) return false;
    if (t.kind == FJ_TERM_NUMBER) return isfinite(t.number);
    if (t.kind != FJ_TERM_OP) return true;
    switch (t.op) {
    case FJ_NODE_DIV:
    case FJ_NODE_FLOOR_DIV:
    case FJ_NODE_REMAINDER: {
        const fj_term by = term_of(region, t.args[1]);
        return by.kind == FJ_TERM_NUMBER && by.number != 0 && isfinite(by.number) &&
               fj_term_is_finite(region, t.args[0]);
    }
    case FJ_NODE_CLAMP: return fj_term_is_finite(region, t.args[0]); /* its ends may be open */
    case FJ_NODE_EXP:                                                /* overflows where scores are large */
    case FJ_NODE_EXP2:
    case FJ_NODE_EXPM1:
    case FJ_NODE_POW:
    case FJ_NODE_RECIPROCAL:
    case FJ_NODE_SQRT:
    case FJ_NODE_RSQRT:
    case FJ_NODE_LOG:
    case FJ_NODE_LOG2:
    case FJ_NODE_LOG1P: return false;
    default: break;
    }
    for (int i = 0; i < t.count; i++)
        if (!fj_term_is_finite(region, t.args[i])) return false;
    return true;
}

/* A condition can be a mask's where it is one in the mod: not on what the scores are. */
int fj_split_mask(fj_region *region, int term, int *ret_mask) {
    const fj_term t = term_of(region, term);
    int kept, condition;
    *ret_mask = -1;
    if (t.kind != FJ_TERM_OP || !t.scored) return term;
    if (split_where(region, term, &kept, &condition)) {
        int inner;
        if (!term_of(region, kept).scored) return term;
        const int rest = fj_split_mask(region, kept, &inner);
        *ret_mask = both(region, condition, inner);
        return rest;
    }
    if (t.op == FJ_NODE_ADD && term_of(region, t.args[0]).scored != term_of(region, t.args[1]).scored) {
        const int scored = term_of(region, t.args[0]).scored ? 0 : 1;
        int added = t.args[!scored], inner, outer = -1;
        if (split_where(region, added, &kept, &condition)) {
            outer = condition;
            added = kept;
        }
        const int rest = fj_split_mask(region, t.args[scored], &inner);
        if (!fj_term_is_finite(region, added)) return term;
        if (outer >= 0 || inner >= 0)
            fj_region_note(
                region,
                "-inf is added: scores of NaN or +inf that are hidden so stay hidden, which adding makes NaN");
        *ret_mask = both(region, outer, inner);
        const fj_term a = term_of(region, added);
        if (a.kind == FJ_TERM_NUMBER && a.number == 0) return rest;
        return fj_term_op(region, FJ_NODE_ADD, FJ_TERM_FLOAT, 2, (int[]){rest, added});
    }
    if (t.op == FJ_NODE_MUL || t.op == FJ_NODE_DIV) {
        const fj_term factor = term_of(region, t.args[1]);
        int inner;
        if (factor.kind != FJ_TERM_NUMBER || !(factor.number > 0) || isinf(factor.number)) return term;
        const int rest = fj_split_mask(region, t.args[0], &inner);
        if (inner < 0) return term;
        *ret_mask = inner;
        return fj_term_op(region, t.op, FJ_TERM_FLOAT, 2, (int[]){rest, t.args[1]});
    }
    return term;
}

/* ---- The scale --------------------------------------------------------------------------- */

static void scales(const fj_region *region, int term, bool *seen, double *first, int *different) {
    const fj_term t = term_of(region, term);
    if (seen[term]) return;
    seen[term] = true;
    if (t.kind == FJ_TERM_SCORE) {
        if (*different == 0) *first = t.number;
        if (*different == 0 || t.number != *first) ++*different;
    }
    for (int i = 0; i < t.count; i++) scales(region, t.args[i], seen, first, different);
}

/* The same term over scores of another factor. */
static int rescale(fj_region *region, int term, double from, int *done) {
    fj_term t = term_of(region, term);
    if (done[term] >= 0) return done[term];
    int result = term;
    if (t.kind == FJ_TERM_SCORE) {
        const double factor = t.number / from;
        t.number = 1;
        result = fj_term_make(region, t);
        if (factor != 1) { /* not folded into the score again */
            fj_term product = {.kind = FJ_TERM_OP,
                               .type = FJ_TERM_FLOAT,
                               .op = FJ_NODE_MUL,
                               .count = 2,
                               .scored = true,
                               .printable = true};
            product.args[0] = result;
            product.args[1] = fj_term_number(region, factor, FJ_TERM_FLOAT);
            result = fj_term_make(region, product);
        }
    } else if (t.scored) {
        for (int i = 0; i < t.count; i++) t.args[i] = rescale(region, t.args[i], from, done);
        result = fj_term_make(region, t);
    }
    done[term] = result;
    return result;
}

double fj_take_scale(fj_region *region, int *term) {
    const size_t count = region->terms.len;
    bool *seen = FJ_NEW_ARRAY(region->arena, bool, count + 1);
    int *done = FJ_NEW_ARRAY(region->arena, int, count + 1);
    double scale = 1;
    int different = 0;
    scales(region, *term, seen, &scale, &different);
    if (different > 1) scale = 1;
    for (size_t i = 0; i < count; i++) done[i] = -1;
    *term = rescale(region, *term, scale, done);
    return scale;
}
