/* A GPU that only pretends (tests/driver/fake_gpu.c), and an NVRTC that only pretends, for one test. */
#ifndef FJ_TESTS_ATTN_GPU_FIXTURE_H
#define FJ_TESTS_ATTN_GPU_FIXTURE_H

#include <dlfcn.h>

#include "tests/attn/gpu_cases.h"
#include "tests/driver/fake_cuda.h"
#include "tests/support/failing.h"

static const struct fake_cuda *fake;
static char folder[64];
static fj_context *context;
static fj_device *device;
static fj_mod *mod; /* score * 2 */
static fj_error error;

static inline void setup(void) {
    folder_create(folder);
    const char *driver = getenv("FJ_FAKE_CUDA"), *compiler = getenv("FJ_FAKE_NVRTC");
    ck_assert_msg(driver && compiler, "FJ_FAKE_CUDA and FJ_FAKE_NVRTC do not name the fakes");
    setenv("FLEXJIT_LIBCUDA", driver, 1);
    setenv("FLEXJIT_NVRTC", compiler, 1);
    unsetenv("FLEXJIT_NO_JIT");
    unsetenv("FAKE_CUDA");
    unsetenv("FAKE_NVRTC");
    void *library = dlopen(driver, RTLD_NOW | RTLD_LOCAL); /* the very one that the library opens */
    fake = library ? dlsym(library, "fake_cuda") : NULL;
    ck_assert_ptr_nonnull(fake);
    fake->set_current(-1);
    const fj_context_desc desc = {.struct_size = sizeof desc, .cache_path = folder};
    const fj_mod_desc text = {.struct_size = sizeof text, .score = "score * 2"};
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    ck_assert_int_eq(fj_mod_create(context, &text, &mod, &error), FJ_OK);
}

static inline void teardown(void) {
    fj_mod_unref(&mod);
    fj_device_unref(&device);
    fj_context_unref(&context);
    fj_error_finish(&error);
    folder_remove(folder);
    ck_assert_uint_eq(fake->memory(), 0);
}

static inline void has_text(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in '%s'", part, text);
}

static inline void open_emulating(const char *settings) {
    setenv("FAKE_NVRTC", "emulate=1", 1);
    setenv("FAKE_CUDA", settings, 1);
    if (!device) box_check(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), &error);
}

#endif
