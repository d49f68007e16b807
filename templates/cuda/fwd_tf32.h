// The products of fwd_mma for float32 elements, on tensor cores of TF32.
//
// 1. Products are those of tf32.h.
// 2. Of P V, the depth is permuted: depth d of a step of 8 is key 2 d for d < 4, else 2 d - 7. Then P in the
//    layout of a C is an A as it stands, and B reads rows 2 (lane % 4) and + 1, which do not conflict.
#ifndef FJ_CUDA_FWD_TF32_H
#define FJ_CUDA_FWD_TF32_H

#include "fwd_tile.h"

#include "tf32.h"

typedef fj_scores fj_p_frag; // P as it is: split where it is used

// P as its sum takes it too: without the last bit its two parts are all of it. What they leave out is the same for tied
// keys, and would come into all of O, so into delta.
FJ_DEVICE float fj_summed_prob(float p) { return fj_even(p); }

FJ_DEVICE void fj_probs_to_frag(fj_p_frag &w, const fj_scores &p) {
#pragma unroll
    for (int n = 0; n < ROW_TILES * KEY_TILES * 4; n++)
        w[n / 4 / KEY_TILES][n / 4 % KEY_TILES][n % 4] = p[n / 4 / KEY_TILES][n / 4 % KEY_TILES][n % 4];
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
    for (uint32_t step = 0; step < FJ_HEAD_PAD / 8; step++) {
        fj_split<4> q[ROW_TILES];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
            uint32_t bits[4];
            read_q.load(bits, i, step);
#pragma unroll
            for (int n = 0; n < 4; n++) q[i].set(n, fj_f32_from_bits(bits[n]));
        }
#pragma unroll
        for (uint32_t pair = 0; pair < KEY_TILES / 2; pair++) {
            uint32_t bits[4];
            fj_split<4> k;
            read_k.load(bits, pair, step);
#pragma unroll
            for (int n = 0; n < 4; n++) k.set(n, fj_f32_from_bits(bits[n]));
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                fj_mma_f32(s[i][2 * pair], q[i], k, 0);
                fj_mma_f32(s[i][2 * pair + 1], q[i], k, 2);
            }
        }
    }
    fj_repair_products<FJ_HEAD_PAD>(s, queries, fj_warp() * 16 * ROW_TILES, keys, 0);
}

// Tensor cores cut what they add to the exponent of the greatest, all cuts towards 0: over many keys that is more than
// rounding. So sums of few keys begin at 0, and are added to o in float32.
FJ_DEVICE void fj_multiply_values(fj_sums &o, const fj_p_frag &p, uint32_t values) {
    // As few as registers allow, and as divide the keys.
    constexpr uint32_t tiles = ROW_TILES * VALUE_TILES,
                       wish = tiles <= 8     ? 1
                            : ROW_TILES == 1 ? 2
                                             : 4,
                       few = KEY_TILES % wish == 0 ? wish : 2;
    const uint32_t part = fj_lane() % 4, own = fj_lane() / 4;
#pragma unroll
    for (uint32_t first = 0; first < KEY_TILES; first += few) {
        fj_split<4> a[few][ROW_TILES];
#pragma unroll
        for (uint32_t n = 0; n < few * ROW_TILES * 4; n++)
            a[n / 4 / ROW_TILES][n / 4 % ROW_TILES].set_even(
                n % 4, p[n / 4 % ROW_TILES][first + n / 4 / ROW_TILES][n % 4 / 2 + n % 2 * 2]);
#pragma unroll
        for (uint32_t j = 0; j < VALUE_TILES; j += 2) {
            float sums[ROW_TILES][2][4] = {};
#pragma unroll
            for (uint32_t step = 0; step < few; step++) {
                fj_split<4> v;
#pragma unroll
                for (uint32_t n = 0; n < 4; n++)
                    v.set(n, fj_tile_element<FJ_VALUE_PAD>(values, (first + step) * 8 + part * 2 + n % 2,
                                                           (j + n / 2) * 8 + own));
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++) {
                    fj_mma_f32(sums[i][0], a[step][i], v, 0);
                    fj_mma_f32(sums[i][1], a[step][i], v, 2);
                }
            }
#pragma unroll
            for (uint32_t n = 0; n < ROW_TILES * 8; n++)
                o[n / 8][j + n / 4 % 2][n % 4] += sums[n / 8][n / 4 % 2][n % 4];
        }
    }
}

FJ_DEVICE fj_raw fj_raw_of(float x) { return fj_bits_from_f32(x); }

// Two neighbours of a row of the output, into its tile.
FJ_DEVICE void fj_stage_pair(uint32_t row, uint32_t tile, uint32_t part, float x, float y) {
    fj_b64 *to = fj_shared_at<fj_b64>(fj_tile<FJ_VALUE_PAD>::at(row, tile * 2 + part / 2) + part % 2 * 8);
    *to = fj_b64{{fj_bits_from_f32(x), fj_bits_from_f32(y)}};
}

#endif
