// The products of bwd_mma for 16-bit elements: m16n8k16.
#ifndef FJ_CUDA_BWD_HALF_H
#define FJ_CUDA_BWD_HALF_H

#include "bwd_tile.h"

typedef uint32_t fj_p_frag[ROW_TILES][COLUMN_TILES][2]; // P or dS in 16 bits

// To 16 bits; shared: to shared memory too, for other warps.
template <bool shared>
FJ_DEVICE void fj_scores_to_frag(const fj_task &t, const fj_scores &s, fj_p_frag &w, uint32_t to) {
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < COLUMN_TILES; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                w[i][j][half] = FJ_PACK2(s[i][j][2 * half], s[i][j][2 * half + 1]);
                if (!shared) continue;
                const uint32_t row = t.group_row() + static_cast<uint32_t>(i * 16 + half * 8) + fj_lane() / 4;
                const uint32_t chunk = t.part() * COLUMN_TILES + static_cast<uint32_t>(j);
                *fj_shared_at<uint32_t>(to + fj_tile<FJ_TILE_N>::at(row, chunk) + fj_lane() % 4 * 4) =
                    w[i][j][half];
            }
}

// s += resident rows times streamed rows, transposed.
template <fj_side, int pad>
FJ_DEVICE void fj_multiply_rows(const fj_task &t, fj_scores &s, uint32_t resident, uint32_t streamed) {
    const fj_read_a<pad> read_resident(resident, t.group_row());
    const fj_read_b<pad> read_streamed(streamed + t.part() * COLUMN_TILES * 8 * fj_tile<pad>::pitch);
#pragma unroll
    for (uint32_t step = 0; step < pad / 16; step++) {
        uint32_t a[ROW_TILES][4];
#pragma unroll
        for (uint32_t i = 0; i < ROW_TILES; i++) read_resident.load(a[i], i, step);
#pragma unroll
        for (uint32_t pair = 0; pair < COLUMN_TILES / 2; pair++) {
            uint32_t b[4];
            read_streamed.load(b, pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(s[i][2 * pair], a[i], b[0], b[1]);
                FJ_MMA(s[i][2 * pair + 1], a[i], b[2], b[3]);
            }
        }
    }
}

template <int pad>
FJ_DEVICE void fj_multiply_douts(const fj_task &t, fj_scores &d, uint32_t resident, uint32_t streamed) {
    fj_multiply_rows<FJ_RESIDENT_QUERIES, pad>(t, d, resident, streamed);
}

// sum += weights times streamed rows. shared: of the weights, with SPLIT > 1.
template <int pad, int pairs>
FJ_DEVICE void fj_multiply_frag(const fj_task &t, fj_sums<pairs> &sum, [[maybe_unused]] const fj_p_frag &w,
                                [[maybe_unused]] uint32_t shared, uint32_t streamed) {
    const fj_read_bt<pad> read_streamed(streamed);
    [[maybe_unused]] const fj_read_a<FJ_TILE_N> read_frag(shared, t.group_row());
    const uint32_t from = t.part() * pairs;
#pragma unroll
    for (uint32_t step = 0; step < FJ_TILE_N / 16; step++) {
        uint32_t a[ROW_TILES][4];
#if SPLIT == 1
#pragma unroll
        for (int i = 0; i < ROW_TILES; i++) {
            a[i][0] = w[i][2 * step][0];
            a[i][1] = w[i][2 * step][1];
            a[i][2] = w[i][2 * step + 1][0];
            a[i][3] = w[i][2 * step + 1][1];
        }
#else
#pragma unroll
        for (uint32_t i = 0; i < ROW_TILES; i++) read_frag.load(a[i], i, step);
#endif
#pragma unroll
        for (uint32_t pair = 0; pair < pairs; pair++) {
            if (pad / 16 % SPLIT != 0 && from + pair >= pad / 16) break;
            uint32_t b[4];
            read_streamed.load(b, from + pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(sum.c[i][2 * pair], a[i], b[0], b[1]);
                FJ_MMA(sum.c[i][2 * pair + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// Two neighbours of a row, into a tile.
template <int pad> FJ_DEVICE void fj_put_pair(uint32_t to, uint32_t row, uint32_t tile, float x, float y) {
    *fj_shared_at<uint32_t>(to + fj_tile<pad>::at(row, tile) + fj_lane() % 4 * 4) = FJ_PACK2(x, y);
}

#endif
