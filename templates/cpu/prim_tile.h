/* Primitives of the matrix products: what tile.h needs beyond the pointwise operations of prim.h.
 *
 * Two scalar types name the two sides of a product.
 *
 *   fj_real   what is accumulated, and what scores and probabilities are: float, or double when
 *             FJ_REAL_F64. FJ_LANES of them are an fj_f.
 *   fj_opd    an operand: one step of depth of one row or column. FJ_PAIRS 0: a single fj_real.
 *             FJ_PAIRS 1 (BF16 where the processor has dot products of it): two neighbours in
 *             depth, the first in the low half, so that one instruction does two steps.
 *             FJ_LANES of them are an fj_ov: the same number of bytes as an fj_f.
 *
 * F16, and BF16 without dot products, become float when they are packed. Intrinsics for AVX-512,
 * AVX2 with FMA and F16C, and plain vector extensions for the rest.
 */
#ifndef FJ_PRIM_TILE_H
#define FJ_PRIM_TILE_H

#include "prim.h"

#define FJ_PAIRS (FJ_IN_DTYPE == FJ_BF16 && FJ_ISA_AVX512BF16 && FJ_ISA_AVX512 && !FJ_REAL_F64)

/* Operands that a depth of n takes, and the bytes of one input element. */
#define FJ_DEPTH(n) (FJ_PAIRS ? ((n) + 1) / 2 : (n))
#define FJ_IN_SIZE (FJ_IN_DTYPE == FJ_F64 ? 8 : FJ_IN_DTYPE == FJ_F32 ? 4 : 2)

#if FJ_REAL_F64
typedef int64_t fj_bits;
#else
typedef int32_t fj_bits;
#endif
typedef fj_bits fj_bits_v __attribute__((vector_size(sizeof(fj_bits) * FJ_LANES)));
#if FJ_PAIRS
/* Probabilities take the place of scores in memory: pairs may alias reals. */
typedef uint32_t __attribute__((may_alias)) fj_opd;
typedef uint32_t fj_ov __attribute__((vector_size(4 * FJ_LANES), may_alias));
#else
typedef fj_real fj_opd;
typedef fj_f fj_ov;
#endif

/* ---- Registers ----------------------------------------------------------------------------- */

/* Register tiles: FJ_PANEL_VECS vectors wide (the width of a packed panel), and for each width the
 * rows that fill the accumulators (32 vector registers: 24; 16: 12). */
#if FJ_ISA_AVX512
#define FJ_PANEL_VECS 4
#define FJ_TILE_ROWS(vecs) (24 / (vecs))
#else
#define FJ_PANEL_VECS 2
#define FJ_TILE_ROWS(vecs) (12 / (vecs))
#endif

FJ_INLINE fj_f tile_splat(fj_real x) { return fj_splat_f(x); }

/* a * b + c; rounded once where the processor can. */
FJ_INLINE fj_f tile_fma(fj_f a, fj_f b, fj_f c) { return FJV(fma)(a, b, c); }

/* One operand in every lane, and FJ_LANES neighbours (aligned to their size). */
FJ_INLINE fj_ov tile_operand(const fj_opd *p) {
#if FJ_PAIRS
    return (fj_ov)_mm512_set1_epi32((int)*p);
#else
    return tile_splat(*p);
#endif
}

FJ_INLINE fj_ov tile_operands(const fj_opd *p) { return *(const fj_ov *)p; }

/* sum + a * b over one operand of depth: the one instruction of every product. */
FJ_INLINE fj_f tile_step(fj_f sum, fj_ov a, fj_ov b) {
#if FJ_PAIRS
    return (fj_f)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    return tile_fma(a, b, sum);
#endif
}

FJ_INLINE fj_f tile_load(const fj_real *p) { return *(const fj_f *)p; }
FJ_INLINE void tile_store(fj_real *p, fj_f v) { *(fj_f *)p = v; }

/* The larger; b where either is NaN. */
#if FJ_ISA_AVX512 && FJ_REAL_F64
FJ_INLINE fj_f tile_max(fj_f a, fj_f b) { return (fj_f)_mm512_max_pd((__m512d)a, (__m512d)b); }
#elif FJ_ISA_AVX512
FJ_INLINE fj_f tile_max(fj_f a, fj_f b) { return (fj_f)_mm512_max_ps((__m512)a, (__m512)b); }
#elif FJ_ISA_AVX2 && FJ_REAL_F64
FJ_INLINE fj_f tile_max(fj_f a, fj_f b) { return (fj_f)_mm256_max_pd((__m256d)a, (__m256d)b); }
#elif FJ_ISA_AVX2
FJ_INLINE fj_f tile_max(fj_f a, fj_f b) { return (fj_f)_mm256_max_ps((__m256)a, (__m256)b); }
#else
FJ_INLINE fj_f tile_max(fj_f a, fj_f b) { return FJV(where)(FJV(gt)(a, b), a, b); }
#endif

/* The halves of a and b interleaved: a0 b0 a1 b1 ... */
FJ_INLINE void tile_interleave(fj_ov a, fj_ov b, fj_ov *low, fj_ov *high) {
#if FJ_LANES == 16
    *low = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *high = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif FJ_LANES == 8
    *low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    *high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif FJ_LANES == 4
    *low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    *high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
    *low = __builtin_shufflevector(a, b, 0, 2);
    *high = __builtin_shufflevector(a, b, 1, 3);
#endif
}

/* FJ_LANES vectors, each reduced over its lanes, as one vector: lane i is v[i]'s. The order of
 * additions is the same for each: halves folded onto each other. v is used up. */
#define FJ_REDUCE(name, combine)                                                                    \
    FJ_INLINE fj_f name(fj_f v[FJ_LANES]) {                                                         \
        FJ_UNROLL for (int n = FJ_LANES / 2; n > 0; n /= 2) FJ_UNROLL for (int i = 0; i < n; i++) { \
            fj_ov low, high;                                                                        \
            tile_interleave((fj_ov)v[i], (fj_ov)v[i + n], &low, &high);                             \
            v[i] = combine((fj_f)low, (fj_f)high);                                                  \
        }                                                                                           \
        return v[0];                                                                                \
    }
FJ_INLINE fj_f tile_add(fj_f a, fj_f b) { return a + b; }
FJ_REDUCE(tile_reduce_sum, tile_add)
FJ_REDUCE(tile_reduce_max, tile_max)

/* 2^x for the softmax: x <= 126 (anything below, -inf too), or NaN, which stays. 2^0 is exactly 1 and 2^-inf exactly 0; results
 * below the smallest normal number may be 0. At most 2 ulp (polynomials: 9.2e-8 relative, 3.4e-18
 * in double, with a constant term of 1). AVX-512 splits x at its floor, the others at the nearest
 * integer. */
FJ_INLINE fj_f tile_polynomial(fj_f x, const fj_real *c, int n) {
    fj_f p = tile_splat(c[0]);
    FJ_UNROLL for (int i = 1; i < n; i++) p = tile_fma(p, x, tile_splat(c[i]));
    return p;
}

FJ_INLINE fj_f tile_exp2(fj_f x) {
#if FJ_ISA_AVX512 && FJ_REAL_F64
    static const double c[] = {6.27243695713783512e-10, 6.5544557738570504e-9,    1.02544577142324723e-7,
                               1.320819344985004e-6,    0.0000152531902527511925, 0.000154035114462742881,
                               0.00133335586615834706,  0.00961812909879244896,   0.0555041086657111632,
                               0.240226506959054712,    0.693147180559946235,     1.0};
    return (fj_f)_mm512_scalef_pd((__m512d)tile_polynomial((fj_f)_mm512_reduce_pd((__m512d)x, 1), c, 12),
                                  (__m512d)x);
#elif FJ_ISA_AVX512
    static const float c[] = {0.00186713073845431258f, 0.00901702859762101824f, 0.0557999146725179008f,
                              0.24016444957351056f,    0.693151311875379983f,   1.0f};
    return (fj_f)_mm512_scalef_ps((__m512)tile_polynomial((fj_f)_mm512_reduce_ps((__m512)x, 1), c, 6),
                                  (__m512)x);
#else
#if FJ_REAL_F64
    const fj_real magic = 0x1.8p52 + 1023, low = -1023;
    static const double c[] = {4.43477010883327712e-10, 7.07378311555888531e-9,   1.01781995784035934e-7,
                               1.32154352831002927e-6,  0.0000152527334931161927, 0.000154035304571104917,
                               0.00133335581467746259,  0.00961812910759412134,   0.0555041086648200832,
                               0.240226506959101313,    0.693147180559945326,     1.0};
#else
    const fj_real magic = 0x1.8p23f + 127, low = -127;
    static const float c[] = {0.00132647270738298188f, 0.00967151260596862778f, 0.0555073374318849147f,
                              0.240222420864758354f,   0.693146977600525753f,   1.0f};
#endif
    x = tile_max(tile_splat(low), x);
    /* x + magic has the exponent of 2^round(x), biased, in its low bits: 0, that is 0.0, at low. */
    fj_f t = x + tile_splat(magic), r = x - (t - tile_splat(magic));
    fj_f p = tile_polynomial(r, c, (int)(sizeof(c) / sizeof(c[0])));
    return p * (fj_f)((fj_bits_v)t << (FJ_REAL_F64 ? 52 : 23));
#endif
}

/* Asks for a row that is needed soon, in the second cache, as the first has room for too few requests to keep memory
 * busy; and for one that is there already, in the first. Nothing happens where nothing is. */
FJ_INLINE void tile_fetch(const char *row, const int size) {
    for (int at = 0; at < size; at += 64) __builtin_prefetch(row + at, 0, 1);
}
FJ_INLINE void tile_fetch_near(const char *row, const int size) {
    for (int at = 0; at < size; at += 64) __builtin_prefetch(row + at, 0, 3);
}

/* ---- Input and output elements ------------------------------------------------------------- */

FJ_INLINE uint16_t tile_to_half(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above */
    if (a < 0x38800000) {                                  /* denormal: let an addition round */
        float t;
        memcpy(&t, &a, 4);
        t += 0.5f;
        memcpy(&a, &t, 4);
        return (uint16_t)(sign | (a - 0x3f000000));
    }
    a += 0xfff + (a >> 13 & 1);
    return (uint16_t)(sign | (a - 0x38000000) >> 13);
}

/* FJ_LANES elements of the input type at p, any alignment. */
FJ_INLINE fj_f tile_input(const char *p) {
    fj_f v = {0};
#if FJ_IN_DTYPE == FJ_F64 || FJ_IN_DTYPE == FJ_F32
    memcpy(&v, p, sizeof(v));
#elif FJ_IN_DTYPE == FJ_F16 && FJ_ISA_AVX512
    v = (fj_f)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif FJ_IN_DTYPE == FJ_F16 && FJ_ISA_AVX2
    v = (fj_f)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#elif FJ_ISA_AVX512
    v = (fj_f)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif FJ_ISA_AVX2
    v = (fj_f)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
    uint16_t t[FJ_LANES];
    memcpy(t, p, sizeof(t));
    for (int i = 0; i < FJ_LANES; i++) v[i] = FJ_IN_DTYPE == FJ_F16 ? fj_from_f16(t[i]) : fj_from_bf16(t[i]);
#endif
    return v;
}

/* Rounds to nearest even. */
FJ_INLINE void tile_output(char *p, fj_f v) {
#if FJ_IN_DTYPE == FJ_F64 || FJ_IN_DTYPE == FJ_F32
    memcpy(p, &v, sizeof(v));
#elif FJ_IN_DTYPE == FJ_F16 && FJ_ISA_AVX512
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, 0));
#elif FJ_IN_DTYPE == FJ_F16 && FJ_ISA_AVX2
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, 0));
#elif FJ_IN_DTYPE == FJ_F16
    uint16_t t[FJ_LANES];
    for (int i = 0; i < FJ_LANES; i++) t[i] = tile_to_half(v[i]);
    memcpy(p, t, sizeof(t));
#else /* NaN stays NaN: it is not rounded */
    typedef uint16_t halves __attribute__((vector_size(2 * FJ_LANES)));
    const fj_vu u = (fj_vu)v, is_nan = (fj_vu)((fj_vi)(u & 0x7fffffff) > 0x7f800000);
    const fj_vu rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
    const halves t = __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), halves);
    memcpy(p, &t, sizeof(t));
#endif
}

/* The first n < FJ_LANES elements; nothing beyond them is touched, the other lanes are 0. */
FJ_INLINE fj_f tile_input_part(const char *p, int n) {
#if FJ_ISA_AVX512 && FJ_IN_DTYPE == FJ_F64
    return (fj_f)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#elif FJ_ISA_AVX512 && FJ_IN_DTYPE == FJ_F32
    return (fj_f)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    char t[FJ_LANES * FJ_IN_SIZE] = {0};
    memcpy(t, p, (size_t)n * FJ_IN_SIZE);
    return tile_input(t);
#endif
}

FJ_INLINE void tile_output_part(char *p, fj_f v, int n) {
#if FJ_ISA_AVX512 && FJ_IN_DTYPE == FJ_F64
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#elif FJ_ISA_AVX512 && FJ_IN_DTYPE == FJ_F32
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    char t[FJ_LANES * FJ_IN_SIZE];
    tile_output(t, v);
    memcpy(p, t, (size_t)n * FJ_IN_SIZE);
#endif
}

/* One element; infinities and NaN stay such. */
FJ_INLINE fj_real tile_element(const char *p) {
    fj_real x;
    uint16_t half;
    if (FJ_IN_SIZE > 2) return memcpy(&x, p, sizeof x), x;
    memcpy(&half, p, sizeof half);
    return (fj_real)(FJ_IN_DTYPE == FJ_F16 ? fj_from_f16(half) : fj_from_bf16(half));
}

/* ---- Operands -------------------------------------------------------------------------------- */

#define FJ_OPERAND_ELEMENTS (FJ_LANES * (1 + FJ_PAIRS)) /* input elements along depth in an fj_ov */

/* n elements of a row along depth as operands; n may be anything from 0 to FJ_OPERAND_ELEMENTS. */
FJ_INLINE fj_ov tile_input_depth(const char *p, int n) {
#if FJ_PAIRS
    fj_ov v = {0};
    if (n >= FJ_OPERAND_ELEMENTS)
        memcpy(&v, p, sizeof(v));
    else if (n > 0)
        v = (fj_ov)_mm512_maskz_loadu_epi16((__mmask32)((1u << n) - 1), p);
    return v;
#else
    return n >= FJ_LANES ? tile_input(p) : n > 0 ? tile_input_part(p, n) : tile_splat(0);
#endif
}

FJ_INLINE fj_ov tile_negate(fj_ov v) {
#if FJ_PAIRS
    return v ^ 0x80008000u;
#else
    return -v;
#endif
}

/* What is not finite has an exponent of all ones. A watch gathers operands; a sign bit of it (of each half,
 * with FJ_PAIRS) is then set where one was not finite. */
#if FJ_REAL_F64
typedef uint64_t fj_watch __attribute__((vector_size(8 * FJ_LANES)));
#define FJ_WATCH_SIGNS 0x8000000000000000u
#define FJ_WATCH_UNIT 0x0010000000000000u
#else
typedef uint32_t fj_watch __attribute__((vector_size(4 * FJ_LANES)));
#define FJ_WATCH_SIGNS (FJ_PAIRS ? 0x80008000u : 0x80000000u)
#define FJ_WATCH_UNIT (FJ_PAIRS ? 0x00800080u : 0x00800000u)
#endif
FJ_INLINE fj_watch tile_watch(fj_watch watch, fj_ov v) {
    return watch | (((fj_watch)v & ~FJ_WATCH_SIGNS) + FJ_WATCH_UNIT);
}
FJ_INLINE int tile_watched(fj_watch watch) {
    int any = 0;
    for (int i = 0; i < FJ_LANES; i++) any |= (watch[i] & FJ_WATCH_SIGNS) != 0;
    return any;
}

/* Values along depth to operands. FJ_PAIRS: the 2 * FJ_LANES values of a and b become FJ_LANES
 * operands at p; else a and b are stored one after the other, 2 * FJ_LANES operands. */
FJ_INLINE void tile_store_depth(fj_opd *p, fj_f a, fj_f b) {
#if FJ_PAIRS
    *(fj_ov *)p = (fj_ov)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
#else
    tile_store(p, a);
    tile_store(p + FJ_LANES, b);
#endif
}

#if FJ_PAIRS
/* Two neighbours in depth, lane by lane, as FJ_LANES operands. */
FJ_INLINE fj_ov tile_zip(fj_f first, fj_f second) {
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(both));
    __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1));
    return (fj_ov)_mm512_or_epi32(low, _mm512_slli_epi32(high, 16));
}

/* The same from two rows of input, n of FJ_LANES columns of each; second may be NULL: zeros. */
FJ_INLINE fj_ov tile_input_zip(const char *first, const char *second, int n) {
    __mmask16 m = (__mmask16)((1u << n) - 1);
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, first));
    if (!second) return (fj_ov)low;
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, second));
    return (fj_ov)_mm512_or_epi32(low, _mm512_slli_epi32(high, 16));
}

/* Two neighbours of it: 2 * FJ_LANES columns of both rows. */
FJ_INLINE void tile_input_zips(const char *first, const char *second, fj_ov *low, fj_ov *high) {
    typedef uint16_t halves __attribute__((vector_size(64)));
    halves a, b;
    memcpy(&a, first, sizeof a);
    memcpy(&b, second, sizeof b);
    *low = (fj_ov)__builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40,
                                          9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47);
    *high =
        (fj_ov)__builtin_shufflevector(a, b, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63);
}
#endif

/* ---- Transposition --------------------------------------------------------------------------- */

/* Shuffles that stay within 16 bytes, or move 16 bytes at a time: a processor has more units for these than for others, and
 * those for products stay free. Elements, or pairs of them, of a and b interleaved in each 16 bytes: of their low halves and
 * their high ones; and the 16 bytes of a and b at even and odd places, those of a first. */
typedef uint32_t fjv_fours FJ_VECTOR(FJ_VB);
typedef uint64_t fjv_eights FJ_VECTOR(FJ_VB);
#if FJ_VB == 64
#define FJV_LOW_FOURS 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define FJV_HIGH_FOURS 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define FJV_LOW_EIGHTS 0, 8, 2, 10, 4, 12, 6, 14
#define FJV_HIGH_EIGHTS 1, 9, 3, 11, 5, 13, 7, 15
#define FJV_EVEN 0, 1, 4, 5, 8, 9, 12, 13
#define FJV_ODD 2, 3, 6, 7, 10, 11, 14, 15
#elif FJ_VB == 32
#define FJV_LOW_FOURS 0, 8, 1, 9, 4, 12, 5, 13
#define FJV_HIGH_FOURS 2, 10, 3, 11, 6, 14, 7, 15
#define FJV_LOW_EIGHTS 0, 4, 2, 6
#define FJV_HIGH_EIGHTS 1, 5, 3, 7
#define FJV_EVEN 0, 1, 4, 5
#define FJV_ODD 2, 3, 6, 7
#else
#define FJV_LOW_FOURS 0, 4, 1, 5
#define FJV_HIGH_FOURS 2, 6, 3, 7
#define FJV_LOW_EIGHTS 0, 2
#define FJV_HIGH_EIGHTS 1, 3
#endif
#define FJV_EXCHANGE(name, type, first, second)            \
    FJ_INLINE void name(fj_ov *a, fj_ov *b) {              \
        const type x = (type)*a, y = (type)*b;             \
        *a = (fj_ov)__builtin_shufflevector(x, y, first);  \
        *b = (fj_ov)__builtin_shufflevector(x, y, second); \
    }
FJV_EXCHANGE(fjv_exchange_fours, fjv_fours, FJV_LOW_FOURS, FJV_HIGH_FOURS)
FJV_EXCHANGE(fjv_exchange_eights, fjv_eights, FJV_LOW_EIGHTS, FJV_HIGH_EIGHTS)
#if FJ_VB > 16
FJV_EXCHANGE(fjv_exchange_lanes, fjv_eights, FJV_EVEN, FJV_ODD)
#endif

#define FJV_GROUP (FJ_REAL_F64 ? 2 : 4) /* elements of 16 bytes */

/* A square of FJ_LANES x FJ_LANES operands. First the small squares in 16 bytes of FJV_GROUP rows, then squares of those. */
FJ_INLINE void tile_transpose(fj_ov m[FJ_LANES]) {
    FJ_UNROLL for (int i = 0; i < FJ_LANES; i += FJV_GROUP) {
#if FJ_REAL_F64
        fjv_exchange_eights(&m[i], &m[i + 1]);
#else
        fjv_exchange_fours(&m[i], &m[i + 1]);
        fjv_exchange_fours(&m[i + 2], &m[i + 3]);
        fjv_exchange_eights(&m[i], &m[i + 2]);
        fjv_exchange_eights(&m[i + 1], &m[i + 3]);
        const fj_ov second = m[i + 2];
        m[i + 2] = m[i + 1];
        m[i + 1] = second;
#endif
    }
#if FJ_VB > 16
    FJ_UNROLL for (int c = 0; c < FJV_GROUP; c++) {
        FJ_UNROLL for (int g = 0; g < FJ_VB / 16; g += 2)
            fjv_exchange_lanes(&m[g * FJV_GROUP + c], &m[(g + 1) * FJV_GROUP + c]);
#if FJ_VB == 64
        fjv_exchange_lanes(&m[c], &m[2 * FJV_GROUP + c]);
        fjv_exchange_lanes(&m[FJV_GROUP + c], &m[3 * FJV_GROUP + c]);
#endif
    }
#endif
}

#endif
