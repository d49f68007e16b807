/* Tests and benchmarks of the cpu kernels' text, after dav1d's checkasm: what is tested is compiled here, held
 * against the definition in double, and timed by the same calls.
 *
 * usage: kern [--filter GLOB] [--all] [--bench] [--cc COMPILER] [--cflags FLAGS] [--seed N] [--day N|today] [--keep] [-v]
 *
 * A variant (direction, dtype, instruction set, head and value dimension, mod) is one compiled kernel; it runs on
 * every shape and layout. Each run has guards around and between all elements, NaN where nothing is to be read, a
 * workspace of exactly the size asked for, and happens twice: items in order on one worker, and in reverse order on
 * three. Both must give the same bits. */
#include <dlfcn.h>
#include <fnmatch.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/kern/kern.h"
#include "tests/kern/kern_problem.h"
#include "tests/support/isolate.h"

#ifndef KERN_SOURCE
#define KERN_SOURCE "."
#endif

enum { ISA_PORTABLE, ISA_AVX2, ISA_AVX512, ISA_AVX512BF16, ISA_COUNT };
static const struct {
    const char *name, *flags;
} isas[ISA_COUNT] = {
    {"portable", ""},
    {"avx2", "-DFJ_ISA_AVX2=1 -mavx2 -mfma -mf16c"},
    {"avx512",
     "-DFJ_ISA_AVX2=1 -DFJ_ISA_AVX512=1 -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl"},
    {"avx512bf16",
     "-DFJ_ISA_AVX2=1 -DFJ_ISA_AVX512=1 -DFJ_ISA_AVX512BF16=1 -mavx2 -mfma -mf16c -mavx512f -mavx512bw "
     "-mavx512dq -mavx512vl -mavx512bf16"},
};
enum { MOST_VARIANTS = 4096 };
static const char *const dtype_names[] = {"", "f16", "bf16", "f32", "f64"};

static struct options {
    const char *filter, *cc, *cflags;
    bool all, bench, keep, verbose;
    uint64_t seed;
    int64_t day; /* 0: all of what is chosen */
} options = {.filter = "*", .cc = "cc", .cflags = "", .seed = 1};

static int failures;                                         /* of this process */
static struct counts { atomic_int kernels, runs; } * counts; /* of all */
static char folder[64];

static bool has_isa(int isa) {
#ifdef __x86_64__
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == ISA_AVX2) return avx2;
    if (isa == ISA_AVX512) return avx512;
    if (isa == ISA_AVX512BF16) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
    return isa == ISA_PORTABLE;
}

/* ---- Building --------------------------------------------------------------------------------------- */

static void name_of(const variant *v, char name[96]) {
    snprintf(name, 96, "%s_%s_%s_e%d_v%d_%s", v->backward ? "bwd" : "fwd", dtype_names[v->dtype],
             isas[v->isa].name, v->head_dim, v->value_dim, v->mod->name);
}

static bool write_text(const variant *v, const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) return false;
    fprintf(
        file,
        "#define FJ_IN_DTYPE %d\n#define FJ_REAL_F64 %d\n#define FJ_HEAD_DIM %d\n#define FJ_VALUE_DIM %d\n",
        v->dtype, v->dtype == KERN_F64, v->head_dim, v->value_dim);
    fprintf(file, "#define FJ_WANT_MAX 1\n#include \"prim.h\"\n");
    static const char *const reaches[] = {"lanes", "mixed", "uniform"}; /* captures are of the real type */
    for (int i = 0; i < 3; i++)
        fprintf(file, "#define fj_load_FREAL_%s fj_load_%s_%s\n", reaches[i],
                v->dtype == KERN_F64 ? "f64" : "f32", reaches[i]);
    if (v->mod->hooks)
        fprintf(file, "%s%s", v->mod->hooks,
                v->backward ? v->mod->backward_hooks
                            : "#define FJ_HAS_CAPTURE_GRADS 0\n#define FJ_CAPTURE_GRAD_AXES {-1}\n");
    fprintf(file, "#include \"%s.c\"\n", v->backward ? "bwd" : "fwd");
    return fclose(file) == 0;
}

/* NULL after a message. */
static const struct fj_cpu_kernel *build(const variant *v, void **ret_library) {
    char name[96], source[200], object[200], command[1200];
    name_of(v, name);
    snprintf(source, sizeof source, "%s/%s.c", folder, name);
    snprintf(object, sizeof object, "%s/%s.so", folder, name);
    snprintf(
        command, sizeof command,
        "%s -std=c17 -O2 -Wall -Wextra -Werror -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC -shared "
        "-fvisibility=hidden %s %s -I" KERN_SOURCE " -I" KERN_SOURCE "/templates/cpu %s -o %s -lm",
        options.cc, isas[v->isa].flags, options.cflags, source, object);
    *ret_library = NULL;
    if (write_text(v, source) && system(command) == 0) *ret_library = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    const struct fj_cpu_kernel *kernel = *ret_library ? dlsym(*ret_library, "fj_cpu_kernel") : NULL;
    if (!kernel || kernel->abi != FJ_CPU_ABI) {
        printf("FAIL %s: not built: %s\n", name, *ret_library ? "no kernel" : command);
        failures++;
        return NULL;
    }
    atomic_fetch_add(&counts->kernels, 1);
    return kernel;
}

/* ---- Comparing -------------------------------------------------------------------------------------- */

static double tolerance(const variant *v, bool is_real) {
    static const double of[] = {0, 4e-3, 3e-2, 1e-4, 1e-11};
    if (is_real && v->dtype == KERN_F16) return 1e-4;
    return of[v->dtype];
}

static void fail(const problem *p, const char *what, double error, double bound) {
    char name[96];
    name_of(p->v, name);
    const kern_shape *s = &p->shape;
    printf("FAIL %s b%lld hq%lld hkv%lld l%lld s%lld layout %d power %d: %s: error %.3g, bound %.3g\n", name,
           (long long)s->batch, (long long)s->heads_q, (long long)s->heads_kv, (long long)s->q_len,
           (long long)s->kv_len, p->layout, p->power, what, error, bound);
    failures++;
}

/* Errors are relative to the greatest of `sizes`: the values, or what sums were made of. */
static double compare(const problem *p, const kern_tensor *t, const double *want, const double *sizes,
                      const char *what, bool is_real) {
    int64_t n = kern_count(t);
    double *got = malloc(sizeof(double) * ((size_t)n + 1)), worst = 0, size = 1e-3;
    kern_tensor_read(t, got);
    for (int64_t i = 0; i < n; i++)
        if (isfinite(sizes[i])) size = fmax(size, fabs(sizes[i]));
    for (int64_t i = 0; i < n; i++) {
        double error = got[i] == want[i] ? 0 : fabs(got[i] - want[i]) / size;
        if (!(error <= worst)) worst = isnan(error) ? HUGE_VAL : error;
    }
    double bound = tolerance(p->v, is_real);
    if (!(worst <= bound)) fail(p, what, worst, bound);
    if (!kern_tensor_intact(t)) fail(p, what, HUGE_VAL, 0);
    free(got);
    return worst;
}

/* lse and what rounding took from it, together. With exact scores the error is that of the logarithm of the sum, which
 * is ordinary at any magnitude; else scores bring theirs, and lse in one real is bounded like the rest. */
static void compare_lse(const problem *p) {
    const kern_tensor *high = &p->tensors[LSE], *low = &p->tensors[LSE_LOW];
    const int64_t n = kern_count(high);
    double *got = malloc(sizeof(double) * 2 * ((size_t)n + 1)), *rest = got + n + 1;
    const double bound = tolerance(p->v, true), unit = p->v->dtype == KERN_F64 ? 0x1p-52 : 0x1p-23;
    kern_tensor_read(high, got);
    kern_tensor_read(low, rest);
    for (int64_t i = 0; i < n; i++) {
        const double want = p->values[LSE][i], size = p->power ? 1 : fmax(1, fabs(want));
        const double error = isfinite(want)
                               ? fabs((got[i] - kern_problem_max(p, i)) + (rest[i] - p->values[LSE_LOW][i]))
                           : got[i] == want ? fabs(rest[i])
                                            : HUGE_VAL;
        const double limit = bound * size;
        const bool low_is = !isfinite(got[i]) || fabs(rest[i]) <= unit * fabs(got[i]);
        if (!(error <= limit) || !low_is) {
            fail(p, "lse + lse_low", error, limit);
            break;
        }
    }
    free(got);
}

static double compare_all(problem *p) {
    double worst = 0;
    int first = p->v->backward ? DQUERY : OUT, last = p->v->backward ? DVALUE : MAX;
    if (!p->v->backward) compare_lse(p);
    for (int i = first; i <= last; i++)
        if (i != LSE_LOW)
            worst = fmax(worst, compare(p, &p->tensors[i], p->values[i], p->values[i], tensor_names[i],
                                        i == LSE || i == MAX));
    if (!p->v->backward) return worst;
    for (int i = 0; i < p->v->mod->capture_count; i++)
        worst = fmax(worst, compare(p, &p->dcaptures[i], p->wanted.gradients[i], p->wanted.sizes[i],
                                    "captured gradient", false));
    if (p->v->mod->scalar_count)
        worst = fmax(worst, compare(p, &p->dscalar, &p->wanted.dscalar, &p->wanted.scalar_size,
                                    "scalar gradient", false));
    return worst;
}

static void check(const struct fj_cpu_kernel *kernel, problem *p) {
    struct launch l;
    char *copies[8] = {0};
    double worst = 0;
    p->seed = options.seed;
    kern_problem_make(p);
    for (int workers = 1; workers <= 3; workers += 2) {
        for (int i = 0; kern_problem_output(p, i); i++) kern_tensor_reset(kern_problem_output(p, i));
        kern_launch_open(&l, p, kernel, workers);
        kern_launch_run(kernel, &l);
        if (!kern_launch_close(&l)) fail(p, "workspace overrun", HUGE_VAL, 0);
        if (workers == 1) worst = compare_all(p);
        for (int i = 0; kern_problem_output(p, i); i++) {
            const kern_tensor *t = kern_problem_output(p, i);
            if (workers == 1)
                copies[i] = memcpy(malloc(t->bytes), t->memory, t->bytes);
            else if (!copies[i] || memcmp(copies[i], t->memory, t->bytes) != 0)
                fail(p, "depends on the order of items", HUGE_VAL, 0);
        }
    }
    for (int i = 0; i < 8; i++) free(copies[i]);
    if (options.verbose)
        printf("     b%lld hq%lld hkv%lld l%lld s%lld layout %d power %d: error %.3g\n",
               (long long)p->shape.batch, (long long)p->shape.heads_q, (long long)p->shape.heads_kv,
               (long long)p->shape.q_len, (long long)p->shape.kv_len, p->layout, p->power, worst);
    atomic_fetch_add(&counts->runs, 1);
    kern_problem_free(p);
}

/* ---- Benchmarks ------------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* of one thread: neighbours disturb less */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double best_time(const struct fj_cpu_kernel *kernel, struct launch *l, int times) {
    double best = HUGE_VAL;
    for (int i = 0; i < times; i++) {
        double start = seconds();
        kern_launch_run(kernel, l);
        best = fmin(best, seconds() - start);
    }
    return best;
}

/* Operations per second on one thread that templates/cpu/peak.c reaches. */
static double measure_peak(const variant *v) {
    char command[1200], object[200];
    snprintf(object, sizeof object, "%s/peak_%d_%d.so", folder, v->dtype, v->isa);
    snprintf(
        command, sizeof command,
        "%s -std=c17 -O2 -ffp-contract=off -fPIC -shared %s -DFJ_IN_DTYPE=%d -DFJ_REAL_F64=%d -DFJ_HEAD_DIM=64 "
        "-DFJ_VALUE_DIM=64 -I" KERN_SOURCE " " KERN_SOURCE "/templates/cpu/peak.c -o %s -lm",
        options.cc, isas[v->isa].flags, v->dtype, v->dtype == KERN_F64, object);
    void *library = system(command) == 0 ? dlopen(object, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) return 0;
    const struct fj_cpu_kernel *kernel = dlsym(library, "fj_cpu_kernel");
    const double *flops = dlsym(library, "fj_cpu_peak_flops");
    struct launch l = {.args.workers = 1};
    l.args.workspace = l.memory = aligned_alloc(256, 4096);
    double best = best_time(kernel, &l, 20);
    free(l.memory);
    return *flops / best;
}

static void bench(const struct fj_cpu_kernel *kernel, const variant *v) {
    char name[96];
    name_of(v, name);
    static double peaks[KERN_F64 + 1][ISA_COUNT]; /* the greatest seen: neighbours disturb */
    double peak = fmax(measure_peak(v), peaks[v->dtype][v->isa]);
    peaks[v->dtype][v->isa] = peak;
    for (int64_t length = 512; length <= (options.all ? 8192 : 4096); length *= length == 512 ? 8 : 2) {
        problem p = {.v = v,
                     .shape = {1, length >= 2048 ? 1 : 4, length >= 2048 ? 1 : 4, length, length, v->head_dim,
                               v->value_dim}};
        const kern_shape *s = &p.shape;
        kern_problem_tensor(&p, QUERY, s->heads_q, length, s->head_dim, 1);
        kern_problem_tensor(&p, KEY, s->heads_kv, length, s->head_dim, 1);
        kern_problem_tensor(&p, VALUE, s->heads_kv, length, s->value_dim, 1);
        kern_problem_tensor(&p, OUT, s->heads_q, length, s->value_dim, 0.1);
        kern_problem_tensor(&p, LSE, s->heads_q, length, 1, 0);
        kern_problem_tensor(&p, LSE_LOW, s->heads_q, length, 1, 0);
        kern_problem_tensor(&p, MAX, s->heads_q, length, 1, 0);
        kern_problem_tensor(&p, DOUT, s->heads_q, length, s->value_dim, 1);
        kern_problem_tensor(&p, DLSE, s->heads_q, length, 1, 1);
        kern_problem_tensor(&p, DQUERY, s->heads_q, length, s->head_dim, 0);
        kern_problem_tensor(&p, DKEY, s->heads_kv, length, s->head_dim, 0);
        kern_problem_tensor(&p, DVALUE, s->heads_kv, length, s->value_dim, 0);
        kern_problem_captures(&p);
        for (int64_t i = 0; i < kern_count(&p.tensors[LSE]); i++) p.values[LSE][i] = 8;
        kern_tensor_fill(&p.tensors[LSE], p.values[LSE]);
        p.scale = 1 / sqrt(v->head_dim);
        struct launch l;
        kern_launch_open(&l, &p, kernel, 1);
        double area = (double)s->batch * (double)s->heads_q * (double)length * (double)length;
        if (v->mod->mask) area *= 0.5 * (1 + 1 / (double)length);
        double flops =
            2 * area *
            (v->backward ? 3.0 * s->head_dim + 2.0 * s->value_dim : (double)(s->head_dim + s->value_dim));
        double time = best_time(kernel, &l, length <= 1024 ? 40 : 12);
        printf("%-40s h%lld l%-5lld %8.3f ms %8.1f GFLOP/s %5.1f %% of the peak of %.1f\n", name,
               (long long)s->heads_q, (long long)length, 1e3 * time, 1e-9 * flops / time,
               100 * flops / time / peak, 1e-9 * peak);
        free(l.memory);
        kern_problem_free(&p);
    }
}

/* ---- What is run ------------------------------------------------------------------------------------ */

static const kern_shape shapes[] = {
    {1, 1, 1, 1, 1, 0, 0},      {2, 4, 2, 33, 70, 0, 0},  {1, 3, 1, 130, 257, 0, 0},
    {1, 2, 2, 49, 192, 0, 0},   {2, 2, 1, 1, 391, 0, 0},  {1, 6, 2, 300, 5, 0, 0},
    {1, 2, 1, 0, 7, 0, 0},      {1, 2, 1, 7, 0, 0, 0},    {0, 2, 1, 5, 5, 0, 0},
    {1, 1, 1, 97, 600, 0, 0},   {1, 0, 0, 4, 4, 0, 0},    {1, 1, 1, 600, 400, 0, 0},
    {1, 1, 1, 1000, 150, 0, 0}, {1, 2, 1, 3, 2100, 0, 0},
};
/* And those that see large scores: a few rows and blocks of keys, a tail, splits. */
static const kern_shape large_shapes[] = {{1, 2, 1, 50, 300, 0, 0}, {1, 2, 1, 3, 2100, 0, 0}};
static const struct {
    int power;
    kern_layout layout;
} larges[] = {{7, KERN_PACKED}, {14, KERN_GAPS}, {28, KERN_PACKED}, {60, KERN_GAPS}};

static void check_shape(const struct fj_cpu_kernel *kernel, problem p) {
    p.shape.head_dim = p.v->head_dim, p.shape.value_dim = p.v->value_dim;
    check(kernel, &p);
}

static void check_shapes(const struct fj_cpu_kernel *kernel, const variant *v, char where[ISOLATE_WHERE]) {
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int layout = KERN_PACKED; layout <= KERN_OVERLAP; layout++) {
            if (layout > KERN_PACKED && shapes[i].q_len * shapes[i].kv_len > 100000) continue; /* slow */
            snprintf(where, ISOLATE_WHERE, "at shape %zu, layout %d", i, layout);
            check_shape(kernel, (problem){.v = v, .shape = shapes[i], .layout = (kern_layout)layout});
        }
    for (size_t i = 0; i < sizeof larges / sizeof larges[0]; i++)
        for (size_t j = 0; j < sizeof large_shapes / sizeof large_shapes[0]; j++) {
            snprintf(where, ISOLATE_WHERE, "at large shape %zu, power %d", j, larges[i].power);
            check_shape(kernel, (problem){.v = v,
                                          .shape = large_shapes[j],
                                          .layout = larges[i].layout,
                                          .power = larges[i].power});
        }
}

static void check_hidden(const struct fj_cpu_kernel *kernel, const variant *v) {
    char name[96];
    if (!v->mod->mask || kern_check_nonfinite(kernel, v, options.seed)) return;
    name_of(v, name);
    printf("FAIL %s: what masks hide\n", name);
    failures++;
}

static isolate_result run_variant(void *variants, int item, char where[ISOLATE_WHERE]) {
    const variant *v = (const variant *)variants + item;
    char name[96];
    void *library;
    name_of(v, name);
    const int before = failures;
    snprintf(where, ISOLATE_WHERE, "while it is built");
    const struct fj_cpu_kernel *kernel = build(v, &library);
    if (!kernel) return ISOLATE_FAILED;
    if (options.bench) {
        bench(kernel, v);
    } else {
        check_shapes(kernel, v, where);
        snprintf(where, ISOLATE_WHERE, "with values that are not finite");
        check_hidden(kernel, v);
        if (options.verbose || failures > before)
            printf("%s %s\n", failures > before ? "FAIL" : "ok  ", name);
    }
    dlclose(library);
    return failures > before ? ISOLATE_FAILED : ISOLATE_OK;
}

static void tell_death(void *variants, int item, const char *where, const char *how) {
    char name[96];
    name_of((const variant *)variants + item, name);
    printf("FAIL %s: %s, %s\n", name, how, where);
}

/* All pairs of dimensions and mods with every dtype and instruction set would take minutes: without --all, each dtype
 * and instruction set sees a part of them, chosen so that all pairs appear; with --day, half of that, in turn. */
static int choose_variants(variant *variants) {
    static const int dims[][2] = {{64, 64}, {17, 33}, {128, 128}, {1, 5}, {256, 40}, {80, 256}};
    const int dim_count = (int)(sizeof dims / sizeof dims[0]);
    int turn = 0, count = 0;
    char name[96];
    for (int backward = 0; backward < 2; backward++)
        for (int dtype = KERN_F16; dtype <= KERN_F64; dtype++)
            for (int isa = 0; isa < ISA_COUNT; isa++) {
                if (isa == ISA_AVX512BF16 && dtype != KERN_BF16) continue;
                for (int i = 0; i < dim_count * kern_mod_count; i++) {
                    const kern_mod *mod = &kern_mods[i % kern_mod_count];
                    const int *dim = dims[i / kern_mod_count];
                    const int place = i % kern_mod_count * 2 + i / kern_mod_count + turn;
                    bool chosen = options.all || place % 10 == 0;
                    if (options.day) chosen &= place / 10 % 2 == options.day % 2;
                    if (options.bench) chosen = options.all || (dim[0] == dim[1]);
                    const variant v = {backward, (kern_dtype)dtype, isa, dim[0], dim[1], mod};
                    name_of(&v, name);
                    if (!chosen || fnmatch(options.filter, name, 0) != 0 || !has_isa(isa)) continue;
                    if (count == MOST_VARIANTS) abort();
                    variants[count++] = v;
                }
                turn++;
            }
    return count;
}

/* One at a time: benchmarks share a machine, and so do the tests of other rooms. */
static int run_all(void) {
    static variant variants[MOST_VARIANTS];
    const isolate tests = {.count = choose_variants(variants),
                           .jobs = 1,
                           .seconds = 300,
                           .user = variants,
                           .run = run_variant,
                           .died = tell_death};
    counts = isolate_shared(sizeof *counts);
    return isolate_run(&tests);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--filter"))
            options.filter = value, i++;
        else if (!strcmp(argv[i], "--cc"))
            options.cc = value, i++;
        else if (!strcmp(argv[i], "--cflags"))
            options.cflags = value, i++;
        else if (!strcmp(argv[i], "--seed"))
            options.seed = strtoull(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--day"))
            options.day = strcmp(value, "today") == 0 ? time(NULL) / 86400 : strtol(value, NULL, 10), i++;
        else if (!strcmp(argv[i], "--all"))
            options.all = true;
        else if (!strcmp(argv[i], "--bench"))
            options.bench = true;
        else if (!strcmp(argv[i], "--keep"))
            options.keep = true;
        else if (!strcmp(argv[i], "-v"))
            options.verbose = true;
        else
            return printf(
                       "usage: kern [--filter GLOB] [--all] [--bench] [--cc CC] [--cflags FLAGS] [--seed N] [--day N|today] [--keep] [-v]\n"),
                   2;
    }
    snprintf(folder, sizeof folder, "%.40s/fj-kern-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(folder)) return perror(folder), 1;
    const int failed = run_all();
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (options.keep || system(command) != 0) printf("%s is left behind\n", folder);
    if (!options.bench)
        printf("kern: %d kernels, %d runs, %d failed; day %lld\n", counts->kernels, counts->runs, failed,
               (long long)options.day);
    return failed != 0;
}
