/* fj_plan_emit_c: what it takes, and that its texts depend on plan and name alone. What they compute: tests/cli/test_emit.py. */
#include "tests/attn/calls.h"

static char folder[64];

static void setup(void) {
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
}

static void teardown(void) { folder_remove(folder); }

static fj_plan *plan_of(fj_context *context, fj_device_kind kind, const char *arch) {
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    const fj_problem problem = {.struct_size = sizeof problem,
                                .dtype = FJ_DTYPE_F32,
                                .head_dim = 16,
                                .value_dim = 8,
                                .untuned = true};
    fj_device *device = NULL;
    fj_mod *mod = NULL;
    fj_plan *plan = NULL;
    fj_error error = {0};
    ck_assert_int_eq(arch ? fj_device_create_for_arch(context, kind, arch, &device, &error)
                          : fj_device_create(context, kind, &device, &error),
                     FJ_OK);
    ck_assert_int_eq(fj_mod_create(context, &identity, &mod, &error), FJ_OK);
    ck_assert_int_eq(fj_plan_create(device, mod, &problem, &plan, &error), FJ_OK);
    fj_mod_unref(&mod);
    fj_device_unref(&device);
    return plan;
}

static void refuses(const fj_plan *plan, const char *name, fj_status status, const char *text) {
    fj_text header = {0}, source = {0};
    fj_error error = {0};
    ck_assert_int_eq(fj_plan_emit_c(plan, name, &header, &source, &error), status);
    ck_assert_msg(strstr(error.text, text) != NULL, "%s", error.text);
    ck_assert(!header.data && !source.data);
    fj_error_finish(&error);
}

START_TEST(what_it_takes) {
    fj_context *context = NULL;
    ck_assert_int_eq(fj_context_create(NULL, &context), FJ_OK);
    fj_plan *cpu = plan_of(context, FJ_DEVICE_CPU, "portable"),
            *reference = plan_of(context, FJ_DEVICE_REFERENCE, NULL),
            *emu = plan_of(context, FJ_DEVICE_EMU, "sm_80");
    char longest[202];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    const char *const names[] = {"", "1a", "a-b", "a b", "\xc3\xa9", "a\nb", longest};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++)
        refuses(cpu, names[i], FJ_ERR_ARGUMENT, "not an identifier of C");
    refuses(cpu, NULL, FJ_ERR_ARGUMENT, "NULL");
    refuses(NULL, "a", FJ_ERR_ARGUMENT, "NULL");
    refuses(reference, "a", FJ_ERR_UNSUPPORTED, "no kernels to emit");
    refuses(emu, "a", FJ_ERR_UNSUPPORTED, "emulator");
    fj_plan_unref(&cpu);
    fj_plan_unref(&reference);
    fj_plan_unref(&emu);
    fj_context_unref(&context);
}
END_TEST

/* Without a compiler: a cpu's text is not compiled. */
START_TEST(the_same_bytes) {
    fj_text headers[2] = {{0}}, sources[2] = {{0}};
    setenv("FLEXJIT_NO_JIT", "1", 1);
    for (int i = 0; i < 2; i++) {
        fj_context *context = NULL;
        fj_error error = {0};
        ck_assert_int_eq(fj_context_create(NULL, &context), FJ_OK);
        fj_plan *plan = plan_of(context, FJ_DEVICE_CPU, "avx2");
        ck_assert_msg(fj_plan_emit_c(plan, "two_1", &headers[i], &sources[i], &error) == FJ_OK, "%s",
                      error.text);
        fj_plan_unref(&plan);
        fj_context_unref(&context);
    }
    unsetenv("FLEXJIT_NO_JIT");
    ck_assert_str_eq(headers[0].data, headers[1].data);
    ck_assert_str_eq(sources[0].data, sources[1].data);
    ck_assert_ptr_nonnull(strstr(headers[0].data, "two_1_launch("));
    ck_assert_ptr_null(strstr(sources[0].data, "#line"));
    for (int i = 0; i < 2; i++) {
        fj_text_finish(&headers[i]);
        fj_text_finish(&sources[i]);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn emit");
    TCase *tests = tcase_create("emit");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_it_takes);
    tcase_add_test(tests, the_same_bytes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
