/* Native vectors: the operations whose instructions differ between instruction sets.
 *
 * fj_vf fj_vd fj_vi fj_vl are one native register each (FJ_VB bytes); fj_vih and fj_vfh are half of
 * one, as wide in lanes as fj_vd. fj_mf and fj_md are the lane masks of fj_vf and fj_vd: mask
 * registers on AVX-512, elsewhere integer vectors of 0 and -1. Everything else of prim is written
 * once on top of this file with the vector extensions of GCC and Clang.
 */
#ifndef FJ_PRIM_ISA_H
#define FJ_PRIM_ISA_H

#include <stdint.h>
#include <string.h>

#ifndef FJ_ISA_AVX512
#define FJ_ISA_AVX512 0
#endif
#ifndef FJ_ISA_AVX512BF16
#define FJ_ISA_AVX512BF16 0
#endif
#ifndef FJ_ISA_AVX2
#define FJ_ISA_AVX2 FJ_ISA_AVX512
#endif

/* FJ_ISA_BY_PRAGMA: functions have the instructions by an attribute, which Clang does not show in macros. */
#if FJ_ISA_AVX512
#define FJ_VB 64
#if !defined FJ_ISA_BY_PRAGMA && \
    !(defined __AVX512F__ && defined __AVX512BW__ && defined __AVX512DQ__ && defined __AVX512VL__)
#error "FJ_ISA_AVX512 needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c"
#endif
#elif FJ_ISA_AVX2
#define FJ_VB 32
#if !defined FJ_ISA_BY_PRAGMA && !(defined __AVX2__ && defined __FMA__ && defined __F16C__)
#error "FJ_ISA_AVX2 needs -mavx2 -mfma -mf16c"
#endif
#else
#define FJ_VB 16
#endif
#if FJ_ISA_AVX512BF16 && !defined FJ_ISA_BY_PRAGMA && !defined __AVX512BF16__
#error "FJ_ISA_AVX512BF16 needs -mavx512bf16"
#endif
#if FJ_ISA_AVX512 || FJ_ISA_AVX2
#include "prim_native.h"
#endif

/* Every operation is rounded by itself: no contraction (GCC knows only -ffp-contract=off). */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define FJ_INLINE static inline __attribute__((always_inline, unused))
#if defined(__clang__)
#define FJ_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FJ_UNROLL _Pragma("GCC unroll 32")
#endif
#define FJ_NOINLINE static __attribute__((noinline, unused))

/* A kernel's text may be compiled in FJ_PARTS parts at the same time, which then are linked: FJ_PART is the number of one,
 * or 0 where all of it is compiled together. FJ_SHARED is a function that all parts may call and one defines. */
#ifndef FJ_PART
#define FJ_PART 0
#endif
#define FJ_IN_PART(number) (FJ_PART == 0 || FJ_PART == (number))
#if FJ_PART == 0
#define FJ_SHARED static __attribute__((noinline, unused))
#else
#define FJ_SHARED __attribute__((noinline, visibility("hidden")))
#endif

#define FJ_VECTOR(bytes) __attribute__((vector_size(bytes)))

typedef float fj_vf FJ_VECTOR(FJ_VB);
typedef double fj_vd FJ_VECTOR(FJ_VB);
typedef int32_t fj_vi FJ_VECTOR(FJ_VB);
typedef uint32_t fj_vu FJ_VECTOR(FJ_VB);
typedef int64_t fj_vl FJ_VECTOR(FJ_VB);
typedef uint64_t fj_vul FJ_VECTOR(FJ_VB);
typedef int32_t fj_vih FJ_VECTOR(FJ_VB / 2);
typedef uint32_t fj_vuh FJ_VECTOR(FJ_VB / 2);
typedef float fj_vfh FJ_VECTOR(FJ_VB / 2);

#define FJ_VF_LANES (FJ_VB / 4)
#define FJ_VD_LANES (FJ_VB / 8)

#if FJ_VB == 64
#define FJV_LOW 0, 1, 2, 3, 4, 5, 6, 7
#define FJV_HIGH 8, 9, 10, 11, 12, 13, 14, 15
#elif FJ_VB == 32
#define FJV_LOW 0, 1, 2, 3
#define FJV_HIGH 4, 5, 6, 7
#else
#define FJV_LOW 0, 1
#define FJV_HIGH 2, 3
#endif

/* ---- Halves ----------------------------------------------------------------------------------- */

FJ_INLINE fj_vih fjv_low_i(fj_vi a) { return __builtin_shufflevector(a, a, FJV_LOW); }
FJ_INLINE fj_vih fjv_high_i(fj_vi a) { return __builtin_shufflevector(a, a, FJV_HIGH); }
FJ_INLINE fj_vfh fjv_low_f(fj_vf a) { return __builtin_shufflevector(a, a, FJV_LOW); }
FJ_INLINE fj_vfh fjv_high_f(fj_vf a) { return __builtin_shufflevector(a, a, FJV_HIGH); }
FJ_INLINE fj_vi fjv_join_i(fj_vih a, fj_vih b) { return __builtin_shufflevector(a, b, FJV_LOW, FJV_HIGH); }
FJ_INLINE fj_vf fjv_join_f(fj_vfh a, fj_vfh b) { return __builtin_shufflevector(a, b, FJV_LOW, FJV_HIGH); }

/* GCC 12 splits conversions between widths that one instruction does. */
#if FJ_ISA_AVX512
FJ_INLINE fj_vd fjv_widen_f(fj_vfh a) { return (fj_vd)_mm512_cvtps_pd((__m256)a); }
FJ_INLINE fj_vfh fjv_narrow_d(fj_vd a) { return (fj_vfh)_mm512_cvtpd_ps((__m512d)a); }
FJ_INLINE fj_vl fjv_widen_i(fj_vih a) { return (fj_vl)_mm512_cvtepi32_epi64((__m256i)a); }
FJ_INLINE fj_vih fjv_narrow_l(fj_vl a) { return (fj_vih)_mm512_cvtepi64_epi32((__m512i)a); }
FJ_INLINE fj_vd fjv_real_ih(fj_vih a) { return (fj_vd)_mm512_cvtepi32_pd((__m256i)a); }
FJ_INLINE fj_vih fjv_whole_d(fj_vd a) { return (fj_vih)_mm512_cvttpd_epi32((__m512d)a); }
#elif FJ_ISA_AVX2
FJ_INLINE fj_vd fjv_widen_f(fj_vfh a) { return (fj_vd)_mm256_cvtps_pd((__m128)a); }
FJ_INLINE fj_vfh fjv_narrow_d(fj_vd a) { return (fj_vfh)_mm256_cvtpd_ps((__m256d)a); }
FJ_INLINE fj_vl fjv_widen_i(fj_vih a) { return (fj_vl)_mm256_cvtepi32_epi64((__m128i)a); }
FJ_INLINE fj_vih fjv_narrow_l(fj_vl a) { return __builtin_convertvector(a, fj_vih); }
FJ_INLINE fj_vd fjv_real_ih(fj_vih a) { return (fj_vd)_mm256_cvtepi32_pd((__m128i)a); }
FJ_INLINE fj_vih fjv_whole_d(fj_vd a) { return (fj_vih)_mm256_cvttpd_epi32((__m256d)a); }
#else
FJ_INLINE fj_vd fjv_widen_f(fj_vfh a) { return __builtin_convertvector(a, fj_vd); }
FJ_INLINE fj_vfh fjv_narrow_d(fj_vd a) { return __builtin_convertvector(a, fj_vfh); }
FJ_INLINE fj_vl fjv_widen_i(fj_vih a) { return __builtin_convertvector(a, fj_vl); }
FJ_INLINE fj_vih fjv_narrow_l(fj_vl a) { return __builtin_convertvector(a, fj_vih); }
FJ_INLINE fj_vd fjv_real_ih(fj_vih a) { return __builtin_convertvector(a, fj_vd); }
FJ_INLINE fj_vih fjv_whole_d(fj_vd a) { return __builtin_convertvector(a, fj_vih); }
#endif

FJ_INLINE fj_vf fjv_splat_f(float x) { return x - (fj_vf){0}; }
FJ_INLINE fj_vd fjv_splat_d(double x) { return x - (fj_vd){0}; }
FJ_INLINE fj_vi fjv_splat_i(int32_t x) { return x - (fj_vi){0}; }
FJ_INLINE fj_vih fjv_splat_ih(int32_t x) { return x - (fj_vih){0}; }
FJ_INLINE fj_vl fjv_splat_l(int64_t x) { return x - (fj_vl){0}; }

/* The low halves of 64 bits times a number: whole products. */
FJ_INLINE fj_vul fjv_product_ul(fj_vul a, uint32_t b) {
#if FJ_ISA_AVX512
    return (fj_vul)_mm512_mul_epu32((__m512i)a, (__m512i)fjv_splat_l(b));
#elif FJ_ISA_AVX2
    return (fj_vul)_mm256_mul_epu32((__m256i)a, (__m256i)fjv_splat_l(b));
#else
    return (a & 0xffffffffu) * b;
#endif
}

/* ---- Masks, comparisons and selection --------------------------------------------------------- */

#if FJ_ISA_AVX512

typedef __mmask16 fj_mf;
typedef __mmask8 fj_md;

#define FJV_COMPARE(op, real, integer)                                 \
    FJ_INLINE fj_mf fjv_##op##_f(fj_vf a, fj_vf b) {                   \
        return _mm512_cmp_ps_mask((__m512)a, (__m512)b, real);         \
    }                                                                  \
    FJ_INLINE fj_md fjv_##op##_d(fj_vd a, fj_vd b) {                   \
        return _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, real);       \
    }                                                                  \
    FJ_INLINE fj_mf fjv_##op##_i(fj_vi a, fj_vi b) {                   \
        return _mm512_cmp_epi32_mask((__m512i)a, (__m512i)b, integer); \
    }                                                                  \
    FJ_INLINE fj_md fjv_##op##_ih(fj_vih a, fj_vih b) {                \
        return _mm256_cmp_epi32_mask((__m256i)a, (__m256i)b, integer); \
    }                                                                  \
    FJ_INLINE fj_md fjv_##op##_l(fj_vl a, fj_vl b) {                   \
        return _mm512_cmp_epi64_mask((__m512i)a, (__m512i)b, integer); \
    }
FJV_COMPARE(eq, _CMP_EQ_OQ, _MM_CMPINT_EQ)
FJV_COMPARE(ne, _CMP_NEQ_UQ, _MM_CMPINT_NE)
FJV_COMPARE(lt, _CMP_LT_OQ, _MM_CMPINT_LT)
FJV_COMPARE(le, _CMP_LE_OQ, _MM_CMPINT_LE)
FJV_COMPARE(gt, _CMP_GT_OQ, _MM_CMPINT_NLE)
FJV_COMPARE(ge, _CMP_GE_OQ, _MM_CMPINT_NLT)

/* Known to be all lanes: a guard that the compiler does not see through in the blend. */
#define FJV_IS_ALL(m) (__builtin_constant_p((m) == (__typeof__(m))-1) && (m) == (__typeof__(m))-1)
FJ_INLINE fj_vf fjv_where_f(fj_mf m, fj_vf a, fj_vf b) {
    if (FJV_IS_ALL(m)) return a;
    return (fj_vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
}
FJ_INLINE fj_vd fjv_where_d(fj_md m, fj_vd a, fj_vd b) {
    if (FJV_IS_ALL(m)) return a;
    return (fj_vd)_mm512_mask_blend_pd(m, (__m512d)b, (__m512d)a);
}
FJ_INLINE fj_vi fjv_where_i(fj_mf m, fj_vi a, fj_vi b) {
    if (FJV_IS_ALL(m)) return a;
    return (fj_vi)_mm512_mask_blend_epi32(m, (__m512i)b, (__m512i)a);
}
FJ_INLINE fj_vih fjv_where_ih(fj_md m, fj_vih a, fj_vih b) {
    return (fj_vih)_mm256_mask_blend_epi32(m, (__m256i)b, (__m256i)a);
}
FJ_INLINE fj_vl fjv_where_l(fj_md m, fj_vl a, fj_vl b) {
    if (FJV_IS_ALL(m)) return a;
    return (fj_vl)_mm512_mask_blend_epi64(m, (__m512i)b, (__m512i)a);
}

FJ_INLINE fj_md fjv_low_m(fj_mf m) { return (fj_md)m; }
FJ_INLINE fj_md fjv_high_m(fj_mf m) { return (fj_md)(m >> 8); }
FJ_INLINE fj_mf fjv_join_m(fj_md a, fj_md b) { return (fj_mf)(a | b << 8); }
FJ_INLINE uint32_t fjv_bits_mf(fj_mf m) { return m; }
FJ_INLINE uint32_t fjv_bits_md(fj_md m) { return m; }
FJ_INLINE fj_mf fjv_unbits_mf(uint32_t bits) { return (fj_mf)bits; }
FJ_INLINE fj_md fjv_unbits_md(uint32_t bits) { return (fj_md)bits; }

#else

typedef fj_vi fj_mf;
typedef fj_vl fj_md;

#define FJV_COMPARE(op, sign)                                                                     \
    FJ_INLINE fj_mf fjv_##op##_f(fj_vf a, fj_vf b) { return (fj_mf)(a sign b); }                  \
    FJ_INLINE fj_md fjv_##op##_d(fj_vd a, fj_vd b) { return (fj_md)(a sign b); }                  \
    FJ_INLINE fj_mf fjv_##op##_i(fj_vi a, fj_vi b) { return (fj_mf)(a sign b); }                  \
    FJ_INLINE fj_md fjv_##op##_ih(fj_vih a, fj_vih b) { return fjv_widen_i((fj_vih)(a sign b)); } \
    FJ_INLINE fj_md fjv_##op##_l(fj_vl a, fj_vl b) { return (fj_md)(a sign b); }
FJV_COMPARE(eq, ==)
FJV_COMPARE(ne, !=)
FJV_COMPARE(lt, <)
FJV_COMPARE(le, <=)
FJV_COMPARE(gt, >)
FJV_COMPARE(ge, >=)

FJ_INLINE fj_vi fjv_where_i(fj_mf m, fj_vi a, fj_vi b) { return (m & a) | (~m & b); }
FJ_INLINE fj_vl fjv_where_l(fj_md m, fj_vl a, fj_vl b) { return (m & a) | (~m & b); }
FJ_INLINE fj_vih fjv_where_ih(fj_md m, fj_vih a, fj_vih b) {
    fj_vih narrow = fjv_narrow_l(m);
    return (narrow & a) | (~narrow & b);
}
#if FJ_ISA_AVX2
FJ_INLINE fj_vf fjv_where_f(fj_mf m, fj_vf a, fj_vf b) {
    return (fj_vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
}
FJ_INLINE fj_vd fjv_where_d(fj_md m, fj_vd a, fj_vd b) {
    return (fj_vd)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)m);
}
#else
FJ_INLINE fj_vf fjv_where_f(fj_mf m, fj_vf a, fj_vf b) { return (fj_vf)fjv_where_i(m, (fj_vi)a, (fj_vi)b); }
FJ_INLINE fj_vd fjv_where_d(fj_md m, fj_vd a, fj_vd b) { return (fj_vd)fjv_where_l(m, (fj_vl)a, (fj_vl)b); }
#endif

FJ_INLINE fj_md fjv_low_m(fj_mf m) { return fjv_widen_i(fjv_low_i(m)); }
FJ_INLINE fj_md fjv_high_m(fj_mf m) { return fjv_widen_i(fjv_high_i(m)); }
FJ_INLINE fj_mf fjv_join_m(fj_md a, fj_md b) { return fjv_join_i(fjv_narrow_l(a), fjv_narrow_l(b)); }
#if FJ_ISA_AVX2
FJ_INLINE uint32_t fjv_bits_mf(fj_mf m) { return (uint32_t)_mm256_movemask_ps((__m256)m); }
FJ_INLINE uint32_t fjv_bits_md(fj_md m) { return (uint32_t)_mm256_movemask_pd((__m256d)m); }
#else
FJ_INLINE uint32_t fjv_bits_mf(fj_mf m) {
    uint32_t bits = 0;
    for (int i = 0; i < FJ_VF_LANES; i++) bits |= (uint32_t)(m[i] & 1) << i;
    return bits;
}
FJ_INLINE uint32_t fjv_bits_md(fj_md m) {
    uint32_t bits = 0;
    for (int i = 0; i < FJ_VD_LANES; i++) bits |= (uint32_t)(m[i] & 1) << i;
    return bits;
}
#endif
#if FJ_VB == 32
#define FJV_BITS 1, 2, 4, 8, 16, 32, 64, 128
#else
#define FJV_BITS 1, 2, 4, 8
#endif
FJ_INLINE fj_mf fjv_unbits_mf(uint32_t bits) {
    const fj_vi each = {FJV_BITS};
    return (fj_mf)((fjv_splat_i((int32_t)bits) & each) != 0);
}
FJ_INLINE fj_md fjv_unbits_md(uint32_t bits) {
#if FJ_VB == 32
    const fj_vl each = {1, 2, 4, 8};
#else
    const fj_vl each = {1, 2};
#endif
    return (fj_md)((fjv_splat_l((int64_t)bits) & each) != 0);
}

#endif

/* ---- Rounding, square root, fused multiply-add ------------------------------------------------ */

FJ_INLINE fj_vf fjv_abs_f(fj_vf a) { return (fj_vf)((fj_vi)a & INT32_MAX); }
FJ_INLINE fj_vd fjv_abs_d(fj_vd a) { return (fj_vd)((fj_vl)a & INT64_MAX); }
/* The magnitude of a with the sign of b. */
FJ_INLINE fj_vf fjv_copysign_f(fj_vf a, fj_vf b) {
    return (fj_vf)(((fj_vi)a & INT32_MAX) | ((fj_vi)b & INT32_MIN));
}
FJ_INLINE fj_vd fjv_copysign_d(fj_vd a, fj_vd b) {
    return (fj_vd)(((fj_vl)a & INT64_MAX) | ((fj_vl)b & INT64_MIN));
}

#if FJ_ISA_AVX512 || FJ_ISA_AVX2
#if FJ_ISA_AVX512
#define FJV_NATIVE(name) _mm512_##name
#define FJV_ROUND(name) _mm512_roundscale_##name
typedef __m512 fjv_native_f;
typedef __m512d fjv_native_d;
#else
#define FJV_NATIVE(name) _mm256_##name
#define FJV_ROUND(name) _mm256_round_##name
typedef __m256 fjv_native_f;
typedef __m256d fjv_native_d;
#endif
#define FJV_ROUNDING(op, mode)                                                    \
    FJ_INLINE fj_vf fjv_##op##_f(fj_vf a) {                                       \
        return (fj_vf)FJV_ROUND(ps)((fjv_native_f)a, (mode) | _MM_FROUND_NO_EXC); \
    }                                                                             \
    FJ_INLINE fj_vd fjv_##op##_d(fj_vd a) {                                       \
        return (fj_vd)FJV_ROUND(pd)((fjv_native_d)a, (mode) | _MM_FROUND_NO_EXC); \
    }
FJV_ROUNDING(floor, _MM_FROUND_TO_NEG_INF)
FJV_ROUNDING(ceil, _MM_FROUND_TO_POS_INF)
FJV_ROUNDING(round, _MM_FROUND_TO_NEAREST_INT)
FJV_ROUNDING(trunc, _MM_FROUND_TO_ZERO)
FJ_INLINE fj_vf fjv_sqrt_f(fj_vf a) { return (fj_vf)FJV_NATIVE(sqrt_ps)((fjv_native_f)a); }
FJ_INLINE fj_vd fjv_sqrt_d(fj_vd a) { return (fj_vd)FJV_NATIVE(sqrt_pd)((fjv_native_d)a); }
/* The lesser and the greater; b where either is NaN. */
FJ_INLINE fj_vf fjv_min_f(fj_vf a, fj_vf b) {
    return (fj_vf)FJV_NATIVE(min_ps)((fjv_native_f)a, (fjv_native_f)b);
}
FJ_INLINE fj_vf fjv_max_f(fj_vf a, fj_vf b) {
    return (fj_vf)FJV_NATIVE(max_ps)((fjv_native_f)a, (fjv_native_f)b);
}
FJ_INLINE fj_vd fjv_min_d(fj_vd a, fj_vd b) {
    return (fj_vd)FJV_NATIVE(min_pd)((fjv_native_d)a, (fjv_native_d)b);
}
FJ_INLINE fj_vd fjv_max_d(fj_vd a, fj_vd b) {
    return (fj_vd)FJV_NATIVE(max_pd)((fjv_native_d)a, (fjv_native_d)b);
}
FJ_INLINE fj_vf fjv_fma_f(fj_vf a, fj_vf b, fj_vf c) {
    return (fj_vf)FJV_NATIVE(fmadd_ps)((fjv_native_f)a, (fjv_native_f)b, (fjv_native_f)c);
}
FJ_INLINE fj_vd fjv_fma_d(fj_vd a, fj_vd b, fj_vd c) {
    return (fj_vd)FJV_NATIVE(fmadd_pd)((fjv_native_d)a, (fjv_native_d)b, (fjv_native_d)c);
}

#else

FJ_INLINE fj_vf fjv_min_f(fj_vf a, fj_vf b) { return fjv_where_f((fj_mf)(a < b), a, b); }
FJ_INLINE fj_vf fjv_max_f(fj_vf a, fj_vf b) { return fjv_where_f((fj_mf)(a > b), a, b); }
FJ_INLINE fj_vd fjv_min_d(fj_vd a, fj_vd b) { return fjv_where_d((fj_md)(a < b), a, b); }
FJ_INLINE fj_vd fjv_max_d(fj_vd a, fj_vd b) { return fjv_where_d((fj_md)(a > b), a, b); }
/* Not fused: the polynomials of prim_math.h are exact enough both ways. */
FJ_INLINE fj_vf fjv_fma_f(fj_vf a, fj_vf b, fj_vf c) { return a * b + c; }
FJ_INLINE fj_vd fjv_fma_d(fj_vd a, fj_vd b, fj_vd c) { return a * b + c; }
FJ_INLINE fj_vf fjv_sqrt_f(fj_vf a) {
    for (int i = 0; i < FJ_VF_LANES; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
FJ_INLINE fj_vd fjv_sqrt_d(fj_vd a) {
    for (int i = 0; i < FJ_VD_LANES; i++) a[i] = __builtin_sqrt(a[i]);
    return a;
}
/* Values of 2^23 (2^52) and more are integers already; NaN takes the same way. */
#define FJV_ROUNDINGS(t, v, m, vi, whole)                                        \
    FJ_INLINE v fjv_trunc_##t(v a) {                                             \
        m small = (m)(fjv_abs_##t(a) < (whole));                                 \
        v inside = fjv_where_##t(small, a, (v){0});                              \
        v cut = __builtin_convertvector(__builtin_convertvector(inside, vi), v); \
        return fjv_where_##t(small, fjv_copysign_##t(cut, a), a);                \
    }                                                                            \
    FJ_INLINE v fjv_floor_##t(v a) {                                             \
        v cut = fjv_trunc_##t(a);                                                \
        return fjv_where_##t((m)(cut > a), cut - 1, cut);                        \
    }                                                                            \
    FJ_INLINE v fjv_ceil_##t(v a) {                                              \
        v cut = fjv_trunc_##t(a);                                                \
        return fjv_where_##t((m)(cut < a), fjv_copysign_##t(cut + 1, a), cut);   \
    }                                                                            \
    FJ_INLINE v fjv_round_##t(v a) {                                             \
        v shift = fjv_copysign_##t(fjv_splat_##t(whole), a);                     \
        v near = fjv_copysign_##t((a + shift) - shift, a);                       \
        return fjv_where_##t((m)(fjv_abs_##t(a) < (whole)), near, a);            \
    }
FJV_ROUNDINGS(f, fj_vf, fj_mf, fj_vi, 0x1p23f)
FJV_ROUNDINGS(d, fj_vd, fj_md, fj_vl, 0x1p52)

#endif

/* The lanes' sum, halves folded onto each other. */
FJ_INLINE double fjv_sum_d(fj_vd a) {
#if FJ_VB == 64
    typedef double half FJ_VECTOR(32);
    half four = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
#elif FJ_VB == 32
    fj_vd four = a;
#endif
#if FJ_VB >= 32
    typedef double quarter FJ_VECTOR(16);
    quarter two = __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
#else
    fj_vd two = a;
#endif
    return two[0] + two[1];
}

/* p * 2^n for an integral n in [-252, 254] ([-2044, 2046]), rounded once when p is normal. */
#if FJ_ISA_AVX512
FJ_INLINE fj_vf fjv_scale_f(fj_vf p, fj_vf n) { return (fj_vf)_mm512_scalef_ps((__m512)p, (__m512)n); }
FJ_INLINE fj_vd fjv_scale_d(fj_vd p, fj_vd n) { return (fj_vd)_mm512_scalef_pd((__m512d)p, (__m512d)n); }
#else
FJ_INLINE fj_vf fjv_scale_f(fj_vf p, fj_vf n) {
    const float magic = 0x1.8p23f; /* leaves an integer in the low bits of the significand */
    fj_vf first = (n * 0.5f + magic) - magic, second = n - first;
    fj_vf a = (fj_vf)(((fj_vu)(first + magic) + 127) << 23);
    fj_vf b = (fj_vf)(((fj_vu)(second + magic) + 127) << 23);
    return p * a * b;
}
FJ_INLINE fj_vd fjv_scale_d(fj_vd p, fj_vd n) {
    const double magic = 0x1.8p52;
    fj_vd first = (n * 0.5 + magic) - magic, second = n - first;
    fj_vd a = (fj_vd)(((fj_vul)(first + magic) + 1023) << 52);
    fj_vd b = (fj_vd)(((fj_vul)(second + magic) + 1023) << 52);
    return p * a * b;
}
#endif

#endif
