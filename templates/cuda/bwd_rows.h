// What the mods of the output and of the sink add to a backward pass: kernels that take the rows of queries by themselves.
//
//      fj_bwd_out        first:   the gradient of the output before its mod, to the call's dout (abi.h)
//      fj_bwd_rows       after all that makes delta; gradients of captures and scalars that the two mods read: LOOK, or
//                        FLOAT (capture_grads.h)
//      fj_bwd_rows_add   after fj_bwd_kv and fj_bwd_q; with FJ_DETERMINISTIC: ADD
//
//  1. fj_bwd_rows takes the rows in chunks of one warp. Runs end with a chunk: so what is rounded, and how many runs
//     there are, does not depend on the grid. Of the output lanes take columns, and rows one after the other, so that an
//     element of a capture that no row chooses has one run a chunk; of the sink they take rows.
//  2. The logit of a sink has P_sink = exp(sink - lse), whose dP is 0: its adjoint is -P_sink delta, plus that of lse.
#ifndef FJ_CUDA_BWD_ROWS_H
#define FJ_CUDA_BWD_ROWS_H

#include "bwd_grid.h"

#define FJ_DELTA_THREADS 128

// Of a row of queries: its head; its place in the tensors, whose batch is b; its sequence's place in the workspace.
struct fj_delta_place {
    int32_t b, h, q;
    int64_t start;    // rows of the workspace before the sequence
    int32_t row, end; // in the sequence; rows that this has
    int32_t sequence; // the batch that the mod sees
};
FJ_DEVICE fj_delta_place fj_delta_place_of(const fj_backward_args &args, int64_t number) {
    const fj_cuda_backward &a = args.call;
    const int32_t q = static_cast<int32_t>(number % a.q_len), column = static_cast<int32_t>(number / a.q_len);
#if FJ_PACKED
    const int32_t *cu = args.sequences.cu_q;
    int32_t b = 0;
    for (int32_t end = a.batch; end - b > 1;) { // the last sequence that begins with the row, or before
        const int32_t middle = b + (end - b) / 2;
        (cu[middle] <= q ? b : end) = middle;
    }
    return fj_delta_place{0, column, q, fj_sequence_start(cu, b), q - cu[b], cu[b + 1] - cu[b], b};
#else
    const int32_t b = column / a.heads_q;
    return fj_delta_place{b, column % a.heads_q, q, 0, q, a.q_len, b};
#endif
}

FJ_DEVICE fj_row_stats fj_delta_stats(const fj_cuda_backward &a, const fj_delta_place &at) {
    const fj_row_stats row_stats = fj_row_stats_of(a, at.b, at.h, at.row);
    return fj_row_stats{row_stats.of + at.start * FJ_CUDA_ROW_REALS};
}

#if FJ_HAS_OUT
// As fj_q_position, of a sequence's row.
FJ_DEVICE int32_t fj_row_position(const fj_backward_args &args, const fj_delta_place &at) {
    int32_t offset = 0;
#if FJ_SEQUENCES
    if (args.sequences.q_offset) offset = args.sequences.q_offset[at.sequence];
#endif
    return offset + fj_q_position(args.call, at.sequence, at.row);
}

// The gradient of an element before the mod.
FJ_DEVICE fj_real fj_out_gradient(const fj_backward_args &args, const fj_mod_args &mod,
                                  const fj_delta_place &at, const fj_out_place &place, int32_t column,
                                  struct fj_capture_grads *grads) {
    struct fj_out_col_state col;
    fj_out_col_init(&mod, &place.head, column, &col);
    const fj_real x = fj_widen(fj_row_start(args.call.out, at.b, at.h, at.q)[column]),
                  adjoint = fj_widen(fj_row_start(args.epilogue.dout, at.b, at.h, at.q)[column]);
    return fj_out_grad(&mod, &place.head, &place.row, &col, x, adjoint, true, grads);
}

FJ_KERNEL(fj_bwd_out, FJ_DELTA_THREADS, 1, fj_backward_args) {
    const fj_cuda_backward &a = args.call;
    const fj_mod_args mod = fj_mod_of(args);
    const int64_t rows = fj_workspace_heads(a) * a.q_len;
    const int64_t warps = fj_block_threads() / FJ_WARP, all = warps * fj_grid_x();
    fj_acc none[FJ_CAPTURE_GRADS + 1];
    struct fj_capture_grads grads;
#pragma unroll
    for (int i = 0; i <= FJ_CAPTURE_GRADS; i++) none[i] = fj_grad_start(FJ_GRAD_NONE, nullptr, nullptr, 0);
#pragma unroll
    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = &none[i];
    grads.scalar = none + FJ_CAPTURES;
#pragma unroll 1
    for (int64_t row = fj_block_x() * warps + fj_warp(); row < rows; row += all) {
        const fj_delta_place at = fj_delta_place_of(args, row);
        const fj_out_place place = fj_out_place_of(mod, at.sequence, at.h, fj_row_position(args, at));
        fj_element *to = static_cast<fj_element *>(a.dout.data) + fj_offset(a.dout, at.b, at.h, at.q);
#pragma unroll 1
        for (int32_t c = static_cast<int32_t>(fj_lane()); c < FJ_VALUE_DIM; c += FJ_WARP)
            to[c] = fj_narrow(fj_out_gradient(args, mod, at, place, c, &grads));
    }
}
#endif

#if FJ_HAS_OUT_GRADS || FJ_HAS_SINK_GRADS

#define FJ_ROWS_CHUNK FJ_WARP

#if FJ_HAS_SINK_GRADS
FJ_DEVICE void fj_sink_gradient(const fj_backward_args &args, const fj_mod_args &mod,
                                const fj_delta_place &at, struct fj_capture_grads *grads) {
    const fj_cuda_backward &a = args.call;
    const fj_real lse = static_cast<const fj_real *>(a.lse.data)[fj_offset(a.lse, at.b, at.h, at.q)];
    fj_real low = 0;
    if (a.lse_low.data)
        low = static_cast<const fj_real *>(a.lse_low.data)[fj_offset(a.lse_low, at.b, at.h, at.q)];
    struct fj_sink_head_state head;
    fj_sink_head_init(&mod, at.sequence, at.h, &head);
    const bool live = lse != -fj_real(INFINITY);
    const fj_real p = fj_exp((fj_sink(&mod, &head) - lse) - low);
    const fj_real adjoint = p * fj_delta_stats(a, at)[FJ_CUDA_ROW_MINUS_DELTA];
    fj_sink_grad(&mod, &head, live ? adjoint : fj_real(0), live, grads);
}
#endif

// Rows [first, end), a chunk or what is left of it, by one warp.
template <fj_grad_mode mode>
FJ_DEVICE void fj_rows_chunk(const fj_backward_args &args, const fj_mod_args &mod, int64_t first,
                             int64_t end) {
    fj_acc acc[FJ_CAPTURE_GRADS];
    struct fj_capture_grads grads;
#pragma unroll
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) {
        const int32_t bits = mode == FJ_GRAD_ADD ? fj_grad_run_bits(args.call.runs[i]) : 0;
        acc[i] = fj_grad_start(mode, &args.grads[i], args.grads[i].sums, bits);
    }
#pragma unroll
    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = &acc[i];
    grads.scalar = acc + FJ_CAPTURES;
#if FJ_HAS_OUT_GRADS
#pragma unroll 1
    for (int32_t c = static_cast<int32_t>(fj_lane()); c < FJ_VALUE_DIM; c += FJ_WARP) {
#pragma unroll 1
        for (int64_t row = first; row < end; row++) {
            const fj_delta_place at = fj_delta_place_of(args, row);
            const fj_out_place place = fj_out_place_of(mod, at.sequence, at.h, fj_row_position(args, at));
            (void)fj_out_gradient(args, mod, at, place, c, &grads);
        }
#pragma unroll
        for (int i = 0; i < FJ_CAPTURE_GRADS; i++) fj_grad_settle(acc[i]);
    }
#endif
#if FJ_HAS_SINK_GRADS
    const int64_t own = first + fj_lane();
    if (own < end) fj_sink_gradient(args, mod, fj_delta_place_of(args, own), &grads);
#endif
#pragma unroll
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) fj_grad_end(acc[i], args.call.runs + i);
}

template <fj_grad_mode mode> FJ_DEVICE void fj_rows_grads(const fj_backward_args &args) {
    const fj_cuda_backward &a = args.call;
    const fj_mod_args mod = fj_mod_of(args);
    const int64_t rows = fj_workspace_heads(a) * a.q_len;
    const int64_t warps = fj_block_threads() / FJ_WARP, all = warps * fj_grid_x();
#pragma unroll 1
    for (int64_t n = fj_block_x() * warps + fj_warp(); n * FJ_ROWS_CHUNK < rows; n += all) {
        const int64_t first = n * FJ_ROWS_CHUNK, end = first + FJ_ROWS_CHUNK;
        fj_rows_chunk<mode>(args, mod, first, end < rows ? end : rows);
    }
}

FJ_KERNEL(fj_bwd_rows, FJ_DELTA_THREADS, 1, fj_backward_args) {
    fj_rows_grads<FJ_DETERMINISTIC ? FJ_GRAD_LOOK : FJ_GRAD_FLOAT>(args);
}

#if FJ_DETERMINISTIC
FJ_KERNEL(fj_bwd_rows_add, FJ_DELTA_THREADS, 1, fj_backward_args) { fj_rows_grads<FJ_GRAD_ADD>(args); }
#endif

#endif

#endif
