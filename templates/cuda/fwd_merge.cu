// Splits of the keys of a row, merged: what follows a forward kernel with FJ_PARTIAL, in the same module.
//
//      split 0    out_0, lse_0             M = max lse_s         w_s = exp(lse_s - M), lse in two parts
//      split 1    out_1, lse_1   -->       out = sum(w_s out_s) / sum(w_s)
//        ...                               lse = M + log(sum(w_s))           max = max max_s
//
//  1. A warp makes a row. Splits are added in their order, whatever the grid: the same bits always.
//  2. A split that saw nothing of the row has lse = -inf: its weight is 0, and its output is 0, or NaN where it saw NaN
//     with a weight of 0. If all have, M is subtracted as 0: out = 0, lse = -inf.
//  3. A sink joins the sum here, once; the output's hook is called here, once.
//  4. NaN in a split's lse makes the row NaN.
//  5. Packed sequences: rows of all of them are one batch of tensors; b is found for the mods of the sink and the output.
#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "fwd_grid.h"

#include "elements.h"

#define FJ_MERGE_THREADS 128
#define FJ_MERGE_COLUMNS FJ_CEIL_DIV(FJ_VALUE_DIM, FJ_WARP) // of a lane

struct fj_merge_args {
    struct fj_cuda_merge call;
#if FJ_BLOCK_MASK
    struct fj_cuda_block_mask blocks;
#endif
#if FJ_SEQUENCES
    struct fj_cuda_sequences sequences;
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
};

// A row of the parts, of split 0.
FJ_DEVICE const fj_real *fj_part(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t q) {
    return static_cast<const fj_real *>(t.data) + fj_offset(t, b, h, q);
}

// lse of the splits of a row, in two parts; low may be NULL.
struct fj_split_lse {
    const fj_real *high, *low;
    int64_t stride;
    FJ_METHOD fj_parts at(int32_t s) const {
        return fj_parts{high[s * stride], low ? low[s * stride] : fj_real(0)};
    }
};

// The weight of a split; base: M, or 0 in its place. Differences first: lse may be large.
FJ_DEVICE fj_real fj_split_weight(const fj_parts &lse, const fj_parts &base) {
    return fj_exp2(((lse.high - base.high) + (lse.low - base.low)) * FJ_LOG2_E);
}

// Of all splits; lanes take them in turn. NaN is the greatest.
FJ_DEVICE fj_real fj_greater(fj_real a, fj_real b) { return b > a || b != b ? b : a; }
FJ_DEVICE fj_real fj_greatest(const fj_real *part, int64_t stride, int32_t splits) {
    fj_real most = -fj_real(INFINITY);
    for (int32_t s = static_cast<int32_t>(fj_lane()); s < splits; s += FJ_WARP)
        most = fj_greater(most, part[s * stride]);
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) most = fj_greater(most, fj_neighbour(most, lane));
    return most;
}
// The lesser part of M: the greatest one among those of the greatest lse.
FJ_DEVICE fj_real fj_greatest_low(const fj_split_lse &lse, int32_t splits, fj_real high) {
    fj_real most = -fj_real(INFINITY);
    for (int32_t s = static_cast<int32_t>(fj_lane()); s < splits; s += FJ_WARP)
        if (lse.at(s).high == high) most = fj_greater(most, lse.at(s).low);
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) most = fj_greater(most, fj_neighbour(most, lane));
    return most;
}
FJ_DEVICE fj_real fj_weight_sum(const fj_split_lse &lse, int32_t splits, const fj_parts &base) {
    fj_real sum = 0;
    for (int32_t s = static_cast<int32_t>(fj_lane()); s < splits; s += FJ_WARP)
        sum += fj_split_weight(lse.at(s), base);
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) sum += fj_neighbour(sum, lane);
    return sum;
}

FJ_DEVICE void fj_merge_outputs(const fj_cuda_merge &a, const fj_split_lse &lse, const fj_real *part,
                                const fj_parts &base, fj_real (&sums)[FJ_MERGE_COLUMNS]) {
#pragma unroll
    for (int j = 0; j < FJ_MERGE_COLUMNS; j++) sums[j] = 0;
    for (int32_t s = 0; s < a.splits; s++) {
        const fj_real weight = fj_split_weight(lse.at(s), base);
#pragma unroll
        for (int j = 0; j < FJ_MERGE_COLUMNS; j++) {
            const int32_t column = static_cast<int32_t>(fj_lane()) + j * FJ_WARP;
            if (column < FJ_VALUE_DIM) sums[j] = fj_fma_rn(weight, part[s * a.split_out + column], sums[j]);
        }
    }
}

#if FJ_PACKED
// The sequence of a row of all: the last one that begins at it or before, of those that have rows.
FJ_DEVICE int32_t fj_sequence_of(const int32_t *cu, int32_t batch, int32_t row) {
    int32_t from = 0, to = batch - 1;
    while (from < to) {
        const int32_t middle = from + (to - from + 1) / 2;
        if (cu[middle] <= row)
            from = middle;
        else
            to = middle - 1;
    }
    return from;
}
#endif

// Packed, q is a row of all sequences: their tensors have one batch.
FJ_DEVICE void fj_merge_row(const fj_merge_args &args, const fj_mod_args &mod, int64_t number) {
    const fj_cuda_merge &a = args.call;
    const int32_t q = static_cast<int32_t>(number % a.q_len), column = static_cast<int32_t>(number / a.q_len);
#if FJ_PACKED
    const int32_t b = fj_sequence_of(args.sequences.cu_q, a.batch, q), h = column;
#else
    const int32_t b = column / a.heads_q, h = column % a.heads_q;
#endif
    const fj_split_lse lse = {fj_part(a.part_lse, b, h, q),
                              a.part_low.data ? fj_part(a.part_low, b, h, q) : nullptr, a.split_lse};
    const fj_real most = fj_greatest(lse.high, a.split_lse, a.splits);
    const bool finite = fj_abs(most) < fj_real(INFINITY);
    const fj_parts base = {most == -fj_real(INFINITY) ? fj_real(0) : most,
                           finite ? fj_greatest_low(lse, a.splits, most) : fj_real(0)};
    const fj_row_end end = fj_end_row<true>(mod, b, h, base, fj_weight_sum(lse, a.splits, base));
    if (fj_lane() == 0) fj_store_lse(a.lse, a.lse_low, end, b, h, q, 0);
    if (fj_lane() == 0) fj_look_at_sink(a, mod, b, h);
#if FJ_WANT_MAX
    const fj_real max = fj_greatest(fj_part(a.part_max, b, h, q), a.split_lse, a.splits);
    if (fj_lane() == 0 && a.max.data) static_cast<fj_real *>(a.max.data)[fj_offset(a.max, b, h, q)] = max;
#endif
#if FJ_HAS_OUT
    int32_t q_position = fj_q_position(a, b, q);
#if FJ_PACKED
    q_position -= args.sequences.cu_q[b];
#endif
#if FJ_SEQUENCES
    if (args.sequences.q_offset) q_position += args.sequences.q_offset[b];
#endif
    const fj_out_place place = fj_out_place_of(mod, b, h, q_position);
    const fj_cuda_tensor &raw = args.epilogue.raw;
    fj_element *raw_row = raw.data ? static_cast<fj_element *>(raw.data) + fj_offset(raw, b, h, q) : nullptr;
#endif
    fj_real sums[FJ_MERGE_COLUMNS];
    fj_merge_outputs(a, lse, fj_part(a.part_out, b, h, q), base, sums);
    fj_element *out =
        a.out.data ? static_cast<fj_element *>(a.out.data) + fj_offset(a.out, b, h, q) : nullptr;
#pragma unroll
    for (int j = 0; j < FJ_MERGE_COLUMNS; j++) {
        const int32_t c = static_cast<int32_t>(fj_lane()) + j * FJ_WARP;
        fj_real x = end.dead ? fj_real(0) : sums[j] * end.factor;
#if FJ_HAS_OUT
        if (c < FJ_VALUE_DIM && out) fj_look_at_out(a, mod, place, b, h, q_position, c, x);
        if (c < FJ_VALUE_DIM && raw_row) raw_row[c] = fj_narrow(x);
        x = fj_out_of(mod, place, c, x);
#endif
        if (c < FJ_VALUE_DIM && out) out[c] = fj_narrow(x);
    }
}

FJ_KERNEL(fj_fwd_merge, FJ_MERGE_THREADS, 1, fj_merge_args) {
    const fj_cuda_merge &a = args.call;
    const fj_mod_args mod = fj_mod_of(args);
    const int64_t rows = static_cast<int64_t>(FJ_PACKED ? 1 : a.batch) * a.heads_q * a.q_len;
    const int64_t warps = fj_block_threads() / FJ_WARP;
    for (int64_t row = fj_block_x() * warps + fj_warp(); row < rows; row += warps * fj_grid_x())
        fj_merge_row(args, mod, row);
}
