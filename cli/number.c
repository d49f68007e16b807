/* Conversions between dtypes and doubles, and random numbers. */
#include "cli/number.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* precision: bits of the significand with the hidden one; least: exponent of the least normal number, as in 2^least */
typedef struct format {
    int precision, least, greatest;
} format;

static format format_of(fj_dtype dtype) {
    switch (dtype) {
    case FJ_DTYPE_F16: return (format){11, -14, 15};
    case FJ_DTYPE_BF16: return (format){8, -126, 127};
    case FJ_DTYPE_F32: return (format){24, -126, 127};
    default: return (format){53, -1022, 1023};
    }
}

double cli_ulp(fj_dtype dtype, double magnitude) {
    format form = format_of(dtype);
    int exponent = form.least;
    if (magnitude > 0 && isfinite(magnitude)) {
        int above;
        frexp(magnitude, &above);
        if (above - 1 > exponent) exponent = above - 1;
    }
    return ldexp(1.0, exponent - (form.precision - 1));
}

double cli_round(fj_dtype dtype, double value) {
    if (dtype == FJ_DTYPE_F64 || !isfinite(value)) return value;
    double unit = cli_ulp(dtype, fabs(value));
    double rounded =
        nearbyint(value / unit) * unit; /* exact except for the rounding: unit is a power of two */
    format form = format_of(dtype);
    return fabs(rounded) >= ldexp(1.0, form.greatest + 1) ? copysign(HUGE_VAL, value) : rounded;
}

/* ---- Half precision ---------------------------------------------------------------------- */

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double load_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 31) return (double)from_bits(sign | 0x7f800000 | fraction << 13);
    double value = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + (double)fraction, (int)exponent - 25);
    return sign != 0 ? -value : value;
}

static uint16_t store_f16(double value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value)) return (uint16_t)(sign | 0x7e00);
    double magnitude = fabs(cli_round(FJ_DTYPE_F16, value));
    if (isinf(magnitude)) return (uint16_t)(sign | 0x7c00);
    if (magnitude < ldexp(1, -14)) return (uint16_t)(sign | (uint16_t)ldexp(magnitude, 24));
    int above;
    double fraction = frexp(magnitude, &above); /* in [0.5, 1) */
    return (uint16_t)(sign | (uint16_t)((above + 14) << 10) | ((uint16_t)ldexp(fraction, 11) & 1023));
}

static uint16_t store_bf16(double value) {
    if (isnan(value)) return (uint16_t)(signbit(value) ? 0xffc0 : 0x7fc0);
    return (uint16_t)(to_bits((float)cli_round(FJ_DTYPE_BF16, value)) >> 16);
}

/* ---- Elements ---------------------------------------------------------------------------- */

double cli_load(fj_dtype dtype, const void *data, size_t index) {
    switch (dtype) {
    case FJ_DTYPE_BOOL:
    case FJ_DTYPE_U8: return ((const uint8_t *)data)[index];
    case FJ_DTYPE_I8: return ((const int8_t *)data)[index];
    case FJ_DTYPE_I16: return ((const int16_t *)data)[index];
    case FJ_DTYPE_I32: return ((const int32_t *)data)[index];
    case FJ_DTYPE_I64: return (double)((const int64_t *)data)[index];
    case FJ_DTYPE_F16: return load_f16(((const uint16_t *)data)[index]);
    case FJ_DTYPE_BF16: return (double)from_bits((uint32_t)((const uint16_t *)data)[index] << 16);
    case FJ_DTYPE_F32: return (double)((const float *)data)[index];
    case FJ_DTYPE_F64: return ((const double *)data)[index];
    case FJ_DTYPE_F8_E4M3:
    case FJ_DTYPE_F8_E5M2:
    case FJ_DTYPE_COUNT: break;
    }
    return 0;
}

void cli_store(fj_dtype dtype, void *data, size_t index, double value) {
    switch (dtype) {
    case FJ_DTYPE_BOOL: ((uint8_t *)data)[index] = value != 0; break;
    case FJ_DTYPE_U8: ((uint8_t *)data)[index] = (uint8_t)value; break;
    case FJ_DTYPE_I8: ((int8_t *)data)[index] = (int8_t)value; break;
    case FJ_DTYPE_I16: ((int16_t *)data)[index] = (int16_t)value; break;
    case FJ_DTYPE_I32: ((int32_t *)data)[index] = (int32_t)value; break;
    case FJ_DTYPE_I64: ((int64_t *)data)[index] = (int64_t)value; break;
    case FJ_DTYPE_F16: ((uint16_t *)data)[index] = store_f16(value); break;
    case FJ_DTYPE_BF16: ((uint16_t *)data)[index] = store_bf16(value); break;
    case FJ_DTYPE_F32: ((float *)data)[index] = (float)value; break;
    case FJ_DTYPE_F64: ((double *)data)[index] = value; break;
    case FJ_DTYPE_F8_E4M3:
    case FJ_DTYPE_F8_E5M2:
    case FJ_DTYPE_COUNT: break;
    }
}

/* ---- Random numbers ---------------------------------------------------------------------- */

uint64_t cli_random_bits(cli_random *random) {
    uint64_t bits = random->state += 0x9e3779b97f4a7c15u;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    return bits ^ bits >> 31;
}

/* Box and Muller's. */
double cli_random_normal(cli_random *random) {
    double u = ((double)(cli_random_bits(random) >> 11) + 1) * 0x1p-53;
    double v = (double)(cli_random_bits(random) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

int64_t cli_random_below(cli_random *random, int64_t bound) {
    return (int64_t)((double)(cli_random_bits(random) >> 11) * 0x1p-53 * (double)bound);
}
