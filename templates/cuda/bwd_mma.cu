// Backward attention on tensor cores by mma.sync, sm_80 and newer: 16-bit inputs (bwd_half.h), and float32 in its own
// precision as three products of TF32 (bwd_tf32.h).
//
//      resident rows (FJ_TILE_M)       streamed rows (FJ_TILE_N at a time)
//      R_qk: keys      R_vo: values    S_qk: queries   S_vo: douts          in fj_bwd_kv
//      R_qk: queries   R_vo: douts     S_qk: keys      S_vo: values         in fj_bwd_q
//
//        a warp: 16 * ROW_TILES resident rows        for each tile that is not empty:
//      +--------------------+--------------------+   wait for its S_qk and S_vo, one barrier, send for the next
//      |  S  = R_qk S_qk^T  |  dP = R_vo S_vo^T  |   S, dP (which starts at -delta, not at 0)
//      |       |            |       |            |   mod, mask, derivative: P and dS, in place of them
//      |       v            |       v            |   16-bit inputs: rounded; the A of the next products
//      |  d_vo += P S_vo    |  d_qk += dS S_qk   |   d_vo (fj_bwd_kv only), d_qk
//      +--------------------+--------------------+   d_qk * scale and d_vo to global memory
//
//      |  R_qk, R_vo  | S_qk S_vo | S_qk S_vo | row_stats of both |  P, dS (2., 3.)  |    shared memory
//                           stage 0     stage 1    lse, low, -delta of streamed queries
//
//  1. Both passes are the same text, with sides exchanged: resident rows are rows of the matrices in registers in
//     either, so that P and dS are the A of what they are multiplied with, without a way through shared memory. Each
//     result has one block, which makes it in one order (bwd_grid.h).
//  2. A warp has 32 resident rows where it can (shapes.h): what it reads of S_qk and S_vo then serves two products, and
//     with 16 the bytes of shared memory would be the limit. With SPLIT > 1 so many warps share these rows: each makes
//     a part of the columns of S and dP, all get P and dS through shared memory, each sums a part of the columns of
//     d_vo and d_qk. Large dimensions need it for registers.
//  3. With FJ_DETERMINISTIC 0 no second kernel recomputes scores: fj_bwd_kv multiplies dS, shared through shared
//     memory, with its keys, adds that to float sums of dQ in global memory, atomically, and fj_bwd_q only rounds them.
//  4. At the barrier of a step all warps are past the step before: its stage, and P and dS, may be overwritten. Every
//     thread has waited for its own part of the step's copies before that barrier.
//  5. Rows and columns that are not there are zero in shared memory (tile_mma.h): no NaN leaks. Of what is there,
//     bwd_care.h.
//  6. P and dS are selected to 0 after the mod where a position is masked or not there. The mask is evaluated before,
//     as bits, by a loop that stays rolled.
//  7. Steps, the tile scheduler and stages are those of fwd_mma.cu.
#include "pipeline.h"

#include "bwd_products.h"

#include "bwd_delta.cu"

#include "bwd_load.h"

#include "bwd_clean.h"

#include "bwd_scores.h"

// ---- Results ---------------------------------------------------------------------------------------------------

template <int pairs> FJ_DEVICE void fj_clear(fj_sums<pairs> &sum) {
#pragma unroll
    for (int n = 0; n < ROW_TILES * 2 * pairs * 4; n++)
        sum.c[n / 4 / (2 * pairs)][n / 4 % (2 * pairs)][n % 4] = 0;
}

// Sums to the place of resident rows in shared memory, as elements.
template <int pad, int pairs>
FJ_DEVICE void fj_put_sums(const fj_task &t, uint32_t to, const fj_sums<pairs> &sum, float scale) {
#pragma unroll
    for (int j = 0; j < 2 * pairs; j++) {
        const uint32_t tile = t.part() * 2 * pairs + static_cast<uint32_t>(j);
        if (pad / 16 % SPLIT != 0 && tile >= pad / 8) break;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float *c = &sum.c[r / 2][j][r % 2 * 2];
            fj_put_pair<pad>(to, static_cast<uint32_t>(t.row(r) - t.at.first), tile, c[0] * scale,
                             c[1] * scale);
        }
    }
}

template <int pad>
FJ_DEVICE void fj_store(const fj_task &t, const fj_cuda_tensor &to, bool vector, int32_t head, uint32_t from,
                        int32_t dim, bool marks) {
    typedef fj_tile<pad> tile;
    if (!to.data) return;
#pragma unroll 1
    for (uint32_t i = fj_thread_x(); i < FJ_TILE_M * tile::chunks; i += THREADS) {
        const uint32_t row = i / tile::chunks, chunk = i % tile::chunks;
        const int32_t index = t.at.first + static_cast<int32_t>(row),
                      left = dim - static_cast<int32_t>(chunk) * FJ_CHUNK;
        if (index >= t.at.count || left <= 0) continue;
        fj_raw *place =
            static_cast<fj_raw *>(to.data) + fj_offset(to, t.at.b, head, index) + chunk * FJ_CHUNK;
        const fj_b128 x = *fj_shared_at<fj_b128>(from + tile::at(row, chunk));
        if (marks)
            fj_put_marks(place, x, left);
        else
            fj_put_chunk(place, x, left, vector);
    }
}

#if FUSED
#include "bwd_atomic.h"
#endif

// ---- The kernels -------------------------------------------------------------------------------------------------

// d_qk: sums of HEAD_PAD columns; d_vo: of VALUE_PAD columns, only of resident keys.
template <fj_side side>
FJ_DEVICE void fj_do_tile(const fj_task &t, const fj_resident<side> &resident,
                          const struct fj_head_state &head, const fj_streamed_tile &tile, uint32_t stage,
                          fj_sums<E_PAIRS> &d_qk, fj_sums<V_PAIRS> &d_vo, fj_thread_grads &grads,
                          const fj_caring &care) {
    const uint32_t shared = fj_shared_address(fj_shared()),
                   streamed = shared + RESIDENT_BYTES + stage * STAGE_BYTES;
    const uint32_t row_stats = ROW_STATS + stage * ROW_STATS_BYTES;
    const int32_t first = tile.first();
    fj_scores s, d;
    fj_start_scores<side>(t, resident, row_stats, s, d);
    fj_multiply_rows<side, FJ_HEAD_PAD>(t, s, shared, streamed);
#if FJ_IN_DTYPE == FJ_DTYPE_F32
    fj_repair_scores(t, s, shared, streamed);
#endif
    fj_multiply_douts<FJ_VALUE_PAD>(t, d, shared + RESIDENT_QK_BYTES, streamed + STREAMED_QK_BYTES);
    const bool large = fj_has_large<side>(resident, row_stats);
    if (FJ_FULL_COPY && tile.is_full() && !care.how && !large &&
        !(FUSED && fj_has_dead<side>(t, row_stats))) {
        fj_apply<side, false>(t, resident, head, tile.head, first, true, row_stats, s, d, grads, FJ_PLAIN);
    } else {
        if (large) fj_make_near<side>(t, row_stats, s);
        fj_apply<side, true>(t, resident, head, tile.head, first, tile.is_full(), row_stats, s, d, grads,
                             care.how);
    }
    if (care.how) fj_clean(RESIDENT_BYTES + stage * STAGE_BYTES, STAGE_BYTES, care.how == FJ_MARK);
    fj_p_frag p, ds;
    if (side == FJ_RESIDENT_KEYS) fj_scores_to_frag<(SPLIT > 1)>(t, s, p, P_TILE);
    fj_scores_to_frag<(SPLIT > 1 || FUSED)>(t, d, ds, P_TILE + P_BYTES);
    if (FUSED)
        fj_block_sync();
    else if (SPLIT > 1)
        fj_barrier_sync(1 + fj_warp() / SPLIT, SPLIT * FJ_WARP);
    if (side == FJ_RESIDENT_KEYS)
        fj_multiply_frag<FJ_VALUE_PAD>(t, d_vo, p, shared + P_TILE, streamed + STREAMED_QK_BYTES);
    fj_multiply_frag<FJ_HEAD_PAD>(t, d_qk, ds, shared + P_TILE + P_BYTES, streamed);
#if FUSED
    if (care.adds()) fj_add_queries(t, tile.head, first, care);
#endif
}

// All tiles of the block, by the pipeline; resident rows are sent for before it.
template <fj_side side>
FJ_DEVICE void fj_stream_tiles(const fj_backward_args &args, const fj_task &t, fj_sums<E_PAIRS> &d_qk,
                               fj_sums<V_PAIRS> &d_vo, fj_caring &care) {
    fj_streamed<side> streamed(t);
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    fj_resident<side> resident;
    fj_thread_grads grads;
    struct fj_head_state head;
    int32_t h = -1; // of `head`
    fj_load_resident<side>(t);
#if FUSED
    fj_check_resident(care);
#endif
    fj_grads_start<side>(args, grads, care.how != FJ_PLAIN);
    if (side == FJ_RESIDENT_QUERIES) {
        fj_head_init(&t.mod, t.at.b, t.at.head, &head);
        fj_start_resident<side>(t, head, t.at.head, resident);
    }
    fj_pipeline<FJ_STAGES>(
        [&] { return fj_tile_next<side>(t.a, t.mod, t.at, tiles); },
        [&](const fj_streamed_tile &tile, uint32_t stage) { streamed.send(t, tile, stage); },
        [&](const fj_streamed_tile &tile, uint32_t stage) {
            if (side == FJ_RESIDENT_KEYS && tile.head != h) {
                h = tile.head;
                fj_head_init(&t.mod, t.at.b, h, &head);
                fj_start_resident<side>(t, head, h, resident);
            }
            fj_do_tile<side>(t, resident, head, tile, stage, d_qk, d_vo, grads, care);
            fj_grads_settle(grads);
        });
    fj_copy_async_wait<0>(); // resident rows of a block without tiles
    fj_grads_end(args, grads);
}

// The task again, from a number that the compiler does not know for the same: not kept in registers through the loop.
template <fj_side side> FJ_DEVICE fj_task fj_task_again(const fj_backward_args &args) {
    return fj_task(args, fj_work_of<side>(args, fj_shuffle_index(fj_block_x(), 0u)));
}

#if FJ_RECOMPUTES_DELTA
#include "bwd_recompute.h"
#endif

FJ_KERNEL(fj_bwd_kv, THREADS, 1, fj_backward_args) {
    fj_caring care = {FJ_PLAIN, false};
#pragma unroll 1
    for (;;) {
        fj_sums<E_PAIRS> dkey;
        fj_sums<V_PAIRS> dvalue;
        fj_clear(dkey);
        fj_clear(dvalue);
        const fj_work work = fj_work_of<FJ_RESIDENT_KEYS>(args);
        if (work.is_idle()) return;
        fj_stream_tiles<FJ_RESIDENT_KEYS>(args, fj_task(args, work), dkey, dvalue, care);
        if (fj_needs_care(care, !fj_all_finite(dkey) || !fj_all_finite(dvalue))) continue;
        const fj_task t = fj_task_again<FJ_RESIDENT_KEYS>(args);
        const bool marks = care.how == FJ_MARK;
        fj_put_sums<FJ_HEAD_PAD>(t, 0, dkey, marks ? 1.0f : static_cast<float>(t.a.scale));
        fj_put_sums<FJ_VALUE_PAD>(t, RESIDENT_QK_BYTES, dvalue, marks ? 1.0f : t.value_scale());
        fj_block_sync();
        fj_store<FJ_HEAD_PAD>(t, t.a.dkey, t.a.vector & FJ_CUDA_VECTOR_DKEY, t.at.head_kv, 0, FJ_HEAD_DIM,
                              marks);
        fj_store<FJ_VALUE_PAD>(t, t.a.dvalue, t.a.vector & FJ_CUDA_VECTOR_DVALUE, t.at.head_kv,
                               RESIDENT_QK_BYTES, FJ_VALUE_DIM, marks);
        if (!fj_has_to_mark(care)) break;
    }
}

FJ_KERNEL(fj_bwd_q, THREADS, 1, fj_backward_args) {
#if FUSED
    const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
    if (!work.is_idle()) fj_round_queries(fj_task(args, work));
#else
    fj_caring care = {FJ_PLAIN, false};
#pragma unroll 1
    for (;;) {
        fj_sums<E_PAIRS> dquery;
        fj_sums<V_PAIRS> none;
        fj_clear(dquery);
        const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
        if (work.is_idle()) return;
        fj_stream_tiles<FJ_RESIDENT_QUERIES>(args, fj_task(args, work), dquery, none, care);
        if (fj_needs_care(care, !fj_all_finite(dquery))) continue;
        const fj_task t = fj_task_again<FJ_RESIDENT_QUERIES>(args);
        const bool marks = care.how == FJ_MARK;
        fj_put_sums<FJ_HEAD_PAD>(t, 0, dquery, marks ? 1.0f : static_cast<float>(t.a.scale));
        fj_block_sync();
        fj_store<FJ_HEAD_PAD>(t, t.a.dquery, t.a.vector & FJ_CUDA_VECTOR_DQUERY, t.at.head, 0, FJ_HEAD_DIM,
                              marks);
        if (!fj_has_to_mark(care)) break;
    }
#endif
}
