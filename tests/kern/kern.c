/* kern [--device cpu|emu|cuda] [--arch sm_80|avx2] [--seed N] [--filter GLOB | --kernel NAME]... [--long | --few] [--list]
 *      [--schedule forward|reverse|random] [--copies eager|late] [--mma nearest|truncate] [--chunks N] [--jobs N]
 *      [--length N] [--day N|today] [--space N] [--bench | --plants | --nvrtc]
 *      [--cc COMPILER] [--cxx COMPILER] [--flags FLAGS] [--keep FOLDER]
 *
 * --day: a part of the table, which is all run within five days; what is different in kind is in each part.
 * --space: so many kernels that may be asked for, of all variants that are legal, drawn from the seed.
 * --flags: on the cpu, added to those that users get; for emu in place of those of the build, which suit its compiler:
 *     only with them are call sites compared.
 *
 * Exit status 0: all is well; 1: a test failed; 2: usage; 77: the device, or NVRTC, is not there (meson: skipped). */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/kern/kern.h"
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
    printf(
        "usage: kern [--device cpu|emu|cuda] [--arch sm_80|avx2] [--seed N] [--filter GLOB | --kernel NAME]...\n"
        "            [--long | --few] [--list] [--schedule forward|reverse|random] [--copies eager|late]\n"
        "            [--mma nearest|truncate] [--chunks N] [--jobs N] [--length N] [--day N|today]\n"
        "            [--space N] [--bench | --plants | --nvrtc] [--cc COMPILER] [--cxx COMPILER] [--flags FLAGS]\n"
        "            [--keep FOLDER]\n");
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

/* "sm_80", "avx2" */
static bool parse_target(const char *name, int *ret_target) {
    fj_arch arch;
    for (int i = 0; i < FJ_ISA_COUNT; i++)
        if (strcmp(name, fj_jit_isa_name((fj_isa)i)) == 0) return *ret_target = -i, true;
    if (!fj_jit_arch_parse(name, &arch)) return false;
    *ret_target = arch.number;
    return true;
}

static bool parse_value(const char *name, const char *value) {
    const struct {
        const char *name, **text;
    } texts[] = {{"--filter", &options.range.filter},
                 {"--device", &options.device},
                 {"--schedule", &options.schedule},
                 {"--copies", &options.copies},
                 {"--mma", &options.rounding},
                 {"--cxx", &host_tools.cxx},
                 {"--cc", &host_tools.cc},
                 {"--flags", &host_tools.flags},
                 {"--keep", &host_tools.folder}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(texts); i++)
        if (strcmp(texts[i].name, name) == 0) return *texts[i].text = value, true;
    char *end = NULL;
    int target;
    if (strcmp(name, "--seed") == 0)
        options.range.seed = strtoull(value, &end, 10);
    else if (strcmp(name, "--jobs") == 0)
        options.jobs = (int)strtol(value, &end, 10);
    else if (strcmp(name, "--space") == 0)
        options.range.space = (int)strtol(value, &end, 10);
    else if (strcmp(name, "--chunks") == 0)
        kernel_chunks = (int)strtol(value, &end, 10);
    else if (strcmp(name, "--length") == 0)
        options.length = options.range.length = strtol(value, &end, 10);
    else if (strcmp(name, "--day") == 0)
        options.range.day = strcmp(value, "today") == 0 ? time(NULL) / 86400 : strtol(value, &end, 10);
    else if (strcmp(name, "--kernel") == 0 && options.named_count < MOST_NAMED)
        options.named[options.named_count++] = value;
    else if (strcmp(name, "--arch") == 0 && parse_target(value, &target))
        options.range.targets[options.range.target_count++ % MOST_TARGETS] = target;
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
    return options.range.target_count <= MOST_TARGETS;
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
    const int copies_count = d->counts ? FJ_EMU_COPIES_COUNT : 1; /* the cpu copies nothing */
    m->count = 0;
    for (int i = 0; i < FJ_EMU_SCHEDULE_COUNT; i++)
        for (int j = 0; j < copies_count; j++)
            if ((schedule == FJ_EMU_SCHEDULE_COUNT || schedule == i) &&
                (copy == FJ_EMU_COPIES_COUNT || copy == j))
                m->list[m->count++] = (mode){(fj_emu_schedule)i, (fj_emu_copies)j, (fj_emu_rounding)rounding};
    if (options.range.few && m->count > 2)
        m->list[1] = m->list[m->count - 1], m->count = 2; /* those that differ most */
    if (!d->has_modes) m->count = 2;                      /* twice the same */
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
    if (options.named_count == 0 && options.range.space > 0) return space_make(&options.range, count);
    if (options.named_count == 0) return (options.bench ? bench_make : table_make)(&options.range, count);
    test *tests = calloc((size_t)options.named_count, sizeof *tests);
    if (!tests) abort();
    for (*count = 0; *count < options.named_count; ++*count) {
        test *t = &tests[*count];
        if (!kernel_parse(&t->kernel, options.named[*count], options.range.targets,
                          options.range.target_count)) {
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
        printf("%s on %s\n", tests[i].kernel.name, kernel_is_cpu(&tests[i].kernel) ? "this CPU" : arch);
        for (int n = 0; n < tests[i].shape_count; n++) {
            shape_name(&tests[i].shapes[n], text);
            printf("    %s\n", text);
        }
    }
}

/* The GPU's architecture alone. False, after a message: there is none. */
static bool find_gpu(range *r) {
    fj_error error = {0};
    fj_arch arch;
    char name[128];
    if (gpu_find(&arch, name, &error) != FJ_OK) {
        printf("%s\n", error.text);
        fj_error_finish(&error);
        return false;
    }
    printf("%s, sm_%d\n", name, arch.number);
    r->targets[0] = arch.number;
    r->target_count = 1;
    return true;
}

static void find_isas(range *r) {
    const fj_features here = fj_jit_features();
    for (int i = FJ_ISA_COUNT - 1; i >= 0; i--) /* the best first: it is the one that is measured */
        if (here.isa[i]) r->targets[r->target_count++] = -i;
}

/* The device and its targets. */
static int open_device(runner *r) {
    static const device *const devices[] = {&device_cpu, &device_emu, &device_cuda};
    for (size_t i = 0; i < FJ_ARRAY_LEN(devices); i++)
        if (strcmp(options.device, devices[i]->name) == 0) r->device = devices[i];
    if (!r->device) return usage();
    r->seed = options.range.seed;
    r->length = options.length;
    range *of = &options.range;
    if (r->device == &device_cuda && !find_gpu(of)) return SKIPPED;
    if (r->device == &device_cpu && of->target_count == 0) find_isas(of);
    if (of->target_count == 0) {
        memcpy(of->targets, default_archs, sizeof default_archs);
        of->target_count = FJ_ARRAY_LEN(default_archs);
    }
    for (int i = 0; i < of->target_count; i++)
        if (target_is_cpu(of->targets[i]) != (r->device == &device_cpu)) return usage();
    if (options.jobs < 0) options.jobs = r->device == &device_cuda ? 4 : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return 0;
}

static int run_chosen(const runner *r) {
    int count = 0;
    if (options.plants) return plants_run(r, &options.range, options.jobs) != 0;
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
    char folder[] = "/tmp/kern.XXXXXX", command[600];
    runner r = {0};
    if (!parse(argc, argv)) return usage();
    if (options.jobs < 0 && options.nvrtc) options.jobs = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (options.nvrtc) return nvrtc_run(&options.range, options.jobs);
    const int status = open_device(&r);
    if (status != 0) return status;
    if (!choose_modes(&r.all, r.device)) return usage();
    const bool kept = host_tools.folder != NULL;
    if (kept)
        (void)mkdir(host_tools.folder, 0700);
    else
        host_tools.folder = mkdtemp(folder);
    if (!host_tools.folder) return 2;
    const int wrong = run_chosen(&r);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", host_tools.folder);
    if (!kept && system(command) != 0) return 2;
    return wrong;
}
