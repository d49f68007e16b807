/* Registers and spills of what a user gets first, for every architecture: NVRTC needs no GPU. Where the first variant
 * of a problem spills, the next is looked at, as a caller does; one without spills has to be there, and nothing may be
 * warned of. Results leave in vectors of 16 bytes. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/dtype.h"
#include "jit/toolchain.h"
#include "tests/kern/kern.h"
#include "tests/support/machine.h"

static const int archs[] = {75, 80, 86, 89, 90, 100, 120};
static const fj_dtype dtypes[] = {FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_BF16, FJ_DTYPE_F16, FJ_DTYPE_BF16};
static const int dims[][2] = {{64, 64}, {128, 128}, {192, 128}, {256, 256}, {40, 72}};
static const char *const names[] = {"none",     "causal", "alibi", "softcap", "bias",    "document",
                                    "relative", "slope",  "none",  "causal",  "relative"};

enum {
    ARCHS = FJ_ARRAY_LEN(archs),
    DTYPES = FJ_ARRAY_LEN(dtypes),
    DIMS = FJ_ARRAY_LEN(dims),
    NAMES = FJ_ARRAY_LEN(names),
    PLAIN_NAMES = 8, /* from there on with block masks */
    ALL = 2 * ARCHS * DTYPES * DIMS * NAMES,
    SOME = 28,     /* without --long; with --day half of them, in turn */
    STRIDE = 1187, /* has no factor of ALL: a walk through all of them */
};

typedef struct survey {
    const range *r;
    fj_toolchain toolchain;
    int first;
} survey;

static void make_kernel(kernel *k, int *ret_arch, int n) {
    const int direction = n % 2, arch = n / 2 % ARCHS, dtype = n / 2 / ARCHS % DTYPES,
              dim = n / 2 / ARCHS / DTYPES % DIMS, name = n / 2 / ARCHS / DTYPES / DIMS;
    const mod *m = mod_find(names[name]);
    const graphs g = mod_graphs(m);
    *ret_arch = archs[arch];
    *k = (kernel){.problem = {.kind = direction ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD,
                              .ir = g.ir,
                              .gradient = direction ? g.gradient : NULL,
                              .dtype = dtypes[dtype],
                              .head_dim = dims[dim][0],
                              .value_dim = dims[dim][1],
                              .deterministic = true,
                              .block_mask = name >= PLAIN_NAMES},
                  .mod = m};
}

/* Of this process and of those it waited for: NVRTC runs in one of its own. */
static double milliseconds(void) {
    double sum = 0;
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (size_t i = 0; i < FJ_ARRAY_LEN(whose); i++) {
        struct rusage used;
        (void)getrusage(whose[i], &used);
        sum += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e3 +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e3;
    }
    return sum;
}

/* O, or each of dQ, dK and dV, where they are aligned: one place of each kernel. The simt templates store elements. */
static bool stores_vectors(const kernel *k, const fj_compiled *compiled, FILE *out) {
    const int results = k->problem.kind == FJ_JIT_BACKWARD ? 3 : 1;
    const machine_counts counts = machine_count(compiled->bytes.data, compiled->bytes.len);
    if (!k->variant.mma || counts.stores[16] >= results) return true;
    (void)fprintf(out, "    %d stores of 16 bytes instead of %d; of 8, %d; of 4, %d; of 2, %d\n",
                  counts.stores[16], results, counts.stores[8], counts.stores[4], counts.stores[2]);
    return false;
}

/* Bytes of spills over all entries; -1: it was refused, something was said, or stores are not those expected. */
static int compile(const survey *s, const kernel *k, FILE *out) {
    fj_buf text;
    fj_compiled compiled;
    fj_options options;
    fj_error error = {0};
    int spills = -1;
    fj_buf_init(&text, &fj_allocator_libc);
    fj_jit_compiled_init(&compiled, &fj_allocator_libc);
    fj_jit_options(&k->variant, &options);
    const double from = milliseconds();
    if (!kernel_render(k, NULL, &text, out) ||
        fj_jit_toolchain_compile(&s->toolchain, &fj_file_ops_system, &k->variant, &options,
                                 (fj_str){text.data, text.len}, &compiled, &error) != FJ_OK) {
        (void)fprintf(out, "    %s %s\n", error.text, error.detail ? error.detail : "");
    } else {
        (void)fprintf(out, "%-56s %-7s %6.0f ms ", k->name, options.arch + strlen("--gpu-architecture="),
                      milliseconds() - from);
        spills = 0;
        for (int i = 0; i < compiled.resource_count; i++) {
            const fj_resources *x = &compiled.resources[i];
            spills += x->spill_stores + x->spill_loads;
            (void)fprintf(out, " %d", x->registers);
            if (x->spill_stores + x->spill_loads) (void)fprintf(out, " (spills %d)", x->spill_stores);
        }
        (void)fprintf(out, "\n");
        if (strstr(compiled.log.data, "warning"))
            spills = -1, (void)fprintf(out, "%.4000s\n", compiled.log.data);
        if (!stores_vectors(k, &compiled, out)) spills = -1;
    }
    if (compiled.resource_count < k->variant.entry_count) spills = -1;
    fj_error_finish(&error);
    fj_jit_compiled_finish(&compiled);
    fj_buf_finish(&text);
    return spills;
}

static isolate_result survey_one(void *user, int item, char where[ISOLATE_WHERE]) {
    const survey *s = user;
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    kernel k;
    int arch, spills = 1;
    make_kernel(&k, &arch, (int)((int64_t)(s->first + item) * STRIDE % ALL));
    const fj_features features = fj_jit_arch_features((fj_arch){arch, 0});
    const int count = fj_jit_cuda_variants(&k.problem, &features, list);
    bool asked = s->r->target_count == 0;
    for (int i = 0; i < s->r->target_count; i++) asked |= s->r->targets[i] == arch;
    for (int i = 0; i < count && spills > 0; i++) {
        k.variant = list[i];
        kernel_finish(&k);
        (void)snprintf(where, ISOLATE_WHERE, "%s", k.name);
        if (!asked || fnmatch(s->r->filter, k.name, 0) != 0) return ISOLATE_OK;
        spills = compile(s, &k, stdout);
    }
    if (spills == 0) return ISOLATE_OK;
    printf("FAIL %s: %s\n", k.name, spills < 0 ? "does not compile as expected" : "every variant spills");
    return ISOLATE_FAILED;
}

static void tell_death(void *user, int item, const char *where, const char *how) {
    (void)user, (void)item;
    printf("FAIL %s: NVRTC: %s\n", where, how);
}

int nvrtc_run(const range *r, int jobs) {
    survey s = {.r = r, .toolchain = {.target = FJ_TARGET_CUDA}};
    fj_error error = {0};
    if (fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &s.toolchain.nvrtc, &error) != FJ_OK) {
        printf("%s\n", error.text);
        fj_error_finish(&error);
        return 77;
    }
    const bool half = r->day && !r->all;
    if (half) s.first = (int)(r->day % 2) * SOME / 2;
    printf("%-56s %-7s %9s  registers of each entry\n", "kernel", "arch", "cpu time");
    const isolate all = {.count = r->all ? ALL
                                : half   ? SOME / 2
                                         : SOME,
                         .jobs = jobs,
                         .seconds = 300,
                         .user = &s,
                         .run = survey_one,
                         .died = tell_death};
    const int failed = isolate_run(&all);
    printf("%d problems, %d failed; day %lld\n", all.count, failed, (long long)r->day);
    return failed != 0;
}
