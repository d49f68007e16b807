// Forward attention on tensor cores by mma.sync, sm_80 and newer: 16-bit inputs (fwd_half.h), and float32 in
// its own precision as three products of TF32 (fwd_tf32.h).
//
//        a warp: 16 * ROW_TILES rows         per block of keys that is not empty:
//      +-------------+-------------+            wait for its keys and values, one barrier,
//      |  S = Q K^T  |             |              send for the block FJ_STAGES - 1 further on
//      |  registers  |   P in the  |            S = Q K^T
//      |      |      |   place of  |            mod, mask (two copies of this part, not of the products)
//      |      v      |   S is the  |            maximum; P = exp2(c S - M)
//      |  O += P V   |   A of P V  |            O = factor O + P V
//      +-------------+-------------+          out = O / sum, lse = M / log2(e) + log(sum)
//
//      stages:   | K V | K V |        block n lies in stage n % FJ_STAGES; group n of the asynchronous
//                  0     1            copies is block n, a group is committed even when it is empty
//
//  1. At the barrier of step n all warps are past step n - 1: its stage may be overwritten. Every thread has
//     waited for its own part of block n before that barrier: so all of block n is there after it.
//  2. Rows, keys and columns that are not there are zero in shared memory (tile_mma.h): no NaN leaks.
//  3. A score that is masked, or past the last key, is -inf after the mod: its P is 0, whatever the mod gave.
//     The mask is evaluated before, as bits, by a loop that stays rolled: it does not depend on scores.
//  4. M of a row that has seen nothing is the least float, not -inf: P is exp2(-inf - M) = 0, not NaN. Its limit is
//     -inf: every finite score passes it. NaN in a score, or +inf, makes that row NaN and no other: a maximum may lose
//     it, the sum does not.
//  5. A thread has rows lane / 4 and + 8 of each 16; a row's four threads keep equal M, and each a part of the sum
//     until the end. Sums are of P before rounding.
//  6. M need not be the maximum: P is at most 2^RESCALE_THRESHOLD, and the final division is by a sum of the same P. So
//     o is seldom rescaled, and a warp asks its threads only whether a score passes the limit, that much ahead of M.
//     Where the maximum itself is wanted, RESCALE_THRESHOLD is 0, and limits are maxima.
//  7. With FJ_STAGES 1, keys and values take turns: the values of a block arrive during its scores, the next keys
//     during P V, behind a barrier each. Half the shared memory: two blocks of the grid fit where one did.
//  8. c S - M is one fused operation: what the rounding of M takes is the same for all P of a row, and the division
//     takes it away. Where M would have no fraction (FAR), and could leave P beyond its range, the row goes far for the
//     rest: its limit is the maximum, as a score; S - maximum (softmax.h) takes the place of S, and M is 0.
//  9. A key that a row does not see adds exactly nothing to it (fwd_care.h); nor does one that is dropped (dropout.h).
#include "pipeline.h"

#include "fwd_products.h"

// ---- From global memory ----------------------------------------------------------------------------------

FJ_DEVICE void fj_load_queries(const fj_task &t) {
    fj_tile_copy_rows<FJ_HEAD_PAD, FJ_TILE_M, THREADS>(
        0, FJ_HEAD_DIM, t.a.vector & FJ_CUDA_VECTOR_QUERY, [&](int32_t i) -> const fj_raw * {
            const int32_t row = t.at.first + i;
            if (row >= t.at.rows) return nullptr;
            return fj_row_start(t.a.query, t.at.b, fj_row_head(t.at, row), fj_row_query(t.at, row));
        });
}

// The keys, the values of a block, into a stage.
#if FJ_PAGED
template <int pad>
FJ_DEVICE void fj_gather_rows(const fj_task &t, const fj_cuda_tensor &from, bool vector, int32_t dim,
                              int32_t first, uint32_t to) {
    fj_tile_copy_rows<pad, FJ_TILE_N, THREADS>(
        to, dim, vector,
        [&](int32_t i) -> const fj_raw * {
            if (first + i >= t.a.kv_len) return nullptr;
            return fj_key_start<fj_raw>(t.a, from, t.at.b, t.at.head_kv, first + i);
        },
        [&] { return static_cast<const fj_raw *>(from.data); });
}
#endif
FJ_DEVICE void fj_load_keys(const fj_task &t, const fj_streamed_tile &block, uint32_t stage) {
    const int32_t first = block.first();
    const uint32_t to = Q_BYTES + stage * STAGE_BYTES;
    const bool vector = t.a.vector & FJ_CUDA_VECTOR_KEY;
#if FJ_PAGED
    fj_gather_rows<FJ_HEAD_PAD>(t, t.a.key, vector, FJ_HEAD_DIM, first, to);
#else
    t.keys.send(to, FJ_HEAD_DIM, vector, t.a.key.stride[2], first, t.a.kv_len - first);
#endif
}
FJ_DEVICE void fj_load_values(const fj_task &t, const fj_streamed_tile &block, uint32_t stage) {
    const int32_t first = block.first();
    const uint32_t to = Q_BYTES + stage * STAGE_BYTES + K_BYTES;
    const bool vector = t.a.vector & FJ_CUDA_VECTOR_VALUE;
#if FJ_PAGED
    fj_gather_rows<FJ_VALUE_PAD>(t, t.a.value, vector, FJ_VALUE_DIM, first, to);
#else
    t.values.send(to, FJ_VALUE_DIM, vector, t.a.value.stride[2], first, t.a.kv_len - first);
#endif
}

#include "fwd_scores.h"

#include "fwd_care.h"

// One block of keys that is there, up to its probabilities.
FJ_DEVICE void fj_compute_probs(const fj_task &t, fj_rows &rows, fj_sums &o, const fj_streamed_tile &block,
                                uint32_t keys, fj_p_frag &p_frag) {
    const int32_t first = block.first();
    fj_scores s;
#if !FJ_BLOCK_MASK
    fj_multiply_keys(s, fj_shared_address(fj_shared()), keys);
#endif
    uint32_t bits[ROWS];
    if (block.is_full()) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) bits[r] = ~0u;
    } else {
        fj_mask_bits(t, rows, first, bits);
    }
#if FJ_BLOCK_MASK // behind the look-ups, which need its registers
    fj_multiply_keys(s, fj_shared_address(fj_shared()), keys);
#endif
#if FJ_HAS_FAULT && !FJ_FAULT_READS_SCORE
    if (fj_suspects(t.a, t.mod, t.at, first)) fj_look_for_faults(t, rows, first, bits);
#endif
#if FJ_ONE_COPY
    fj_apply_mod<true>(t, rows, first, s, bits);
#else
    if (block.is_full() && (FJ_HAS_SCORE || fj_is_positive(t.a.scale)))
        fj_apply_mod<false>(t, rows, first, s, bits);
    else
        fj_apply_mod<true>(t, rows, first, s, bits);
#endif
    fj_softmax(t, rows, s, o);
#if FJ_DROPOUT
    fj_drop(t, first, s);
#endif
    fj_probs_to_frag(p_frag, s);
}

// ---- The kernel --------------------------------------------------------------------------------------------------

FJ_DEVICE void fj_start_rows(const fj_task &t, fj_rows &rows, fj_sums &o) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (FJ_PACK_HEADS || r == 0)
            fj_head_init(&t.mod, t.at.b, t.head(r), &rows.heads[FJ_PACK_HEADS ? r : 0]);
        fj_row_init(&t.mod, rows.head(r), fj_q_position(t.a, t.at.b, t.query(r)), &rows.state[r]);
        rows.limit[r] = -INFINITY;
        rows.sum[r] = 0;
    }
    rows.far = 0;
#pragma unroll
    for (int i = 0; i < ROW_TILES; i++)
#pragma unroll
        for (int j = 0; j < VALUE_TILES; j++) o[i][j][0] = o[i][j][1] = o[i][j][2] = o[i][j][3] = 0;
}

#if FJ_STAGES == 1

// Keys and values take turns: the values of a block are under way during its scores, the next keys during P V. So
// each of two barriers a block waits for copies that had half of it to arrive, and frees the other place.
FJ_DEVICE void fj_stream_keys(const fj_task &t, fj_rows &rows, fj_sums &o, [[maybe_unused]] bool care) {
    const uint32_t keys = fj_shared_address(fj_shared()) + Q_BYTES;
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    fj_p_frag p_frag;
#pragma unroll 1
    for (fj_streamed_tile block = {t.at.head, FJ_TILE_END};;) {
        const fj_streamed_tile next = fj_tile_next(t.a, t.mod, t.at, tiles);
        if (!next.is_end()) fj_load_keys(t, next, 0);
        fj_copy_async_commit();
        if (!block.is_end()) fj_multiply_values(o, p_frag, keys + K_BYTES);
        if (next.is_end()) break;
        block = next;
        fj_copy_async_wait<0>();
        fj_block_sync(); // the keys are there, and the values of the block before are done with
        fj_load_values(t, block, 0);
        fj_copy_async_commit();
        fj_compute_probs(t, rows, o, block, keys, p_frag);
        fj_copy_async_wait<0>();
        fj_block_sync(); // the values are there, and the keys done with
        if (FJ_MASKED && care) fj_clean_values(Q_BYTES + K_BYTES);
    }
}

#else

FJ_DEVICE void fj_stream_keys(const fj_task &t, fj_rows &rows, fj_sums &o, [[maybe_unused]] bool care) {
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    fj_pipeline<FJ_STAGES>([&] { return fj_tile_next(t.a, t.mod, t.at, tiles); },
                           [&](const fj_streamed_tile &block, uint32_t stage) {
                               fj_load_keys(t, block, stage);
                               fj_load_values(t, block, stage);
                           },
                           [&](const fj_streamed_tile &block, uint32_t stage) {
                               const uint32_t at = Q_BYTES + stage * STAGE_BYTES;
                               const uint32_t keys = fj_shared_address(fj_shared()) + at;
                               fj_p_frag p_frag;
                               if (FJ_MASKED && care) fj_clean_values(at + K_BYTES);
                               fj_compute_probs(t, rows, o, block, keys, p_frag);
                               fj_multiply_values(o, p_frag, keys + K_BYTES);
                           });
}

#endif

FJ_KERNEL(fj_fwd, THREADS, 1, fj_forward_args) {
    bool care = false;
#pragma unroll 1
    do {
        // What the first iteration knows is not to be kept for another.
        const uint32_t number = FJ_MASKED ? fj_shuffle_index(fj_block_x(), 0u) : fj_block_x();
        const fj_work work = fj_work_of(args, number);
        if (work.is_idle()) return;
        const fj_task t(args, work);
        fj_rows rows;
        fj_sums o;
        fj_load_queries(t);
        fj_start_rows(t, rows, o);
        fj_stream_keys(t, rows, o, care);
        fj_copy_async_wait<0>();
        care = fj_end_sweep(args, work, rows, o, care);
    } while (FJ_MASKED && care);
}

#if FJ_PARTIAL
#include "fwd_merge.cu"
#endif
