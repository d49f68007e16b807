/* Archives: what goes in comes out; what is wrong with one changes nothing. */
#include "cache/archive.h"

#include "tests/cache/folder.h"

enum { KERNELS = 3 };

static char from[80], to[80], archive[80];

static const char *accept(fj_cache_kind kind, fj_digest key, fj_str text) {
    (void)kind, (void)key, (void)text;
    return NULL;
}

static const char *refuse(fj_cache_kind kind, fj_digest key, fj_str text) {
    (void)kind, (void)key, (void)text;
    return "is refused";
}

/* A fresh file: one that is cut and written again may be forced to the disk when it is closed. */
static void write_archive(const void *bytes, size_t size) {
    (void)unlink(archive);
    file_write(folder, "x.tar", bytes, size, 0600);
}

/* Three kernels and a selection record in `from`, nothing in `to`. */
static void setup_both(void) {
    setup();
    (void)snprintf(from, sizeof from, "%s/from", folder);
    (void)snprintf(to, sizeof to, "%s/to", folder);
    (void)snprintf(archive, sizeof archive, "%s/x.tar", folder);
    fj_cache *cache = open_cache(from);
    for (int i = 0; i < KERNELS; i++) ck_assert(put(cache, i));
    ck_assert(fj_cache_put(cache, FJ_CACHE_SELECTION, key_of(0), metadata, (fj_str){0}));
    fj_cache_destroy(&cache);
}

static const fj_allocator *memory = &fj_allocator_libc;

/* Thousands of times: nobody waits for the disk. */
static int quick_fsync(int descriptor) {
    (void)descriptor;
    return failing_now() ? -1 : 0;
}

static fj_cache *open_with(const char *path) {
    static fj_file_ops files;
    fj_cache *cache = NULL;
    fj_cache_desc desc = {.path = path, .ops = &files, .allocator = memory, .log = note};
    files = failing_files;
    files.fsync = quick_fsync;
    return fj_cache_create(&desc, &cache) == FJ_OK ? cache : NULL;
}

static fj_status pack(fj_error *error) {
    fj_cache_ref refs[KERNELS + 1];
    for (int i = 0; i < KERNELS; i++) refs[i] = (fj_cache_ref){0, FJ_CACHE_KERNEL, key_of(i)};
    refs[KERNELS] = (fj_cache_ref){0, FJ_CACHE_SELECTION, key_of(0)};
    fj_cache *cache = open_with(from);
    if (!cache) return FJ_ERR_MEMORY;
    int64_t bytes = 0;
    fj_status status = fj_cache_pack(cache, archive, refs, KERNELS + 1, &bytes, error);
    fj_cache_destroy(&cache);
    struct stat found;
    ck_assert(status != FJ_OK || (stat(archive, &found) == 0 && found.st_size == bytes));
    return status;
}

static fj_status unpack_with(fj_cache_check *check, fj_cache_unpacked *ret_unpacked, fj_error *error) {
    fj_cache *cache = open_with(to);
    if (!cache) return FJ_ERR_MEMORY;
    fj_status status = fj_cache_unpack(cache, archive, check, ret_unpacked, error);
    fj_cache_destroy(&cache);
    return status;
}

static fj_status unpack(fj_error *error) {
    fj_cache_unpacked unpacked;
    return unpack_with(accept, &unpacked, error);
}

static int entries_of(const char *path) {
    int kernels = folder_count(path, ".kernel"), records = folder_count(path, ".select");
    return (kernels < 0 ? 0 : kernels) + (records < 0 ? 0 : records);
}

/* Whatever is in a folder is sound; returns how much it is. */
static bool is_sound(void *user, const fj_cache_found *found) {
    *(int *)user += 1;
    ck_assert_ptr_null(found->wrong);
    return true;
}

static int sound_entries(const char *path) {
    int count = 0;
    fj_cache *cache = open_cache(path);
    fj_status status = fj_cache_walk(cache, 0, is_sound, &count);
    ck_assert(status == FJ_OK || errno == ENOENT);
    fj_cache_destroy(&cache);
    return count;
}

/* It is refused with this, and nothing is written. */
static void check_refused(const char *text) {
    fj_error error = {0};
    ck_assert_int_eq(unpack(&error), FJ_ERR_IO);
    ck_assert_msg(strstr(error.text, text) != NULL, "'%s' is not in '%s'", text, error.text);
    ck_assert_str_eq(error.file, archive);
    ck_assert_int_eq(entries_of(to), 0);
}

/* ---- There and back --------------------------------------------------------------------------- */

START_TEST(what_is_packed_is_unpacked) {
    fj_cache_unpacked unpacked;
    ck_assert_int_eq(pack(NULL), FJ_OK);
    ck_assert_int_eq(unpack_with(accept, &unpacked, NULL), FJ_OK);
    ck_assert_int_eq(unpacked.entries[FJ_CACHE_KERNEL], KERNELS);
    ck_assert_int_eq(unpacked.entries[FJ_CACHE_SELECTION], 1);
    ck_assert_int_eq(unpacked.written, KERNELS + 1);
    fj_cache *cache = open_cache(to);
    for (int i = 0; i < KERNELS; i++) ck_assert(has(cache, i));
    fj_cache_destroy(&cache);
    ck_assert_int_eq(unpack_with(accept, &unpacked, NULL), FJ_OK);
    ck_assert_int_eq(unpacked.written, 0); /* it is there */
    ck_assert_int_eq(folder_count(folder, ".new-"), 0);
    ck_assert_int_eq(warnings, 0);
}
END_TEST

/* Of the same size, and of another: the archive's is what stays. */
START_TEST(another_entry_of_the_key_is_replaced) {
    static const fj_str others[] = {{"the PAYLOAD", 11}, {"the payload and more", 20}};
    ck_assert_int_eq(pack(NULL), FJ_OK);
    for (size_t i = 0; i < FJ_ARRAY_LEN(others); i++) {
        fj_cache_unpacked unpacked;
        fj_cache *cache = open_cache(to);
        ck_assert(fj_cache_put(cache, FJ_CACHE_KERNEL, key_of(0), metadata, others[i]));
        fj_cache_destroy(&cache);
        ck_assert_int_eq(unpack_with(accept, &unpacked, NULL), FJ_OK);
        ck_assert_int_eq(unpacked.written, i == 0 ? KERNELS + 1 : 1);
        cache = open_cache(to);
        ck_assert(has(cache, 0)); /* with the payload of put() */
        fj_cache_destroy(&cache);
    }
}
END_TEST

START_TEST(an_archive_is_replaced_as_a_whole) {
    write_archive("old", 3);
    ck_assert_int_eq(pack(NULL), FJ_OK);
    ck_assert_int_eq(unpack(NULL), FJ_OK);
    fj_error error = {0};
    (void)snprintf(archive, sizeof archive, "%s/nowhere/x.tar", folder);
    ck_assert_int_eq(pack(&error), FJ_ERR_IO);
    ck_assert_str_eq(error.file, archive);
    ck_assert_ptr_nonnull(strstr(error.text, "No such file"));
}
END_TEST

START_TEST(what_cannot_be_packed_is_an_error) {
    char name[FJ_CACHE_NAME];
    fj_error error = {0};
    entry_name(1, name);
    file_write(from, name, "damaged", 7, 0600);
    ck_assert_int_eq(pack(&error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, name));
    ck_assert_int_eq(folder_count(folder, "x.tar"), 0);
}
END_TEST

START_TEST(a_walk_tells_what_is_wrong) {
    static const char *expected[] = {"is a link", "is cut short", "others may write"};
    char name[KERNELS][FJ_CACHE_NAME], path[160];
    fj_cache *cache = open_cache(from);
    for (int i = 0; i < KERNELS; i++) entry_name(i, name[i]);
    (void)snprintf(path, sizeof path, "%s/%s", from, name[0]);
    ck_assert(unlink(path) == 0 && symlink("/etc/passwd", path) == 0);
    file_write(from, name[1], "short", 5, 0600);
    (void)snprintf(path, sizeof path, "%s/%s", from, name[2]);
    ck_assert_int_eq(chmod(path, 0622), 0);
    for (int i = 0; i < KERNELS; i++) {
        struct stat status;
        fj_cache_entry entry;
        int directory = fj_cache_layer_open(cache, 0);
        const char *wrong =
            fj_cache_read(cache, directory, FJ_CACHE_KERNEL, key_of(i), false, &status, &entry);
        ck_assert(close(directory) == 0 && wrong != NULL);
        ck_assert_msg(strstr(wrong, expected[i]) != NULL, "%s", wrong);
    }
    fj_cache_destroy(&cache);
}
END_TEST

/* ---- Damage ------------------------------------------------------------------------------------- */

/* Most are read for a layer that cannot be written: it is the verifying that counts. */
START_TEST(a_flipped_bit_anywhere_enters_nothing_wrong) {
    size_t size, passed = 0;
    char real[sizeof to];
    ck_assert_int_eq(pack(NULL), FJ_OK);
    memcpy(real, to, sizeof to);
    char *bytes = file_read(folder, "x.tar", &size);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= (char)(1 << at % 8);
        write_archive(bytes, size);
        fj_error error = {0};
        (void)snprintf(to, sizeof to, "/proc/nowhere");
        ck_assert_int_eq(unpack(&error), FJ_ERR_IO);
        bool sound = strstr(error.text, "cannot be written") != NULL; /* it was in what fills a block up */
        ck_assert(sound || strstr(error.text, "at byte ") != NULL);
        size_t first; /* of an entry as a whole: where its first member stands */
        char name[FJ_ARCHIVE_NAME];
        if (sscanf(error.text, "at byte %zu: the entry of member '%63[^']", &first, name) == 2)
            ck_assert_str_eq(bytes + first, name);
        memcpy(to, real, sizeof to);
        if (at % 64 == 0 || (sound && passed++ % 64 == 0)) {
            fj_status status = unpack(NULL);
            ck_assert_int_eq(status == FJ_OK, sound);
            ck_assert_int_eq(sound_entries(to), sound ? KERNELS + 1 : 0);
            folder_remove(to);
        }
        bytes[at] ^= (char)(1 << at % 8);
    }
    ck_assert(passed > 0 && passed < size);
    free(bytes);
}
END_TEST

START_TEST(an_archive_that_is_cut_short_enters_nothing) {
    size_t size;
    ck_assert_int_eq(pack(NULL), FJ_OK);
    char *bytes = file_read(folder, "x.tar", &size);
    for (size_t cut = 0; cut < size; cut++) {
        write_archive(bytes, cut);
        check_refused("cut short");
    }
    free(bytes);
}
END_TEST

/* ---- Foreign archives -------------------------------------------------------------------------------- */

static void seal(uint8_t *block) {
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < FJ_ARCHIVE_BLOCK; i++) sum += block[i];
    (void)snprintf((char *)block + 148, 8, "%06o", sum);
}

/* An archive of one member that is empty and as `change` makes it. */
static void write_member(const char *name, size_t at, const char *text, size_t length) {
    uint8_t blocks[3 * FJ_ARCHIVE_BLOCK] = {0};
    fj_archive_member member = {.kind = FJ_CACHE_KERNEL, .key = key_of(1)};
    fj_cache_archive_header(&member, blocks);
    if (name) {
        memset(blocks, 0, 100);
        (void)snprintf((char *)blocks, 100, "%s", name);
    }
    memcpy(blocks + at, text, length);
    seal(blocks);
    write_archive(blocks, sizeof blocks);
}

#define HEX "0123456789abcdef0123456789abcdef"

START_TEST(names_of_others_are_refused) {
    static const char *const names[] = {
        "../" HEX ".kernel.header",
        "/" HEX ".kernel.header",
        "./" HEX ".kernel.header",
        "a/" HEX ".kernel.header",
        HEX ".kernel",
        HEX ".kernel.head",
        HEX ".kernels.header",
        HEX ".header",
        "x" HEX ".kernel.header",
        ".kernel.header",
        ".header",
        "README",
        HEX ".KERNEL.header",
        HEX ".kernel.header.",
        "\x1b[31m.header",
        "",
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        write_member(names[i], 0, "", 0);
        check_refused("is not part of an entry of a cache");
    }
    char longest[100];
    memset(longest, 'a', sizeof longest); /* no NUL */
    write_member(NULL, 0, longest, sizeof longest);
    check_refused("is not part of an entry of a cache");
    write_member(NULL, 345, "folder", 6);
    check_refused("is not part of an entry of a cache");
}
END_TEST

START_TEST(what_is_no_file_is_refused) {
    static const struct {
        const char *type, *text;
    } cases[] = {{"1", "is a link"},
                 {"2", "is a link"},
                 {"3", "is not a regular file"},
                 {"5", "is a folder"},
                 {"6", "is not a regular file"},
                 {"x", "is not a regular file"},
                 {"L", "is not a regular file"}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        write_member(NULL, 156, cases[i].type, 1);
        check_refused(cases[i].text);
    }
}
END_TEST

START_TEST(sizes_are_checked) {
    write_member(NULL, 124, "77777777777", 12);
    check_refused("is too large");
    write_member(NULL, 124, "00010000000", 12);
    check_refused("cut short");
    write_member(NULL, 124, "\x80\0\0\0\0\0\0\0\0\0\0\x40", 12);
    check_refused("has no size");
    write_member(NULL, 124, "-1         ", 12);
    check_refused("has no size");
    write_member(NULL, 124, "\0\0\0\0\0\0\0\0\0\0\0", 12);
    check_refused("has no size");
    write_member(NULL, 124, "00000000000", 12);
    check_refused("is cut short"); /* the entry, not the archive */
    write_member(NULL, 257, "\0\0\0\0\0\0\0", 8);
    check_refused("is not a member of a ustar archive");
}
END_TEST

START_TEST(members_out_of_place_are_refused) {
    write_member(HEX ".kernel.payload", 0, "", 0);
    check_refused("comes without its header");
    write_member(HEX ".select.json", 0, "", 0);
    check_refused("comes without its header");
    write_archive("", 0);
    check_refused("cut short");
    char zeros[2 * FJ_ARCHIVE_BLOCK + 1] = {0};
    write_archive(zeros, sizeof zeros - 1); /* no entries: that is not an error */
    ck_assert_int_eq(unpack(NULL), FJ_OK);
    zeros[sizeof zeros - 1] = 'x';
    write_archive(zeros, sizeof zeros);
    check_refused("after the archive's end");
}
END_TEST

START_TEST(what_is_no_archive_is_refused) {
    fj_cache_unpacked unpacked;
    check_refused("No such file");
    ck_assert_int_eq(mkfifo(archive, 0600), 0);
    check_refused("not a regular file");
    ck_assert(unlink(archive) == 0 && mkdir(archive, 0700) == 0);
    check_refused("not a regular file");
    ck_assert_int_eq(rmdir(archive), 0);
    ck_assert_int_eq(pack(NULL), FJ_OK);
    fj_error error = {0};
    ck_assert_int_eq(unpack_with(refuse, &unpacked, &error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, "is refused"));
    ck_assert_int_eq(entries_of(to), 0);
    fj_cache *cache = open_limited(to, 100);
    ck_assert_int_eq(fj_cache_unpack(cache, archive, accept, &unpacked, &error), FJ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(error.text, "FLEXJIT_CACHE_SIZE"));
    ck_assert_int_eq(entries_of(to), 0);
    fj_cache_destroy(&cache);
}
END_TEST

/* Many bytes changed at once, headers sealed again: nothing but refused, or sound. */
START_TEST(any_bytes_are_survived) {
    size_t size;
    uint32_t random = 1;
    ck_assert_int_eq(pack(NULL), FJ_OK);
    uint8_t *sound = file_read(folder, "x.tar", &size), *bytes = malloc(size);
    ck_assert_ptr_nonnull(bytes);
    for (int round = 0; round < 3000; round++) {
        memcpy(bytes, sound, size);
        for (int i = 0; i < 1 + round % 8; i++) {
            random = random * 1664525 + 1013904223;
            size_t block = (random >> 8) % (size / FJ_ARCHIVE_BLOCK) * FJ_ARCHIVE_BLOCK;
            random = random * 1664525 + 1013904223;
            bytes[block + (random >> 8) % (round % 2 ? 160 : FJ_ARCHIVE_BLOCK)] = (uint8_t)(random >> 24);
            if (memcmp(bytes + block + 257, "ustar", 5) == 0) seal(bytes + block);
        }
        write_archive(bytes, size);
        fj_error error = {0};
        if (unpack(&error) == FJ_OK)
            (void)sound_entries(to);
        else
            ck_assert_int_eq(entries_of(to), 0);
        folder_remove(to);
    }
    free(sound);
    free(bytes);
}
END_TEST

/* ---- Failing files and memory ---------------------------------------------------------------------------- */

START_TEST(any_file_operation_may_fail) {
    static const int reasons[] = {EIO, ENOSPC, EACCES};
    for (size_t reason = 0; reason < FJ_ARRAY_LEN(reasons); reason++) {
        bool reached_the_end = false;
        failing_files_reason = reasons[reason];
        for (long n = 0; !reached_the_end; n++) {
            fj_error error = {0};
            (void)unlink(archive);
            failing_files_countdown = n;
            fj_status status = pack(&error);
            reached_the_end = failing_files_countdown >= 0;
            failing_files_countdown = -1;
            ck_assert(status == FJ_OK || (status == FJ_ERR_IO && error.text[0] != '\0'));
            ck_assert_int_eq(folder_count(folder, "x.tar"), status == FJ_OK); /* no temporary file either */
            ck_assert(status != FJ_OK || unpack(NULL) == FJ_OK);
            folder_remove(to);
        }
        reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            fj_error error = {0};
            failing_files_countdown = n;
            fj_status status = unpack(&error);
            reached_the_end = failing_files_countdown >= 0;
            failing_files_countdown = -1;
            ck_assert(status == FJ_OK || (status == FJ_ERR_IO && error.text[0] != '\0'));
            int entries = sound_entries(to);
            ck_assert(status != FJ_OK || entries == KERNELS + 1);
            folder_remove(to);
        }
    }
}
END_TEST

START_TEST(any_allocation_may_fail) {
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    bool reached_the_end = false;
    ck_assert_int_eq(pack(NULL), FJ_OK);
    memory = &allocator;
    for (long n = 0; !reached_the_end; n++) {
        failing.countdown = n;
        fj_status packed = pack(NULL), unpacked = unpack(NULL);
        int entries = 0;
        fj_cache *cache = open_with(from);
        fj_status walked = cache ? fj_cache_walk(cache, 0, is_sound, &entries) : FJ_ERR_MEMORY;
        fj_cache_destroy(&cache);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert(packed == FJ_OK || packed == FJ_ERR_MEMORY);
        ck_assert(unpacked == FJ_OK || unpacked == FJ_ERR_MEMORY || unpacked == FJ_ERR_IO);
        ck_assert(walked == FJ_ERR_MEMORY || (walked == FJ_OK && entries == KERNELS + 1));
        ck_assert_int_eq(failing.live, 0);
        (void)sound_entries(to);
        folder_remove(to);
    }
    memory = &fj_allocator_libc;
}
END_TEST

int main(void) {
    Suite *suite = suite_create("cache archive");
    TCase *tests = tcase_create("cache archive");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup_both, teardown);
    tcase_set_timeout(tests, 100);
    tcase_add_test(tests, what_is_packed_is_unpacked);
    tcase_add_test(tests, another_entry_of_the_key_is_replaced);
    tcase_add_test(tests, an_archive_is_replaced_as_a_whole);
    tcase_add_test(tests, what_cannot_be_packed_is_an_error);
    tcase_add_test(tests, a_walk_tells_what_is_wrong);
    tcase_add_test(tests, a_flipped_bit_anywhere_enters_nothing_wrong);
    tcase_add_test(tests, an_archive_that_is_cut_short_enters_nothing);
    tcase_add_test(tests, names_of_others_are_refused);
    tcase_add_test(tests, what_is_no_file_is_refused);
    tcase_add_test(tests, sizes_are_checked);
    tcase_add_test(tests, members_out_of_place_are_refused);
    tcase_add_test(tests, what_is_no_archive_is_refused);
    tcase_add_test(tests, any_bytes_are_survived);
    tcase_add_test(tests, any_file_operation_may_fail);
    tcase_add_test(tests, any_allocation_may_fail);
    return run_suite(suite);
}
