// What softmax is made of, forward and backward: P = exp2(scale_log2 (score - base)), base near the row's maximum in
// the forward kernels, and the row's lse in the backward ones, which make the same P of the same scores.
//
//  1. Stored scores are raw products without a score mod, and natural logarithms with one: scale_log2 makes logarithms
//     of base 2 of either. The difference comes first where it is not one fused operation.
//  2. lse is kept in two parts (abi.h): scores near each other have the same difference wherever they are.
//  3. Large rows: those with scores so large that lse, even in two parts, cannot hold both the exact product of a score
//     with the scale and the logarithm of a sum. There raw products are multiplied with the scale, and rounded, before
//     anything is subtracted from them. Then the greatest score is a real, and forward and backward kernels agree on
//     it. Below, rounding would cost more than it saves.
#ifndef FJ_CUDA_SOFTMAX_H
#define FJ_CUDA_SOFTMAX_H

#include "hooks.h"

#include "identity.h"

#include "elements.h"

#include "epilogue.h"

#if FJ_REAL_F64
FJ_DEVICE fj_real fj_prob_exp2(fj_real x) { return fj_exp2(x); }
#else
FJ_DEVICE fj_real fj_prob_exp2(fj_real x) { return fj_ex2_approx(x); }
#endif

// ---- Large rows -----------------------------------------------------------------------------------------------

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

// ---- Forward: the base follows the maximum ------------------------------------------------------------------

// Stored scores are raw products without a score mod, signed so that their scale is not negative, and natural
// logarithms with one. This makes the former of the latter.
FJ_DEVICE fj_real fj_natural_scale(const fj_cuda_forward &a) {
    if (FJ_HAS_SCORE) return fj_real(1);
    const fj_real scale = static_cast<fj_real>(a.scale);
    return scale < 0 ? -scale : scale;
}
// And this makes logarithms of base 2.
FJ_DEVICE fj_real fj_scale_log2_of(const fj_cuda_forward &a) {
    const fj_real scale_log2 = fj_natural_scale(a) * FJ_LOG2_E;
    return scale_log2 > FJ_MOST_REAL ? FJ_MOST_REAL : scale_log2 > 0 ? scale_log2 : fj_real(1);
}
// True is a proof: without the arithmetic of doubles, which is slow on most GPUs.
FJ_DEVICE bool fj_is_positive(double x) { return static_cast<int32_t>(fj_bits_from_f64(x) >> 32) > 0; }
// Raw products are stored times this: 0 where the scale is, except for NaN and infinities.
FJ_DEVICE fj_real fj_sign_of(double scale) { return scale < 0 ? fj_real(-1) : fj_cast_float(scale > 0); }

// What is subtracted from the scores of a row with this greatest one.
FJ_DEVICE fj_base fj_base_of(const fj_cuda_forward &a, fj_real scale_log2, fj_real row_max) {
    const fj_real scale = fj_natural_scale(a), natural = fj_mul_rn(row_max, scale);
    return fj_is_large(natural) ? fj_large_base(natural, scale, scale_log2) : fj_plain_base(row_max);
}

// high + low, the second less than the rounding of the first.
struct fj_parts {
    fj_real high, low;
};
FJ_DEVICE fj_parts fj_exact_sum(fj_real a, fj_real b) {
    const fj_real sum = a + b, rest = sum - a;
    return fj_parts{sum, (a - (sum - rest)) + (b - rest)};
}
FJ_DEVICE fj_parts fj_exact_product(fj_real a, const fj_parts &b) {
    const fj_real product = fj_mul_rn(a, b.high);
    return fj_parts{product, fj_fma_rn(a, b.low, fj_fma_rn(a, b.high, -product))};
}
// A row's greatest score as a natural one.
FJ_DEVICE fj_parts fj_natural_max(const fj_cuda_forward &a, fj_real row_max) {
    const fj_parts exact = fj_exact_product(row_max, fj_parts{fj_natural_scale(a), fj_real(0)});
    return fj_parts{exact.high, fj_is_large(exact.high) ? fj_real(0) : exact.low};
}
// fj_scale_log2_of in natural logarithms, nearer than a real: scores near each other then have the same difference,
// wherever they are, in the forward kernels and in the backward ones.
FJ_DEVICE fj_parts fj_natural_of_log2(const fj_cuda_forward &a, fj_real scale_log2) {
    const fj_real scale = fj_natural_scale(a), high = fj_div_rn(scale, scale_log2);
    return fj_parts{high, fj_div_rn(fj_fma_rn(-high, scale_log2, scale), scale_log2)};
}

// What a row ends as: the factor of its output; lse in two parts. dead: it saw nothing, its output is 0.
struct fj_row_end {
    fj_real factor, lse, lse_low;
    bool dead;
};
// sum: of exp(score - base), natural. whole: no other split has keys of the row, so that its sink joins.
template <bool whole>
FJ_DEVICE fj_row_end fj_end_row([[maybe_unused]] const fj_mod_args &mod, [[maybe_unused]] int32_t b,
                                [[maybe_unused]] int32_t h, fj_parts base, fj_real sum) {
    fj_row_end end;
    fj_real down = 1;
    const bool sees_nothing = sum == 0;
#if FJ_HAS_SINK
    const fj_real sink = whole ? fj_sink_of(mod, b, h) : -fj_real(INFINITY);
    // Differences first: both may be large. NaN for a sink of +inf or NaN.
    const fj_real ahead =
        (sink - sink) + (sees_nothing ? fj_real(0) : ((sink - base.high) - base.low) * FJ_LOG2_E);
    const bool joins = sink != -fj_real(INFINITY); // one that is NaN, too
    if (joins && (ahead > 0 || sees_nothing)) {
        down = fj_exp2(-ahead); // sums of the output are still those of the base before
        sum = fj_fma_rn(sum, down, fj_real(1));
        base = fj_parts{sink, fj_real(0)};
    } else if (joins) {
        sum += fj_exp2(ahead);
    }
#endif
    end.dead = sum == 0;
    end.factor = sees_nothing ? fj_real(0) : fj_div_rn(down, sum);
    const fj_parts all = fj_exact_sum(base.high, fj_log(sum));
    const fj_real rest = all.low + base.low;
    end.lse = end.dead ? -fj_real(INFINITY) : all.high + rest;
    end.lse_low = fj_abs(end.lse) < fj_real(INFINITY) ? rest - (end.lse - all.high) : fj_real(0);
    return end;
}

// ---- Backward: the base is lse -------------------------------------------------------------------------------

// What raw products are multiplied with: by a score mod's kernels at once, by others after lse is subtracted.
FJ_DEVICE fj_real fj_product_scale_of(const fj_cuda_backward &a) {
    const fj_real scale = static_cast<fj_real>(a.scale), scale_log2 = scale * FJ_LOG2_E;
    if (FJ_HAS_SCORE) return scale;
    return scale_log2 > FJ_MOST_REAL ? FJ_MOST_REAL : scale_log2 < -FJ_MOST_REAL ? -FJ_MOST_REAL : scale_log2;
}

// lse of a query as P takes it: P = exp2(scale_log2 (x - lse) + low), x the score, or without a score mod the product.
// lse is here the x nearest to it, so that the difference of two large numbers is exact, and low the rest, in units of
// log2: small. natural: 0, or the base of a large row; then x is the difference from it already, and lse is
// 0.
struct fj_norm {
    fj_real lse, low, natural;
};
// lse_low: what rounding took from lse.
FJ_DEVICE fj_norm fj_norm_of(const fj_cuda_backward &a, fj_real lse, fj_real lse_low) {
    if (lse == -fj_real(INFINITY)) return fj_norm{fj_real(INFINITY), fj_real(0), fj_real(0)};
    if (!(lse - lse == 0)) return fj_norm{fj_real(NAN), fj_real(0), fj_real(0)};
    if (fj_is_large(lse)) return fj_norm{fj_real(0), -lse_low * FJ_LOG2_E, lse};
    const fj_real scale = FJ_HAS_SCORE ? fj_real(1) : static_cast<fj_real>(a.scale);
    fj_real x = 0;
    if (scale != 0) {
        const fj_real first = fj_div_rn(lse, scale);
        x = first + fj_div_rn(fj_fma_rn(-first, scale, lse) + lse_low, scale);
        // Of a tiny scale: what lies beyond the reals is as near as any of them.
        if (!(x - x == 0)) x = (lse < 0) == (scale < 0) ? FJ_MOST_REAL : -FJ_MOST_REAL;
    }
    const fj_real product = fj_mul_rn(x, scale), rest = fj_fma_rn(x, scale, -product);
    return fj_norm{x, (((product - lse) + rest) - lse_low) * FJ_LOG2_E, fj_real(0)};
}
// natural: of a row's fj_norm. product_scale: of fj_product_scale_of.
FJ_DEVICE fj_base fj_base_of(const fj_cuda_backward &a, fj_real product_scale, fj_real natural) {
    return natural == 0 ? fj_plain_base(fj_real(0))
                        : fj_large_base(natural, static_cast<fj_real>(a.scale), product_scale);
}

#endif
