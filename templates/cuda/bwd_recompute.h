// fj_bwd_recompute of bwd_mma.cu: delta, exact, where gradients of captures need it (FJ_RECOMPUTES_DELTA).
//
//      resident queries:   sums of P dP over all keys   -->   -delta = dlse - sum, in the rows of the workspace
//
//  1. P is that of fj_bwd_q, from the same products: what is summed is what delta has to cancel.
//  2. One stage: a step sends for its tile and waits. The four lanes of a row add by shuffles, warps that share rows
//     through shared memory, in one order.
#ifndef FJ_CUDA_BWD_RECOMPUTE_H
#define FJ_CUDA_BWD_RECOMPUTE_H

#include "bwd_products.h"

#include "bwd_scores.h"

FJ_DEVICE void fj_recompute_tile(const fj_task &t, const fj_resident<FJ_RESIDENT_QUERIES> &resident,
                                 const struct fj_head_state &head, const fj_streamed_tile &tile,
                                 float (&sums)[ROWS]) {
    const uint32_t shared = fj_shared_address(fj_shared()), streamed = shared + RESIDENT_BYTES;
    const int32_t first = tile.first();
    fj_scores s, d;
    uint32_t bits[ROWS];
    fj_start_scores<FJ_RESIDENT_QUERIES>(t, resident, ROW_STATS, s, d);
    fj_multiply_rows<FJ_RESIDENT_QUERIES, FJ_HEAD_PAD>(t, s, shared, streamed);
    fj_multiply_douts<FJ_VALUE_PAD>(t, d, shared + RESIDENT_QK_BYTES, streamed + STREAMED_QK_BYTES);
    if (fj_has_large<FJ_RESIDENT_QUERIES>(resident, ROW_STATS))
        fj_make_near<FJ_RESIDENT_QUERIES>(t, ROW_STATS, s);
    fj_mask_bits<FJ_RESIDENT_QUERIES>(t, resident, head, first, tile.is_full(), bits);
#if FJ_DROPOUT
    uint32_t keep[ROWS];
    fj_keep_bits<FJ_RESIDENT_QUERIES>(t, t.at.head, first, keep);
#endif
#pragma unroll 1
    for (int from = 0; from < COLUMNS; from += COLUMNS / MOD_CHUNKS) {
#pragma unroll
        for (int j = 0; j < COLUMNS / MOD_CHUNKS; j++) {
            struct fj_col_state col;
            fj_start_streamed<FJ_RESIDENT_QUERIES>(t, head, first + t.column(from + j), col);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float x = s[r / 2][j / 2][r % 2 * 2 + j % 2];
                float y = d[r / 2][j / 2][r % 2 * 2 + j % 2];
#if FJ_DROPOUT
                y = fj_dropped_grad(keep[r] >> (from + j) & 1u, t.kept_scale, y, 0);
#endif
                const float p =
                    fj_prob_of(t.product_scale, t.mod, &head, &resident.state[r], &col, resident.norm[r], x);
                sums[r] += bits[r] >> (from + j) & 1u ? p * y : 0.0f;
            }
        }
        if (MOD_CHUNKS > 1) {
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(s);
            fj_rotate_tiles<COLUMN_TILES / MOD_CHUNKS>(d);
        }
    }
}

// Row r's sum over all its lanes and warps; right in the first lane of the row's first warp.
FJ_DEVICE void fj_join_sums([[maybe_unused]] const fj_task &t, float (&sums)[ROWS]) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] += fj_shuffle_xor(sums[r], 1u);
        sums[r] += fj_shuffle_xor(sums[r], 2u);
    }
#if SPLIT > 1
    float *parts = fj_shared_at<float>(P_TILE); // SPLIT for each resident row
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (fj_lane() % 4 == 0)
            parts[static_cast<uint32_t>(t.row(r) - t.at.first) * SPLIT + t.part()] = sums[r];
    fj_block_sync();
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        sums[r] = 0;
#pragma unroll
        for (uint32_t n = 0; n < SPLIT; n++)
            sums[r] += parts[static_cast<uint32_t>(t.row(r) - t.at.first) * SPLIT + n];
    }
#endif
}

FJ_KERNEL(fj_bwd_recompute, THREADS, 1, fj_backward_args) {
    const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
    if (work.is_idle()) return;
    const fj_task t(args, work);
    fj_streamed<FJ_RESIDENT_QUERIES> streamed(t);
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    fj_resident<FJ_RESIDENT_QUERIES> resident;
    struct fj_head_state head;
    float sums[ROWS];
    fj_load_resident<FJ_RESIDENT_QUERIES>(t);
    fj_head_init(&t.mod, t.at.b, t.at.head, &head);
    fj_start_resident<FJ_RESIDENT_QUERIES>(t, head, t.at.head, resident);
#pragma unroll
    for (int r = 0; r < ROWS; r++) sums[r] = resident.minus_delta[r] = 0;
#pragma unroll 1
    for (;;) {
        const fj_streamed_tile tile = fj_tile_next<FJ_RESIDENT_QUERIES>(t.a, t.mod, t.at, tiles);
        if (tile.is_end()) break;
        streamed.send(t, tile, 0);
        fj_copy_async_commit();
        fj_copy_async_wait<0>();
        fj_block_sync();
        fj_recompute_tile(t, resident, head, tile, sums);
        fj_block_sync();
    }
    fj_copy_async_wait<0>(); // resident rows of a block without tiles
    fj_join_sums(t, sums);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (fj_lane() % 4 != 0 || t.part() != 0 || t.row(r) >= t.at.count) continue;
        const fj_row_stats row_stats = fj_row_stats_of(t.a, t.at.b, t.at.head, t.row(r));
        if (resident.norm[r].lse != INFINITY) row_stats[FJ_CUDA_ROW_MINUS_DELTA] -= sums[r];
    }
}

#endif
