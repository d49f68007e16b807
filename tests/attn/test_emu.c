/* Kernels of templates/cuda through the public API, on the emulator. */
#include "tests/attn/gpu_cases.h"
#include "tests/support/failing.h"

static char folder[64];
static fj_context *context;
static fj_device *device;
static fj_error error;

static void setup(void) {
    folder_create(folder);
    const fj_context_desc desc = {.struct_size = sizeof desc, .cache_path = folder};
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    box_check(fj_device_create(context, FJ_DEVICE_EMU, &device, &error), &error);
}

static void teardown(void) {
    fj_device_unref(&device);
    fj_context_unref(&context);
    fj_error_finish(&error);
    folder_remove(folder);
}

START_TEST(a_launch_gives_what_the_definition_does) {
    const gpu_case *c = &gpu_cases[_i];
    gpu_call call;
    gpu_call_init(&call, c, context);
    gpu_call_run(&call, c, device, NULL);
    gpu_call_check(&call, c, context);
    gpu_call_finish(&call);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("emu");
    TCase *group = tcase_create("launch");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 100);
    tcase_add_loop_test(group, a_launch_gives_what_the_definition_does, 0, GPU_CASES);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
