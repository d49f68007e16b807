/* Every allocation fails once, for each step of the way: clean errors, nothing leaks. */
#include "tests/attn/calls.h"

static char folder[64];
static failing_allocator failing;

static void setup(void) {
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    failing = (failing_allocator){.countdown = -1};
}

static void teardown(void) { folder_remove(folder); }

static const char source[] = "slopes = torch.empty(8)\n"
                             "WINDOW = 64\n"
                             "cap = 30.0\n"
                             "def mask_mod(b, h, q, kv):\n"
                             "    return (q >= kv) & (q - kv <= WINDOW)\n"
                             "def score_mod(score, b, h, q, kv):\n"
                             "    score = cap * torch.tanh(score / cap)\n"
                             "    return score + slopes[h] * (kv - q)\n";

static const fj_binding binding = {.name = "slopes", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {8}};
static const fj_param param = {.name = "WINDOW", .expression = "32"};
static const char *const runtime[] = {"cap"};

static fj_mod_desc describe(void) {
    return (fj_mod_desc){.struct_size = sizeof(fj_mod_desc),
                         .source = source,
                         .source_length = sizeof source - 1,
                         .file = "mod.py",
                         .params = &param,
                         .param_count = 1,
                         .runtime_params = runtime,
                         .runtime_param_count = 1,
                         .bindings = &binding,
                         .binding_count = 1};
}

static const char *const mod_stages[] = {"ast", "ir", "grad", "rates", "ranges"};
static const char *const plan_stages[] = {"prologue", "source", "plan", "key"};

/* The whole way; stops at the first failure. */
static fj_status go(test_stack *stack, fj_device_kind kind, fj_direction direction, fj_error *error) {
    fj_context_desc desc = {.struct_size = sizeof desc, .resize = failing_resize, .allocator_user = &failing};
    fj_mod_desc mod = describe();
    fj_problem problem = {.struct_size = sizeof problem,
                          .direction = direction,
                          .dtype = FJ_DTYPE_F32,
                          .head_dim = 16,
                          .value_dim = 16};
    fj_status status = stack_init(stack, kind, &mod, &problem, &desc, error);
    for (size_t i = 0; status == FJ_OK && i < FJ_ARRAY_LEN(mod_stages); i++) {
        fj_text text = {0};
        status = fj_mod_show(stack->mod, mod_stages[i], &text, error);
        ck_assert_int_eq(text.data != NULL, status == FJ_OK);
        fj_text_finish(&text);
    }
    for (size_t i = 0; status == FJ_OK && kind == FJ_DEVICE_CPU && i < FJ_ARRAY_LEN(plan_stages); i++) {
        fj_text text = {0};
        status = fj_plan_show(stack->plan, plan_stages[i], &text, error);
        ck_assert_int_eq(text.data != NULL, status == FJ_OK);
        fj_text_finish(&text);
    }
    if (status == FJ_OK && kind == FJ_DEVICE_CPU) {
        fj_text header = {0}, text = {0};
        status = fj_plan_emit_c(stack->plan, "kernel", &header, &text, error);
        ck_assert_int_eq(header.data && text.data, status == FJ_OK);
        ck_assert_int_eq(!header.data && !text.data, status != FJ_OK);
        fj_text_finish(&header);
        fj_text_finish(&text);
    }
    return status;
}

static void check_all(fj_device_kind kind, fj_direction direction) {
    bool reached_the_end = false;
    test_stack stack;
    fj_error error = {0};
    fj_status status = go(&stack, kind, direction, &error); /* fills the cache */
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
    stack_finish(&stack);
    ck_assert_int_eq(failing.live, 0);
    for (long n = 0; !reached_the_end; n++) {
        failing.countdown = n;
        status = go(&stack, kind, direction, &error);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert_msg(status == FJ_OK || status == FJ_ERR_MEMORY, "allocation %ld: status %d: %s", n, status,
                      error.text);
        stack_finish(&stack);
        ck_assert_msg(failing.live == 0, "allocation %ld: %ld blocks are left", n, (long)failing.live);
    }
    fj_error_finish(&error);
}

START_TEST(reference) { check_all(FJ_DEVICE_REFERENCE, FJ_BACKWARD); }
END_TEST
START_TEST(rounding) { check_all(FJ_DEVICE_ROUNDING, FJ_BACKWARD); }
END_TEST
START_TEST(forward) { check_all(FJ_DEVICE_CPU, FJ_FORWARD); }
END_TEST
START_TEST(backward) { check_all(FJ_DEVICE_CPU, FJ_BACKWARD); }
END_TEST

START_TEST(launches) {
    const test_sizes sizes = {1, 2, 1, 5, 7, 16, 16};
    const int64_t eight[] = {8};
    static const fj_device_kind kinds[] = {FJ_DEVICE_CPU, FJ_DEVICE_REFERENCE, FJ_DEVICE_UNFUSED,
                                           FJ_DEVICE_ROUNDING};
    for (size_t kind = 0; kind < FJ_ARRAY_LEN(kinds); kind++) {
        test_stack stack;
        test_tensor slopes;
        test_call call;
        fj_error error = {0};
        call_init(&call, sizes);
        tensor_init(&slopes, FJ_DTYPE_F32, 1, eight);
        const DLTensor *captures[] = {&slopes.dl};
        call.args.captures = captures;
        ck_assert_int_eq(go(&stack, kinds[kind], FJ_FORWARD, &error), FJ_OK);
        bool reached_the_end = false;
        for (long n = 0; !reached_the_end; n++) {
            long before = failing.live;
            failing.countdown = n;
            fj_status status = call_launch(&call, stack.kernel, NULL, &error);
            reached_the_end = failing.countdown >= 0;
            failing.countdown = -1;
            ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY);
            ck_assert_int_eq(failing.live, before);
        }
        free(slopes.dl.data);
        call_finish(&call);
        stack_finish(&stack);
    }
}
END_TEST

static int files_in(const char *path, const char *end) {
    int count = 0;
    DIR *stream = opendir(path);
    for (struct dirent *entry; stream && (entry = readdir(stream)) != NULL;) {
        const size_t length = strlen(entry->d_name), tail = strlen(end);
        count += length > tail && strcmp(entry->d_name + length - tail, end) == 0;
    }
    if (stream) (void)closedir(stream);
    return count;
}

/* Keeps a call while the N-th allocation or file operation fails: all of its files are there, or its manifest is not. */
static bool capture_with(atomic_long *countdown, long n, const test_stack *stack, const test_call *call,
                         fj_status expected) {
    char path[64];
    fj_text file = {0};
    fj_error error = {0};
    folder_create(path);
    const long before = failing.live;
    *countdown = n;
    const fj_status status = fj_kernel_capture(stack->kernel, &call->args, NULL, path, &file, &error);
    const bool reached_the_end = *countdown >= 0;
    *countdown = -1;
    ck_assert_msg(status == FJ_OK || status == expected, "%ld: status %d: %s", n, status, error.text);
    ck_assert_int_eq(failing.live, before);
    ck_assert_int_eq(files_in(path, ".tmp"), 0);
    if (status != FJ_ERR_MEMORY) ck_assert_int_eq(files_in(path, ".json"), status == FJ_OK);
    if (status == FJ_OK) ck_assert_int_eq(files_in(path, ".safetensors"), 1);
    if (status == FJ_OK) ck_assert_int_eq(files_in(path, ".py"), 1);
    fj_text_finish(&file);
    folder_remove(path);
    return reached_the_end;
}

START_TEST(kept_calls) {
    const test_sizes sizes = {1, 2, 1, 5, 7, 16, 16};
    const int64_t eight[] = {8};
    int64_t strides[] = {160, 16, 32, 1}; /* heads within a row: gathered */
    test_stack stack;
    test_tensor slopes;
    test_call call;
    fj_error error = {0};
    call_init(&call, sizes);
    call.query.dl.strides = strides;
    tensor_init(&slopes, FJ_DTYPE_F32, 1, eight);
    const DLTensor *gathered[] = {&slopes.dl};
    call.args.captures = gathered;
    ck_assert_int_eq(go(&stack, FJ_DEVICE_REFERENCE, FJ_FORWARD, &error), FJ_OK);
    for (long n = 0; !capture_with(&failing.countdown, n, &stack, &call, FJ_ERR_MEMORY);) n++;
    stack.context->files = &failing_files;
    for (long n = 0; !capture_with(&failing_files_countdown, n, &stack, &call, FJ_ERR_IO);) n++;
    free(slopes.dl.data);
    call_finish(&call);
    stack_finish(&stack);
}
END_TEST

/* "No allocation in a launch." */
START_TEST(a_launch_allocates_nothing) {
    const test_sizes sizes = {1, 2, 1, 5, 7, 16, 16};
    const int64_t eight[] = {8};
    test_stack stack;
    test_tensor slopes;
    test_call call;
    fj_error error = {0};
    size_t size;
    call_init(&call, sizes);
    tensor_init(&slopes, FJ_DTYPE_F32, 1, eight);
    const DLTensor *captures[] = {&slopes.dl};
    call.args.captures = captures;
    ck_assert_int_eq(go(&stack, FJ_DEVICE_CPU, FJ_FORWARD, &error), FJ_OK);
    failing.countdown = 0;
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, NULL, &size, &error), FJ_OK);
    ck_assert_int_eq(failing.countdown, 0);
    void *workspace = aligned_alloc(256, (size + 255) / 256 * 256);
    ck_assert_msg(fj_kernel_launch(stack.kernel, &call.args, NULL, workspace, size, &error) == FJ_OK, "%s",
                  error.text);
    ck_assert_int_eq(failing.countdown, 0);
    failing.countdown = -1;
    free(workspace);
    free(slopes.dl.data);
    call_finish(&call);
    stack_finish(&stack);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("memory");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 100);
    tcase_add_test(tests, reference);
    tcase_add_test(tests, rounding);
    tcase_add_test(tests, forward);
    tcase_add_test(tests, backward);
    tcase_add_test(tests, launches);
    tcase_add_test(tests, kept_calls);
    tcase_add_test(tests, a_launch_allocates_nothing);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
