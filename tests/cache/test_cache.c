/* The kernel cache: entries, layers, damage, failing files, races, eviction. */
#include <check.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/cache/folder.h"

/* ---- Plain use ------------------------------------------------------------------------------- */

START_TEST(digests_print_and_parse) {
    char text[33];
    fj_digest digest = key_of(7), back;
    fj_cache_digest_hex(digest, text);
    ck_assert_uint_eq(strlen(text), 32);
    ck_assert(fj_cache_digest_parse(text, &back) && fj_cache_digest_equal(digest, back));
    text[31] = 'g';
    ck_assert(!fj_cache_digest_parse(text, &back));
    ck_assert(!fj_cache_digest_parse("12", &back));
}
END_TEST

START_TEST(what_is_put_is_found) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/a/b", folder); /* made, with what leads to it */
    fj_cache *cache = open_cache(path);
    ck_assert(!has(cache, 1));
    ck_assert(put(cache, 1));
    ck_assert(has(cache, 1) && !has(cache, 2));
    fj_cache_entry entry;
    ck_assert(!fj_cache_get(cache, FJ_CACHE_SELECTION, key_of(1), &entry));
    struct stat status;
    ck_assert(stat(path, &status) == 0 && (status.st_mode & 0777) == 0700);
    ck_assert_int_eq(folder_count(path, ".new-"), 0);
    ck_assert_int_eq(warnings, 0);
    fj_cache_destroy(&cache);
    ck_assert_ptr_null(cache);
}
END_TEST

START_TEST(an_empty_payload_is_an_entry) {
    fj_cache *cache = open_cache(folder);
    fj_cache_entry entry;
    ck_assert(fj_cache_put(cache, FJ_CACHE_SELECTION, key_of(1), metadata, (fj_str){0}));
    ck_assert(fj_cache_get(cache, FJ_CACHE_SELECTION, key_of(1), &entry));
    ck_assert_uint_eq(entry.payload.len, 0);
    fj_cache_entry_finish(cache, &entry);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(later_layers_are_read_and_never_written) {
    char first[80], second[80], both[200];
    (void)snprintf(first, sizeof first, "%s/1", folder);
    (void)snprintf(second, sizeof second, "%s/2", folder);
    (void)snprintf(both, sizeof both, "%s::%s:", first, second);
    fj_cache *shipped = open_cache(second);
    ck_assert(put(shipped, 1));
    fj_cache_destroy(&shipped);
    fj_cache *cache = open_cache(both);
    ck_assert_uint_eq(fj_cache_layer_count(cache), 2);
    ck_assert(has(cache, 1));
    ck_assert(put(cache, 2) && has(cache, 2));
    ck_assert_int_eq(folder_count(first, ".kernel"), 1);
    ck_assert_int_eq(folder_count(second, ".kernel"), 1);
    fj_cache_layer_info info = fj_cache_layer(cache, 0);
    ck_assert(info.exists && info.readable && info.writable);
    ck_assert_int_eq(info.entries, 1);
    ck_assert_int_eq(info.bytes, FJ_CACHE_HEADER + 18);
    ck_assert(!fj_cache_layer(cache, 1).writable);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(the_path_comes_from_the_environment) {
    char expected[128];
    setenv("FLEXJIT_CACHE_PATH", "/x:/y", 1);
    fj_cache *cache = open_cache(NULL);
    ck_assert_uint_eq(fj_cache_layer_count(cache), 2);
    ck_assert_str_eq(fj_cache_layer_path(cache, 1), "/y");
    fj_cache_destroy(&cache);
    unsetenv("FLEXJIT_CACHE_PATH");
    setenv("XDG_CACHE_HOME", folder, 1);
    cache = open_cache(NULL);
    (void)snprintf(expected, sizeof expected, "%s/flexjit", folder);
    ck_assert_str_eq(fj_cache_layer_path(cache, 0), expected);
    ck_assert(put(cache, 1) && has(cache, 1));
    fj_cache_destroy(&cache);
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/home/x", 1);
    cache = open_cache(NULL);
    ck_assert_str_eq(fj_cache_layer_path(cache, 0), "/home/x/.cache/flexjit");
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(the_limit_comes_from_the_environment) {
    static const struct {
        const char *text;
        int64_t limit;
    } cases[] = {{"4096", 4096}, {"16K", 16384}, {"3M", 3 << 20}, {"1G", 1 << 30}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        setenv("FLEXJIT_CACHE_SIZE", cases[i].text, 1);
        fj_cache *cache = open_cache(folder);
        ck_assert_int_eq(fj_cache_limit(cache), cases[i].limit);
        fj_cache_destroy(&cache);
    }
    static const char *const bad[] = {"-1", "many", "1T", "99999999999999999999", "9999999999G"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad); i++) {
        setenv("FLEXJIT_CACHE_SIZE", bad[i], 1);
        warnings = 0;
        fj_cache *cache = open_cache(folder);
        ck_assert_int_eq(fj_cache_limit(cache), FJ_CACHE_LIMIT);
        ck_assert_int_eq(warnings, 1);
        fj_cache_destroy(&cache);
    }
}
END_TEST

/* ---- Damage and strangers --------------------------------------------------------------------- */

START_TEST(every_flipped_bit_is_a_miss) {
    char name[FJ_CACHE_NAME];
    size_t size;
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    entry_name(1, name);
    char *bytes = file_read(folder, name, &size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        file_write(folder, name, bytes, size, 0600);
        ck_assert_msg(!has(cache, 1), "bit %zu", bit);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    ck_assert_int_gt(warnings, 0);
    ck_assert(put(cache, 1) && has(cache, 1)); /* rebuilt */
    free(bytes);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(every_other_length_is_a_miss) {
    char name[FJ_CACHE_NAME];
    size_t size;
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    entry_name(1, name);
    char *bytes = file_read(folder, name, &size);
    for (size_t cut = 0; cut < size; cut++) {
        file_write(folder, name, bytes, cut, 0600);
        ck_assert_msg(!has(cache, 1), "length %zu", cut);
    }
    file_write(folder, name, bytes, size + 1, 0600); /* the NUL that file_read has room for */
    ck_assert(!has(cache, 1));
    free(bytes);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(an_entry_under_another_name_is_a_miss) {
    char name[FJ_CACHE_NAME], other[FJ_CACHE_NAME];
    size_t size;
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    entry_name(1, name);
    entry_name(2, other);
    char *bytes = file_read(folder, name, &size);
    file_write(folder, other, bytes, size, 0600);
    ck_assert(!has(cache, 2));
    free(bytes);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(strangers_are_not_read) {
    char name[FJ_CACHE_NAME], path[128], elsewhere[128];
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    entry_name(1, name);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", folder);
    ck_assert_int_eq(chmod(path, 0622), 0); /* others may write the file */
    ck_assert(!has(cache, 1));
    ck_assert_int_eq(chmod(path, 0600), 0);
    ck_assert(has(cache, 1));
    ck_assert_int_eq(rename(path, elsewhere), 0);
    ck_assert_int_eq(symlink(elsewhere, path), 0); /* a link */
    ck_assert(!has(cache, 1));
    ck_assert(put(cache, 1) && has(cache, 1)); /* the link is replaced, not followed */
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert(!has(cache, 1));
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* does not hang */
    ck_assert(!has(cache, 1));
    if (geteuid() == 0) {
        ck_assert(put(cache, 1));
        ck_assert_int_eq(chown(path, 12345, 12345), 0);
        ck_assert(!has(cache, 1));
    }
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(folders_that_others_may_write_to_are_not_used) {
    static const struct {
        mode_t mode;
        bool used;
    } cases[] = {{0700, true},  {0755, true},  {0770, false}, {0720, false},
                 {0775, false}, {0707, false}, {0702, false}, {01777, false}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        ck_assert_int_eq(chmod(folder, cases[i].mode), 0);
        fj_cache *cache = open_cache(folder);
        ck_assert_msg(put(cache, 1) == cases[i].used, "mode %o", (unsigned)cases[i].mode);
        ck_assert_msg(has(cache, 1) == cases[i].used, "mode %o", (unsigned)cases[i].mode);
        fj_cache_destroy(&cache);
    }
}
END_TEST

START_TEST(folders_of_others_are_not_used) {
    char path[128], link[128];
    (void)snprintf(path, sizeof path, "%s/open", folder);
    (void)snprintf(link, sizeof link, "%s/link", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(chmod(path, 0777), 0);
    ck_assert_int_eq(symlink(folder, link), 0);
    const char *const paths[] = {path, link, "/proc/self/status", "/dev/null/x"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(paths); i++) {
        fj_cache *cache = open_cache(paths[i]);
        warnings = 0;
        ck_assert(!put(cache, 1));
        ck_assert_int_gt(warnings, 0);
        int said = warnings;
        ck_assert(!has(cache, 1) && !put(cache, 1));
        ck_assert_int_eq(warnings, said); /* once */
        fj_cache_destroy(&cache);
    }
}
END_TEST

/* ---- Failing files ------------------------------------------------------------------------------ */

START_TEST(any_file_operation_may_fail) {
    static const int reasons[] = {EIO, ENOSPC, EACCES, EROFS, EMFILE};
    for (size_t reason = 0; reason < FJ_ARRAY_LEN(reasons); reason++) {
        bool reached_the_end = false;
        failing_files_reason = reasons[reason];
        for (long n = 0; !reached_the_end; n++) {
            fj_cache *cache = open_cache(folder);
            folder_remove(folder);
            failing_files_countdown = n;
            (void)put(cache, 1);
            (void)has(cache, 1); /* checks what it finds */
            reached_the_end = failing_files_countdown >= 0;
            failing_files_countdown = -1;
            ck_assert(put(cache, 1) && has(cache, 1));
            fj_cache_destroy(&cache);
        }
    }
}
END_TEST

static size_t room;

static ssize_t write_until_full(int descriptor, const void *bytes, size_t size) {
    if (room == 0) {
        errno = ENOSPC;
        return -1;
    }
    size_t some = size < room ? size : room;
    room -= some;
    return write(descriptor, bytes, some);
}

/* A network's folder: the entry was removed by another host while it is read, and a name is taken. */
static int stale_countdown, names_taken;

static ssize_t stale_read(int descriptor, void *bytes, size_t size) {
    if (stale_countdown-- != 0) return fj_file_ops_system.read(descriptor, bytes, size);
    errno = ESTALE;
    return -1;
}

static int crowded_openat(int directory, const char *path, int flags, mode_t mode) {
    if ((flags & O_EXCL) == 0 || names_taken-- <= 0)
        return fj_file_ops_system.openat(directory, path, flags, mode);
    errno = EEXIST;
    return -1;
}

START_TEST(a_stale_handle_is_a_miss_and_a_name_that_is_taken_another_one) {
    fj_file_ops ops = fj_file_ops_system;
    ops.read = stale_read;
    ops.openat = crowded_openat;
    fj_cache_desc desc = {.path = folder, .ops = &ops, .allocator = &fj_allocator_libc, .log = note};
    fj_cache *cache = NULL;
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    stale_countdown = -1;
    names_taken = 2;
    ck_assert(put(cache, 1));
    stale_countdown = 0;
    ck_assert(!has(cache, 1));
    ck_assert_int_eq(warnings, 0);
    ck_assert(has(cache, 1));
    names_taken = 100;
    ck_assert(!put(cache, 2));
    ck_assert_int_eq(warnings, 1);
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing_behind) {
    fj_file_ops ops = fj_file_ops_system;
    ops.write = write_until_full;
    fj_cache_desc desc = {.path = folder, .ops = &ops, .allocator = &fj_allocator_libc, .log = note};
    fj_cache *cache = NULL;
    ck_assert_int_eq(fj_cache_create(&desc, &cache), FJ_OK);
    for (size_t bytes = 0; bytes < FJ_CACHE_HEADER + 18; bytes++) {
        room = bytes;
        ck_assert(!put(cache, 1));
        ck_assert_ptr_nonnull(strstr(warning, "No space left on device"));
        ck_assert_int_eq(folder_count(folder, ""), 0);
    }
    room = FJ_CACHE_HEADER + 18;
    ck_assert(put(cache, 1) && has(cache, 1));
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(a_real_full_disk) {
    static char big[200 * 1024];
    if (mount("none", folder, "tmpfs", 0, "size=64k,mode=0700") != 0) return; /* only root may */
    fj_cache *cache = open_cache(folder);
    bool written = fj_cache_put(cache, FJ_CACHE_KERNEL, key_of(1), metadata, (fj_str){big, sizeof big});
    int left = folder_count(folder, "");
    bool fits = put(cache, 2) && has(cache, 2);
    fj_cache_destroy(&cache);
    ck_assert_int_eq(umount(folder), 0);
    ck_assert(!written && fits);
    ck_assert_int_eq(left, 0);
    ck_assert_ptr_nonnull(strstr(warning, "No space left on device"));
}
END_TEST

START_TEST(a_read_only_folder_is_a_warning) {
    fj_cache *cache = open_cache(folder);
    ck_assert(put(cache, 1));
    if (geteuid() == 0) { /* root may write anywhere: only a mount stops him */
        if (mount(folder, folder, NULL, MS_BIND, NULL) != 0) goto end;
        ck_assert_int_eq(mount(NULL, folder, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
    } else {
        ck_assert_int_eq(chmod(folder, 0500), 0);
    }
    bool written = put(cache, 2), found = has(cache, 1);
    bool writable = fj_cache_layer(cache, 0).writable;
    if (geteuid() == 0)
        ck_assert_int_eq(umount(folder), 0);
    else
        ck_assert_int_eq(chmod(folder, 0700), 0);
    ck_assert(!written && found && !writable);
    ck_assert_int_eq(warnings, 1);
end:
    fj_cache_destroy(&cache);
}
END_TEST

START_TEST(any_allocation_may_fail) {
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    bool reached_the_end = false;
    for (long n = 0; !reached_the_end; n++) {
        failing.countdown = n;
        fj_cache *cache = NULL;
        fj_cache_desc desc = {.path = folder, .allocator = &allocator};
        fj_status status = fj_cache_create(&desc, &cache);
        ck_assert(status == FJ_OK || (status == FJ_ERR_MEMORY && !cache));
        if (cache) {
            (void)put(cache, 1);
            (void)has(cache, 1);
        }
        reached_the_end = failing.countdown >= 0;
        fj_cache_destroy(&cache);
        ck_assert_int_eq(failing.live, 0);
    }
}
END_TEST

/* ---- Races -------------------------------------------------------------------------------------------- */

START_TEST(processes_race_on_one_key) {
    enum { PROCESSES = 4, ROUNDS = 200 };
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        fj_cache *cache = open_cache(folder);
        bool sound = true;
        for (int round = 0; round < ROUNDS; round++) sound &= put(cache, 1) && has(cache, 1);
        _exit(sound && warnings == 0 ? 0 : 1);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_int_eq(folder_count(folder, ""), 1);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cache");
    TCase *tests = tcase_create("cache");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, digests_print_and_parse);
    tcase_add_test(tests, what_is_put_is_found);
    tcase_add_test(tests, an_empty_payload_is_an_entry);
    tcase_add_test(tests, later_layers_are_read_and_never_written);
    tcase_add_test(tests, the_path_comes_from_the_environment);
    tcase_add_test(tests, the_limit_comes_from_the_environment);
    tcase_add_test(tests, every_flipped_bit_is_a_miss);
    tcase_add_test(tests, every_other_length_is_a_miss);
    tcase_add_test(tests, an_entry_under_another_name_is_a_miss);
    tcase_add_test(tests, strangers_are_not_read);
    tcase_add_test(tests, folders_of_others_are_not_used);
    tcase_add_test(tests, folders_that_others_may_write_to_are_not_used);
    tcase_add_test(tests, any_file_operation_may_fail);
    tcase_add_test(tests, a_stale_handle_is_a_miss_and_a_name_that_is_taken_another_one);
    tcase_add_test(tests, a_full_disk_leaves_nothing_behind);
    tcase_add_test(tests, a_real_full_disk);
    tcase_add_test(tests, a_read_only_folder_is_a_warning);
    tcase_add_test(tests, any_allocation_may_fail);
    tcase_add_test(tests, processes_race_on_one_key);
    return run_suite(suite);
}
