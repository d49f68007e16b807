/* What the tests of jit/ share: a folder of templates with one tiny kernel, and sessions. */
#ifndef FJ_TESTS_JIT_SESSION_H
#define FJ_TESTS_JIT_SESSION_H

#include <check.h>
#include <signal.h>

#include "driver/cpu.h"
#include "jit/compile.h"
#include "jit/jit.h"
#include "tests/support/failing.h"

/* What abi.h, and so every template, needs of a kernel. NUMBER tells kernels apart. */
#define KERNEL(number)                                                                                                \
    "#include \"abi.h\"\n"                                                                                            \
    "static size_t size(const struct fj_cpu_args *a) { return (size_t)a->workers; }\n"                                \
    "static int64_t items(const struct fj_cpu_args *a, int phase) { return phase ? -1 : a->q_len; }\n"                \
    "static void run(const struct fj_cpu_args *a, int p, int64_t i, int w) { (void)a, (void)p, (void)i, (void)w; }\n" \
    "static void blocks(const struct fj_cpu_args *a, int64_t c[3]) { (void)a; c[0] = c[1] = c[2] = " #number          \
    "; }\n"                                                                                                           \
    "extern const struct fj_cpu_kernel fj_cpu_kernel;\n"                                                              \
    "__attribute__((visibility(\"default\"))) const struct fj_cpu_kernel fj_cpu_kernel = {\n"                         \
    "    .abi = FJ_CPU_ABI, .workspace = size, .items = items, .run = run, .blocks = blocks};\n"

static char folder[64], cache_path[96], templates[96], tmpdir[96], tools[96];

static inline void write_template(const char *text) {
    file_write(templates, "peak.c", text, strlen(text), 0600);
}

static inline void make_folder(char path[96], const char *name) {
    (void)snprintf(path, 96, "%s/%s", folder, name);
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

static inline void setup(void) {
    char path[96];
    folder_create(folder);
    (void)snprintf(cache_path, sizeof cache_path, "%s/cache", folder);
    make_folder(tmpdir, "tmp");
    make_folder(tools, "tools");
    make_folder(path, "templates");
    make_folder(templates, "templates/cpu");
    write_template(KERNEL(1));
    setenv("FLEXJIT_TEMPLATE_PATH", path, 1);
    setenv("TMPDIR", tmpdir, 1);
    setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
    unsetenv("FLEXJIT_NO_JIT");
    unsetenv("FLEXJIT_CC");
    failing_files_countdown = -1;
}

static inline void teardown(void) { folder_remove(folder); }

/* Makes a program of a shell script and has it be the compiler. */
static inline void use_script(const char *text) {
    char path[128];
    file_write(tools, "compiler", text, strlen(text), 0700);
    (void)snprintf(path, sizeof path, "%s/compiler", tools);
    setenv("FLEXJIT_CC", path, 1);
}

/* ---- One session: a cache and a jit ---------------------------------------------------------------- */

typedef struct session {
    fj_allocator allocator;
    fj_cache *cache;
    fj_jit *jit;
    fj_error error;
    fj_jit_info info;
} session;

static inline bool session_try(session *self, const fj_allocator *allocator) {
    *self = (session){.allocator = *allocator};
    fj_cache_desc cache = {.path = cache_path, .ops = &failing_files, .allocator = &self->allocator};
    if (fj_cache_create(&cache, &self->cache) != FJ_OK) return false;
    fj_jit_desc jit = {.allocator = &self->allocator, .cache = self->cache, .ops = &failing_files};
    if (fj_jit_create(&jit, &self->jit) == FJ_OK) return true;
    fj_cache_destroy(&self->cache);
    return false;
}

static inline void session_open(session *self) { ck_assert(session_try(self, &fj_allocator_libc)); }

static inline void session_close(session *self) {
    fj_error_finish(&self->error);
    fj_jit_destroy(&self->jit);
    fj_cache_destroy(&self->cache);
}

static const fj_jit_problem problem = {.kind = FJ_JIT_PEAK, .dtype = FJ_DTYPE_F32};
static const fj_variant variant = {.name = "test_kernel"};

static inline fj_status prepare(session *self, fj_object **ret_object) {
    return fj_jit_prepare(self->jit, &fj_driver_cpu, &problem, &variant, ret_object, &self->info,
                          &self->error);
}

static inline int64_t number_of(const fj_object *object) {
    int64_t counts[3];
    struct fj_cpu_args args = {0};
    fj_driver_cpu_kernel(fj_jit_object_code(object))->blocks(&args, counts);
    return counts[0];
}

static inline fj_object *prepared(session *self, bool hit, int64_t number) {
    fj_object *object = NULL;
    fj_status status = prepare(self, &object);
    ck_assert_msg(status == FJ_OK, "%s\n%s", self->error.text, self->error.detail ? self->error.detail : "");
    ck_assert_int_eq(self->info.cache_hit, hit);
    ck_assert_int_eq(number_of(object), number);
    ck_assert_int_eq(folder_count(tmpdir, ""), 0);
    return object;
}

/* In a session of its own. */
static inline void check_prepare(bool hit, int64_t number) {
    session self;
    session_open(&self);
    fj_object *object = prepared(&self, hit, number);
    fj_jit_release(self.jit, &object);
    session_close(&self);
}

static inline void check_failure(fj_status expected, const char *part, const char *detail) {
    session self;
    fj_object *object = NULL;
    session_open(&self);
    ck_assert_int_eq(prepare(&self, &object), expected);
    ck_assert_ptr_null(object);
    ck_assert_msg(strstr(self.error.text, part) != NULL, "%s", self.error.text);
    if (detail)
        ck_assert_msg(self.error.detail && strstr(self.error.detail, detail), "%s", self.error.detail);
    ck_assert_int_eq(folder_count(tmpdir, ""), 0);
    session_close(&self);
}

/* ---- Running ------------------------------------------------------------------------------------- */

static inline int run_suite(const char *name, const TTest *const *tests, size_t count) {
    Suite *suite = suite_create(name);
    TCase *group = tcase_create(name);
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 60);
    for (size_t i = 0; i < count; i++) tcase_add_test(group, tests[i]);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#define RUN_SUITE(name, ...)                                \
    int main(void) {                                        \
        const TTest *const tests[] = {__VA_ARGS__};         \
        return run_suite(name, tests, FJ_ARRAY_LEN(tests)); \
    }

#endif
