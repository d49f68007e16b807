/* NVRTC: finding it, what it says, what is kept of it. A fake one stands in but where the test says real. */
#include "driver/cuda.h"
#include "jit/nvrtc.h"
#include "jit/resources.h"
#include "tests/jit/session.h"

static const fj_variant gpu_variant = {
    .name = "fwd_test", .target = FJ_TARGET_CUDA, .arch = {80, 0}, .mma = true, .entry_count = 0};
static const fj_jit_problem gpu_problem = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16};

static const char kernel_text[] = "extern \"C\" __global__ void k(float *x) { *x += 1; }\n";

static void write_kernel(const char *text) {
    char path[96];
    (void)snprintf(path, sizeof path, "%s/templates/cuda", folder);
    (void)mkdir(path, 0700);
    file_write(path, "fwd_mma.cu", text, strlen(text), 0600);
}

/* Has the library find the fake and nothing else. */
static void use_fake(void) {
    const char *path = getenv("FJ_FAKE_NVRTC");
    ck_assert_msg(path != NULL, "FJ_FAKE_NVRTC does not name the fake");
    setenv("FLEXJIT_NVRTC", path, 1);
    unsetenv("FAKE_NVRTC");
    unsetenv("FAKE_NVRTC_LOG");
    write_kernel(kernel_text);
}

static void has_text(const char *text, const char *part) {
    ck_assert_msg(text && strstr(text, part) != NULL, "'%s' is not in '%s'", part, text ? text : "");
}

static const fj_nvrtc *opened(void) {
    const fj_nvrtc *nvrtc = NULL;
    fj_error error = {0};
    fj_status status = fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    return nvrtc;
}

static fj_status build(session *self, bool verify) {
    return fj_jit_build(self->jit, &gpu_problem, &gpu_variant, verify, &self->info, &self->error);
}

/* In a session of its own. */
static void check_build(bool hit) {
    session self;
    session_open(&self);
    fj_status status = build(&self, false);
    ck_assert_msg(status == FJ_OK, "%s", self.error.text);
    ck_assert_int_eq(self.info.cache_hit, hit);
    session_close(&self);
}

static void check_build_failure(fj_status expected, bool verify, const char *part, const char *detail) {
    session self;
    session_open(&self);
    ck_assert_int_eq(build(&self, verify), expected);
    has_text(self.error.text, part);
    if (detail) has_text(self.error.detail, detail);
    session_close(&self);
}

/* ---- Finding it -------------------------------------------------------------------------------------------- */

static void check_not_found(const char *part) {
    const fj_nvrtc *nvrtc = NULL;
    fj_error error = {0};
    ck_assert_int_eq(fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, &error), FJ_ERR_DEVICE);
    has_text(error.text, part);
    has_text(error.note, "pip install nvidia-cuda-nvrtc");
    fj_error_finish(&error);
}

START_TEST(what_is_no_nvrtc) {
    setenv("FLEXJIT_NVRTC", "/nowhere/libnvrtc.so.13", 1);
    check_not_found("FLEXJIT_NVRTC='/nowhere/libnvrtc.so.13' is not the library");
    setenv("FLEXJIT_NVRTC", folder, 1);
    check_not_found("is not the library");
    const char *other = getenv("FJ_FAKE_OTHER_NVRTC");
    ck_assert_ptr_nonnull(other);
    setenv("FLEXJIT_NVRTC", other, 1);
    check_not_found("is not NVRTC of version 12 or newer: it has no nvrtcGetErrorString");
    use_fake();
    setenv("FAKE_NVRTC", "version=1", 1);
    check_not_found("it does not say its version");
    setenv("FAKE_NVRTC", "major=11 minor=8", 1);
    check_not_found("is not NVRTC of version 12 or newer: it is 11.8");
    use_fake();
    ck_assert_int_eq(opened()->major, 13); /* what failed is tried again */
}
END_TEST

static char places[32768];

static bool note_place(void *user, const char *path, bool loaded) {
    (void)user;
    size_t length = strlen(places);
    (void)snprintf(places + length, sizeof places - length, "%s%s\n", loaded ? "loaded " : "", path);
    return false;
}

/* a before b */
static void check_order(const char *a, const char *b) {
    const char *first = strstr(places, a), *second = strstr(places, b);
    ck_assert_msg(first && second && first < second, "%s before %s in\n%s", a, b, places);
}

START_TEST(places_in_their_order) {
    char path[160], command[400];
    unsetenv("FLEXJIT_NVRTC");
    (void)snprintf(command, sizeof command,
                   "mkdir -p %s/venv/lib/python3.9/site-packages/nvidia/cuda_nvrtc/lib "
                   "%s/venv/lib/python3.9/site-packages/nvidia/cu13/lib",
                   folder, folder);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): mkdir -p */
    (void)snprintf(path, sizeof path, "%s/venv", folder);
    setenv("VIRTUAL_ENV", path, 1);
    setenv("CONDA_PREFIX", "/conda", 1);
    setenv("CUDA_PATH", "/path", 1);
    setenv("CUDA_HOME", "/home", 1);
    ck_assert(!fj_jit_nvrtc_find(note_place, NULL));
    check_order("loaded libnvrtc.so.13\n", "loaded libnvrtc.so.12\n");
    check_order("loaded libnvrtc.so.12\n", "site-packages/nvidia/cu13/lib/libnvrtc.so.13\n");
    check_order("nvidia/cu13/lib/libnvrtc.so.13\n", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12\n");
    check_order("nvidia/cuda_nvrtc/lib/libnvrtc.so.12\n", "/conda/lib/libnvrtc.so.13\n");
    check_order("/conda/lib/libnvrtc.so.12\n", "\nlibnvrtc.so.13\n");
    check_order("\nlibnvrtc.so.12\n", "/path/lib64/libnvrtc.so.13\n");
    check_order("/path/lib/libnvrtc.so.12\n", "/home/lib64/libnvrtc.so.13\n");
    places[0] = '\0';
    setenv("FLEXJIT_NVRTC", "/chosen", 1);
    ck_assert(!fj_jit_nvrtc_find(note_place, NULL));
    ck_assert_str_eq(places, "/chosen\n");
}
END_TEST

START_TEST(architectures) {
    fj_arch arch;
    char name[FJ_ARCH_NAME];
    static const char *const good[] = {"sm_80", "80",      "8.0",    "sm_90a", "90a",
                                       "9.0a",  "sm_100f", "sm_120", "sm_107", "10.1"};
    static const char *const same[] = {"sm_80",  "sm_80",   "sm_80",  "sm_90a", "sm_90a",
                                       "sm_90a", "sm_100f", "sm_120", "sm_107", "sm_101"};
    static const char *const bad[] = {"",        "sm_",        "sm_70",  "sm_80a", "sm_90b",
                                      "sm_90aa", "compute_80", "9",      "sm_-90", "sm_99999999999999999999",
                                      "8.0.0",   "sm_9.0",     "sm_90f", "sm_999", "sm_81",
                                      "sm_130",  "sm_121c"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(good); i++) {
        ck_assert_msg(fj_jit_arch_parse(good[i], &arch), "%s", good[i]);
        fj_jit_arch_name(arch, name);
        ck_assert_str_eq(name, same[i]);
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad); i++)
        ck_assert_msg(!fj_jit_arch_parse(bad[i], &arch), "%s", bad[i]);
    ck_assert_int_eq(fj_jit_arch_features((fj_arch){107, 0}).shared_limit, 227 << 10);
    ck_assert_int_eq(fj_jit_arch_features((fj_arch){120, 0}).shared_limit, 99 << 10);
}
END_TEST

/* Which releases compile for an architecture that this one does not know. */
START_TEST(releases_of_architectures) {
    static const struct {
        int arch;
        const char *text;
    } rows[] = {{88, "sm_88: 13.0 or newer does"},   {101, "sm_101: 12.8 to 12.9 do"},
                {103, "sm_103: 12.9 or newer does"}, {107, "sm_107: 13.4 or newer does"},
                {110, "sm_110: 13.0 or newer does"}, {121, "sm_121: 12.9 or newer does"},
                {130, "does not compile for sm_130"}};
    fj_nvrtc nvrtc = {.path = "x", .major = 13, .minor = 3, .archs = {75, 80}, .arch_count = 2};
    for (size_t i = 0; i < FJ_ARRAY_LEN(rows); i++) {
        fj_error error = {0};
        ck_assert_int_eq(fj_jit_nvrtc_check_arch(&nvrtc, (fj_arch){rows[i].arch, 0}, &error), FJ_ERR_DEVICE);
        has_text(error.text, rows[i].text);
    }
}
END_TEST

START_TEST(too_old_for_the_gpu) {
    use_fake();
    setenv("FAKE_NVRTC", "major=12 minor=2 archs=4", 1);
    const fj_nvrtc *nvrtc = opened();
    fj_error error = {0};
    ck_assert_int_eq(fj_jit_nvrtc_check_arch(nvrtc, (fj_arch){90, 'a'}, &error), FJ_OK);
    ck_assert_int_eq(fj_jit_nvrtc_check_arch(nvrtc, (fj_arch){120, 0}, &error), FJ_ERR_DEVICE);
    has_text(error.text, "NVRTC 12.2 (");
    has_text(error.text, "does not compile for sm_120: 12.8 or newer does");
    ck_assert_str_eq(error.note, "it knows sm_75 sm_80 sm_86 sm_90");
    fj_error_finish(&error);
}
END_TEST

/* ---- Compiling ----------------------------------------------------------------------------------------------- */

START_TEST(a_kernel_is_built_once) {
    use_fake();
    check_build_failure(FJ_ERR_NO_JIT, true, "the cache has no kernel fwd_test for this mod", NULL);
    check_build(false);
    check_build(true);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_build(true);
    write_kernel("another kernel\n");
    check_build_failure(FJ_ERR_NO_JIT, false, "FLEXJIT_NO_JIT is set", NULL);
    ck_assert_int_eq(folder_count(cache_path, ".kernel"), 1);
}
END_TEST

START_TEST(what_ptxas_says_is_kept) {
    use_fake();
    setenv("FAKE_NVRTC_LOG",
           "ptxas info    : 0 bytes gmem\n"
           "ptxas info    : Compiling entry function 'one' for 'sm_80'\n"
           "ptxas info    : Function properties for one\n"
           "ptxas         .     8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
           "ptxas info    : Used 168 registers, used 2 barriers, 320 bytes smem, 364 bytes cmem[0]\n"
           "ptxas info    : Compile time = 5.5 ms\n"
           "ptxas info    : Compiling entry function 'two' for 'sm_80'\n"
           "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
           "ptxas info    : Used 24 registers\n",
           1);
    for (int warm = 0; warm < 2; warm++) {
        session self;
        session_open(&self);
        ck_assert_int_eq(build(&self, false), FJ_OK);
        ck_assert_int_eq(self.info.cache_hit, warm);
        ck_assert_int_eq(self.info.resource_count, 2);
        const fj_resources *one = &self.info.resources[0], *two = &self.info.resources[1];
        ck_assert_str_eq(one->kernel, "one");
        ck_assert_str_eq(two->kernel, "two");
        ck_assert_int_eq(one->registers, 168);
        ck_assert_int_eq(one->stack, 8);
        ck_assert_int_eq(one->spill_stores, 12);
        ck_assert_int_eq(one->spill_loads, 16);
        ck_assert_int_eq(one->shared, 320);
        ck_assert_int_eq(one->barriers, 2);
        ck_assert_int_eq(two->registers, 24);
        ck_assert_int_eq(two->spill_loads, 0);
        session_close(&self);
    }
}
END_TEST

START_TEST(logs_of_any_form) {
    static const char *const logs[] = {
        "",           "\n\n",
        "ptxas",      "ptxas info : Compiling entry function '",
        " registers", "ptxas info : Compiling entry function 'k' for\nptxas : Used registers\n"};
    fj_resources resources[FJ_RESOURCES_MAX];
    for (size_t i = 0; i < FJ_ARRAY_LEN(logs); i++)
        ck_assert_int_le(fj_jit_resources_parse(fj_str_from(logs[i]), resources), 1);
    fj_buf many;
    fj_buf_init(&many, &fj_allocator_libc);
    for (int i = 0; i < 20; i++) fj_buf_printf(&many, "ptxas info : Compiling entry function 'k%d' for\n", i);
    ck_assert_int_eq(fj_jit_resources_parse((fj_str){many.data, many.len}, resources), FJ_RESOURCES_MAX);
    fj_buf_finish(&many);
}
END_TEST

START_TEST(errors_name_the_line_of_the_template) {
    use_fake();
    setenv("FAKE_NVRTC", "result=6", 1);
    setenv(
        "FAKE_NVRTC_LOG",
        "cuda/tile.h(3): warning: so so\ncuda/fwd_mma.cu(12): error: a mistake\n  text\nmore(1): error: x\n",
        1);
    check_build_failure(FJ_ERR_COMPILER, false,
                        "NVRTC 13.0 failed on kernel fwd_test: cuda/fwd_mma.cu:12: a mistake",
                        "more(1): error: x");
    setenv("FAKE_NVRTC_LOG", "cuda/prim.h(7): catastrophic error: no such file\ncuda/prim.h(9): error: y\n",
           1);
    check_build_failure(FJ_ERR_COMPILER, false, "failed on kernel fwd_test: cuda/prim.h:7: no such file",
                        NULL);
    setenv("FAKE_NVRTC_LOG",
           "ptxas info : x\nptxas application ptx input, line 9; error   : what\nptxas fatal : y\n", 1);
    check_build_failure(FJ_ERR_COMPILER, false,
                        "fwd_test: ptxas application ptx input, line 9; error   : what", "ptxas fatal");
    setenv("FAKE_NVRTC_LOG", "no place", 1);
    check_build_failure(FJ_ERR_COMPILER, false, "failed on kernel fwd_test: NVRTC_ERROR_COMPILATION",
                        "no place");
    setenv("FAKE_NVRTC", "result=7", 1);
    check_build_failure(FJ_ERR_DEVICE, false, "cannot use its libnvrtc-builtins.so.13.0", NULL);
    setenv("FAKE_NVRTC", "result=1", 1);
    check_build_failure(FJ_ERR_MEMORY, false, "NVRTC ran out of memory on kernel fwd_test", NULL);
    ck_assert_int_le(folder_count(cache_path, "."), 0);
}
END_TEST

START_TEST(options) {
    use_fake();
    setenv("FAKE_NVRTC", "result=6 options=1", 1);
    check_build_failure(
        FJ_ERR_COMPILER, false, "fwd_test",
        "[--gpu-architecture=sm_80][--std=c++17][-default-device][--fmad=false][--ptxas-options=-v]"
        "[--no-cache][--split-compile=0]\n");
}
END_TEST

/* Each in a process of its own, which opens one. A cache of its own is turned off where that is an option. */
static void check_version(const char *version, const char *name, const char *last_option) {
    char settings[64];
    use_fake();
    (void)snprintf(settings, sizeof settings, "%s result=6 options=1", version);
    setenv("FAKE_NVRTC", settings, 1);
    check_build_failure(FJ_ERR_COMPILER, false, name, last_option);
    (void)snprintf(settings, sizeof settings, "%s", version);
    setenv("FAKE_NVRTC", settings, 1);
    check_build(false);
    check_build(true);
}

START_TEST(nvrtc_12_0) { check_version("major=12 minor=0", "NVRTC 12.0 failed", "[--ptxas-options=-v]\n"); }
END_TEST
START_TEST(nvrtc_12_8) { check_version("major=12 minor=8", "NVRTC 12.8 failed", "[--ptxas-options=-v]\n"); }
END_TEST
START_TEST(nvrtc_12_9) {
    check_version("major=12 minor=9", "NVRTC 12.9 failed", "[--ptxas-options=-v][--no-cache]");
}
END_TEST
START_TEST(nvrtc_13_0) {
    check_version("major=13 minor=0", "NVRTC 13.0 failed", "[--ptxas-options=-v][--no-cache]");
}
END_TEST

START_TEST(a_cache_that_cannot_be_written_is_an_error) {
    use_fake();
    (void)snprintf(cache_path, sizeof cache_path, "/proc/nowhere");
    check_build_failure(FJ_ERR_IO, false, "cannot be written to the cache", NULL);
}
END_TEST

START_TEST(any_allocation_may_fail) {
    use_fake();
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    (void)opened();
    for (int warm = 0; warm < 2; warm++) {
        bool reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            session self;
            if (!warm) folder_remove(cache_path);
            failing.countdown = n;
            if (!session_try(&self, &allocator)) continue;
            fj_status status = build(&self, false);
            reached_the_end = failing.countdown >= 0;
            failing.countdown = -1;
            /* The cache does not say why it was not written. */
            ck_assert_msg(status == FJ_OK || status == FJ_ERR_MEMORY || status == FJ_ERR_IO, "%ld: %s", n,
                          self.error.text);
            session_close(&self);
            ck_assert_int_eq(failing.live, 0);
        }
    }
}
END_TEST

/* ---- On a GPU that only pretends --------------------------------------------------------------------------------- */

START_TEST(a_damaged_cubin_is_rebuilt) {
    use_fake();
    const fj_driver *device = NULL;
    const char *fake = getenv("FJ_FAKE_CUDA");
    ck_assert_ptr_nonnull(fake);
    setenv("FLEXJIT_LIBCUDA", fake, 1);
    unsetenv("FAKE_CUDA");
    ck_assert_int_eq(fj_cuda_device_open(&fj_allocator_libc, 0, 75, &device, NULL), FJ_OK);
    for (int time = 0; time < 3; time++) {
        session self;
        fj_object *object = NULL;
        session_open(&self);
        ck_assert_int_eq(
            fj_jit_prepare(self.jit, device, &gpu_problem, &gpu_variant, &object, &self.info, &self.error),
            FJ_OK);
        ck_assert_int_eq(self.info.cache_hit, time == 1);
        fj_jit_release(self.jit, &object);
        session_close(&self);
        DIR *stream = opendir(cache_path);
        for (struct dirent *entry; time == 1 && (entry = readdir(stream)) != NULL;) {
            size_t size;
            if (!strstr(entry->d_name, ".kernel")) continue;
            char *bytes = file_read(cache_path, entry->d_name, &size);
            bytes[size - 2] ^= 1;
            file_write(cache_path, entry->d_name, bytes, size, 0600);
            free(bytes);
        }
        (void)closedir(stream);
    }
    if (device) device->close(&device);
}
END_TEST

/* ---- The real one ------------------------------------------------------------------------------------------------ */

/* A real kernel, of which one part, included by another, has a mistake. */
static void check_mistake(const char *part, const char *text, const char *place) {
    char path[96];
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    const fj_jit_problem of = {
        .kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64};
    ck_assert_int_gt(fj_jit_variants(&of, &features, variants), 0);
    (void)snprintf(path, sizeof path, "%s/templates/cuda", folder);
    folder_remove(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    file_write(path, part, text, strlen(text), 0600);
    session self;
    session_open(&self);
    ck_assert_int_eq(fj_jit_build(self.jit, &of, &variants[0], false, &self.info, &self.error),
                     FJ_ERR_COMPILER);
    has_text(self.error.text, place);
    has_text(self.error.text, variants[0].name);
    session_close(&self);
}

START_TEST(real_errors_name_the_part_and_its_line) {
    const fj_nvrtc *nvrtc = NULL;
    unsetenv("FLEXJIT_NVRTC");
    if (fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, NULL) != FJ_OK) return;
    check_mistake("shapes.h", "int fine;\n\nint mistake(;\n", ": cuda/shapes.h:3: ");
    check_mistake("hooks.h", "#include \"prim.h\"\n#include <nowhere.h>\n",
                  ": cuda/hooks.h:2: could not open");
    check_mistake("fwd_mma.cu", "#include \"prim.h\"\n\nstatic_assert(FJ_STAGES == 77, \"so\");\n",
                  ": cuda/fwd_mma.cu:3: static assertion failed");
}
END_TEST

START_TEST(the_real_one_compiles) {
    const fj_nvrtc *nvrtc = NULL;
    fj_error error = {0};
    unsetenv("FLEXJIT_NVRTC");
    if (fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, &error) != FJ_OK) {
        (void)fprintf(stderr, "skipped: %s\n", error.text);
        fj_error_finish(&error);
        return;
    }
    ck_assert_int_eq(fj_jit_nvrtc_try(nvrtc, &fj_file_ops_system, &fj_allocator_libc, &error), FJ_OK);
    write_kernel(kernel_text);
    session self;
    session_open(&self);
    ck_assert_int_eq(build(&self, false), FJ_OK);
    ck_assert_int_eq(self.info.resource_count, 1);
    ck_assert_str_eq(self.info.resources[0].kernel, "k");
    ck_assert_int_gt(self.info.resources[0].registers, 0);
    session_close(&self);
    check_build(true);
    write_kernel("int fine;\nint mistake(;\n");
    check_build_failure(FJ_ERR_COMPILER, false, "cuda/fwd_mma.cu:2: ", "error:");
}
END_TEST

RUN_SUITE("nvrtc", what_is_no_nvrtc, places_in_their_order, architectures, releases_of_architectures,
          too_old_for_the_gpu, a_kernel_is_built_once, what_ptxas_says_is_kept, logs_of_any_form,
          errors_name_the_line_of_the_template, options, a_cache_that_cannot_be_written_is_an_error,
          any_allocation_may_fail, a_damaged_cubin_is_rebuilt, nvrtc_12_0, nvrtc_12_8, nvrtc_12_9, nvrtc_13_0,
          real_errors_name_the_part_and_its_line, the_real_one_compiles)
