/* What survives a loss of power: bytes reach the disk before the name that readers look for. */
#include "tests/cache/folder.h"

enum { MOST = 1024 };

/* Bytes that were written and not synchronised, by descriptor; and files closed with some. */
static int unsynced[MOST], closed_early, renamed, synced;

static ssize_t watched_write(int descriptor, const void *bytes, size_t size) {
    ck_assert_int_lt(descriptor, MOST);
    unsynced[descriptor] += (int)size;
    return fj_file_ops_system.write(descriptor, bytes, size);
}

static int watched_fsync(int descriptor) {
    synced++;
    unsynced[descriptor] = 0;
    return 0; /* no test waits for the disk */
}

static bool closing_fails; /* of files that were written, as over a network */
static int watched_close(int descriptor) {
    struct stat status;
    const bool fails = closing_fails && fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    closed_early += unsynced[descriptor] != 0;
    unsynced[descriptor] = 0;
    const int result = fj_file_ops_system.close(descriptor);
    if (fails) errno = EDQUOT;
    return fails ? -1 : result;
}

static int watched_rename(int directory, const char *from, const char *to) {
    renamed++;
    ck_assert_msg(closed_early == 0, "'%s' has the bytes of '%s', which were not synchronised", to, from);
    for (int i = 0; i < MOST; i++) ck_assert_int_eq(unsynced[i], 0);
    return fj_file_ops_system.rename(directory, from, to);
}

static fj_cache *open_watched(void) {
    static fj_file_ops ops;
    fj_cache_desc desc = {.path = folder, .ops = &ops, .allocator = &fj_allocator_libc, .log = note};
    fj_cache *cache = NULL;
    ops = fj_file_ops_system;
    ops.write = watched_write;
    ops.fsync = watched_fsync;
    ops.close = watched_close;
    ops.rename = watched_rename;
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    return cache;
}

START_TEST(an_entry_is_on_the_disk_before_its_name) {
    fj_cache *cache = open_watched();
    ck_assert(put(cache, 1) && has(cache, 1));
    ck_assert_int_eq(renamed, 1);
    ck_assert_int_eq(synced, 1);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(an_entry_that_cannot_be_closed_is_not_kept) {
    fj_cache *cache = open_watched();
    closing_fails = true;
    ck_assert(!put(cache, 1));
    closing_fails = false;
    ck_assert_int_eq(renamed, 0);
    ck_assert(!has(cache, 1));
    ck_assert_int_eq(folder_count(folder, ".new-"), 0);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(an_archive_is_on_the_disk_before_its_name) {
    char path[128];
    int64_t bytes = 0;
    fj_cache *cache = open_watched();
    const fj_cache_ref ref = {0, FJ_CACHE_KERNEL, key_of(1)};
    (void)snprintf(path, sizeof path, "%s/x.tar", folder);
    ck_assert(put(cache, 1));
    ck_assert_int_eq(fj_cache_pack(cache, path, &ref, 1, &bytes, NULL), FJ_OK);
    ck_assert_int_eq(renamed, 2);
    ck_assert_int_eq(synced, 2);
    fj_cache_destroy(&cache);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("durable");
    TCase *tests = tcase_create("durable");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_entry_is_on_the_disk_before_its_name);
    tcase_add_test(tests, an_entry_that_cannot_be_closed_is_not_kept);
    tcase_add_test(tests, an_archive_is_on_the_disk_before_its_name);
    return run_suite(suite);
}
