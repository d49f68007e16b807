/* Lanes: the types and operations that emitted hooks and templates are written in.
 *
 * FJ_LANES positions are worked on at once. A value of the mod language is
 *
 *   fj_f   float (double with FJ_REAL_F64): one native register of lanes
 *   fj_i   int32: as many lanes
 *   fj_l   int64: as many lanes, in one register or two
 *   fj_b   bools, opaque: a mask register on AVX-512, else a vector of 0 and -1 as wide as fj_f
 *
 * and a pointwise operation of expr/ir/ops.def on arguments of type t is fj_<op>_<t>(...), one IEEE
 * operation per lane, rounded by itself. Functions are in prim_math.h, reads of captured tensors and
 * scatters in prim_load.h, the native vectors under all of it in prim_isa.h. A line that includes
 * another file of this folder in quotes is replaced by its text when a kernel is rendered.
 *
 *                lanes   fj_f            fj_i            fj_l              fj_b
 *   AVX-512      16      one register    one register    two registers     16 bits
 *   AVX2          8      one             one             two               one
 *   portable      4      one (16 bytes)  one             two               one
 *   with F64    half     one             half of one     one               8 bits; else one
 */
#ifndef FJ_PRIM_H
#define FJ_PRIM_H

/* Element types, for FJ_IN_DTYPE. */
#define FJ_F16 1
#define FJ_BF16 2
#define FJ_F32 3
#define FJ_F64 4

#ifndef FJ_REAL_F64
#define FJ_REAL_F64 0
#endif

#include "abi.h"
#include "prim_isa.h"

#include <math.h>

typedef double fj_acc;

#if FJ_REAL_F64
#define FJ_LANES FJ_VD_LANES
#define FJ_L_PARTS 1
#define FJV(op) fjv_##op##_d
#define FJVI(op) fjv_##op##_ih
typedef double fj_real;
typedef fj_vd fj_f;
typedef fj_vih fj_i;
typedef fj_vuh fj_u;
typedef fj_md fj_b;
#else
#define FJ_LANES FJ_VF_LANES
#define FJ_L_PARTS 2
#define FJV(op) fjv_##op##_f
#define FJVI(op) fjv_##op##_i
typedef float fj_real;
typedef fj_vf fj_f;
typedef fj_vi fj_i;
typedef fj_vu fj_u;
typedef fj_mf fj_b;
#endif

typedef struct fj_l {
    fj_vl v[FJ_L_PARTS];
} fj_l;

/* The same lanes in double: what some functions are computed in. */
typedef struct fj_dd {
    fj_vd v[FJ_L_PARTS];
} fj_dd;

#define FJ_EACH_PART(statement)            \
    for (int p = 0; p < FJ_L_PARTS; p++) { \
        statement;                         \
    }

/* ---- Parts ------------------------------------------------------------------------------------ */

#if FJ_REAL_F64

FJ_INLINE fj_md fjv_part(fj_b m, int p) { return (void)p, m; }
FJ_INLINE fj_b fjv_unpart(const fj_md *m) { return m[0]; }
FJ_INLINE fj_l fjv_l_from_i(fj_i a) { return (fj_l){{fjv_widen_i(a)}}; }
FJ_INLINE fj_i fjv_i_from_l(fj_l a) { return fjv_narrow_l(a.v[0]); }
FJ_INLINE fj_dd fjv_dd_from_f(fj_f a) { return (fj_dd){{a}}; }
FJ_INLINE fj_f fjv_f_from_dd(fj_dd a) { return a.v[0]; }
FJ_INLINE fj_f fjv_f_from_i(fj_i a) { return fjv_real_ih(a); }
FJ_INLINE fj_f fjv_f_from_l(fj_l a) { return __builtin_convertvector(a.v[0], fj_f); }

#else

FJ_INLINE fj_md fjv_part(fj_b m, int p) { return p ? fjv_high_m(m) : fjv_low_m(m); }
FJ_INLINE fj_b fjv_unpart(const fj_md *m) { return fjv_join_m(m[0], m[1]); }
FJ_INLINE fj_l fjv_l_from_i(fj_i a) {
    return (fj_l){{fjv_widen_i(fjv_low_i(a)), fjv_widen_i(fjv_high_i(a))}};
}
FJ_INLINE fj_i fjv_i_from_l(fj_l a) { return fjv_join_i(fjv_narrow_l(a.v[0]), fjv_narrow_l(a.v[1])); }
FJ_INLINE fj_dd fjv_dd_from_f(fj_f a) {
    return (fj_dd){{fjv_widen_f(fjv_low_f(a)), fjv_widen_f(fjv_high_f(a))}};
}
FJ_INLINE fj_f fjv_f_from_dd(fj_dd a) { return fjv_join_f(fjv_narrow_d(a.v[0]), fjv_narrow_d(a.v[1])); }
FJ_INLINE fj_f fjv_f_from_i(fj_i a) { return __builtin_convertvector(a, fj_f); }
FJ_INLINE fj_f fjv_f_from_l(fj_l a) {
    return fjv_join_f(__builtin_convertvector(a.v[0], fj_vfh), __builtin_convertvector(a.v[1], fj_vfh));
}

#endif

/* ---- Making and taking apart ------------------------------------------------------------------ */

#if FJ_REAL_F64
FJ_INLINE uint32_t fj_bits_b(fj_b m) { return fjv_bits_md(m); } /* bit i: lane i */
FJ_INLINE fj_b fj_unbits_b(uint32_t bits) { return fjv_unbits_md(bits); }
FJ_INLINE fj_i fj_splat_i(int32_t x) { return fjv_splat_ih(x); }
#else
FJ_INLINE uint32_t fj_bits_b(fj_b m) { return fjv_bits_mf(m); }
FJ_INLINE fj_b fj_unbits_b(uint32_t bits) { return fjv_unbits_mf(bits); }
FJ_INLINE fj_i fj_splat_i(int32_t x) { return fjv_splat_i(x); }
#endif
#define FJ_ALL_BITS ((1u << FJ_LANES) - 1)

FJ_INLINE fj_f fj_splat_f(fj_real x) { return FJV(splat)(x); }
FJ_INLINE fj_l fj_splat_l(int64_t x) {
    fj_l r;
    FJ_EACH_PART(r.v[p] = fjv_splat_l(x))
    return r;
}
FJ_INLINE fj_b fj_splat_b(int x) { return fj_unbits_b(x ? FJ_ALL_BITS : 0); }

/* Lane 0. */
FJ_INLINE fj_real fj_first_f(fj_f a) { return a[0]; }
FJ_INLINE int32_t fj_first_i(fj_i a) { return a[0]; }
FJ_INLINE int64_t fj_first_l(fj_l a) { return a.v[0][0]; }
FJ_INLINE int fj_first_b(fj_b a) { return (int)(fj_bits_b(a) & 1); }

/* 0, 1, 2, ... */
FJ_INLINE fj_i fj_iota_i(void) {
#if FJ_LANES == 16
    return (fj_i){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif FJ_LANES == 8
    return (fj_i){0, 1, 2, 3, 4, 5, 6, 7};
#elif FJ_LANES == 4
    return (fj_i){0, 1, 2, 3};
#else
    return (fj_i){0, 1};
#endif
}

/* The first n lanes; all of them when n >= FJ_LANES. */
FJ_INLINE fj_b fj_lanes_below(int n) {
    return fj_unbits_b(n >= FJ_LANES ? FJ_ALL_BITS : n <= 0 ? 0 : (1u << n) - 1);
}

FJ_INLINE int fj_any(fj_b m) { return fj_bits_b(m) != 0; }
FJ_INLINE int fj_all(fj_b m) { return fj_bits_b(m) == FJ_ALL_BITS; }

FJ_INLINE fj_f fj_get_f(const fj_real *from) {
    fj_f v;
    memcpy(&v, from, sizeof v);
    return v;
}
FJ_INLINE void fj_put_f(fj_real *to, fj_f v) { memcpy(to, &v, sizeof v); }

/* ---- Bools ------------------------------------------------------------------------------------ */

FJ_INLINE fj_b fj_and_b(fj_b a, fj_b b) { return (fj_b)(a & b); }
FJ_INLINE fj_b fj_or_b(fj_b a, fj_b b) { return (fj_b)(a | b); }
FJ_INLINE fj_b fj_xor_b(fj_b a, fj_b b) { return (fj_b)(a ^ b); }
FJ_INLINE fj_b fj_not_b(fj_b a) { return (fj_b)(~a); }
FJ_INLINE fj_b fj_eq_b(fj_b a, fj_b b) { return fj_not_b(fj_xor_b(a, b)); }
FJ_INLINE fj_b fj_ne_b(fj_b a, fj_b b) { return fj_xor_b(a, b); }

/* ---- Choice and comparison -------------------------------------------------------------------- */

FJ_INLINE fj_f fj_where_f(fj_b c, fj_f a, fj_f b) { return FJV(where)(c, a, b); }
FJ_INLINE fj_i fj_where_i(fj_b c, fj_i a, fj_i b) { return FJVI(where)(c, a, b); }
FJ_INLINE fj_l fj_where_l(fj_b c, fj_l a, fj_l b) {
    FJ_EACH_PART(a.v[p] = fjv_where_l(fjv_part(c, p), a.v[p], b.v[p]))
    return a;
}
FJ_INLINE fj_b fj_where_b(fj_b c, fj_b a, fj_b b) { return (fj_b)((c & a) | (~c & b)); }

#define FJ_COMPARE(op)                                                    \
    FJ_INLINE fj_b fj_##op##_f(fj_f a, fj_f b) { return FJV(op)(a, b); }  \
    FJ_INLINE fj_b fj_##op##_i(fj_i a, fj_i b) { return FJVI(op)(a, b); } \
    FJ_INLINE fj_b fj_##op##_l(fj_l a, fj_l b) {                          \
        fj_md m[FJ_L_PARTS];                                              \
        FJ_EACH_PART(m[p] = fjv_##op##_l(a.v[p], b.v[p]))                 \
        return fjv_unpart(m);                                             \
    }
FJ_COMPARE(eq)
FJ_COMPARE(ne)
FJ_COMPARE(lt)
FJ_COMPARE(le)
FJ_COMPARE(gt)
FJ_COMPARE(ge)

/* ---- Floats ----------------------------------------------------------------------------------- */

FJ_INLINE fj_f fj_add_f(fj_f a, fj_f b) { return a + b; }
FJ_INLINE fj_f fj_sub_f(fj_f a, fj_f b) { return a - b; }
FJ_INLINE fj_f fj_mul_f(fj_f a, fj_f b) { return a * b; }
FJ_INLINE fj_f fj_div_f(fj_f a, fj_f b) { return a / b; }
FJ_INLINE fj_f fj_neg_f(fj_f a) { return -a; }
FJ_INLINE fj_f fj_abs_f(fj_f a) { return FJV(abs)(a); }
FJ_INLINE fj_f fj_sqrt_f(fj_f a) { return FJV(sqrt)(a); }
FJ_INLINE fj_f fj_rsqrt_f(fj_f a) { return 1 / FJV(sqrt)(a); }
FJ_INLINE fj_f fj_floor_f(fj_f a) { return FJV(floor)(a); }
FJ_INLINE fj_f fj_ceil_f(fj_f a) { return FJV(ceil)(a); }
FJ_INLINE fj_f fj_round_f(fj_f a) { return FJV(round)(a); }
FJ_INLINE fj_f fj_trunc_f(fj_f a) { return FJV(trunc)(a); }
FJ_INLINE fj_b fj_isnan_f(fj_f a) { return fj_ne_f(a, a); }
FJ_INLINE fj_b fj_isinf_f(fj_f a) { return fj_eq_f(fj_abs_f(a), fj_splat_f((fj_real)INFINITY)); }
FJ_INLINE fj_f fj_sign_f(fj_f a) {
    fj_f zero = fj_splat_f(0), one = fj_splat_f(1);
    fj_f sign = fj_where_f(fj_lt_f(a, zero), -one, zero);
    return fj_where_f(fj_gt_f(a, zero), one, sign);
}
/* NaN wins. */
FJ_INLINE fj_f fj_minimum_f(fj_f a, fj_f b) {
    return fj_where_f(fj_or_b(fj_lt_f(a, b), fj_isnan_f(a)), a, b);
}
FJ_INLINE fj_f fj_maximum_f(fj_f a, fj_f b) {
    return fj_where_f(fj_or_b(fj_gt_f(a, b), fj_isnan_f(a)), a, b);
}
FJ_INLINE fj_f fj_clamp_min_f(fj_f a, fj_f least) { return fj_maximum_f(a, least); }
FJ_INLINE fj_f fj_clamp_max_f(fj_f a, fj_f most) { return fj_minimum_f(a, most); }

/* ---- int32 ------------------------------------------------------------------------------------ */

FJ_INLINE fj_i fj_add_i(fj_i a, fj_i b) { return (fj_i)((fj_u)a + (fj_u)b); }
FJ_INLINE fj_i fj_sub_i(fj_i a, fj_i b) { return (fj_i)((fj_u)a - (fj_u)b); }
FJ_INLINE fj_i fj_mul_i(fj_i a, fj_i b) { return (fj_i)((fj_u)a * (fj_u)b); }
FJ_INLINE fj_i fj_neg_i(fj_i a) { return (fj_i)(0 - (fj_u)a); }
FJ_INLINE fj_i fj_abs_i(fj_i a) { return fj_where_i(fj_lt_i(a, fj_splat_i(0)), fj_neg_i(a), a); }
FJ_INLINE fj_i fj_sign_i(fj_i a) { return (fj_i)((a < 0) - (a > 0)); }
FJ_INLINE fj_i fj_minimum_i(fj_i a, fj_i b) { return fj_where_i(fj_lt_i(a, b), a, b); }
FJ_INLINE fj_i fj_maximum_i(fj_i a, fj_i b) { return fj_where_i(fj_gt_i(a, b), a, b); }
FJ_INLINE fj_i fj_clamp_min_i(fj_i a, fj_i least) { return fj_maximum_i(a, least); }
FJ_INLINE fj_i fj_clamp_max_i(fj_i a, fj_i most) { return fj_minimum_i(a, most); }
FJ_INLINE fj_i fj_and_i(fj_i a, fj_i b) { return a & b; }
FJ_INLINE fj_i fj_or_i(fj_i a, fj_i b) { return a | b; }
FJ_INLINE fj_i fj_xor_i(fj_i a, fj_i b) { return a ^ b; }
FJ_INLINE fj_i fj_not_i(fj_i a) { return ~a; }
FJ_INLINE fj_i fj_shl_i(fj_i a, fj_i n) {
    fj_i inside = (fj_i)((fj_u)n < 32);
    return (fj_i)((fj_u)a << (fj_u)(n & 31)) & inside;
}
FJ_INLINE fj_i fj_shr_i(fj_i a, fj_i n) {
    fj_i inside = (fj_i)((fj_u)n < 32);
    return a >> ((n & inside) | (31 & ~inside));
}

/* ---- int64 ------------------------------------------------------------------------------------ */

#define FJ_L_OP1(op, value)                    \
    FJ_INLINE fj_l fj_##op##_l(fj_l x) {       \
        for (int p = 0; p < FJ_L_PARTS; p++) { \
            fj_vl a = x.v[p];                  \
            x.v[p] = (fj_vl)(value);           \
        }                                      \
        return x;                              \
    }
#define FJ_L_OP2(op, value)                      \
    FJ_INLINE fj_l fj_##op##_l(fj_l x, fj_l y) { \
        for (int p = 0; p < FJ_L_PARTS; p++) {   \
            fj_vl a = x.v[p], b = y.v[p];        \
            x.v[p] = (fj_vl)(value);             \
        }                                        \
        return x;                                \
    }
FJ_L_OP2(add, (fj_vul)a + (fj_vul)b)
FJ_L_OP2(sub, (fj_vul)a - (fj_vul)b)
FJ_L_OP2(mul, (fj_vul)a *(fj_vul)b)
FJ_L_OP1(neg, 0 - (fj_vul)a)
FJ_L_OP1(abs, fjv_where_l(fjv_lt_l(a, fjv_splat_l(0)), (fj_vl)(0 - (fj_vul)a), a))
FJ_L_OP1(sign, (a < 0) - (a > 0))
FJ_L_OP2(minimum, fjv_where_l(fjv_lt_l(a, b), a, b))
FJ_L_OP2(maximum, fjv_where_l(fjv_gt_l(a, b), a, b))
FJ_L_OP2(clamp_min, fjv_where_l(fjv_gt_l(a, b), a, b))
FJ_L_OP2(clamp_max, fjv_where_l(fjv_lt_l(a, b), a, b))
FJ_L_OP2(and, a &b)
FJ_L_OP2(or, a | b)
FJ_L_OP2(xor, a ^ b)
FJ_L_OP1(not, ~a)
FJ_L_OP2(shl, (fj_vl)((fj_vul)a << (fj_vul)(b & 63)) & (fj_vl)((fj_vul)b < 64))
FJ_L_OP2(shr, a >> ((b & (fj_vl)((fj_vul)b < 64)) | (63 & ~(fj_vl)((fj_vul)b < 64))))

/* ---- Integer division and powers: an int by 0 is 0 ------------------------------------------ */

/* Quotients of int32 are exact through double: what is not an integer is at least 2^-31 of it away from
 * one. 0 and -1 (whose quotient of INT32_MIN wraps) are left to the caller, who passes 1. */
FJ_INLINE fj_i fjv_quotient_i(fj_i a, fj_i b, int round_down) {
    fj_l x = fjv_l_from_i(a), y = fjv_l_from_i(b), q;
    for (int p = 0; p < FJ_L_PARTS; p++) {
        fj_vd r = fjv_real_ih(fjv_narrow_l(x.v[p])) / fjv_real_ih(fjv_narrow_l(y.v[p]));
        r = round_down ? fjv_floor_d(r) : fjv_trunc_d(r);
        q.v[p] = fjv_widen_i(fjv_whole_d(r));
    }
    return fjv_i_from_l(q);
}
FJ_INLINE fj_i fjv_divisor_i(fj_i b) {
    fj_i odd = (fj_i)(b == 0) | (fj_i)(b == -1);
    return (b & ~odd) | (1 & odd);
}
FJ_INLINE fj_i fj_floordiv_i(fj_i a, fj_i b) {
    fj_i q = fjv_quotient_i(a, fjv_divisor_i(b), 1);
    q = fj_where_i(fj_eq_i(b, fj_splat_i(-1)), fj_neg_i(a), q);
    return q & (fj_i)(b != 0);
}
FJ_INLINE fj_i fj_floormod_i(fj_i a, fj_i b) {
    fj_i d = fjv_divisor_i(b);
    return fj_sub_i(a, fj_mul_i(fjv_quotient_i(a, d, 1), d));
}
FJ_INLINE fj_i fj_fmod_i(fj_i a, fj_i b) {
    fj_i d = fjv_divisor_i(b);
    return fj_sub_i(a, fj_mul_i(fjv_quotient_i(a, d, 0), d));
}

FJ_INLINE int64_t fjv_floordiv_scalar(int64_t a, int64_t b) {
    if (b == 0) return 0;
    if (b == -1) return (int64_t)(0 - (uint64_t)a);
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}
FJ_INLINE int64_t fjv_floormod_scalar(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
FJ_INLINE int64_t fjv_fmod_scalar(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
/* A negative exponent truncates the quotient 1 / base^|n| to an int. */
FJ_INLINE uint64_t fjv_ipow_scalar(uint64_t base, int64_t n) {
    if (n < 0) return base == 1 ? 1 : base != (uint64_t)-1 ? 0 : n & 1 ? (uint64_t)-1 : 1;
    uint64_t power = 1;
    for (; n; n >>= 1, base *= base)
        if (n & 1) power *= base;
    return power;
}
#define FJ_L_LANEWISE(op)                                                                                \
    FJ_NOINLINE fj_l fj_##op##_l(fj_l x, fj_l y) {                                                       \
        int64_t a[FJ_LANES], b[FJ_LANES];                                                                \
        memcpy(a, &x, sizeof a);                                                                         \
        memcpy(b, &y, sizeof b);                                                                         \
        for (int i = 0; i < FJ_LANES; i++) a[i] = (int64_t)fjv_##op##_scalar((fjv_base_##op)a[i], b[i]); \
        memcpy(&x, a, sizeof a);                                                                         \
        return x;                                                                                        \
    }
typedef int64_t fjv_base_floordiv, fjv_base_floormod, fjv_base_fmod;
typedef uint64_t fjv_base_ipow;
FJ_L_LANEWISE(floordiv)
FJ_L_LANEWISE(floormod)
FJ_L_LANEWISE(fmod)
FJ_L_LANEWISE(ipow)
FJ_INLINE fj_i fj_ipow_i(fj_i a, fj_i b) { return fjv_i_from_l(fj_ipow_l(fjv_l_from_i(a), fjv_l_from_i(b))); }

/* ---- Casts ------------------------------------------------------------------------------------ */

FJ_INLINE fj_i fj_cast_b_i(fj_b a) { return fj_where_i(a, fj_splat_i(1), fj_splat_i(0)); }
FJ_INLINE fj_l fj_cast_b_l(fj_b a) { return fj_where_l(a, fj_splat_l(1), fj_splat_l(0)); }
FJ_INLINE fj_f fj_cast_b_f(fj_b a) { return fj_where_f(a, fj_splat_f(1), fj_splat_f(0)); }
FJ_INLINE fj_b fj_cast_i_b(fj_i a) { return fj_ne_i(a, fj_splat_i(0)); }
FJ_INLINE fj_l fj_cast_i_l(fj_i a) { return fjv_l_from_i(a); }
FJ_INLINE fj_f fj_cast_i_f(fj_i a) { return fjv_f_from_i(a); }
FJ_INLINE fj_b fj_cast_l_b(fj_l a) { return fj_ne_l(a, fj_splat_l(0)); }
FJ_INLINE fj_i fj_cast_l_i(fj_l a) { return fjv_i_from_l(a); }
FJ_INLINE fj_f fj_cast_l_f(fj_l a) { return fjv_f_from_l(a); }
FJ_INLINE fj_b fj_cast_f_b(fj_f a) { return fj_ne_f(a, fj_splat_f(0)); }

/* Toward zero; saturates, NaN gives 0. What the processor cannot convert is never given to it. */
FJ_INLINE fj_i fj_cast_f_i(fj_f a) {
    const fj_real limit = (fj_real)0x1p31;
    fj_b high = fj_ge_f(a, fj_splat_f(limit)), low = fj_lt_f(a, fj_splat_f(-limit));
    fj_b odd = fj_or_b(fj_or_b(high, low), fj_isnan_f(a));
    fj_i r = __builtin_convertvector(fj_where_f(odd, fj_splat_f(0), a), fj_i);
    r = fj_where_i(high, fj_splat_i(INT32_MAX), r);
    return fj_where_i(low, fj_splat_i(INT32_MIN), r);
}
FJ_INLINE fj_l fj_cast_f_l(fj_f a) {
    const fj_real limit = (fj_real)0x1p63;
    fj_b high = fj_ge_f(a, fj_splat_f(limit)), low = fj_lt_f(a, fj_splat_f(-limit));
    fj_b odd = fj_or_b(fj_or_b(high, low), fj_isnan_f(a));
    fj_dd d = fjv_dd_from_f(fj_where_f(odd, fj_splat_f(0), a));
    fj_l r;
    FJ_EACH_PART(r.v[p] = __builtin_convertvector(d.v[p], fj_vl))
    r = fj_where_l(high, fj_splat_l(INT64_MAX), r);
    return fj_where_l(low, fj_splat_l(INT64_MIN), r);
}

#include "expr/ir/interval_rules.h"
#include "prim_load.h"
#include "prim_math.h"

#endif
