/* Sizes of a graph's dimensions: integers, or polynomials of symbols such as 4*s0*s1 + 1. Equal polynomials are the same
 * number, so that sizes compare by ==. A symbol stands for any length from 1 up. */
#ifndef FJ_FUSE_SIZE_H
#define FJ_FUSE_SIZE_H

#include "base/base.h"

typedef int32_t fj_size; /* an index into the table */

enum { FJ_SIZE_DEGREE = 6, FJ_SIZE_TERMS = 24 };

typedef struct fj_size_term {
    int64_t coef;
    int16_t symbols[FJ_SIZE_DEGREE]; /* ascending, -1 after the last */
} fj_size_term;

typedef struct fj_sizes {
    fj_arena *arena;
    FJ_VEC(struct fj_poly {
        const fj_size_term *terms; /* ascending by symbols */
        int count;
        uint64_t hash;
    })
    polys;
    FJ_VEC(const char *) symbols;
    FJ_VEC(fj_size) buckets; /* open addressing over polys: index + 1 */
} fj_sizes;

void fj_sizes_init(fj_sizes *sizes, fj_arena *arena);
fj_size fj_size_of(fj_sizes *sizes, int64_t value);
fj_size fj_size_symbol(fj_sizes *sizes, fj_str name);
/* These leave the arena's scope with an error where coefficients overflow, or degree or terms are beyond the limits. */
fj_size fj_size_add(fj_sizes *sizes, fj_size a, fj_size b);
fj_size fj_size_sub(fj_sizes *sizes, fj_size a, fj_size b);
fj_size fj_size_mul(fj_sizes *sizes, fj_size a, fj_size b);
/* a / b where b is a single term that divides every term of a, or a and b are equal. */
bool fj_size_divide(fj_sizes *sizes, fj_size a, fj_size b, fj_size *ret);
bool fj_size_is_const(const fj_sizes *sizes, fj_size a, int64_t *ret_value);
bool fj_size_is(const fj_sizes *sizes, fj_size a, int64_t value);
/* Whether a is proven to be at least 0, whatever its symbols are. */
bool fj_size_at_least_0(const fj_sizes *sizes, fj_size a);
/* values[i] is that of symbol i. False on overflow. */
bool fj_size_value(const fj_sizes *sizes, fj_size a, const int64_t *values, int64_t *ret_value);
/* "4*s0*s1 + 1", in the arena, and back: false when the text is no such sum. */
const char *fj_size_text(fj_sizes *sizes, fj_size a);
bool fj_size_parse(fj_sizes *sizes, fj_str text, fj_size *ret);

#endif
