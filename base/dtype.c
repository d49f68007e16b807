/* Data types: names, DLPack codes and exact conversions. */
#include "base/dtype.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct dtype_row {
    const char *name, *code_name;
    DLDataType dlpack;
    bool is_float;
} dtype_row;

static const dtype_row dtypes[] = {
#define ROW(upper, lower, text, code, bits, is_float) {text, #lower, {code, bits, 1}, is_float},
    FJ_DTYPES(ROW)
#undef ROW
};
_Static_assert(FJ_ARRAY_LEN(dtypes) == FJ_DTYPE_COUNT, "one row per fj_dtype, in its order");
#define CHECK(upper, lower, text, code, bits, is_float) +1
_Static_assert(FJ_DTYPE_F64 + 1 == 0 FJ_DTYPES(CHECK), "the table is complete");
#undef CHECK

const char *fj_dtype_name(fj_dtype dtype) { return dtypes[dtype].name; }
const char *fj_dtype_code_name(fj_dtype dtype) { return dtypes[dtype].code_name; }
size_t fj_dtype_size(fj_dtype dtype) { return dtypes[dtype].dlpack.bits / 8; }
DLDataType fj_dtype_to_dlpack(fj_dtype dtype) { return dtypes[dtype].dlpack; }
bool fj_dtype_is_float(fj_dtype dtype) { return dtypes[dtype].is_float; }

bool fj_dtype_parse(const char *name, fj_dtype *ret_dtype) {
    for (int i = 0; i < FJ_DTYPE_COUNT; i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            *ret_dtype = (fj_dtype)i;
            return true;
        }
    return false;
}

bool fj_dtype_from_dlpack(DLDataType dlpack, fj_dtype *ret_dtype) {
    for (int i = 0; i < FJ_DTYPE_COUNT; i++) {
        DLDataType row = dtypes[i].dlpack;
        if (row.code == dlpack.code && row.bits == dlpack.bits && dlpack.lanes == 1) {
            *ret_dtype = (fj_dtype)i;
            return true;
        }
    }
    return false;
}

/* ---- Small floats ------------------------------------------------------------------------------ */

/* A binary float of few bits: value = (1 + m / 2^mantissa) 2^(e - bias), subnormals at e = 0. */
typedef struct small_float {
    int exponent, mantissa, bias;
    bool has_inf; /* false: E4M3FN, only the all-ones pattern is NaN */
} small_float;

static const small_float half_format = {5, 10, 15, true};
static const small_float e4m3_format = {4, 3, 7, false};
static const small_float e5m2_format = {5, 2, 15, true};

static double small_decode(small_float format, uint32_t bits) {
    uint32_t ones = (1U << format.exponent) - 1, mantissa = bits & ((1U << format.mantissa) - 1);
    uint32_t exponent = bits >> format.mantissa & ones;
    double sign = bits >> (format.exponent + format.mantissa) & 1 ? -1.0 : 1.0;
    if (exponent == ones && format.has_inf) return mantissa ? (double)NAN : sign * (double)INFINITY;
    if (exponent == ones && !format.has_inf && mantissa == (1U << format.mantissa) - 1) return (double)NAN;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - format.bias - format.mantissa);
    return sign *
           ldexp((double)((1U << format.mantissa) | mantissa), (int)exponent - format.bias - format.mantissa);
}

/* Double to half, to nearest even in one rounding. */
static uint16_t half_encode(double value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs(value);
    if (isnan(value)) return sign | 0x7E00;
    if (magnitude >= 65520.0) return sign | 0x7C00;
    if (magnitude < ldexp(1.0, -14)) /* subnormal: a multiple of 2^-24 */
        return sign | (uint16_t)nearbyint(ldexp(magnitude, 24));
    int exponent;
    double fraction = frexp(magnitude, &exponent); /* in [0.5, 1) */
    uint32_t mantissa = (uint32_t)nearbyint(ldexp(fraction, 11));
    /* A carry out of the mantissa correctly increments the exponent. */
    return sign | (uint16_t)(((uint32_t)(exponent - 1 + 15) << 10) + (mantissa - 1024));
}

/* Double to bfloat16, to nearest even in one rounding (through float would round twice). */
static uint16_t bf16_encode(double value) {
    if (isnan(value)) return signbit(value) ? 0xFFC0 : 0x7FC0;
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs(value);
    int exponent;
    double fraction = frexp(magnitude, &exponent);
    if (magnitude == 0.0) return sign;
    if (isinf(value) || exponent > 128) return sign | 0x7F80;
    if (exponent < -125) /* subnormal: a multiple of 2^-133 */
        return sign | (uint16_t)nearbyint(ldexp(magnitude, 133));
    uint32_t mantissa = (uint32_t)nearbyint(ldexp(fraction, 8));
    return sign | (uint16_t)(((uint32_t)(exponent - 1 + 127) << 7) + (mantissa - 128));
}

static double bf16_decode(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return (double)value;
}

/* ---- Elements -------------------------------------------------------------------------------- */

double fj_dtype_load_float(fj_dtype dtype, const void *data, int64_t index) {
    switch (dtype) {
    case FJ_DTYPE_F64: return ((const double *)data)[index];
    case FJ_DTYPE_F32: return (double)((const float *)data)[index];
    case FJ_DTYPE_BF16: return bf16_decode(((const uint16_t *)data)[index]);
    case FJ_DTYPE_F16: return small_decode(half_format, ((const uint16_t *)data)[index]);
    case FJ_DTYPE_F8_E4M3: return small_decode(e4m3_format, ((const uint8_t *)data)[index]);
    case FJ_DTYPE_F8_E5M2: return small_decode(e5m2_format, ((const uint8_t *)data)[index]);
    default: return (double)fj_dtype_load_int(dtype, data, index);
    }
}

int64_t fj_dtype_load_int(fj_dtype dtype, const void *data, int64_t index) {
    switch (dtype) {
    case FJ_DTYPE_BOOL: return ((const uint8_t *)data)[index] != 0;
    case FJ_DTYPE_I8: return ((const int8_t *)data)[index];
    case FJ_DTYPE_U8: return ((const uint8_t *)data)[index];
    case FJ_DTYPE_I16: return ((const int16_t *)data)[index];
    case FJ_DTYPE_I32: return ((const int32_t *)data)[index];
    case FJ_DTYPE_I64: return ((const int64_t *)data)[index];
    default: assert(false); return 0; /* not an integer dtype */
    }
}

void fj_dtype_store_float(fj_dtype dtype, void *data, int64_t index, double value) {
    switch (dtype) {
    case FJ_DTYPE_F64: ((double *)data)[index] = value; break;
    case FJ_DTYPE_F32: ((float *)data)[index] = (float)value; break;
    case FJ_DTYPE_BF16: ((uint16_t *)data)[index] = bf16_encode(value); break;
    case FJ_DTYPE_F16: ((uint16_t *)data)[index] = half_encode(value); break;
    default: assert(false); /* not a dtype that is written */
    }
}

double fj_dtype_round(fj_dtype dtype, double value) {
    switch (dtype) {
    case FJ_DTYPE_F32: return (double)(float)value;
    case FJ_DTYPE_BF16: return bf16_decode(bf16_encode(value));
    case FJ_DTYPE_F16: return small_decode(half_format, half_encode(value));
    default: return value;
    }
}
