// Where the gradients of captured tensors and run-time scalars are summed: what fj_scatter_f of the hooks does.
//
//      fj_bwd_kv                         fj_bwd_q                               fj_bwd_end
//      LOOK: of each element the     --> ADD: pending real -> units of an   --> (whole + left * 2^-bits) * 2^-k
//      greatest total of |value|         element and what is left of them,      to the output
//      of a run; how many runs           two int64, atomically
//
//  1. A run is what goes to one element, one after the other in a thread's own order: pending. At its end it leaves the
//     thread, with an atomic.
//  2. Sums of integers do not depend on their order: with FJ_DETERMINISTIC the result has the same bits always.
//     What is rounded first (pending) is fixed too, and so is what a pending real becomes.
//  3. The unit, 2^-k, is an element's own: no element's sum exceeds the number of runs (of all of the tensor) times the
//     greatest total of one of its own, so 2^61 units hold it, and of each run 2^bits. What rounding to units leaves is
//     counted too, 2^bits to a unit. So beside a run of 1 another one is counted down to 2^(-2 bits), about, where bits
//     is 61 - log2(runs), whatever other elements hold: with 2^20 runs, 2^-82; with 2^34, which are all scores of 64
//     heads at 16k keys, 2^-54.
//  4. LOOK and ADD see the same values, except for rounding. Where a value is nothing but that, LOOK may promise less
//     than ADD brings: then the sum is anything within four times what was promised, no more wrong than rounding made
//     it.
//  5. A value that is not finite has no units: its element of the output becomes NaN at once (ADD; zeroed before), and
//     stays it. The others are not touched. Finite values may have any sum: pending that would pass the reals ends
//     first.
//  6. Without FJ_DETERMINISTIC: one pass, in fj_bwd_kv, floats, atomically (FLOAT).
//  7. An element is two words of 8 bytes, and one of 4 for LOOK; FLOAT: one of 8. Its place is packed row-major,
//     whatever the capture's strides.
//
// `mode` is a constant in each kernel: with everything inlined only its branch is left.
#ifndef FJ_CUDA_CAPTURE_GRADS_H
#define FJ_CUDA_CAPTURE_GRADS_H

#include "hooks.h"

enum fj_grad_mode { FJ_GRAD_NONE, FJ_GRAD_LOOK, FJ_GRAD_ADD, FJ_GRAD_FLOAT };

// ---- Units ---------------------------------------------------------------------------------------------

#if FJ_REAL_F64
#define FJ_GRAD_BIAS 1023
FJ_DEVICE uint32_t fj_grad_size(fj_real total) {
    return static_cast<uint32_t>(fj_bits_from_f64(total) >> 52);
}
FJ_DEVICE fj_real fj_grad_power(int32_t exponent) {
    return fj_f64_from_bits(static_cast<uint64_t>(exponent + 1023) << 52);
}
#else
#define FJ_GRAD_BIAS 127
// The exponent's field: totals of the same power of 2 have one size.
FJ_DEVICE uint32_t fj_grad_size(fj_real total) { return fj_bits_from_f32(total) >> 23; }
FJ_DEVICE fj_real fj_grad_power(int32_t exponent) {
    return fj_f32_from_bits(static_cast<uint32_t>(exponent + 127) << 23);
}
#endif
FJ_DEVICE double fj_power_of_2(int32_t exponent) {
    return fj_f64_from_bits(static_cast<uint64_t>(exponent + 1023) << 52);
}

// The exponent of 2 that makes units of a run.
FJ_DEVICE int32_t fj_grad_run_bits(int64_t runs) {
    int32_t count = 0;
    while (count < 60 && static_cast<int64_t>(1) << count < runs) count++;
    return 61 - count;
}
// The exponent of 2 that makes units of one, k; even, so that one factor, taken twice, will do. A total is less than
// 2^(size - bias + 1).
FJ_DEVICE int32_t fj_grad_exponent(uint32_t size, int32_t bits) {
    const int32_t units = bits + FJ_GRAD_BIAS - 1 - static_cast<int32_t>(size);
    return units - (units & 1);
}

// ---- What a thread keeps -----------------------------------------------------------------------------------

// Of one gradient. The emitter calls it an accumulator.
struct fj_acc {
    enum fj_grad_mode mode;
    void *sums;
    const struct fj_cuda_capture_grad *grad;
    int64_t at;          // the element of the run; -1: there is none
    fj_real pending;     // LOOK: of |value|
    uint32_t size;       // of the element: LOOK: that is known already; ADD: that LOOK found
    fj_real total;       // LOOK: of the run, except for pending
    int64_t runs;        // LOOK: that have ended
    int32_t bits;        // ADD: of a run
    int64_t whole, left; // ADD: units that are pending too
};

FJ_DEVICE fj_acc fj_grad_start(enum fj_grad_mode mode, const struct fj_cuda_capture_grad *grad, void *sums,
                               int32_t bits) {
    return fj_acc{mode, sums, grad, -1, 0, 0, 0, 0, bits, 0, 0};
}

FJ_DEVICE bool fj_grad_is_finite(fj_real x) { return x - x == 0; }

// LOOK: the end of a run, or of as much of it as the reals hold: of two that add up to infinity, 2^(size + 1) says
// enough.
FJ_DEVICE void fj_grad_raise(fj_acc &acc) {
    if (acc.total == 0) return;
    const uint32_t size = fj_grad_size(acc.total);
    if (size > acc.size) fj_atomic_fetch_max(acc.grad->most + acc.at, size);
    acc.runs++;
    acc.total = 0;
}

// A real to units: no pending real is split in two ways.
FJ_DEVICE void fj_grad_count(fj_acc &acc) {
    const fj_real factor = fj_grad_power(fj_grad_exponent(acc.size, acc.bits) / 2);
    const fj_real units = acc.pending * factor * factor, whole = fj_round(units), left = units - whole;
    const fj_real limit = fj_grad_power(62); // of (4)
    acc.whole += static_cast<int64_t>(whole > limit ? limit : whole < -limit ? -limit : whole);
    if (fj_abs(left) > 0) acc.left += static_cast<int64_t>(fj_round(left * fj_grad_power(acc.bits)));
}

// Pending reals become a part of the total, or units: often enough that their sum stays short.
FJ_DEVICE void fj_grad_settle(fj_acc &acc) {
    if (acc.mode != FJ_GRAD_LOOK && acc.mode != FJ_GRAD_ADD) return;
    if (acc.mode == FJ_GRAD_LOOK) {
        acc.total += acc.pending;
        if (!fj_grad_is_finite(acc.total)) fj_grad_raise(acc);
    } else {
        fj_grad_count(acc);
    }
    acc.pending = 0;
}

FJ_DEVICE void fj_grad_flush(fj_acc &acc) {
    if (acc.mode == FJ_GRAD_NONE || acc.at < 0) return;
    if (acc.mode == FJ_GRAD_LOOK) {
        acc.total += acc.pending;
        fj_grad_raise(acc);
    }
    if (acc.mode == FJ_GRAD_ADD) {
        fj_grad_count(acc);
        int64_t *const to = static_cast<int64_t *>(acc.sums) + 2 * acc.at;
        if (acc.whole) fj_atomic_add(to, acc.whole);
        if (acc.left) fj_atomic_add(to + 1, acc.left);
    }
    if (acc.mode == FJ_GRAD_FLOAT)
        fj_atomic_add(reinterpret_cast<fj_real *>(static_cast<int64_t *>(acc.sums) + acc.at), acc.pending);
    acc.whole = acc.left = 0;
    acc.pending = 0;
    acc.at = -1;
}

// The element's size is asked for when its run begins: it is needed when the run ends.
FJ_DEVICE void fj_grad_begin(fj_acc &acc, int64_t at) {
    fj_grad_flush(acc);
    acc.at = at;
    if (acc.mode == FJ_GRAD_LOOK) acc.size = fj_load_relaxed_u32(acc.grad->most + at); // others raise it
    if (acc.mode == FJ_GRAD_ADD) acc.size = acc.grad->most[at];
}

// False: the value is not finite, and has to be marked.
FJ_DEVICE bool fj_grad_put(fj_acc &acc, int64_t at, fj_real value) {
    const bool floats = acc.mode == FJ_GRAD_FLOAT;
    if (acc.mode == FJ_GRAD_LOOK) value = fj_abs(value);
    fj_real sum = acc.pending + value;
    if (acc.at != at || !(floats || fj_grad_is_finite(sum))) {
        fj_grad_begin(acc, at);
        sum = value;
        if (!floats && !fj_grad_is_finite(value)) return acc.mode == FJ_GRAD_LOOK;
    }
    acc.pending = sum;
    return true;
}

// NaN to the output, of rank 0 or at this element of those of the tensor, packed. Not at its indices: an array would
// have to lie in memory for the call, at every score.
FJ_CALLED void fj_grad_mark(const struct fj_cuda_capture_grad *grad, const struct fj_cuda_capture *t,
                            int rank, int64_t at) {
    int64_t place = 0;
    for (int d = rank - 1; d >= 0; d--) {
        place += at % t->shape[d] * grad->stride[d];
        at /= t->shape[d];
    }
    fj_atomic_add(static_cast<fj_real *>(grad->out) + place, fj_real(NAN));
}

FJ_DEVICE void fj_scatter_f(fj_acc *to, const struct fj_cuda_capture *t, int rank, const fj_l *indices,
                            fj_real value, bool live) {
    if (to->mode == FJ_GRAD_NONE || !to->sums || !live) return;
    int64_t at = 0;
    bool inside = true;
    for (int d = 0; d < rank; d++) {
        const int64_t n = t->shape[d], i = indices[d] < 0 ? indices[d] + n : indices[d];
        inside &= static_cast<uint64_t>(i) < static_cast<uint64_t>(n);
        at = at * n + i;
    }
    if (!inside) return;
    if (!fj_grad_put(*to, at, value)) fj_grad_mark(to->grad, t, rank, at);
}

FJ_DEVICE void fj_scatter_scalar_f(fj_acc *to, fj_real value, bool live) {
    if (to->mode == FJ_GRAD_NONE || !to->sums || !live) return;
    if (!fj_grad_put(*to, 0, value)) fj_grad_mark(to->grad, nullptr, 0, 0);
}

// ---- Ends of a kernel: by whole warps --------------------------------------------------------------------

// Lanes that end with the same element, as all do with one for a head or a scalar, have one run.
FJ_DEVICE bool fj_grad_is_shared(const fj_acc &acc) {
    const uint32_t low = static_cast<uint32_t>(acc.at), high = static_cast<uint32_t>(acc.at >> 32);
    const uint32_t first_low = fj_shuffle_index(low, 0u), first_high = fj_shuffle_index(high, 0u);
    return fj_all(low == first_low && high == first_high);
}

FJ_DEVICE int64_t fj_shuffle_xor_i64(int64_t x, uint32_t mask) {
    const uint64_t bits = static_cast<uint64_t>(x);
    const uint64_t high = fj_shuffle_xor(static_cast<uint32_t>(bits >> 32), mask);
    return static_cast<int64_t>(high << 32 | fj_shuffle_xor(static_cast<uint32_t>(bits), mask));
}
FJ_DEVICE int64_t fj_sum_of_warp(int64_t x) {
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) x += fj_shuffle_xor_i64(x, lane);
    return x;
}

FJ_DEVICE void fj_grad_end_look(fj_acc &acc, int64_t *runs) {
    fj_grad_settle(acc);
    fj_real total = acc.total;
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) total += fj_neighbour(total, lane);
    if (fj_grad_is_shared(acc) && fj_grad_is_finite(total)) acc.total = fj_lane() == 0 ? total : fj_real(0);
    fj_grad_flush(acc);
    const int64_t all = fj_sum_of_warp(acc.runs);
    if (fj_lane() == 0 && all) fj_atomic_add(runs, all);
}

FJ_DEVICE void fj_grad_end_add(fj_acc &acc) {
    fj_grad_settle(acc);
    if (fj_grad_is_shared(acc)) {
        acc.whole = fj_sum_of_warp(acc.whole);
        acc.left = fj_sum_of_warp(acc.left);
        if (fj_lane() != 0) acc.at = -1;
    }
    fj_grad_flush(acc);
}

FJ_DEVICE void fj_grad_end(fj_acc &acc, int64_t *runs) {
    if (acc.mode == FJ_GRAD_LOOK) fj_grad_end_look(acc, runs);
    if (acc.mode == FJ_GRAD_ADD) fj_grad_end_add(acc);
    if (acc.mode == FJ_GRAD_FLOAT) fj_grad_flush(acc);
}

// What an element's words are. Of a whole that double has no room for, the low digits come to what is left.
FJ_DEVICE double fj_grad_sum(const int64_t words[2], uint32_t size, int64_t runs) {
    const int32_t bits = fj_grad_run_bits(runs), down = -fj_grad_exponent(size, bits), half = down / 2;
    const double high = static_cast<double>(words[0]);
    const double rest = static_cast<double>(words[0] - static_cast<int64_t>(high)) +
                        static_cast<double>(words[1]) * fj_power_of_2(-bits);
    return (high + rest) * fj_power_of_2(half) * fj_power_of_2(down - half);
}

#endif
