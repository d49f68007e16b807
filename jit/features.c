/* What this CPU, and its operating system, can run; and what the GPUs of an architecture have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jit/jit.h"
#include "templates/host/isa.h"

static const char *const names[] = {
    [FJ_ISA_PORTABLE] = "portable",
    [FJ_ISA_AVX2] = "avx2",
    [FJ_ISA_AVX512] = "avx512",
    [FJ_ISA_AVX512BF16] = "avx512bf16",
};
_Static_assert(FJ_ARRAY_LEN(names) == FJ_ISA_COUNT, "a name for each");

const char *fj_jit_isa_name(fj_isa isa) { return names[isa]; }

bool fj_jit_isa_parse(const char *name, fj_isa *ret_isa) {
    for (int isa = 0; isa < FJ_ISA_COUNT; isa++)
        if (strcmp(names[isa], name) == 0) return *ret_isa = (fj_isa)isa, true;
    return false;
}

fj_features fj_jit_isa_features(fj_isa isa) {
    fj_features features = {0};
    for (int i = 0; i <= (int)isa; i++) features.isa[i] = true;
    return features;
}

#if defined(__x86_64__)

/* The brand string: three leaves of 16 bytes, with blanks before and behind it. */
void fj_jit_cpu_name(char name[FJ_JIT_CPU_NAME]) {
    uint32_t words[12] = {0};
    for (unsigned int i = 0; i < 3; i++) {
        uint32_t *at = words + 4 * (size_t)i;
        if (!__get_cpuid(0x80000002u + i, &at[0], &at[1], &at[2], &at[3])) break;
    }
    char text[sizeof words + 1] = "";
    memcpy(text, words, sizeof words);
    const char *first = text + strspn(text, " ");
    size_t length = strlen(first);
    while (length > 0 && first[length - 1] == ' ') length--;
    memcpy(name, first, length);
    name[length] = '\0';
}

#else

void fj_jit_cpu_name(char name[FJ_JIT_CPU_NAME]) { name[0] = '\0'; }

#endif

static void look_at_machine(fj_features *features) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    features->cores = cores > 0 ? (int)cores : 0;
#ifdef _SC_LEVEL1_DCACHE_SIZE /* glibc */
    const long l1d = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE),
               l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    features->l1d = l1d > 0 ? l1d : 0;
    features->l2 = l2 > 0 ? l2 : 0;
    features->l3 = l3 > 0 ? l3 : 0;
#endif
}

fj_features fj_jit_features(void) {
    fj_features features = fj_jit_isa_features((fj_isa)fj_isa_best());
    look_at_machine(&features);
    return features;
}

/* ---- GPUs ------------------------------------------------------------------------------------------- */

static const char *const targets[] = {
    [FJ_TARGET_CPU] = "cpu", [FJ_TARGET_CUDA] = "cuda", [FJ_TARGET_EMU] = "emu"};
_Static_assert(FJ_ARRAY_LEN(targets) == FJ_TARGET_COUNT, "a name for each");

const char *fj_jit_target_name(fj_target target) { return targets[target]; }

void fj_jit_arch_name(fj_arch arch, char name[FJ_ARCH_NAME]) {
    const char suffix[2] = {arch.suffix, '\0'};
    (void)snprintf(name, FJ_ARCH_NAME, "sm_%d%s", arch.number, suffix);
}

/* Shared memory of a block with opt-in: CUDA C++ Programming Guide, technical specifications by compute
 * capability; 107 and 110 as CCCL's table of architectures has them. */
static const struct {
    int arch, multiprocessors, kilobytes;
} known[] = {
    {75, 40, 64},    {80, 108, 163}, {86, 84, 99},    {87, 16, 163},  {88, 20, 99},
    {89, 128, 99},   {90, 132, 227}, {100, 148, 227}, {101, 20, 227}, {103, 160, 227},
    {107, 148, 227}, {110, 20, 227}, {120, 170, 99},  {121, 48, 99},
};

static bool is_known(long number) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(known); i++)
        if (known[i].arch == number) return true;
    return false;
}

void fj_jit_arch_list(char list[FJ_ARCH_LIST]) {
    size_t length = 0;
    for (size_t i = 0; i < FJ_ARRAY_LEN(known); i++)
        length +=
            (size_t)snprintf(list + length, FJ_ARCH_LIST - length, "%ssm_%d", i ? " " : "", known[i].arch);
}

/* Suffixes: the PTX ISA, target architectures. */
bool fj_jit_arch_parse(const char *name, fj_arch *ret_arch) {
    char *end;
    const char *digits = strncmp(name, "sm_", 3) == 0 ? name + 3 : name;
    if (*digits < '1' || *digits > '9' || strlen(digits) > 6) return false;
    long number = strtol(digits, &end, 10);
    if (digits == name && end[0] == '.' && end[1] >= '0' && end[1] <= '9') { /* 9.0 */
        number = number * 10 + (end[1] - '0');
        end += 2;
    }
    char suffix = *end;
    if (suffix == 'a' || suffix == 'f') end++;
    if (*end != '\0' || !is_known(number)) return false;
    if ((suffix == 'a' && number < 90) || (suffix == 'f' && number < 100)) return false;
    *ret_arch = (fj_arch){(int)number, suffix};
    return true;
}

/* What is not known yet gets the least of its generation. */
fj_features fj_jit_arch_features(fj_arch arch) {
    fj_features features = {.arch = arch, .multiprocessors = 64, .shared_limit = 99 << 10};
    for (size_t i = 0; i < FJ_ARRAY_LEN(known); i++)
        if (known[i].arch == arch.number) {
            features.multiprocessors = known[i].multiprocessors;
            features.shared_limit = known[i].kilobytes << 10;
        }
    return features;
}
