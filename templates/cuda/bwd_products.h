// Loads and products of bwd_mma.cu, which includes this file: its constants, fj_task and types come first.
#ifndef FJ_CUDA_BWD_PRODUCTS_H
#define FJ_CUDA_BWD_PRODUCTS_H

// ---- From global memory ------------------------------------------------------------------------------------

template <int columns, int rows>
FJ_DEVICE void fj_load_rows(const fj_task &t, uint32_t to, const fj_cuda_tensor &from, uint32_t vector,
                            int32_t head, int32_t first, int32_t count, int32_t dim) {
    const uint16_t *start = static_cast<const uint16_t *>(from.data) + fj_offset(from, t.at.b, head, first);
    fj_tile_copy<columns, rows, THREADS>(to, dim, t.a.vector & vector, start, from.stride[2], count - first);
}

template <fj_side side> FJ_DEVICE void fj_load_own(const fj_task &t) {
    constexpr bool keys = side == FJ_OWN_KEYS;
    const fj_cuda_backward &a = t.a;
    const int32_t head = keys ? t.at.head_kv : t.at.head;
    fj_load_rows<FJ_HEAD_PAD, FJ_TILE_Q>(t, 0, keys ? a.key : a.query,
                                         keys ? FJ_CUDA_VECTOR_KEY : FJ_CUDA_VECTOR_QUERY, head, t.at.first,
                                         t.at.count, FJ_HEAD_DIM);
    fj_load_rows<FJ_VALUE_PAD, FJ_TILE_Q>(t, X_BYTES, keys ? a.value : a.dout,
                                          keys ? FJ_CUDA_VECTOR_VALUE : FJ_CUDA_VECTOR_DOUT, head, t.at.first,
                                          t.at.count, FJ_VALUE_DIM);
}

// Y, Z and facts of a step of fj_walk_take, into a stage.
template <fj_side side> FJ_DEVICE void fj_load_step(const fj_task &t, int32_t step, uint32_t stage) {
    constexpr bool keys = side == FJ_OWN_KEYS;
    const fj_cuda_backward &a = t.a;
    const int32_t first = step / 2 % t.at.tiles * FJ_TILE_KV;
    const int32_t head = keys ? t.at.head + step / 2 / t.at.tiles : t.at.head_kv;
    const uint32_t to = OWN_BYTES + stage * STAGE_BYTES;
    fj_load_rows<FJ_HEAD_PAD, FJ_TILE_KV>(t, to, keys ? a.query : a.key,
                                          keys ? FJ_CUDA_VECTOR_QUERY : FJ_CUDA_VECTOR_KEY, head, first,
                                          t.at.walked, FJ_HEAD_DIM);
    fj_load_rows<FJ_VALUE_PAD, FJ_TILE_KV>(t, to + Y_BYTES, keys ? a.dout : a.value,
                                           keys ? FJ_CUDA_VECTOR_DOUT : FJ_CUDA_VECTOR_VALUE, head, first,
                                           t.at.walked, FJ_VALUE_DIM);
    if (!keys) return;
    const float *facts = fj_row_facts(a, t.at.b, head, first);
    const uint32_t shared = fj_shared_address(fj_shared()) + FACTS + stage * FACTS_BYTES;
    for (int32_t i = static_cast<int32_t>(fj_thread_x()); i < FJ_TILE_KV; i += THREADS) {
        const bool there = first + i < t.at.walked;
        fj_copy_async_8(shared + static_cast<uint32_t>(i) * 8, facts + (there ? i * 2 : 0), there ? 8u : 0u);
    }
}

// ---- Products ------------------------------------------------------------------------------------------------

// s += own rows times walked rows, transposed.
template <int pad>
FJ_DEVICE void fj_multiply_rows(const fj_task &t, fj_scores &s, uint32_t own, uint32_t walked) {
    const fj_read_a<pad> read_own(own, t.group_row());
    const fj_read_b<pad> read_walked(walked + t.part() * COLUMN_TILES * 8 * fj_tile<pad>::pitch);
#pragma unroll FJ_DEPTH_UNROLL
    for (uint32_t step = 0; step < pad / 16; step++) {
        uint32_t a[ROW_TILES][4];
#pragma unroll
        for (uint32_t i = 0; i < ROW_TILES; i++) read_own.load(a[i], i, step);
#pragma unroll
        for (uint32_t pair = 0; pair < COLUMN_TILES / 2; pair++) {
            uint32_t b[4];
            read_walked.load(b, pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(s[i][2 * pair], a[i], b[0], b[1]);
                FJ_MMA(s[i][2 * pair + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// sum += weights times walked rows. shared: of the weights, with SPLIT > 1.
template <int pad, int pairs>
FJ_DEVICE void fj_multiply_weights(const fj_task &t, fj_sums<pairs> &sum,
                                   [[maybe_unused]] const fj_weights &w, [[maybe_unused]] uint32_t shared,
                                   uint32_t walked) {
    const fj_read_bt<pad> read_walked(walked);
    const uint32_t from = t.part() * pairs;
#pragma unroll
    for (uint32_t step = 0; step < FJ_TILE_KV / 16; step++) {
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
        fj_read_a<FJ_TILE_KV>(shared, t.group_row()).load(a[0], 0, step);
#endif
#pragma unroll
        for (uint32_t pair = 0; pair < pairs; pair++) {
            if (pad / 16 % SPLIT != 0 && from + pair >= pad / 16) break;
            uint32_t b[4];
            read_walked.load(b, from + pair, step);
#pragma unroll
            for (int i = 0; i < ROW_TILES; i++) {
                FJ_MMA(sum.c[i][2 * pair], a[i], b[0], b[1]);
                FJ_MMA(sum.c[i][2 * pair + 1], a[i], b[2], b[3]);
            }
        }
    }
}

#endif
