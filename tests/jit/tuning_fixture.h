/* What the tests of records of tuning share: two folders for layers, calls, records of them, and looking. */
#ifndef FJ_TESTS_JIT_TUNING_FIXTURE_H
#define FJ_TESTS_JIT_TUNING_FIXTURE_H

#include <check.h>
#include <sys/stat.h>

#include "jit/tuning_record.h"
#include "tests/support/failing.h"

static char folder[64], first[96], second[96];
static char logged[8192];
static int warnings;

static inline void take_log(void *user, fj_log_level level, const char *message) {
    (void)user;
    if (level < FJ_LOG_WARN) return;
    warnings++;
    const size_t length = strlen(logged);
    (void)snprintf(logged + length, sizeof logged - length, "%s\n", message);
}

static inline void setup(void) {
    folder_create(folder);
    (void)snprintf(first, sizeof first, "%s/first", folder);
    (void)snprintf(second, sizeof second, "%s/second", folder);
    ck_assert_int_eq(mkdir(first, 0700), 0);
    ck_assert_int_eq(mkdir(second, 0700), 0);
    failing_files_countdown = -1;
    failing_files_reason = EIO;
    logged[0] = '\0';
    warnings = 0;
}

static inline void teardown(void) { folder_remove(folder); }

/* ---- Calls and records ------------------------------------------------------------------------------------- */

static const fj_features avx512 = {
    .isa = {true, true, true}, .cores = 2, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_features many_cores = {
    .isa = {true, true, true}, .cores = 64, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_features other_caches = {
    .isa = {true, true, true}, .cores = 2, .l1d = 49152, .l2 = 2 << 20, .l3 = 1 << 26};
static const fj_features bf16 = {
    .isa = {true, true, true, true}, .cores = 2, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_features avx2 = {.isa = {true, true}, .cores = 2, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_jit_problem forward = {.kind = FJ_JIT_FORWARD,
                                       .dtype = FJ_DTYPE_F32,
                                       .head_dim = 64,
                                       .value_dim = 64,
                                       .deterministic = true,
                                       .gqa = 1};

#define DEFAULT "fwd_cpu_f32_e64_v64_m48_n256_avx512"
#define OTHER "fwd_cpu_f32_e64_v64_m48_n128_avx512"
#define THIRD "fwd_cpu_f32_e64_v64_m48_n256_avx2"

static inline fj_tuning_call call_of(const fj_features *features, int64_t heads, int64_t q_len,
                                     int64_t kv_len) {
    return (fj_tuning_call){
        .problem = &forward, .features = features, .batch_heads = heads, .q_len = q_len, .kv_len = kv_len};
}

static inline fj_tuning *open_with(const char *path, const fj_embedded *shipped, size_t count) {
    fj_tuning *tuning = NULL;
    const fj_tuning_desc desc = {.allocator = &fj_allocator_libc,
                                 .ops = &failing_files,
                                 .path = path,
                                 .shipped = shipped,
                                 .shipped_count = count,
                                 .log = take_log};
    ck_assert_int_eq(fj_tuning_create(&desc, &tuning), FJ_OK);
    return tuning;
}

static inline fj_status try_append(const char *path, const char *file, const fj_tuning_call *call,
                                   const char *variant, fj_error *error) {
    fj_tuning *tuning = open_with(path, NULL, 0);
    const fj_tuning_new record = {
        .call = *call, .machine = "a \"machine\"", .best = {variant, 1.25}, .standard = {DEFAULT, 1.5}};
    const fj_status status = fj_tuning_append(tuning, file, &record, error);
    fj_tuning_destroy(&tuning);
    return status;
}

static inline void append(const char *path, const char *file, const fj_tuning_call *call,
                          const char *variant) {
    fj_error error = {0};
    const fj_status status = try_append(path, file, call, variant, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

static inline void append_at(const char *path, int64_t heads, int64_t q_len, int64_t kv_len,
                             const char *variant) {
    const fj_tuning_call call = call_of(&avx512, heads, q_len, kv_len);
    append(path, NULL, &call, variant);
}

/* What a call takes, "" for nothing; the text of the rule in ret_rule: "exact", "nearest", with "shipped ". */
static inline const char *find_among(const char *path, const fj_embedded *shipped, size_t count,
                                     const fj_tuning_call *call, char ret_rule[160]) {
    static char name[FJ_JIT_VARIANT_NAME];
    fj_tuning *tuning = open_with(path, shipped, count);
    fj_tuning_found found;
    bool is_found;
    ck_assert_int_eq(fj_tuning_find(tuning, call, &is_found, &found), FJ_OK);
    (void)snprintf(name, sizeof name, "%s", is_found ? found.variant.name : "");
    ret_rule[0] = '\0';
    if (is_found)
        (void)snprintf(ret_rule, 160, "%s%s %s:%d", found.shipped ? "shipped " : "",
                       found.rule == FJ_TUNING_EXACT ? "exact" : "nearest", strrchr(found.file, '/') + 1,
                       found.line);
    fj_tuning_destroy(&tuning);
    return name;
}

static inline void check_call(const char *path, const fj_tuning_call *call, const char *variant,
                              const char *rule) {
    char got[160];
    ck_assert_str_eq(find_among(path, NULL, 0, call, got), variant);
    ck_assert_str_eq(got, rule);
}

static inline void check(const char *path, int64_t heads, int64_t q_len, int64_t kv_len, const char *variant,
                         const char *rule) {
    const fj_tuning_call call = call_of(&avx512, heads, q_len, kv_len);
    check_call(path, &call, variant, rule);
}

static inline void put_lines(const char *name, const char *text) {
    file_write(first, name, text, strlen(text), 0600);
}

/* A part of a text, which is there. */
static inline void overwrite(char *at, const char *with) {
    ck_assert_ptr_nonnull(at);
    while (*with) *at++ = *with++;
}

/* What is in the first layer's file, to be given back to free. */
static inline char *text_of(const char *name) {
    size_t size;
    char *text = file_read(first, name, &size);
    text[size] = '\0';
    return text;
}

/* ---- Running --------------------------------------------------------------------------------------------------- */

static inline int run_suite(const char *name, const TTest *const *tests, size_t count) {
    Suite *suite = suite_create(name);
    TCase *group = tcase_create(name);
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 60);
    for (size_t i = 0; i < count; i++) tcase_add_test(group, tests[i]);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#define RUN_SUITE(name, ...)                                \
    int main(void) {                                        \
        const TTest *const tests[] = {__VA_ARGS__};         \
        return run_suite(name, tests, FJ_ARRAY_LEN(tests)); \
    }

#endif
