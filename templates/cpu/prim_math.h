/* Functions of lanes, with stated error bounds. Part of prim.h.
 *
 * The bounds hold for every argument, denormal results included, in every instruction set; tests/lanes
 * measures them (all 2^32 floats with FJ_EXHAUSTIVE=1). Special values are those of C's Annex F.
 *
 *   float, ulp     exp 1.0  exp2 1.5  log 1.0  log2 1.5  log1p 2.0  expm1 2.0  tanh 2.5  sigmoid 2.5
 *                  erf 1.5  rsqrt 1.5  sin cos tan pow and all others 0.51 (computed in double)
 *   double, ulp    exp 1.5  exp2 1.5  rsqrt 1.5  sigmoid 2.5; the others are the C library's
 *
 * A float function whose polynomial is evaluated in float names its interval; in double it is
 * evaluated for half of the lanes at a time. fma rounds once where the processor can and twice where it
 * cannot. Coefficients are minimax fits (Remez), the error of each before rounding is noted.
 */
#ifndef FJ_PRIM_MATH_H
#define FJ_PRIM_MATH_H

#define FJV_POLY(t, v, x, c) fjv_poly_##t(x, c, (int)(sizeof(c) / sizeof((c)[0])))
FJ_INLINE fj_vf fjv_poly_f(fj_vf x, const float *c, int n) {
    fj_vf p = fjv_splat_f(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) p = fjv_fma_f(p, x, fjv_splat_f(c[i]));
    return p;
}
FJ_INLINE fj_vd fjv_poly_d(fj_vd x, const double *c, int n) {
    fj_vd p = fjv_splat_d(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) p = fjv_fma_d(p, x, fjv_splat_d(c[i]));
    return p;
}

/* Between two bounds; NaN stays. */
FJ_INLINE fj_vf fjv_clamp_f(fj_vf x, float least, float most) {
    return fjv_min_f(fjv_splat_f(most), fjv_max_f(fjv_splat_f(least), x));
}
FJ_INLINE fj_vd fjv_clamp_d(fj_vd x, double least, double most) {
    return fjv_min_d(fjv_splat_d(most), fjv_max_d(fjv_splat_d(least), x));
}
/* The nearest integer of a number below 2^22 (2^51). */
FJ_INLINE fj_vf fjv_near_f(fj_vf x) { return (x + 0x1.8p23f) - 0x1.8p23f; }
FJ_INLINE fj_vd fjv_near_d(fj_vd x) { return (x + 0x1.8p52) - 0x1.8p52; }

/* ---- Exponentials ----------------------------------------------------------------------------- */

/* x = n log 2 + r, |r| <= log(2) / 2. n * FJV_LN2_HIGH is exact. */
#define FJV_LN2_HIGH_F 0x1.62e4p-1f
#define FJV_LN2_LOW_F 0x1.7f7d1cp-20f
#define FJV_LN2_HIGH_D 0x1.62e42feep-1
#define FJV_LN2_LOW_D 0x1.a39ef35793c76p-33
#define FJV_LOG2E_D 0x1.71547652b82fep+0

/* exp(r) - 1 = r + r^2 q(r); 3.3e-9 relative */
FJ_INLINE fj_vf fjv_reduce_exp_f(fj_vf x, fj_vf *n, fj_vf *r) {
    static const float q[] = {0x1.000000p-1f, 0x1.555490p-3f, 0x1.555462p-5f, 0x1.123a36p-7f,
                              0x1.6db206p-10f};
    *n = fjv_near_f(x * (float)FJV_LOG2E_D);
    *r = fjv_fma_f(*n, fjv_splat_f(-FJV_LN2_HIGH_F), x);
    *r = fjv_fma_f(*n, fjv_splat_f(-FJV_LN2_LOW_F), *r);
    return fjv_fma_f(*r * *r, FJV_POLY(f, fj_vf, *r, q), *r);
}
FJ_INLINE fj_vf fjv_exp_f(fj_vf x) {
    fj_vf n, r;
    x = fjv_clamp_f(x, -105.0f, 90.0f);
    fj_vf p = fjv_reduce_exp_f(x, &n, &r);
    return fjv_scale_f(p + 1.0f, n);
}
/* 3.8e-18 relative */
FJ_INLINE fj_vd fjv_exp_d(fj_vd x) {
    static const double q[] = {0x1.000000000000ap-1,  0x1.5555555555560p-3,  0x1.555555555075dp-5,
                               0x1.111111110d91dp-7,  0x1.6c16c18464412p-10, 0x1.a01a01ba0db9ap-13,
                               0x1.a019997850813p-16, 0x1.71dde169dedb2p-19, 0x1.28adf429b5a5bp-22,
                               0x1.af834102175f0p-26};
    x = fjv_clamp_d(x, -750.0, 720.0);
    fj_vd n = fjv_near_d(x * FJV_LOG2E_D);
    fj_vd r = fjv_fma_d(n, fjv_splat_d(-FJV_LN2_HIGH_D), x);
    r = fjv_fma_d(n, fjv_splat_d(-FJV_LN2_LOW_D), r);
    fj_vd p = fjv_fma_d(r * r, FJV_POLY(d, fj_vd, r, q), r);
    return fjv_scale_d(p + 1.0, n);
}

/* 2^r = 1 + r p(r), |r| <= 1/2; 2.1e-9 relative */
FJ_INLINE fj_vf fjv_exp2_f(fj_vf x) {
    static const float c[] = {0x1.62e430p-1f, 0x1.ebfbe0p-3f,  0x1.c6aedcp-5f,
                              0x1.3b29aep-7f, 0x1.5f4348p-10f, 0x1.448df0p-13f};
    x = fjv_clamp_f(x, -152.0f, 129.0f);
    fj_vf n = fjv_near_f(x), r = x - n;
    return fjv_scale_f(fjv_fma_f(r, FJV_POLY(f, fj_vf, r, c), fjv_splat_f(1.0f)), n);
}
/* 3.7e-18 relative */
FJ_INLINE fj_vd fjv_exp2_d(fj_vd x) {
    static const double c[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c5a4p-3,  0x1.c6b08d704a0d5p-5,
                               0x1.3b2ab6fba0219p-7,  0x1.5d87fe78a1164p-10, 0x1.4309130eb5caep-13,
                               0x1.ffcbfc7b80540p-17, 0x1.62bfc7dc4779cp-20, 0x1.b524cf46afe36p-24,
                               0x1.e61affb71929fp-28, 0x1.ea1681a71f221p-32};
    x = fjv_clamp_d(x, -1080.0, 1025.0);
    fj_vd n = fjv_near_d(x), r = x - n;
    return fjv_scale_d(fjv_fma_d(r, FJV_POLY(d, fj_vd, r, c), fjv_splat_d(1.0)), n);
}

/* 2^n (t + 1) - 1 = 2^n t + (2^n - 1), in halves so that 2^128 is never made. */
FJ_INLINE fj_vf fjv_expm1_f(fj_vf x) {
    fj_vf n, r, bounded = fjv_clamp_f(x, -30.0f, 88.8f);
    fj_vf t = fjv_reduce_exp_f(bounded, &n, &r);
    fj_vf half = fjv_scale_f(fjv_splat_f(0.5f), n);
    fj_vf e = fjv_fma_f(half, t, half - 0.5f) * 2.0f;
    e = fjv_where_f(fjv_eq_f(n, fjv_splat_f(0)), t, e);
    return fjv_copysign_f(e, x);
}

/* ---- Logarithms ------------------------------------------------------------------------------- */

/* x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); for positive finite x, denormals included. */
FJ_INLINE fj_vf fjv_split_f(fj_vf x, fj_vf *e) {
    fj_mf tiny = fjv_lt_f(x, fjv_splat_f(0x1p-126f));
    x = fjv_where_f(tiny, x * 0x1p23f, x);
    fj_vi bits = (fj_vi)x & 0x7fffffff, n = (bits - 0x3f3504f3) >> 23;
    *e = __builtin_convertvector(n, fj_vf) - fjv_where_f(tiny, fjv_splat_f(23), fjv_splat_f(0));
    return (fj_vf)(bits - (n << 23)) - 1.0f;
}
FJ_INLINE fj_vd fjv_split_d(fj_vd x, fj_vd *e) {
    fj_md tiny = fjv_lt_d(x, fjv_splat_d(0x1p-1022));
    x = fjv_where_d(tiny, x * 0x1p52, x);
    const int64_t root = 0x3fe6a09e667f3bcd, one = 0x3ff0000000000000;
    fj_vul n = ((fj_vul)x + (uint64_t)(one - root)) >> 52; /* exponent and bias, positive */
    *e = (fj_vd)(n | 0x4330000000000000) - (0x1p52 + 1023);
    *e -= fjv_where_d(tiny, fjv_splat_d(52), fjv_splat_d(0));
    return (fj_vd)((fj_vul)x - ((n - 1023) << 52)) - 1.0;
}
/* What logarithms are of 0, infinity, NaN and what is below 0; y elsewhere. */
FJ_INLINE fj_vf fjv_log_ends_f(fj_vf x, fj_vf y) {
    y = fjv_where_f(fjv_eq_f(x, fjv_splat_f(0)), fjv_splat_f(-INFINITY), y);
    y = fjv_where_f(fjv_lt_f(x, fjv_splat_f(0)), fjv_splat_f(NAN), y);
    return fjv_where_f(fjv_lt_f(x, fjv_splat_f(INFINITY)), y, x);
}
FJ_INLINE fj_vd fjv_log_ends_d(fj_vd x, fj_vd y) {
    y = fjv_where_d(fjv_eq_d(x, fjv_splat_d(0)), fjv_splat_d(-(double)INFINITY), y);
    y = fjv_where_d(fjv_lt_d(x, fjv_splat_d(0)), fjv_splat_d((double)NAN), y);
    return fjv_where_d(fjv_lt_d(x, fjv_splat_d((double)INFINITY)), y, x);
}

/* log(1 + f) = f + tail, tail = -f^2 / 2 + f^3 c(f); 8.0e-10 relative */
FJ_INLINE fj_vf fjv_log_tail_f(fj_vf f) {
    static const float c[] = {0x1.555548p-2f,  -0x1.ffffeep-3f, 0x1.99a472p-3f,
                              -0x1.556284p-3f, 0x1.2340dep-3f,  -0x1.fb5c7ap-4f,
                              0x1.e5ae18p-4f,  -0x1.e22ae8p-4f, 0x1.1bb6b4p-4f};
    fj_vf square = f * f;
    return fjv_fma_f(square, fjv_splat_f(-0.5f), square * f * FJV_POLY(f, fj_vf, f, c));
}
FJ_INLINE fj_vf fjv_log_f(fj_vf x) {
    fj_vf e, f = fjv_split_f(x, &e), tail = fjv_log_tail_f(f);
    tail = fjv_fma_f(e, fjv_splat_f(FJV_LN2_LOW_F), tail);
    fj_vf y = fjv_fma_f(e, fjv_splat_f(FJV_LN2_HIGH_F), f + tail);
    return fjv_log_ends_f(x, y);
}
/* log2(1 + f) + e, with log2(e) = 1 + c */
FJ_INLINE fj_vf fjv_log2_f(fj_vf x) {
    const float c = 0x1.c551dap-2f;
    fj_vf e, f = fjv_split_f(x, &e), tail = fjv_log_tail_f(f);
    fj_vf y = fjv_fma_f(f, fjv_splat_f(c), tail * c) + tail;
    y = (y + f) + e;
    return fjv_log_ends_f(x, y);
}
/* 2 atanh(s), s = f / (2 + f): 2 s + s^3 c(s^2); 2.8e-18 relative */
FJ_INLINE fj_vd fjv_log2_d(fj_vd x) {
    static const double c[] = {0x1.5555555555581p-1, 0x1.9999999984687p-2, 0x1.2492493e8cd28p-2,
                               0x1.c71c54727f2a5p-3, 0x1.7465cd7ef780fp-3, 0x1.39ac23778cc70p-3,
                               0x1.2ea4baa81275bp-3};
    fj_vd e, f = fjv_split_d(x, &e), s = f / (f + 2.0), square = s * s;
    fj_vd y = fjv_fma_d(s * square, FJV_POLY(d, fj_vd, square, c), s * 2.0);
    return fjv_log_ends_d(x, fjv_fma_d(y, fjv_splat_d(FJV_LOG2E_D), e));
}
/* log(u), u = 1 + x, mended by what the sum lost. */
FJ_INLINE fj_vf fjv_log1p_f(fj_vf x) {
    fj_vf u = x + 1.0f;
    fj_vf lost = fjv_where_f(fjv_gt_f(x, fjv_splat_f(1.0f)), 1.0f - (u - x), x - (u - 1.0f));
    fj_vf y = fjv_log_f(u), mended = y + lost / u;
    fj_mf plain = fjv_gt_f(fjv_abs_f(y), fjv_splat_f(1e30f));
    y = fjv_where_f(plain, y, mended);
    return fjv_where_f(fjv_eq_f(x, fjv_splat_f(0)), x, y);
}

/* ---- Sigmoids --------------------------------------------------------------------------------- */

/* With m = exp(2 |x|) - 1 = 2^n t + (2^n - 1): m / (m + 2). */
FJ_INLINE fj_vf fjv_tanh_f(fj_vf x) {
    fj_vf n, r, t = fjv_reduce_exp_f(fjv_min_f(fjv_splat_f(10.0f), fjv_abs_f(x)) * 2.0f, &n, &r);
    fj_vf power = fjv_scale_f(fjv_splat_f(1.0f), n), m = fjv_fma_f(power, t, power - 1.0f);
    return fjv_copysign_f(m / (m + 2.0f), x);
}
/* Of the smaller of exp(x) and exp(-x), so that nothing overflows. */
FJ_INLINE fj_f fj_sigmoid_f(fj_f x) {
    fj_f one = fj_splat_f(1), e = FJV(exp)(-fj_abs_f(x));
    e = fj_where_f(fj_isnan_f(x), x, e);
    return fj_where_f(fj_lt_f(x, fj_splat_f(0)), e, one) / (one + e);
}
/* |x| < 1: x + x c(x^2), 1.2e-9; else 1 - exp(-(t + t d(t))) up to t = 4, 4.0e-10, both of erf. */
FJ_INLINE fj_vf fjv_erf_f(fj_vf x) {
    static const float c[] = {0x1.06eba8p-3f, -0x1.81273ep-2f,  0x1.ce2cf8p-4f, -0x1.b7f90cp-6f,
                              0x1.5405b2p-8f, -0x1.a3f702p-11f, 0x1.496a3ep-14f};
    static const float d[] = {0x1.078f70p-3f, 0x1.451c18p-1f,   0x1.b44902p-4f, -0x1.892c3ap-6f,
                              0x1.ebc4b8p-9f, -0x1.6e47eap-12f, 0x1.d07dacp-17f};
    fj_vf t = fjv_min_f(fjv_splat_f(4.0f), fjv_abs_f(x));
    fj_vf small = fjv_fma_f(t, FJV_POLY(f, fj_vf, t * t, c), t);
    fj_vf large = 1.0f - fjv_exp_f(-fjv_fma_f(t, FJV_POLY(f, fj_vf, t, d), t));
    return fjv_copysign_f(fjv_where_f(fjv_lt_f(t, fjv_splat_f(1.0f)), small, large), x);
}

/* ---- Lane by lane, through the C library in double ---------------------------------------------- */

#define FJ_LANEWISE1(op, function)                                                 \
    FJ_NOINLINE fj_f fjv_each_##op(fj_f a) {                                       \
        fj_real t[FJ_LANES];                                                       \
        fj_put_f(t, a);                                                            \
        for (int i = 0; i < FJ_LANES; i++) t[i] = (fj_real)function((double)t[i]); \
        return fj_get_f(t);                                                        \
    }
#define FJ_LANEWISE2(op, function)                                                               \
    FJ_NOINLINE fj_f fjv_each_##op(fj_f a, fj_f b) {                                             \
        fj_real t[FJ_LANES], u[FJ_LANES];                                                        \
        fj_put_f(t, a);                                                                          \
        fj_put_f(u, b);                                                                          \
        for (int i = 0; i < FJ_LANES; i++) t[i] = (fj_real)function((double)t[i], (double)u[i]); \
        return fj_get_f(t);                                                                      \
    }
FJ_LANEWISE1(asin, asin)
FJ_LANEWISE1(acos, acos)
FJ_LANEWISE1(atan, atan)
FJ_LANEWISE1(sinh, sinh)
FJ_LANEWISE1(cosh, cosh)
FJ_LANEWISE1(sin, sin)
FJ_LANEWISE1(cos, cos)
FJ_LANEWISE1(tan, tan)
FJ_LANEWISE1(erfc, erfc)
FJ_LANEWISE2(atan2, atan2)
FJ_LANEWISE2(fmod, fmod)
FJ_INLINE fj_f fj_asin_f(fj_f a) { return fjv_each_asin(a); }
FJ_INLINE fj_f fj_acos_f(fj_f a) { return fjv_each_acos(a); }
FJ_INLINE fj_f fj_atan_f(fj_f a) { return fjv_each_atan(a); }
FJ_INLINE fj_f fj_erfc_f(fj_f a) { return fjv_each_erfc(a); }
FJ_INLINE fj_f fj_sinh_f(fj_f a) { return fjv_each_sinh(a); }
FJ_INLINE fj_f fj_cosh_f(fj_f a) { return fjv_each_cosh(a); }
FJ_INLINE fj_f fj_atan2_f(fj_f a, fj_f b) { return fjv_each_atan2(a, b); }

FJ_INLINE fj_f fj_exp_f(fj_f a) { return FJV(exp)(a); }
FJ_INLINE fj_f fj_exp2_f(fj_f a) { return FJV(exp2)(a); }

#if FJ_REAL_F64

FJ_LANEWISE1(log, log)
FJ_LANEWISE1(log2, log2)
FJ_LANEWISE1(log1p, log1p)
FJ_LANEWISE1(expm1, expm1)
FJ_LANEWISE1(tanh, tanh)
FJ_LANEWISE1(erf, erf)
FJ_LANEWISE2(pow, pow)
FJ_INLINE fj_f fj_log_f(fj_f a) { return fjv_each_log(a); }
FJ_INLINE fj_f fj_log2_f(fj_f a) { return fjv_each_log2(a); }
FJ_INLINE fj_f fj_log1p_f(fj_f a) { return fjv_each_log1p(a); }
FJ_INLINE fj_f fj_expm1_f(fj_f a) { return fjv_each_expm1(a); }
FJ_INLINE fj_f fj_tanh_f(fj_f a) { return fjv_each_tanh(a); }
FJ_INLINE fj_f fj_erf_f(fj_f a) { return fjv_each_erf(a); }
FJ_INLINE fj_f fj_sin_f(fj_f a) { return fjv_each_sin(a); }
FJ_INLINE fj_f fj_cos_f(fj_f a) { return fjv_each_cos(a); }
FJ_INLINE fj_f fj_tan_f(fj_f a) { return fjv_each_tan(a); }
FJ_INLINE fj_f fj_pow_f(fj_f a, fj_f b) { return fjv_each_pow(a, b); }
FJ_INLINE fj_f fj_fmod_f(fj_f a, fj_f b) { return fjv_each_fmod(a, b); }

#else

FJ_INLINE fj_f fj_log_f(fj_f a) { return fjv_log_f(a); }
FJ_INLINE fj_f fj_log2_f(fj_f a) { return fjv_log2_f(a); }
FJ_INLINE fj_f fj_log1p_f(fj_f a) { return fjv_log1p_f(a); }
FJ_INLINE fj_f fj_expm1_f(fj_f a) { return fjv_expm1_f(a); }
FJ_INLINE fj_f fj_tanh_f(fj_f a) { return fjv_tanh_f(a); }
FJ_INLINE fj_f fj_erf_f(fj_f a) { return fjv_erf_f(a); }

/* ---- Angles, in double -------------------------------------------------------------------------- */

/* x = n pi / 2 + r, |r| <= pi / 4. Below 2^20, n * FJV_PIO2_HIGH is exact, and no float comes nearer
 * than 2^-31 to a multiple of pi / 2: r is good to 2^-35 of itself. */
#define FJV_PIO2_HIGH 0x1.921fb544p+0
#define FJV_PIO2_LOW 0x1.0b4611a626331p-34
#define FJV_ANGLE_MOST 0x1p20f
FJ_INLINE fj_vd fjv_reduce_angle(fj_vd x, fj_vl *n) {
    fj_vd shifted = x * 0x1.45f306dc9c883p-1 + 0x1.8p52, k = shifted - 0x1.8p52;
    *n = (fj_vl)shifted; /* its two low bits are the quadrant */
    return (x - k * FJV_PIO2_HIGH) - k * FJV_PIO2_LOW;
}
/* Taylor: 7e-12 and 1e-10 at pi / 4, 2e-3 ulp of a float. */
FJ_INLINE fj_vd fjv_sin_part(fj_vd r) {
    static const double c[] = {-0x1.5555555555555p-3, 0x1.1111111111111p-7, -0x1.a01a01a01a01ap-13,
                               0x1.71de3a556c734p-19, -0x1.ae64567f544e4p-26};
    fj_vd square = r * r;
    return fjv_fma_d(r * square, FJV_POLY(d, fj_vd, square, c), r);
}
FJ_INLINE fj_vd fjv_cos_part(fj_vd r) {
    static const double c[] = {1.0,
                               -0.5,
                               0x1.5555555555555p-5,
                               -0x1.6c16c16c16c17p-10,
                               0x1.a01a01a01a01ap-16,
                               -0x1.27e4fb7789f5cp-22,
                               0x1.1eed8eff8d898p-29};
    return FJV_POLY(d, fj_vd, r * r, c);
}
FJ_INLINE fj_vd fjv_sin_shifted(fj_vd x, int shift) { /* sin(x + shift pi / 2) */
    fj_vl n;
    fj_vd r = fjv_reduce_angle(x, &n);
    n += shift;
    fj_vd y = fjv_where_d(fjv_ne_l(n & 1, (fj_vl){0}), fjv_cos_part(r), fjv_sin_part(r));
    return (fj_vd)((fj_vl)y ^ (fj_vl)((fj_vul)(n & 2) << 62));
}
FJ_INLINE fj_vd fjv_tan_part(fj_vd x) {
    fj_vl n;
    fj_vd r = fjv_reduce_angle(x, &n), s = fjv_sin_part(r), c = fjv_cos_part(r);
    fj_md odd = fjv_ne_l(n & 1, (fj_vl){0});
    return fjv_where_d(odd, -c, s) / fjv_where_d(odd, s, c);
}
FJ_INLINE int fjv_is_large_angle(fj_f a) { return !fj_all(fj_lt_f(fj_abs_f(a), fj_splat_f(FJV_ANGLE_MOST))); }
#define FJ_ANGLE(op, value)                                 \
    FJ_INLINE fj_f fj_##op##_f(fj_f a) {                    \
        if (fjv_is_large_angle(a)) return fjv_each_##op(a); \
        fj_dd x = fjv_dd_from_f(a);                         \
        FJ_EACH_PART(x.v[p] = value)                        \
        return fjv_f_from_dd(x);                            \
    }
FJ_ANGLE(sin, fjv_copysign_d(fjv_sin_shifted(x.v[p], 0),
                             fjv_where_d(fjv_eq_d(x.v[p], (fj_vd){0}), x.v[p], fjv_sin_shifted(x.v[p], 0))))
FJ_ANGLE(cos, fjv_sin_shifted(x.v[p], 1))
FJ_ANGLE(tan, fjv_where_d(fjv_eq_d(x.v[p], (fj_vd){0}), x.v[p], fjv_tan_part(x.v[p])))

/* ---- Powers and remainders, in double ----------------------------------------------------------- */

FJ_INLINE fj_vd fjv_pow_part(fj_vd x, fj_vd y) {
    const fj_vd zero = {0}, one = fjv_splat_d(1.0);
    fj_vd size = fjv_abs_d(x), power = fjv_exp2_d(y * fjv_log2_d(size));
    fj_vd half = y * 0.5;
    fj_md whole = fjv_eq_d(fjv_trunc_d(y), y);
    fj_md even = fjv_eq_d(fjv_trunc_d(half), half);
    /* Odd powers of what has a sign bit keep it. */
    fj_vd sign = (fj_vd)((fj_vl)x & INT64_MIN);
    sign = fjv_where_d(whole, fjv_where_d(even, zero, sign), zero);
    power = (fj_vd)((fj_vl)power | (fj_vl)sign);
    /* Others of a negative number are not real. */
    fj_vd bad = fjv_where_d(whole, power, fjv_splat_d((double)NAN));
    bad = fjv_where_d(fjv_lt_d(size, fjv_splat_d((double)INFINITY)), bad, power);
    power = fjv_where_d(fjv_lt_d(x, zero), bad, power);
    /* 1 to anything and anything to 0, NaN included; -1 to an infinity. */
    power = fjv_where_d(fjv_eq_d(x, one), one, power);
    fj_vd ends = fjv_where_d(fjv_eq_d(size, one), one, power);
    power = fjv_where_d(fjv_eq_d(fjv_abs_d(y), fjv_splat_d((double)INFINITY)), ends, power);
    return fjv_where_d(fjv_eq_d(y, zero), one, power);
}
FJ_INLINE fj_f fj_pow_f(fj_f a, fj_f b) {
    fj_dd x = fjv_dd_from_f(a), y = fjv_dd_from_f(b);
    FJ_EACH_PART(x.v[p] = fjv_pow_part(x.v[p], y.v[p]))
    return fjv_f_from_dd(x);
}
/* A quotient below 2^28 cannot round up to the next integer, and a - q b is exact. */
FJ_INLINE fj_f fj_fmod_f(fj_f a, fj_f b) {
    fj_b near = fj_lt_f(fj_abs_f(a / b), fj_splat_f(0x1p28f));
    fj_b finite = fj_lt_f(fj_abs_f(b), fj_splat_f(INFINITY));
    if (!fj_all(fj_and_b(near, finite))) return fjv_each_fmod(a, b);
    fj_dd x = fjv_dd_from_f(a), y = fjv_dd_from_f(b);
    FJ_EACH_PART(x.v[p] = fjv_copysign_d(x.v[p] - fjv_trunc_d(x.v[p] / y.v[p]) * y.v[p], x.v[p]))
    return fjv_f_from_dd(x);
}

#endif

/* As Python's and PyTorch's: the sign of b, and a quotient that goes with it. */
FJ_INLINE fj_f fj_floormod_f(fj_f a, fj_f b) {
    fj_f zero = fj_splat_f(0), r = fj_fmod_f(a, b);
    fj_b crosses = fj_ne_b(fj_lt_f(r, zero), fj_lt_f(b, zero));
    return fj_where_f(fj_and_b(crosses, fj_ne_f(r, zero)), r + b, r);
}
FJ_INLINE fj_vd fjv_floordiv_part(fj_vd a, fj_vd b, fj_vd r) {
    const fj_vd zero = {0};
    fj_vd q = (a - r) / b, whole;
    fj_vd less = fjv_where_d(fjv_lt_d(r * fjv_copysign_d(fjv_splat_d(1.0), b), zero), q - 1.0, q);
    whole = fjv_floor_d(less);
    whole = fjv_where_d(fjv_gt_d(less - whole, fjv_splat_d(0.5)), whole + 1.0, whole);
    whole = fjv_where_d(fjv_eq_d(less, zero), fjv_copysign_d(zero, a / b), whole);
    return fjv_where_d(fjv_eq_d(b, zero), a / b, whole);
}
FJ_INLINE fj_f fj_floordiv_f(fj_f a, fj_f b) {
    fj_dd x = fjv_dd_from_f(a), y = fjv_dd_from_f(b), r = fjv_dd_from_f(fj_fmod_f(a, b));
    FJ_EACH_PART(x.v[p] = fjv_floordiv_part(x.v[p], y.v[p], r.v[p]))
    return fjv_f_from_dd(x);
}

FJ_INLINE fj_f fj_tanh_approx_f(fj_f a) { return fj_tanh_f(a); }

#endif
