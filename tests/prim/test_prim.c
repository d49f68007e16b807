/* Runs every conformance kernel and holds its output against the table, and against what devices gave.
 *
 * usage: test_prim [--filter TEXT] --objects FOLDER ARCH --data FOLDER
 *            on the emulator, in every mode; and what devices gave, recorded in --data, against the same
 *        test_prim [--filter TEXT] --objects FOLDER ARCH --cuda SOURCE PRIM [--record FOLDER]
 *            on the GPU, against the table and the emulator; --record keeps its outputs
 *
 * FOLDER of objects: kernels/FILE.cu compiled for the emulator, as FILE-ARCH.so. SOURCE: of kernels/. PRIM: of prim.h.
 * Each kernel has a process of its own. Exit status 77: there is no GPU. */
#include <dlfcn.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/emu/emu.h"
#include "tests/prim/cuda.h"
#include "tests/prim/record.h"
#include "tests/support/gpu.h"
#include "tests/support/isolate.h"

enum { MOST_CASES = 256, SKIPPED = 77 };

struct test {
    const char *filter, *objects, *data, *record, *source, *prim;
    uint32_t arch; /* of the objects */
    uint32_t gpu_arch;
    char gpu[128]; /* its name; empty: on the emulator */
    const struct prim_case *cases[MOST_CASES];
    int count;
    atomic_int *recorded; /* records that were compared */
};

static fj_emu *emu; /* of this process */

/* One case with its words. */
struct work {
    const struct prim_case *test;
    uint32_t *in, *out, *first, *recorded;
    struct prim_expected expected;
};

/* ---- Comparing -------------------------------------------------------------------------------- */

static bool is_nan(uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

static bool is_nan_pair(const uint32_t *words) { return (words[1] & 0x7fffffffu) > 0x7ff00000u; }

static bool within(float got, double value, double tolerance) {
    if (isnan(value)) return isnan(got);
    if (isinf(value)) return (double)got == value;
    return fabs((double)got - value) <= tolerance;
}

static bool agrees(const struct work *w, uint32_t i, const uint32_t *got, const uint32_t *bits) {
    switch (w->test->compare) {
    case PRIM_BITS: return got[i] == bits[i];
    case PRIM_FLOATS: return got[i] == bits[i] || (is_nan(got[i]) && is_nan(bits[i]));
    case PRIM_DOUBLES:
        return got[i] == bits[i] || (is_nan_pair(got + i / 2 * 2) && is_nan_pair(bits + i / 2 * 2));
    case PRIM_BOUND: return within(prim_float(got[i]), w->expected.value[i], w->expected.tolerance[i]);
    }
    return false;
}

static bool check(const struct work *w, const uint32_t *got, const char *what) {
    for (uint32_t i = 0; i < w->test->out_words; i++) {
        if (agrees(w, i, got, w->expected.bits)) continue;
        if (w->test->compare == PRIM_BOUND)
            printf("FAIL %s, %s: word %u is %.9g, not %.9g within %.3g\n", w->test->kernel, what, i,
                   (double)prim_float(got[i]), w->expected.value[i], w->expected.tolerance[i]);
        else
            printf("FAIL %s, %s: word %u is %08x, not %08x\n", w->test->kernel, what, i, got[i],
                   w->expected.bits[i]);
        return false;
    }
    return true;
}

/* ---- The emulator ----------------------------------------------------------------------------- */

static const fj_emu_kernel *find_kernel(const struct test *t, const struct prim_case *test) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s-%u.so", t->objects, test->file, t->arch);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* stays */
    if (!object) printf("%s\n", dlerror());
    return object ? dlsym(object, test->kernel) : NULL;
}

/* Input and output lie so that they end where their memory ends. */
static bool run_mode(const struct work *w, const fj_emu_kernel *kernel, int mode) {
    static const char *const schedules[] = {"forward", "reverse", "random"}, *const copies[] = {"eager",
                                                                                                "late"};
    const struct prim_case *test = w->test;
    char what[64];
    size_t in_size = (test->in_words * sizeof *w->in + 15) / 16 * 16,
           out_size = (test->out_words * sizeof *w->out + 15) / 16 * 16;
    struct {
        uint32_t *in, *out;
    } args = {fj_emu_guarded_alloc(in_size), fj_emu_guarded_alloc(out_size)};
    fj_emu_shape shape = {.threads = test->threads, .shared = test->shared};
    fj_launch launch = {.struct_size = sizeof launch, .workers = mode % 3 + 1};
    fj_emu_options options = {.schedule = (fj_emu_schedule)(mode / 2 < 3 ? mode / 2 : 2),
                              .copies = (fj_emu_copies)(mode % 2),
                              .seed = (uint64_t)mode,
                              .launch = &launch};
    fj_error error = {0};
    for (int i = 0; i < 3; i++) shape.grid[i] = test->grid[i] ? test->grid[i] : 1;
    if (!args.in || !args.out) abort();
    memcpy(args.in, w->in, test->in_words * sizeof *w->in);
    memcpy(args.out, w->out, test->out_words * sizeof *w->out);
    (void)snprintf(what, sizeof what, "%s, %s", schedules[options.schedule], copies[options.copies]);
    bool good = fj_emu_launch(emu, kernel, &shape, &args, &options, &error) == FJ_OK;
    if (!good) printf("FAIL %s, %s: %s\n", test->kernel, what, error.text);
    good = good && check(w, args.out, what);
    if (good && mode == 0) memcpy(w->first, args.out, test->out_words * sizeof *w->out);
    if (good && memcmp(w->first, args.out, test->out_words * sizeof *w->out) != 0) {
        printf("FAIL %s, %s: other bits than forward, eager\n", test->kernel, what);
        good = false;
    }
    fj_error_finish(&error);
    fj_emu_guarded_free(args.in, in_size);
    fj_emu_guarded_free(args.out, out_size);
    return good;
}

static const uint32_t record_archs[] = {75, 80, 86, 89, 90, 100, 120};

/* Two machines that keep to the same documentation: the same words, or both within the tolerance. */
static bool is_like_emulator(const struct work *w, const uint32_t *got, const char *what) {
    uint32_t others = 0;
    for (uint32_t i = 0; i < w->test->out_words; i++) {
        const double between = fabs((double)prim_float(got[i]) - (double)prim_float(w->first[i]));
        const bool near = w->test->compare == PRIM_BOUND && !(between > 2 * w->expected.tolerance[i]);
        others += got[i] != w->first[i];
        if (near || agrees(w, i, got, w->first)) continue;
        printf("FAIL %s, %s: word %u is %08x, the emulator's is %08x\n", w->test->kernel, what, i, got[i],
               w->first[i]);
        return false;
    }
    if (others > 0)
        printf("%s, %s: %u of %u words differ from the emulator's, as they may\n", w->test->kernel, what,
               others, w->test->out_words);
    return true;
}

static bool check_records(const struct test *t, const struct work *w) {
    for (size_t i = 0; i < sizeof record_archs / sizeof record_archs[0]; i++) {
        char what[64];
        (void)snprintf(what, sizeof what, "recorded on sm_%u", record_archs[i]);
        switch (prim_record_read(t->data, record_archs[i], w->test, w->in, w->recorded)) {
        case PRIM_RECORD_ABSENT: continue;
        case PRIM_RECORD_READ: break;
        case PRIM_RECORD_STALE:
            printf("FAIL %s, %s: of another input\n", w->test->kernel, what);
            return false;
        case PRIM_RECORD_DAMAGED: printf("FAIL %s, %s: damaged\n", w->test->kernel, what); return false;
        }
        atomic_fetch_add(t->recorded, 1);
        if (!check(w, w->recorded, what) || !is_like_emulator(w, w->recorded, what)) return false;
    }
    return true;
}

static bool run_emulator(const struct test *t, const struct work *w) {
    const fj_emu_kernel *kernel = find_kernel(t, w->test);
    if (!kernel) {
        printf("FAIL %s: there is no such kernel\n", w->test->kernel);
        return false;
    }
    for (int mode = 0; mode < 10; mode++) /* forward, reverse, and three seeds */
        if (!run_mode(w, kernel, mode)) return false;
    return check_records(t, w);
}

/* Records come back as they were written; changed inputs and cut files are noticed. */
static bool check_record_format(void) {
    char folder[] = "/tmp/flexjit-prim-XXXXXX", path[128], inner[64];
    const struct prim_case test = {.kernel = "prim_none", .in_words = 3, .out_words = 19};
    uint32_t in[3] = {1, 2, 3}, out[19], back[19] = {0};
    if (!mkdtemp(folder)) return false;
    for (uint32_t i = 0; i < 19; i++) out[i] = i * 0x12345679u;
    (void)snprintf(inner, sizeof inner, "%s/sm_90", folder);
    (void)snprintf(path, sizeof path, "%s/prim_none.txt", inner);
    bool good = prim_record_read(folder, 90, &test, in, back) == PRIM_RECORD_ABSENT &&
                prim_record_write(folder, 90, "some device", &test, in, out) &&
                prim_record_read(folder, 90, &test, in, back) == PRIM_RECORD_READ &&
                memcmp(out, back, sizeof out) == 0;
    in[1] = 7;
    good = good && prim_record_read(folder, 90, &test, in, back) == PRIM_RECORD_STALE;
    in[1] = 2;
    good = good && truncate(path, 140) == 0 &&
           prim_record_read(folder, 90, &test, in, back) == PRIM_RECORD_DAMAGED;
    (void)unlink(path);
    (void)rmdir(inner);
    (void)rmdir(folder);
    if (!good) printf("FAIL the format of records\n");
    return good;
}

/* ---- The GPU ---------------------------------------------------------------------------------- */

/* Ends with the GPU's words, after the emulator's own are in w->first. */
static isolate_result run_gpu(const struct test *t, struct work *w) {
    fj_error error = {0};
    const fj_emu_kernel *kernel = find_kernel(t, w->test);
    if (!kernel || !run_mode(w, kernel, 0)) return ISOLATE_FAILED;
    memcpy(w->recorded, w->out, w->test->out_words * sizeof *w->out);
    if (cuda_run(t->source, t->prim, w->test, w->in, w->recorded, &error) != FJ_OK) {
        printf("FAIL %s, %s: %s\n%s", w->test->kernel, t->gpu, error.text, error.detail ? error.detail : "");
        fj_error_finish(&error);
        return ISOLATE_SPENT;
    }
    if (t->record && !prim_record_write(t->record, t->gpu_arch, t->gpu, w->test, w->in, w->recorded)) {
        printf("FAIL %s: the record cannot be written\n", w->test->kernel);
        return ISOLATE_FAILED;
    }
    const bool good = check(w, w->recorded, t->gpu) && is_like_emulator(w, w->recorded, t->gpu);
    return good ? ISOLATE_OK : ISOLATE_FAILED;
}

/* ---- All cases -------------------------------------------------------------------------------- */

static void *array(uint32_t count, size_t size) {
    void *memory = calloc(count + 4, size);
    if (!memory) abort();
    return memory;
}

static isolate_result run_case(void *user, int item, char where[ISOLATE_WHERE]) {
    const struct test *t = user;
    const struct prim_case *test = t->cases[item];
    struct work w = {.test = test, .in = array(test->in_words, 4)};
    (void)snprintf(where, ISOLATE_WHERE, "%s", t->gpu[0] ? t->gpu : "the emulator");
    if (!emu && fj_emu_create(&fj_allocator_libc, &emu, NULL) != FJ_OK) abort();
    w.out = array(test->out_words, 4);
    w.first = array(test->out_words, 4);
    w.recorded = array(test->out_words, 4);
    w.expected = (struct prim_expected){array(test->out_words, 4), array(test->out_words, 8),
                                        array(test->out_words, 8)};
    prim_seed(1);
    test->fill(w.in, test->in_words);
    for (uint32_t i = 0; i < test->out_words; i++) w.out[i] = w.expected.bits[i] = test->out_initial;
    test->expect(w.in, &w.expected);
    const isolate_result result = t->gpu[0]           ? run_gpu(t, &w)
                                : run_emulator(t, &w) ? ISOLATE_OK
                                                      : ISOLATE_FAILED;
    free(w.in);
    free(w.out);
    free(w.first);
    free(w.recorded);
    free(w.expected.bits);
    free(w.expected.value);
    free(w.expected.tolerance);
    return result;
}

static void tell_death(void *user, int item, const char *where, const char *how) {
    const struct test *t = user;
    printf("FAIL %s, %s: %s\n", t->cases[item]->kernel, where, how);
}

static bool parse(struct test *t, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        int rest = argc - i - 1;
        if (strcmp(argv[i], "--filter") == 0 && rest >= 1) {
            t->filter = argv[++i];
        } else if (strcmp(argv[i], "--objects") == 0 && rest >= 2) {
            t->objects = argv[++i];
            t->arch = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--data") == 0 && rest >= 1) {
            t->data = argv[++i];
        } else if (strcmp(argv[i], "--cuda") == 0 && rest >= 2) {
            t->source = argv[++i];
            t->prim = argv[++i];
        } else if (strcmp(argv[i], "--record") == 0 && rest >= 1) {
            t->record = argv[++i];
        } else {
            return false;
        }
    }
    return t->objects && (t->data || t->source);
}

static void choose_cases(struct test *t) {
    const struct prim_case *const tables[] = {prim_exchange_cases, prim_matrix_cases, prim_memory_cases,
                                              prim_arithmetic_cases};
    for (size_t i = 0; i < FJ_ARRAY_LEN(tables); i++)
        for (const struct prim_case *test = tables[i]; test->kernel; test++) {
            const bool there = test->min_arch <= t->arch && (!t->gpu[0] || test->min_arch <= t->gpu_arch);
            if (!there || (t->filter && !strstr(test->kernel, t->filter))) continue;
            if (t->count == MOST_CASES) abort();
            t->cases[t->count++] = test;
        }
}

int main(int argc, char **argv) {
    struct test t = {.recorded = isolate_shared(sizeof(atomic_int))};
    fj_error error = {0};
    fj_arch arch;
    if (!parse(&t, argc, argv)) {
        printf("usage: see the head of test_prim.c\n");
        return 2;
    }
    if (t.source && gpu_find(&arch, t.gpu, &error) != FJ_OK) {
        printf("skipped: %s\n", error.text);
        fj_error_finish(&error);
        return SKIPPED;
    }
    if (t.source) t.gpu_arch = (uint32_t)arch.number;
    choose_cases(&t);
    const isolate all = {
        .count = t.count, .jobs = 1, .seconds = 30, .user = &t, .run = run_case, .died = tell_death};
    const int failed = isolate_run(&all) + (t.source ? 0 : !check_record_format());
    printf("%d primitives, %d failed; %d records of devices compared\n", t.count, failed, (int)*t.recorded);
    return failed != 0 || t.count == 0;
}
