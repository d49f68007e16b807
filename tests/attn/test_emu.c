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

/* ---- Shapes, without data ------------------------------------------------------------------------------ */

/* A plan for BF16 of 64 dimensions. */
static fj_kernel *kernel_for(fj_device *on, const fj_mod_desc *desc, fj_direction direction,
                             fj_plan **ret_plan) {
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = FJ_DTYPE_BF16,
                                .head_dim = 64,
                                .value_dim = 64};
    fj_mod *mod = NULL;
    fj_kernel *kernel = NULL;
    box_check(fj_mod_create(context, desc, &mod, &error), &error);
    box_check(fj_plan_create(on, mod, &problem, ret_plan, &error), &error);
    box_check(fj_kernel_create(*ret_plan, &kernel, &error), &error);
    fj_mod_unref(&mod);
    return kernel;
}

/* Arguments that have shapes, and an address that nobody follows. */
typedef struct shapes {
    int64_t q[4], k[4], lse[3];
    DLTensor query, key, rows;
    fj_args args;
} shapes;

static void shapes_init(shapes *s, int64_t b, int64_t hq, int64_t hkv, int64_t l, int64_t n) {
    const DLDataType bf16 = fj_dtype_to_dlpack(FJ_DTYPE_BF16), f32 = fj_dtype_to_dlpack(FJ_DTYPE_F32);
    *s = (shapes){.q = {b, hq, l, 64}, .k = {b, hkv, n, 64}, .lse = {b, hq, l}};
    s->query = (DLTensor){.data = s, .device = {kDLCPU, 0}, .ndim = 4, .dtype = bf16, .shape = s->q};
    s->key = (DLTensor){.data = s, .device = {kDLCPU, 0}, .ndim = 4, .dtype = bf16, .shape = s->k};
    s->rows = (DLTensor){.data = s, .device = {kDLCPU, 0}, .ndim = 3, .dtype = f32, .shape = s->lse};
    s->args = (fj_args){.struct_size = sizeof s->args,
                        .query = &s->query,
                        .key = &s->key,
                        .value = &s->key,
                        .out = &s->query,
                        .lse = &s->rows,
                        .dout = &s->query,
                        .dquery = &s->query,
                        .dkey = &s->key,
                        .dvalue = &s->key,
                        .scale = 1};
}

START_TEST(what_no_grid_covers_is_unsupported) {
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    const struct {
        int64_t b, hq, hkv, l, s;
        const char *says; /* NULL: it fits */
    } cases[] = {
        {1, 1, 1, 65536, 65536, NULL},
        {1, 8, 1, (int64_t)1 << 27, 64, NULL},
        {2, 64, 64, (int64_t)1 << 30, 64, "blocks of a launch: 1073741824"},
        {1, 1, 1, INT32_MAX, 64, "queries of a head: 2147483647"},
        {1, 1, 1, 64, INT32_MAX, "keys of a head: 2147483647"},
        {65536, 65536, 1, 1, 1, "heads of all batches: 4294967296"},
        {1, 64, 1, (int64_t)1 << 26, 64, "queries of all heads that share keys: 4294967296"},
    };
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_plan *plan = NULL;
        fj_kernel *kernel = kernel_for(device, &identity, (fj_direction)direction, &plan);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            shapes s;
            size_t size = 0;
            shapes_init(&s, cases[i].b, cases[i].hq, cases[i].hkv, cases[i].l, cases[i].s);
            fj_status status = fj_kernel_workspace(kernel, &s.args, NULL, &size, &error);
            int rows = 0; /* of a tile, which the third case depends on */
            const char *tile = strstr(fj_plan_variant(plan), "_v64_");
            ck_assert(tile && sscanf(tile, "_v64_m%d_", &rows) == 1);
            bool fits = !cases[i].says || (i == 2 && rows >= 128);
            ck_assert_msg(status == (fits ? FJ_OK : FJ_ERR_UNSUPPORTED), "case %zu: %s", i, error.text);
            if (!fits && i != 2) ck_assert_msg(strstr(error.text, cases[i].says) != NULL, "%s", error.text);
        }
        fj_kernel_unref(&kernel);
        fj_plan_unref(&plan);
    }
}
END_TEST

START_TEST(wide_captures_are_unsupported) {
    const fj_binding binding = {.name = "t", .dtype = FJ_DTYPE_BOOL, .rank = 1, .dims = {-1}};
    const fj_mod_desc desc = {
        .struct_size = sizeof desc, .mask = "t[kv]", .bindings = &binding, .binding_count = 1};
    fj_plan *plan = NULL;
    fj_kernel *kernel = kernel_for(device, &desc, FJ_FORWARD, &plan);
    shapes s;
    size_t size;
    shapes_init(&s, 1, 1, 1, 8, 8);
    int64_t extent = (int64_t)1 << 31;
    const DLTensor wide = {.data = &s,
                           .device = {kDLCPU, 0},
                           .ndim = 1,
                           .dtype = fj_dtype_to_dlpack(FJ_DTYPE_BOOL),
                           .shape = &extent};
    const DLTensor *const captures[] = {&wide};
    s.args.captures = captures;
    ck_assert_int_eq(fj_kernel_workspace(kernel, &s.args, NULL, &size, &error), FJ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error.text, "captured tensor 't' has an extent of 2147483648"));
    extent--;
    box_check(fj_kernel_workspace(kernel, &s.args, NULL, &size, &error), &error);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
}
END_TEST

/* Whether a mask shows no, some, or all positions of a block; scores: those that it shows are added. */
static int class_of(const char *name, int64_t b, int64_t q, int64_t q_end, int64_t kv, int64_t kv_end,
                    int64_t *scores) {
    int64_t seen = 0;
    for (int64_t i = q; i < q_end; i++)
        for (int64_t j = kv; j < kv_end; j++)
            seen += strcmp(name, "causal") == 0 ? i >= j
                  : strcmp(name, "batch") == 0  ? i >= j + 64 * b
                  : strcmp(name, "length") == 0 ? i < 700 && j < 650
                                                : true;
    *scores += seen;
    return seen == 0 ? 0 : seen < (q_end - q) * (kv_end - kv) ? 1 : 2;
}

START_TEST(blocks_are_counted_without_a_kernel) {
    static const char *const masks[][2] = {
        {"causal", "q >= kv"},
        {"batch", "q >= kv + 64 * b"},
        {"all", NULL},
        {"length", "(q < 700) & (kv < 650)"}}; /* the last block ends there too */
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        const fj_mod_desc desc = {.struct_size = sizeof desc, .mask = masks[i][1]};
        fj_plan *plan = NULL;
        fj_kernel *kernel = kernel_for(device, &desc, FJ_FORWARD, &plan);
        enum { B = 2, H = 3, LENGTH = 700, KEYS = 650 };
        shapes s;
        fj_block_counts found;
        int rows = 0, keys = 0;
        int64_t want[3] = {0}, scores = 0;
        const char *tile = strstr(strstr(fj_plan_variant(plan), "_v64_"), "_m");
        ck_assert_int_eq(sscanf(tile, "_m%d_n%d", &rows, &keys), 2);
        for (int64_t b = 0; b < B; b++)
            for (int64_t q = 0; q < LENGTH; q += rows)
                for (int64_t kv = 0; kv < KEYS; kv += keys)
                    want[class_of(masks[i][0], b, q, q + rows < LENGTH ? q + rows : LENGTH, kv,
                                  kv + keys < KEYS ? kv + keys : KEYS, &scores)] += H;
        shapes_init(&s, B, H, 1, LENGTH, KEYS);
        box_check(fj_kernel_blocks(kernel, &s.args, &found, &error), &error);
        ck_assert_int_eq(found.empty, want[0]);
        ck_assert_int_eq(found.partial, want[1]);
        ck_assert_int_eq(found.full, want[2]);
        ck_assert_int_eq(found.scores, H * scores);
        fj_kernel_unref(&kernel);
        fj_plan_unref(&plan);
    }
}
END_TEST

/* ---- Devices --------------------------------------------------------------------------------------------- */

START_TEST(an_emulated_device) {
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    fj_device *other = NULL;
    fj_plan *plans[2] = {NULL};
    fj_text keys[2];
    double flops;
    ck_assert_str_eq(fj_device_name(device), "emu");
    ck_assert_int_eq(fj_device_dlpack(device).device_type, kDLCPU);
    ck_assert_int_eq(fj_device_peak(device, FJ_DTYPE_F32, 1, &flops, &error), FJ_ERR_UNSUPPORTED);
    ck_assert_str_eq(error.text, "the emu device has no peak");
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_REFERENCE, "sm_80", &other, &error),
                     FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CPU, "sm_80", &other, &error), FJ_ERR_NAME);
    fj_error_finish(&error);
    box_check(fj_device_create_for_arch(context, FJ_DEVICE_EMU, "sm_90a", &other, &error), &error);
    ck_assert_str_eq(fj_device_name(other), "emu:sm_90a");
    fj_kernel *kernels[] = {kernel_for(device, &identity, FJ_FORWARD, &plans[0]),
                            kernel_for(other, &identity, FJ_FORWARD, &plans[1])};
    fj_kernel *again = NULL;
    box_check(fj_kernel_create(plans[0], &again, &error), &error);
    ck_assert(!fj_kernel_describe(kernels[1]).cache_hit);
    ck_assert(fj_kernel_describe(again).cache_hit);
    fj_kernel_unref(&again);
    for (int i = 0; i < 2; i++) {
        box_check(fj_plan_show(plans[i], "key", &keys[i], &error), &error);
        ck_assert_ptr_nonnull(strstr(keys[i].data, "target emu"));
        fj_kernel_unref(&kernels[i]);
        fj_plan_unref(&plans[i]);
    }
    ck_assert_str_ne(keys[0].data, keys[1].data);
    for (int i = 0; i < 2; i++) fj_text_finish(&keys[i]);
    fj_device_unref(&other);
    box_check(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_80", &other, &error), &error);
    ck_assert_int_eq(fj_device_dlpack(other).device_type, kDLCUDA);
    fj_device_unref(&other);
}
END_TEST

/* Memory and time of devices that use the host's. */
START_TEST(memory_and_time_of_the_host) {
    void *memory = NULL, *none = &memory;
    fj_timer *timer = NULL;
    char back[4] = "";
    double ms = -1;
    box_check(fj_device_alloc(device, 0, &none, &error), &error);
    ck_assert_ptr_null(none);
    for (size_t size = 1; size < 10000; size = size * 3 + 1) {
        box_check(fj_device_alloc(device, size, &memory, &error), &error);
        ck_assert_uint_eq((uintptr_t)memory % 256, 0);
        box_check(fj_device_fill(device, memory, 7, size, NULL, &error), &error);
        fj_device_free(device, &memory);
    }
    ck_assert_int_eq(fj_device_alloc(device, SIZE_MAX - 100, &memory, &error), FJ_ERR_MEMORY);
    box_check(fj_device_alloc(device, 4, &memory, &error), &error);
    box_check(fj_timer_create(device, &timer, &error), &error);
    box_check(fj_timer_start(timer, NULL, &error), &error);
    box_check(fj_device_upload(device, memory, "abc", 4, NULL, &error), &error);
    box_check(fj_device_download(device, back, memory, 4, NULL, &error), &error);
    box_check(fj_device_wait(device, NULL, &error), &error);
    box_check(fj_timer_stop(timer, NULL, &error), &error);
    box_check(fj_timer_read(timer, &ms, &error), &error);
    ck_assert_str_eq(back, "abc");
    ck_assert(ms >= 0 && ms < 10000);
    fj_timer_unref(&timer);
    fj_timer_unref(&timer);
    fj_device_free(device, &memory);
    ck_assert_int_eq(fj_device_alloc(NULL, 4, &memory, &error), FJ_ERR_ARGUMENT);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("emu");
    TCase *group = tcase_create("launch");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 100);
    tcase_add_loop_test(group, a_launch_gives_what_the_definition_does, 0, GPU_CASES);
    tcase_add_test(group, what_no_grid_covers_is_unsupported);
    tcase_add_test(group, wide_captures_are_unsupported);
    tcase_add_test(group, blocks_are_counted_without_a_kernel);
    tcase_add_test(group, an_emulated_device);
    tcase_add_test(group, memory_and_time_of_the_host);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
