// Arithmetic and conversions, on 128 words each.
#include "prim_args.h"

// In: per lane a, b, c. Out: one word of each operation.
FJ_KERNEL(prim_exact, 128, 1, prim_args) {
    const uint32_t *in = prim_in(args, 3);
    uint32_t *out = prim_out(args, 16);
    const float a = prim_float(in[0]), b = prim_float(in[1]), c = prim_float(in[2]);
    out[0] = fj_bits_from_f32(fj_add_rn(a, b));
    out[1] = fj_bits_from_f32(fj_sub_rn(a, b));
    out[2] = fj_bits_from_f32(fj_mul_rn(a, b));
    out[3] = fj_bits_from_f32(fj_fma_rn(a, b, c));
    out[4] = fj_bits_from_f32(fj_add_rn(fj_mul_rn(a, b), c));
    out[5] = fj_bits_from_f32(fj_div_rn(a, b));
    out[6] = fj_bits_from_f32(fj_rcp_rn(a));
    out[7] = fj_bits_from_f32(fj_sqrt_rn(a));
    out[8] = fj_bits_from_f32(fj_min(a, b));
    out[9] = fj_bits_from_f32(fj_max(a, b));
    out[10] = fj_bits_from_f32(fj_min_nan(a, b));
    out[11] = fj_bits_from_f32(fj_max_nan(a, b));
    out[12] = fj_bits_from_f32(fj_round_even(a));
    out[13] = fj_bits_from_f32(fj_floor(a));
    out[14] = fj_bits_from_f32(fj_ceil(a));
    out[15] = fj_bits_from_f32(fj_trunc(a));
}

// The same for doubles, made of two words.
FJ_KERNEL(prim_exact_f64, 128, 1, prim_args) {
    const uint32_t *in = prim_in(args, 6);
    uint32_t *out = prim_out(args, 12);
    double x[3];
    for (uint32_t i = 0; i < 3; i++)
        x[i] = fj_f64_from_bits(static_cast<uint64_t>(in[2 * i + 1]) << 32 | in[2 * i]);
    const double results[6] = {fj_add_rn(x[0], x[1]), fj_sub_rn(x[0], x[1]),       fj_mul_rn(x[0], x[1]),
                               fj_div_rn(x[0], x[1]), fj_fma_rn(x[0], x[1], x[2]), fj_sqrt_rn(x[0])};
    for (uint32_t i = 0; i < 6; i++) {
        out[2 * i] = static_cast<uint32_t>(fj_bits_from_f64(results[i]));
        out[2 * i + 1] = static_cast<uint32_t>(fj_bits_from_f64(results[i]) >> 32);
    }
}

FJ_KERNEL(prim_integer, 128, 1, prim_args) {
    const uint32_t *in = prim_in(args, 3);
    uint32_t *out = prim_out(args, 5);
    out[0] = fj_mulhi_u32(in[0], in[1]);
    out[1] = fj_popcount(in[0]);
    out[2] = fj_leading_zeros(in[0] >> (in[1] & 31));
    out[3] = fj_reverse_bits(in[0]);
    out[4] = fj_permute_bytes(in[0], in[1], in[2]);
}

#define PRIM_APPROX(name, expression)                      \
    FJ_KERNEL(name, 128, 1, prim_args) {                   \
        const float a = prim_float(*prim_in(args, 1));     \
        *prim_out(args, 1) = fj_bits_from_f32(expression); \
    }
PRIM_APPROX(prim_ex2_approx, fj_ex2_approx(a))
PRIM_APPROX(prim_lg2_approx, fj_lg2_approx(a))
PRIM_APPROX(prim_rcp_approx, fj_rcp_approx(a))
PRIM_APPROX(prim_rsqrt_approx, fj_rsqrt_approx(a))
PRIM_APPROX(prim_sqrt_approx, fj_sqrt_approx(a))
PRIM_APPROX(prim_div_approx, fj_div_approx(1.5f, a))
PRIM_APPROX(prim_tanh_approx, fj_tanh_approx(a))

// In: per lane two floats.
FJ_KERNEL(prim_convert, 128, 1, prim_args) {
    const uint32_t *in = prim_in(args, 2);
    uint32_t *out = prim_out(args, 5);
    const float a = prim_float(in[0]), b = prim_float(in[1]);
    out[0] = fj_f16_from_f32(a).bits;
    out[1] = fj_bf16_from_f32(a).bits;
    out[2] = fj_f16x2_from_f32(a, b);
    out[3] = fj_bf16x2_from_f32(a, b);
#if FJ_HAS_MMA_BF16
    out[4] = fj_tf32_from_f32(a);
#else
    out[4] = 0;
#endif
}

// In: pairs of 16-bit floats.
FJ_KERNEL(prim_unpack, 128, 1, prim_args) {
    const uint32_t in = *prim_in(args, 1);
    uint32_t *out = prim_out(args, 6);
    out[0] = fj_bits_from_f32(fj_f32_from_f16(fj_f16{static_cast<uint16_t>(in & 0xffffu)}));
    out[1] = fj_bits_from_f32(fj_f32_from_bf16(fj_bf16{static_cast<uint16_t>(in & 0xffffu)}));
    out[2] = fj_bits_from_f32(fj_f32_from_f16x2_low(in));
    out[3] = fj_bits_from_f32(fj_f32_from_f16x2_high(in));
    out[4] = fj_bits_from_f32(fj_f32_from_bf16x2_low(in));
    out[5] = fj_bits_from_f32(fj_f32_from_bf16x2_high(in));
}
