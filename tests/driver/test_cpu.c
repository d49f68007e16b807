/* The cpu driver: loading, and phases of items on OpenMP and on an executor. */
#include <check.h>
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "driver/cpu.h"
#include "driver/parallel.h"
#include "jit/compile.h"
#include "tests/support/failing.h"

/* Two phases: counts of visits per item, then of the first phase's sum seen by each item. */
static const char kernel_text[] =
    "#include <stddef.h>\n"
    "#include <stdint.h>\n"
    "#include \"abi.h\"\n"
    "static size_t size(const struct fj_cpu_args *a) { return (size_t)a->workers * 8; }\n"
    "static int64_t items(const struct fj_cpu_args *a, int phase) { return phase < 2 ? a->q_len : -1; }\n"
    "static void run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {\n"
    "    int32_t *visits = (int32_t *)a->out.data, *seen = (int32_t *)a->lse.data;\n"
    "    if (worker < 0 || worker >= a->workers) a->faults[0].found = 1;\n"
    "    if (phase == 0) { __atomic_fetch_add(&visits[item], 1, __ATOMIC_RELAXED); return; }\n"
    "    for (int64_t i = 0; i < a->q_len; i++) seen[item] += visits[i];\n"
    "}\n"
    "static void blocks(const struct fj_cpu_args *a, int64_t c[3]) { c[0] = a->q_len; c[1] = c[2] = NUMBER; }\n"
    "extern const struct fj_cpu_kernel fj_cpu_kernel;\n"
    "__attribute__((visibility(\"default\"))) const struct fj_cpu_kernel fj_cpu_kernel = {\n"
    "    .abi = ABI, .workspace = size, .items = items, .run = run, .blocks = blocks};\n";

/* The text with abi.h in its place: objects are compiled from one text. */
static void compile(const char *abi, int number, fj_buf *object) {
    fj_error error = {0};
    fj_compiler compiler;
    if (fj_jit_compiler_find(FJ_LANGUAGE_C, &fj_file_ops_system, &fj_allocator_libc, &compiler, &error) !=
        FJ_OK)
        abort();
    fj_jit_problem problem = {.kind = FJ_JIT_PEAK, .dtype = FJ_DTYPE_F32};
    fj_variant variant = {.name = "test"};
    fj_buf text;
    fj_rendered rendered;
    fj_buf_init(&text, &fj_allocator_libc);
    fj_buf_init(object, &fj_allocator_libc);
    fj_status status = fj_jit_render(&problem, &variant, &fj_allocator_libc, &text, &rendered, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    char defines[96];
    (void)snprintf(defines, sizeof defines, "#define NUMBER %d\n#define ABI %s\n", number, abi);
    fj_buf whole;
    fj_buf_init(&whole, &fj_allocator_libc);
    fj_buf_put(&whole, defines);
    fj_buf_write(&whole, rendered.source.data, rendered.source.len);
    status = fj_jit_compile(&compiler, FJ_LANGUAGE_C, fj_jit_compile_options(FJ_ISA_PORTABLE),
                            &fj_file_ops_system, (fj_str){whole.data, whole.len}, object, &error);
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
    fj_buf_finish(&whole);
    fj_buf_finish(&text);
}

static char folder[64];

/* A folder of templates in which our kernel is the peak kernel, and abi.h is the real one. */
static void setup(void) {
    char path[128];
    folder_create(folder);
    (void)snprintf(path, sizeof path, "%s/cpu", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    file_write(path, "peak.c", kernel_text, sizeof kernel_text - 1, 0600);
    setenv("FLEXJIT_TEMPLATE_PATH", folder, 1);
}

static void teardown(void) { folder_remove(folder); }

static fj_code *load(const fj_buf *object) {
    fj_code *code = NULL;
    fj_error error = {0};
    fj_status status =
        fj_driver_cpu.load(&fj_driver_cpu, &fj_allocator_libc, object->data, object->len, &code, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    return code;
}

/* ---- Loading ---------------------------------------------------------------------------------- */

/* In place of the C library's: some machines have none, or run no code of them. */
static bool no_memory_files;
int memfd_create(const char *name, unsigned flags) {
    errno = EPERM;
    return no_memory_files ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

START_TEST(objects_stay_apart) {
    enum { OBJECTS = 3, TIMES = 40 };
    fj_buf objects[OBJECTS];
    fj_code *codes[OBJECTS * TIMES];
    for (int i = 0; i < OBJECTS; i++) compile("FJ_CPU_ABI", i, &objects[i]);
    for (int i = 0; i < OBJECTS * TIMES; i++) codes[i] = load(&objects[i % OBJECTS]);
    for (int i = 0; i < OBJECTS * TIMES; i++) {
        struct fj_cpu_args args = {.q_len = i};
        int64_t counts[3];
        fj_driver_cpu_kernel(codes[i])->blocks(&args, counts);
        ck_assert_int_eq(counts[0], i);
        ck_assert_int_eq(counts[1], i % OBJECTS);
    }
    for (int i = 0; i < OBJECTS * TIMES; i++) fj_driver_cpu.unload(&codes[i]);
    ck_assert_ptr_null(codes[0]);
    fj_driver_cpu.unload(&codes[0]);
    fj_driver_cpu.unload(NULL);
    for (int i = 0; i < OBJECTS; i++) fj_buf_finish(&objects[i]);
}
END_TEST

START_TEST(without_memory_files_a_file_is_loaded) {
    static const char *const bases[] = {NULL, "", "nowhere",
                                        "/"}; /* of these, /tmp; of the last, our folder */
    fj_buf object;
    fj_code *code = NULL;
    fj_error error = {0};
    compile("FJ_CPU_ABI", 7, &object);
    no_memory_files = true;
    for (size_t i = 0; i < FJ_ARRAY_LEN(bases); i++) {
        const char *base = bases[i] && bases[i][0] == '/' ? folder : bases[i];
        (void)(base ? setenv("TMPDIR", base, 1) : unsetenv("TMPDIR"));
        struct fj_cpu_args args = {.q_len = 1};
        int64_t counts[3];
        code = load(&object);
        fj_driver_cpu_kernel(code)->blocks(&args, counts);
        ck_assert_int_eq(counts[1], 7);
        fj_driver_cpu.unload(&code);
    }
    char left[128]; /* nothing but the templates */
    (void)snprintf(left, sizeof left, "test \"$(ls %s)\" = cpu", folder);
    ck_assert_int_eq(system(left), 0);
    setenv("TMPDIR", "/nowhere", 1);
    ck_assert_int_eq(
        fj_driver_cpu.load(&fj_driver_cpu, &fj_allocator_libc, object.data, object.len, &code, &error),
        FJ_ERR_DEVICE);
    ck_assert_str_eq(error.text, "a compiled kernel cannot be loaded: No such file or directory");
    fj_error_finish(&error);
    no_memory_files = false;
    unsetenv("TMPDIR");
    fj_buf_finish(&object);
}
END_TEST

START_TEST(rubbish_is_refused) {
    fj_code *code = NULL;
    fj_error error = {0};
    ck_assert_int_eq(fj_driver_cpu.load(&fj_driver_cpu, &fj_allocator_libc, "rubbish", 7, &code, &error),
                     FJ_ERR_DEVICE);
    ck_assert_int_eq(fj_driver_cpu.load(&fj_driver_cpu, &fj_allocator_libc, "", 0, &code, &error),
                     FJ_ERR_DEVICE);
    ck_assert_ptr_null(code);
    ck_assert(error.text[0] != '\0');
    fj_error_finish(&error);
}
END_TEST

START_TEST(another_abi_is_no_kernel) {
    fj_buf object;
    compile("(FJ_CPU_ABI + 1)", 0, &object);
    fj_code *code = load(&object);
    ck_assert_ptr_null(fj_driver_cpu_kernel(code));
    fj_driver_cpu.unload(&code);
    fj_buf_finish(&object);
}
END_TEST

/* ---- Running ------------------------------------------------------------------------------------ */

/* An executor of plain threads that take the next item each. */
struct pool {
    int64_t items;
    atomic_llong next;
    atomic_int worker;
    void (*fn)(void *arg, int64_t item, int worker);
    void *arg;
};

static void *work(void *argument) {
    struct pool *pool = argument;
    int worker = pool->worker++;
    for (int64_t item; (item = pool->next++) < pool->items;) pool->fn(pool->arg, item, worker);
    return NULL;
}

static void run_pool(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    int workers = *(const int *)user;
    pthread_t threads[16];
    struct pool pool = {.items = items, .fn = fn, .arg = arg};
    for (int i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, &pool) != 0) abort();
    for (int i = 0; i < workers; i++) (void)pthread_join(threads[i], NULL);
}

static void check_run(const struct fj_cpu_kernel *kernel, const fj_launch *launch, int64_t items) {
    int32_t visits[200] = {0}, seen[200] = {0};
    struct fj_cpu_fault faults[16];
    memset(faults, 0xff, sizeof faults);
    struct fj_cpu_args args = {.q_len = items, .workers = fj_driver_workers(launch), .faults = faults};
    args.out.data = (char *)visits;
    args.lse.data = (char *)seen;
    fj_driver_cpu_run(kernel, &args, launch);
    for (int64_t i = 0; i < items; i++) {
        ck_assert_int_eq(visits[i], 1);
        ck_assert_int_eq(seen[i], items); /* the second phase began when the first was done */
    }
    for (int i = 0; i < args.workers; i++) ck_assert_int_eq(faults[i].found, 0);
}

START_TEST(every_item_runs_once) {
    fj_buf object;
    compile("FJ_CPU_ABI", 0, &object);
    fj_code *code = load(&object);
    const struct fj_cpu_kernel *kernel = fj_driver_cpu_kernel(code);
    static const int64_t items[] = {0, 1, 2, 7, 200};
    for (size_t i = 0; i < FJ_ARRAY_LEN(items); i++) {
        check_run(kernel, NULL, items[i]);
        for (int workers = 1; workers <= 8; workers++) {
            fj_launch launch = {.struct_size = sizeof launch, .workers = workers};
            check_run(kernel, &launch, items[i]);
            fj_executor executor = {.user = &workers, .workers = workers, .run = run_pool};
            launch = (fj_launch){.struct_size = sizeof launch, .executor = &executor};
            check_run(kernel, &launch, items[i]);
        }
    }
    fj_driver_cpu.unload(&code);
    fj_buf_finish(&object);
}
END_TEST

/* As on a machine of eight cores: OpenMP would have more threads than workers were asked for. */
static atomic_int threads_seen[9];

static void see_threads(void *arg, int64_t item, int worker) {
    (void)arg, (void)item;
    const int threads = omp_get_num_threads();
    threads_seen[threads < 8 ? threads : 8]++;
    if (worker >= threads) abort();
}

START_TEST(more_cores_than_workers) {
    omp_set_num_threads(8);
    fj_driver_parallel(NULL, 3, 50, see_threads, NULL);
    ck_assert_int_eq(threads_seen[3], 50);
    fj_driver_parallel(NULL, 8, 2, see_threads, NULL); /* nor than items */
    ck_assert_int_eq(threads_seen[2], 2);
    fj_driver_parallel(NULL, 1, 7, see_threads, NULL);
    ck_assert_int_eq(threads_seen[1], 7);
}
END_TEST

static void run_never(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    (void)user, (void)fn, (void)arg;
    ck_abort_msg("an executor is asked to run %d items", (int)items);
}

START_TEST(nothing_wakes_no_executor) {
    const fj_executor executor = {.workers = 2, .run = run_never};
    const fj_launch launch = {.struct_size = sizeof launch, .executor = &executor};
    fj_driver_parallel(&launch, 2, 0, see_threads, NULL);
    fj_driver_parallel(&launch, 2, -1, see_threads, NULL);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("driver");
    TCase *tests = tcase_create("cpu");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, objects_stay_apart);
    tcase_add_test(tests, without_memory_files_a_file_is_loaded);
    tcase_add_test(tests, rubbish_is_refused);
    tcase_add_test(tests, another_abi_is_no_kernel);
    tcase_add_test(tests, every_item_runs_once);
    tcase_add_test(tests, more_cores_than_workers);
    tcase_add_test(tests, nothing_wakes_no_executor);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
