/* Plans and records of tuning: what decides, what is added, and what happens where a tuned kernel cannot be had. */
#include "tests/attn/calls.h"

#define DEFAULT "fwd_cpu_f32_e16_v16_m48_n256_portable"
#define OTHER "fwd_cpu_f32_e16_v16_m48_n128_portable"

static char folder[64], cache[96], tune[96], logged[4096];
static failing_allocator failing;

static void take_log(void *user, fj_log_level level, const char *message) {
    (void)user, (void)level;
    const size_t length = strlen(logged);
    (void)snprintf(logged + length, sizeof logged - length, "%s\n", message);
}

static void setup(void) {
    folder_create(folder);
    (void)snprintf(cache, sizeof cache, "%s/cache", folder);
    (void)snprintf(tune, sizeof tune, "%s/tune", folder);
    unsetenv("FLEXJIT_NO_JIT");
    unsetenv("FLEXJIT_CC");
    failing = (failing_allocator){.countdown = -1};
    failing_files_countdown = -1;
    logged[0] = '\0';
}

static void teardown(void) { folder_remove(folder); }

static const fj_problem known = {.struct_size = sizeof(fj_problem),
                                 .dtype = FJ_DTYPE_F32,
                                 .head_dim = 16,
                                 .value_dim = 16,
                                 .gqa = 1,
                                 .batch_heads = 8,
                                 .q_len = 512,
                                 .kv_len = 512};

/* Everything but a kernel. The device has the least of all CPUs, so that names are the same everywhere. */
static fj_status stack_plan(test_stack *self, const fj_problem *problem, const fj_allocator *allocator,
                            const fj_file_ops *files, fj_error *error) {
    const fj_context_desc desc = {.struct_size = sizeof desc,
                                  .resize = allocator ? allocator->resize : NULL,
                                  .allocator_user = allocator ? allocator->user : NULL,
                                  .log = take_log,
                                  .log_level = FJ_LOG_WARN,
                                  .cache_path = cache,
                                  .tune_path = tune};
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    *self = (test_stack){0};
    fj_status status = fj_attn_context_create(&desc, files, &self->context);
    if (status == FJ_OK) status = fj_device_create(self->context, FJ_DEVICE_CPU, &self->device, error);
    if (status == FJ_OK)
        for (int isa = FJ_ISA_AVX2; isa < FJ_ISA_COUNT; isa++) self->device->features.isa[isa] = false;
    if (status == FJ_OK) status = fj_mod_create(self->context, &identity, &self->mod, error);
    return status == FJ_OK ? fj_plan_create(self->device, self->mod, problem, &self->plan, error) : status;
}

static void stack_open_plan(test_stack *self, const fj_problem *problem) {
    fj_error error = {0};
    const fj_status status = stack_plan(self, problem, NULL, NULL, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

/* The other variant is the best, says a file. */
static void add_record(void) {
    test_stack stack;
    fj_problem problem = known;
    fj_error error = {0};
    problem.variant = OTHER;
    stack_open_plan(&stack, &problem);
    const fj_tuning_result result = {.struct_size = sizeof result, .time_ms = 1, .default_ms = 2};
    const fj_status status = fj_tuning_add(stack.plan, NULL, &result, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    stack_finish(&stack);
}

/* by: the rule of the record, NULL: `decision` without one. */
static void check_plan(const fj_problem *problem, const char *variant, const char *decision, const char *by) {
    test_stack stack;
    char expected[256];
    (void)snprintf(expected, sizeof expected, "%s%s%s%s", decision, by ? tune : "",
                   by ? "/tune.jsonl:2 " : "", by ? by : "");
    stack_open_plan(&stack, problem);
    ck_assert_str_eq(fj_plan_variant(stack.plan), variant);
    ck_assert_str_eq(fj_plan_decision(stack.plan), expected);
    fj_text text;
    ck_assert_int_eq(fj_plan_show(stack.plan, "plan", &text, NULL), FJ_OK);
    char lines[512];
    (void)snprintf(lines, sizeof lines, "\nvariant %s\ndecided by %s\n", variant, expected);
    ck_assert_msg(strstr(text.data, lines), "%s", text.data);
    fj_text_finish(&text);
    stack_finish(&stack);
}

/* ---- Deciding ---------------------------------------------------------------------------------------------- */

START_TEST(decisions) {
    const fj_option option = {.name = "tile_kv", .value = 128};
    check_plan(&known, DEFAULT, "default", NULL);
    add_record();
    check_plan(&known, OTHER, "tuning record ", "(exact)");
    fj_problem problem = known;
    problem.kv_len = 600;
    check_plan(&problem, OTHER, "tuning record ", "(nearest: batch times heads 8, 512 queries, 512 keys)");
    problem = known;
    problem.untuned = true;
    check_plan(&problem, DEFAULT, "default", NULL);
    problem = known;
    problem.variant = DEFAULT;
    check_plan(&problem, DEFAULT, "variant", NULL);
    problem = known;
    problem.options = &option;
    problem.option_count = 1;
    check_plan(&problem, OTHER, "options", NULL);
    problem = known;
    problem.q_len = 0;
    check_plan(&problem, DEFAULT, "default", NULL);
    problem = known;
    problem.direction = FJ_BACKWARD;
    check_plan(&problem, "bwd_cpu_f32_e16_v16_m48_n192_portable", "default", NULL);
    ck_assert_str_eq(logged, "");
}
END_TEST

START_TEST(masks_and_costs_apart) {
    test_stack stack;
    add_record();
    stack_open_plan(&stack, &known);
    static const fj_mod_desc mods[] = {
        {.struct_size = sizeof(fj_mod_desc), .mask = "q >= kv"},
        {.struct_size = sizeof(fj_mod_desc), .score = "score + kv"},
        {.struct_size = sizeof(fj_mod_desc), .score = "20 * tanh(score / 20)"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(mods); i++) {
        fj_mod_unref(&stack.mod);
        fj_plan_unref(&stack.plan);
        ck_assert_int_eq(fj_mod_create(stack.context, &mods[i], &stack.mod, NULL), FJ_OK);
        ck_assert_int_eq(fj_plan_create(stack.device, stack.mod, &known, &stack.plan, NULL), FJ_OK);
        ck_assert_str_eq(fj_plan_decision(stack.plan), "default");
    }
    stack_finish(&stack);
}
END_TEST

/* Each of these devices finds its own, and the reference has none. */
START_TEST(kinds_of_devices) {
    static const struct {
        fj_device_kind kind;
        const char *arch;
    } devices[] = {{FJ_DEVICE_EMU, "sm_80"}, {FJ_DEVICE_EMU, "sm_90a"}, {FJ_DEVICE_CUDA, "sm_80"}};
    test_stack stack;
    const fj_tuning_result result = {.struct_size = sizeof result, .time_ms = 1, .default_ms = 2};
    stack_open_plan(&stack, &known);
    for (size_t i = 0; i < 2 * FJ_ARRAY_LEN(devices); i++) {
        const bool adds = i < FJ_ARRAY_LEN(devices);
        fj_error error = {0};
        fj_device *device = NULL;
        fj_plan *plan = NULL;
        fj_problem problem = known;
        problem.head_dim = 16 * (int)(i % FJ_ARRAY_LEN(devices) + 1);
        const size_t k = i % FJ_ARRAY_LEN(devices);
        if (i == FJ_ARRAY_LEN(devices)) { /* read again */
            stack_finish(&stack);
            stack_open_plan(&stack, &known);
        }
        ck_assert_int_eq(
            fj_device_create_for_arch(stack.context, devices[k].kind, devices[k].arch, &device, &error),
            FJ_OK);
        ck_assert_int_eq(fj_plan_create(device, stack.mod, &problem, &plan, &error), FJ_OK);
        if (adds)
            ck_assert_int_eq(fj_tuning_add(plan, NULL, &result, &error), FJ_OK);
        else
            ck_assert_msg(strstr(fj_plan_decision(plan), "(exact)"), "%s", fj_plan_decision(plan));
        fj_plan_unref(&plan);
        fj_device_unref(&device);
    }
    stack_finish(&stack);
}
END_TEST

static void check_names(const fj_problem *problem, const char *expected) {
    test_stack stack;
    fj_text text;
    stack_open_plan(&stack, problem);
    ck_assert_int_eq(fj_plan_tuned_variants(stack.plan, &text, NULL), FJ_OK);
    ck_assert_msg(strstr(text.data, expected), "%s", text.data);
    fj_text_finish(&text);
    stack_finish(&stack);
}

#define NONE "\"variants\": []"
#define ONE "\"variants\": [\n    \"" OTHER "\"\n  ]"

/* For who builds kernels and does not know lengths. */
START_TEST(names_for_any_lengths) {
    fj_problem problem = known;
    problem.q_len = problem.kv_len = problem.batch_heads = 0;
    check_names(&problem, NONE);
    add_record();
    add_record();
    check_names(&problem, ONE);
    problem.gqa = 0;
    check_names(&problem, ONE);
    problem.gqa = 2;
    check_names(&problem, NONE);
    problem = known;
    check_names(&problem, ONE);
    problem.few_queries = true;
    check_names(&problem, NONE);
}
END_TEST

/* ---- Adding ------------------------------------------------------------------------------------------------ */

START_TEST(refusals) {
    static const struct {
        fj_tuning_result result;
        const char *text;
    } results[] = {
        {{.struct_size = sizeof(fj_tuning_result), .time_ms = 0, .default_ms = 1}, "a finite number above 0"},
        {{.struct_size = sizeof(fj_tuning_result), .time_ms = 1, .default_ms = -1},
         "a finite number above 0"},
        {{.struct_size = sizeof(fj_tuning_result), .time_ms = (double)NAN, .default_ms = 1}, "above 0"},
        {{.struct_size = sizeof(fj_tuning_result), .time_ms = (double)INFINITY, .default_ms = 1}, "above 0"},
        {{.struct_size = 0}, "struct_size is not set"},
    };
    test_stack stack;
    fj_error error = {0};
    stack_open_plan(&stack, &known);
    for (size_t i = 0; i < FJ_ARRAY_LEN(results); i++) {
        ck_assert_int_eq(fj_tuning_add(stack.plan, NULL, &results[i].result, &error), FJ_ERR_ARGUMENT);
        ck_assert_msg(strstr(error.text, results[i].text), "%s", error.text);
    }
    const fj_tuning_result result = {.struct_size = sizeof result, .time_ms = 1, .default_ms = 2};
    ck_assert_int_eq(fj_tuning_add(NULL, NULL, &result, &error), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_tuning_add(stack.plan, NULL, NULL, &error), FJ_ERR_ARGUMENT);
    stack_finish(&stack);
    fj_problem problem = known;
    problem.kv_len = 0;
    stack_open_plan(&stack, &problem);
    ck_assert_int_eq(fj_tuning_add(stack.plan, NULL, &result, &error), FJ_ERR_ARGUMENT);
    ck_assert_msg(strstr(error.text, "are 8, 512 and 0: a record needs all three"), "%s", error.text);
    fj_device *reference = NULL;
    fj_plan *plan = NULL;
    ck_assert_int_eq(fj_device_create(stack.context, FJ_DEVICE_REFERENCE, &reference, &error), FJ_OK);
    ck_assert_int_eq(fj_plan_create(reference, stack.mod, &known, &plan, &error), FJ_OK);
    ck_assert_str_eq(fj_plan_decision(plan), "default");
    ck_assert_int_eq(fj_tuning_add(plan, NULL, &result, &error), FJ_ERR_UNSUPPORTED);
    fj_plan_unref(&plan);
    fj_device_unref(&reference);
    stack_finish(&stack);
    ck_assert_int_eq(folder_count(folder, "tune"), 0);
    problem.kv_len = -1;
    ck_assert_int_eq(stack_plan(&stack, &problem, NULL, NULL, &error), FJ_ERR_ARGUMENT);
    stack_finish(&stack);
}
END_TEST

/* ---- Kernels ----------------------------------------------------------------------------------------------- */

static void check_kernel(const fj_problem *problem, fj_status status, const char *variant,
                         const char *decision) {
    test_stack stack;
    fj_error error = {0};
    logged[0] = '\0';
    stack_open_plan(&stack, problem);
    ck_assert_int_eq(fj_kernel_create(stack.plan, &stack.kernel, &error), status);
    if (status == FJ_OK) {
        const fj_kernel_info info = fj_kernel_describe(stack.kernel);
        test_call call;
        ck_assert_str_eq(info.variant, variant);
        ck_assert_msg(strncmp(info.decision, decision, strlen(decision)) == 0, "%s", info.decision);
        call_init(&call, (test_sizes){1, 1, 1, 3, 5, 16, 16});
        ck_assert_int_eq(call_launch(&call, stack.kernel, NULL, &error), FJ_OK);
        call_finish(&call);
    } else {
        ck_assert_msg(strstr(error.text, variant), "%s", error.text);
    }
    fj_error_finish(&error);
    stack_finish(&stack);
}

static void check_build(fj_status status) {
    test_stack stack;
    fj_kernel_info info;
    fj_error error = {0};
    stack_open_plan(&stack, &known);
    ck_assert_int_eq(fj_plan_build(stack.plan, true, &info, &error), status);
    stack_finish(&stack);
}

/* What the cache has is taken, the tuned one first; what is missing for prebuilding is the tuned one. */
START_TEST(without_jit) {
    fj_problem untuned = known;
    untuned.untuned = true;
    add_record();
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_kernel(&known, FJ_ERR_NO_JIT, DEFAULT, "");
    unsetenv("FLEXJIT_NO_JIT");
    check_kernel(&untuned, FJ_OK, DEFAULT, "default");
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_kernel(&known, FJ_OK, DEFAULT, "default");
    ck_assert_msg(strstr(logged, "variant " OTHER " of tuning record "), "%s", logged);
    check_build(FJ_ERR_NO_JIT);
    unsetenv("FLEXJIT_NO_JIT");
    check_kernel(&known, FJ_OK, OTHER, "tuning record ");
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_kernel(&known, FJ_OK, OTHER, "tuning record ");
    ck_assert_str_eq(logged, "");
    check_build(FJ_OK);
}
END_TEST

/* A compiler that is on fire for the tuned one alone. */
START_TEST(kernel_that_does_not_compile) {
    static const char script[] =
        "#!/bin/sh\n"
        "for file; do\n"
        "  [ -f \"$file\" ] && grep -q " OTHER " \"$file\" && echo on fire && exit 1\n"
        "done\n"
        "exec cc \"$@\"\n";
    char path[96];
    add_record();
    file_write(folder, "compiler", script, sizeof script - 1, 0700);
    (void)snprintf(path, sizeof path, "%s/compiler", folder);
    setenv("FLEXJIT_CC", path, 1);
    check_kernel(&known, FJ_OK, DEFAULT, "default");
    ck_assert_msg(strstr(logged, "is replaced by the default"), "%s", logged);
    fj_problem named = known;
    named.variant = OTHER; /* who asks for it gets the error */
    check_kernel(&named, FJ_ERR_COMPILER, "failed with status 1", "");
}
END_TEST

/* ---- What fails -------------------------------------------------------------------------------------------- */

START_TEST(failing_allocations) {
    const fj_allocator allocator = {failing_resize, &failing};
    bool failed = true;
    add_record();
    for (long n = 0; failed; n++) {
        test_stack stack;
        failing.countdown = n;
        const fj_status status = stack_plan(&stack, &known, &allocator, NULL, NULL);
        failed = failing.countdown < 0;
        failing.countdown = -1;
        ck_assert_int_eq(status, failed ? FJ_ERR_MEMORY : FJ_OK);
        if (!failed) ck_assert_str_eq(fj_plan_variant(stack.plan), OTHER);
        stack_finish(&stack);
        ck_assert_int_eq(failing.live, 0);
    }
}
END_TEST

/* A plan is made whatever becomes of the files. */
START_TEST(failing_reads) {
    bool failed = true;
    add_record();
    for (long n = 0; failed; n++) {
        test_stack stack;
        failing_files_countdown = n;
        ck_assert_int_eq(stack_plan(&stack, &known, NULL, &failing_files, NULL), FJ_OK);
        failed = failing_files_countdown < 0;
        failing_files_countdown = -1;
        if (!failed) ck_assert_str_eq(fj_plan_variant(stack.plan), OTHER);
        stack_finish(&stack);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn tuned");
    TCase *group = tcase_create("attn tuned");
    const TTest *const tests[] = {names_for_any_lengths,
                                  decisions,
                                  masks_and_costs_apart,
                                  kinds_of_devices,
                                  refusals,
                                  without_jit,
                                  kernel_that_does_not_compile,
                                  failing_allocations,
                                  failing_reads};
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 60);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(group, tests[i]);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
