// What bwd_mma.cu brings into shared memory. Included by it, after its constants and fj_task.
#ifndef FJ_CUDA_BWD_LOAD_H
#define FJ_CUDA_BWD_LOAD_H

// Where a fact of a walked query is: as in the workspace.
FJ_DEVICE uint32_t fj_fact_at(uint32_t query, uint32_t which) {
    return query / 2 * 32 + which * 8 + query % 2 * 4;
}

template <int columns>
FJ_DEVICE void fj_load_rows(const fj_task &t, uint32_t to, const fj_cuda_tensor &from, bool vector,
                            int32_t head, int32_t dim) {
    const fj_copier<columns, FJ_TILE_M, THREADS> rows(fj_raw_start(from, t.at.b, head), from.stride[2]);
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
    fj_copier<FJ_HEAD_PAD, FJ_TILE_N, THREADS> y;
    fj_copier<FJ_VALUE_PAD, FJ_TILE_N, THREADS> z;
    const float *facts;
    int32_t head;
    FJ_METHOD static const fj_cuda_tensor &y_of(const fj_cuda_backward &a) { return keys ? a.query : a.key; }
    FJ_METHOD static const fj_cuda_tensor &z_of(const fj_cuda_backward &a) { return keys ? a.dout : a.value; }
    FJ_METHOD explicit fj_walked(const fj_task &t)
        : y(fj_raw_start(y_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), y_of(t.a).stride[2]),
          z(fj_raw_start(z_of(t.a), t.at.b, keys ? t.at.head : t.at.head_kv), z_of(t.a).stride[2]),
          facts(keys ? fj_row_facts(t.a, t.at.b, t.at.head, 0).own : nullptr), head(t.at.head) {}

    FJ_METHOD void move(const fj_task &t, int32_t to) {
        const int32_t heads = to - head;
        y.own += heads * y_of(t.a).stride[1];
        z.own += heads * z_of(t.a).stride[1];
        facts += FJ_BWD_ROWS(static_cast<int64_t>(heads), t.at.walked) * FJ_CUDA_ROW_REALS;
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
        static_assert(FJ_CUDA_ROW_REALS == 4 && FJ_TILE_N % 2 == 0, "16 bytes a query, in pairs");
        const uint32_t shared = fj_shared_address(fj_shared()) + FACTS + stage * FACTS_BYTES;
#pragma unroll
        for (int32_t n = 0; n < FJ_TILE_N; n += THREADS) {
            const int32_t i = n + static_cast<int32_t>(fj_thread_x());
            if (FJ_TILE_N % THREADS != 0 && i >= FJ_TILE_N) break;
            const bool there = i / 2 * 2 < left; // the pair, of which this is a half
            fj_copy_async_16(shared + static_cast<uint32_t>(i) * 16,
                             facts + FJ_CUDA_ROW_REALS * first + (there ? i * 4 : 0), there ? 16u : 0u);
        }
    }
};

#endif
