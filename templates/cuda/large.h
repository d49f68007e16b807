// Large rows: those with scores so large that lse, even in two parts, cannot hold both the exact product of a score
// with the scale and the logarithm of a sum. Without a score mod scores are raw products (fwd_grid.h); of a large row
// they are multiplied with the scale, and rounded, before anything is subtracted from them. Then the greatest score is
// a real, and forward and backward kernels agree on it. Below, rounding would cost more than it saves.
#ifndef FJ_CUDA_LARGE_H
#define FJ_CUDA_LARGE_H

// 2 bits more than a real has: scores are at least 4 apart. As FJ_LARGE of the cpu's kernels (templates/cpu/tile.h).
#if FJ_REAL_F64
#define FJ_LARGE 18014398509481984.0
#else
#define FJ_LARGE 33554432.0f
#endif

FJ_DEVICE bool fj_is_large(fj_real natural) {
    const fj_real size = fj_abs(natural);
    return !FJ_HAS_SCORE && size >= FJ_LARGE && size <= FJ_MOST_REAL;
}

// What is subtracted from the scores of a row, and how: the difference is in units of the scores in either case.
struct fj_base {
    fj_real scale, base, back;
    FJ_METHOD fj_real operator()(fj_real score) const {
        return fj_mul_rn(fj_sub_rn(fj_mul_rn(score, scale), base), back);
    }
};
// natural: the base of a large row. scale_log2: makes logarithms of base 2 of scores.
FJ_DEVICE fj_base fj_large_base(fj_real natural, fj_real scale, fj_real scale_log2) {
    return fj_base{scale, natural, fj_div_rn(FJ_LOG2_E, scale_log2)};
}
FJ_DEVICE fj_base fj_plain_base(fj_real base) { return fj_base{fj_real(1), base, fj_real(1)}; }

#endif
