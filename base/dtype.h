/* One row per data type; see fj_dtype in flexjit.h. Conversions go through double, or int64. */
#ifndef FJ_BASE_DTYPE_H
#define FJ_BASE_DTYPE_H

#include "base/base.h"

/* X(name, C lower-case name, safetensors name, DLPack code, bits, is_float) in the order of fj_dtype. */
#define FJ_DTYPES(X)                                          \
    X(BOOL, bool, "BOOL", kDLBool, 8, false)                  \
    X(I8, i8, "I8", kDLInt, 8, false)                         \
    X(U8, u8, "U8", kDLUInt, 8, false)                        \
    X(I16, i16, "I16", kDLInt, 16, false)                     \
    X(I32, i32, "I32", kDLInt, 32, false)                     \
    X(I64, i64, "I64", kDLInt, 64, false)                     \
    X(F8_E4M3, f8_e4m3, "F8_E4M3", kDLFloat8_e4m3fn, 8, true) \
    X(F8_E5M2, f8_e5m2, "F8_E5M2", kDLFloat8_e5m2, 8, true)   \
    X(F16, f16, "F16", kDLFloat, 16, true)                    \
    X(BF16, bf16, "BF16", kDLBfloat, 16, true)                \
    X(F32, f32, "F32", kDLFloat, 32, true)                    \
    X(F64, f64, "F64", kDLFloat, 64, true)

bool fj_dtype_is_float(fj_dtype dtype);
/* "f32": the name used inside generated code. */
const char *fj_dtype_code_name(fj_dtype dtype);

/* Element `index` of an array of dtype. Floats load as double; ints and bools as int64. */
double fj_dtype_load_float(fj_dtype dtype, const void *data, int64_t index);
int64_t fj_dtype_load_int(fj_dtype dtype, const void *data, int64_t index);
/* Rounds to nearest even; F16, BF16, F32, F64 only. */
void fj_dtype_store_float(fj_dtype dtype, void *data, int64_t index, double value);
/* value rounded to dtype (F16, BF16, F32, F64) and back. */
double fj_dtype_round(fj_dtype dtype, double value);

#endif
