/* Records of tuning: which of them a call takes, what files may hold, and what is added to them. */
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "jit/tuning_record.h"
#include "tests/support/failing.h"

static char folder[64], first[96], second[96];
static char logged[8192];
static int warnings;

static void take_log(void *user, fj_log_level level, const char *message) {
    (void)user;
    if (level < FJ_LOG_WARN) return;
    warnings++;
    const size_t length = strlen(logged);
    (void)snprintf(logged + length, sizeof logged - length, "%s\n", message);
}

static void setup(void) {
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

static void teardown(void) { folder_remove(folder); }

/* ---- Calls and records ------------------------------------------------------------------------------------- */

static const fj_features avx512 = {.isa = {true, true, true}, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_features other_caches = {
    .isa = {true, true, true}, .l1d = 49152, .l2 = 2 << 20, .l3 = 1 << 26};
static const fj_features bf16 = {.isa = {true, true, true, true}, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_features avx2 = {.isa = {true, true}, .l1d = 32768, .l2 = 1 << 20, .l3 = 1 << 25};
static const fj_jit_problem forward = {.kind = FJ_JIT_FORWARD,
                                       .dtype = FJ_DTYPE_F32,
                                       .head_dim = 64,
                                       .value_dim = 64,
                                       .deterministic = true,
                                       .gqa = 1};

#define DEFAULT "fwd_cpu_f32_e64_v64_m48_n256_avx512"
#define OTHER "fwd_cpu_f32_e64_v64_m48_n128_avx512"
#define THIRD "fwd_cpu_f32_e64_v64_m48_n256_avx2"

static fj_tuning_call call_of(const fj_features *features, int64_t heads, int64_t q_len, int64_t kv_len) {
    return (fj_tuning_call){
        .problem = &forward, .features = features, .batch_heads = heads, .q_len = q_len, .kv_len = kv_len};
}

static fj_tuning *open_with(const char *path, const fj_embedded *shipped, size_t count) {
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

static fj_status try_append(const char *path, const char *file, const fj_tuning_call *call,
                            const char *variant, fj_error *error) {
    fj_tuning *tuning = open_with(path, NULL, 0);
    const fj_tuning_new record = {
        .call = *call, .machine = "a \"machine\"", .best = {variant, 1.25}, .standard = {DEFAULT, 1.5}};
    const fj_status status = fj_tuning_append(tuning, file, &record, error);
    fj_tuning_destroy(&tuning);
    return status;
}

static void append(const char *path, const char *file, const fj_tuning_call *call, const char *variant) {
    fj_error error = {0};
    const fj_status status = try_append(path, file, call, variant, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

static void append_at(const char *path, int64_t heads, int64_t q_len, int64_t kv_len, const char *variant) {
    const fj_tuning_call call = call_of(&avx512, heads, q_len, kv_len);
    append(path, NULL, &call, variant);
}

/* What a call takes, "" for nothing; the text of the rule in ret_rule: "exact", "nearest", with "shipped ". */
static const char *find_among(const char *path, const fj_embedded *shipped, size_t count,
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

static void check_call(const char *path, const fj_tuning_call *call, const char *variant, const char *rule) {
    char got[160];
    ck_assert_str_eq(find_among(path, NULL, 0, call, got), variant);
    ck_assert_str_eq(got, rule);
}

static void check(const char *path, int64_t heads, int64_t q_len, int64_t kv_len, const char *variant,
                  const char *rule) {
    const fj_tuning_call call = call_of(&avx512, heads, q_len, kv_len);
    check_call(path, &call, variant, rule);
}

static void put_lines(const char *name, const char *text) {
    file_write(first, name, text, strlen(text), 0600);
}

/* What is in the first layer's file, to be given back to free. */
static char *text_of(const char *name) {
    size_t size;
    char *text = file_read(first, name, &size);
    text[size] = '\0';
    return text;
}

/* ---- Which record ------------------------------------------------------------------------------------------ */

START_TEST(exact_then_nearest) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 1024, 1024, THIRD);
    check(first, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    check(first, 8, 1024, 1024, THIRD, "exact tune.jsonl:3");
    check(first, 8, 600, 600, OTHER, "nearest tune.jsonl:2");
    check(first, 8, 900, 900, THIRD, "nearest tune.jsonl:3");
    check(first, 16, 512, 512, OTHER, "nearest tune.jsonl:2");
    check(first, 64, 2048, 2048, "", "");
}
END_TEST

static const struct {
    int64_t heads, q_len, kv_len;
    bool is_near;
} limits[] = {
    {8, 512, 512, true},
    {32, 512, 512, true},
    {33, 512, 512, false},
    {2, 512, 512, true},
    {1, 512, 512, false},
    {8, 2048, 512, true},
    {8, 2049, 512, false},
    {8, 128, 512, true},
    {8, 127, 512, false},
    {8, 512, 2048, true},
    {8, 512, 2049, false},
    {32, 2048, 2048, true},
    {64, 64, 512, false} /* as many queries in all */,
    {1, 4096, 512, false},
    {8, 1, 512, false},
};

/* The three lengths apart, each within a factor. */
START_TEST(reach) {
    append_at(first, 8, 512, 512, OTHER);
    for (size_t i = 0; i < FJ_ARRAY_LEN(limits); i++) {
        char rule[160];
        const fj_tuning_call call = call_of(&avx512, limits[i].heads, limits[i].q_len, limits[i].kv_len);
        const bool is_found = *find_among(first, NULL, 0, &call, rule) != '\0';
        ck_assert_msg(is_found == limits[i].is_near, "%zu: %s", i, rule);
    }
}
END_TEST

/* Within reach by its numbers, but one is decoding: by its length, or because the caller says so. */
START_TEST(decoding_and_prefill_apart) {
    append_at(first, 8, 64, 512, OTHER);
    check(first, 8, 63, 512, "", "");
    fj_jit_problem few = forward;
    few.few_queries = true;
    fj_tuning_call call = call_of(&avx512, 8, 64, 512);
    call.problem = &few;
    check_call(first, &call, "", "");
    append(first, NULL, &call, THIRD);
    check_call(first, &call, THIRD, "exact tune.jsonl:3");
    check(first, 8, 48, 512, THIRD, "nearest tune.jsonl:3");
    check(first, 8, 64, 512, OTHER, "exact tune.jsonl:2");
}
END_TEST

START_TEST(lengths_not_known) {
    append_at(first, 8, 512, 512, OTHER);
    check(first, 0, 512, 512, "", "");
    check(first, 8, 0, 512, "", "");
    check(first, 8, 512, 0, "", "");
}
END_TEST

START_TEST(later_wins_in_a_layer) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 512, 512, THIRD);
    check(first, 8, 512, 512, THIRD, "exact tune.jsonl:3");
    char path[128];
    (void)snprintf(path, sizeof path, "%s/zz.jsonl", first);
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    append(first, path, &call, DEFAULT);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2"); /* files in the order of their names */
    (void)snprintf(path, sizeof path, "%s/aa.jsonl", first);
    append(first, path, &call, OTHER);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2");
    (void)snprintf(path, sizeof path, "%s/zzz.json", first); /* is none of them */
    append(first, path, &call, OTHER);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2");
}
END_TEST

START_TEST(earlier_layers_win) {
    char both[256], reversed[256], far[256];
    (void)snprintf(both, sizeof both, "%s:%s", first, second);
    (void)snprintf(reversed, sizeof reversed, "%s::%s", second, first);
    (void)snprintf(far, sizeof far, "%s/absent:%s", folder, second);
    append_at(first, 8, 512, 512, OTHER);
    append_at(second, 8, 512, 512, THIRD);
    append_at(second, 8, 1024, 1024, DEFAULT);
    check(both, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    check(reversed, 8, 512, 512, THIRD, "exact tune.jsonl:2");
    check(far, 8, 512, 512, THIRD, "exact tune.jsonl:2");
    check(both, 8, 1024, 1024, DEFAULT,
          "exact tune.jsonl:3"); /* exact in any layer before near in an earlier one */
    check(both, 8, 600, 600, OTHER, "nearest tune.jsonl:2");
}
END_TEST

START_TEST(shipped_comes_last) {
    char rule[160];
    append_at(first, 8, 512, 512, THIRD);
    char *text = text_of("tune.jsonl");
    /* Of any version: the library was built with it. */
    char *version = strstr(text, FJ_VERSION);
    ck_assert_ptr_nonnull(version);
    memcpy(version, "9.9.9", 5);
    const fj_embedded shipped = {"tuning/cpu.jsonl", text, strlen(text)};
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512), near = call_of(&avx512, 8, 1024, 512);
    ck_assert_str_eq(find_among(second, &shipped, 1, &call, rule), THIRD);
    ck_assert_str_eq(rule, "shipped exact cpu.jsonl:2");
    ck_assert_str_eq(find_among(second, &shipped, 1, &near, rule), THIRD);
    ck_assert_str_eq(rule, "shipped nearest cpu.jsonl:2");
    append_at(second, 16, 512, 512, OTHER);
    ck_assert_str_eq(find_among(second, &shipped, 1, &call, rule), OTHER); /* near, but the user's */
    ck_assert_str_eq(rule, "nearest tune.jsonl:2");
    free(text);
}
END_TEST

/* Other caches are near, another instruction set is not; F32 has no kernels of its own for BF16 instructions. */
START_TEST(devices) {
    const fj_tuning_call here = call_of(&avx512, 8, 512, 512), caches = call_of(&other_caches, 8, 512, 512),
                         old = call_of(&avx2, 8, 512, 512), newer = call_of(&bf16, 8, 512, 512);
    append(first, NULL, &caches, OTHER);
    check_call(first, &here, OTHER, "nearest tune.jsonl:2");
    check_call(first, &newer, OTHER, "nearest tune.jsonl:2");
    check_call(first, &old, "", "");
    append(first, NULL, &here, THIRD);
    check_call(first, &newer, THIRD, "exact tune.jsonl:3");
    check_call(first, &caches, OTHER, "exact tune.jsonl:2");
    append(first, NULL, &old, THIRD);
    check_call(first, &old, THIRD, "exact tune.jsonl:4");
    ck_assert_int_eq(warnings, 0); /* records of other devices are nothing to warn of */
}
END_TEST

START_TEST(gpus) {
    fj_arch sm_90 = {90, 'a'}, sm_80 = {80, '\0'};
    const fj_features of_90 = fj_jit_arch_features(sm_90), of_80 = fj_jit_arch_features(sm_80);
    fj_features emulated = of_90, smaller = of_90;
    emulated.emulated = true;
    smaller.multiprocessors = 100;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    ck_assert_int_gt(fj_jit_variants(&forward, &of_90, variants), 2);
    const char *name = variants[1].name;
    const fj_tuning_call here = call_of(&of_90, 8, 512, 512), old = call_of(&of_80, 8, 512, 512),
                         emu = call_of(&emulated, 8, 512, 512), less = call_of(&smaller, 8, 512, 512);
    append(first, NULL, &here, name);
    check_call(first, &here, name, "exact tune.jsonl:2");
    check_call(first, &less, name, "nearest tune.jsonl:2");
    check_call(first, &old, "", "");
    check_call(first, &emu, "", "");
    check(first, 8, 512, 512, "", "");
}
END_TEST

/* Each differs from `forward` in what makes another kernel, or another choice of one. */
START_TEST(problems_apart) {
    enum { PROBLEMS = 10 };
    fj_jit_problem problems[PROBLEMS];
    for (int i = 0; i < PROBLEMS; i++) problems[i] = forward;
    problems[0].dtype = FJ_DTYPE_F64;
    problems[1].head_dim = 63;
    problems[2].value_dim = 63;
    problems[3].max = true;
    problems[4].packed = true;
    problems[5].paged = true;
    problems[6].block_mask = true;
    problems[7].few_queries = true;
    problems[8].gqa = 4;
    problems[9].kind = FJ_JIT_BACKWARD;
    append_at(first, 8, 512, 512, OTHER);
    fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    for (int i = 0; i < PROBLEMS; i++) {
        call.problem = &problems[i];
        check_call(first, &call, "", "");
    }
    call.problem = &forward;
    for (int tier = FJ_TIER_RANGES; tier <= FJ_TIER_ELEMENTWISE; tier++) {
        call.tier = (fj_mask_tier)tier;
        check_call(first, &call, "", "");
    }
    ck_assert_int_eq(warnings, 0);
    /* What kernels of the cpu do not know makes no other problem of theirs. */
    fj_jit_problem same = forward;
    same.deterministic = false;
    same.tf32 = same.q_offset = same.shared_keys = true;
    call = call_of(&avx512, 8, 512, 512);
    call.problem = &same;
    check_call(first, &call, OTHER, "exact tune.jsonl:2");
}
END_TEST

/* Groups of several heads are alike, the nearest is that of the same size. */
START_TEST(groups) {
    fj_jit_problem grouped = forward, other = forward;
    grouped.gqa = 4;
    other.gqa = 8;
    fj_tuning_call four = call_of(&avx512, 8, 512, 512), eight = four;
    four.problem = &grouped;
    eight.problem = &other;
    append(first, NULL, &four, OTHER);
    check_call(first, &eight, OTHER, "nearest tune.jsonl:2");
    append(first, NULL, &eight, THIRD);
    check_call(first, &eight, THIRD, "exact tune.jsonl:3");
    check_call(first, &four, OTHER, "exact tune.jsonl:2");
}
END_TEST

START_TEST(cost_classes) {
    static const struct {
        int score, class;
    } costs[] = {{0, 0}, {1, 1}, {15, 1}, {16, 2}, {255, 2}, {256, 3}, {100000, 3}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(costs); i++) {
        for (size_t j = 0; j < FJ_ARRAY_LEN(costs); j++) {
            fj_ir a = {.cost = {.score = costs[i].score}}, b = {.cost = {.score = costs[j].score}};
            fj_jit_problem of_a = forward, of_b = forward;
            of_a.ir = &a;
            of_b.ir = &b;
            fj_tuning_call x = call_of(&avx512, 8, 512, 512), y = x;
            x.problem = &of_a;
            y.problem = &of_b;
            fj_tuning_key key_x, key_y;
            ck_assert(fj_tuning_key_of(&x, &key_x) && fj_tuning_key_of(&y, &key_y));
            ck_assert_int_eq(fj_cache_digest_equal(key_x.problem, key_y.problem),
                             costs[i].class == costs[j].class);
        }
    }
}
END_TEST

/* Gradients of captures are summed by more kernels. */
START_TEST(capture_gradients_apart) {
    fj_ir plain = {.cost = {.gradient = 1}}, summing = plain;
    fj_jit_problem backward = forward;
    fj_tuning_key keys[2];
    summing.scatters.len = 1;
    backward.kind = FJ_JIT_BACKWARD;
    for (int i = 0; i < 2; i++) {
        fj_tuning_call call = call_of(&avx512, 8, 512, 512);
        backward.gradient = i ? &summing : &plain;
        call.problem = &backward;
        ck_assert(fj_tuning_key_of(&call, &keys[i]));
    }
    ck_assert(!fj_cache_digest_equal(keys[0].problem, keys[1].problem));
}
END_TEST

/* ---- What files hold --------------------------------------------------------------------------------------- */

/* One warning a file, with a count; what is sound beside it is used. */
START_TEST(nonsense_is_counted) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl");
    char all[4096];
    (void)snprintf(
        all, sizeof all,
        "nonsense\n[1]\n \t\r\n%s{}\n{\"variant\":7}\n\"\xff\"\n{\"device\":{},\"problem\":{},\"call\":{}}\n",
        text);
    put_lines("tune.jsonl", all);
    check(first, 8, 512, 512, OTHER, "exact tune.jsonl:5");
    ck_assert_int_eq(warnings, 1);
    ck_assert_msg(strstr(logged, "tune.jsonl: 6 lines are not used; line 1 is not a JSON object"), "%s",
                  logged);
    free(text);
}
END_TEST

START_TEST(torn_last_line) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 1024, 1024, THIRD);
    char *text = text_of("tune.jsonl");
    text[strlen(text) - 40] = '\0';
    put_lines("tune.jsonl", text);
    check(first, 8, 1024, 1024, OTHER, "nearest tune.jsonl:2");
    ck_assert_int_eq(warnings, 1);
    append_at(first, 8, 1024, 1024, DEFAULT); /* on a line of its own */
    check(first, 8, 1024, 1024, DEFAULT, "exact tune.jsonl:4");
    free(text);
}
END_TEST

/* Of the header too. */
START_TEST(torn_anywhere) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl");
    const size_t length = strlen(text);
    for (size_t size = 0; size < length; size += 7) {
        file_write(first, "tune.jsonl", text, size, 0600);
        append_at(first, 8, 512, 512, THIRD);
        char rule[160];
        const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
        ck_assert_str_eq(find_among(first, NULL, 0, &call, rule), THIRD);
    }
    free(text);
}
END_TEST

/* Merged by cat: headers anywhere, and each holds for what follows it. */
START_TEST(merged) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(second, 8, 512, 512, THIRD);
    char *one = text_of("tune.jsonl"), *two;
    size_t size;
    two = file_read(second, "tune.jsonl", &size);
    two[size] = '\0';
    char all[8192];
    (void)snprintf(
        all, sizeof all,
        "%s%s{\"schema\":99,\"tool\":\"flexjit 0.1.0\"}\n%s{\"schema\":1,\"tool\":\"flexjit 0.0.1\"}\n%s",
        one, two, strchr(one, '\n') + 1, strchr(one, '\n') + 1);
    put_lines("tune.jsonl", all);
    check(first, 8, 512, 512, THIRD, "exact tune.jsonl:4");
    ck_assert_int_eq(warnings, 1);
    ck_assert_msg(strstr(logged, "3 lines are not used; line 5 is a header of another schema"), "%s", logged);
    free(one);
    free(two);
}
END_TEST

START_TEST(other_version) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl");
    memcpy(strstr(text, FJ_VERSION), "9.9.9", 5);
    put_lines("tune.jsonl", text);
    check(first, 8, 512, 512, "", "");
    ck_assert_msg(strstr(logged, "line 2 is a record of another schema or version"), "%s", logged);
    append_at(first, 8, 512, 512, THIRD); /* with a header of this version before it */
    check(first, 8, 512, 512, THIRD, "exact tune.jsonl:4");
    free(text);
}
END_TEST

START_TEST(other_target) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl");
    memcpy(strstr(text, "\"target\":\"cpu\"") + 10, "tpu", 3);
    put_lines("tune.jsonl", text);
    check(first, 8, 512, 512, "", "");
    ck_assert_msg(strstr(logged, "line 2 is a record of a target that is not known"), "%s", logged);
    free(text);
}
END_TEST

START_TEST(header_without_tool) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl"), all[4096];
    (void)snprintf(all, sizeof all, "{\"schema\":1}\n%s", strchr(text, '\n') + 1);
    put_lines("tune.jsonl", all);
    check(first, 8, 512, 512, "", "");
    ck_assert_msg(strstr(logged, "2 lines are not used; line 1 is a header that names no tool"), "%s",
                  logged);
    free(text);
}
END_TEST

/* Another machine's name, a member that this version does not know. */
START_TEST(unknown_members) {
    append_at(first, 8, 512, 512, OTHER);
    char *text = text_of("tune.jsonl");
    char all[4096];
    (void)snprintf(all, sizeof all, "%.*s\"added\":[1,{}],%s", (int)(strchr(text, '\n') - text + 2), text,
                   strchr(text, '\n') + 2);
    put_lines("tune.jsonl", all);
    check(first, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    char *problem = strstr(text, "\"problem\":{") + strlen("\"problem\":{");
    (void)snprintf(all, sizeof all, "%.*s\"added\":1,%s", (int)(problem - text), text, problem);
    put_lines("tune.jsonl", all);
    check(first, 8, 512, 512, "", "");
    ck_assert_int_eq(warnings, 0);
    free(text);
}
END_TEST

/* The next best is taken, and the first such record is warned of, once. */
START_TEST(illegal_variant) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 600, 600, "fwd_cpu_f32_e64_v64_m47_n256_avx512");
    const fj_tuning_call call = call_of(&avx512, 8, 600, 600);
    fj_tuning *tuning = open_with(first, NULL, 0);
    fj_tuning_found found;
    bool is_found;
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(fj_tuning_find(tuning, &call, &is_found, &found), FJ_OK);
        ck_assert(is_found && found.line == 2);
    }
    ck_assert_int_eq(warnings, 1);
    ck_assert_msg(strstr(logged, "tune.jsonl: line 3 names variant fwd_cpu_f32_e64_v64_m47_n256_avx512"),
                  "%s", logged);
    fj_tuning_destroy(&tuning);
}
END_TEST

START_TEST(odd_files) {
    char path[128];
    append_at(first, 8, 512, 512, OTHER);
    (void)snprintf(path, sizeof path, "%s/pipe.jsonl", first);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    (void)snprintf(path, sizeof path, "%s/folder.jsonl", first);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    (void)snprintf(path, sizeof path, "%s/nowhere.jsonl", first);
    ck_assert_int_eq(symlink("/nonexistent", path), 0);
    put_lines("empty.jsonl", "");
    check(first, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    ck_assert_int_eq(warnings, 3);
    (void)snprintf(path, sizeof path, "%s/tune.jsonl", first);
    check(path, 8, 512, 512, "", ""); /* a layer that is not a folder */
    ck_assert_int_eq(warnings, 4);
}
END_TEST

/* ---- What is added ----------------------------------------------------------------------------------------- */

START_TEST(text_of_a_record) {
    append_at(first, 8, 512, 256, OTHER);
    char *text = text_of("tune.jsonl"), *line = strchr(text, '\n') + 1, *date = strstr(line, "\"date\":\"");
    ck_assert_msg(strncmp(text, "{\"schema\":1,\"tool\":\"flexjit " FJ_VERSION "\"}\n", 20) == 0, "%s", text);
    ck_assert_ptr_nonnull(date);
    memset(date + strlen("\"date\":\""), 'D', strlen("2026-11-30T12:00:00Z"));
    ck_assert_str_eq(
        line,
        "{\"call\":{\"batch_heads\":8,\"gqa\":1,\"kv_len\":256,\"q_len\":512},\"date\":\"DDDDDDDDDDDDDDDDDDDD\","
        "\"default\":{\"time_ms\":1.5,\"variant\":\"" DEFAULT
        "\"},\"device\":{\"arch\":\"avx512\",\"l1d\":32768,"
        "\"l2\":1048576,\"l3\":33554432,\"target\":\"cpu\"},\"machine\":\"a \\\"machine\\\"\",\"problem\":{"
        "\"block_mask\":false,\"capture_grads\":false,\"cost\":\"none\",\"deterministic\":true,"
        "\"direction\":\"fwd\",\"dtype\":\"F32\",\"few_queries\":false,\"form\":\"dense\",\"grouped\":false,"
        "\"head_dim\":64,\"mask\":\"none\",\"mask_cost\":\"none\",\"max\":false,\"q_offset\":false,"
        "\"shared_keys\":false,\"tf32\":false,\"value_dim\":64},\"time_ms\":1.25,\"variant\":\"" OTHER
        "\"}\n");
    free(text);
}
END_TEST

START_TEST(folders_are_made) {
    char path[256];
    struct stat status;
    (void)snprintf(path, sizeof path, "%s/a/b:%s", folder, second);
    append_at(path, 8, 512, 512, OTHER);
    check(path, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    (void)snprintf(path, sizeof path, "%s/a", folder);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_mode & 0777, 0700);
    ck_assert_int_eq(folder_count(second, ""), 0);
}
END_TEST

static const struct {
    const char *text, *error;
} strangers[] = {
    {"{\"schema\":99,\"tool\":\"flexjit 0.1.0\"}\n", "it has records of another schema; give another file"},
    {"{\"schema\":\"1\"}\n", "it has records of another schema; give another file"},
    {"{\"schema\":1,\"tool\":\"flexjit 0.1.0\"}\n{\"schema\":2}\n{\"schema\":1,\"tool\":\"flexjit 0.1.0\"}\n",
     "it has records of another schema; give another file"},
    {"my diary\n", "it is not a file of tuning records"},
    {"{\"schema_version\":\"1.0.0\",\"results\":[]}\n", "it is not a file of tuning records"},
    {"{\"schema\":1,\"tool\":\"flexjot", "it is not a file of tuning records"},
};

/* They are left as they are. */
START_TEST(strangers_are_not_touched) {
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    for (size_t i = 0; i < FJ_ARRAY_LEN(strangers); i++) {
        fj_error error = {0};
        put_lines("tune.jsonl", strangers[i].text);
        ck_assert_int_eq(try_append(first, NULL, &call, OTHER, &error), FJ_ERR_IO);
        ck_assert_msg(strstr(error.text, strangers[i].error), "%s", error.text);
        char *text = text_of("tune.jsonl");
        ck_assert_str_eq(text, strangers[i].text);
        free(text);
    }
}
END_TEST

START_TEST(many_writers) {
    enum { WRITERS = 4, EACH = 8 };
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    for (int i = 0; i < WRITERS; i++) {
        const pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child > 0) continue;
        for (int k = 0; k < EACH; k++) append(first, NULL, &call, OTHER);
        _exit(0);
    }
    int status, sound = 0;
    while (wait(&status) > 0) sound += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    ck_assert_int_eq(sound, WRITERS);
    fj_tuning *tuning = open_with(first, NULL, 0);
    ck_assert_int_eq(fj_tuning_read(tuning), FJ_OK);
    ck_assert_int_eq(fj_tuning_layer_at(tuning, 0).records, WRITERS * EACH);
    ck_assert_int_eq(fj_tuning_layer_at(tuning, 0).skipped, 0);
    fj_tuning_destroy(&tuning);
}
END_TEST

/* ---- What fails -------------------------------------------------------------------------------------------- */

/* Every file operation, once: adding fails with a sentence or has added; looking finds the default or the record. */
START_TEST(failing_files_each) {
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    append_at(first, 8, 512, 512, OTHER);
    bool failed = true;
    for (long n = 0; failed; n++) {
        fj_error error = {0};
        failing_files_countdown = n;
        const fj_status status = try_append(first, NULL, &call, OTHER, &error);
        failed = failing_files_countdown < 0;
        failing_files_countdown = -1;
        ck_assert_msg(status == FJ_OK || (status == FJ_ERR_IO && error.text[0]), "%s", error.text);
        char rule[160];
        ck_assert_str_eq(find_among(first, NULL, 0, &call, rule), OTHER);
    }
}
END_TEST

/* What cannot be read is as if it were not there. */
START_TEST(failing_reads_each) {
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    append_at(first, 8, 512, 512, OTHER);
    bool failed = true;
    for (long n = 0; failed; n++) {
        char rule[160];
        logged[0] = '\0';
        failing_files_countdown = n;
        const bool is_found = *find_among(first, NULL, 0, &call, rule) != '\0';
        failed = failing_files_countdown < 0;
        failing_files_countdown = -1;
        ck_assert(is_found || logged[0] != '\0');
        ck_assert(is_found || failed);
    }
}
END_TEST

START_TEST(failing_allocations) {
    append_at(first, 8, 512, 512, OTHER);
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    bool failed = true;
    for (long n = 0; failed; n++) {
        failing_allocator counting = {.countdown = n};
        const fj_allocator allocator = {failing_resize, &counting};
        const fj_tuning_desc desc = {.allocator = &allocator, .path = first, .log = take_log};
        fj_tuning *tuning = NULL;
        fj_tuning_found found;
        bool is_found = false;
        fj_status status = fj_tuning_create(&desc, &tuning);
        if (status == FJ_OK) status = fj_tuning_find(tuning, &call, &is_found, &found);
        failed = counting.countdown < 0;
        ck_assert_int_eq(status, failed ? FJ_ERR_MEMORY : FJ_OK);
        ck_assert_int_eq(is_found, !failed);
        counting.countdown = -1;
        if (tuning) { /* the next one reads again */
            ck_assert_int_eq(fj_tuning_find(tuning, &call, &is_found, &found), FJ_OK);
            ck_assert(is_found);
        }
        fj_tuning_destroy(&tuning);
        ck_assert_int_eq(counting.live, 0);
    }
}
END_TEST

static void *find_in_thread(void *tuning) {
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    for (int i = 0; i < 20; i++) {
        fj_tuning_found found;
        bool is_found = false;
        if (fj_tuning_find(tuning, &call, &is_found, &found) != FJ_OK || !is_found) return tuning;
    }
    return NULL;
}

START_TEST(threads) {
    enum { THREADS = 4 };
    append_at(first, 8, 512, 512, OTHER);
    fj_tuning *tuning = open_with(first, NULL, 0);
    pthread_t list[THREADS];
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&list[i], NULL, find_in_thread, tuning), 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        ck_assert_int_eq(pthread_join(list[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
    fj_tuning_destroy(&tuning);
}
END_TEST

static void check_first_folder(const char *expected) {
    fj_tuning *tuning = open_with(NULL, NULL, 0);
    ck_assert_str_eq(fj_tuning_layer_count(tuning) > 1 ? fj_tuning_folder(tuning, 0) : "", expected);
    fj_tuning_destroy(&tuning);
}

START_TEST(default_folders) {
    setenv("FLEXJIT_TUNE_PATH", "/a:/b", 1);
    check_first_folder("/a");
    setenv("FLEXJIT_TUNE_PATH", "", 1);
    setenv("XDG_DATA_HOME", "/data", 1);
    check_first_folder("/data/flexjit/tune");
    setenv("XDG_DATA_HOME", "relative", 1);
    setenv("HOME", "/home/me", 1);
    check_first_folder("/home/me/.local/share/flexjit/tune");
    unsetenv("HOME");
    check_first_folder("");
    fj_error error = {0};
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    ck_assert_int_eq(try_append(NULL, NULL, &call, OTHER, &error), FJ_ERR_IO);
    ck_assert_msg(strstr(error.text, "set FLEXJIT_TUNE_PATH"), "%s", error.text);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {exact_then_nearest,
                                  reach,
                                  decoding_and_prefill_apart,
                                  lengths_not_known,
                                  later_wins_in_a_layer,
                                  earlier_layers_win,
                                  shipped_comes_last,
                                  devices,
                                  gpus,
                                  problems_apart,
                                  groups,
                                  cost_classes,
                                  capture_gradients_apart,
                                  nonsense_is_counted,
                                  torn_last_line,
                                  torn_anywhere,
                                  merged,
                                  other_version,
                                  other_target,
                                  header_without_tool,
                                  unknown_members,
                                  illegal_variant,
                                  odd_files,
                                  text_of_a_record,
                                  folders_are_made,
                                  strangers_are_not_touched,
                                  many_writers,
                                  failing_files_each,
                                  failing_reads_each,
                                  failing_allocations,
                                  threads,
                                  default_folders};
    Suite *suite = suite_create("jit tuning");
    TCase *group = tcase_create("jit tuning");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 60);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(group, tests[i]);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
