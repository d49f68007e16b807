// The products of fwd_mma for 16-bit elements: m16n8k16.
#ifndef FJ_CUDA_FWD_HALF_H
#define FJ_CUDA_FWD_HALF_H

#include "fwd_tile.h"

typedef uint32_t fj_p_frag[ROW_TILES][KEY_TILES / 2][4]; // P in 16 bits: an A of P V for each step

FJ_DEVICE float fj_summed_prob(float p) { return p; }

FJ_DEVICE void fj_probs_to_frag(fj_p_frag &w, const fj_scores &p) {
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int n = 0; n < 2 * KEY_TILES; n++) {
            const float *pair = &p[i][n / 2][n % 2 * 2];
            w[i][n / 4][n % 4] = FJ_PACK2(pair[0], pair[1]);
        }
}

// queries, keys, values: shared addresses of their tiles.
FJ_DEVICE void fj_multiply_keys(fj_scores &s, uint32_t queries, uint32_t keys) {
    const fj_read_a<FJ_HEAD_PAD> read_q(queries, fj_warp() * 16 * ROW_TILES);
    const fj_read_b<FJ_HEAD_PAD> read_k(keys);
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < KEY_TILES; j++) s[i][j][0] = s[i][j][1] = s[i][j][2] = s[i][j][3] = 0;
#pragma unroll 4
    for (uint32_t step = 0; step < FJ_HEAD_PAD / 16; step++) {
        uint32_t q[ROW_TILES][4];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) read_q.load(q[i], i, step);
#pragma unroll
        for (uint32_t pair = 0; pair < KEY_TILES / 2; pair++) {
            uint32_t k[4];
            read_k.load(k, pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(s[i][2 * pair], q[i], k[0], k[1]);
                FJ_MMA(s[i][2 * pair + 1], q[i], k[2], k[3]);
            }
        }
    }
}

FJ_DEVICE void fj_multiply_values(fj_sums &o, const fj_p_frag &p, uint32_t values) {
    const fj_read_bt<FJ_VALUE_PAD> read_v(values);
#pragma unroll
    for (uint32_t step = 0; step < KEY_TILES / 2; step++) {
#pragma unroll
        for (uint32_t pair = 0; pair < VALUE_TILES / 2; pair++) {
            uint32_t v[4];
            read_v.load(v, pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(o[i][2 * pair], p[i][step], v[0], v[1]);
                FJ_MMA(o[i][2 * pair + 1], p[i][step], v[2], v[3]);
            }
        }
    }
}

FJ_DEVICE fj_raw fj_raw_of(float x) { return static_cast<fj_raw>(FJ_PACK2(x, 0.0f)); }

// Two neighbours of a row of the output, into its tile.
FJ_DEVICE void fj_stage_pair(uint32_t row, uint32_t tile, uint32_t part, float x, float y) {
    *fj_shared_at<uint32_t>(fj_tile<FJ_VALUE_PAD>::at(row, tile) + part * 4) = FJ_PACK2(x, y);
}

#endif
