/* The cuda driver over a fake libcuda: what is missing, contexts, loading, launching. No GPU is needed. */
#include <check.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "driver/cuda.h"
#include "driver/cuda_api.h"
#include "tests/driver/fake_cuda.h"
#include "tests/support/failing.h"

static _Alignas(16) const char elf[] = "\177ELF a cubin";
static const struct fake_cuda *fake;
static fj_error error;
static const fj_driver *device;

static void setup(void) {
    const char *path = getenv("FJ_FAKE_CUDA");
    ck_assert_msg(path != NULL, "FJ_FAKE_CUDA does not name the fake driver");
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* the very one that the driver opens */
    ck_assert_msg(library != NULL, "%s", dlerror());
    fake = dlsym(library, "fake_cuda");
    ck_assert_ptr_nonnull(fake);
    setenv("FLEXJIT_LIBCUDA", path, 1);
    unsetenv("FAKE_CUDA");
    fake->set_current(-1);
    fake->reset();
}

static void teardown(void) {
    if (device) device->close(&device);
    fj_error_finish(&error);
}

static void has_text(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in '%s'", part, text);
}

static void check_no_device(const char *settings, fj_status status, const char *part) {
    setenv("FAKE_CUDA", settings, 1);
    ck_assert_int_eq(fj_cuda_device_open(&fj_allocator_libc, -1, 75, &device, &error), status);
    ck_assert_ptr_null(device);
    has_text(error.text, part);
    ck_assert_int_eq(fake->retained(), 0);
}

static void open_device(void) {
    fj_status status = fj_cuda_device_open(&fj_allocator_libc, -1, 75, &device, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

static fj_code *load(void) {
    fj_code *code = NULL;
    const fj_driver *driver = device;
    ck_assert_int_eq(driver->load(driver, &fj_allocator_libc, elf, sizeof elf, &code, &error), FJ_OK);
    return code;
}

static fj_status launch(const fj_driver_entry *entry, const uint32_t grid[3], const void *args, void *stream,
                        fj_error *ret_error) {
    const fj_launch launch = {.struct_size = sizeof launch, .stream = stream};
    return device->launch(device, entry, grid, args, &launch, ret_error);
}

/* ---- What is missing -------------------------------------------------------------------------------------- */

START_TEST(no_driver) {
    setenv("FLEXJIT_LIBCUDA", "/nowhere/libcuda.so.1", 1);
    check_no_device("", FJ_ERR_DEVICE, "FLEXJIT_LIBCUDA='/nowhere/libcuda.so.1' cannot be opened");
    ck_assert(!fj_cuda_driver_saw_unusable());
    setenv("FLEXJIT_LIBCUDA", "/proc/self/exe", 1);
    check_no_device("", FJ_ERR_DEVICE, "FLEXJIT_LIBCUDA='/proc/self/exe' cannot be opened");
    ck_assert(fj_cuda_driver_saw_unusable()); /* it is there */
    const char *old = getenv("FJ_FAKE_OLD_CUDA");
    ck_assert_ptr_nonnull(old);
    setenv("FLEXJIT_LIBCUDA", old, 1);
    check_no_device("version=11080", FJ_ERR_DEVICE, "too old: it supports CUDA 11.8");
    has_text(error.note, "CUDA 12.0 or newer");
    check_no_device("version=12000", FJ_ERR_DEVICE, "is not an NVIDIA driver: it has no cuLibraryLoadData");
}
END_TEST

/* What a driver may lack: all else is called without a look. */
START_TEST(functions_that_are_optional) {
    char optional[256] = "";
#define NOTE(member, name, required, parameters) \
    if (!(required)) (void)strncat(optional, name " ", sizeof optional - strlen(optional) - 1);
    FJ_CUDA_FUNCTIONS(NOTE)
    ck_assert_str_eq(optional, "cuFuncLoad cuStreamGetCtx_v2 ");
}
END_TEST

START_TEST(a_driver_without_a_gpu) {
    check_no_device("init=34", FJ_ERR_DEVICE, "is the CUDA toolkit's stub");
    has_text(error.note, "LD_LIBRARY_PATH");
    check_no_device("init=100", FJ_ERR_DEVICE, "finds no GPU");
    check_no_device("devices=0", FJ_ERR_DEVICE, "finds no GPU");
    has_text(error.note, "CUDA_VISIBLE_DEVICES");
    check_no_device("init=999", FJ_ERR_DEVICE, "does not start: CUDA_ERROR_UNKNOWN (999: a fake error)");
    check_no_device("arch=70", FJ_ERR_DEVICE,
                    "GPU 0 (Fake GPU 0) is too old: it is sm_70, and sm_75 is needed");
    check_no_device("retain=2", FJ_ERR_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY (2: out of memory)");
    unsetenv("FAKE_CUDA");
    open_device(); /* what failed is tried again */
}
END_TEST

START_TEST(what_a_gpu_has) {
    setenv("FAKE_CUDA", "arch=120 devices=2", 1);
    fj_cuda_driver_info info;
    fj_cuda_features gpu;
    ck_assert_int_eq(fj_cuda_driver_look(&info, &error), FJ_OK);
    ck_assert_int_eq(info.version, 13000);
    ck_assert_int_eq(info.devices, 2);
    ck_assert_int_eq(fj_cuda_features_of(1, &gpu, &error), FJ_OK);
    ck_assert_str_eq(gpu.name, "Fake GPU 1");
    ck_assert_int_eq(gpu.arch, 120);
    ck_assert_int_eq(gpu.multiprocessors, 132);
    ck_assert_int_eq(gpu.shared_limit, 227 << 10);
    ck_assert_int_eq(gpu.cache, 50 << 20);
    ck_assert_int_eq(gpu.parameter_limit, 32764);
    ck_assert_int_eq(fj_cuda_features_of(2, &gpu, &error), FJ_ERR_DEVICE);
    has_text(error.text, "GPU 2 cannot be used");
}
END_TEST

START_TEST(the_device_is_that_of_the_current_context) {
    setenv("FAKE_CUDA", "devices=2", 1);
    fake->set_current(FAKE_PRIMARY_1);
    open_device();
    ck_assert_int_eq(fj_cuda_device_features(device)->ordinal, 1);
    if (device) device->close(&device);
    fake->set_current(-1);
    open_device();
    ck_assert_int_eq(fj_cuda_device_features(device)->ordinal, 0);
}
END_TEST

/* ---- Kernels ------------------------------------------------------------------------------------------------ */

START_TEST(a_kernel_is_resident_before_it_is_launched) {
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    ck_assert_int_eq(device->prepare(code, "k", 128, 98304, &kernel, &error), FJ_OK);
    ck_assert_str_eq(fake->calls(),
                     "load ELF ;attribute 8=98304 of 100;function;resident;attribute 9=86 of 100;");
    ck_assert_int_eq(fake->depth(), 0);
    fake->reset();
    int argument = 42;
    void *stream = (void *)(intptr_t)7;
    ck_assert_int_eq(launch(&kernel, (uint32_t[]){3, 2, 1}, &argument, stream, &error), FJ_OK);
    ck_assert_int_eq(launch(&kernel, (uint32_t[]){3, 0, 1}, &argument, stream, &error), FJ_OK);
    ck_assert_str_eq(fake->calls(), "launch 3,2,1 128,1,1 98304 stream 7 args 42;");
    ck_assert_int_eq(fake->depth(), 0);
    device->unload(&code);
    ck_assert_ptr_null(code);
}
END_TEST

START_TEST(a_launch_in_another_context_calls_nothing) {
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    int argument = 0;
    const uint32_t grid[3] = {1, 1, 1};
    fake->set_current(FAKE_OTHER);
    ck_assert_int_eq(device->prepare(code, "k", 128, 0, &kernel, &error), FJ_OK);
    ck_assert_int_eq(launch(&kernel, grid, &argument, NULL, &error), FJ_OK);
    fake->set_current(FAKE_PRIMARY);
    fake->reset();
    setenv("FAKE_CUDA", "capturing=1", 1);
    ck_assert_int_eq(launch(&kernel, grid, &argument, NULL, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text,
                     "kernel k is not prepared for the current context; the capture of the stream goes on");
    ck_assert_str_eq(fake->calls(), "");
    device->unload(&code);
}
END_TEST

/* Work of a GPU goes into a context of its own, whichever is current. */
START_TEST(the_context_of_another_gpu_is_not_entered) {
    const uint32_t grid[3] = {1, 1, 1};
    int argument = 0;
    setenv("FAKE_CUDA", "devices=2", 1);
    for (int ordinal = 0; ordinal < 2; ordinal++) {
        fj_driver_entry own, kernel;
        uint64_t address;
        const int other = ordinal == 0 ? FAKE_PRIMARY_1 : FAKE_PRIMARY;
        ck_assert_int_eq(fj_cuda_device_open(&fj_allocator_libc, ordinal, 75, &device, &error), FJ_OK);
        fj_code *code = load();
        fake->set_current(ordinal == 0 ? FAKE_PRIMARY : FAKE_PRIMARY_1);
        ck_assert_int_eq(device->prepare(code, "k", 128, 0, &own, &error), FJ_OK);
        fake->set_current(other);
        ck_assert_int_eq(device->prepare(code, "k", 128, 0, &kernel, &error), FJ_OK);
        ck_assert_ptr_eq(kernel.context, own.context);
        ck_assert_int_eq(launch(&kernel, grid, &argument, NULL, &error), FJ_OK);
        ck_assert_int_eq(launch(&own, grid, &argument, NULL, &error), FJ_OK);
        ck_assert_int_eq(device->alloc(device, NULL, 4, &address, &error), FJ_OK);
        device->free(device, NULL, address);
        ck_assert_int_eq(fake->depth(), 1);
        device->unload(&code);
        device->close(&device);
    }
}
END_TEST

START_TEST(a_stream_of_another_context_gets_nothing) {
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    int argument = 0;
    const uint32_t grid[3] = {1, 1, 1};
    void *mine = fake->stream(FAKE_PRIMARY), *other = fake->stream(FAKE_OTHER);
    ck_assert_int_eq(device->prepare(code, "k", 128, 0, &kernel, &error), FJ_OK);
    fake->reset();
    ck_assert_int_eq(device->check(&kernel, mine, &error), FJ_OK);
    ck_assert_int_eq(device->check(&kernel, other, &error), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(launch(&kernel, grid, &argument, other, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "kernel k is not prepared for the context of the stream");
    ck_assert_str_eq(fake->calls(), "");
    ck_assert_int_eq(fake->depth(), 0);
    fake->capture(mine);
    ck_assert_int_eq(device->wait(device, mine, &error), FJ_ERR_ARGUMENT);
    has_text(error.text, "cannot be waited for; the capture goes on");
    ck_assert_int_eq(launch(&kernel, grid, &argument, mine, &error), FJ_OK);
    ck_assert(fake->end_capture());
    device->unload(&code);
}
END_TEST

/* One that shares memory and code with a primary context. */
START_TEST(a_green_context_is_its_primary_one) {
    const uint32_t grid[3] = {1, 1, 1};
    int argument = 0;
    void *mine = fake->stream(FAKE_PRIMARY), *green = fake->stream(FAKE_GREEN),
         *other = fake->stream(FAKE_OTHER);
    open_device();
    fj_code *code = load();
    for (int from = -1; from <= FAKE_GREEN;
         from += FAKE_GREEN + 1) { /* prepared without a context, in a green one */
        fj_driver_entry kernel;
        fake->set_current(from);
        ck_assert_int_eq(device->prepare(code, "k", 128, 98304, &kernel, &error), FJ_OK);
        for (int current = -1; current < FAKE_CONTEXTS; current++) {
            const bool shares = current < 0 || current == FAKE_PRIMARY || current == FAKE_GREEN;
            if (current == FAKE_PRIMARY_1) continue; /* of another GPU: never entered */
            fake->set_current(current);
            fake->capture(green);
            for (int of = 0; of < 3; of++) {
                void *stream = of == 0 ? NULL : of == 1 ? mine : green;
                const fj_status expected = shares ? FJ_OK : FJ_ERR_ARGUMENT;
                ck_assert_int_eq(device->check(&kernel, stream, &error), expected);
                ck_assert_int_eq(launch(&kernel, grid, &argument, stream, &error), expected);
            }
            ck_assert_int_eq(launch(&kernel, grid, &argument, other, &error), FJ_ERR_ARGUMENT);
            ck_assert(fake->end_capture());
        }
    }
    device->unload(&code);
}
END_TEST

/* The driver does not tell which context is whose. */
START_TEST(a_green_context_of_an_older_driver_gets_nothing) {
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    int argument = 0;
    setenv("FAKE_CUDA", "contexts=1", 1);
    ck_assert_int_eq(device->prepare(code, "k", 128, 0, &kernel, &error), FJ_OK);
    ck_assert_int_eq(launch(&kernel, (uint32_t[]){1, 1, 1}, &argument, fake->stream(FAKE_GREEN), &error),
                     FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "kernel k is not prepared for the context of the stream");
    device->unload(&code);
}
END_TEST

/* What the driver is asked to leave for shared memory. */
START_TEST(blocks_have_room_beside_each_other) {
    static const struct {
        const char *settings;
        int shared;
        const char *calls;
    } cases[] = {
        {"", 49152, "attribute 9=86 of 100;"},            /* 4 of 49 KiB in 228 */
        {"fits=2", 49152, "attribute 9=43 of 100;"},      /* registers for 2 */
        {"fits=1", 227 << 10, "attribute 9=100 of 100;"}, /* all that there is */
        {"fits=3 carveout=1", 0, ""},                     /* nothing to leave */
        {"fits=0", 49152, ""},
        {"occupancy=1", 49152, ""},
        {"fits=1 carveout=1", 49152, "attribute 9=22 of 100;"}, /* refused, and no error */
    };
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        setenv("FAKE_CUDA", cases[i].settings, 1);
        fake->reset();
        ck_assert_int_eq(device->prepare(code, "k", 128, cases[i].shared, &kernel, &error), FJ_OK);
        const char *wish = strstr(fake->calls(), "resident;");
        ck_assert_ptr_nonnull(wish);
        ck_assert_str_eq(wish + strlen("resident;"), cases[i].calls);
    }
    device->unload(&code);
}
END_TEST

/* As in a file of the cache, behind a text of any length. */
START_TEST(an_image_is_loaded_from_any_address) {
    _Alignas(16) char bytes[16 + sizeof elf];
    open_device();
    const fj_driver *driver = device;
    failing_allocator failing = {.countdown = -1};
    fj_allocator allocator = {failing_resize, &failing};
    for (size_t at = 0; at < 16; at++) {
        fj_code *code = NULL;
        memcpy(bytes + at, elf, sizeof elf);
        ck_assert_int_eq(driver->load(driver, &allocator, bytes + at, sizeof elf, &code, &error), FJ_OK);
        driver->unload(&code);
        ck_assert_int_eq(failing.live, 0);
    }
}
END_TEST

START_TEST(what_does_not_load) {
    open_device();
    const fj_driver *driver = device;
    fj_code *code = NULL;
    ck_assert_int_eq(driver->load(driver, &fj_allocator_libc, "rubbish", 7, &code, &error), FJ_ERR_DEVICE);
    has_text(error.text, "it is not a cubin");
    setenv("FAKE_CUDA", "load=209", 1);
    ck_assert_int_eq(driver->load(driver, &fj_allocator_libc, elf, sizeof elf, &code, &error), FJ_ERR_DEVICE);
    has_text(error.text, "cannot be loaded on GPU 0 (sm_90): CUDA_ERROR_FAKE (209");
    has_text(error.note, "NVRTC must not be of a newer major version");
    setenv("FAKE_CUDA", "load=2", 1);
    ck_assert_int_eq(driver->load(driver, &fj_allocator_libc, elf, sizeof elf, &code, &error), FJ_ERR_MEMORY);
    ck_assert_ptr_null(code);
}
END_TEST

START_TEST(what_cannot_be_launched) {
    open_device();
    fj_code *code = load();
    fj_driver_entry kernel;
    int argument = 0;
    ck_assert_int_eq(device->prepare(code, "absent", 128, 0, &kernel, &error), FJ_ERR_DEVICE);
    has_text(error.text, "no entry point 'absent'");
    static const struct {
        const char *settings, *text;
    } cases[] = {
        {"threads=64", "kernel k cannot have 128 threads on GPU 0: 64 is the most"},
        {"attribute=1", "kernel k cannot have 1024 bytes of shared memory on GPU 0"},
        {"resident=2", "kernel k cannot be made resident: CUDA_ERROR_OUT_OF_MEMORY"},
        {"function=218", "kernel k cannot be made resident: CUDA_ERROR_FAKE (218"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        setenv("FAKE_CUDA", cases[i].settings, 1);
        ck_assert_int_ne(device->prepare(code, "k", 128, 1024, &kernel, &error), FJ_OK);
        has_text(error.text, cases[i].text);
        ck_assert_int_eq(fake->depth(), 0);
    }
    unsetenv("FAKE_CUDA");
    ck_assert_int_eq(device->prepare(code, "k", 128, 0, &kernel, &error), FJ_OK);
    setenv("FAKE_CUDA", "launch=719", 1);
    ck_assert_int_eq(launch(&kernel, (uint32_t[]){5, 1, 1}, &argument, NULL, &error), FJ_ERR_DEVICE);
    has_text(error.text, "kernel k cannot be launched (5 x 1 x 1 blocks): CUDA_ERROR_FAKE (719");
    ck_assert_int_eq(fake->depth(), 0);
    device->unload(&code);
}
END_TEST

/* ---- Memory and time ---------------------------------------------------------------------------------------- */

START_TEST(memory_and_time) {
    open_device();
    char out[4] = "", in[4] = "abc";
    uint64_t address;
    ck_assert_int_eq(device->alloc(device, NULL, 4, &address, &error), FJ_OK);
    ck_assert_int_eq(device->upload(device, address, in, 4, NULL, &error), FJ_OK);
    ck_assert_int_eq(device->fill(device, address, 'x', 1, NULL, &error), FJ_OK);
    ck_assert_int_eq(device->download(device, out, address, 4, NULL, &error), FJ_OK);
    ck_assert_str_eq(out, "xbc");
    device->free(device, NULL, address);
    ck_assert_int_eq(device->alloc(device, NULL, 0, &address, &error), FJ_OK);
    ck_assert_uint_eq(address, 0);
    fj_driver_timer timer;
    double ms = 0;
    ck_assert_int_eq(device->timer_create(device, &timer, &error), FJ_OK);
    ck_assert_int_eq(device->timer_start(device, &timer, NULL, &error), FJ_OK);
    ck_assert_int_eq(device->timer_stop(device, &timer, NULL, &error), FJ_OK);
    ck_assert_int_eq(device->timer_elapsed(device, &timer, &ms, &error), FJ_OK);
    ck_assert(ms == 1.5);
    device->timer_destroy(device, &timer);
    setenv("FAKE_CUDA", "wait=719", 1);
    ck_assert_int_eq(device->wait(device, NULL, &error), FJ_ERR_DEVICE);
    has_text(error.text, "work on the GPU failed: CUDA_ERROR_FAKE (719");
}
END_TEST

/* No context: nothing is called that needs one. */
START_TEST(a_context_that_cannot_be_entered) {
    open_device();
    char bytes[4] = "abc";
    uint64_t address = 0;
    ck_assert_int_eq(device->alloc(device, NULL, 4, &address, &error), FJ_OK);
    setenv("FAKE_CUDA", "push=719", 1);
    fake->reset();
    const fj_status said[] = {
        device->alloc(device, NULL, 4, &(uint64_t){0}, &error),
        device->upload(device, address, bytes, 4, NULL, &error),
        device->download(device, bytes, address, 4, NULL, &error),
        device->fill(device, address, 'x', 4, NULL, &error),
        device->wait(device, NULL, &error),
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(said); i++)
        ck_assert_msg(said[i] == FJ_ERR_DEVICE, "%zu: %d", i, (int)said[i]);
    has_text(error.text, "no context of GPU 0: CUDA_ERROR_FAKE (719");
    ck_assert_str_eq(fake->calls(), "");
    unsetenv("FAKE_CUDA");
    device->free(device, NULL, address);
}
END_TEST

START_TEST(no_memory_on_the_gpu) {
    open_device();
    uint64_t address;
    setenv("FAKE_CUDA", "alloc=2", 1);
    ck_assert_int_eq(device->alloc(device, NULL, 123, &address, &error), FJ_ERR_MEMORY);
    has_text(error.text, "123 bytes on GPU 0: CUDA_ERROR_OUT_OF_MEMORY (2: out of memory)");
}
END_TEST

START_TEST(any_allocation_may_fail) {
    failing_allocator failing = {.countdown = 0};
    fj_allocator allocator = {failing_resize, &failing};
    ck_assert_int_eq(fj_cuda_device_open(&allocator, 0, 75, &device, &error), FJ_ERR_MEMORY);
    ck_assert_int_eq(fj_cuda_device_open(&allocator, 0, 75, &device, &error), FJ_OK);
    const fj_driver *driver = device;
    fj_code *code = NULL;
    failing.countdown = 0;
    ck_assert_int_eq(driver->load(driver, &allocator, elf, sizeof elf, &code, &error), FJ_ERR_MEMORY);
    if (device) device->close(&device);
    ck_assert_int_eq(failing.live, 0);
    ck_assert_int_eq(fake->retained(), 0);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        no_driver,
        functions_that_are_optional,
        a_driver_without_a_gpu,
        what_a_gpu_has,
        the_device_is_that_of_the_current_context,
        what_does_not_load,
        a_kernel_is_resident_before_it_is_launched,
        memory_and_time,
        a_launch_in_another_context_calls_nothing,
        the_context_of_another_gpu_is_not_entered,
        a_stream_of_another_context_gets_nothing,
        a_green_context_is_its_primary_one,
        a_green_context_of_an_older_driver_gets_nothing,
        blocks_have_room_beside_each_other,
        an_image_is_loaded_from_any_address,
        a_context_that_cannot_be_entered,
        no_memory_on_the_gpu,
        what_cannot_be_launched,
        any_allocation_may_fail,
    };
    Suite *suite = suite_create("cuda");
    TCase *group = tcase_create("cuda");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(group, tests[i]);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
