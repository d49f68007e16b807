/* Variants that are asked for by name, by kernel and by options; and all of them. */
#include <jansson.h>

#include "tests/attn/calls.h"

static fj_context *context;
static fj_device *gpu, *cpu, *reference;
static fj_mod *mod;
static fj_error error;

static void check_ok(fj_status status) { ck_assert_msg(status == FJ_OK, "%s", error.text); }

static void setup(void) {
    const fj_context_desc desc = {
        .struct_size = sizeof desc, .cache_path = "/nonexistent", .tune_path = "/nonexistent"};
    const fj_mod_desc both = {.struct_size = sizeof both, .score = "score * 2", .mask = "q >= kv"};
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    check_ok(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_80", &gpu, &error));
    check_ok(fj_device_create_for_arch(context, FJ_DEVICE_CPU, "avx2", &cpu, &error));
    check_ok(fj_device_create(context, FJ_DEVICE_REFERENCE, &reference, &error));
    check_ok(fj_mod_create(context, &both, &mod, &error));
}

static void teardown(void) {
    fj_mod_unref(&mod);
    fj_device_unref(&gpu);
    fj_device_unref(&cpu);
    fj_device_unref(&reference);
    fj_context_unref(&context);
    fj_error_finish(&error);
}

static const fj_problem standard = {
    .struct_size = sizeof standard, .dtype = FJ_DTYPE_BF16, .head_dim = 128, .value_dim = 128};

/* What is asked for: options up to the first without a name. */
enum { MOST_OPTIONS = 12 };
typedef struct asked {
    fj_direction direction;
    const char *kernel;
    fj_option options[MOST_OPTIONS];
} asked;

static fj_problem problem_of(const asked *by) {
    fj_problem problem = standard;
    problem.direction = by->direction;
    problem.kernel = by->kernel;
    problem.options = by->options;
    while (problem.option_count < MOST_OPTIONS && by->options[problem.option_count].name)
        problem.option_count++;
    return problem;
}

START_TEST(options_choose) {
    static const struct {
        asked by;
        const char *variant;
    } cases[] = {
        {{.kernel = "simt"}, "fwd_simt_bf16_e128_v128_m64_n32_s1_w4"},
        {{.kernel = "mma", .options = {{"tile_q", 64}}}, "fwd_mma_bf16_e128_v128_m64_n64_s2_w4"},
        {{.options = {{"tile_q", 64}, {"tile_kv", 32}}}, "fwd_mma_bf16_e128_v128_m64_n32_s2_w4"},
        {{.options = {{"splits", 1}, {"stages", 3}}}, "fwd_mma_bf16_e128_v128_m128_n64_s3_w4"},
        {{.options = {{"splits", 0}, {"stages", 3}}}, "fwd_mma_bf16_e128_v128_m128_n64_s3_w4_split"},
        {{.options = {{"splits", 8}, {"pack", 1}}}, "fwd_mma_bf16_e128_v128_m128_n64_s1_w4_pack_split8"},
        {{.options = {{"mod_chunks", 4}, {"mask_unroll", 4}, {"one_copy", 1}}},
         "fwd_mma_bf16_e128_v128_m128_n64_s1_w4_t4_one_u4"},
        {{.options = {{"pack", 1}}}, "fwd_mma_bf16_e128_v128_m16_n64_s2_w1_pack"},
        {{.direction = FJ_BACKWARD, .options = {{"tile_q", 64}, {"tile_kv", 128}}},
         "bwd_mma_bf16_e128_v128_m64_n128_s1_w8"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const fj_problem problem = problem_of(&cases[i].by);
        fj_plan *plan = NULL;
        check_ok(fj_plan_create(gpu, mod, &problem, &plan, &error));
        ck_assert_str_eq(fj_plan_variant(plan), cases[i].variant);
        ck_assert_str_eq(fj_plan_decision(plan), "options");
        fj_plan_unref(&plan);
    }
}
END_TEST

static void check_refused(fj_device *device, const fj_problem *problem, fj_status expected, const char *text,
                          const char *note) {
    fj_plan *plan = NULL;
    const fj_status status = fj_plan_create(device, mod, problem, &plan, &error);
    ck_assert_msg(status == expected, "%d: %s", status, error.text);
    ck_assert_str_eq(error.text, text);
    ck_assert_str_eq(error.note, note);
    ck_assert_ptr_null(plan);
    fj_error_finish(&error);
}

START_TEST(options_that_are_refused) {
    static const char *const known =
        "there are: tile_q, tile_kv, stages, warps, splits, pack, wide, mod_chunks, mask_unroll, one_copy";
    static const struct {
        asked by;
        fj_status status;
        const char *text, *note;
    } cases[] = {
        {{.options = {{"tile_q", 48}}},
         FJ_ERR_UNSUPPORTED,
         "option tile_q=48 is not legal for this problem",
         "legal are: 16, 32, 64, 128, 256"},
        {{.options = {{"tile_q", INT64_MAX}}},
         FJ_ERR_UNSUPPORTED,
         "option tile_q=9223372036854775807 is not legal for this problem",
         "legal are: 16, 32, 64, 128, 256"},
        {{.options = {{"stages", -1}}},
         FJ_ERR_UNSUPPORTED,
         "option stages=-1 is not legal for this problem",
         "legal are: 1, 2, 3, 4"},
        {{.options = {{"splits", 3}}},
         FJ_ERR_UNSUPPORTED,
         "option splits=3 is not legal for this problem",
         "legal are: 0, 1, 2, 4, 8, 16, 32, 64"},
        {{.options = {{"wide", 1}}},
         FJ_ERR_UNSUPPORTED,
         "option wide=1 is not legal for this problem",
         "legal is: 0"},
        {{.kernel = "mma", .options = {{"warps", 4}, {"tile_q", 256}}},
         FJ_ERR_UNSUPPORTED,
         "option tile_q=256 is not legal for this problem with kernel mma, warps=4",
         "legal are: 64, 128"},
        {{.kernel = "simt", .options = {{"mod_chunks", 2}}},
         FJ_ERR_UNSUPPORTED,
         "no simt kernel is legal for this problem with mod_chunks=2",
         "legal is: mma"},
        {{.kernel = "simt", .options = {{"stages", 9}}}, /* either is too much */
         FJ_ERR_UNSUPPORTED,
         "option stages=9 is not legal for this problem with kernel simt",
         "legal is: 1"},
        {{.kernel = "wgmma"},
         FJ_ERR_UNSUPPORTED,
         "flexjit has no wgmma kernels",
         "there are: simt, and mma from sm_80 on, but not for F64"},
        {{.kernel = "cutlass"}, FJ_ERR_NAME, "unknown kernel 'cutlass'", "there are: simt, mma, wgmma"},
        {{.options = {{"tile", 64}}},
         FJ_ERR_NAME,
         "unknown option 'tile' of kernels of the cuda:sm_80 device",
         known},
        {{.options = {{"isa", 1}}},
         FJ_ERR_NAME,
         "unknown option 'isa' of kernels of the cuda:sm_80 device",
         known},
        {{.options = {{"kernel", 1}}},
         FJ_ERR_NAME,
         "unknown option 'kernel' of kernels of the cuda:sm_80 device",
         known},
        {{.options = {{"tile_q", 64}, {"tile_q", 64}}},
         FJ_ERR_ARGUMENT,
         "option 'tile_q' is given twice",
         ""},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const fj_problem problem = problem_of(&cases[i].by);
        check_refused(gpu, &problem, cases[i].status, cases[i].text, cases[i].note);
    }
}
END_TEST

START_TEST(devices_have_options_of_their_own) {
    const asked stages = {.options = {{"stages", 1}}}, isa = {.options = {{"isa", 2}}},
                mma = {.kernel = "mma"}, rows = {.options = {{"tile_q", 96}, {"tile_kv", 512}, {"isa", 1}}};
    fj_problem problem = problem_of(&stages);
    check_refused(cpu, &problem, FJ_ERR_NAME, "unknown option 'stages' of kernels of the cpu:avx2 device",
                  "there are: tile_q, tile_kv, isa, splits, direct");
    problem = problem_of(&isa);
    check_refused(cpu, &problem, FJ_ERR_UNSUPPORTED, "option isa=2 is not legal for this problem",
                  "legal are: 0 (portable), 1 (avx2)");
    problem = problem_of(&mma);
    check_refused(
        cpu, &problem, FJ_ERR_UNSUPPORTED,
        "kernel 'mma' is for cuda and emu: the cpu:avx2 device has one family of kernels, without a name",
        "");
    check_refused(reference, &problem, FJ_ERR_UNSUPPORTED,
                  "the reference device has no kernels to choose from", "");
    problem = problem_of(&rows);
    fj_plan *plan = NULL;
    check_ok(fj_plan_create(cpu, mod, &problem, &plan, &error));
    ck_assert_str_eq(fj_plan_variant(plan), "fwd_cpu_bf16_e128_v128_m96_n512_avx2");
    fj_plan_unref(&plan);
}
END_TEST

START_TEST(a_variant_and_options_contradict) {
    const asked mma = {.kernel = "mma"};
    fj_problem problem = problem_of(&mma);
    problem.variant = "fwd_mma_bf16_e128_v128_m64_n64_s2_w4";
    check_refused(gpu, &problem, FJ_ERR_ARGUMENT,
                  "a variant is given, and a kernel or options: a variant has them in its name", "");
    problem = standard;
    problem.option_count = 3;
    check_refused(gpu, &problem, FJ_ERR_ARGUMENT, "options is NULL, and option_count is 3", "");
}
END_TEST

/* The note lists what fits, and says how many more there are. */
START_TEST(unknown_names) {
    fj_problem problem = standard;
    fj_plan *plan = NULL;
    problem.variant = "fast";
    ck_assert_int_eq(fj_plan_create(gpu, mod, &problem, &plan, &error), FJ_ERR_NAME);
    ck_assert_str_eq(error.text, "unknown variant 'fast' for this problem");
    const char *more = strstr(error.note, " more, and others by their options: flexjit show --stage plan");
    ck_assert_msg(more != NULL, "%s", error.note);
    ck_assert_ptr_nonnull(strstr(error.note, "there are: fwd_mma_bf16_e128_v128_m128_n64_s1_w4, "));
}
END_TEST

/* ---- All of them ---------------------------------------------------------------------------------------- */

static void check_plan(fj_device *device, const fj_problem *problem, const char *variant) {
    fj_plan *plan = NULL;
    check_ok(fj_plan_create(device, mod, problem, &plan, &error));
    ck_assert_str_eq(fj_plan_variant(plan), variant);
    fj_plan_unref(&plan);
}

/* Its name and its parameters lead to it. */
static void check_row(fj_device *device, const json_t *row) {
    static const char *const isas[] = {"portable", "avx2", "avx512", "avx512bf16"};
    const char *variant = json_string_value(json_object_get(row, "variant")), *key;
    json_t *parameters = json_object_get(row, "parameters"), *value;
    fj_option options[MOST_OPTIONS];
    fj_problem problem = standard;
    problem.variant = variant;
    check_plan(device, &problem, variant);
    problem.variant = NULL;
    problem.options = options;
    problem.kernel = json_string_value(json_object_get(parameters, "kernel"));
    json_object_foreach(parameters, key, value) {
        int64_t number = json_integer_value(value);
        if (strcmp(key, "kernel") == 0) continue;
        for (size_t i = 0; i < FJ_ARRAY_LEN(isas) && json_is_string(value); i++)
            if (strcmp(isas[i], json_string_value(value)) == 0) number = (int64_t)i;
        options[problem.option_count++] = (fj_option){key, number};
    }
    check_plan(device, &problem, variant);
}

static void check_all(fj_device *device, size_t least, size_t step) {
    fj_plan *plan = NULL;
    fj_text text;
    check_ok(fj_plan_create(device, mod, &standard, &plan, &error));
    check_ok(fj_plan_variants(plan, &text, &error));
    json_t *root = json_loads(text.data, 0, NULL), *rows = json_object_get(root, "variants");
    const size_t count = json_array_size(rows);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "schema")), 1);
    ck_assert_uint_ge(count, least);
    const json_t *first = json_array_get(rows, 0);
    ck_assert_str_eq(json_string_value(json_object_get(first, "variant")), fj_plan_variant(plan));
    bool was_listed = true;
    for (size_t i = 0; i < count; i++) {
        const bool listed = json_is_true(json_object_get(json_array_get(rows, i), "listed"));
        ck_assert(was_listed || !listed);
        was_listed = listed;
        if (i % step == 0) check_row(device, json_array_get(rows, i));
    }
    ck_assert(!was_listed);
    json_decref(root);
    fj_text_finish(&text);
    fj_plan_unref(&plan);
}

START_TEST(all_can_be_asked_for) {
    check_all(gpu, 1000, 17);
    check_all(cpu, 80, 1);
}
END_TEST

START_TEST(a_device_without_kernels_has_itself) {
    fj_plan *plan = NULL;
    fj_text text;
    check_ok(fj_plan_create(reference, mod, &standard, &plan, &error));
    check_ok(fj_plan_variants(plan, &text, &error));
    ck_assert_str_eq(text.data, "{\"schema\":1,\"variants\":[{\"variant\":\"reference\",\"parameters\":{},"
                                "\"shared_bytes\":0,\"listed\":true}]}");
    fj_text_finish(&text);
    fj_plan_unref(&plan);
    ck_assert_int_eq(fj_plan_variants(NULL, &text, &error), FJ_ERR_ARGUMENT);
}
END_TEST

/* What plans are asked for in text has to be there while they are made, no longer. */
START_TEST(options_are_copied) {
    char kernel[] = "mma", name[] = "tile_q";
    fj_option options[] = {{name, 64}};
    fj_problem problem = standard;
    fj_plan *plan = NULL;
    fj_text text;
    problem.kernel = kernel;
    problem.options = options;
    problem.option_count = 1;
    check_ok(fj_plan_create(gpu, mod, &problem, &plan, &error));
    memset(kernel, 'x', sizeof kernel);
    memset(name, 'x', sizeof name);
    memset(options, 0xff, sizeof options);
    check_ok(fj_plan_show(plan, "plan", &text, &error));
    ck_assert_ptr_nonnull(strstr(text.data, "\nvariant fwd_mma_bf16_e128_v128_m64_n64_s2_w4\n"));
    ck_assert_ptr_nonnull(strstr(text.data, "\n              tile_q 16 32 64 128 256\n"));
    fj_text_finish(&text);
    fj_plan_unref(&plan);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("variants");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, options_choose);
    tcase_add_test(tests, options_that_are_refused);
    tcase_add_test(tests, devices_have_options_of_their_own);
    tcase_add_test(tests, a_variant_and_options_contradict);
    tcase_add_test(tests, unknown_names);
    tcase_add_test(tests, all_can_be_asked_for);
    tcase_add_test(tests, a_device_without_kernels_has_itself);
    tcase_add_test(tests, options_are_copied);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
