// Matrices: mma, ldmatrix, stmatrix.
#include "prim_args.h"

// In: per lane a0..a3, b0, b1, c0..c3. Out: c0..c3.
#define PRIM_MMA(name, mma)                                                                        \
    FJ_KERNEL(name, 32, 1, prim_args) {                                                            \
        const uint32_t *in = prim_in(args, 10);                                                    \
        uint32_t *out = prim_out(args, 4);                                                         \
        const uint32_t a[4] = {in[0], in[1], in[2], in[3]};                                        \
        float c[4] = {prim_float(in[6]), prim_float(in[7]), prim_float(in[8]), prim_float(in[9])}; \
        mma(c, a, in[4], in[5]);                                                                   \
        for (uint32_t i = 0; i < 4; i++) out[i] = fj_bits_from_f32(c[i]);                          \
    }
#if FJ_HAS_MMA_BF16
PRIM_MMA(prim_mma_f16, fj_mma_m16n8k16_f16)
PRIM_MMA(prim_mma_bf16, fj_mma_m16n8k16_bf16)
PRIM_MMA(prim_mma_tf32, fj_mma_m16n8k8_tf32)
PRIM_MMA(prim_mma_f16_inexact, fj_mma_m16n8k16_f16)
PRIM_MMA(prim_mma_bf16_inexact, fj_mma_m16n8k16_bf16)
PRIM_MMA(prim_mma_tf32_inexact, fj_mma_m16n8k8_tf32)
#endif

FJ_KERNEL(prim_mma_f16_k8, 32, 1, prim_args) {
    const uint32_t *in = prim_in(args, 10);
    uint32_t *out = prim_out(args, 4);
    float c[4] = {prim_float(in[6]), prim_float(in[7]), prim_float(in[8]), prim_float(in[9])};
    fj_mma_m16n8k8_f16(c, in[0], in[1], in[4]);
    for (uint32_t i = 0; i < 4; i++) out[i] = fj_bits_from_f32(c[i]);
}

// In: 32 rows of 16 bytes, as they lie in shared memory; lane l points at row 5 * l % 32. Out: the registers.
#define PRIM_LDMATRIX(name, count, ldmatrix)                                             \
    FJ_KERNEL(name, 32, 1, prim_args) {                                                  \
        uint32_t *words = fj_shared_at<uint32_t>(0);                                     \
        for (uint32_t i = 0; i < 4; i++) words[fj_lane() * 4 + i] = prim_in(args, 4)[i]; \
        fj_block_sync();                                                                 \
        uint32_t r[count];                                                               \
        ldmatrix(r, fj_shared_address(words) + 5 * fj_lane() % 32 * 16);                 \
        for (uint32_t i = 0; i < count; i++) prim_out(args, count)[i] = r[i];            \
    }
PRIM_LDMATRIX(prim_ldmatrix_x1, 1, fj_ldmatrix_x1)
PRIM_LDMATRIX(prim_ldmatrix_x2, 2, fj_ldmatrix_x2)
PRIM_LDMATRIX(prim_ldmatrix_x4, 4, fj_ldmatrix_x4)
PRIM_LDMATRIX(prim_ldmatrix_x1_t, 1, fj_ldmatrix_x1_t)
PRIM_LDMATRIX(prim_ldmatrix_x2_t, 2, fj_ldmatrix_x2_t)
PRIM_LDMATRIX(prim_ldmatrix_x4_t, 4, fj_ldmatrix_x4_t)

#if FJ_HAS_STMATRIX
// In: the registers. Out: 32 rows of 16 bytes; those that were not stored to are zero.
#define PRIM_STMATRIX(name, count, stmatrix)                                              \
    FJ_KERNEL(name, 32, 1, prim_args) {                                                   \
        uint32_t *words = fj_shared_at<uint32_t>(0);                                      \
        for (uint32_t i = 0; i < 4; i++) words[fj_lane() * 4 + i] = 0;                    \
        fj_block_sync();                                                                  \
        uint32_t r[count];                                                                \
        for (uint32_t i = 0; i < count; i++) r[i] = prim_in(args, count)[i];              \
        stmatrix(fj_shared_address(words) + 5 * fj_lane() % 32 * 16, r);                  \
        fj_block_sync();                                                                  \
        for (uint32_t i = 0; i < 4; i++) prim_out(args, 4)[i] = words[fj_lane() * 4 + i]; \
    }
PRIM_STMATRIX(prim_stmatrix_x1, 1, fj_stmatrix_x1)
PRIM_STMATRIX(prim_stmatrix_x2, 2, fj_stmatrix_x2)
PRIM_STMATRIX(prim_stmatrix_x4, 4, fj_stmatrix_x4)
PRIM_STMATRIX(prim_stmatrix_x1_t, 1, fj_stmatrix_x1_t)
PRIM_STMATRIX(prim_stmatrix_x2_t, 2, fj_stmatrix_x2_t)
PRIM_STMATRIX(prim_stmatrix_x4_t, 4, fj_stmatrix_x4_t)
#endif
