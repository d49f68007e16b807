// Where the gradients of captured tensors and run-time scalars are summed: what fj_scatter_f of the hooks does.
//
//      fj_bwd_kv                       fj_bwd_q                          fj_bwd_end
//      LOOK: total of |value|,   -->   ADD: pending real -> int64  -->   sums * 2^-k to the output
//      by warp; the greatest           in units of 2^-k, atomically
//
//  1. Sums of integers do not depend on their order: with FJ_DETERMINISTIC the result has the same bits always.
//     What is rounded first (pending: neighbours in a thread's own order that go to one element) is fixed too.
//  2. The unit follows from the data: no element's sum exceeds the number of warps times the greatest total of
//     |value| over a warp, so 2^61 units hold it. The unit is one for all of a tensor: about 2^-(62 - log2(warps)) of
//     the greatest total of a warp, whatever its magnitude (F32, F16, BF16: up to 8 times that; F64: up to 2 times).
//     So a typical element, one of 2^30, is still counted in 2^30 units; a value of less than a unit adds nothing.
//  3. A value that is not finite has no units: its element of the output becomes NaN at once (ADD; zeroed before), and stays
//     it. The others are not touched. Finite values whose total is not finite make all of that gradient NaN.
//  4. Without FJ_DETERMINISTIC: one pass, in fj_bwd_kv, floats, atomically (FLOAT).
//  5. An element is one word of 8 bytes. Its place is packed row-major, whatever the capture's strides.
//
// `mode` is a constant in each kernel: with everything inlined only its branch is left.
#ifndef FJ_CUDA_SINKS_H
#define FJ_CUDA_SINKS_H

enum fj_sink_mode { FJ_SINK_NONE, FJ_SINK_LOOK, FJ_SINK_ADD, FJ_SINK_FLOAT };

// ---- Units ---------------------------------------------------------------------------------------------

// The greatest total of a warp is kept as 32 bits that are ordered as totals are: of a double, the upper half. F64 needs
// all bits of the sums: it takes one more, and the nearest unit.
#if FJ_REAL_F64
#define FJ_SINK_FRACTION 20
#define FJ_SINK_BIAS 1023
#define FJ_SINK_BITS 62
FJ_DEVICE uint32_t fj_sink_bits(fj_real total) {
    return static_cast<uint32_t>(fj_bits_from_f64(total) >> 32);
}
FJ_DEVICE int64_t fj_sink_whole(fj_real units) { return fj_cast_i64(fj_round(units)); }
#else
#define FJ_SINK_FRACTION 23
#define FJ_SINK_BIAS 127
#define FJ_SINK_BITS 61
FJ_DEVICE uint32_t fj_sink_bits(fj_real total) { return fj_bits_from_f32(total); }
FJ_DEVICE int64_t fj_sink_whole(fj_real units) { return fj_cast_i64(units); }
#endif
FJ_DEVICE bool fj_sink_is_finite(uint32_t most) {
    return most < static_cast<uint32_t>(2 * FJ_SINK_BIAS + 1) << FJ_SINK_FRACTION;
}

// The exponent of 2 that makes units of one; but for F64 it is even, and one factor, taken twice, will do.
FJ_DEVICE int32_t fj_sink_exponent(uint32_t most, int64_t warps) {
    int32_t count = 1;
    while (count < 62 && static_cast<int64_t>(1) << count < warps) count++;
    // total < 2^exponent
    const int32_t exponent = static_cast<int32_t>(most >> FJ_SINK_FRACTION) - (FJ_SINK_BIAS - 1);
    const int32_t units = FJ_SINK_BITS - count - exponent;
    return FJ_REAL_F64 ? units : units - (units & 1);
}
FJ_DEVICE double fj_power_of_2(int32_t exponent) {
    return fj_f64_from_bits(static_cast<uint64_t>(exponent + 1023) << 52);
}

// ---- What a thread keeps -----------------------------------------------------------------------------------

// Of one gradient. The emitter calls it an accumulator.
struct fj_acc {
    enum fj_sink_mode mode;
    void *sums;
    fj_real total;        // LOOK: of |value|
    fj_real factor, rest; // ADD: units of one are the product, which may be beyond the reals
    int64_t at;           // the element of what is pending; -1: nothing is
    fj_real pending;
    int64_t whole; // ADD: units that are pending too
    const struct fj_cuda_sink *sink;
};

// units: the exponent of 2 that makes units of one.
FJ_DEVICE fj_acc fj_sink_start(enum fj_sink_mode mode, const struct fj_cuda_sink *sink, void *sums,
                               int32_t units) {
    const int32_t half = (units - (units & 1)) / 2;
    const fj_real factor = static_cast<fj_real>(fj_power_of_2(half));
    const fj_real rest = FJ_REAL_F64 ? static_cast<fj_real>(fj_power_of_2(units - half)) : factor;
    return fj_acc{mode, sums, 0, factor, rest, -1, 0, 0, sink};
}

// Pending reals become pending units: often enough that their sum stays short.
FJ_DEVICE void fj_sink_settle(fj_acc &acc) {
    if (acc.mode != FJ_SINK_ADD) return;
    acc.whole += fj_sink_whole(acc.pending * acc.factor * acc.rest);
    acc.pending = 0;
}

FJ_DEVICE void fj_sink_flush(fj_acc &acc) {
    if (acc.mode == FJ_SINK_NONE || acc.mode == FJ_SINK_LOOK || acc.at < 0) return;
    fj_sink_settle(acc);
    if (acc.mode == FJ_SINK_ADD) {
        if (acc.whole) fj_atomic_add(static_cast<int64_t *>(acc.sums) + acc.at, acc.whole);
    } else {
        fj_atomic_add(reinterpret_cast<fj_real *>(static_cast<int64_t *>(acc.sums) + acc.at), acc.pending);
    }
    acc.whole = 0;
    acc.pending = 0;
    acc.at = -1;
}

FJ_DEVICE void fj_sink_put(fj_acc &acc, int64_t at, fj_real value) {
    if (acc.mode == FJ_SINK_LOOK) {
        acc.total += value - value == 0 ? fj_abs(value) : fj_real(0);
        return;
    }
    if (acc.at != at) {
        fj_sink_flush(acc);
        acc.at = at;
    }
    acc.pending += value;
}

// NaN to the output, of rank 0 or at these indices, which are within the extents.
FJ_CALLED void fj_sink_mark(const struct fj_cuda_sink *sink, const struct fj_cuda_capture *t, int rank,
                            const fj_l *indices) {
    int64_t place = 0;
    for (int d = 0; d < rank; d++)
        place += (indices[d] < 0 ? indices[d] + t->shape[d] : indices[d]) * sink->stride[d];
    fj_atomic_add(static_cast<fj_real *>(sink->out) + place, fj_real(NAN));
}

FJ_DEVICE void fj_scatter_f(fj_acc *to, const struct fj_cuda_capture *t, int rank, const fj_l *indices,
                            fj_real value, bool live) {
    if (to->mode == FJ_SINK_NONE || !to->sums || !live) return;
    int64_t at = 0;
    bool inside = true;
    for (int d = 0; d < rank; d++) {
        const int64_t n = t->shape[d], i = indices[d] < 0 ? indices[d] + n : indices[d];
        inside &= static_cast<uint64_t>(i) < static_cast<uint64_t>(n);
        at = at * n + i;
    }
    if (!inside) return;
    if (to->mode == FJ_SINK_ADD && value - value != 0)
        fj_sink_mark(to->sink, t, rank, indices);
    else
        fj_sink_put(*to, at, value);
}

FJ_DEVICE void fj_scatter_scalar_f(fj_acc *to, fj_real value, bool live) {
    if (to->mode == FJ_SINK_NONE || !to->sums || !live) return;
    if (to->mode == FJ_SINK_ADD && value - value != 0)
        fj_sink_mark(to->sink, nullptr, 0, nullptr);
    else
        fj_sink_put(*to, 0, value);
}

// ---- Ends of a kernel: by whole warps --------------------------------------------------------------------

FJ_DEVICE void fj_sink_end_look(const fj_acc &acc, uint32_t *most) {
    fj_real total = acc.total;
    for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) total += fj_neighbour(total, lane);
    if (fj_lane() == 0 && acc.sums) fj_atomic_fetch_max(most, fj_sink_bits(total));
}

FJ_DEVICE int64_t fj_shuffle_xor_i64(int64_t x, uint32_t mask) {
    const uint64_t bits = static_cast<uint64_t>(x);
    const uint64_t high = fj_shuffle_xor(static_cast<uint32_t>(bits >> 32), mask);
    return static_cast<int64_t>(high << 32 | fj_shuffle_xor(static_cast<uint32_t>(bits), mask));
}

// Lanes that end with the same element, as all do with one for a head or a scalar, add it once.
FJ_DEVICE void fj_sink_end_add(fj_acc &acc) {
    fj_sink_settle(acc);
    const uint32_t low = static_cast<uint32_t>(acc.at), high = static_cast<uint32_t>(acc.at >> 32);
    const uint32_t first_low = fj_shuffle_index(low, 0u), first_high = fj_shuffle_index(high, 0u);
    if (fj_all(low == first_low && high == first_high)) {
        for (uint32_t lane = 1; lane < FJ_WARP; lane *= 2) acc.whole += fj_shuffle_xor_i64(acc.whole, lane);
        if (fj_lane() != 0) acc.at = -1;
    }
    fj_sink_flush(acc);
}

FJ_DEVICE void fj_sink_end(fj_acc &acc, uint32_t *most) {
    if (acc.mode == FJ_SINK_LOOK) fj_sink_end_look(acc, most);
    if (acc.mode == FJ_SINK_ADD) fj_sink_end_add(acc);
    if (acc.mode == FJ_SINK_FLOAT) fj_sink_flush(acc);
}

#endif
