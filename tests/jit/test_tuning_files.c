/* Files of tuning records: what they may hold, what is added to them, and what fails. */
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/jit/tuning_fixture.h"

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
    overwrite(strstr(text, FJ_VERSION), "9.9.9");
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
    overwrite(strstr(text, "cpu\"},\"machine\""), "tpu");
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
        "{\"call\":{\"batch_heads\":8,\"gqa\":1,\"kv_len\":256,\"mask_cost\":0,\"q_len\":512,\"score_cost\":0},\"date\":\"DDDDDDDDDDDDDDDDDDDD\","
        "\"default\":{\"time_ms\":1.5,\"variant\":\"" DEFAULT
        "\"},\"device\":{\"arch\":\"avx512\",\"cores\":2,\"l1d\":32768,"
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

RUN_SUITE("jit tuning files", nonsense_is_counted, torn_last_line, torn_anywhere, merged, other_version,
          other_target, header_without_tool, unknown_members, illegal_variant, odd_files, text_of_a_record,
          folders_are_made, strangers_are_not_touched, many_writers, failing_files_each, failing_reads_each,
          failing_allocations, threads, default_folders)
