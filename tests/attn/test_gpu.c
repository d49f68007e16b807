/* From a mod to a resident kernel on a GPU that only pretends. */
#include "tests/attn/gpu_fixture.h"

enum { E = 32 };

static fj_plan *planned(fj_direction direction) {
    fj_plan *plan = NULL;
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = FJ_DTYPE_BF16,
                                .head_dim = 64,
                                .value_dim = 64};
    ck_assert_int_eq(fj_plan_create(device, mod, &problem, &plan, &error), FJ_OK);
    return plan;
}

static void check_kernel(bool hit) {
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_plan *plan = planned((fj_direction)direction);
        fj_kernel *kernel = NULL;
        fj_status status = fj_kernel_create(plan, &kernel, &error);
        ck_assert_msg(status == FJ_OK, "%s", error.text);
        fj_kernel_info info = fj_kernel_describe(kernel);
        ck_assert_int_eq(info.cache_hit, hit);
        ck_assert_str_eq(info.variant, fj_plan_variant(plan));
        ck_assert_int_gt(info.shared_bytes, 0);
        has_text(fake->calls(), "attribute 9="); /* blocks have room beside each other */
        fj_kernel_unref(&kernel);
        fj_plan_unref(&plan);
    }
}

START_TEST(a_kernel_is_compiled_kept_and_made_resident) {
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), FJ_OK);
    ck_assert_str_eq(fj_device_name(device), "cuda");
    check_kernel(false);
    check_kernel(true);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    check_kernel(true);
}
END_TEST

START_TEST(what_was_built_elsewhere_is_found) {
    fj_kernel_info info;
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_90a", &device, &error), FJ_OK);
    ck_assert_str_eq(fj_device_name(device), "cuda:sm_90a");
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_plan *plan = planned((fj_direction)direction);
        fj_kernel *kernel = NULL;
        ck_assert_int_eq(fj_plan_build(plan, true, &info, &error), FJ_ERR_NO_JIT);
        ck_assert_int_eq(fj_plan_build(plan, false, &info, &error), FJ_OK);
        ck_assert(!info.cache_hit);
        ck_assert_int_eq(fj_plan_build(plan, true, &info, &error), FJ_OK);
        ck_assert(info.cache_hit);
        ck_assert_int_eq(fj_kernel_create(plan, &kernel, &error), FJ_ERR_DEVICE);
        ck_assert_str_eq(error.text, "cuda:sm_90a is not on this machine: kernels can be built, not loaded");
        fj_plan_unref(&plan);
    }
    fj_device_unref(&device);
    setenv("FLEXJIT_NVRTC", "/nowhere", 1); /* a machine without a compiler */
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), FJ_OK);
    check_kernel(true);
}
END_TEST

START_TEST(what_is_not_there) {
    setenv("FAKE_CUDA", "arch=70", 1);
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), FJ_ERR_DEVICE);
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_70", &device, &error),
                     FJ_ERR_NAME);
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, NULL, &device, &error),
                     FJ_ERR_ARGUMENT);
    setenv("FAKE_CUDA", "resident=2", 1);
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), FJ_OK);
    fj_plan *plan = planned(FJ_FORWARD);
    fj_kernel *kernel = NULL;
    ck_assert_int_eq(fj_kernel_create(plan, &kernel, &error), FJ_ERR_MEMORY);
    ck_assert_ptr_null(kernel);
    setenv("FAKE_CUDA", "load=209", 1);
    ck_assert_int_eq(fj_kernel_create(plan, &kernel, &error), FJ_ERR_DEVICE);
    unsetenv("FAKE_CUDA");
    ck_assert_int_eq(fj_kernel_create(plan, &kernel, &error), FJ_OK);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
}
END_TEST

/* Parameters of a kernel: as many bytes as the driver takes, and not more inputs than a launch has room for. */
START_TEST(there_can_be_too_many_captured_tensors) {
    static char text[4096], names[200][8];
    static fj_binding bindings[200];
    open_emulating(_i == 0 ? "version=12000" : "version=13000");
    for (int count = 20; count < 200; count += 120) {
        size_t length = (size_t)snprintf(text, sizeof text, "score");
        for (int i = 0; i < count; i++) {
            (void)snprintf(names[i], sizeof names[i], "t%d", i);
            bindings[i] = (fj_binding){.name = names[i], .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
            length += (size_t)snprintf(text + length, sizeof text - length, " + t%d[h]", i);
        }
        const fj_mod_desc desc = {
            .struct_size = sizeof desc, .score = text, .bindings = bindings, .binding_count = (size_t)count};
        fj_mod *many = NULL;
        box_check(fj_mod_create(context, &desc, &many, &error), &error);
        const fj_problem problem = {.struct_size = sizeof problem,
                                    .direction = FJ_BACKWARD,
                                    .dtype = FJ_DTYPE_BF16,
                                    .head_dim = E,
                                    .value_dim = E};
        fj_plan *plan = NULL;
        fj_status status = fj_plan_create(device, many, &problem, &plan, &error);
        bool fits = count == 20 && _i == 1;
        ck_assert_int_eq(status, fits ? FJ_OK : FJ_ERR_UNSUPPORTED);
        if (count > 128)
            has_text(error.text, "has 140 captured tensors, tables and scalars: the cuda device takes 128");
        else if (!fits)
            has_text(error.text, "and 4096 is the most");
        fj_plan_unref(&plan);
        fj_mod_unref(&many);
    }
}
END_TEST

/* More batches and heads than the y and z of a grid can count, which are 65,535: the driver would refuse. */
START_TEST(many_heads_fit_grids) {
    enum { B = 22720, HEADS = 3, LENGTH = 2 };
    static const struct {
        fj_dtype dtype;
        int dim;
        fj_direction direction;
    } problems[] = {{FJ_DTYPE_BF16, 64, FJ_FORWARD},
                    {FJ_DTYPE_BF16, 64, FJ_BACKWARD},
                    {FJ_DTYPE_F64, 140, FJ_FORWARD},
                    {FJ_DTYPE_F64, 140, FJ_BACKWARD}};
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), FJ_OK);
    const int dim = problems[_i].dim;
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = problems[_i].direction,
                                .dtype = problems[_i].dtype,
                                .head_dim = dim,
                                .value_dim = dim};
    const bool wide = problem.dtype == FJ_DTYPE_F64;
    int64_t shape[4] = {B, HEADS, LENGTH, dim};
    DLTensor tensor = {.data = (void *)(uintptr_t)0x700000000000, /* nothing runs */
                       .device = fj_device_dlpack(device),
                       .ndim = 4,
                       .dtype = fj_dtype_to_dlpack(problem.dtype),
                       .shape = shape};
    DLTensor rows = tensor;
    rows.ndim = 3;
    rows.dtype = fj_dtype_to_dlpack(wide ? FJ_DTYPE_F64 : FJ_DTYPE_F32);
    const fj_args args = {.struct_size = sizeof args,
                          .query = &tensor,
                          .key = &tensor,
                          .value = &tensor,
                          .out = &tensor,
                          .lse = &rows,
                          .dout = &tensor,
                          .dquery = &tensor,
                          .dkey = &tensor,
                          .dvalue = &tensor,
                          .scale = 1};
    fj_plan *plan = NULL;
    fj_kernel *kernel = NULL;
    size_t size = 0;
    box_check(fj_plan_create(device, mod, &problem, &plan, &error), &error);
    box_check(fj_kernel_create(plan, &kernel, &error), &error);
    box_check(fj_kernel_workspace(kernel, &args, NULL, &size, &error), &error);
    fake->reset();
    box_check(fj_kernel_launch(kernel, &args, NULL, tensor.data, size, &error), &error);
    unsigned launches = 0, most = 0, x, y, z;
    for (const char *at = fake->calls(); (at = strstr(at, "launch ")) != NULL; at++, launches++) {
        ck_assert_int_eq(sscanf(at, "launch %u,%u,%u ", &x, &y, &z), 3);
        ck_assert_uint_le(y, 65535);
        ck_assert_uint_le(z, 65535);
        most = x > most ? x : most;
    }
    ck_assert_uint_ge(launches, problem.direction == FJ_FORWARD ? 1 : 3);
    ck_assert_uint_eq(most, B * HEADS);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {a_kernel_is_compiled_kept_and_made_resident,
                                  what_was_built_elsewhere_is_found, what_is_not_there};
    Suite *suite = suite_create("gpu");
    TCase *group = tcase_create("gpu");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(group, tests[i]);
    tcase_add_loop_test(group, many_heads_fit_grids, 0, 4);
    tcase_add_loop_test(group, there_can_be_too_many_captured_tensors, 0, 2);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
