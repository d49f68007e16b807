/* The instruction sets of the CPU that runs this. Plain C that needs nothing: the library includes it (jit/features.c), and
 * the files that fj_plan_emit_c writes contain it. */
#ifndef FJ_HOST_ISA_H
#define FJ_HOST_ISA_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>

static inline bool fj_isa_bit(uint32_t reg, int bit) { return (reg >> bit & 1) != 0; }

/* The best one: 0 any, 1 AVX2, 2 AVX-512, 3 AVX-512 BF16; each has those before it. Bits: Intel SDM volume 2, CPUID. The
 * compiler's own test also asks the operating system, whether it saves the registers; it does not know all bits. */
static inline int fj_isa_best(void) {
    uint32_t a, b, c, d, b7, a71;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    bool fma = fj_isa_bit(c, 12), f16c = fj_isa_bit(c, 29);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d)) return 0;
    if (!fma || !f16c || !fj_isa_bit(b7, 8 /* BMI2 */) || !__builtin_cpu_supports("avx2")) return 0;
    bool avx512 = fj_isa_bit(b7, 17 /* DQ */) && fj_isa_bit(b7, 28 /* CD */) && fj_isa_bit(b7, 30 /* BW */) &&
                  fj_isa_bit(b7, 31 /* VL */) && __builtin_cpu_supports("avx512f");
    if (!avx512) return 1;
    return a >= 1 && __get_cpuid_count(7, 1, &a71, &b, &c, &d) && fj_isa_bit(a71, 5) ? 3 : 2;
}

#else

static inline int fj_isa_best(void) { return 0; }

#endif

#endif
