/* The library's whole path to a GPU, to the last argument of a launch, on one that only pretends and computes. */
#include "tests/attn/gpu_fixture.h"

/* ---- Launches ------------------------------------------------------------------------------------------- */

/* When the fake GPU works: at once, when somebody waits, on a thread. */
static const char *const paces[] = {"async=0", "async=1", "async=2 cache=30000"};

static void check_same(const cli_view *a, const cli_view *b) {
    size_t size = a->count * fj_dtype_size(a->dtype);
    ck_assert(cli_view_is_set(a) == cli_view_is_set(b));
    ck_assert(!cli_view_is_set(a) || memcmp(a->tensor.data, b->tensor.data, size) == 0);
}

START_TEST(a_launch_gives_what_the_definition_does) {
    const gpu_case *c = &gpu_cases[_i];
    gpu_call first, other;
    gpu_call_init(&first, c, context);
    gpu_call_init(&other, c, context);
    open_emulating(paces[0]);
    gpu_call_run(&first, c, device, NULL);
    gpu_call_check(&first, c, context);
    for (int pace = 1; pace < 3; pace++) {
        fj_device_unref(&device);
        open_emulating(paces[pace]);
        gpu_call_run(&other, c, device, fake->stream(FAKE_PRIMARY));
        const cli_outputs *a = &first.outputs, *b = &other.outputs;
        check_same(&a->out, &b->out);
        check_same(&a->lse, &b->lse);
        check_same(&a->max, &b->max);
        check_same(&a->dquery, &b->dquery);
        check_same(&a->dkey, &b->dkey);
        check_same(&a->dvalue, &b->dvalue);
        for (size_t i = 0; i < a->capture_count; i++) check_same(&a->dcaptures[i], &b->dcaptures[i]);
        for (size_t i = 0; i < a->scalar_count; i++) check_same(&a->dscalars[i], &b->dscalars[i]);
    }
    gpu_call_finish(&first);
    gpu_call_finish(&other);
}
END_TEST

/* A forward call of BF16 on the device, with what it points to. */
typedef struct forward {
    cli_view query, key, value, out, lse, table;
    box boxes[6];
    const DLTensor *captures[1];
    fj_args args;
    fj_block_mask *mask; /* on the device */
    fj_plan *plan;
    fj_kernel *kernel;
    void *workspace;
    size_t size;
} forward;

enum { L = 20, S = 40, E = 32 };

static void fill(cli_view *view, int64_t rows, uint64_t seed) {
    const int64_t dims[] = {1, 2, rows, E};
    cli_random random = {seed};
    ck_assert_int_eq(cli_view_allocate(view, "x", FJ_DTYPE_BF16, 4, dims), 0);
    for (size_t i = 0; i < view->count; i++)
        cli_store(FJ_DTYPE_BF16, view->tensor.data, i, cli_random_normal(&random));
}

/* Of which every third block of keys is empty, on the device. */
static fj_status make_mask(fj_block_mask **ret_mask) {
    const int64_t dims[] = {1, 1, L, S};
    cli_view dense = {0};
    fj_block_mask *mask = NULL;
    ck_assert_int_eq(cli_view_allocate(&dense, "mask", FJ_DTYPE_BOOL, 4, dims), 0);
    for (size_t i = 0; i < dense.count; i++) ((bool *)dense.tensor.data)[i] = i % S / 4 % 3 != 2;
    box_check(fj_block_mask_from_dense(context, &dense.tensor, 8, 4, &mask, &error), &error);
    const fj_status status = fj_block_mask_copy_to(device, mask, ret_mask, &error);
    cli_view_finish(&dense);
    fj_block_mask_unref(&mask);
    return status;
}

/* score + table[kv], of a table that has so many elements. */
static void forward_init(forward *f, int64_t elements, bool blocks) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc desc = {
        .struct_size = sizeof desc, .score = "score + table[kv]", .bindings = &binding, .binding_count = 1};
    const fj_problem problem = {.struct_size = sizeof problem,
                                .dtype = FJ_DTYPE_BF16,
                                .head_dim = E,
                                .value_dim = E,
                                .block_mask = blocks};
    const int64_t lse[] = {1, 2, L};
    fj_mod *reads = NULL;
    *f = (forward){0};
    box_check(fj_mod_create(context, &desc, &reads, &error), &error);
    box_check(fj_plan_create(device, reads, &problem, &f->plan, &error), &error);
    box_check(fj_kernel_create(f->plan, &f->kernel, &error), &error);
    fj_mod_unref(&reads);
    fill(&f->query, L, 1);
    fill(&f->key, S, 2);
    fill(&f->value, S, 3);
    fill(&f->out, L, 4);
    ck_assert_int_eq(cli_view_allocate(&f->lse, "lse", FJ_DTYPE_F32, 3, lse), 0);
    ck_assert_int_eq(cli_view_allocate(&f->table, "table", FJ_DTYPE_F32, 1, &elements), 0);
    memset(f->table.tensor.data, 0, (size_t)elements * 4);
    cli_view *const views[] = {&f->query, &f->key, &f->value, &f->out, &f->lse, &f->table};
    for (int i = 0; i < 6; i++) box_make(&f->boxes[i], device, views[i], BOX_PACKED, i < 3 || i == 5);
    if (blocks) box_check(make_mask(&f->mask), &error);
    f->captures[0] = &f->boxes[5].dl;
    f->args = (fj_args){.struct_size = sizeof f->args,
                        .query = &f->boxes[0].dl,
                        .key = &f->boxes[1].dl,
                        .value = &f->boxes[2].dl,
                        .out = &f->boxes[3].dl,
                        .lse = &f->boxes[4].dl,
                        .captures = f->captures,
                        .scale = 0.25,
                        .block_mask = f->mask};
    box_check(fj_kernel_workspace(f->kernel, &f->args, NULL, &f->size, &error), &error);
    ck_assert_uint_gt(f->size, 0);
    box_check(fj_device_alloc(device, f->size, &f->workspace, &error), &error);
}

static void forward_finish(forward *f) {
    cli_view *const views[] = {&f->query, &f->key, &f->value, &f->out, &f->lse, &f->table};
    for (int i = 0; i < 6; i++) {
        box_finish(&f->boxes[i]);
        cli_view_finish(views[i]);
    }
    fj_device_free(device, &f->workspace);
    fj_block_mask_unref(&f->mask);
    fj_kernel_unref(&f->kernel);
    fj_plan_unref(&f->plan);
}

static fj_status put(forward *f, void *stream) {
    const fj_launch launch = {.struct_size = sizeof launch, .stream = stream};
    return fj_kernel_launch(f->kernel, &f->args, &launch, f->workspace, f->size, &error);
}

static fj_status ask(forward *f, void *stream) {
    const fj_launch launch = {.struct_size = sizeof launch, .stream = stream};
    return fj_kernel_check(f->kernel, &f->args, &launch, f->workspace, f->size, &error);
}

/* Both outputs; none has a NaN when they were written. */
static bool is_written(forward *f) {
    bool written = true;
    box_get(&f->boxes[3], "out");
    box_get(&f->boxes[4], "lse");
    for (size_t i = 0; i < f->lse.count; i++) {
        double lse = cli_load(FJ_DTYPE_F32, f->lse.tensor.data, i);
        written = written && lse == lse;
    }
    box_put(&f->boxes[3], false);
    box_put(&f->boxes[4], false);
    return written;
}

START_TEST(bad_reads_are_told_by_the_check) {
    forward f;
    open_emulating(paces[_i]);
    void *stream = fake->stream(FAKE_PRIMARY);
    forward_init(&f, 30, false); /* of 40 keys */
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(put(&f, stream), FJ_OK);
        ck_assert_int_eq(ask(&f, stream), FJ_ERR_INDEX);
        has_text(error.text, "captured tensor 'table' F32 [30] is read at index 3");
    }
    forward_finish(&f);
    forward_init(&f, S, false);
    ck_assert_int_eq(put(&f, stream), FJ_OK);
    box_check(ask(&f, stream), &error);
    ck_assert(is_written(&f));
    forward_finish(&f);
}
END_TEST

/* With a block mask, too, which is there before the capture. */
START_TEST(a_launch_can_be_captured) {
    forward f;
    open_emulating(paces[_i % 3]);
    void *stream = fake->stream(FAKE_PRIMARY);
    forward_init(&f, S, _i == 3);
    fake->reset();
    fake->capture(stream);
    ck_assert_int_eq(put(&f, stream), FJ_OK);
    ck_assert_int_eq(ask(&f, stream), FJ_ERR_ARGUMENT);
    has_text(error.text, "the capture goes on");
    ck_assert_int_eq(fj_device_wait(device, stream, &error), FJ_ERR_ARGUMENT);
    ck_assert(fake->end_capture());
    ck_assert_ptr_null(strstr(fake->calls(), "wait"));
    ck_assert(!is_written(&f));
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(fake->replay(), 0);
        box_check(ask(&f, stream), &error);
        ck_assert(is_written(&f));
    }
    forward_finish(&f);
}
END_TEST

START_TEST(another_context_does_not_break_a_capture) {
    forward f;
    open_emulating(paces[0]);
    void *stream = fake->stream(FAKE_PRIMARY), *other = fake->stream(FAKE_OTHER),
         *green = fake->stream(FAKE_GREEN);
    forward_init(&f, S, false);
    fake->capture(stream);
    fake->set_current(FAKE_OTHER);
    ck_assert_int_eq(put(&f, stream), FJ_ERR_ARGUMENT);
    has_text(error.text, "is not prepared for the current context; the capture of the stream goes on");
    fake->set_current(-1);
    ck_assert_int_eq(put(&f, other), FJ_ERR_ARGUMENT);
    has_text(error.text, "is not prepared for the context of the stream");
    ck_assert_int_eq(put(&f, stream), FJ_OK);
    ck_assert(fake->end_capture());
    ck_assert_int_eq(fake->replay(), 0);
    ck_assert(is_written(&f));
    ck_assert(!is_written(&f)); /* looking clears */
    box_check(put(&f, green), &error);
    box_check(ask(&f, green), &error);
    ck_assert(is_written(&f));
    forward_finish(&f);
}
END_TEST

START_TEST(tensors_are_the_gpus) {
    forward f;
    open_emulating(paces[0]);
    forward_init(&f, S, false);
    const struct {
        DLDevice has;
        const char *says; /* NULL: it is taken */
    } cases[] = {
        {{kDLCPU, 0},
         "value is on another device (DLPack type 1): the cuda device takes its own or managed memory"},
        {{kDLCUDA, 1}, "value is on GPU 1, but the device is GPU 0"},
        {{kDLCUDAManaged, 1}, NULL},
        {{3, 0},
         "value is on another device (DLPack type 3): the cuda device takes its own or managed memory"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        f.boxes[2].dl.device = cases[i].has;
        ck_assert_int_eq(put(&f, NULL), cases[i].says ? FJ_ERR_TENSOR : FJ_OK);
        if (cases[i].says) ck_assert_str_eq(error.text, cases[i].says);
    }
    f.boxes[2].dl.device = fj_device_dlpack(device);
    f.boxes[5].dl.device = (DLDevice){kDLCPU, 0};
    ck_assert_int_eq(put(&f, NULL), FJ_ERR_TENSOR);
    has_text(error.text, "captured tensor 'table' is on another device");
    f.boxes[5].dl.device = fj_device_dlpack(device);
    ck_assert_int_eq(put(&f, NULL), FJ_OK);
    f.size--;
    ck_assert_int_eq(put(&f, NULL), FJ_ERR_ARGUMENT);
    has_text(error.text, "this launch needs");
    void *workspace = f.workspace;
    f.workspace = NULL;
    ck_assert_int_eq(put(&f, NULL), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "the workspace is missing");
    f.workspace = (char *)workspace + 16;
    ck_assert_int_eq(put(&f, NULL), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "the workspace is not aligned to 256 bytes");
    f.workspace = workspace;
    forward_finish(&f);
}
END_TEST

START_TEST(a_block_mask_on_a_gpu) {
    fj_block_mask *mask = NULL;
    open_emulating("alloc=2");
    ck_assert_int_eq(make_mask(&mask), FJ_ERR_MEMORY);
    has_text(error.text, "on GPU 0");
    ck_assert_ptr_null(mask);
    ck_assert_uint_eq(fake->memory(), 0);
    open_emulating(paces[1]);
    box_check(make_mask(&mask), &error);
    /* 3 rows and 10 columns of blocks; in a row 4 runs, in a column at most 1 */
    ck_assert_uint_eq(fake->memory(), (2 * 3 + 1) * 8 + (2 * 10 + 1) * 8 + 3 * 4 * 8 + 7 * 8);
    ck_assert_uint_ge(fj_block_mask_describe(mask).bytes, fake->memory());
    fj_block_mask_unref(&mask);
    ck_assert_uint_eq(fake->memory(), 0);
    fj_device_unref(&device);
    box_check(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_90", &device, &error), &error);
    ck_assert_int_eq(make_mask(&mask), FJ_ERR_DEVICE);
    ck_assert_str_eq(error.text,
                     "cuda:sm_90 is not on this machine: kernels can be built for it, nothing else");
}
END_TEST

START_TEST(what_fails_at_a_launch) {
    forward f;
    open_emulating(paces[0]);
    forward_init(&f, S, false);
    setenv("FAKE_CUDA", "launch=701", 1);
    ck_assert_int_eq(put(&f, NULL), FJ_ERR_DEVICE);
    has_text(error.text, "kernel fj_fwd cannot be launched (2 x 1 x 1 blocks): CUDA_ERROR_FAKE (701");
    setenv("FAKE_CUDA", "wait=719", 1);
    ck_assert_int_eq(put(&f, NULL), FJ_OK);
    ck_assert_int_eq(ask(&f, NULL), FJ_ERR_DEVICE);
    has_text(error.text, "work on the GPU failed: CUDA_ERROR_FAKE (719");
    unsetenv("FAKE_CUDA");
    forward_finish(&f);
}
END_TEST

START_TEST(memory_and_time_of_a_gpu) {
    void *memory = NULL;
    fj_timer *timer = NULL;
    char text[] = "abc", back[4];
    double ms = 0;
    open_emulating("alloc=2");
    ck_assert_int_eq(fj_device_alloc(device, 1000, &memory, &error), FJ_ERR_MEMORY);
    has_text(error.text, "1000 bytes on GPU 0");
    ck_assert_ptr_null(memory);
    open_emulating(paces[2]);
    box_check(fj_timer_create(device, &timer, &error), &error);
    box_check(fj_timer_start(timer, NULL, &error), &error);
    box_check(fj_device_alloc(device, 4, &memory, &error), &error);
    ck_assert_uint_eq((uintptr_t)memory % 256, 0);
    box_check(fj_device_upload(device, memory, text, 4, NULL, &error), &error);
    box_check(fj_device_fill(device, (char *)memory + 1, 'x', 1, NULL, &error), &error);
    box_check(fj_device_download(device, back, memory, 4, NULL, &error), &error);
    box_check(fj_device_wait(device, NULL, &error), &error);
    ck_assert_str_eq(back, "axc");
    box_check(fj_timer_stop(timer, NULL, &error), &error);
    box_check(fj_timer_read(timer, &ms, &error), &error);
    ck_assert(ms == 1.5);
    fj_timer_unref(&timer);
    fj_device_free(device, &memory);
    ck_assert_ptr_null(memory);
    fj_device_unref(&device);
    box_check(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_90", &device, &error), &error);
    ck_assert_int_eq(fj_device_alloc(device, 4, &memory, &error), FJ_ERR_DEVICE);
    ck_assert_str_eq(error.text,
                     "cuda:sm_90 is not on this machine: kernels can be built for it, nothing else");
}
END_TEST

int main(void) {
    const TTest *const tests[] = {another_context_does_not_break_a_capture, tensors_are_the_gpus,
                                  a_block_mask_on_a_gpu, what_fails_at_a_launch, memory_and_time_of_a_gpu};
    Suite *suite = suite_create("gpu");
    TCase *group = tcase_create("launch");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_set_timeout(group, 100);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(group, tests[i]);
    tcase_add_loop_test(group, a_launch_gives_what_the_definition_does, 0, GPU_CASES_OF_HOST);
    tcase_add_loop_test(group, bad_reads_are_told_by_the_check, 0, 3);
    tcase_add_loop_test(group, a_launch_can_be_captured, 0, 4);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
