/* kern_cuda [--seed N] [--filter GLOB | --kernel NAME]... [--long | --few] [--list] [--device emu|cuda] [--arch sm_80]
 *           [--schedule forward|reverse|random] [--copies eager|late] [--mma nearest|truncate] [--jobs N]
 *           [--length N] [--day N|today] [--bench | --plants | --nvrtc]
 *           [--cxx COMPILER] [--flags FLAGS] [--keep FOLDER]
 *
 * --day: a part of the table, which is all run within three days; what is different in kind is in each part.
 * --flags: in place of those of the build, which suit its compiler; only with them are call sites compared.
 *
 * Exit status 0: all is well; 1: a test failed; 2: usage; 77: the device, or NVRTC, is not there (meson: skipped). */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/kern_cuda/kern.h"
#include "tests/support/gpu.h"

enum { MOST_NAMED = 32, SKIPPED = 77 };

static struct {
    range range;
    const char *named[MOST_NAMED], *device, *schedule, *copies, *rounding;
    int named_count, jobs;
    int64_t length;
    bool list, bench, plants, nvrtc;
} options = {.range = {.seed = 1, .filter = "*"}, .device = "emu", .jobs = -1};

/* What unique variants are looked for on: an instruction set or a size of shared memory each. */
static const int default_archs[] = {80, 86, 75, 90};

/* ---- Options ------------------------------------------------------------------------------------------------ */

static int usage(void) {
    printf("usage: kern_cuda [--seed N] [--filter GLOB | --kernel NAME]... [--long | --few] [--list]\n"
           "                 [--device emu|cuda] [--arch sm_80] [--schedule forward|reverse|random]\n"
           "                 [--copies eager|late] [--mma nearest|truncate] [--jobs N]\n"
           "                 [--length N] [--day N|today] [--bench | --plants | --nvrtc]\n"
           "                 [--chunks N] [--cxx COMPILER] [--flags FLAGS] [--keep FOLDER]\n");
    return 2;
}

static bool parse_flag(const char *name) {
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"--long", &options.range.all}, {"--few", &options.range.few}, {"--list", &options.list},
                 {"--bench", &options.bench},    {"--plants", &options.plants}, {"--nvrtc", &options.nvrtc}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(flags); i++)
        if (strcmp(flags[i].name, name) == 0) return *flags[i].flag = true;
    return false;
}

static bool parse_value(const char *name, const char *value) {
    const struct {
        const char *name, **text;
    } texts[] = {{"--filter", &options.range.filter}, {"--device", &options.device},
                 {"--schedule", &options.schedule},   {"--copies", &options.copies},
                 {"--mma", &options.rounding},        {"--cxx", &emu_tools.cxx},
                 {"--flags", &emu_tools.flags},       {"--keep", &emu_tools.folder}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(texts); i++)
        if (strcmp(texts[i].name, name) == 0) return *texts[i].text = value, true;
    char *end = NULL;
    fj_arch arch;
    if (strcmp(name, "--seed") == 0)
        options.range.seed = strtoull(value, &end, 10);
    else if (strcmp(name, "--jobs") == 0)
        options.jobs = (int)strtol(value, &end, 10);
    else if (strcmp(name, "--chunks") == 0)
        kernel_chunks = (int)strtol(value, &end, 10);
    else if (strcmp(name, "--length") == 0)
        options.length = options.range.length = strtol(value, &end, 10);
    else if (strcmp(name, "--day") == 0)
        options.range.day = strcmp(value, "today") == 0 ? time(NULL) / 86400 : strtol(value, &end, 10);
    else if (strcmp(name, "--kernel") == 0 && options.named_count < MOST_NAMED)
        options.named[options.named_count++] = value;
    else if (strcmp(name, "--arch") == 0 && fj_jit_arch_parse(value, &arch))
        options.range.archs[options.range.arch_count++ % 8] = arch.number;
    else
        return false;
    return *value != '\0' && (!end || *end == '\0');
}

static bool parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (parse_flag(argv[i])) continue;
        if (i + 1 == argc || !parse_value(argv[i], argv[i + 1])) return false;
        i++;
    }
    return options.range.arch_count <= 8;
}

/* Index of a name; count: all of them. -1: unknown. */
static int choice(const char *name, const char *const *names, int count) {
    if (!name) return count;
    for (int i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

static bool choose_modes(modes *m, const device *d) {
    static const char *const schedules[] = {"forward", "reverse", "random"}, *const copies[] = {"eager",
                                                                                                "late"};
    const int schedule = choice(options.schedule, schedules, FJ_EMU_SCHEDULE_COUNT);
    const int copy = choice(options.copies, copies, FJ_EMU_COPIES_COUNT);
    static const char *const roundings[] = {"default", "nearest", "truncate"};
    const int rounding = options.rounding ? choice(options.rounding, roundings, FJ_EMU_ROUND_COUNT) : 0;
    if (schedule < 0 || copy < 0 || rounding < 0) return false;
    m->count = 0;
    for (int i = 0; i < FJ_EMU_SCHEDULE_COUNT; i++)
        for (int j = 0; j < FJ_EMU_COPIES_COUNT; j++)
            if ((schedule == FJ_EMU_SCHEDULE_COUNT || schedule == i) &&
                (copy == FJ_EMU_COPIES_COUNT || copy == j))
                m->list[m->count++] = (mode){(fj_emu_schedule)i, (fj_emu_copies)j, (fj_emu_rounding)rounding};
    if (options.range.few && m->count == 6)
        m->list[1] = m->list[5], m->count = 2; /* those that differ most */
    if (!d->has_modes) m->count = 2;           /* twice the same */
    return true;
}

/* ---- Running -------------------------------------------------------------------------------------------------- */

typedef struct run {
    runner runner;
    const test *tests;
    isolate_result (*one)(const runner *r, const test *t, FILE *out, char where[ISOLATE_WHERE]);
} run;

/* A test's lines come together. */
static isolate_result run_one(void *user, int item, char where[ISOLATE_WHERE]) {
    const run *r = user;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) abort();
    const isolate_result result = r->one(&r->runner, &r->tests[item], out, where);
    (void)fclose(out);
    printf("%-4s %s\n%s", result == ISOLATE_OK ? "ok" : "FAIL", r->tests[item].kernel.name, text);
    free(text);
    return result;
}

static void tell_death(void *user, int item, const char *where, const char *how) {
    const run *r = user;
    printf("FAIL %s\n    %s, %s\n", r->tests[item].kernel.name, how, where);
}

static double seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int run_all(const runner *r, const test *tests, int count) {
    run all = {*r, tests, options.bench ? bench_test : run_test};
    const double from = seconds();
    const isolate tests_of = {.count = count,
                              .jobs = options.bench ? 1 : options.jobs,
                              .seconds = r->device->has_modes ? 300 : 120,
                              .user = &all,
                              .run = run_one,
                              .died = tell_death};
    const int failed = isolate_run(&tests_of);
    int runs = 0;
    for (int i = 0; i < count; i++) runs += tests[i].shape_count;
    printf("%d kernels at %d shapes, %d failed; seed %llu, day %lld, %.1f s\n", count, runs, failed,
           (unsigned long long)r->seed, (long long)options.range.day, seconds() - from);
    return failed != 0 || count == 0;
}

static test *choose_tests(int *count) {
    if (options.named_count == 0) return (options.bench ? bench_make : table_make)(&options.range, count);
    test *tests = calloc((size_t)options.named_count, sizeof *tests);
    if (!tests) abort();
    for (*count = 0; *count < options.named_count; ++*count) {
        test *t = &tests[*count];
        if (!kernel_parse(&t->kernel, options.named[*count], options.range.archs, options.range.arch_count)) {
            printf("no kernel has the name '%s' here\n", options.named[*count]);
            exit(2);
        }
        table_shapes(t, &options.range, MOST_SHAPES);
    }
    return tests;
}

static void list(const test *tests, int count) {
    char text[128], arch[FJ_ARCH_NAME];
    for (int i = 0; i < count; i++) {
        fj_jit_arch_name(tests[i].kernel.variant.arch, arch);
        printf("%s on %s\n", tests[i].kernel.name, arch);
        for (int n = 0; n < tests[i].shape_count; n++) {
            shape_name(&tests[i].shapes[n], text);
            printf("    %s\n", text);
        }
    }
}

/* The device, its architectures, and a folder for objects. */
static int open_device(runner *r) {
    const bool cuda = strcmp(options.device, "cuda") == 0;
    if (!cuda && strcmp(options.device, "emu") != 0) return usage();
    r->device = cuda ? &device_cuda : &device_emu;
    r->seed = options.range.seed;
    r->length = options.length;
    if (cuda) {
        fj_error error = {0};
        fj_arch arch;
        char name[128];
        if (gpu_find(&arch, name, &error) != FJ_OK) {
            printf("%s\n", error.text);
            fj_error_finish(&error);
            return SKIPPED;
        }
        printf("%s, sm_%d\n", name, arch.number);
        options.range.archs[0] = arch.number;
        options.range.arch_count = 1;
    }
    if (options.range.arch_count == 0) {
        memcpy(options.range.archs, default_archs, sizeof default_archs);
        options.range.arch_count = FJ_ARRAY_LEN(default_archs);
    }
    if (options.jobs < 0) options.jobs = cuda ? 4 : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return 0;
}

static int run_chosen(const runner *r) {
    int count = 0;
    if (options.plants) return plants_run(r, options.range.filter, options.jobs) != 0;
    test *tests = choose_tests(&count);
    int status = 0;
    if (options.list)
        list(tests, count);
    else
        status = run_all(r, tests, count);
    free(tests);
    return status;
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/kern_cuda.XXXXXX", command[600];
    runner r = {0};
    if (!parse(argc, argv)) return usage();
    if (options.jobs < 0 && options.nvrtc) options.jobs = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (options.nvrtc) return nvrtc_run(&options.range, options.jobs);
    const int status = open_device(&r);
    if (status != 0) return status;
    if (!choose_modes(&r.all, r.device)) return usage();
    const bool kept = emu_tools.folder != NULL;
    if (kept)
        (void)mkdir(emu_tools.folder, 0700);
    else
        emu_tools.folder = mkdtemp(folder);
    if (!emu_tools.folder) return 2;
    const int wrong = run_chosen(&r);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", emu_tools.folder);
    if (!kept && system(command) != 0) return 2;
    return wrong;
}
