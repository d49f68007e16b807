/* The cache between request and kernel: hits, damage, stale texts, failing files and memory. */
#include "tests/jit/session.h"

/* ---- The cache --------------------------------------------------------------------------------------------------- */

START_TEST(the_second_time_is_a_hit) {
    check_prepare(false, 1);
    check_prepare(true, 1);
    setenv("PATH", "", 1); /* a hit needs no compiler */
    check_prepare(true, 1);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_prepare(true, 1);
    folder_remove(cache_path);
    check_failure(FJ_ERR_NO_JIT, "FLEXJIT_NO_JIT is set and the cache has no kernel test_kernel", NULL);
}
END_TEST

START_TEST(a_mended_template_never_meets_a_stale_kernel) {
    check_prepare(false, 1);
    write_template(KERNEL(2));
    check_prepare(false, 2);
    check_prepare(true, 2);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    write_template(KERNEL(3));
    check_failure(FJ_ERR_NO_JIT, "FLEXJIT_NO_JIT", NULL);
    unsetenv("FLEXJIT_NO_JIT");
    write_template(KERNEL(1)); /* content-addressed: still there */
    check_prepare(true, 1);
}
END_TEST

static void damage(const char *suffix) {
    DIR *stream = opendir(cache_path);
    ck_assert_ptr_nonnull(stream);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        if (entry->d_name[0] == '.' || !strstr(entry->d_name, suffix)) continue;
        size_t size;
        char *bytes = file_read(cache_path, entry->d_name, &size);
        bytes[size / 2] ^= 1;
        file_write(cache_path, entry->d_name, bytes, size, 0600);
        free(bytes);
    }
    (void)closedir(stream);
}

START_TEST(what_is_damaged_is_rebuilt) {
    check_prepare(false, 1);
    damage(".kernel");
    check_prepare(false, 1);
    check_prepare(true, 1);
    damage(".select"); /* the kernel is found by its content */
    check_prepare(true, 1);
    damage("");
    check_prepare(false, 1);
    check_prepare(true, 1);
}
END_TEST

/* Sound by its digest, but not for this machine, or of a compiler that made something else. */
static void check_rebuilt(fj_str payload) {
    check_prepare(false, 1);
    session self;
    session_open(&self);
    DIR *stream = opendir(cache_path);
    ck_assert_ptr_nonnull(stream);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        char hex[33];
        fj_digest key;
        if (!strstr(entry->d_name, ".kernel")) continue;
        (void)snprintf(hex, sizeof hex, "%.32s", entry->d_name);
        ck_assert(fj_cache_digest_parse(hex, &key));
        ck_assert(fj_cache_put(self.cache, FJ_CACHE_KERNEL, key, FJ_STR("{}"), payload));
    }
    (void)closedir(stream);
    session_close(&self);
    check_prepare(false, 1);
    check_prepare(true, 1);
    folder_remove(cache_path);
}

START_TEST(what_does_not_load_is_rebuilt) {
    fj_compiler compiler;
    fj_buf object;
    fj_buf_init(&object, &fj_allocator_libc);
    ck_assert_int_eq(
        fj_jit_compiler_find(FJ_LANGUAGE_C, &fj_file_ops_system, &fj_allocator_libc, &compiler, NULL), FJ_OK);
    ck_assert_int_eq(fj_jit_compile(&compiler, FJ_LANGUAGE_C, fj_jit_compile_options(FJ_ISA_PORTABLE),
                                    &fj_file_ops_system, FJ_STR("void f(void) {}\n"), &object, NULL),
                     FJ_OK);
    check_rebuilt(FJ_STR("not an object"));
    check_rebuilt((fj_str){object.data, object.len});
    fj_buf_finish(&object);
}
END_TEST

START_TEST(it_works_without_a_cache) {
    (void)snprintf(cache_path, sizeof cache_path, "/proc/nowhere");
    check_prepare(false, 1);
    check_prepare(false, 1);
}
END_TEST

/* A compiler that only copies: these tests run it hundreds of times. */
static void use_copying_compiler(void) {
    fj_compiler compiler;
    fj_buf text, object;
    fj_rendered rendered;
    fj_buf_init(&text, &fj_allocator_libc);
    fj_buf_init(&object, &fj_allocator_libc);
    ck_assert_int_eq(
        fj_jit_compiler_find(FJ_LANGUAGE_C, &fj_file_ops_system, &fj_allocator_libc, &compiler, NULL), FJ_OK);
    ck_assert_int_eq(fj_jit_render(&problem, &variant, &fj_allocator_libc, &text, &rendered, NULL), FJ_OK);
    ck_assert_int_eq(fj_jit_compile(&compiler, FJ_LANGUAGE_C, fj_jit_compile_options(variant.isa),
                                    &fj_file_ops_system, rendered.source, &object, NULL),
                     FJ_OK);
    file_write(tools, "saved.so", object.data, object.len, 0600);
    use_script("#!/bin/sh\n[ $1 = --version ] && exit\nwhile [ $1 != -o ]; do shift; done\n"
               "cp ${0%/*}/saved.so $2\n");
    fj_buf_finish(&object);
    fj_buf_finish(&text);
}

START_TEST(any_file_operation_may_fail) {
    use_copying_compiler();
    bool reached_the_end = false;
    for (int warm = 0; warm < 2; warm++) {
        reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            session self;
            fj_object *object = NULL;
            if (!warm) folder_remove(cache_path);
            folder_remove(tmpdir); /* where a removal failed, something is left */
            ck_assert_int_eq(mkdir(tmpdir, 0700), 0);
            session_open(&self);
            failing_files_countdown = n;
            fj_status status = prepare(&self, &object);
            reached_the_end = failing_files_countdown >= 0;
            failing_files_countdown = -1;
            ck_assert(status == FJ_OK || self.error.text[0]);
            if (status == FJ_OK) ck_assert_int_eq(number_of(object), 1);
            fj_jit_release(self.jit, &object);
            ck_assert_int_eq(prepare(&self, &object), FJ_OK);
            ck_assert_int_eq(number_of(object), 1);
            fj_jit_release(self.jit, &object);
            session_close(&self);
        }
    }
}
END_TEST

START_TEST(any_allocation_may_fail) {
    use_copying_compiler();
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    for (int warm = 0; warm < 2; warm++) {
        bool reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            session self;
            fj_object *object = NULL;
            if (!warm) folder_remove(cache_path);
            failing.countdown = n;
            if (!session_try(&self, &allocator)) continue;
            fj_status status = prepare(&self, &object);
            reached_the_end = failing.countdown >= 0;
            failing.countdown = -1;
            ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY);
            if (status == FJ_OK) ck_assert_int_eq(number_of(object), 1);
            fj_jit_release(self.jit, &object);
            session_close(&self);
            ck_assert_int_eq(failing.live, 0);
        }
    }
}
END_TEST

RUN_SUITE("prepare", the_second_time_is_a_hit, a_mended_template_never_meets_a_stale_kernel,
          what_is_damaged_is_rebuilt, what_does_not_load_is_rebuilt, it_works_without_a_cache,
          any_file_operation_may_fail, any_allocation_may_fail)
