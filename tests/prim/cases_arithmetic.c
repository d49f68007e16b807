/* Arithmetic and conversions. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "tests/prim/prim.h"

/* ---- Exact ------------------------------------------------------------------------------------ */

/* A sum of doubles that are floats' sums or products, rounded once to float: exact where 53 bits hold it. */
static float least(float a, float b) { return a < b || (a == b && signbit(a)) ? a : b; }
static float most(float a, float b) { return a > b || (a == b && !signbit(a)) ? a : b; }

static void exact(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++, in += 3) {
        const float a = prim_float(in[0]), b = prim_float(in[1]), c = prim_float(in[2]);
        volatile float product = a * b;
        const float results[16] = {
            a + b,
            a - b,
            product,
            fmaf(a, b, c),
            product + c,
            a / b,
            1.0f / a,
            sqrtf(a),
            isnan(a)   ? b
            : isnan(b) ? a
                       : least(a, b),
            isnan(a)   ? b
            : isnan(b) ? a
                       : most(a, b),
            isnan(a) || isnan(b) ? NAN : least(a, b),
            isnan(a) || isnan(b) ? NAN : most(a, b),
            (float)nearbyint((double)a),
            (float)floor((double)a),
            (float)ceil((double)a),
            (float)trunc((double)a),
        };
        for (uint32_t k = 0; k < 16; k++) e->bits[i * 16 + k] = prim_bits(results[k]);
    }
}

static void exact_f64(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++) {
        double x[3];
        memcpy(x, in + i * 6, sizeof x);
        volatile double product = x[0] * x[1];
        const double results[6] = {x[0] + x[1], x[0] - x[1],           product,
                                   x[0] / x[1], fma(x[0], x[1], x[2]), sqrt(x[0])};
        memcpy(e->bits + i * 12, results, sizeof results);
    }
}

static void integer(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++, in += 3) {
        uint32_t count = 0, zeros = 0, reversed = 0, shifted = in[0] >> (in[1] & 31), bytes = 0;
        for (uint32_t k = 0; k < 32; k++) {
            count += in[0] >> k & 1;
            reversed |= (in[0] >> k & 1) << (31 - k);
        }
        while (zeros < 32 && !(shifted >> (31 - zeros) & 1)) zeros++;
        const uint8_t *from[2] = {(const uint8_t *)&in[0], (const uint8_t *)&in[1]};
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t selector = in[2] >> (4 * k) & 7;
            bytes |= (uint32_t)from[selector / 4][selector % 4] << (8 * k);
        }
        const uint32_t words[5] = {(uint32_t)((uint64_t)in[0] * in[1] >> 32), count, zeros, reversed, bytes};
        memcpy(e->bits + i * 5, words, sizeof words);
    }
}

/* ---- Approximations --------------------------------------------------------------------------- */

static double flush(double x) { return fabs(x) < (double)FLT_MIN ? copysign(0, x) : x; }

static void approx(const uint32_t *in, const struct prim_expected *e, double (*function)(double),
                   double relative, double absolute) {
    for (uint32_t i = 0; i < 128; i++) {
        double value = flush(function(flush((double)prim_float(in[i]))));
        e->value[i] = fabs(value) > (double)FLT_MAX ? copysign((double)INFINITY, value) : value;
        e->tolerance[i] = fmax(fabs(value) * relative, absolute);
    }
}

static double reciprocal(double x) { return 1 / x; }
static double reciprocal_root(double x) { return 1 / sqrt(x); }
static double one_and_a_half_over(double x) { return fabs(x) > 0x1p126 && !isinf(x) ? 0 : 1.5 / x; }

static void ex2(const uint32_t *in, const struct prim_expected *e) { approx(in, e, exp2, 0x1p-22, 0); }
static void lg2(const uint32_t *in, const struct prim_expected *e) { approx(in, e, log2, 0x1p-22, 0x1p-22); }
static void rcp(const uint32_t *in, const struct prim_expected *e) { approx(in, e, reciprocal, 0x1p-23, 0); }
static void rsqrt(const uint32_t *in, const struct prim_expected *e) {
    approx(in, e, reciprocal_root, 0x1p-22, 0);
}
static void root(const uint32_t *in, const struct prim_expected *e) { approx(in, e, sqrt, 0x1p-22, 0); }
static void division(const uint32_t *in, const struct prim_expected *e) {
    approx(in, e, one_and_a_half_over, 0x1p-22, 0);
}

static void tanh_approx(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++) {
        e->value[i] = tanh((double)prim_float(in[i]));
        e->tolerance[i] = fmax(fabs(e->value[i]) * 0x1p-10, 0x1p-148);
    }
}

/* Special values and, up to 2^10, others: not so near the ends of the range that the error decides on flushing. */
static void fill_moderate(uint32_t *in, uint32_t words) {
    static const uint32_t special[] = {
        0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0x3f800000, 0x00000001,
        0xc2fc0000, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000, 0x7e800000,
        0x7e800001, 0x7f000000, 0xff000000, 0x7f7fffff, 0xff7fffff, 0xc2fd0000, 0xc3160000,
        0x43000000, 0xbf800000, 0x7f800001, 0xffc00000,
    };
    const uint32_t count = sizeof special / sizeof special[0];
    for (uint32_t i = 0; i < words; i++) {
        uint32_t bits = prim_random();
        in[i] = i < count ? special[i] : (bits & 0x807fffffu) | (107 + (bits >> 23) % 27) << 23;
        if (i >= count && fabsf(prim_float(in[i])) > 120) in[i] = prim_bits(prim_float(in[i]) / 16);
    }
}

/* ---- Conversions ------------------------------------------------------------------------------ */

static uint32_t f16(uint32_t bits) {
    return prim_encode(prim_round((double)prim_float(bits), 10, -14, 15, false), 10, 5);
}
static uint32_t bf16(uint32_t bits) {
    return prim_encode(prim_round((double)prim_float(bits), 7, -126, 127, false), 7, 8);
}

static void convert(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++, in += 2) {
        double tf32 = prim_round((double)prim_float(in[0]), 10, -126, 127, true);
        const uint32_t words[5] = {
            f16(in[0]), bf16(in[0]), f16(in[0]) | f16(in[1]) << 16, bf16(in[0]) | bf16(in[1]) << 16,
            isfinite(prim_float(in[0])) ? prim_bits((float)tf32) : in[0] & 0xffffe000u};
        memcpy(e->bits + i * 5, words, sizeof words);
    }
}

static void unpack(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++) {
        uint16_t low = (uint16_t)in[i], high = (uint16_t)(in[i] >> 16);
        const double values[6] = {prim_decode(low, 10, 5),  prim_decode(low, 7, 8), prim_decode(low, 10, 5),
                                  prim_decode(high, 10, 5), prim_decode(low, 7, 8), prim_decode(high, 7, 8)};
        for (uint32_t k = 0; k < 6; k++) e->bits[i * 6 + k] = prim_bits((float)values[k]);
    }
}

static void fill_halves(uint32_t *in, uint32_t words) {
    static const uint32_t special[] = {0x00008000, 0x7c00fc00, 0x00010001, 0x03ff0400,
                                       0x7bfffbff, 0x7f80ff80, 0x7e007fc0};
    for (uint32_t i = 0; i < words; i++) in[i] = i < 7 ? special[i] : prim_random();
}

/* Of doubles, the high words are moderate. */
static void fill_doubles(uint32_t *in, uint32_t words) {
    for (uint32_t i = 0; i < words; i++)
        in[i] = i % 2 ? (prim_random() & 0x800fffffu) | (1003 + prim_random() % 40) << 20 : prim_random();
}

const struct prim_case prim_arithmetic_cases[] = {
    {"arithmetic", "prim_exact", 75, 128, 0, 384, 2048, PRIM_FLOATS, prim_fill_floats, exact, {0}, 0},
    {"arithmetic", "prim_exact_f64", 75, 128, 0, 768, 1536, PRIM_DOUBLES, fill_doubles, exact_f64, {0}, 0},
    {"arithmetic", "prim_integer", 75, 128, 0, 384, 640, PRIM_BITS, prim_fill_words, integer, {0}, 0},
    {"arithmetic", "prim_ex2_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, ex2, {0}, 0},
    {"arithmetic", "prim_lg2_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, lg2, {0}, 0},
    {"arithmetic", "prim_rcp_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, rcp, {0}, 0},
    {"arithmetic", "prim_rsqrt_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, rsqrt, {0}, 0},
    {"arithmetic", "prim_sqrt_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, root, {0}, 0},
    {"arithmetic", "prim_div_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, division, {0}, 0},
    {"arithmetic", "prim_tanh_approx", 75, 128, 0, 128, 128, PRIM_BOUND, fill_moderate, tanh_approx, {0}, 0},
    {"arithmetic", "prim_convert", 80, 128, 0, 256, 640, PRIM_BITS, prim_fill_floats, convert, {0}, 0},
    {"arithmetic", "prim_unpack", 75, 128, 0, 128, 768, PRIM_FLOATS, fill_halves, unpack, {0}, 0},
    {0},
};
