/* NVRTC and its other users in a process; and several of them, of which some do not work. */
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>

#include "jit/nvrtc.h"
#include "tests/jit/session.h"

static const char *const plain[] = {"--gpu-architecture=sm_90", "--std=c++17", NULL};
static const char two_pointers[] = "extern \"C\" __global__ void k(float *x, float *y) {\n"
                                   "    for (int i = 0; i < 100; i++) x[i] += y[i] * 3;\n"
                                   "}\n";

static const char *fake(void) {
    const char *path = getenv("FJ_FAKE_NVRTC");
    ck_assert_msg(path != NULL, "FJ_FAKE_NVRTC does not name the fake");
    return path;
}

static void use_fake(const char *settings) {
    setenv("FLEXJIT_NVRTC", fake(), 1);
    setenv("FAKE_NVRTC", settings, 1);
    unsetenv("FAKE_NVRTC_LOG");
}

static fj_status open_for(int arch, const fj_nvrtc **ret_nvrtc, fj_error *error) {
    return fj_jit_nvrtc_open((fj_arch){arch, 0}, &fj_file_ops_system, ret_nvrtc, error);
}

static const fj_nvrtc *opened(int arch) {
    const fj_nvrtc *nvrtc = NULL;
    fj_error error = {0};
    ck_assert_msg(open_for(arch, &nvrtc, &error) == FJ_OK, "%s\n%s", error.text,
                  error.detail ? error.detail : "");
    return nvrtc;
}

static void has_text(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in '%s'", part, text);
}

/* The caller finishes it. */
static fj_buf cubin_of(const fj_nvrtc *nvrtc, const char *source) {
    fj_buf cubin, log;
    fj_error error = {0};
    fj_buf_init(&cubin, &fj_allocator_libc);
    fj_buf_init(&log, &fj_allocator_libc);
    ck_assert_msg(fj_jit_nvrtc_compile(nvrtc, &fj_file_ops_system, "k", fj_str_from(source), plain, &cubin,
                                       &log, &error) == FJ_OK,
                  "%s", error.text);
    fj_buf_finish(&log);
    return cubin;
}

/* ---- Other users ---------------------------------------------------------------------------------------------- */

/* As PyTorch does it: the same library, in this process, open to all. Returns the size of the cubin. */
static size_t compile_here(const char *path, const char *option, const char *text, char bytes[65536]) {
    const char *const options[] = {plain[0], plain[1], option};
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL), *program = NULL;
    int (*create)(void **, const char *, const char *, int, const char *const *, const char *const *);
    int (*compile)(void *, int, const char *const *), (*get_size)(void *, size_t *), (*get)(void *, char *),
        (*destroy)(void **);
    size_t size = 0;
    ck_assert_msg(library != NULL, "%s", dlerror());
    *(void **)&create = dlsym(library, "nvrtcCreateProgram");
    *(void **)&compile = dlsym(library, "nvrtcCompileProgram");
    *(void **)&get_size = dlsym(library, "nvrtcGetCUBINSize");
    *(void **)&get = dlsym(library, "nvrtcGetCUBIN");
    *(void **)&destroy = dlsym(library, "nvrtcDestroyProgram");
    ck_assert_int_eq(create(&program, text, "k.cu", 0, NULL, NULL), 0);
    ck_assert_int_eq(compile(program, option ? 3 : 2, options), 0);
    ck_assert_int_eq(get_size(program, &size), 0);
    ck_assert_uint_le(size, 65536);
    ck_assert_int_eq(get(program, bytes), 0);
    ck_assert_int_eq(destroy(&program), 0);
    return size;
}

/* Whether this one keeps state: then what was compiled here last is another. */
static bool check_unspoiled(const fj_nvrtc *nvrtc) {
    static char before_here[65536], after_here[65536];
    fj_buf before = cubin_of(nvrtc, two_pointers);
    const size_t here = compile_here(nvrtc->path, NULL, two_pointers, before_here);
    (void)compile_here(nvrtc->path, "-G", two_pointers, after_here);
    (void)compile_here(nvrtc->path, "--restrict", two_pointers, after_here);
    const size_t spoiled = compile_here(nvrtc->path, NULL, two_pointers, after_here);
    const bool keeps = spoiled != here || memcmp(before_here, after_here, here) != 0;
    fj_buf after = cubin_of(nvrtc, two_pointers);
    ck_assert_uint_eq(before.len, after.len);
    ck_assert_int_eq(memcmp(before.data, after.data, before.len), 0);
    fj_buf_finish(&before);
    fj_buf_finish(&after);
    return keeps;
}

START_TEST(options_of_others_do_not_matter) {
    use_fake("");
    ck_assert(check_unspoiled(opened(90)));
}
END_TEST

START_TEST(options_of_others_do_not_matter_to_the_real_one) {
    const fj_nvrtc *nvrtc = NULL;
    unsetenv("FLEXJIT_NVRTC");
    if (open_for(90, &nvrtc, NULL) != FJ_OK) return;
    if (!check_unspoiled(nvrtc))
        (void)fprintf(stderr, "NVRTC %d.%d keeps no state\n", nvrtc->major, nvrtc->minor);
}
END_TEST

START_TEST(the_caller_keeps_its_locale) {
    use_fake("locale=1");
    if (!setlocale(LC_ALL, "C.UTF-8")) return;
    locale_t own = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
    ck_assert(own != (locale_t)0);
    (void)uselocale(own);
    fj_buf cubin = cubin_of(opened(90), two_pointers);
    fj_buf_finish(&cubin);
    ck_assert(uselocale((locale_t)0) == own);
    ck_assert_str_eq(setlocale(LC_ALL, NULL), "C.UTF-8");
    (void)uselocale(LC_GLOBAL_LOCALE);
    freelocale(own);
}
END_TEST

START_TEST(nothing_of_it_stays_in_the_process) {
    use_fake("");
    fj_buf cubin = cubin_of(opened(90), two_pointers);
    fj_buf_finish(&cubin);
    ck_assert_ptr_null(dlopen(fake(), RTLD_NOW | RTLD_NOLOAD));
    ck_assert_int_eq(folder_count(tmpdir, ""), 0);
}
END_TEST

/* ---- Threads of its own ------------------------------------------------------------------------------------------ */

/* What the fake says are its options. */
static void options_of(const char *arch, fj_buf *log) {
    const char *const options[] = {arch, NULL};
    fj_buf cubin;
    fj_buf_init(&cubin, &fj_allocator_libc);
    fj_buf_init(log, &fj_allocator_libc);
    ck_assert_int_eq(fj_jit_nvrtc_compile(opened(90), &fj_file_ops_system, "k", fj_str_from(two_pointers),
                                          options, &cubin, log, NULL),
                     FJ_OK);
    fj_buf_finish(&cubin);
}

static void check_options(const char *arch, const char *expected) {
    fj_buf log;
    options_of(arch, &log);
    ck_assert_str_eq(log.data, expected);
    fj_buf_finish(&log);
}

static void *compile_slowly(void *log) {
    options_of("--gpu-architecture=sm_80", log);
    return NULL;
}

START_TEST(parts_are_compiled_at_a_time) {
    use_fake("options=1");
    check_options("--gpu-architecture=sm_80", "[--gpu-architecture=sm_80][--no-cache][--split-compile=0]\n");
    check_options("--gpu-architecture=sm_90a",
                  "[--gpu-architecture=sm_90a][--no-cache][--split-compile=0]\n");
    check_options("--gpu-architecture=sm_100", "[--gpu-architecture=sm_100][--no-cache]\n");
    check_options("--gpu-architecture=sm_120a", "[--gpu-architecture=sm_120a][--no-cache]\n");
}
END_TEST

START_TEST(also_of_one_of_several) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    fj_buf logs[THREADS];
    int split = 0;
    use_fake("options=1 wait=100");
    (void)opened(90);
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, compile_slowly, &logs[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        split += strstr(logs[i].data, "split") != NULL;
        fj_buf_finish(&logs[i]);
    }
    ck_assert_int_eq(split, THREADS); /* the cubin does not depend on what else is compiled */
}
END_TEST

/* ---- Several ---------------------------------------------------------------------------------------------------- */

/* The fake in a folder of a Python's packages, with settings of its own. */
static void install(const char *version, const char *settings) {
    char place[256], command[1024];
    (void)snprintf(place, sizeof place, "%s/venv/lib/python%s/site-packages/nvidia/cuda_nvrtc/lib", folder,
                   version);
    (void)snprintf(command, sizeof command, "mkdir -p %s && cp %s %s/libnvrtc.so.12", place, fake(), place);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): mkdir and cp */
    file_write(place, "settings", settings, strlen(settings), 0600);
    (void)snprintf(place, sizeof place, "%s/venv", folder);
    setenv("VIRTUAL_ENV", place, 1);
    unsetenv("FLEXJIT_NVRTC");
    unsetenv("FAKE_NVRTC");
    unsetenv("FAKE_NVRTC_LOG");
}

START_TEST(the_newest_python_is_first) {
    install("3.9", "major=12 minor=1");
    install("3.12", "major=12 minor=6");
    ck_assert_int_eq(opened(0)->minor, 6);
}
END_TEST

START_TEST(one_that_knows_the_architecture_is_taken) {
    install("3.9", "major=12 minor=8");
    install("3.12", "major=12 minor=4 archs=4");
    ck_assert_int_eq(opened(90)->minor, 4);
    ck_assert_int_eq(opened(120)->minor, 8);
    ck_assert_int_eq(opened(90)->minor, 4);
}
END_TEST

static const fj_variant gpu_variant = {
    .name = "fwd_test", .target = FJ_TARGET_CUDA, .arch = {80, 0}, .mma = true};
static const fj_jit_problem gpu_problem = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16};

static fj_status build(session *self) {
    char path[160];
    (void)snprintf(path, sizeof path, "%s/templates/cuda", folder);
    (void)mkdir(path, 0700);
    file_write(path, "fwd_mma.cu", two_pointers, strlen(two_pointers), 0600);
    session_open(self);
    return fj_jit_build(self->jit, &gpu_problem, &gpu_variant, false, &self->info, &self->error);
}

/* What is wrong with the first, 12.7, shows when it compiles. */
static void check_another_is_taken(const char *wrong) {
    char settings[64];
    session self;
    (void)snprintf(settings, sizeof settings, "major=12 minor=7 %s", wrong);
    install("3.9", "major=12 minor=3");
    install("3.12", settings);
    ck_assert_int_eq(opened(80)->minor, 7);
    fj_status status = build(&self);
    ck_assert_msg(status == FJ_OK, "%s", self.error.text);
    ck_assert_str_eq(self.error.text, "");
    session_close(&self);
    ck_assert_int_eq(opened(80)->minor, 3);
}

START_TEST(one_that_crashes_hides_no_other) { check_another_is_taken("crash=1"); }
END_TEST
START_TEST(one_without_builtins_hides_no_other) { check_another_is_taken("result=7"); }
END_TEST
START_TEST(one_that_refuses_options_hides_no_other) { check_another_is_taken("result=5"); }
END_TEST

START_TEST(a_crash_is_an_error) {
    session self;
    use_fake("crash=1");
    fj_status status = build(&self);
    ck_assert_int_eq(status, FJ_ERR_DEVICE);
    has_text(self.error.text, "failed on kernel fwd_test: its process was ended by signal 11");
    session_close(&self);
    ck_assert_int_eq(folder_count(tmpdir, ""), 0);
    ck_assert_int_le(folder_count(cache_path, "."), 0);
}
END_TEST

/* A mistake of the text does not turn to the next. */
START_TEST(a_mistake_is_no_fault_of_the_compiler) {
    session self;
    install("3.9", "major=12 minor=3");
    install("3.12", "major=12 minor=7 result=6");
    ck_assert_int_eq(build(&self), FJ_ERR_COMPILER);
    has_text(self.error.text, "NVRTC 12.7 failed on kernel fwd_test");
    session_close(&self);
    ck_assert_int_eq(opened(80)->minor, 7);
}
END_TEST

RUN_SUITE("nvrtc process", options_of_others_do_not_matter, options_of_others_do_not_matter_to_the_real_one,
          parts_are_compiled_at_a_time, also_of_one_of_several, the_caller_keeps_its_locale,
          nothing_of_it_stays_in_the_process, the_newest_python_is_first,
          one_that_knows_the_architecture_is_taken, one_that_crashes_hides_no_other,
          one_without_builtins_hides_no_other, one_that_refuses_options_hides_no_other, a_crash_is_an_error,
          a_mistake_is_no_fault_of_the_compiler)
