// Arithmetic and conversions of prim.h for the emulator: the second half of prim_host.h.
//
// Exact operations are those of the host, which is IEEE (compile with -ffp-contract=off). Approximations are
// better than the hardware's: tests compare with the documented error, never with bits.
#ifndef FJ_CUDA_PRIM_HOST_MATH_H
#define FJ_CUDA_PRIM_HOST_MATH_H

// ---- Bits -------------------------------------------------------------------------------------------

template <class To, class From> FJ_DEVICE To fj_emu_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
FJ_DEVICE uint32_t fj_bits_from_f32(float a) { return fj_emu_bits<uint32_t>(a); }
FJ_DEVICE float fj_f32_from_bits(uint32_t a) { return fj_emu_bits<float>(a); }
FJ_DEVICE uint64_t fj_bits_from_f64(double a) { return fj_emu_bits<uint64_t>(a); }
FJ_DEVICE double fj_f64_from_bits(uint64_t a) { return fj_emu_bits<double>(a); }

FJ_DEVICE uint32_t fj_mulhi_u32(uint32_t a, uint32_t b) {
    return static_cast<uint32_t>((uint64_t{a} * b) >> 32);
}
FJ_DEVICE uint32_t fj_popcount(uint32_t a) { return static_cast<uint32_t>(__builtin_popcount(a)); }
FJ_DEVICE uint32_t fj_leading_zeros(uint32_t a) { return a ? static_cast<uint32_t>(__builtin_clz(a)) : 32; }
FJ_DEVICE uint32_t fj_reverse_bits(uint32_t a) {
    a = (a >> 16) | (a << 16);
    a = ((a >> 8) & 0x00ff00ffu) | ((a & 0x00ff00ffu) << 8);
    a = ((a >> 4) & 0x0f0f0f0fu) | ((a & 0x0f0f0f0fu) << 4);
    a = ((a >> 2) & 0x33333333u) | ((a & 0x33333333u) << 2);
    return ((a >> 1) & 0x55555555u) | ((a & 0x55555555u) << 1);
}
FJ_DEVICE uint32_t fj_permute_bytes(uint32_t a, uint32_t b, uint32_t s) {
    const uint64_t bytes = uint64_t{b} << 32 | a;
    uint32_t result = 0;
    for (uint32_t i = 0; i < 4; i++)
        result |= static_cast<uint32_t>(bytes >> (8 * ((s >> (4 * i)) & 7)) & 0xff) << (8 * i);
    return result;
}

// ---- Exact ------------------------------------------------------------------------------------------

FJ_DEVICE float fj_add_rn(float a, float b) { return a + b; }
FJ_DEVICE float fj_sub_rn(float a, float b) { return a - b; }
FJ_DEVICE float fj_mul_rn(float a, float b) { return a * b; }
FJ_DEVICE float fj_fma_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FJ_DEVICE float fj_div_rn(float a, float b) { return a / b; }
FJ_DEVICE float fj_rcp_rn(float a) { return 1.0f / a; }
FJ_DEVICE float fj_sqrt_rn(float a) { return __builtin_sqrtf(a); }
FJ_DEVICE double fj_add_rn(double a, double b) { return a + b; }
FJ_DEVICE double fj_sub_rn(double a, double b) { return a - b; }
FJ_DEVICE double fj_mul_rn(double a, double b) { return a * b; }
FJ_DEVICE double fj_fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
FJ_DEVICE double fj_div_rn(double a, double b) { return a / b; }
FJ_DEVICE double fj_sqrt_rn(double a) { return __builtin_sqrt(a); }

FJ_DEVICE bool fj_emu_less(float a, float b) { // -0 before +0
    return a < b || (a == b && (fj_bits_from_f32(a) >> 31) > (fj_bits_from_f32(b) >> 31));
}
FJ_DEVICE float fj_min_nan(float a, float b) {
    return a != a || b != b ? fj_f32_from_bits(0x7fffffffu) : fj_emu_less(b, a) ? b : a;
}
FJ_DEVICE float fj_max_nan(float a, float b) {
    return a != a || b != b ? fj_f32_from_bits(0x7fffffffu) : fj_emu_less(a, b) ? b : a;
}
FJ_DEVICE float fj_min(float a, float b) { return fj_min_nan(a != a ? b : a, b != b ? a : b); }
FJ_DEVICE float fj_max(float a, float b) { return fj_max_nan(a != a ? b : a, b != b ? a : b); }
FJ_DEVICE float fj_round_even(float a) { return __builtin_rintf(a); }
FJ_DEVICE float fj_floor(float a) { return __builtin_floorf(a); }
FJ_DEVICE float fj_ceil(float a) { return __builtin_ceilf(a); }
FJ_DEVICE float fj_trunc(float a) { return __builtin_truncf(a); }

// ---- Approximations ---------------------------------------------------------------------------------

FJ_DEVICE float fj_emu_flush(float a) { // subnormals become 0 of their sign
    const uint32_t bits = fj_bits_from_f32(a);
    return bits & 0x7f800000u ? a : fj_f32_from_bits(bits & 0x80000000u);
}
FJ_DEVICE float fj_ex2_approx(float a) { return fj_emu_flush(__builtin_exp2f(fj_emu_flush(a))); }
FJ_DEVICE float fj_lg2_approx(float a) { return fj_emu_flush(__builtin_log2f(fj_emu_flush(a))); }
FJ_DEVICE float fj_rcp_approx(float a) { return fj_emu_flush(1.0f / fj_emu_flush(a)); }
FJ_DEVICE float fj_sqrt_approx(float a) { return fj_emu_flush(__builtin_sqrtf(fj_emu_flush(a))); }
FJ_DEVICE float fj_rsqrt_approx(float a) {
    return fj_emu_flush(static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(fj_emu_flush(a)))));
}
FJ_DEVICE float fj_div_approx(float a, float b) {
    const bool large = __builtin_fabsf(b) > 0x1p126f && __builtin_fabsf(b) <= __FLT_MAX__;
    return fj_emu_flush(fj_emu_flush(a) * (large ? __builtin_copysignf(0.0f, b) : 1.0f) /
                        (large ? 1.0f : fj_emu_flush(b)));
}
FJ_DEVICE float fj_tanh_approx(float a) { return __builtin_tanhf(a); }

// ---- Conversions ------------------------------------------------------------------------------------

FJ_DEVICE fj_f16 fj_f16_from_f32(float a) {
    const uint32_t bits = fj_bits_from_f32(a), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) return fj_f16{0x7fff};
    if (magnitude >= 0x47800000u) // 65536 and more, infinity
        half = 0x7c00u;
    else if (magnitude >=
             0x38800000u) // normal: the exponent loses 112, the mantissa 13 bits; carries into infinity
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13;
    else // subnormal: adding 0.5 leaves the mantissa in units of 2^-24, rounded by the host
        half = fj_bits_from_f32(fj_f32_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    return fj_f16{static_cast<uint16_t>(sign | half)};
}
FJ_DEVICE float fj_f32_from_f16(fj_f16 a) {
    const uint32_t sign = static_cast<uint32_t>(a.bits & 0x8000u) << 16, magnitude = a.bits & 0x7fffu;
    if (magnitude > 0x7c00u) return fj_f32_from_bits(0x7fffffffu);
    if (magnitude == 0x7c00u) return fj_f32_from_bits(sign | 0x7f800000u);
    if (magnitude >= 0x0400u) return fj_f32_from_bits(sign | ((magnitude << 13) + 0x38000000u));
    return fj_f32_from_bits(sign | fj_bits_from_f32(static_cast<float>(magnitude) * 0x1p-24f));
}
FJ_DEVICE fj_bf16 fj_bf16_from_f32(float a) {
    const uint32_t bits = fj_bits_from_f32(a);
    if (a != a) return fj_bf16{0x7fff};
    return fj_bf16{static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}
FJ_DEVICE float fj_f32_from_bf16(fj_bf16 a) { return fj_f32_from_bits(static_cast<uint32_t>(a.bits) << 16); }
FJ_DEVICE uint32_t fj_f16x2_from_f32(float low, float high) {
    return fj_f16_from_f32(low).bits | static_cast<uint32_t>(fj_f16_from_f32(high).bits) << 16;
}
FJ_DEVICE uint32_t fj_bf16x2_from_f32(float low, float high) {
    return fj_bf16_from_f32(low).bits | static_cast<uint32_t>(fj_bf16_from_f32(high).bits) << 16;
}
FJ_DEVICE float fj_f32_from_f16x2_low(uint32_t pair) {
    return fj_f32_from_f16(fj_f16{static_cast<uint16_t>(pair & 0xffffu)});
}
FJ_DEVICE float fj_f32_from_f16x2_high(uint32_t pair) {
    return fj_f32_from_f16(fj_f16{static_cast<uint16_t>(pair >> 16)});
}
FJ_DEVICE float fj_f32_from_bf16x2_low(uint32_t pair) { return fj_f32_from_bits(pair << 16); }
FJ_DEVICE float fj_f32_from_bf16x2_high(uint32_t pair) { return fj_f32_from_bits(pair & 0xffff0000u); }
#if FJ_HAS_MMA_BF16
FJ_DEVICE uint32_t fj_tf32_from_f32(float a) {
    const uint32_t bits = fj_bits_from_f32(a), finite = (bits & 0x7fffffffu) < 0x7f800000u;
    return (bits + (finite ? 0x1000u : 0)) & 0xffffe000u;
}
#endif

#endif
