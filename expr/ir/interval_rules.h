/* Interval arithmetic on the operations of expr/ir/ops.def: what a value can be over a block of positions.
 * Plain C, shared by the library and by emitted kernels (fj_block_class).
 *
 * Sound: the interval of a result holds the result for all arguments in the intervals of the arguments,
 *   1. for ints with wraparound: where an operation may overflow, the result is the whole type;
 *   2. for floats whether they are computed in double or in float32, with functions that are wrong by a
 *      few ulp: an end that float32 does not hold is moved outwards;
 *   3. with NaN, which is in no interval and has a flag.
 */
#ifndef FJ_EXPR_IR_INTERVAL_RULES_H
#define FJ_EXPR_IR_INTERVAL_RULES_H

#ifndef __CUDACC_RTC__
#include <math.h>
#include <stdint.h>
#endif

typedef struct fj_iv {
    int64_t lo, hi; /* inclusive */
} fj_iv;
typedef fj_iv fj_iv_i; /* inside int32 */
typedef fj_iv fj_iv_l;
typedef struct fj_iv_f {
    double lo, hi; /* inclusive; infinities are values */
    int nan;       /* may be NaN */
} fj_iv_f;
typedef struct fj_iv_b {
    int f, t; /* may be false, may be true */
} fj_iv_b;

#define FJ_IV_FN static inline __attribute__((unused))

/* FJ_IV_OF(type){...} is a value in C and in C++. */
#ifdef __cplusplus
#define FJ_IV_OF(type) type
#else
#define FJ_IV_OF(type) (type)
#endif

/* Whether the exact result may not be an int64; *to is that result wrapped. */
#ifdef __CUDACC_RTC__
FJ_IV_FN int fj_iv_add_overflow(int64_t a, int64_t b, int64_t *to) {
    *to = (int64_t)((uint64_t)a + (uint64_t)b);
    return ((a ^ *to) & (b ^ *to)) < 0;
}
FJ_IV_FN int fj_iv_sub_overflow(int64_t a, int64_t b, int64_t *to) {
    *to = (int64_t)((uint64_t)a - (uint64_t)b);
    return ((a ^ b) & (a ^ *to)) < 0;
}
FJ_IV_FN int fj_iv_mul_overflow(int64_t a, int64_t b, int64_t *to) {
    *to = (int64_t)((uint64_t)a * (uint64_t)b);
    const double about = (double)a * (double)b;
    return !(about > -9.2e18 && about < 9.2e18); /* near the ends too early, which is sound */
}
#else
#define fj_iv_add_overflow __builtin_add_overflow
#define fj_iv_sub_overflow __builtin_sub_overflow
#define fj_iv_mul_overflow __builtin_mul_overflow
#endif

/* ---- Making ------------------------------------------------------------------------------------- */

FJ_IV_FN fj_iv_b fj_iv_top_b(void) { return FJ_IV_OF(fj_iv_b){1, 1}; }
FJ_IV_FN fj_iv fj_iv_top_i(void) { return FJ_IV_OF(fj_iv){INT32_MIN, INT32_MAX}; }
FJ_IV_FN fj_iv fj_iv_top_l(void) { return FJ_IV_OF(fj_iv){INT64_MIN, INT64_MAX}; }
FJ_IV_FN fj_iv_f fj_iv_top_f(void) { return FJ_IV_OF(fj_iv_f){-(double)INFINITY, (double)INFINITY, 1}; }

FJ_IV_FN fj_iv_b fj_iv_const_b(int64_t x) { return FJ_IV_OF(fj_iv_b){x == 0, x != 0}; }
FJ_IV_FN fj_iv fj_iv_const_i(int64_t x) { return FJ_IV_OF(fj_iv){x, x}; }
FJ_IV_FN fj_iv fj_iv_const_l(int64_t x) { return FJ_IV_OF(fj_iv){x, x}; }
FJ_IV_FN fj_iv fj_iv_range(int64_t lo, int64_t hi) { return FJ_IV_OF(fj_iv){lo, hi}; }
/* A loop's counter. */
FJ_IV_FN fj_iv fj_iv_counter(fj_iv extent) {
    return extent.hi >= 1 ? FJ_IV_OF(fj_iv){0, extent.hi - 1} : FJ_IV_OF(fj_iv){0, 0};
}

FJ_IV_FN int fj_iv_in_f32(double x) { return (double)(float)x == x; }

/* Ends of a correctly rounded result: rounding is monotone, so an end that float32 holds stays. */
FJ_IV_FN fj_iv_f fj_iv_rounded(double lo, double hi, int nan) {
    if (lo != lo || hi != hi) return fj_iv_top_f();
    if (!fj_iv_in_f32(lo)) lo -= fabs(lo) * 0x1p-20 + 1e-40;
    if (!fj_iv_in_f32(hi)) hi += fabs(hi) * 0x1p-20 + 1e-40;
    /* beyond float32: infinite there */
    if (lo < -3.4e38) lo = -(double)INFINITY;
    if (hi > 3.4e38) hi = (double)INFINITY;
    if (lo > 3.4e38) lo = 3.4e38;
    if (hi < -3.4e38) hi = -3.4e38;
    return FJ_IV_OF(fj_iv_f){lo, hi, nan};
}
FJ_IV_FN fj_iv_f fj_iv_const_f(double x) { return fj_iv_rounded(x, x, 0); }

/* Whether an index is outside of a dimension of n, [-n, n). */
FJ_IV_FN fj_iv_b fj_iv_outside(fj_iv index, int64_t n) {
    return FJ_IV_OF(fj_iv_b){index.hi >= -n && index.lo < n, index.lo < -n || index.hi >= n};
}

/* 0 empty, 1 partial, 2 full */
FJ_IV_FN int fj_iv_class(fj_iv_b mask) { return !mask.t ? 0 : !mask.f ? 2 : 1; }

/* ---- Bools -------------------------------------------------------------------------------------- */

FJ_IV_FN fj_iv_b fj_iv_and_b(fj_iv_b a, fj_iv_b b) { return FJ_IV_OF(fj_iv_b){a.f || b.f, a.t && b.t}; }
FJ_IV_FN fj_iv_b fj_iv_or_b(fj_iv_b a, fj_iv_b b) { return FJ_IV_OF(fj_iv_b){a.f && b.f, a.t || b.t}; }
FJ_IV_FN fj_iv_b fj_iv_not_b(fj_iv_b a) { return FJ_IV_OF(fj_iv_b){a.t, a.f}; }
FJ_IV_FN fj_iv_b fj_iv_xor_b(fj_iv_b a, fj_iv_b b) {
    return FJ_IV_OF(fj_iv_b){(a.f && b.f) || (a.t && b.t), (a.f && b.t) || (a.t && b.f)};
}
FJ_IV_FN fj_iv_b fj_iv_where_b(fj_iv_b c, fj_iv_b a, fj_iv_b b) {
    return FJ_IV_OF(fj_iv_b){(c.t && a.f) || (c.f && b.f), (c.t && a.t) || (c.f && b.t)};
}

/* ---- Ints ----------------------------------------------------------------------------------------- */

FJ_IV_FN int64_t fj_iv_min(int64_t a, int64_t b) { return a < b ? a : b; }
FJ_IV_FN int64_t fj_iv_max(int64_t a, int64_t b) { return a > b ? a : b; }
FJ_IV_FN fj_iv fj_iv_hull(fj_iv a, fj_iv b) {
    return FJ_IV_OF(fj_iv){fj_iv_min(a.lo, b.lo), fj_iv_max(a.hi, b.hi)};
}
/* b > 0 */
FJ_IV_FN int64_t fj_iv_floor(int64_t a, int64_t b) { return a / b - (a % b < 0); }

FJ_IV_FN fj_iv_b fj_iv_eq_i(fj_iv a, fj_iv b) {
    return FJ_IV_OF(fj_iv_b){a.lo != a.hi || b.lo != b.hi || a.lo != b.lo, a.lo <= b.hi && b.lo <= a.hi};
}
FJ_IV_FN fj_iv_b fj_iv_ne_i(fj_iv a, fj_iv b) { return fj_iv_not_b(fj_iv_eq_i(a, b)); }
FJ_IV_FN fj_iv_b fj_iv_lt_i(fj_iv a, fj_iv b) { return FJ_IV_OF(fj_iv_b){a.hi >= b.lo, a.lo < b.hi}; }
FJ_IV_FN fj_iv_b fj_iv_le_i(fj_iv a, fj_iv b) { return FJ_IV_OF(fj_iv_b){a.hi > b.lo, a.lo <= b.hi}; }
FJ_IV_FN fj_iv_b fj_iv_gt_i(fj_iv a, fj_iv b) { return fj_iv_lt_i(b, a); }
FJ_IV_FN fj_iv_b fj_iv_ge_i(fj_iv a, fj_iv b) { return fj_iv_le_i(b, a); }
#define fj_iv_eq_l fj_iv_eq_i
#define fj_iv_ne_l fj_iv_ne_i
#define fj_iv_lt_l fj_iv_lt_i
#define fj_iv_le_l fj_iv_le_i
#define fj_iv_gt_l fj_iv_gt_i
#define fj_iv_ge_l fj_iv_ge_i

FJ_IV_FN fj_iv fj_iv_minimum_i(fj_iv a, fj_iv b) {
    return FJ_IV_OF(fj_iv){fj_iv_min(a.lo, b.lo), fj_iv_min(a.hi, b.hi)};
}
FJ_IV_FN fj_iv fj_iv_maximum_i(fj_iv a, fj_iv b) {
    return FJ_IV_OF(fj_iv){fj_iv_max(a.lo, b.lo), fj_iv_max(a.hi, b.hi)};
}
FJ_IV_FN fj_iv fj_iv_sign_i(fj_iv a) {
    return FJ_IV_OF(fj_iv){(a.lo > 0) - (a.lo < 0), (a.hi > 0) - (a.hi < 0)};
}
FJ_IV_FN fj_iv fj_iv_not_i(fj_iv a) { return FJ_IV_OF(fj_iv){~a.hi, ~a.lo}; }
FJ_IV_FN fj_iv fj_iv_where_i(fj_iv_b c, fj_iv a, fj_iv b) { return !c.f ? a : !c.t ? b : fj_iv_hull(a, b); }
#define fj_iv_minimum_l fj_iv_minimum_i
#define fj_iv_maximum_l fj_iv_maximum_i
#define fj_iv_clamp_min_i fj_iv_maximum_i
#define fj_iv_clamp_max_i fj_iv_minimum_i
#define fj_iv_clamp_min_l fj_iv_maximum_i
#define fj_iv_clamp_max_l fj_iv_minimum_i
#define fj_iv_sign_l fj_iv_sign_i
#define fj_iv_not_l fj_iv_not_i
#define fj_iv_where_l fj_iv_where_i

/* All bits below the highest one of x >= 0. */
FJ_IV_FN int64_t fj_iv_ones(int64_t x) {
    for (int s = 1; s < 64; s *= 2) x |= x >> s;
    return x;
}

/* What depends on the width. T: i or l. */
#define FJ_IV_INT(T, LEAST, MOST, WIDTH)                                                                  \
    FJ_IV_FN fj_iv fj_iv_checked_##T(int overflow, int64_t lo, int64_t hi) {                              \
        return overflow || lo < LEAST || hi > MOST ? fj_iv_top_##T() : FJ_IV_OF(fj_iv){lo, hi};           \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_add_##T(fj_iv a, fj_iv b) {                                                      \
        int64_t lo, hi;                                                                                   \
        int overflow = fj_iv_add_overflow(a.lo, b.lo, &lo);                                               \
        overflow |= fj_iv_add_overflow(a.hi, b.hi, &hi);                                                  \
        return fj_iv_checked_##T(overflow, lo, hi);                                                       \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_sub_##T(fj_iv a, fj_iv b) {                                                      \
        int64_t lo, hi;                                                                                   \
        int overflow = fj_iv_sub_overflow(a.lo, b.hi, &lo);                                               \
        overflow |= fj_iv_sub_overflow(a.hi, b.lo, &hi);                                                  \
        return fj_iv_checked_##T(overflow, lo, hi);                                                       \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_mul_##T(fj_iv a, fj_iv b) {                                                      \
        int64_t p, q, r, s;                                                                               \
        int overflow = fj_iv_mul_overflow(a.lo, b.lo, &p);                                                \
        overflow |= fj_iv_mul_overflow(a.lo, b.hi, &q);                                                   \
        overflow |= fj_iv_mul_overflow(a.hi, b.lo, &r);                                                   \
        overflow |= fj_iv_mul_overflow(a.hi, b.hi, &s);                                                   \
        return fj_iv_checked_##T(overflow, fj_iv_min(fj_iv_min(p, q), fj_iv_min(r, s)),                   \
                                 fj_iv_max(fj_iv_max(p, q), fj_iv_max(r, s)));                            \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_neg_##T(fj_iv a) {                                                               \
        return a.lo == LEAST ? fj_iv_top_##T() : FJ_IV_OF(fj_iv){-a.hi, -a.lo};                           \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_abs_##T(fj_iv a) {                                                               \
        if (a.lo >= 0) return a;                                                                          \
        if (a.lo == LEAST) return fj_iv_top_##T();                                                        \
        return a.hi <= 0 ? FJ_IV_OF(fj_iv){-a.hi, -a.lo} : FJ_IV_OF(fj_iv){0, fj_iv_max(-a.lo, a.hi)};    \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_floordiv_##T(fj_iv a, fj_iv b) {                                                 \
        if (b.lo <= 0) return fj_iv_top_##T();                                                            \
        return FJ_IV_OF(fj_iv){fj_iv_min(fj_iv_floor(a.lo, b.lo), fj_iv_floor(a.lo, b.hi)),               \
                               fj_iv_max(fj_iv_floor(a.hi, b.lo), fj_iv_floor(a.hi, b.hi))};              \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_floormod_##T(fj_iv a, fj_iv b) {                                                 \
        if (b.lo <= 0) return fj_iv_top_##T();                                                            \
        if (a.lo >= 0 && a.hi < b.lo) return a;                                                           \
        if (b.lo == b.hi && fj_iv_floor(a.lo, b.lo) == fj_iv_floor(a.hi, b.lo)) {                         \
            const int64_t first = a.lo % b.lo + (a.lo % b.lo < 0 ? b.lo : 0);                             \
            return FJ_IV_OF(fj_iv){first, first + (a.hi - a.lo)};                                         \
        }                                                                                                 \
        return FJ_IV_OF(fj_iv){0, b.hi - 1};                                                              \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_fmod_##T(fj_iv a, fj_iv b) {                                                     \
        if (b.lo <= 0) return fj_iv_top_##T();                                                            \
        if (a.lo >= 0) {                                                                                  \
            const fj_iv r = fj_iv_floormod_##T(a, b);                                                     \
            return FJ_IV_OF(fj_iv){r.lo, fj_iv_min(r.hi, a.hi)};                                          \
        }                                                                                                 \
        return FJ_IV_OF(fj_iv){1 - b.hi, a.hi <= 0 ? 0 : b.hi - 1};                                       \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_and_##T(fj_iv a, fj_iv b) {                                                      \
        if (a.lo == a.hi && b.lo == b.hi) return fj_iv_const_l(a.lo & b.lo);                              \
        if (b.lo == b.hi && b.lo > 0 && b.lo < MOST && (b.lo & (b.lo + 1)) == 0) {                        \
            return fj_iv_floormod_##T(a, fj_iv_const_l(b.lo + 1)); /* a % 2^k */                          \
        }                                                                                                 \
        if (a.lo >= 0 && b.lo >= 0) return FJ_IV_OF(fj_iv){0, fj_iv_min(a.hi, b.hi)};                     \
        if (a.lo >= 0) return FJ_IV_OF(fj_iv){0, a.hi};                                                   \
        return b.lo >= 0 ? FJ_IV_OF(fj_iv){0, b.hi} : fj_iv_top_##T();                                    \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_or_##T(fj_iv a, fj_iv b) {                                                       \
        if (a.lo == a.hi && b.lo == b.hi) return fj_iv_const_l(a.lo | b.lo);                              \
        if (a.lo < 0 || b.lo < 0) return fj_iv_top_##T();                                                 \
        return FJ_IV_OF(fj_iv){fj_iv_max(a.lo, b.lo), fj_iv_ones(a.hi | b.hi)};                           \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_xor_##T(fj_iv a, fj_iv b) {                                                      \
        if (a.lo == a.hi && b.lo == b.hi) return fj_iv_const_l(a.lo ^ b.lo);                              \
        if (a.lo < 0 || b.lo < 0) return fj_iv_top_##T();                                                 \
        return FJ_IV_OF(fj_iv){0, fj_iv_ones(a.hi | b.hi)};                                               \
    }                                                                                                     \
    FJ_IV_FN fj_iv fj_iv_shr_##T(fj_iv a, fj_iv b) {                                                      \
        if (b.lo < 0 || b.hi >= WIDTH) return FJ_IV_OF(fj_iv){a.lo < 0 ? a.lo : 0, a.hi < 0 ? -1 : a.hi}; \
        return FJ_IV_OF(fj_iv){fj_iv_min(a.lo >> b.lo, a.lo >> b.hi),                                     \
                               fj_iv_max(a.hi >> b.lo, a.hi >> b.hi)};                                    \
    }

FJ_IV_INT(i, INT32_MIN, INT32_MAX, 32)
FJ_IV_INT(l, INT64_MIN, INT64_MAX, 64)

/* ---- Floats ------------------------------------------------------------------------------------------ */

FJ_IV_FN int fj_iv_finite(fj_iv_f a) { return a.lo > -(double)INFINITY && a.hi < (double)INFINITY; }
FJ_IV_FN int fj_iv_plain(fj_iv_f a, fj_iv_f b) { return fj_iv_finite(a) && fj_iv_finite(b); }
FJ_IV_FN fj_iv_f fj_iv_corners(double p, double q, double r, double s, int nan) {
    return fj_iv_rounded(fmin(fmin(p, q), fmin(r, s)), fmax(fmax(p, q), fmax(r, s)), nan);
}

FJ_IV_FN fj_iv_f fj_iv_add_f(fj_iv_f a, fj_iv_f b) {
    return fj_iv_plain(a, b) ? fj_iv_rounded(a.lo + b.lo, a.hi + b.hi, a.nan | b.nan) : fj_iv_top_f();
}
FJ_IV_FN fj_iv_f fj_iv_sub_f(fj_iv_f a, fj_iv_f b) {
    return fj_iv_plain(a, b) ? fj_iv_rounded(a.lo - b.hi, a.hi - b.lo, a.nan | b.nan) : fj_iv_top_f();
}
FJ_IV_FN fj_iv_f fj_iv_mul_f(fj_iv_f a, fj_iv_f b) {
    if (!fj_iv_plain(a, b)) return fj_iv_top_f();
    return fj_iv_corners(a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi, a.nan | b.nan);
}
FJ_IV_FN fj_iv_f fj_iv_div_f(fj_iv_f a, fj_iv_f b) {
    if (!fj_iv_plain(a, b) || (b.lo <= 0 && b.hi >= 0)) return fj_iv_top_f();
    return fj_iv_corners(a.lo / b.lo, a.lo / b.hi, a.hi / b.lo, a.hi / b.hi, a.nan | b.nan);
}
/* The quotient is off by one at most where it is rounded differently. */
FJ_IV_FN fj_iv_f fj_iv_floordiv_f(fj_iv_f a, fj_iv_f b) {
    const fj_iv_f q = fj_iv_div_f(a, b);
    return fj_iv_finite(q) ? fj_iv_rounded(floor(q.lo) - 1, floor(q.hi) + 1, q.nan) : fj_iv_top_f();
}
FJ_IV_FN fj_iv_f fj_iv_floormod_f(fj_iv_f a, fj_iv_f b) {
    if (!fj_iv_plain(a, b) || b.lo <= 0) return fj_iv_top_f();
    return fj_iv_rounded(0, b.hi, a.nan | b.nan);
}
FJ_IV_FN fj_iv_f fj_iv_fmod_f(fj_iv_f a, fj_iv_f b) {
    if (!fj_iv_plain(a, b) || b.lo <= 0) return fj_iv_top_f();
    return fj_iv_rounded(a.lo < 0 ? -b.hi : 0, a.hi > 0 ? b.hi : 0, a.nan | b.nan);
}
FJ_IV_FN fj_iv_f fj_iv_neg_f(fj_iv_f a) { return FJ_IV_OF(fj_iv_f){-a.hi, -a.lo, a.nan}; }
FJ_IV_FN fj_iv_f fj_iv_abs_f(fj_iv_f a) {
    if (a.lo >= 0) return a;
    return a.hi <= 0 ? fj_iv_neg_f(a) : FJ_IV_OF(fj_iv_f){0, fmax(-a.lo, a.hi), a.nan};
}
FJ_IV_FN fj_iv_f fj_iv_sign_f(fj_iv_f a) {
    const double lo = (a.lo > 0) - (a.lo < 0), hi = (a.hi > 0) - (a.hi < 0);
    return FJ_IV_OF(fj_iv_f){a.nan ? fmin(lo, 0) : lo, a.nan ? fmax(hi, 0) : hi, 0};
}
FJ_IV_FN fj_iv_f fj_iv_minimum_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_f){fmin(a.lo, b.lo), fmin(a.hi, b.hi), a.nan | b.nan};
}
FJ_IV_FN fj_iv_f fj_iv_maximum_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_f){fmax(a.lo, b.lo), fmax(a.hi, b.hi), a.nan | b.nan};
}
#define fj_iv_clamp_min_f fj_iv_maximum_f
#define fj_iv_clamp_max_f fj_iv_minimum_f
FJ_IV_FN fj_iv_f fj_iv_where_f(fj_iv_b c, fj_iv_f a, fj_iv_f b) {
    if (!c.f) return a;
    return !c.t ? b : FJ_IV_OF(fj_iv_f){fmin(a.lo, b.lo), fmax(a.hi, b.hi), a.nan | b.nan};
}

/* A comparison with NaN is false, except for ne. */
FJ_IV_FN fj_iv_b fj_iv_eq_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_b){a.nan || b.nan || a.lo != a.hi || b.lo != b.hi || a.lo != b.lo,
                             a.lo <= b.hi && b.lo <= a.hi};
}
FJ_IV_FN fj_iv_b fj_iv_ne_f(fj_iv_f a, fj_iv_f b) { return fj_iv_not_b(fj_iv_eq_f(a, b)); }
FJ_IV_FN fj_iv_b fj_iv_lt_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_b){a.nan || b.nan || a.hi >= b.lo, a.lo < b.hi};
}
FJ_IV_FN fj_iv_b fj_iv_le_f(fj_iv_f a, fj_iv_f b) {
    return FJ_IV_OF(fj_iv_b){a.nan || b.nan || a.hi > b.lo, a.lo <= b.hi};
}
FJ_IV_FN fj_iv_b fj_iv_gt_f(fj_iv_f a, fj_iv_f b) { return fj_iv_lt_f(b, a); }
FJ_IV_FN fj_iv_b fj_iv_ge_f(fj_iv_f a, fj_iv_f b) { return fj_iv_le_f(b, a); }
FJ_IV_FN fj_iv_b fj_iv_isnan_f(fj_iv_f a) { return FJ_IV_OF(fj_iv_b){1, a.nan}; }

FJ_IV_FN fj_iv_f fj_iv_floor_f(fj_iv_f a) { return fj_iv_rounded(floor(a.lo), floor(a.hi), a.nan); }
FJ_IV_FN fj_iv_f fj_iv_ceil_f(fj_iv_f a) { return fj_iv_rounded(ceil(a.lo), ceil(a.hi), a.nan); }
FJ_IV_FN fj_iv_f fj_iv_round_f(fj_iv_f a) { return fj_iv_rounded(rint(a.lo), rint(a.hi), a.nan); }
FJ_IV_FN fj_iv_f fj_iv_trunc_f(fj_iv_f a) { return fj_iv_rounded(trunc(a.lo), trunc(a.hi), a.nan); }

/* An increasing function that is wrong by a few ulp. */
FJ_IV_FN fj_iv_f fj_iv_increasing(fj_iv_f a, double (*function)(double)) {
    const double lo = function(a.lo), hi = function(a.hi);
    if (lo != lo || hi != hi) return fj_iv_top_f();
    return fj_iv_rounded(lo - fabs(lo) * 0x1p-20 - 1e-40, hi + fabs(hi) * 0x1p-20 + 1e-40, a.nan);
}

/* ---- Casts --------------------------------------------------------------------------------------------- */

FJ_IV_FN fj_iv fj_iv_cast_b_i(fj_iv_b a) { return FJ_IV_OF(fj_iv){!a.f, a.t}; }
FJ_IV_FN fj_iv fj_iv_cast_b_l(fj_iv_b a) { return FJ_IV_OF(fj_iv){!a.f, a.t}; }
FJ_IV_FN fj_iv_f fj_iv_cast_b_f(fj_iv_b a) { return FJ_IV_OF(fj_iv_f){(double)!a.f, (double)a.t, 0}; }
FJ_IV_FN fj_iv_b fj_iv_cast_i_b(fj_iv a) { return fj_iv_ne_i(a, fj_iv_const_i(0)); }
FJ_IV_FN fj_iv_b fj_iv_cast_l_b(fj_iv a) { return fj_iv_ne_i(a, fj_iv_const_i(0)); }
FJ_IV_FN fj_iv_b fj_iv_cast_f_b(fj_iv_f a) { return fj_iv_ne_f(a, fj_iv_const_f(0)); }
FJ_IV_FN fj_iv fj_iv_cast_i_l(fj_iv a) { return a; }
FJ_IV_FN fj_iv fj_iv_cast_l_i(fj_iv a) { return fj_iv_checked_i(0, a.lo, a.hi); }
FJ_IV_FN fj_iv_f fj_iv_cast_i_f(fj_iv a) { return fj_iv_rounded((double)a.lo, (double)a.hi, 0); }
FJ_IV_FN fj_iv_f fj_iv_cast_l_f(fj_iv a) { return fj_iv_rounded((double)a.lo, (double)a.hi, 0); }
FJ_IV_FN int64_t fj_iv_to_int(double x, int64_t least, int64_t most) {
    return x <= (double)least ? least : x >= (double)most ? most : (int64_t)x;
}
FJ_IV_FN fj_iv fj_iv_cast_f_l(fj_iv_f a) {
    fj_iv r = {fj_iv_to_int(a.lo, INT64_MIN, INT64_MAX), fj_iv_to_int(a.hi, INT64_MIN, INT64_MAX)};
    return a.nan ? fj_iv_hull(r, fj_iv_const_l(0)) : r;
}
FJ_IV_FN fj_iv fj_iv_cast_f_i(fj_iv_f a) {
    fj_iv r = {fj_iv_to_int(a.lo, INT32_MIN, INT32_MAX), fj_iv_to_int(a.hi, INT32_MIN, INT32_MAX)};
    return a.nan ? fj_iv_hull(r, fj_iv_const_i(0)) : r;
}

/* ---- Reductions ------------------------------------------------------------------------------------------ */

FJ_IV_FN fj_iv_b fj_iv_reduce_any(fj_iv extent, fj_iv_b body) {
    return FJ_IV_OF(fj_iv_b){body.f || extent.lo < 1, body.t && extent.hi >= 1};
}
FJ_IV_FN fj_iv_b fj_iv_reduce_all(fj_iv extent, fj_iv_b body) {
    return FJ_IV_OF(fj_iv_b){body.f && extent.hi >= 1, body.t || extent.lo < 1};
}

#endif
