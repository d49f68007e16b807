/* What this CPU, and its operating system, can run. */
#include "jit/jit.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[] = {
    [FJ_ISA_PORTABLE] = "portable",
    [FJ_ISA_AVX2] = "avx2",
    [FJ_ISA_AVX512] = "avx512",
    [FJ_ISA_AVX512BF16] = "avx512bf16",
};
_Static_assert(FJ_ARRAY_LEN(names) == FJ_ISA_COUNT, "a name for each");

const char *fj_jit_isa_name(fj_isa isa) { return names[isa]; }

#if defined(__x86_64__)

static bool has(uint32_t reg, int bit) { return (reg >> bit & 1) != 0; }

/* Bits: Intel SDM volume 2, CPUID. The compiler's own test also asks the operating system, whether it
 * saves the registers; it does not know all bits. */
static void look(fj_features *features) {
    uint32_t a, b, c, d, b7, a71;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return;
    bool fma = has(c, 12), f16c = has(c, 29);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c, &d)) return;
    bool avx2 = fma && f16c && has(b7, 8 /* BMI2 */) && __builtin_cpu_supports("avx2");
    bool avx512 = avx2 && has(b7, 17 /* DQ */) && has(b7, 28 /* CD */) && has(b7, 30 /* BW */) &&
                  has(b7, 31 /* VL */) && __builtin_cpu_supports("avx512f");
    features->isa[FJ_ISA_AVX2] = avx2;
    features->isa[FJ_ISA_AVX512] = avx512;
    features->isa[FJ_ISA_AVX512BF16] =
        avx512 && a >= 1 && __get_cpuid_count(7, 1, &a71, &b, &c, &d) && has(a71, 5);
}

#else

static void look(fj_features *features) { (void)features; }

#endif

fj_features fj_jit_features(void) {
    fj_features features = {.isa = {[FJ_ISA_PORTABLE] = true}};
    look(&features);
    return features;
}
