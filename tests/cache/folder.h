/* What the tests of the cache share: a folder, a cache in it whose files can fail, small entries. */
#ifndef FJ_TESTS_CACHE_FOLDER_H
#define FJ_TESTS_CACHE_FOLDER_H

#include <check.h>
#include <fcntl.h>
#include <time.h>

#include "cache/cache.h"
#include "cache/layer.h"
#include "tests/support/failing.h"

static char folder[64];
static char warning[1024];
static _Atomic int warnings;

static inline void setup(void) {
    folder_create(folder);
    warnings = 0;
    failing_files_countdown = -1;
}

static inline void teardown(void) { folder_remove(folder); }

static inline void note(void *user, fj_log_level level, const char *message) {
    (void)user;
    if (level < FJ_LOG_WARN) return;
    warnings++;
    (void)snprintf(warning, sizeof warning, "%s", message);
}

static inline fj_cache *open_limited(const char *path, int64_t limit) {
    fj_cache *cache = NULL;
    fj_cache_desc desc = {
        .path = path, .limit = limit, .ops = &failing_files, .allocator = &fj_allocator_libc, .log = note};
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    return cache;
}

static inline fj_cache *open_cache(const char *path) { return open_limited(path, 0); }

static const fj_str metadata = {"{\"a\":1}", 7}, payload = {"the payload", 11};

static inline fj_digest key_of(int number) { return fj_cache_digest(&number, sizeof number); }

static inline bool put(fj_cache *cache, int number) {
    return fj_cache_put(cache, FJ_CACHE_KERNEL, key_of(number), metadata, payload);
}

static inline bool has(fj_cache *cache, int number) {
    fj_cache_entry entry;
    if (!fj_cache_get(cache, FJ_CACHE_KERNEL, key_of(number), &entry)) return false;
    ck_assert(fj_str_equal(entry.metadata, metadata));
    ck_assert(fj_str_equal(entry.payload, payload));
    fj_cache_entry_finish(cache, &entry);
    return true;
}

static inline void entry_name(int number, char name[FJ_CACHE_NAME]) {
    fj_cache_file_name(FJ_CACHE_KERNEL, key_of(number), name);
}

/* Makes an entry one that was used that long ago. */
static inline void age(int number, time_t seconds) {
    char name[FJ_CACHE_NAME], path[128];
    entry_name(number, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    struct timespec times[2] = {{.tv_sec = time(NULL) - seconds}, {.tv_sec = time(NULL) - seconds}};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static const int64_t entry_bytes = FJ_CACHE_HEADER + 18; /* of what put() writes */

static inline int64_t folder_bytes(void) {
    fj_cache *cache = open_cache(folder);
    int64_t bytes = fj_cache_layer(cache, 0).bytes;
    fj_cache_destroy(&cache);
    return bytes;
}

static inline int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
