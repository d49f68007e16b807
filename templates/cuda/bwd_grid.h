// What the backward kernels share: their arguments, who computes what, and what becomes of one score.
//
//      fj_bwd_kv: keys are resident            fj_bwd_q: queries are resident
//
//               streamed: queries                     streamed: keys
//               of all heads of the group
//              +---+---+---+---+---+---+              +---+---+---+---+
//    resident  | F | F | P |   | F | F | ... resident | F | P |   |   |      F full, P partial, ' ' empty
//    keys      +---+---+---+---+---+---+     queries  +---+---+---+---+
//              head 0          head 1
//
//  1. The two passes are one loop with sides exchanged: resident are m = FJ_TILE_M rows, streamed n = FJ_TILE_N at a
//     time. S = resident streamed^T and dP come from the loop in either; dK and dV, or dQ, stay in registers. Each
//     result has one block that makes it, in one order: no sum between blocks, no atomics.
//  2. Resident rows past the last one exist in the tile: they take the position of the last one and are not stored.
//  3. P and dS are selected to 0 after the mod where a position is masked or not there. A row that sees nothing
//     has lse = -inf, and here +inf instead: P = exp2(-inf) = 0.
//  4. P = exp2((score - lse) log2(e) + low): the difference first, which is exact where the two are close, however
//     large they are. Rounding takes from lse what `low` brings back. Of large rows, softmax.h.
//  5. dS is with respect to the scaled score; dQ and dK are multiplied by the scale once, at the end.
#ifndef FJ_CUDA_BWD_GRID_H
#define FJ_CUDA_BWD_GRID_H

#include "grid.h"

#include "sequences.h"

#include "softmax.h"

#include "dropout.h"

#define FJ_CAPTURE_GRADS (FJ_CAPTURES + FJ_SCALARS)

// Gradients of captures are sums of dS over keys, in which the true delta cancels P dP to the last digit; one made of
// an out in 16 bits leaves an error a thousand times larger. So there delta is recomputed, rowsum(P dP), by a kernel of
// its own: two products more.
#define FJ_RECOMPUTES_DELTA \
    (FJ_HAS_CAPTURE_GRADS && (FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16))

struct fj_backward_args {
    struct fj_cuda_backward call;
#if FJ_BLOCK_MASK
    struct fj_cuda_block_mask blocks;
#endif
#if FJ_SEQUENCES
    struct fj_cuda_sequences sequences;
#endif
#if FJ_SHARED_KEYS
    struct fj_cuda_shared_keys shared;
#endif
#if FJ_DROPOUT
    struct fj_cuda_dropout dropout;
#endif
#if FJ_HAS_OUT
    struct fj_cuda_epilogue epilogue;
#endif
#if FJ_CAPTURES
    struct fj_cuda_capture captures[FJ_CAPTURES];
#endif
#if FJ_SCALARS
    struct fj_cuda_scalar scalars[FJ_SCALARS];
#endif
#if FJ_CAPTURE_GRADS
    struct fj_cuda_capture_grad grads[FJ_CAPTURE_GRADS];
#endif
};

// ---- Elements ------------------------------------------------------------------------------------------

FJ_DEVICE const fj_element *fj_row_start(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return static_cast<const fj_element *>(t.data) + fj_offset(t, b, h, row);
}
// What the rows of the workspace hold of a query (enum in abi.h)
struct fj_row_stats {
    fj_real *of;
    FJ_METHOD fj_real &operator[](int which) const { return of[2 * which]; }
};
FJ_DEVICE fj_row_stats fj_row_stats_of(const fj_cuda_backward &a, int32_t b, int32_t h, int32_t q) {
    const int64_t head = FJ_BWD_ROWS(fj_workspace_head(a, b, h), a.workspace_rows);
    return fj_row_stats{static_cast<fj_real *>(a.rows) + (head + q / 2 * 2) * FJ_CUDA_ROW_REALS + q % 2};
}

// ---- Places ----------------------------------------------------------------------------------------------

enum fj_side { FJ_RESIDENT_KEYS, FJ_RESIDENT_QUERIES };

struct fj_tile_coord {
    int32_t b, head, head_kv; // head: of queries; the first of the group for FJ_RESIDENT_KEYS
    int32_t first, count;     // the first resident row; resident rows there are in all
    int32_t streamed;         // rows to stream in all, of one head
    int32_t tiles, head_end;  // tiles of them; heads of queries end there
};

// The call that a block of the grid works on, and its tile.
struct fj_work {
    fj_own_backward call;
    fj_tile_coord at;
    FJ_METHOD bool is_idle() const { return FJ_PACKED && at.b < 0; }
};

// With a causal mask the first keys and the last queries have most to do: they begin.
template <fj_side side> FJ_DEVICE int32_t fj_first_row(int32_t tile, int32_t tiles) {
    return (side == FJ_RESIDENT_KEYS ? tile : tiles - 1 - tile) * FJ_TILE_M;
}

template <fj_side side>
FJ_DEVICE fj_work fj_work_of(const fj_backward_args &args, uint32_t number_in_grid = fj_block_x()) {
    constexpr bool keys = side == FJ_RESIDENT_KEYS;
    const fj_cuda_backward &a = args.call;
    const int32_t number = static_cast<int32_t>(number_in_grid);
    const int32_t ratio = fj_divide(a.heads_q, a.heads_kv).whole, heads = keys ? a.heads_kv : a.heads_q;
    fj_tile_coord at;
#if FJ_PACKED
    const fj_quotient place = fj_divide(number, heads);
    const fj_sequence_tile tile = fj_find_sequence(keys ? args.sequences.cu_kv : args.sequences.cu_q, a.batch,
                                                   place.whole, 1, FJ_TILE_M);
    const int32_t head = place.rest;
    at.b = tile.b;
    at.first = fj_first_row<side>(tile.tile, tile.tiles);
#else
    const int32_t tiles = FJ_CEIL_DIV(keys ? a.kv_len : a.q_len, FJ_TILE_M);
    const fj_grid_tile place = fj_grid_tile_of(number, tiles, a.batch, heads, a.l2_group);
    const int32_t head = place.column.rest;
    at.b = place.column.whole;
    at.first = fj_first_row<side>(place.tile, tiles);
#endif
    at.head_kv = keys ? head : fj_divide(head, ratio).whole;
    at.head = keys ? at.head_kv * ratio : head;
    at.head_end = at.head + (keys ? ratio : 1);
#if FJ_SEQUENCES
    fj_work work = {fj_call_of_sequence(a, args.sequences, at.b < 0 ? 0 : at.b), at};
#else
    fj_work work = {a, at};
#endif
    work.at.count = keys ? work.call.kv_len : work.call.q_len;
    work.at.streamed = keys ? work.call.q_len : work.call.kv_len;
    work.at.tiles = FJ_CEIL_DIV(work.at.streamed, FJ_TILE_N);
    return work;
}

// ---- Streamed tiles ----------------------------------------------------------------------------------------------

template <fj_side side>
FJ_DEVICE int fj_class_of([[maybe_unused]] const fj_cuda_backward &a, [[maybe_unused]] const fj_mod_args &mod,
                          const fj_tile_coord &at, [[maybe_unused]] int32_t head, int32_t tile) {
    const int32_t first = tile * FJ_TILE_N, end = first + FJ_TILE_N, resident_end = at.first + FJ_TILE_M;
#if FJ_BLOCK_MASK
    const int32_t last = (end < at.streamed ? end : at.streamed) - 1,
                  resident_last = (resident_end < at.count ? resident_end : at.count) - 1;
    constexpr bool keys = side == FJ_RESIDENT_KEYS;
    const fj_rectangle r = {keys ? first : at.first, keys ? last : resident_last, keys ? at.first : first,
                            keys ? resident_last : last};
    const int found = fj_rectangle_class<keys>(a, mod, at.b, head, r);
    return found == FJ_CLASS_FULL && (end > at.streamed || resident_end > at.count) ? FJ_CLASS_PARTIAL
                                                                                    : found;
#elif FJ_HAS_MASK
    if (FJ_POSITION_TABLE && (a.q_position || a.kv_position)) return FJ_CLASS_PARTIAL;
    const int64_t last = (end < at.streamed ? end : at.streamed) - 1,
                  resident_last = (resident_end < at.count ? resident_end : at.count) - 1;
    const bool keys = side == FJ_RESIDENT_KEYS;
    const int64_t q = keys ? first : at.first, q_last = keys ? last : resident_last;
    const int64_t kv = keys ? at.first : first, kv_last = keys ? resident_last : last;
    const int found = fj_block_class(&mod, at.b, head, q + a.q_offset, q_last + a.q_offset, kv + a.kv_offset,
                                     kv_last + a.kv_offset);
    return found == FJ_CLASS_FULL && (end > at.streamed || resident_end > at.count) ? FJ_CLASS_PARTIAL
                                                                                    : found;
#else
    return end <= at.streamed && resident_end <= at.count ? FJ_CLASS_FULL : FJ_CLASS_PARTIAL;
#endif
}

FJ_DEVICE fj_tile_scheduler fj_tile_start(const fj_tile_coord &at) { return fj_tile_start(at.head, 0); }
template <fj_side side>
FJ_DEVICE fj_streamed_tile fj_tile_next(const fj_cuda_backward &a, const fj_mod_args &mod,
                                        const fj_tile_coord &at, fj_tile_scheduler &tiles) {
#if FJ_BLOCK_MASK
    const int32_t last = (at.first + FJ_TILE_M < at.count ? at.first + FJ_TILE_M : at.count) - 1;
    return fj_tile_take<side == FJ_RESIDENT_KEYS>(
        tiles, at.tiles, at.head_end,
        [&](int32_t head, int32_t tile) { return fj_class_of<side>(a, mod, at, head, tile); },
        [&](int32_t head, int32_t tile) {
            return fj_next_tile<side == FJ_RESIDENT_KEYS>(*mod.blocks, at.b, head, at.first, last, tile,
                                                          FJ_TILE_N, at.tiles);
        });
#else
    return fj_tile_take<side == FJ_RESIDENT_KEYS>(
        tiles, at.tiles, at.head_end,
        [&](int32_t head, int32_t tile) { return fj_class_of<side>(a, mod, at, head, tile); });
#endif
}

// ---- One score -----------------------------------------------------------------------------------------------

// Gradients of captures and scalars: what a thread keeps, and the hooks' view of it.
struct fj_thread_grads {
#if FJ_HAS_CAPTURE_GRADS
    fj_acc acc[FJ_CAPTURE_GRADS];
#endif
};

template <fj_side side>
FJ_DEVICE void fj_grads_start([[maybe_unused]] const fj_backward_args &args,
                              [[maybe_unused]] fj_thread_grads &thread, [[maybe_unused]] bool off) {
#if FJ_HAS_CAPTURE_GRADS
    constexpr bool keys = side == FJ_RESIDENT_KEYS;
    constexpr fj_grad_mode mode = FJ_DETERMINISTIC ? (keys ? FJ_GRAD_LOOK : FJ_GRAD_ADD)
                                : keys             ? FJ_GRAD_FLOAT
                                                   : FJ_GRAD_NONE;
#pragma unroll
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) {
        const int32_t bits = mode == FJ_GRAD_ADD ? fj_grad_run_bits(args.call.runs[i]) : 0;
        thread.acc[i] = fj_grad_start(mode, &args.grads[i], off ? nullptr : args.grads[i].sums, bits);
    }
#endif
}
FJ_DEVICE void fj_grads_settle([[maybe_unused]] fj_thread_grads &thread) {
#if FJ_HAS_CAPTURE_GRADS
#pragma unroll
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) fj_grad_settle(thread.acc[i]);
#endif
}
FJ_DEVICE void fj_grads_end([[maybe_unused]] const fj_backward_args &args,
                            [[maybe_unused]] fj_thread_grads &thread) {
#if FJ_HAS_CAPTURE_GRADS
#pragma unroll
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) fj_grad_end(thread.acc[i], args.call.runs + i);
#endif
}

#if FJ_DROPOUT
// dP - delta of one score (dropout.h). d: the sum that began at -delta (1 - p).
FJ_DEVICE fj_real fj_dropped_grad(bool kept, fj_real kept_scale, fj_real d, fj_real minus_delta) {
    return kept ? d * kept_scale : minus_delta;
}
#endif

// As the rows of the workspace hold it.
template <class T> FJ_DEVICE fj_norm fj_norm_at(const T &row_stats) {
    return fj_norm{row_stats[FJ_CUDA_ROW_LSE], row_stats[FJ_CUDA_ROW_LOW], row_stats[FJ_CUDA_ROW_NATURAL]};
}
FJ_DEVICE void fj_put_norm(const fj_row_stats &row_stats, const fj_norm &norm) {
    row_stats[FJ_CUDA_ROW_LSE] = norm.lse;
    row_stats[FJ_CUDA_ROW_LOW] = norm.low;
    row_stats[FJ_CUDA_ROW_NATURAL] = norm.natural;
}
// P of a raw product, whether masked or not. product_scale: of fj_product_scale_of.
FJ_DEVICE fj_real fj_prob_of(fj_real product_scale, [[maybe_unused]] const fj_mod_args &mod,
                             [[maybe_unused]] const struct fj_head_state *head,
                             [[maybe_unused]] const struct fj_row_state *row,
                             [[maybe_unused]] const struct fj_col_state *col, const fj_norm &norm,
                             fj_real s) {
#if FJ_HAS_SCORE
    const fj_real x = fj_score(&mod, head, row, col, s * product_scale), scale_log2 = FJ_LOG2_E;
#else
    const fj_real x = s, scale_log2 = product_scale;
#endif
    return fj_prob_exp2(fj_fma_rn(fj_sub_rn(x, norm.lse), scale_log2, norm.low));
}

// s: the raw product, becomes P; d: dP - delta, becomes dS.
FJ_DEVICE void fj_grad_score(fj_real product_scale, [[maybe_unused]] const fj_mod_args &mod,
                             [[maybe_unused]] const struct fj_head_state *head,
                             [[maybe_unused]] const struct fj_row_state *row,
                             [[maybe_unused]] const struct fj_col_state *col, const fj_norm &norm, bool live,
                             fj_real &s, fj_real &d, [[maybe_unused]] fj_thread_grads &thread) {
    [[maybe_unused]] const fj_real score = s * product_scale;
    const fj_real p = fj_prob_of(product_scale, mod, head, row, col, norm, s);
    s = live ? p : fj_real(0);
    d = live ? p * d : fj_real(0);
#if FJ_HAS_SCORE
    struct fj_capture_grads grads;
#if FJ_HAS_CAPTURE_GRADS
#pragma unroll
    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = &thread.acc[i];
    grads.scalar = thread.acc + FJ_CAPTURES;
#endif
    d = fj_score_grad(&mod, head, row, col, score, d, live, &grads);
    if (!live) d = 0;
#endif
}

#endif
