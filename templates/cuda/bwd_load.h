// What bwd_mma.cu loads into shared memory.
#ifndef FJ_CUDA_BWD_LOAD_H
#define FJ_CUDA_BWD_LOAD_H

#include "bwd_tile.h"

// Where a row stat of a streamed query is: as in the workspace.
FJ_DEVICE uint32_t fj_row_stat_at(uint32_t query, uint32_t which) {
    return query / 2 * 32 + which * 8 + query % 2 * 4;
}

template <int columns>
FJ_DEVICE void fj_load_rows(const fj_task &t, uint32_t to, const fj_cuda_tensor &from, bool vector,
                            int32_t head, int32_t dim) {
    const fj_copier<columns, FJ_TILE_M, THREADS> rows(fj_raw_start(from, t.at.b, head), from.stride[2]);
    rows.send(to, dim, vector, from.stride[2], t.at.first, t.at.count - t.at.first);
}

template <fj_side side> FJ_DEVICE void fj_load_resident(const fj_task &t) {
    constexpr bool keys = side == FJ_RESIDENT_KEYS;
    const fj_cuda_backward &a = t.a;
    const int32_t head = keys ? t.at.head_kv : t.at.head;
    fj_load_rows<FJ_HEAD_PAD>(t, 0, keys ? a.key : a.query,
                              a.vector & (keys ? FJ_CUDA_VECTOR_KEY : FJ_CUDA_VECTOR_QUERY), head,
                              FJ_HEAD_DIM);
    fj_load_rows<FJ_VALUE_PAD>(t, RESIDENT_QK_BYTES, keys ? a.value : a.dout,
                               a.vector & (keys ? FJ_CUDA_VECTOR_VALUE : FJ_CUDA_VECTOR_DOUT), head,
                               FJ_VALUE_DIM);
}

// Where a thread finds its part of the streamed rows of a head.
template <fj_side side> struct fj_streamed {
    enum : bool { keys = side == FJ_RESIDENT_KEYS };
    fj_copier<FJ_HEAD_PAD, FJ_TILE_N, THREADS> qk;
    fj_copier<FJ_VALUE_PAD, FJ_TILE_N, THREADS> vo;
    const float *row_stats;
    int32_t head;
    FJ_METHOD static const fj_cuda_tensor &qk_of(const fj_cuda_backward &a) { return keys ? a.query : a.key; }
    FJ_METHOD static const fj_cuda_tensor &vo_of(const fj_cuda_backward &a) {
        return keys ? a.dout : a.value;
    }
    FJ_METHOD explicit fj_streamed(const fj_task &t)
        : qk(fj_raw_start(qk_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), qk_of(t.a).stride[2]),
          vo(fj_raw_start(vo_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), vo_of(t.a).stride[2]),
          row_stats(keys ? fj_row_stats_of(t.a, t.at.b, t.at.head, 0).of : nullptr), head(t.at.head) {}

    FJ_METHOD void move(const fj_task &t, int32_t to) {
        const int32_t heads = to - head;
        qk.own += heads * qk_of(t.a).stride[1];
        vo.own += heads * vo_of(t.a).stride[1];
        row_stats += FJ_BWD_ROWS(static_cast<int64_t>(heads), t.a.workspace_rows) * FJ_CUDA_ROW_REALS;
        head = to;
    }
    // Rows and row stats of a tile, into a stage.
    FJ_METHOD void send(const fj_task &t, const fj_streamed_tile &tile, uint32_t stage) {
        const fj_cuda_backward &a = t.a;
        const int32_t first = tile.first(), left = t.at.streamed - first;
        const uint32_t to = RESIDENT_BYTES + stage * STAGE_BYTES;
        if (keys && tile.head != head) move(t, tile.head);
        qk.send(to, FJ_HEAD_DIM, a.vector & (keys ? FJ_CUDA_VECTOR_QUERY : FJ_CUDA_VECTOR_KEY),
                qk_of(a).stride[2], first, left);
        vo.send(to + STREAMED_QK_BYTES, FJ_VALUE_DIM,
                a.vector & (keys ? FJ_CUDA_VECTOR_DOUT : FJ_CUDA_VECTOR_VALUE), vo_of(a).stride[2], first,
                left);
        if (!keys) return;
        static_assert(FJ_CUDA_ROW_REALS == 4 && FJ_TILE_N % 2 == 0, "16 bytes a query, in pairs");
        const uint32_t shared = fj_shared_address(fj_shared()) + ROW_STATS + stage * ROW_STATS_BYTES;
#pragma unroll
        for (int32_t n = 0; n < FJ_TILE_N; n += THREADS) {
            const int32_t i = n + static_cast<int32_t>(fj_thread_x());
            if (FJ_TILE_N % THREADS != 0 && i >= FJ_TILE_N) break;
            const bool there = i / 2 * 2 < left; // the pair, of which this is a half
            fj_copy_async_16(shared + static_cast<uint32_t>(i) * 16,
                             row_stats + FJ_CUDA_ROW_REALS * first + (there ? i * 4 : 0), there ? 16u : 0u);
        }
    }
};

template <fj_side side>
FJ_DEVICE void fj_start_resident(const fj_task &t, const struct fj_head_state &head,
                                 [[maybe_unused]] int32_t h, fj_resident<side> &resident) {
#if FJ_BLOCK_MASK
    resident.head = h;
#endif
    if constexpr (side == FJ_RESIDENT_QUERIES) resident.large = false;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int32_t index = t.last_row(r);
        if constexpr (side == FJ_RESIDENT_KEYS) {
            fj_col_init(&t.mod, &head, fj_kv_position(t.a, t.at.b, index), &resident.state[r]);
        } else {
            const fj_row_stats row_stats = fj_row_stats_of(t.a, t.at.b, t.at.head, index);
            fj_row_init(&t.mod, &head, fj_q_position(t.a, t.at.b, index), &resident.state[r]);
            resident.norm[r] = fj_norm_at(row_stats);
            resident.minus_delta[r] = row_stats[FJ_CUDA_ROW_MINUS_DELTA];
            resident.large |= resident.norm[r].natural != 0;
        }
    }
    if constexpr (side == FJ_RESIDENT_QUERIES) resident.large = fj_any(resident.large);
}

#endif
