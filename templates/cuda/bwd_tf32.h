// The products of bwd_mma for float32 elements, on tensor cores of TF32 (tf32.h).
//
// 1. Of P S_vo and dS S_qk the depth is permuted: depth d of a step of 8 is streamed row 2 d for d < 4, else 2 d - 7.
//    Then P and dS in the layout of a C are an A as they stand, or lie so in shared memory, and B reads rows 2 (lane %
//    4) and + 1, which do not conflict.
// 2. Tensor cores cut sums off, and those of d_vo and d_qk are as long as all streamed rows: so a sum of 16 streamed
//    rows begins at 0, and is added in float32.
// 3. dP cancels with delta, to the last digit where a row sees one key: so its products have all four parts, and each
//    step of the depth begins at 0 and is added in float32. delta is linear in the same parts of dO (bwd_delta.cu), and
//    O a mean of those of V.
#ifndef FJ_CUDA_BWD_TF32_H
#define FJ_CUDA_BWD_TF32_H

#include "bwd_tile.h"

#include "tf32.h"

typedef fj_scores fj_p_frag; // P or dS as they are: split where they are used

// shared: to shared memory, for other warps, else they stay in registers.
template <bool shared>
FJ_DEVICE void fj_scores_to_frag([[maybe_unused]] const fj_task &t, const fj_scores &s, fj_p_frag &w,
                                 [[maybe_unused]] uint32_t to) {
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; j++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                w[i][j][n] = s[i][j][n];
                if (!shared) continue;
                const uint32_t row =
                    t.group_row() + static_cast<uint32_t>(i * 16 + n / 2 * 8) + fj_lane() / 4;
                const uint32_t chunk = (t.part() * COLUMN_TILES + static_cast<uint32_t>(j)) * 2 + n % 2;
                *fj_shared_at<float>(to + fj_tile<FJ_TILE_N>::at(row, chunk) + fj_lane() % 4 * 4) =
                    s[i][j][n];
            }
}

// What resident rows times streamed rows, transposed, take: add(i, j, a, b) for each step of the depth and each tile
// (i, j) of the product, in b's half j % 2.
template <int pad, class F>
FJ_DEVICE void fj_multiply_split(const fj_task &t, uint32_t resident, uint32_t streamed, F add) {
    const fj_read_a<pad> read_resident(resident, t.group_row());
    const fj_read_b<pad> read_streamed(streamed + t.part() * COLUMN_TILES * 8 * fj_tile<pad>::pitch);
#pragma unroll 2
    for (uint32_t step = 0; step < pad / 8; step++) {
        fj_split<4> a[ROW_TILES];
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
            uint32_t bits[4];
            read_resident.load(bits, static_cast<uint32_t>(i), step);
#pragma unroll
            for (int n = 0; n < 4; n++) a[i].set_bits(n, bits[n]);
        }
#pragma unroll
        for (uint32_t pair = 0; pair < COLUMN_TILES / 2; pair++) {
            uint32_t bits[4];
            fj_split<4> b;
            read_streamed.load(bits, pair, step);
#pragma unroll
            for (int n = 0; n < 4; n++) b.set_bits(n, bits[n]);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                add(i, static_cast<int>(2 * pair), a[i], b);
                add(i, static_cast<int>(2 * pair + 1), a[i], b);
            }
        }
    }
}

// s += resident rows times streamed rows, transposed.
template <fj_side side, int pad>
FJ_DEVICE void fj_multiply_rows(const fj_task &t, fj_scores &s, uint32_t resident, uint32_t streamed) {
    fj_multiply_split<pad>(t, resident, streamed,
                           [&](int i, int j, const fj_split<4> &a, const fj_split<4> &b) {
                               fj_mma_f32<side == FJ_RESIDENT_KEYS>(s[i][j], a, b, j % 2 * 2);
                           });
}

// d += resident rows times streamed rows, transposed; d has begun at -delta: point 3.
template <int pad>
FJ_DEVICE void fj_multiply_douts(const fj_task &t, fj_scores &d, uint32_t resident, uint32_t streamed) {
    fj_multiply_split<pad>(t, resident, streamed,
                           [&](int i, int j, const fj_split<4> &a, const fj_split<4> &b) {
                               float c[4] = {};
                               fj_mma_f32_whole(c, a, b, j % 2 * 2);
#pragma unroll
                               for (int n = 0; n < 4; n++) d[i][j][n] += c[n];
                           });
}

// Scores alone: dP has begun at -delta, and its row's results are not finite where it is not.
FJ_DEVICE void fj_repair_scores(const fj_task &t, fj_scores &s, uint32_t resident, uint32_t streamed) {
    fj_repair_products<FJ_HEAD_PAD>(s, resident, t.group_row(), streamed, t.part() * COLUMN_TILES * 8);
}

// Streamed rows 8 step .. + 7 of the weights, as an A. shared: of the weights, with SPLIT > 1.
FJ_DEVICE void fj_split_frag([[maybe_unused]] const fj_task &t, [[maybe_unused]] const fj_p_frag &w,
                             [[maybe_unused]] uint32_t shared, uint32_t step, fj_split<4> (&a)[ROW_TILES]) {
#if SPLIT == 1
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int n = 0; n < 4; n++) a[i].set(n, w[i][step][n / 2 + n % 2 * 2]);
#else
    const fj_read_a<FJ_TILE_N> read(shared, t.group_row());
#pragma unroll
    for (uint32_t i = 0; i < ROW_TILES; i++) {
        uint32_t bits[4];
        read.load(bits, i, step);
#pragma unroll
        for (int n = 0; n < 4; n++) a[i].set_bits(n, bits[n]);
    }
#endif
}

// sum += weights times streamed rows.
template <int pad, int pairs>
FJ_DEVICE void fj_multiply_frag(const fj_task &t, fj_sums<pairs> &sum, const fj_p_frag &w, uint32_t shared,
                                uint32_t streamed) {
    const uint32_t part = fj_lane() % 4, own = fj_lane() / 4, from = t.part() * pairs;
#pragma unroll
    for (uint32_t step = 0; step < FJ_TILE_N / 8; step += 2) {
        fj_split<4> a[2][ROW_TILES];
        fj_split_frag(t, w, shared, step, a[0]);
        fj_split_frag(t, w, shared, step + 1, a[1]);
#pragma unroll
        for (uint32_t pair = 0; pair < pairs; pair++) {
            if (pad / 16 % SPLIT != 0 && from + pair >= pad / 16) break;
            float c[ROW_TILES][2][4] = {};
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                fj_split<4> b;
#pragma unroll
                for (uint32_t n = 0; n < 4; n++)
                    b.set(n, fj_tile_element<pad>(streamed, (step + half) * 8 + part * 2 + n % 2,
                                                  ((from + pair) * 2 + n / 2) * 8 + own));
#pragma unroll
                for (int i = 0; i < ROW_TILES; i++) {
                    fj_mma_f32(c[i][0], a[half][i], b, 0);
                    fj_mma_f32(c[i][1], a[half][i], b, 2);
                }
            }
#pragma unroll
            for (int n = 0; n < ROW_TILES * 8; n++)
                sum.c[n / 8][2 * pair + n / 4 % 2][n % 4] += c[n / 8][n / 4 % 2][n % 4];
        }
    }
}

// Two neighbours of a row, into a tile.
template <int pad> FJ_DEVICE void fj_put_pair(uint32_t to, uint32_t row, uint32_t tile, float x, float y) {
    const uint32_t part = fj_lane() % 4;
    *fj_shared_at<fj_b64>(to + fj_tile<pad>::at(row, tile * 2 + part / 2) + part % 2 * 8) =
        fj_b64{{fj_bits_from_f32(x), fj_bits_from_f32(y)}};
}

#endif
