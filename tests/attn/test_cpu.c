/* Kernels of templates/cpu where the definition has a corner, against it; and items of a phase, which threads may run
 * together, for memory that two of them change. */
#include <sys/mman.h>
#include <unistd.h>

#include "driver/parallel.h"
#include "tests/attn/calls.h"

static char folder[64];

static void setup(void) {
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    unsetenv("FLEXJIT_NO_JIT");
    unsetenv("FLEXJIT_TEMPLATE_PATH");
}

static void teardown(void) { folder_remove(folder); }

static fj_problem problem_of(fj_direction direction) {
    return (fj_problem){.struct_size = sizeof(fj_problem),
                        .direction = direction,
                        .dtype = FJ_DTYPE_F32,
                        .head_dim = 16,
                        .value_dim = 16,
                        .max = direction == FJ_FORWARD};
}

/* NaN where the definition has one; else near. */
static void check_near(const test_tensor *a, const test_tensor *b, const char *name) {
    const float *x = a->dl.data, *y = b->dl.data;
    for (size_t i = 0; i < a->bytes / sizeof *x; i++) {
        const bool near =
            isnan(y[i]) ? isnan(x[i]) : x[i] == y[i] || fabsf(x[i] - y[i]) <= 1e-4F * (1 + fabsf(y[i]));
        ck_assert_msg(near, "%s[%zu]: %g, not %g", name, i, (double)x[i], (double)y[i]);
    }
}

static float *row_of(test_tensor *t, int64_t h, int64_t i) {
    return (float *)t->dl.data + (h * t->shape[2] + i) * t->shape[3];
}

/* ---- Against the definition ------------------------------------------------------------------------------ */

static void check_forward(test_stack stacks[2], int64_t keys) {
    const int64_t dims[] = {4, keys};
    test_call calls[2];
    test_tensor table;
    tensor_init(&table, FJ_DTYPE_F32, 2, dims);
    tensor_fill(&table, 5);
    const DLTensor *captures[] = {&table.dl};
    for (int i = 0; i < 2; i++) {
        fj_error error = {0};
        call_init(&calls[i], (test_sizes){1, 4, 2, 5, keys, 16, 16});
        for (int d = 0; d < 16; d++) row_of(&calls[i].key, 1, 7)[d] = NAN;
        calls[i].args.captures = captures;
        calls[i].args.max = &calls[i].max.dl;
        ck_assert_msg(call_launch(&calls[i], stacks[i].kernel, NULL, &error) == FJ_OK, "%s", error.text);
    }
    check_near(&calls[0].out, &calls[1].out, "out");
    check_near(&calls[0].lse, &calls[1].lse, "lse");
    check_near(&calls[0].max, &calls[1].max, "max");
    for (int h = 0; h < 4; h++) ck_assert(((float *)calls[0].lse.dl.data)[h * 5 + 3] == -INFINITY);
    ck_assert(isnan(((float *)calls[0].max.dl.data)[2 * 5]) && !isnan(((float *)calls[0].max.dl.data)[5]));
    for (int i = 0; i < 2; i++) call_finish(&calls[i]);
    free(table.dl.data);
}

/* One row is masked whole, in every split where keys are many and rows few; two heads of the four, which share a tile, see
 * a key of NaN among others; a value of the column is another one for each head. */
START_TEST(few_rows_and_many_keys) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 2, .dims = {-1, -1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "score + table[h, kv]",
                             .mask = "q != 3",
                             .bindings = &binding,
                             .binding_count = 1};
    const fj_problem problem = problem_of(FJ_FORWARD);
    test_stack stacks[2];
    stack_open(&stacks[0], FJ_DEVICE_CPU, &mod, &problem);
    stack_open(&stacks[1], FJ_DEVICE_REFERENCE, &mod, &problem);
    check_forward(stacks, 70);
    check_forward(stacks, 2100);
    for (int i = 0; i < 2; i++) stack_finish(&stacks[i]);
}
END_TEST

/* Forward and backward by the cpu and by the definition, of head dimensions 16. captures: may be NULL. */
static void check_both(const fj_mod_desc *mod, test_sizes sizes, const DLTensor *const *captures,
                       void (*change)(test_call *call), test_call calls[2]) {
    for (int i = 0; i < 2; i++) {
        fj_error error = {0};
        call_init(&calls[i], sizes);
        calls[i].args.captures = captures;
        if (change) change(&calls[i]);
        for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
            const fj_problem problem = problem_of((fj_direction)direction);
            test_stack stack;
            stack_open(&stack, i == 0 ? FJ_DEVICE_CPU : FJ_DEVICE_REFERENCE, mod, &problem);
            calls[i].args.max = direction == FJ_FORWARD ? &calls[i].max.dl : NULL;
            ck_assert_msg(call_launch(&calls[i], stack.kernel, NULL, &error) == FJ_OK, "%s", error.text);
            stack_finish(&stack);
        }
    }
    check_near(&calls[0].out, &calls[1].out, "out");
    check_near(&calls[0].dquery, &calls[1].dquery, "dquery");
    check_near(&calls[0].dkey, &calls[1].dkey, "dkey");
    check_near(&calls[0].dvalue, &calls[1].dvalue, "dvalue");
}

static void spoil_a_key(test_call *call) {
    for (int d = 0; d < 16; d++) row_of(&call->key, 1, 2)[d] = NAN;
}

/* A derivative that is infinite or NaN where it is masked, and a key of NaN that nobody sees. */
START_TEST(what_is_masked_has_no_gradient) {
    const fj_mod_desc mod = {
        .struct_size = sizeof mod, .score = "score * log(q - kv)", .mask = "(q > kv) & (kv != 2)"};
    test_call calls[2];
    check_both(&mod, (test_sizes){1, 4, 2, 37, 40, 16, 16}, NULL, spoil_a_key, calls);
    for (size_t i = 0; i < calls[0].dquery.bytes / sizeof(float); i++)
        ck_assert(isfinite(((float *)calls[0].dquery.dl.data)[i]));
    for (int i = 0; i < 2; i++) call_finish(&calls[i]);
}
END_TEST

/* Backward leaves out several tiles of queries at once: what lies behind them is seen. */
START_TEST(rows_behind_many_that_see_nothing) {
    const fj_mod_desc mod = {.struct_size = sizeof mod, .mask = "(q - kv > 500) | ((q < 3) & (kv < 2))"};
    test_call calls[2];
    check_both(&mod, (test_sizes){1, 1, 1, 800, 40, 16, 16}, NULL, NULL, calls);
    for (int i = 0; i < 2; i++) call_finish(&calls[i]);
}
END_TEST

/* A block of keys some of which lie past a table's end: they are what the other branch says, and the rest is the table's. */
START_TEST(a_table_that_ends_within_a_block) {
    const fj_binding binding = {.name = "few", .dtype = FJ_DTYPE_I64, .rank = 1, .dims = {-1}};
    static const char *const masks[] = {"where(kv < 5, few[kv], 0) >= 5", "where(kv < 5, -few[kv], 0) < 0"};
    const int64_t dims[] = {5};
    test_tensor few;
    tensor_init(&few, FJ_DTYPE_I64, 1, dims);
    for (int i = 0; i < 5; i++) ((int64_t *)few.dl.data)[i] = 7 + i;
    const DLTensor *captures[] = {&few.dl};
    for (size_t m = 0; m < FJ_ARRAY_LEN(masks); m++) {
        const fj_mod_desc mod = {
            .struct_size = sizeof mod, .mask = masks[m], .bindings = &binding, .binding_count = 1};
        test_call calls[2];
        check_both(&mod, (test_sizes){1, 1, 1, 7, 300, 16, 16}, captures, NULL, calls);
        ck_assert(((float *)calls[0].lse.dl.data)[0] > -INFINITY);
        for (int i = 0; i < 2; i++) call_finish(&calls[i]);
    }
    free(few.dl.data);
}
END_TEST

/* Branches that are not taken are computed too, for a vector's other lanes: they read nothing outside of the tensor. */
START_TEST(what_is_not_selected_is_not_read) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(memory != MAP_FAILED && mprotect(memory + page, page, PROT_NONE) == 0);
    const fj_binding binding = {.name = "few", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "where(kv < 5, score + few[kv], score)",
                             .bindings = &binding,
                             .binding_count = 1};
    const fj_problem problem = problem_of(FJ_FORWARD);
    const int64_t dims[] = {5};
    fj_error error = {0};
    test_tensor few;
    test_stack stack;
    test_call call;
    tensor_init(&few, FJ_DTYPE_F32, 1, dims);
    free(few.dl.data);
    few.dl.data = memory + page - 5 * sizeof(float);
    const DLTensor *captures[] = {&few.dl};
    call_init(&call, (test_sizes){1, 1, 1, 4, 64, 16, 16});
    call.args.captures = captures;
    stack_open(&stack, FJ_DEVICE_CPU, &mod, &problem);
    call.args.max = &call.max.dl;
    ck_assert_msg(call_launch(&call, stack.kernel, NULL, &error) == FJ_OK, "%s", error.text);
    stack_finish(&stack);
    call_finish(&call);
    (void)munmap(memory, 2 * page);
}
END_TEST

/* Of captures in any order, some with a gradient and some without. */
START_TEST(a_capture_without_a_gradient_comes_first) {
    const fj_binding bindings[] = {{.name = "ids", .dtype = FJ_DTYPE_I32, .rank = 1, .dims = {-1}},
                                   {.name = "bias", .dtype = FJ_DTYPE_F32, .rank = 2, .dims = {-1, -1}}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "where(ids[q] > 0, score * bias[q, kv], score)",
                             .bindings = bindings,
                             .binding_count = 2};
    const int64_t dims[] = {37, 40};
    test_tensor ids, bias, dbias[2];
    tensor_init(&ids, FJ_DTYPE_I32, 1, dims);
    for (int i = 0; i < 37; i++) ((int32_t *)tensor_elements(&ids))[i] = i % 3;
    tensor_init(&bias, FJ_DTYPE_F32, 2, dims);
    tensor_fill(&bias, 5);
    for (int i = 0; i < 2; i++) {
        fj_error error = {0};
        test_stack stack;
        test_call call;
        call_init(&call, (test_sizes){1, 2, 2, 37, 40, 16, 16});
        tensor_init(&dbias[i], FJ_DTYPE_F32, 2, dims);
        const DLTensor *captures[] = {&ids.dl, &bias.dl}, *dcaptures[] = {NULL, &dbias[i].dl};
        call.args.captures = captures;
        call.args.dcaptures = dcaptures;
        for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
            const fj_problem problem = problem_of((fj_direction)direction);
            stack_open(&stack, i == 0 ? FJ_DEVICE_CPU : FJ_DEVICE_REFERENCE, &mod, &problem);
            ck_assert_str_eq(fj_mod_capture(stack.mod, 0).name, "ids");
            call.args.max = direction == FJ_FORWARD ? &call.max.dl : NULL;
            ck_assert_msg(call_launch(&call, stack.kernel, NULL, &error) == FJ_OK, "%s", error.text);
            stack_finish(&stack);
        }
        call_finish(&call);
    }
    check_near(&dbias[0], &dbias[1], "dbias");
    ck_assert(fabsf(((float *)dbias[0].dl.data)[41]) > 0);
    for (int i = 0; i < 2; i++) free(dbias[i].dl.data);
    free(ids.dl.data);
    free(bias.dl.data);
}
END_TEST

/* ---- Items of a phase -------------------------------------------------------------------------------------- */

/* Runs items one after the other, each as one of many workers, and looks which bytes of the workspace each changes: what
 * the items of two workers change, threads would change at once. A worker's own memory is changed by it alone. */
typedef struct watch {
    unsigned char *memory, *before, *owner; /* 0: nobody's in this phase */
    size_t size, shared;                    /* shared: bytes that two workers changed */
    int workers, phases;
} watch;

static void note_changes(watch *w, size_t from, size_t to, int worker) {
    for (size_t i = from; i < to; i++) {
        if (w->memory[i] == w->before[i]) continue;
        w->shared += w->owner[i] != 0 && w->owner[i] != worker + 1;
        w->owner[i] = (unsigned char)(worker + 1);
    }
}

static void run_watched(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker),
                        void *arg) {
    enum { BLOCK = 4096 };
    watch *w = user;
    memset(w->owner, 0, w->size);
    w->phases++;
    for (int64_t item = 0; item < items; item++) {
        const int worker = (int)(item % w->workers);
        memcpy(w->before, w->memory, w->size);
        fn(arg, item, worker);
        for (size_t at = 0; at < w->size; at += BLOCK) {
            const size_t end = at + BLOCK < w->size ? at + BLOCK : w->size;
            if (memcmp(w->memory + at, w->before + at, end - at) != 0) note_changes(w, at, end, worker);
        }
    }
}

static size_t shared_bytes(const test_stack *stack, const test_call *call) {
    watch w = {.workers = 12};
    const fj_executor executor = {.user = &w, .workers = w.workers, .run = run_watched};
    const fj_launch launch = {.struct_size = sizeof launch, .executor = &executor};
    fj_error error = {0};
    ck_assert_int_eq(fj_kernel_workspace(stack->kernel, &call->args, &launch, &w.size, &error), FJ_OK);
    w.memory = aligned_alloc(256, (w.size + 255) / 256 * 256);
    w.before = malloc(w.size);
    w.owner = malloc(w.size);
    memset(w.memory, 0x5a, w.size);
    const fj_status status = fj_kernel_launch(stack->kernel, &call->args, &launch, w.memory, w.size, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    ck_assert_int_ge(w.phases, 3);
    free(w.memory);
    free(w.before);
    free(w.owner);
    return w.shared;
}

/* bias[q, kv], which the query heads of a group share: of few keys and many rows, and the reverse. */
START_TEST(items_of_a_phase_share_nothing) {
    static const test_sizes sizes[] = {
        {1, 2, 1, 200, 64, 16, 16}, {1, 2, 1, 40, 700, 16, 16}, {2, 4, 2, 100, 150, 16, 16}};
    const fj_binding binding = {.name = "bias", .dtype = FJ_DTYPE_F32, .rank = 2, .dims = {-1, -1}};
    const fj_mod_desc mod = {
        .struct_size = sizeof mod, .score = "score + bias[q, kv]", .bindings = &binding, .binding_count = 1};
    const fj_problem problem = problem_of(FJ_BACKWARD);
    test_stack stack;
    stack_open(&stack, FJ_DEVICE_CPU, &mod, &problem);
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++) {
        const int64_t dims[] = {sizes[i].l, sizes[i].s};
        test_tensor bias, dbias;
        test_call call;
        call_init(&call, sizes[i]);
        tensor_init(&bias, FJ_DTYPE_F32, 2, dims);
        tensor_init(&dbias, FJ_DTYPE_F32, 2, dims);
        const DLTensor *captures[] = {&bias.dl}, *dcaptures[] = {&dbias.dl};
        call.args.captures = captures;
        call.args.dcaptures = dcaptures;
        ck_assert_msg(shared_bytes(&stack, &call) == 0, "case %zu: two items change the same bytes", i);
        free(bias.dl.data);
        free(dbias.dl.data);
        call_finish(&call);
    }
    stack_finish(&stack);
}
END_TEST

/* ---- Instruction sets --------------------------------------------------------------------------------- */

/* A device of an instruction set plans for that set, here or not; it loads kernels where this CPU has it. */
START_TEST(a_cpu_of_an_instruction_set) {
    static const char *const sets[] = {"portable", "avx2", "avx512", "avx512bf16"};
    const fj_context_desc desc = {.struct_size = sizeof desc};
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    fj_context *context = NULL;
    fj_mod *mod = NULL;
    fj_device *device = NULL;
    fj_error error = {0};
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    ck_assert_int_eq(fj_mod_create(context, &identity, &mod, &error), FJ_OK);
    for (size_t i = 0; i < FJ_ARRAY_LEN(sets); i++) {
        fj_plan *plan = NULL;
        fj_problem problem = problem_of(FJ_FORWARD);
        char name[32];
        (void)snprintf(name, sizeof name, "cpu:%s", sets[i]);
        problem.dtype = FJ_DTYPE_BF16;
        ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CPU, sets[i], &device, &error), FJ_OK);
        ck_assert_str_eq(fj_device_name(device), name);
        ck_assert_int_eq(fj_plan_create(device, mod, &problem, &plan, &error), FJ_OK);
        ck_assert_str_eq(strrchr(fj_plan_variant(plan), '_') + 1, sets[i]);
        ck_assert((device->driver != NULL) == fj_jit_features().isa[i]);
        device->driver = NULL; /* as where this CPU does not have it */
        fj_kernel *kernel = NULL;
        fj_mask_maker *maker = NULL;
        double flops;
        ck_assert_int_eq(fj_kernel_create(plan, &kernel, &error), FJ_ERR_DEVICE);
        ck_assert_int_eq(fj_device_peak(device, FJ_DTYPE_F32, 1, &flops, &error), FJ_ERR_DEVICE);
        const fj_mod_desc causal = {.struct_size = sizeof causal, .mask = "q >= kv"};
        fj_mod *mask = NULL;
        ck_assert_int_eq(fj_mod_create(context, &causal, &mask, &error), FJ_OK);
        ck_assert_int_eq(fj_mask_maker_create(device, mask, FJ_DTYPE_F32, &maker, &error), FJ_ERR_DEVICE);
        fj_mod_unref(&mask);
        fj_plan_unref(&plan);
        fj_device_unref(&device);
    }
    ck_assert_int_eq(fj_device_create_for_arch(context, FJ_DEVICE_CPU, "avx", &device, &error), FJ_ERR_NAME);
    ck_assert_str_eq(error.text, "'avx' is not an instruction set of the cpu device");
    fj_error_finish(&error);
    fj_mod_unref(&mod);
    fj_context_unref(&context);
}
END_TEST

/* ---- Logarithms of sums alone ------------------------------------------------------------------------------- */

/* lse has the bits that it has beside an output; the output's mod, which reads what is not there, is not evaluated; and where
 * values are not read, they need not be readable. */
static void check_lse_alone(test_stack *stack, int64_t keys, bool reads_values) {
    const int64_t widths[] = {16, 3};
    test_call calls[2];
    test_tensor tables[2];
    fj_error error = {0};
    void *const unreadable = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(unreadable, MAP_FAILED);
    for (int i = 0; i < 2; i++) {
        call_init(&calls[i], (test_sizes){1, 4, 2, 5, keys, 16, 16});
        tensor_init(&tables[i], FJ_DTYPE_F32, 1, &widths[i]);
        const DLTensor *captures[] = {&tables[i].dl};
        calls[i].args.captures = captures;
        calls[i].args.max = &calls[i].max.dl;
        if (i == 1) calls[i].args.out = NULL;
        void *const value = calls[i].value.dl.data;
        if (i == 1 && !reads_values) calls[i].value.dl.data = unreadable;
        ck_assert_msg(call_launch(&calls[i], stack->kernel, NULL, &error) == FJ_OK, "%s", error.text);
        calls[i].value.dl.data = value;
    }
    ck_assert_mem_eq(calls[1].lse.dl.data, calls[0].lse.dl.data, calls[0].lse.bytes);
    ck_assert_mem_eq(calls[1].max.dl.data, calls[0].max.dl.data, calls[0].max.bytes);
    ck_assert(((float *)calls[0].lse.dl.data)[0] != 0);
    for (int i = 0; i < 2; i++) {
        call_finish(&calls[i]);
        free(tables[i].dl.data);
    }
    (void)munmap(unreadable, 1 << 20);
}

/* Of few rows, split or not, and of so many that keys are packed; on every device. */
START_TEST(lse_alone) {
    static const struct {
        fj_device_kind device;
        const char *kernel;
        bool few;
    } of[] = {{FJ_DEVICE_CPU, NULL, true},
              {FJ_DEVICE_CPU, NULL, false},
              {FJ_DEVICE_REFERENCE, NULL, false},
              {FJ_DEVICE_EMU, "mma", false},
              {FJ_DEVICE_EMU, "simt", false}};
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .mask = "q != 3",
                             .out = "out + table[d]",
                             .bindings = &binding,
                             .binding_count = 1};
    fj_problem problem = problem_of(FJ_FORWARD);
    test_stack stack;
    problem.kernel = of[_i].kernel;
    problem.few_queries = of[_i].few;
    stack_open(&stack, of[_i].device, &mod, &problem);
    check_lse_alone(&stack, 70, of[_i].device != FJ_DEVICE_CPU);
    if (of[_i].device == FJ_DEVICE_CPU) check_lse_alone(&stack, 2100, false);
    stack_finish(&stack);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("cpu");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 100);
    tcase_add_test(tests, few_rows_and_many_keys);
    tcase_add_test(tests, what_is_masked_has_no_gradient);
    tcase_add_test(tests, rows_behind_many_that_see_nothing);
    tcase_add_test(tests, a_table_that_ends_within_a_block);
    tcase_add_test(tests, what_is_not_selected_is_not_read);
    tcase_add_test(tests, a_capture_without_a_gradient_comes_first);
    tcase_add_test(tests, items_of_a_phase_share_nothing);
    tcase_add_test(tests, a_cpu_of_an_instruction_set);
    tcase_add_loop_test(tests, lse_alone, 0, 5);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
