/* The first layer within its limit, whoever writes to it, and cleared on demand. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "tests/cache/folder.h"

/* A limit that so many entries fill to the sixteenth that is cleared beyond it. */
static int64_t limit_of(int entries) { return entries * entry_bytes * 16 / 15 + 1; }

/* ---- After a write --------------------------------------------------------------------------- */

START_TEST(what_was_used_least_recently_goes) {
    fj_cache *cache = open_limited(folder, limit_of(3));
    for (int i = 0; i < 3; i++) {
        ck_assert(put(cache, i));
        age(i, 100 - i);
    }
    ck_assert(has(cache, 0)); /* used now: 1 is the oldest */
    ck_assert(put(cache, 3));
    ck_assert(has(cache, 0) && !has(cache, 1) && has(cache, 2) && has(cache, 3));
    ck_assert_int_eq(warnings, 0);
    fj_cache_destroy(&cache);
    cache = open_limited(folder, 1); /* the new entry stays even if it is too big alone */
    ck_assert(put(cache, 4));
    ck_assert(has(cache, 4) && !has(cache, 3));
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(a_process_that_loses_its_own_kernels_is_told_once) {
    fj_cache *cache = open_limited(folder, limit_of(3));
    for (int i = 0; i < 20; i++) ck_assert(put(cache, i));
    ck_assert_int_eq(warnings, 1);
    ck_assert_ptr_nonnull(strstr(warning, "FLEXJIT_CACHE_SIZE"));
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(abandoned_temporary_files_go) {
    file_write(folder, ".new-1-1-1", "x", 1, 0600);
    file_write(folder, ".new-2-2-2", "x", 1, 0600);
    file_write(folder, "README", "x", 1, 0600);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/.new-1-1-1", folder);
    struct timespec times[2] = {{.tv_sec = time(NULL) - 7200}, {.tv_sec = time(NULL) - 7200}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    ck_assert_int_eq(folder_count(folder, ".new-1"), 0);
    ck_assert_int_eq(folder_count(folder, ".new-2"), 1);
    ck_assert_int_eq(folder_count(folder, "README"), 1);
    fj_cache_destroy(&cache);
}
END_TEST

static void set_time(const char *name, time_t seconds) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* A process that was killed leaves one; a thousand of them are removed in parts, by gc at once. */
START_TEST(many_temporary_files_go_in_parts) {
    enum { MANY = 600, PART = 256 };
    char name[48];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(name, sizeof name, ".new-%06x-%d-1-abc", i, i);
        file_write(folder, name, "x", 1, 0600);
        set_time(name, time(NULL) - 7200);
    }
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    ck_assert_int_eq(folder_count(folder, ".new-"), MANY - PART);
    ck_assert(put(cache, 2)); /* it does not look again */
    ck_assert_int_eq(folder_count(folder, ".new-"), MANY - PART);
    fj_cache_sweep sweep = {.limit = INT64_MAX, .keep_bytes = INT64_MAX};
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(sweep.temporaries, MANY - PART);
    ck_assert_int_eq(folder_count(folder, ".new-"), 0);
    ck_assert(has(cache, 1) && has(cache, 2));
    fj_cache_destroy(&cache);
}
END_TEST

/* ---- Others, meanwhile --------------------------------------------------------------------------- */

/* A clock went back: what was used before is used in the future. It is neither the first to go nor kept for ever. */
START_TEST(times_in_the_future_become_now) {
    fj_cache *cache = open_limited(folder, limit_of(3));
    for (int i = 0; i < 3; i++) ck_assert(put(cache, i));
    char name[FJ_CACHE_NAME];
    entry_name(0, name);
    set_time(name, time(NULL) + 100000);
    age(1, 50);
    age(2, 40);
    file_write(folder, ".new-1-1-1", "x", 1, 0600);
    set_time(".new-1-1-1", time(NULL) + 100000);
    ck_assert(put(cache, 3)); /* 1 is the oldest */
    ck_assert(has(cache, 0) && !has(cache, 1) && has(cache, 2) && has(cache, 3));
    ck_assert_int_eq(folder_count(folder, ".new-"), 1); /* somebody may be writing it */
    struct stat status;
    for (int i = 0; i < 2; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", folder, i ? ".new-1-1-1" : name);
        ck_assert_int_eq(stat(path, &status), 0);
        ck_assert_int_le(status.st_mtim.tv_sec, time(NULL) + 1);
    }
    fj_cache_destroy(&cache);
    age(0, 100); /* from now on it is as any other */
    cache = open_limited(folder, limit_of(3));
    ck_assert(put(cache, 4));
    ck_assert(!has(cache, 0) && has(cache, 2) && has(cache, 3) && has(cache, 4));
    fj_cache_destroy(&cache);
}
END_TEST

/* Another process, which uses entry 0 once the folder was listed, and removes entry 1 under the sweep. */
static int meddling_list(int directory, void (*each)(void *user, const char *name), void *user) {
    const int result = fj_file_ops_system.list(directory, each, user);
    fj_cache *other = open_cache(folder);
    ck_assert(has(other, 0));
    fj_cache_destroy(&other);
    char path[128], name[FJ_CACHE_NAME];
    entry_name(1, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)unlink(path);
    return result;
}

START_TEST(what_another_process_is_loading_stays) {
    fj_file_ops ops = fj_file_ops_system;
    ops.list = meddling_list;
    fj_cache_desc desc = {
        .path = folder, .limit = limit_of(3), .ops = &ops, .allocator = &fj_allocator_libc, .log = note};
    fj_cache *cache = NULL;
    fj_cache *first = open_limited(folder, limit_of(9));
    for (int i = 0; i < 3; i++) {
        ck_assert(put(first, i));
        age(i, 100 - i);
    }
    fj_cache_destroy(&first);
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    ck_assert(put(cache, 3));
    ck_assert(has(cache, 0) && !has(cache, 1) && has(cache, 3));
    ck_assert_int_eq(warnings, 0);
    fj_cache_destroy(&cache);
}
END_TEST

/* One that is open is read to its end although it was removed: a reader has all of an entry or nothing. */
static int removing_fstat(int descriptor, struct stat *ret_status) {
    char path[128], name[FJ_CACHE_NAME];
    entry_name(0, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    const int result = fj_file_ops_system.fstat(descriptor, ret_status);
    if (result == 0 && S_ISREG(ret_status->st_mode)) (void)unlink(path);
    return result;
}

START_TEST(an_open_entry_survives_its_removal) {
    fj_file_ops ops = fj_file_ops_system;
    ops.fstat = removing_fstat;
    fj_cache_desc desc = {.path = folder, .ops = &ops, .allocator = &fj_allocator_libc, .log = note};
    fj_cache *cache = NULL;
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    ck_assert(put(cache, 0));
    ck_assert(has(cache, 0));
    ck_assert(!has(cache, 0));
    ck_assert_int_eq(warnings, 0);
    fj_cache_destroy(&cache);
}
END_TEST

/* ---- How often it looks ------------------------------------------------------------------------ */

static int looks;

static int counting_list(int directory, void (*each)(void *user, const char *name), void *user) {
    looks++;
    return fj_file_ops_system.list(directory, each, user);
}

static int looks_for(int entries, int64_t limit) {
    fj_file_ops ops = fj_file_ops_system;
    ops.list = counting_list;
    ops.fsync = fj_file_ops_system.touch; /* quick */
    fj_cache_desc desc = {.path = folder, .limit = limit, .ops = &ops, .allocator = &fj_allocator_libc};
    fj_cache *cache = NULL;
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    looks = 0;
    for (int i = 0; i < entries; i++) ck_assert(put(cache, i));
    const int after_writes = looks;
    for (int i = 0; i < entries; i++) (void)has(cache, i);
    ck_assert_int_eq(looks, after_writes); /* a start that finds its kernels lists nothing */
    fj_cache_destroy(&cache);
    ck_assert_int_le(folder_bytes(), limit);
    return looks;
}

START_TEST(a_layer_is_not_looked_at_at_each_write) {
    enum { ENTRIES = 800 };
    ck_assert_int_eq(looks_for(ENTRIES, 1 << 30), 1);
    ck_assert_int_le(looks_for(ENTRIES, 2 * ENTRIES * entry_bytes), 1 + 8 + 1); /* each sixteenth */
    int looked = looks_for(ENTRIES, ENTRIES / 2 * entry_bytes);                 /* it overflows */
    ck_assert_int_ge(looked, 2);
    ck_assert_int_le(looked, 2 * 2 * 16 + 2);
}
END_TEST

/* ---- Several processes ---------------------------------------------------------------------------- */

static void fill(int from, int count, int64_t limit) {
    fj_cache *cache = open_limited(folder, limit);
    for (int i = from; i < from + count; i++)
        if (!put(cache, i)) _exit(1);
    fj_cache_destroy(&cache);
}

START_TEST(processes_that_write_at_once_keep_the_limit) {
    enum { PROCESSES = 4, EACH = 300 };
    const int64_t limit = limit_of(200);
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        fill(i * EACH, EACH, limit);
        _exit(0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_int_le(folder_bytes(), limit + PROCESSES * (limit / 16 + entry_bytes));
    ck_assert_int_eq(folder_count(folder, ".new-"), 0);
    fill(PROCESSES * EACH, 1, limit); /* the next one brings it down */
    ck_assert_int_le(folder_bytes(), limit);
}
END_TEST

/* ---- Several threads -------------------------------------------------------------------------------- */

enum { THREADS = 4, EACH_THREAD = 150 };
static fj_cache *shared;
static atomic_int next_thread;

static void *write_and_read(void *failed) {
    int from = atomic_fetch_add(&next_thread, 1) * EACH_THREAD;
    for (int i = from; i < from + EACH_THREAD; i++) {
        if (!put(shared, i)) *(bool *)failed = true;
        (void)has(shared, i); /* checks what it finds */
    }
    return NULL;
}

START_TEST(threads_that_write_at_once_keep_the_limit) {
    pthread_t threads[THREADS];
    bool failed[THREADS] = {false};
    shared = open_limited(folder, limit_of(100));
    next_thread = 0;
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_and_read, &failed[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert(!failed[i]);
    }
    fj_cache_destroy(&shared);
    ck_assert_int_le(folder_bytes(), limit_of(100) + THREADS * entry_bytes);
    ck_assert_int_eq(folder_count(folder, ".new-"), 0);
}
END_TEST

/* ---- On demand --------------------------------------------------------------------------------------- */

static fj_cache *five_entries(void) {
    fj_cache *cache = open_cache(folder);
    for (int i = 0; i < 5; i++) {
        ck_assert(put(cache, i));
        age(i, 1000 - 100 * i);
    }
    return cache;
}

static const fj_cache_sweep nothing = {.limit = INT64_MAX, .keep_bytes = INT64_MAX};

START_TEST(it_is_cleared_down_to_a_size) {
    fj_cache *cache = five_entries();
    fj_cache_sweep sweep = nothing;
    sweep.limit = sweep.keep_bytes = 2 * entry_bytes;
    sweep.dry_run = true;
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(sweep.removed, 3);
    ck_assert_int_eq(folder_count(folder, ".kernel"), 5);
    sweep = nothing;
    sweep.limit = sweep.keep_bytes = 2 * entry_bytes;
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(sweep.entries, 5);
    ck_assert_int_eq(sweep.removed_bytes, 3 * entry_bytes);
    ck_assert(!has(cache, 2) && has(cache, 3) && has(cache, 4));
    sweep = (fj_cache_sweep){0};
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(folder_count(folder, ""), 0);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(it_is_cleared_of_what_is_old_or_damaged) {
    fj_cache *cache = five_entries();
    char name[FJ_CACHE_NAME];
    entry_name(4, name);
    file_write(folder, name, "damaged", 7, 0600);
    fj_cache_sweep sweep = nothing;
    sweep.keep_since.tv_sec = time(NULL) - 850;
    sweep.damaged = true;
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(sweep.removed, 3);
    ck_assert(!has(cache, 0) && !has(cache, 1) && has(cache, 2) && has(cache, 3) && !has(cache, 4));
    fj_cache_destroy(&cache);
    cache = open_cache("/nowhere/at/all");
    sweep = nothing;
    ck_assert_int_eq(fj_cache_sweep_layer(cache, &sweep, NULL), FJ_OK);
    ck_assert_int_eq(sweep.entries, 0);
    fj_cache_destroy(&cache);
}
END_TEST

/* Whatever fails, what stays is sound, and a layer that could not be read or cleared is an error. */
START_TEST(any_file_operation_may_fail) {
    bool reached_the_end = false;
    for (long n = 0; !reached_the_end; n++) {
        folder_remove(folder);
        ck_assert_int_eq(mkdir(folder, 0700), 0);
        fj_cache *cache = five_entries();
        fj_cache_sweep sweep = nothing;
        sweep.limit = sweep.keep_bytes = entry_bytes;
        sweep.damaged = true;
        warnings = 0;
        failing_files_countdown = n;
        fj_error error = {0};
        fj_status status = fj_cache_sweep_layer(cache, &sweep, &error);
        reached_the_end = failing_files_countdown >= 0;
        failing_files_countdown = -1;
        ck_assert(status == FJ_OK || (status == FJ_ERR_IO && error.text[0] != '\0'));
        ck_assert(!reached_the_end || (status == FJ_OK && sweep.removed == 4));
        int left = folder_count(folder, ".kernel"), sound = 0;
        for (int i = 0; i < 5; i++) sound += has(cache, i);
        ck_assert_int_eq(left, sound);
        ck_assert_int_ge(sound, 1);
        ck_assert(has(cache, 4));
        fj_cache_destroy(&cache);
    }
}
END_TEST

START_TEST(any_allocation_may_fail) {
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    bool reached_the_end = false;
    fj_cache *filled = five_entries();
    fj_cache_destroy(&filled);
    for (long n = 0; !reached_the_end; n++) {
        failing.countdown = n;
        fj_cache *cache = NULL;
        fj_cache_desc desc = {.path = folder, .allocator = &allocator};
        if (fj_cache_create(&desc, &cache) == FJ_OK) {
            fj_cache_sweep sweep = nothing;
            sweep.damaged = sweep.dry_run = true;
            sweep.limit = sweep.keep_bytes = entry_bytes;
            fj_status status = fj_cache_sweep_layer(cache, &sweep, NULL);
            ck_assert(status == FJ_ERR_MEMORY || (status == FJ_OK && sweep.removed == 4));
        }
        reached_the_end = failing.countdown >= 0;
        fj_cache_destroy(&cache);
        ck_assert_int_eq(failing.live, 0);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cache evict");
    TCase *tests = tcase_create("cache evict");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, what_was_used_least_recently_goes);
    tcase_add_test(tests, a_process_that_loses_its_own_kernels_is_told_once);
    tcase_add_test(tests, abandoned_temporary_files_go);
    tcase_add_test(tests, many_temporary_files_go_in_parts);
    tcase_add_test(tests, times_in_the_future_become_now);
    tcase_add_test(tests, what_another_process_is_loading_stays);
    tcase_add_test(tests, an_open_entry_survives_its_removal);
    tcase_add_test(tests, a_layer_is_not_looked_at_at_each_write);
    tcase_add_test(tests, processes_that_write_at_once_keep_the_limit);
    tcase_add_test(tests, threads_that_write_at_once_keep_the_limit);
    tcase_add_test(tests, it_is_cleared_down_to_a_size);
    tcase_add_test(tests, it_is_cleared_of_what_is_old_or_damaged);
    tcase_add_test(tests, any_file_operation_may_fail);
    tcase_add_test(tests, any_allocation_may_fail);
    return run_suite(suite);
}
