/* Inputs of the conformance tests, and float formats in double arithmetic. */
#include <math.h>
#include <string.h>

#include "tests/prim/prim.h"

static uint64_t state;

void prim_seed(uint64_t seed) { state = seed * UINT64_C(0x9e3779b97f4a7c15) + UINT64_C(0x853c49e6748fea9b); }

uint32_t prim_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33 ^ state >> 20);
}

uint32_t prim_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

float prim_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void prim_fill_words(uint32_t *in, uint32_t words) {
    for (uint32_t i = 0; i < words; i++) in[i] = prim_random();
}

void prim_fill_floats(uint32_t *in, uint32_t words) {
    static const uint32_t special[] = {
        0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f7fffff,
        0x00800000, 0x00000001, 0x807fffff, 0x3f000000, 0x40200000, 0xc0600000, 0x477fe000, 0x477fefff,
        0x477ff000, 0x33000000, 0x33000001, 0x38800000, 0x387fe000, 0x3f808000, 0x3f818000, 0x3f801000,
        0x3f803000, 0x7f7f8000, 0x4b000001, 0x7fffffff, 0x7f800001, 0xff801fff, 0x7f802000, 0xffbfffff,
        0xff7fefff, 0xff7ff000, 0x007fefff, 0x00001000, 0x80000fff, 0x00008000, 0x7f7f7fff,
    };
    const uint32_t count = sizeof special / sizeof special[0];
    for (uint32_t i = 0; i < words; i++) {
        uint32_t kind = prim_random() % 4, bits = prim_random();
        if (kind == 0) in[i] = special[bits % count];
        if (kind == 1) in[i] = bits;
        if (kind >= 2) in[i] = (bits & 0x807fffffu) | (117 + (bits >> 23) % 20) << 23; /* 2^-10 to 2^9 */
    }
}

double prim_round(double x, int mantissa, int least_exponent, int most_exponent, bool away) {
    if (x == 0 || isnan(x) || isinf(x)) return x;
    int exponent = ilogb(x) < least_exponent ? least_exponent : ilogb(x);
    double scaled = ldexp(x, mantissa - exponent);
    double rounded = ldexp(away ? round(scaled) : rint(scaled), exponent - mantissa);
    return fabs(rounded) >= ldexp(1, most_exponent + 1) ? copysign((double)INFINITY, x) : rounded;
}

uint16_t prim_encode(double x, int mantissa, int exponent_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1;
    uint32_t sign = signbit(x) ? 0x8000u : 0, infinity = ((1u << exponent_bits) - 1) << mantissa;
    if (isnan(x)) return 0x7fff;
    if (isinf(x)) return (uint16_t)(sign | infinity);
    if (x == 0) return (uint16_t)sign;
    int exponent = ilogb(x);
    if (exponent < 1 - bias) return (uint16_t)(sign | (uint32_t)ldexp(fabs(x), mantissa + bias - 1));
    uint32_t fraction = (uint32_t)ldexp(fabs(x), mantissa - exponent) - (1u << mantissa);
    return (uint16_t)(sign | (uint32_t)(exponent + bias) << mantissa | fraction);
}

double prim_decode(uint16_t bits, int mantissa, int exponent_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1, exponent = (bits & 0x7fff) >> mantissa;
    uint32_t fraction = bits & ((1u << mantissa) - 1);
    double x = 0;
    if (exponent == (1 << exponent_bits) - 1)
        x = fraction ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        x = ldexp(fraction, 1 - bias - mantissa);
    else
        x = ldexp(fraction + (1u << mantissa), exponent - bias - mantissa);
    return bits & 0x8000 ? -x : x;
}
