// Products of float32 elements on tensor cores of TF32.
//
//      x = high + low + rest       high = tf32(x), low = tf32(x - high), |rest| <= 2^-23 |x|
//      x y ~ low high' + high low' + high high'         what is left out is 2^-22 of it
//
// 1. So a sum is as exact as one in float32 (products are exact, sums are kept in float32), at three products.
//    With FJ_TF32 the last alone: 10 bits of mantissa.
// 2. An infinite x has low = NaN, and so have finite ones that round to infinity: products with them are NaN, also
//    where a score is -inf and its key seen, but of no weight. A bound on high would repair that at a third more
//    instructions of the ALU, which limits backward (./dev bench sass). So scores are looked at, by one FMA each, which
//    has a pipe of its own, and those that are not finite made again without a split.
// 3. Forward and backward make the same scores, to the bit: P is an exponential of their difference from what forward
//    left. So the order of sums is part of the result: steps of the depth ascend, in each the low part of the query
//    comes first, then that of the key. Backward kernels have either of them for A.
#ifndef FJ_CUDA_TF32_H
#define FJ_CUDA_TF32_H

#include "tile_mma.h"

// Without the last bit: high and low are all of it.
FJ_DEVICE float fj_even(float x) { return FJ_TF32 ? x : fj_f32_from_bits(fj_bits_from_f32(x) & ~1u); }

template <int count> struct fj_split {
    uint32_t high[count], low[count];
    FJ_METHOD void set(int i, float x) {
        high[i] = fj_tf32_from_f32(x);
        if (FJ_TF32) return;
        low[i] = fj_tf32_from_f32(fj_sub_rn(x, fj_f32_from_bits(high[i])));
    }
    // Of fj_even: low needs no rounding.
    FJ_METHOD void set_even(int i, float x) {
        high[i] = fj_tf32_from_f32(x);
        if (!FJ_TF32) low[i] = fj_bits_from_f32(fj_sub_rn(x, fj_f32_from_bits(high[i])));
    }
    FJ_METHOD void set_bits(int i, uint32_t bits) { set(i, fj_f32_from_bits(bits)); }
};

// What is left of an element.
FJ_DEVICE float fj_split_value(float x) {
    fj_split<1> split;
    split.set(0, x);
    return FJ_TF32 ? x : fj_add_rn(fj_f32_from_bits(split.high[0]), fj_f32_from_bits(split.low[0]));
}

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

// The same with all four products, the least first: the rounding of low alone is left out. c has begun at 0.
FJ_DEVICE void fj_mma_f32_whole(float (&c)[4], const fj_split<4> &a, const fj_split<4> &b, int at) {
    if (!FJ_TF32) fj_mma_m16n8k8_tf32(c, a.low, b.low[at], b.low[at + 1]);
    fj_mma_f32(c, a, b, at);
}

// Element (row, column) of a tile: a plain load, there is no transposing one for 32 bits.
template <int columns> FJ_DEVICE float fj_tile_element(uint32_t tile, uint32_t row, uint32_t column) {
    const uint32_t byte = fj_tile<columns>::at(row, column / 4) + column % 4 * 4;
    return *fj_shared_at<float>(tile - fj_shared_address(fj_shared()) + byte);
}

// Point 2. s: products of a's rows, from `row`, with those of b, from `column`; by the warp together. An iteration of
// the loop repairs the first tile of each row of tiles and moves it behind the others, so that registers have constant
// numbers.
template <int depth, int rows, int tiles>
FJ_DEVICE void fj_repair_products(float (&s)[rows][tiles][4], uint32_t a, uint32_t row, uint32_t b,
                                  uint32_t column) {
    float none = 0; // NaN with the first that is not finite
#pragma unroll
    for (int n = 0; n < rows * tiles * 4; n++)
        none = fj_fma_rn(s[n / 4 / tiles][n / 4 % tiles][n % 4], 0.0f, none);
    if (FJ_TF32 || !fj_any(none != 0)) return;
    row += fj_lane() / 4;
    column += fj_lane() % 4 * 2;
#pragma unroll 1
    for (int j = 0; j < tiles; j++) {
#pragma unroll
        for (uint32_t n = 0; n < rows * 4; n++) {
            float &x = s[n / 4][0][n % 4];
            if (x - x == 0) continue;
            x = 0;
#pragma unroll 1
            for (uint32_t e = 0; e < depth; e++)
                x = fj_fma_rn(fj_tile_element<depth>(a, row + n / 2 * 8, e),
                              fj_tile_element<depth>(b, column + n % 2, e), x);
        }
        fj_rotate_tiles<1>(s);
        column += 8;
    }
}

#endif
