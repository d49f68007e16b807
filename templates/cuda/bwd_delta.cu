// The first and the last kernels of a backward pass.
//
//      fj_bwd_out, fj_bwd_rows   bwd_rows.h
//      fj_bwd_delta    for each row of queries: fj_norm, -delta = dlse - rowsum(out dout), or dlse
//                      where fj_bwd_recompute subtracts the sum;
//                      zeros for what is added up atomically (capture_grads.h; dQ)
//      fj_bwd_end      those sums to the outputs, wherever their strides put them
//      fj_bwd_sum      dK and dV of keys that serve a batch: the parts of all batches, in their order
//
//  1. A warp makes a row: lanes take columns, a fixed tree of shuffles adds them. The order is part of the result.
//  2. Of bwd_mma with float32 elements, dout is what tensor cores take of it (tf32.h): what they leave out is missing in
//     dP of all keys alike, and would not cancel.
//  3. A row that sees nothing (lse = -inf) has +inf for lse and delta 0, whatever out and dout hold; one with a score
//     of +inf is NaN. With a sink it has an lse: its out is 0, and delta 0 then, whatever dout holds.
#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "bwd_grid.h"

#include "bwd_rows.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F16 || FJ_IN_DTYPE == FJ_DTYPE_BF16
#define FJ_DELTA_PAIRS 1
FJ_DEVICE float fj_pair_element(uint32_t pair, uint32_t half) {
    fj_element x;
    x.bits = static_cast<uint16_t>(half ? pair >> 16 : pair & 0xffffu);
    return fj_widen(x);
}
#else
#define FJ_DELTA_PAIRS 0
#endif

FJ_DEVICE fj_real fj_delta_dout(fj_element x) {
#ifdef FJ_CUDA_TF32_H
    return fj_split_value(x);
#else
    return fj_widen(x);
#endif
}

// This lane's part of rowsum(out dout).
FJ_DEVICE fj_real fj_delta_part(const fj_element *out, const fj_element *dout, [[maybe_unused]] bool vector) {
    fj_real sum = 0;
    int32_t from = 0;
#if FJ_DELTA_PAIRS
    if (vector) {
        from = FJ_VALUE_DIM / 2 * 2;
        for (int32_t i = static_cast<int32_t>(fj_lane()) * 2; i < from; i += 2 * FJ_WARP) {
            const uint32_t x = fj_load_b32<FJ_CACHE_STREAM>(out + i),
                           y = fj_load_b32<FJ_CACHE_READ_ONLY>(dout + i);
            sum = fj_fma_rn(fj_pair_element(x, 0), fj_pair_element(y, 0), sum);
            sum = fj_fma_rn(fj_pair_element(x, 1), fj_pair_element(y, 1), sum);
        }
    }
#endif
    for (int32_t i = from + static_cast<int32_t>(fj_lane()); i < FJ_VALUE_DIM; i += FJ_WARP)
        sum = fj_fma_rn(fj_widen(out[i]), fj_delta_dout(dout[i]), sum);
    return sum;
}

#if FJ_HAS_SINK
// Whether all of a row is 0, by the whole warp.
FJ_DEVICE bool fj_is_zero_row(const fj_element *row) {
    bool any = false;
    for (int32_t i = static_cast<int32_t>(fj_lane()); i < FJ_VALUE_DIM; i += FJ_WARP)
        any = any || fj_widen(row[i]) != 0;
    return !fj_any(any);
}
#endif

FJ_DEVICE void fj_delta_row(const fj_backward_args &args, int64_t number) {
    const fj_cuda_backward &a = args.call;
    const fj_delta_place at = fj_delta_place_of(args, number);
    const int32_t b = at.b, h = at.h, q = at.q;
    const uint32_t both = FJ_CUDA_VECTOR_OUT | FJ_CUDA_VECTOR_DOUT;
    fj_real sum = FJ_RECOMPUTES_DELTA
                    ? fj_real(0)
                    : fj_delta_part(fj_row_start(a.out, b, h, q), fj_row_start(a.dout, b, h, q),
                                    (a.vector & both) == both);
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) sum += fj_neighbour(sum, lane);
#if FJ_HAS_SINK
    if (fj_any(!(sum - sum == 0)) && fj_is_zero_row(fj_row_start(a.out, b, h, q))) sum = 0;
#endif
    if (fj_lane() != 0) return;
    const fj_real lse = static_cast<const fj_real *>(a.lse.data)[fj_offset(a.lse, b, h, q)];
    const bool none = lse == -fj_real(INFINITY);
    fj_real minus_delta = -sum;
    if (a.dlse.data) minus_delta += static_cast<const fj_real *>(a.dlse.data)[fj_offset(a.dlse, b, h, q)];
    fj_real low = 0;
    if (a.lse_low.data) low = static_cast<const fj_real *>(a.lse_low.data)[fj_offset(a.lse_low, b, h, q)];
    const fj_row_stats row_stats = fj_delta_stats(a, at);
    fj_put_norm(row_stats, fj_norm_of(a, lse, low));
    row_stats[FJ_CUDA_ROW_MINUS_DELTA] = none ? fj_real(0) : minus_delta;
    for (int which = 0; at.row % 2 == 0 && at.row + 1 == at.end && which < FJ_CUDA_ROW_REALS; which++)
        row_stats.of[2 * which + 1] = 0; // of the pair, none
}

#if FJ_ANY_GRADS
FJ_DEVICE int64_t fj_grad_place(const fj_backward_args &args, int grad, int64_t n) {
    int64_t place = 0;
#if FJ_CAPTURES
    for (int d = FJ_CUDA_MAX_RANK - 1; d >= 0 && grad < FJ_CAPTURES; d--) {
        const int64_t extent = args.captures[grad].shape[d];
        if (extent <= 1) continue; // past the rank as well
        place += n % extent * args.grads[grad].stride[d];
        n /= extent;
    }
#endif
    return place;
}
#endif

FJ_KERNEL(fj_bwd_delta, FJ_DELTA_THREADS, 1, fj_backward_args) {
    const fj_cuda_backward &a = args.call;
    const int64_t rows = fj_workspace_heads(a) * a.q_len;
    const int64_t warps = fj_block_threads() / FJ_WARP, all = warps * fj_grid_x();
    for (int64_t row = fj_block_x() * warps + fj_warp(); row < rows; row += all) fj_delta_row(args, row);
    [[maybe_unused]] const int64_t first =
        fj_block_x() * static_cast<int64_t>(fj_block_threads()) + fj_thread_x();
    [[maybe_unused]] const int64_t threads = all * FJ_WARP;
#if !FJ_DETERMINISTIC
    const int64_t sums = FJ_BWD_SUM_ROWS(fj_workspace_heads(a), a.workspace_rows) * FJ_HEAD_PAD;
    for (int64_t n = first; a.dquery_sums && n < sums; n += threads) a.dquery_sums[n] = 0;
#endif
#if FJ_ANY_GRADS
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) {
        const fj_cuda_capture_grad &grad = args.grads[i];
        int64_t *sums = static_cast<int64_t *>(grad.sums);
        const int64_t words = !sums ? 0 : FJ_DETERMINISTIC ? 2 * grad.count : grad.count;
        for (int64_t n = first; n < words; n += threads) sums[n] = 0;
        for (int64_t n = first; FJ_DETERMINISTIC && sums && n < grad.count; n += threads) {
            grad.most[n] = 0;
            static_cast<fj_real *>(grad.out)[fj_grad_place(args, i, n)] = 0; // for marks
        }
        if (FJ_DETERMINISTIC && first == 0) a.runs[i] = 0;
    }
#endif
}

#if FJ_ANY_GRADS
FJ_DEVICE fj_real fj_grad_value([[maybe_unused]] const fj_backward_args &args, int grad, int64_t n) {
    const int64_t *sums = static_cast<const int64_t *>(args.grads[grad].sums);
#if FJ_DETERMINISTIC
    return static_cast<fj_real>(fj_grad_sum(sums + 2 * n, args.grads[grad].most[n], args.call.runs[grad]));
#else
    return *reinterpret_cast<const fj_real *>(sums + n);
#endif
}

FJ_KERNEL(fj_bwd_end, FJ_DELTA_THREADS, 1, fj_backward_args) {
    const int64_t first = fj_block_x() * static_cast<int64_t>(fj_block_threads()) + fj_thread_x();
    const int64_t threads = static_cast<int64_t>(fj_block_threads()) * fj_grid_x();
    for (int i = 0; i < FJ_CAPTURE_GRADS; i++) {
        const fj_cuda_capture_grad &grad = args.grads[i];
        for (int64_t n = first; grad.sums && n < grad.count; n += threads) {
            fj_real *out = static_cast<fj_real *>(grad.out) + fj_grad_place(args, i, n);
            if (!FJ_DETERMINISTIC || *out == 0) *out = fj_grad_value(args, i, n);
        }
    }
}
#endif

#if FJ_SHARED_KEYS
FJ_DEVICE void fj_sum_batch(const fj_cuda_backward &a, const fj_cuda_tensor &parts, const fj_cuda_tensor &to,
                            int32_t dim) {
    const int64_t first = fj_block_x() * static_cast<int64_t>(fj_block_threads()) + fj_thread_x();
    const int64_t threads = static_cast<int64_t>(fj_block_threads()) * fj_grid_x();
    const int64_t count = static_cast<int64_t>(a.heads_kv) * a.kv_len * dim;
    for (int64_t n = first; to.data && n < count; n += threads) {
        const int64_t row = n / dim;
        const int32_t kv = static_cast<int32_t>(row % a.kv_len), h = static_cast<int32_t>(row / a.kv_len);
        fj_real sum = 0;
        for (int32_t b = 0; b < a.batch; b++) sum += fj_widen(fj_row_start(parts, b, h, kv)[n % dim]);
        (static_cast<fj_element *>(to.data) + fj_offset(to, 0, h, kv))[n % dim] = fj_narrow(sum);
    }
}
FJ_KERNEL(fj_bwd_sum, FJ_DELTA_THREADS, 1, fj_backward_args) {
    fj_sum_batch(args.call, args.call.dkey, args.shared.dkey, FJ_HEAD_DIM);
    fj_sum_batch(args.call, args.call.dvalue, args.shared.dvalue, FJ_VALUE_DIM);
}
#endif
