// Loads and products of bwd_mma.cu, which includes this file: its constants, fj_task and types come first.
#ifndef FJ_CUDA_BWD_PRODUCTS_H
#define FJ_CUDA_BWD_PRODUCTS_H

// ---- From global memory ------------------------------------------------------------------------------------

template <int columns>
FJ_DEVICE void fj_load_rows(const fj_task &t, uint32_t to, const fj_cuda_tensor &from, bool vector,
                            int32_t head, int32_t dim) {
    const fj_copier<columns, FJ_TILE_Q, THREADS> rows(fj_raw_start(from, t.at.b, head), from.stride[2]);
    rows.send(to, dim, vector, from.stride[2], t.at.first, t.at.count - t.at.first);
}

template <fj_side side> FJ_DEVICE void fj_load_own(const fj_task &t) {
    constexpr bool keys = side == FJ_OWN_KEYS;
    const fj_cuda_backward &a = t.a;
    const int32_t head = keys ? t.at.head_kv : t.at.head;
    fj_load_rows<FJ_HEAD_PAD>(t, 0, keys ? a.key : a.query,
                              a.vector & (keys ? FJ_CUDA_VECTOR_KEY : FJ_CUDA_VECTOR_QUERY), head,
                              FJ_HEAD_DIM);
    fj_load_rows<FJ_VALUE_PAD>(t, X_BYTES, keys ? a.value : a.dout,
                               a.vector & (keys ? FJ_CUDA_VECTOR_VALUE : FJ_CUDA_VECTOR_DOUT), head,
                               FJ_VALUE_DIM);
}

// Where a thread finds its part of the walked rows of a head.
template <fj_side side> struct fj_walked {
    enum : bool { keys = side == FJ_OWN_KEYS };
    fj_copier<FJ_HEAD_PAD, FJ_TILE_KV, THREADS> y;
    fj_copier<FJ_VALUE_PAD, FJ_TILE_KV, THREADS> z;
    const float *facts;
    int32_t head;
    FJ_METHOD static const fj_cuda_tensor &y_of(const fj_cuda_backward &a) { return keys ? a.query : a.key; }
    FJ_METHOD static const fj_cuda_tensor &z_of(const fj_cuda_backward &a) { return keys ? a.dout : a.value; }
    FJ_METHOD explicit fj_walked(const fj_task &t)
        : y(fj_raw_start(y_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), y_of(t.a).stride[2]),
          z(fj_raw_start(z_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), z_of(t.a).stride[2]),
          facts(keys ? fj_row_facts(t.a, t.at.b, t.at.head, 0) : nullptr), head(t.at.head) {}

    FJ_METHOD void move(const fj_task &t, int32_t to) {
        const int32_t heads = to - head;
        y.own += heads * y_of(t.a).stride[1];
        z.own += heads * z_of(t.a).stride[1];
        facts += static_cast<int64_t>(heads) * t.at.walked * FJ_CUDA_ROW_REALS;
        head = to;
    }
    // Y, Z and facts of a step, into a stage.
    FJ_METHOD void send(const fj_task &t, const fj_step &step, uint32_t stage) {
        const fj_cuda_backward &a = t.a;
        const int32_t first = step.first(), left = t.at.walked - first;
        const uint32_t to = OWN_BYTES + stage * STAGE_BYTES;
        if (keys && step.head != head) move(t, step.head);
        y.send(to, FJ_HEAD_DIM, a.vector & (keys ? FJ_CUDA_VECTOR_QUERY : FJ_CUDA_VECTOR_KEY),
               y_of(a).stride[2], first, left);
        z.send(to + Y_BYTES, FJ_VALUE_DIM, a.vector & (keys ? FJ_CUDA_VECTOR_DOUT : FJ_CUDA_VECTOR_VALUE),
               z_of(a).stride[2], first, left);
        if (!keys) return;
        const uint32_t shared = fj_shared_address(fj_shared()) + FACTS + stage * FACTS_BYTES;
#pragma unroll
        for (int32_t n = 0; n < FJ_TILE_KV; n += THREADS) {
            const int32_t i = n + static_cast<int32_t>(fj_thread_x());
            if (FJ_TILE_KV % THREADS != 0 && i >= FJ_TILE_KV) break;
            const float *from = facts + FJ_CUDA_ROW_REALS * (first + (i < left ? i : 0));
#pragma unroll
            for (int32_t which = 0; which < FJ_CUDA_ROW_REALS; which++)
                fj_copy_async_4(shared + static_cast<uint32_t>(which * FJ_TILE_KV + i) * 4, from + which,
                                i < left ? 4u : 0u);
        }
    }
};

// ---- Products ------------------------------------------------------------------------------------------------

// s += own rows times walked rows, transposed.
template <int pad>
FJ_DEVICE void fj_multiply_rows(const fj_task &t, fj_scores &s, uint32_t own, uint32_t walked) {
    const fj_read_a<pad> read_own(own, t.group_row());
    const fj_read_b<pad> read_walked(walked + t.part() * COLUMN_TILES * 8 * fj_tile<pad>::pitch);
#pragma unroll
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
    [[maybe_unused]] const fj_read_a<FJ_TILE_KV> read_weights(shared, t.group_row());
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
#pragma unroll
        for (uint32_t i = 0; i < ROW_TILES; i++) read_weights.load(a[i], i, step);
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
