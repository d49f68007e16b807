/* The instructions that prim.h and prim_tile.h name: those of <immintrin.h>. Part of prim_isa.h.
 *
 * GCC takes longer to read that header than everything else of a kernel, so where its builtins are known to have these
 * names and types (GCC 10 to 12) the few that are needed are macros here. They give the same instructions. Of a masked
 * instruction with all lanes on, the operand for the other lanes does not matter: it is zeros.
 */
#ifndef FJ_PRIM_NATIVE_H
#define FJ_PRIM_NATIVE_H

#if defined __clang__ || __GNUC__ < 12 || __GNUC__ > 12 || defined FJ_IMMINTRIN

#include <immintrin.h>

#else

#define FJN_TYPE(name, element, bytes) typedef element name __attribute__((vector_size(bytes), may_alias));
FJN_TYPE(__m128, float, 16)
FJN_TYPE(__m256, float, 32)
FJN_TYPE(__m256d, double, 32)
FJN_TYPE(__m128i, long long, 16)
FJN_TYPE(__m256i, long long, 32)
typedef __m128i fjn_m128i_loose __attribute__((aligned(1)));
typedef __m256i fjn_m256i_loose __attribute__((aligned(1)));

/* As builtins want them. */
#define FJN_PLAIN(name, element, bytes) typedef element name __attribute__((vector_size(bytes)));
FJN_PLAIN(fjn_8hi, short, 16)
FJN_PLAIN(fjn_4si, int, 16)
FJN_PLAIN(fjn_4sf, float, 16)
FJN_PLAIN(fjn_16hi, short, 32)
FJN_PLAIN(fjn_8si, int, 32)
FJN_PLAIN(fjn_4di, long long, 32)
FJN_PLAIN(fjn_8sf, float, 32)
FJN_PLAIN(fjn_4df, double, 32)

#define _CMP_EQ_OQ 0x00
#define _CMP_NEQ_UQ 0x04
#define _CMP_LT_OQ 0x11
#define _CMP_LE_OQ 0x12
#define _CMP_GE_OQ 0x1d
#define _CMP_GT_OQ 0x1e
#define _MM_FROUND_TO_NEAREST_INT 0
#define _MM_FROUND_TO_NEG_INF 1
#define _MM_FROUND_TO_POS_INF 2
#define _MM_FROUND_TO_ZERO 3
#define _MM_FROUND_NO_EXC 8

#define _mm_loadu_si128(p) ((__m128i) * (const fjn_m128i_loose *)(p))
#define _mm_storeu_si128(p, a) ((void)(*(fjn_m128i_loose *)(p) = (a)))
#define _mm256_loadu_si256(p) ((__m256i) * (const fjn_m256i_loose *)(p))
#define _mm256_storeu_si256(p, a) ((void)(*(fjn_m256i_loose *)(p) = (a)))
#define _mm256_cvtps_pd(a) ((__m256d)__builtin_ia32_cvtps2pd256((fjn_4sf)(a)))
#define _mm256_cvtpd_ps(a) ((__m128)__builtin_ia32_cvtpd2ps256((fjn_4df)(a)))
#define _mm256_cvtepi32_epi64(a) ((__m256i)__builtin_ia32_pmovsxdq256((fjn_4si)(a)))
#define _mm256_cvtepi32_pd(a) ((__m256d)__builtin_ia32_cvtdq2pd256((fjn_4si)(a)))
#define _mm256_cvttpd_epi32(a) ((__m128i)__builtin_ia32_cvttpd2dq256((fjn_4df)(a)))
#define _mm256_cvtph_ps(a) ((__m256)__builtin_ia32_vcvtph2ps256((fjn_8hi)(a)))
#define _mm256_cvtps_ph(a, how) ((__m128i)__builtin_ia32_vcvtps2ph256((fjn_8sf)(a), how))
#define _mm256_cvtepu16_epi32(a) ((__m256i)__builtin_ia32_pmovzxwd256((fjn_8hi)(a)))
#define _mm256_slli_epi32(a, n) ((__m256i)((fjn_8si)(a) << (n)))
#define _mm256_blendv_ps(a, b, m) \
    ((__m256)__builtin_ia32_blendvps256((fjn_8sf)(a), (fjn_8sf)(b), (fjn_8sf)(m)))
#define _mm256_blendv_pd(a, b, m) \
    ((__m256d)__builtin_ia32_blendvpd256((fjn_4df)(a), (fjn_4df)(b), (fjn_4df)(m)))
#define _mm256_movemask_ps(a) __builtin_ia32_movmskps256((fjn_8sf)(a))
#define _mm256_movemask_pd(a) __builtin_ia32_movmskpd256((fjn_4df)(a))
#define _mm256_round_ps(a, how) ((__m256)__builtin_ia32_roundps256((fjn_8sf)(a), how))
#define _mm256_round_pd(a, how) ((__m256d)__builtin_ia32_roundpd256((fjn_4df)(a), how))
#define _mm256_sqrt_ps(a) ((__m256)__builtin_ia32_sqrtps256((fjn_8sf)(a)))
#define _mm256_sqrt_pd(a) ((__m256d)__builtin_ia32_sqrtpd256((fjn_4df)(a)))
#define _mm256_min_ps(a, b) ((__m256)__builtin_ia32_minps256((fjn_8sf)(a), (fjn_8sf)(b)))
#define _mm256_max_ps(a, b) ((__m256)__builtin_ia32_maxps256((fjn_8sf)(a), (fjn_8sf)(b)))
#define _mm256_min_pd(a, b) ((__m256d)__builtin_ia32_minpd256((fjn_4df)(a), (fjn_4df)(b)))
#define _mm256_max_pd(a, b) ((__m256d)__builtin_ia32_maxpd256((fjn_4df)(a), (fjn_4df)(b)))
#define _mm256_fmadd_ps(a, b, c) \
    ((__m256)__builtin_ia32_vfmaddps256((fjn_8sf)(a), (fjn_8sf)(b), (fjn_8sf)(c)))
#define _mm256_fmadd_pd(a, b, c) \
    ((__m256d)__builtin_ia32_vfmaddpd256((fjn_4df)(a), (fjn_4df)(b), (fjn_4df)(c)))

#define _mm256_mul_epu32(a, b) ((__m256i)__builtin_ia32_pmuludq256((fjn_8si)(a), (fjn_8si)(b)))

#if FJ_ISA_AVX512

FJN_TYPE(__m512, float, 64)
FJN_TYPE(__m512d, double, 64)
FJN_TYPE(__m512i, long long, 64)
FJN_PLAIN(fjn_32hi, short, 64)
FJN_PLAIN(fjn_16si, int, 64)
FJN_PLAIN(fjn_8di, long long, 64)
FJN_PLAIN(fjn_16sf, float, 64)
FJN_PLAIN(fjn_8df, double, 64)
typedef unsigned char __mmask8;
typedef unsigned short __mmask16;
typedef unsigned int __mmask32;

#define _MM_CMPINT_EQ 0
#define _MM_CMPINT_LT 1
#define _MM_CMPINT_LE 2
#define _MM_CMPINT_NE 4
#define _MM_CMPINT_NLT 5
#define _MM_CMPINT_NLE 6

#define FJN_ZEROS(type) ((type){0})
#define FJN_ALL8 ((__mmask8)-1)
#define FJN_ALL16 ((__mmask16)-1)
#define FJN_CURRENT 4 /* direction of rounding */

/* One and two operands to a vector like them. */
#define FJN_PS1(op, a) \
    ((__m512)__builtin_ia32_##op((fjn_16sf)(a), FJN_ZEROS(fjn_16sf), FJN_ALL16, FJN_CURRENT))
#define FJN_PD1(op, a) ((__m512d)__builtin_ia32_##op((fjn_8df)(a), FJN_ZEROS(fjn_8df), FJN_ALL8, FJN_CURRENT))
#define FJN_PS2(op, a, b) \
    ((__m512)__builtin_ia32_##op((fjn_16sf)(a), (fjn_16sf)(b), FJN_ZEROS(fjn_16sf), FJN_ALL16, FJN_CURRENT))
#define FJN_PD2(op, a, b) \
    ((__m512d)__builtin_ia32_##op((fjn_8df)(a), (fjn_8df)(b), FJN_ZEROS(fjn_8df), FJN_ALL8, FJN_CURRENT))
#define _mm512_sqrt_ps(a) FJN_PS1(sqrtps512_mask, a)
#define _mm512_sqrt_pd(a) FJN_PD1(sqrtpd512_mask, a)
#define _mm512_min_ps(a, b) FJN_PS2(minps512_mask, a, b)
#define _mm512_max_ps(a, b) FJN_PS2(maxps512_mask, a, b)
#define _mm512_min_pd(a, b) FJN_PD2(minpd512_mask, a, b)
#define _mm512_max_pd(a, b) FJN_PD2(maxpd512_mask, a, b)
#define _mm512_scalef_ps(a, b) FJN_PS2(scalefps512_mask, a, b)
#define _mm512_scalef_pd(a, b) FJN_PD2(scalefpd512_mask, a, b)
#define _mm512_fmadd_ps(a, b, c)                                                                     \
    ((__m512)__builtin_ia32_vfmaddps512_mask((fjn_16sf)(a), (fjn_16sf)(b), (fjn_16sf)(c), FJN_ALL16, \
                                             FJN_CURRENT))
#define _mm512_fmadd_pd(a, b, c)                                                                  \
    ((__m512d)__builtin_ia32_vfmaddpd512_mask((fjn_8df)(a), (fjn_8df)(b), (fjn_8df)(c), FJN_ALL8, \
                                              FJN_CURRENT))

/* An immediate. */
#define _mm512_roundscale_ps(a, how) \
    ((__m512)__builtin_ia32_rndscaleps_mask((fjn_16sf)(a), how, FJN_ZEROS(fjn_16sf), FJN_ALL16, FJN_CURRENT))
#define _mm512_roundscale_pd(a, how) \
    ((__m512d)__builtin_ia32_rndscalepd_mask((fjn_8df)(a), how, FJN_ZEROS(fjn_8df), FJN_ALL8, FJN_CURRENT))
#define _mm512_reduce_ps(a, how) \
    ((__m512)__builtin_ia32_reduceps512_mask((fjn_16sf)(a), how, FJN_ZEROS(fjn_16sf), FJN_ALL16))
#define _mm512_reduce_pd(a, how) \
    ((__m512d)__builtin_ia32_reducepd512_mask((fjn_8df)(a), how, FJN_ZEROS(fjn_8df), FJN_ALL8))

/* Comparisons and selection. */
#define _mm512_cmp_ps_mask(a, b, how) \
    ((__mmask16)__builtin_ia32_cmpps512_mask((fjn_16sf)(a), (fjn_16sf)(b), how, FJN_ALL16, FJN_CURRENT))
#define _mm512_cmp_pd_mask(a, b, how) \
    ((__mmask8)__builtin_ia32_cmppd512_mask((fjn_8df)(a), (fjn_8df)(b), how, FJN_ALL8, FJN_CURRENT))
#define _mm512_cmp_epi32_mask(a, b, how) \
    ((__mmask16)__builtin_ia32_cmpd512_mask((fjn_16si)(a), (fjn_16si)(b), how, FJN_ALL16))
#define _mm512_cmp_epi64_mask(a, b, how) \
    ((__mmask8)__builtin_ia32_cmpq512_mask((fjn_8di)(a), (fjn_8di)(b), how, FJN_ALL8))
#define _mm256_cmp_epi32_mask(a, b, how) \
    ((__mmask8)__builtin_ia32_cmpd256_mask((fjn_8si)(a), (fjn_8si)(b), how, FJN_ALL8))
#define _mm512_mask_blend_ps(m, a, b) \
    ((__m512)__builtin_ia32_blendmps_512_mask((fjn_16sf)(a), (fjn_16sf)(b), m))
#define _mm512_mask_blend_pd(m, a, b) \
    ((__m512d)__builtin_ia32_blendmpd_512_mask((fjn_8df)(a), (fjn_8df)(b), m))
#define _mm512_mask_blend_epi32(m, a, b) \
    ((__m512i)__builtin_ia32_blendmd_512_mask((fjn_16si)(a), (fjn_16si)(b), m))
#define _mm512_mask_blend_epi64(m, a, b) \
    ((__m512i)__builtin_ia32_blendmq_512_mask((fjn_8di)(a), (fjn_8di)(b), m))
#define _mm256_mask_blend_epi32(m, a, b) \
    ((__m256i)__builtin_ia32_blendmd_256_mask((fjn_8si)(a), (fjn_8si)(b), m))

/* Between widths. */
#define _mm512_cvtps_pd(a) \
    ((__m512d)__builtin_ia32_cvtps2pd512_mask((fjn_8sf)(a), FJN_ZEROS(fjn_8df), FJN_ALL8, FJN_CURRENT))
#define _mm512_cvtpd_ps(a) \
    ((__m256)__builtin_ia32_cvtpd2ps512_mask((fjn_8df)(a), FJN_ZEROS(fjn_8sf), FJN_ALL8, FJN_CURRENT))
#define _mm512_cvtepi32_epi64(a) \
    ((__m512i)__builtin_ia32_pmovsxdq512_mask((fjn_8si)(a), FJN_ZEROS(fjn_8di), FJN_ALL8))
#define _mm512_cvtepi64_epi32(a) \
    ((__m256i)__builtin_ia32_pmovqd512_mask((fjn_8di)(a), FJN_ZEROS(fjn_8si), FJN_ALL8))
#define _mm512_cvtepi32_pd(a) \
    ((__m512d)__builtin_ia32_cvtdq2pd512_mask((fjn_8si)(a), FJN_ZEROS(fjn_8df), FJN_ALL8))
#define _mm512_cvttpd_epi32(a) \
    ((__m256i)__builtin_ia32_cvttpd2dq512_mask((fjn_8df)(a), FJN_ZEROS(fjn_8si), FJN_ALL8, FJN_CURRENT))
#define _mm512_cvtph_ps(a) \
    ((__m512)__builtin_ia32_vcvtph2ps512_mask((fjn_16hi)(a), FJN_ZEROS(fjn_16sf), FJN_ALL16, FJN_CURRENT))
#define _mm512_cvtps_ph(a, how) \
    ((__m256i)__builtin_ia32_vcvtps2ph512_mask((fjn_16sf)(a), how, FJN_ZEROS(fjn_16hi), FJN_ALL16))
#define _mm512_cvtepu16_epi32(a) \
    ((__m512i)__builtin_ia32_pmovzxwd512_mask((fjn_16hi)(a), FJN_ZEROS(fjn_16si), FJN_ALL16))

/* Integers. */
#define _mm512_set1_epi32(x) ((__m512i)((x)-FJN_ZEROS(fjn_16si)))
#define _mm512_mul_epu32(a, b) \
    ((__m512i)__builtin_ia32_pmuludq512_mask((fjn_16si)(a), (fjn_16si)(b), FJN_ZEROS(fjn_8di), FJN_ALL8))
#define _mm512_or_epi32(a, b) ((a) | (b))
#define _mm512_slli_epi32(a, n) ((__m512i)((fjn_16si)(a) << (n)))
#define _mm512_castsi512_si256(a) ((__m256i)__builtin_shufflevector((fjn_8di)(a), (fjn_8di)(a), 0, 1, 2, 3))
#define _mm512_extracti64x4_epi64(a, half) \
    ((__m256i)__builtin_ia32_extracti64x4_mask((fjn_8di)(a), half, FJN_ZEROS(fjn_4di), FJN_ALL8))

/* Memory. */
#define _mm512_maskz_loadu_ps(m, p) \
    ((__m512)__builtin_ia32_loadups512_mask((const float *)(p), FJN_ZEROS(fjn_16sf), m))
#define _mm512_maskz_loadu_pd(m, p) \
    ((__m512d)__builtin_ia32_loadupd512_mask((const double *)(p), FJN_ZEROS(fjn_8df), m))
#define _mm512_maskz_loadu_epi16(m, p) \
    ((__m512i)__builtin_ia32_loaddquhi512_mask((const short *)(p), FJN_ZEROS(fjn_32hi), m))
#define _mm256_maskz_loadu_epi16(m, p) \
    ((__m256i)__builtin_ia32_loaddquhi256_mask((const short *)(p), FJN_ZEROS(fjn_16hi), m))
#define _mm512_mask_storeu_ps(p, m, a) __builtin_ia32_storeups512_mask((float *)(p), (fjn_16sf)(a), m)
#define _mm512_mask_storeu_pd(p, m, a) __builtin_ia32_storeupd512_mask((double *)(p), (fjn_8df)(a), m)

#endif

#if FJ_ISA_AVX512BF16
FJN_TYPE(__m512bh, short, 64)
#define _mm512_dpbf16_ps(sum, a, b) \
    ((__m512)__builtin_ia32_dpbf16ps_v16sf((fjn_16sf)(sum), (fjn_32hi)(a), (fjn_32hi)(b)))
#define _mm512_cvtne2ps_pbh(a, b) ((__m512bh)__builtin_ia32_cvtne2ps2bf16_v32hi((fjn_16sf)(a), (fjn_16sf)(b)))
#endif

#endif

#endif
