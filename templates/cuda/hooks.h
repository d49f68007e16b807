// What the hooks of a mod are made of: the operations of expr/ir/ops.def for one thread, and reads of captured
// tensors. templates/cuda/hooks.md is the contract.
//
// 1. Every operation is defined for all its arguments, as ops.def says; ints wrap.
// 2. Arithmetic is IEEE, op by op: nothing is contracted. Functions are those of the compiler's accurate
//    library (a few ulp), except for *_approx.
// 3. A read outside of a tensor touches no memory and gives 0. An index in [-n, -1] counts from the end.
// 4. A mod is unrolled over all scores of a thread: what is long stands in the text once and is called
//    (FJ_CALLED). A call costs less than the function; copies of it cost seconds of compile time.
#ifndef FJ_CUDA_HOOKS_H
#define FJ_CUDA_HOOKS_H

#include "defaults.h"

#include "prim.h"

#include "abi.h"

#ifdef __CUDACC_RTC__
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
#define INT64_MIN (-9223372036854775807LL - 1)
#define INT64_MAX 9223372036854775807LL
#define NAN fj_f32_from_bits(0x7fc00000u)
#define INFINITY fj_f32_from_bits(0x7f800000u)
#else
// Not <math.h>: the C++ library's takes a third of the time that a kernel's text is read in.
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#endif

// Of a member function.
#ifdef __CUDACC_RTC__
#define FJ_METHOD __device__ __forceinline__
#define FJ_CALLED static __device__ __noinline__
#else
#define FJ_METHOD inline __attribute__((always_inline))
#define FJ_CALLED static __attribute__((noinline, unused))
#endif

#if FJ_REAL_F64
typedef double fj_real;
#define FJ_MOST_REAL 1.7976931348623157e308
#define FJ_LIBM_NAME(name) name
#else
typedef float fj_real;
#define FJ_MOST_REAL 3.40282347e38f
#define FJ_LIBM_NAME(name) name##f
#endif
#ifdef __CUDACC_RTC__
#define FJ_LIBM(name) FJ_LIBM_NAME(name)
#else
#define FJ_LIBM_BUILTIN(name) __builtin_##name
#define FJ_LIBM_EXPANDED(name) FJ_LIBM_BUILTIN(name)
#define FJ_LIBM(name) FJ_LIBM_EXPANDED(FJ_LIBM_NAME(name))
#endif
#define FJ_LOG2_E fj_real(1.44269504088896340736)
typedef fj_real fj_f;
typedef int32_t fj_i;
typedef int64_t fj_l;
typedef bool fj_b;

#include "expr/ir/interval_rules.h"

// ---- Ints and bools ------------------------------------------------------------------------------------

#define FJ_INT_OPS(T, U, width)                                                                    \
    FJ_DEVICE T fj_add(T a, T b) { return static_cast<T>(static_cast<U>(a) + static_cast<U>(b)); } \
    FJ_DEVICE T fj_sub(T a, T b) { return static_cast<T>(static_cast<U>(a) - static_cast<U>(b)); } \
    FJ_DEVICE T fj_mul(T a, T b) { return static_cast<T>(static_cast<U>(a) * static_cast<U>(b)); } \
    FJ_DEVICE T fj_neg(T a) { return static_cast<T>(0 - static_cast<U>(a)); }                      \
    FJ_DEVICE T fj_abs(T a) { return a < 0 ? fj_neg(a) : a; }                                      \
    FJ_DEVICE T fj_sign(T a) { return static_cast<T>((a > 0) - (a < 0)); }                         \
    FJ_DEVICE T fj_minimum(T a, T b) { return a < b ? a : b; }                                     \
    FJ_DEVICE T fj_maximum(T a, T b) { return a > b ? a : b; }                                     \
    FJ_DEVICE T fj_floordiv(T a, T b) {                                                            \
        if (b == 0) return 0;                                                                      \
        if (b == -1) return fj_neg(a);                                                             \
        return static_cast<T>(a / b - (a % b != 0 && (a < 0) != (b < 0)));                         \
    }                                                                                              \
    FJ_DEVICE T fj_fmod(T a, T b) { return b == 0 || b == -1 ? 0 : a % b; }                        \
    FJ_DEVICE T fj_floormod(T a, T b) {                                                            \
        const T r = fj_fmod(a, b);                                                                 \
        return r != 0 && (a < 0) != (b < 0) ? r + b : r;                                           \
    }                                                                                              \
    FJ_DEVICE T fj_ipow(T base, T exponent) {                                                      \
        if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;    \
        U power = static_cast<U>(base), result = 1;                                                \
        for (U rest = static_cast<U>(exponent); rest != 0; rest >>= 1) {                           \
            if (rest & 1) result *= power;                                                         \
            power *= power;                                                                        \
        }                                                                                          \
        return static_cast<T>(result);                                                             \
    }                                                                                              \
    FJ_DEVICE T fj_and(T a, T b) { return a & b; }                                                 \
    FJ_DEVICE T fj_or(T a, T b) { return a | b; }                                                  \
    FJ_DEVICE T fj_xor(T a, T b) { return a ^ b; }                                                 \
    FJ_DEVICE T fj_not(T a) { return ~a; }                                                         \
    FJ_DEVICE T fj_shl(T a, T b) {                                                                 \
        return b < 0 || b >= width ? 0 : static_cast<T>(static_cast<U>(a) << b);                   \
    }                                                                                              \
    FJ_DEVICE T fj_shr(T a, T b) { return b < 0 || b >= width ? (a < 0 ? -1 : 0) : a >> b; }       \
    FJ_DEVICE bool fj_cast_bool(T a) { return a != 0; }                                            \
    FJ_DEVICE int32_t fj_cast_i32(T a) { return static_cast<int32_t>(a); }                         \
    FJ_DEVICE int64_t fj_cast_i64(T a) { return a; }                                               \
    FJ_DEVICE fj_real fj_cast_float(T a) { return static_cast<fj_real>(a); }
FJ_INT_OPS(int32_t, uint32_t, 32)
FJ_INT_OPS(int64_t, uint64_t, 64)
#undef FJ_INT_OPS

FJ_DEVICE bool fj_and(bool a, bool b) { return a & b; }
FJ_DEVICE bool fj_or(bool a, bool b) { return a | b; }
FJ_DEVICE bool fj_xor(bool a, bool b) { return a != b; }
FJ_DEVICE bool fj_not(bool a) { return !a; }
FJ_DEVICE bool fj_cast_bool(bool a) { return a; }
FJ_DEVICE int32_t fj_cast_i32(bool a) { return a; }
FJ_DEVICE int64_t fj_cast_i64(bool a) { return a; }
FJ_DEVICE fj_real fj_cast_float(bool a) { return a ? fj_real(1) : fj_real(0); }

// ---- Floats --------------------------------------------------------------------------------------------

FJ_DEVICE fj_real fj_add(fj_real a, fj_real b) { return fj_add_rn(a, b); }
FJ_DEVICE fj_real fj_sub(fj_real a, fj_real b) { return fj_sub_rn(a, b); }
FJ_DEVICE fj_real fj_mul(fj_real a, fj_real b) { return fj_mul_rn(a, b); }
FJ_DEVICE fj_real fj_div(fj_real a, fj_real b) { return fj_div_rn(a, b); }
FJ_DEVICE fj_real fj_neg(fj_real a) { return -a; }
FJ_DEVICE fj_real fj_abs(fj_real a) { return FJ_LIBM(fabs)(a); }
FJ_DEVICE fj_real fj_sign(fj_real a) { return static_cast<fj_real>((a > 0) - (a < 0)); }
FJ_DEVICE fj_real fj_minimum(fj_real a, fj_real b) { return a < b || a != a ? a : b; }
FJ_DEVICE fj_real fj_maximum(fj_real a, fj_real b) { return a > b || a != a ? a : b; }
FJ_CALLED fj_real fj_fmod(fj_real a, fj_real b) { return FJ_LIBM(fmod)(a, b); }
FJ_CALLED fj_real fj_floormod(fj_real a, fj_real b) {
    const fj_real r = fj_fmod(a, b);
    return r != 0 && (b < 0) != (r < 0) ? r + b : r;
}
// Python's //: exact where the quotient is, never off by one near an integer.
FJ_CALLED fj_real fj_floordiv(fj_real a, fj_real b) {
    if (b == 0) return a / b;
    const fj_real r = fj_fmod(a, b);
    fj_real quotient = fj_div_rn(a - r, b);
    if (r != 0 && (b < 0) != (r < 0)) quotient -= 1;
    if (quotient == 0) return FJ_LIBM(copysign)(fj_real(0), a / b);
    const fj_real floored = FJ_LIBM(floor)(quotient);
    return quotient - floored > fj_real(0.5) ? floored + 1 : floored;
}

#define FJ_FLOAT_OP(how, name) \
    how fj_real fj_##name(fj_real a) { return FJ_LIBM(name)(a); }
#define FJ_FLOAT_OP2(name) \
    FJ_CALLED fj_real fj_##name(fj_real a, fj_real b) { return FJ_LIBM(name)(a, b); }
// Short in float.
#if FJ_REAL_F64
FJ_FLOAT_OP(FJ_CALLED, exp)
FJ_FLOAT_OP(FJ_CALLED, exp2)
FJ_FLOAT_OP(FJ_CALLED, tanh)
FJ_FLOAT_OP(FJ_DEVICE, floor)
FJ_FLOAT_OP(FJ_DEVICE, ceil)
FJ_FLOAT_OP(FJ_DEVICE, trunc)
FJ_DEVICE double fj_tanh_approx(double a) { return fj_tanh(a); } // the hardware's is float
#else
FJ_FLOAT_OP(FJ_DEVICE, exp)
FJ_FLOAT_OP(FJ_DEVICE, exp2)
FJ_FLOAT_OP(FJ_DEVICE, tanh)
#endif
FJ_FLOAT_OP(FJ_CALLED, log)
FJ_FLOAT_OP(FJ_CALLED, log2)
FJ_FLOAT_OP(FJ_CALLED, log1p)
FJ_FLOAT_OP(FJ_CALLED, expm1)
FJ_FLOAT_OP(FJ_CALLED, sin)
FJ_FLOAT_OP(FJ_CALLED, cos)
FJ_FLOAT_OP(FJ_CALLED, tan)
FJ_FLOAT_OP(FJ_CALLED, asin)
FJ_FLOAT_OP(FJ_CALLED, acos)
FJ_FLOAT_OP(FJ_CALLED, atan)
FJ_FLOAT_OP(FJ_CALLED, sinh)
FJ_FLOAT_OP(FJ_CALLED, cosh)
FJ_FLOAT_OP(FJ_CALLED, erf)
FJ_FLOAT_OP(FJ_CALLED, erfc)
FJ_FLOAT_OP2(pow)
FJ_FLOAT_OP2(atan2)
#undef FJ_FLOAT_OP
#undef FJ_FLOAT_OP2
FJ_DEVICE fj_real fj_sqrt(fj_real a) { return fj_sqrt_rn(a); }
FJ_CALLED fj_real fj_rsqrt(fj_real a) { return fj_div_rn(fj_real(1), fj_sqrt_rn(a)); }
FJ_DEVICE fj_real fj_sigmoid(fj_real a) { return fj_div_rn(fj_real(1), fj_add_rn(fj_real(1), fj_exp(-a))); }
FJ_DEVICE fj_real fj_round(fj_real a) { return FJ_LIBM(rint)(a); }
FJ_DEVICE bool fj_isnan(fj_real a) { return a != a; }
FJ_DEVICE bool fj_isinf(fj_real a) { return FJ_LIBM(fabs)(a) == fj_real(INFINITY); }

FJ_DEVICE bool fj_cast_bool(fj_real a) { return a != 0; }
FJ_DEVICE int32_t fj_cast_i32(fj_real a) {
    if (a != a) return 0;
    if (a <= fj_real(-2147483648.0)) return INT32_MIN;
    return a >= fj_real(2147483647.0) ? INT32_MAX : static_cast<int32_t>(a);
}
FJ_DEVICE int64_t fj_cast_i64(fj_real a) {
    if (a != a) return 0;
    if (a <= fj_real(-9223372036854775808.0)) return INT64_MIN;
    return a >= fj_real(9223372036854775807.0) ? INT64_MAX : static_cast<int64_t>(a);
}

// ---- Captured tensors ------------------------------------------------------------------------------------

// What hooks read: the captures and run-time scalars that follow a kernel's arguments. And the block mask before them.
struct fj_mod_args {
    const struct fj_cuda_capture *captures;
    const struct fj_cuda_scalar *scalars;
#if FJ_BLOCK_MASK
    const struct fj_cuda_block_mask *blocks;
#endif
};

// Indices of a read, each int32_t or int64_t. With FJ_WIDE_CAPTURES 0, no dimension of a capture exceeds 2^31 - 1,
// and an int32_t index is tested and wrapped in 32 bits. Offsets have 64 always.
template <class... T> struct fj_indices {
    fj_l at[sizeof...(T)];
    FJ_METHOD constexpr fj_indices(T... index) : at{static_cast<fj_l>(index)...} {}
    FJ_METHOD operator const fj_l *() const { return at; }
    FJ_METHOD static constexpr bool is_narrow(int d) {
        const bool narrow[] = {sizeof(T) == sizeof(int32_t)...};
        return narrow[d] && !FJ_WIDE_CAPTURES;
    }
};

// The element's offset, or -1.
template <class... T>
FJ_DEVICE int64_t fj_locate(const struct fj_cuda_capture *t, int rank, const fj_indices<T...> &indices) {
    int64_t offset = 0;
    bool inside = true;
#pragma unroll
    for (int d = 0; d < rank; d++) {
        if (fj_indices<T...>::is_narrow(d)) {
            const int32_t n = static_cast<int32_t>(t->shape[d]), at = static_cast<int32_t>(indices.at[d]);
            const int32_t i = at < 0 ? fj_add(at, n) : at;
            inside &= static_cast<uint32_t>(i) < static_cast<uint32_t>(n);
            offset += i * t->stride[d];
        } else {
            const int64_t n = t->shape[d], at = indices.at[d], i = at < 0 ? at + n : at;
            inside &= static_cast<uint64_t>(i) < static_cast<uint64_t>(n);
            offset += i * t->stride[d];
        }
    }
    return inside ? offset : -1;
}
FJ_DEVICE int64_t fj_locate(const struct fj_cuda_capture *, int, const fj_l *) { return 0; } // of rank 0
template <class I>
FJ_DEVICE bool fj_out_of_range(const struct fj_cuda_capture *t, int rank, const I &indices) {
    return fj_locate(t, rank, indices) < 0;
}

FJ_DEVICE float fj_f32_from_e5m2(uint8_t a) { return fj_f32_from_f16(fj_f16{static_cast<uint16_t>(a << 8)}); }
FJ_DEVICE float fj_f32_from_e4m3(uint8_t a) {
    const uint32_t sign = static_cast<uint32_t>(a & 0x80) << 24, rest = a & 0x7fu;
    if (rest == 0x7f) return fj_f32_from_bits(sign | 0x7fc00000u);
    // 2^120 moves the bias of 7 to 127; the product is exact, subnormals included.
    return fj_mul_rn(fj_f32_from_bits(sign | rest << 20), fj_f32_from_bits(0x7b800000u));
}

#define FJ_LOAD(name, element, value, convert)                                                    \
    template <class I>                                                                            \
    FJ_DEVICE value fj_load_##name(const struct fj_cuda_capture *t, int rank, const I &indices) { \
        const int64_t offset = fj_locate(t, rank, indices);                                       \
        if (offset < 0) return value(0);                                                          \
        const element x = static_cast<const element *>(t->data)[offset];                          \
        return convert;                                                                           \
    }
FJ_LOAD(bool, uint8_t, fj_b, x != 0)
FJ_LOAD(i8, int8_t, fj_i, x)
FJ_LOAD(u8, uint8_t, fj_i, x)
FJ_LOAD(i16, int16_t, fj_i, x)
FJ_LOAD(i32, int32_t, fj_i, x)
FJ_LOAD(i64, int64_t, fj_l, x)
FJ_LOAD(f8_e4m3, uint8_t, fj_f, fj_f32_from_e4m3(x))
FJ_LOAD(f8_e5m2, uint8_t, fj_f, fj_f32_from_e5m2(x))
FJ_LOAD(f16, fj_f16, fj_f, fj_f32_from_f16(x))
FJ_LOAD(bf16, fj_bf16, fj_f, fj_f32_from_bf16(x))
FJ_LOAD(f32, float, fj_f, x)
FJ_LOAD(f64, double, fj_f, static_cast<fj_f>(x))
#undef FJ_LOAD

// ---- Counts ----------------------------------------------------------------------------------------------

// a / b and a % b, neither negative: half the instructions of what ints take.
struct fj_quotient {
    int32_t whole, rest;
};
FJ_DEVICE fj_quotient fj_divide(int32_t a, int32_t b) {
    const uint32_t whole = static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return fj_quotient{static_cast<int32_t>(whole), a - static_cast<int32_t>(whole) * b};
}

// ---- Lanes -----------------------------------------------------------------------------------------------

// What lane (own ^ mask) holds.
#if FJ_REAL_F64
FJ_DEVICE fj_real fj_neighbour(fj_real x, uint32_t mask) {
    const uint64_t bits = fj_bits_from_f64(x);
    const uint64_t high = fj_shuffle_xor(static_cast<uint32_t>(bits >> 32), mask);
    return fj_f64_from_bits(high << 32 | fj_shuffle_xor(static_cast<uint32_t>(bits), mask));
}
#else
FJ_DEVICE fj_real fj_neighbour(fj_real x, uint32_t mask) { return fj_shuffle_xor(x, mask); }
#endif

#include "capture_grads.h"

#endif
