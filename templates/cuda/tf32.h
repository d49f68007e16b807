// Products of float32 elements on tensor cores of TF32.
//
//      x = high + low + rest       high = tf32(x), low = tf32(x - high), |rest| <= 2^-23 |x|
//      x y ~ low high' + high low' + high high'         what is left out is 2^-22 of it
//
// 1. So a sum is as exact as one in float32 (products are exact, sums are kept in float32), at three products.
//    With FJ_TF32 the last alone: 10 bits of mantissa.
// 2. An infinite x has low = NaN: products with it are NaN, also where they would be infinite. A bound on high would mend
//    that, at a third more instructions of the ALU, which limits backward (./dev bench sass).
// 3. Forward and backward make the same scores, to the bit: P is an exponential of their difference from what forward
//    left. So the order of sums is part of the result: steps of the depth ascend, in each the low part of the query
//    comes first, then that of the key. Backward kernels have either of them for A.
#ifndef FJ_CUDA_TF32_H
#define FJ_CUDA_TF32_H

#ifndef FJ_TF32
#define FJ_TF32 0
#endif

template <int count> struct fj_split {
    uint32_t high[count], low[count];
    FJ_METHOD void set(int i, float x) {
        high[i] = fj_tf32_from_f32(x);
        if (FJ_TF32) return;
        low[i] = fj_tf32_from_f32(fj_sub_rn(x, fj_f32_from_bits(high[i])));
    }
    FJ_METHOD void set_bits(int i, uint32_t bits) { set(i, fj_f32_from_bits(bits)); }
};

// c += a times b, of which at and at + 1 are taken. query_is_b: point 3.
template <bool query_is_b = false>
FJ_DEVICE void fj_mma_f32(float (&c)[4], const fj_split<4> &a, const fj_split<4> &b, int at) {
    if (!FJ_TF32) {
        if (query_is_b) fj_mma_m16n8k8_tf32(c, a.high, b.low[at], b.low[at + 1]);
        fj_mma_m16n8k8_tf32(c, a.low, b.high[at], b.high[at + 1]);
        if (!query_is_b) fj_mma_m16n8k8_tf32(c, a.high, b.low[at], b.low[at + 1]);
    }
    fj_mma_m16n8k8_tf32(c, a.high, b.high[at], b.high[at + 1]);
}

// Element (row, column) of a tile: a plain load, there is no transposing one for 32 bits.
template <int columns> FJ_DEVICE float fj_tile_element(uint32_t tile, uint32_t row, uint32_t column) {
    const uint32_t byte = fj_tile<columns>::at(row, column / 4) + column % 4 * 4;
    return *fj_shared_at<float>(tile - fj_shared_address(fj_shared()) + byte);
}

#endif
