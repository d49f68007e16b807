/* Launching: executors, threads, workspaces, bad reads, the cache through the public API. */
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/parallel.h"
#include "tests/attn/calls.h"

static char folder[64];
static const test_sizes odd = {2, 4, 2, 37, 129, 16, 16};

static void setup(void) {
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    unsetenv("FLEXJIT_NO_JIT");
    unsetenv("FLEXJIT_TEMPLATE_PATH");
}

static void teardown(void) { folder_remove(folder); }

static const fj_mod_desc causal_alibi = {
    .struct_size = sizeof causal_alibi,
    .score = "score + 0.5 * (kv - q)",
    .mask = "q >= kv",
};

static const fj_problem problems[2] = {
    {.struct_size = sizeof *problems,
     .direction = FJ_FORWARD,
     .dtype = FJ_DTYPE_F32,
     .head_dim = 16,
     .value_dim = 16},
    {.struct_size = sizeof *problems,
     .direction = FJ_BACKWARD,
     .dtype = FJ_DTYPE_F32,
     .head_dim = 16,
     .value_dim = 16},
};

/* ---- Executors ------------------------------------------------------------------------------------ */

struct pool {
    int64_t items;
    atomic_llong next;
    atomic_int worker;
    void (*fn)(void *arg, int64_t item, int worker);
    void *arg;
};

static void *work(void *argument) {
    struct pool *pool = argument;
    int worker = pool->worker++;
    for (int64_t item; (item = pool->next++) < pool->items;) pool->fn(pool->arg, item, worker);
    return NULL;
}

static void run_pool(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    int workers = *(const int *)user;
    pthread_t threads[16];
    struct pool pool = {.items = items, .fn = fn, .arg = arg};
    for (int i = 0; i < workers; i++)
        if (pthread_create(&threads[i], NULL, work, &pool) != 0) abort();
    for (int i = 0; i < workers; i++) (void)pthread_join(threads[i], NULL);
}

/* All items on one thread, the last first. */
static void run_backwards(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker),
                          void *arg) {
    (void)user;
    while (items-- > 0) fn(arg, items, 0);
}

static void check_same(const test_call *a, const test_call *b, fj_direction direction) {
    const test_tensor *const pairs[][2] = {{&a->out, &b->out},
                                           {&a->lse, &b->lse},
                                           {&a->dquery, &b->dquery},
                                           {&a->dkey, &b->dkey},
                                           {&a->dvalue, &b->dvalue}};
    for (int i = direction == FJ_FORWARD ? 0 : 2; i < (direction == FJ_FORWARD ? 2 : 5); i++)
        ck_assert_msg(memcmp(pairs[i][0]->dl.data, pairs[i][1]->dl.data, pairs[i][0]->bytes) == 0,
                      "output %d", i);
}

/* The bits do not depend on who runs the items. */
START_TEST(workers_do_not_change_results) {
    test_call first, other;
    test_stack stacks[2];
    call_init(&first, odd);
    call_init(&other, odd);
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_error error = {0};
        const fj_kernel *kernel;
        stack_open(&stacks[direction], FJ_DEVICE_CPU, &causal_alibi, &problems[direction]);
        kernel = stacks[direction].kernel;
        fj_launch launch = {.struct_size = sizeof launch, .workers = 1};
        ck_assert_int_eq(call_launch(&first, kernel, &launch, &error), FJ_OK);
        memcpy(other.out.dl.data, first.out.dl.data, first.out.bytes);
        memcpy(other.lse.dl.data, first.lse.dl.data, first.lse.bytes);
        ck_assert_int_eq(call_launch(&other, kernel, NULL, &error), FJ_OK);
        check_same(&first, &other, (fj_direction)direction);
        for (int workers = 1; workers <= 7; workers += 3) {
            fj_executor executor = {.user = &workers, .workers = workers, .run = run_pool};
            launch = (fj_launch){.struct_size = sizeof launch, .executor = &executor};
            ck_assert_int_eq(call_launch(&other, kernel, &launch, &error), FJ_OK);
            check_same(&first, &other, (fj_direction)direction);
            launch = (fj_launch){.struct_size = sizeof launch, .workers = workers};
            ck_assert_int_eq(call_launch(&other, kernel, &launch, &error), FJ_OK);
            check_same(&first, &other, (fj_direction)direction);
        }
        fj_executor executor = {.workers = 1, .run = run_backwards};
        launch = (fj_launch){.struct_size = sizeof launch, .executor = &executor};
        ck_assert_int_eq(call_launch(&other, kernel, &launch, &error), FJ_OK);
        check_same(&first, &other, (fj_direction)direction);
        stack_finish(&stacks[direction]);
    }
    call_finish(&first);
    call_finish(&other);
}
END_TEST

/* ---- Against the definition --------------------------------------------------------------------------- */

static void check_near(const test_tensor *a, const test_tensor *b, const char *name) {
    const float *x = a->dl.data, *y = b->dl.data;
    for (size_t i = 0; i < a->bytes / sizeof *x; i++)
        ck_assert_msg(x[i] == y[i] || fabsf(x[i] - y[i]) <= 1e-4f * (1 + fabsf(y[i])), "%s[%zu]: %g, not %g",
                      name, i, (double)x[i], (double)y[i]);
}

/* The best variant of each instruction set; tests/kern has all of them. */
START_TEST(every_instruction_set_agrees_with_the_definition) {
    test_call call, reference;
    call_init(&call, odd);
    call_init(&reference, odd);
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        test_stack exact;
        fj_error error = {0};
        fj_features features = fj_jit_features();
        fj_variant variants[FJ_JIT_MAX_VARIANTS];
        stack_open(&exact, FJ_DEVICE_REFERENCE, &causal_alibi, &problems[direction]);
        ck_assert_int_eq(call_launch(&reference, exact.kernel, NULL, &error), FJ_OK);
        memcpy(call.out.dl.data, reference.out.dl.data, call.out.bytes);
        memcpy(call.lse.dl.data, reference.lse.dl.data, call.lse.bytes);
        int count = fj_jit_variants(&exact.plan->jit_problem, &features, variants);
        for (int i = 0; i < count; i++) {
            test_stack stack;
            fj_problem problem = problems[direction];
            if (i > 0 && variants[i].isa == variants[i - 1].isa) continue;
            problem.variant = variants[i].name;
            stack_open(&stack, FJ_DEVICE_CPU, &causal_alibi, &problem);
            ck_assert_str_eq(fj_plan_variant(stack.plan), variants[i].name);
            ck_assert_int_eq(call_launch(&call, stack.kernel, NULL, &error), FJ_OK);
            if (direction == FJ_FORWARD) {
                check_near(&call.out, &reference.out, "out");
                check_near(&call.lse, &reference.lse, "lse");
            } else {
                check_near(&call.dquery, &reference.dquery, "dquery");
                check_near(&call.dkey, &reference.dkey, "dkey");
                check_near(&call.dvalue, &reference.dvalue, "dvalue");
            }
            stack_finish(&stack);
        }
        stack_finish(&exact);
    }
    call_finish(&call);
    call_finish(&reference);
}
END_TEST

/* ---- Workspaces ------------------------------------------------------------------------------------------ */

START_TEST(workspaces_are_checked) {
    test_stack stack;
    test_call call;
    fj_error error = {0};
    size_t size = 0;
    stack_open(&stack, FJ_DEVICE_CPU, NULL, NULL);
    call_init(&call, odd);
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, NULL, &size, &error), FJ_OK);
    ck_assert_uint_gt(size, 0);
    char *workspace = aligned_alloc(256, (size + 511) / 256 * 256);
    ck_assert_int_eq(fj_kernel_launch(stack.kernel, &call.args, NULL, workspace + 16, size, &error),
                     FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "the workspace is not aligned to 256 bytes");
    ck_assert_int_eq(fj_kernel_launch(stack.kernel, &call.args, NULL, NULL, 0, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "the workspace is missing");
    for (size_t small = 0; small < size; small += small < 1024 ? 64 : size / 7)
        ck_assert_int_eq(fj_kernel_launch(stack.kernel, &call.args, NULL, workspace, small, &error),
                         FJ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.text, "this launch needs"));
    for (size_t i = 0; i < call.out.bytes; i++) ck_assert_int_eq(((char *)call.out.dl.data)[i], 0);
    ck_assert_int_eq(fj_kernel_launch(stack.kernel, &call.args, NULL, workspace, size, &error), FJ_OK);
    free(workspace);
    call_finish(&call);
    stack_finish(&stack);
}
END_TEST

START_TEST(workers_have_a_limit) {
    static const int bad[] = {-1, 4097, INT32_MAX};
    test_call call;
    test_stack stack;
    size_t size = 0;
    fj_error error = {0};
    call_init(&call, odd);
    stack_open(&stack, FJ_DEVICE_CPU, &causal_alibi, &problems[FJ_FORWARD]);
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad); i++) {
        const fj_executor executor = {.workers = bad[i], .run = run_backwards};
        const fj_launch of_openmp = {.struct_size = sizeof of_openmp, .workers = bad[i]},
                        of_executor = {.struct_size = sizeof of_executor, .executor = &executor};
        ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, &of_openmp, &size, &error),
                         FJ_ERR_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(error.text, "the limit is 4096"));
        ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, &of_executor, &size, &error),
                         FJ_ERR_ARGUMENT);
    }
    const fj_launch most = {.struct_size = sizeof most, .workers = 4096};
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, &most, &size, &error), FJ_OK);
    stack_finish(&stack);
    call_finish(&call);
    fj_error_finish(&error);
}
END_TEST

/* A caller of a newer version: what is behind the fields of this one is not read, so it may be absent. */
START_TEST(larger_descriptors) {
    test_call call;
    test_stack stack;
    size_t size = 0, page = (size_t)sysconf(_SC_PAGESIZE);
    fj_error error = {0};
    call_init(&call, odd);
    stack_open(&stack, FJ_DEVICE_CPU, &causal_alibi, &problems[FJ_FORWARD]);
    char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(memory + page, page, PROT_NONE), 0);
    fj_args *args = (fj_args *)(void *)(memory + page - sizeof *args);
    *args = call.args;
    args->struct_size = sizeof *args + 64;
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, args, NULL, &size, &error), FJ_OK);
    args->struct_size = SIZE_MAX;
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, args, NULL, &size, &error), FJ_OK);
    (void)munmap(memory, 2 * page);
    stack_finish(&stack);
    call_finish(&call);
}
END_TEST

START_TEST(sizes_need_no_data) {
    test_stack stack;
    test_call call;
    fj_error error = {0};
    size_t size = 0, again = 0;
    stack_open(&stack, FJ_DEVICE_CPU, NULL, NULL);
    call_init(&call, odd);
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, NULL, &size, &error), FJ_OK);
    DLTensor query = call.query.dl, out = call.out.dl;
    query.data = out.data = NULL;
    call.args.query = &query;
    call.args.out = &out;
    ck_assert_int_eq(fj_kernel_workspace(stack.kernel, &call.args, NULL, &again, &error), FJ_OK);
    ck_assert_uint_eq(size, again);
    call_finish(&call);
    stack_finish(&stack);
}
END_TEST

/* ---- Scores ---------------------------------------------------------------------------------------------- */

static int64_t scores_of(fj_device_kind kind, const char *mask, fj_direction direction, test_sizes sizes,
                         fj_block_counts *ret_counts) {
    const fj_binding binding = {.name = "ends", .dtype = FJ_DTYPE_I32, .rank = 2, .dims = {-1, -1}};
    const fj_mod_desc mod = {
        .struct_size = sizeof mod, .mask = mask, .bindings = &binding, .binding_count = 1};
    const int64_t dims[] = {sizes.hq, sizes.l};
    test_stack stack;
    test_call call;
    test_tensor ends;
    fj_error error = {0};
    stack_open(&stack, kind, &mod, &problems[direction]);
    call_init(&call, sizes);
    tensor_init(&ends, FJ_DTYPE_I32, 2, dims);
    for (int64_t i = 0; i < dims[0] * dims[1]; i++)
        ((int32_t *)tensor_elements(&ends))[i] = (int32_t)(i * i % (sizes.s + 1));
    call.args.captures = (const DLTensor *const[]){&ends.dl};
    ck_assert_msg(fj_kernel_blocks(stack.kernel, &call.args, ret_counts, &error) == FJ_OK, "%s", error.text);
    free(ends.dl.data);
    call_finish(&call);
    stack_finish(&stack);
    return ret_counts->scores;
}

/* By intervals, by elements, and by what b and h a mask reads. On cpu the kernels count. */
START_TEST(scores_are_what_the_mask_leaves) {
    const test_sizes sizes = {2, 4, 2, 700, 700, 16, 16};
    int64_t ends = 0;
    for (int64_t i = 0; i < sizes.hq * sizes.l; i++) {
        const int64_t end = i * i % (sizes.s + 1);
        ends += end + (end > 300 ? end - 300 : 0);
    }
    const struct {
        const char *mask;
        int64_t scores;
        bool cpu;
    } cases[] = {
        {NULL, 8 * 700 * 700, false},
        {"q >= kv", 8 * 700 * 701 / 2, false},
        {"q >= kv + 300 * b", 4 * (700 * 701 / 2 + 400 * 401 / 2), false},
        {"kv < ends[h, q] - 300 * b", ends, true},
        {"q * q < 0", 0, false},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_block_counts of;
        ck_assert_int_eq(scores_of(FJ_DEVICE_REFERENCE, cases[i].mask, FJ_FORWARD, sizes, &of),
                         cases[i].scores);
        for (int backward = 0; cases[i].cpu && backward < 2; backward++)
            ck_assert_int_eq(scores_of(FJ_DEVICE_CPU, cases[i].mask, (fj_direction)backward, sizes, &of),
                             cases[i].scores);
    }
}
END_TEST

/* Rows are chosen. */
START_TEST(scores_of_large_masks_are_estimated) {
    static const int64_t lengths[] = {24000, 4096};
    for (int i = 0; i < 2; i++) {
        const test_sizes sizes = {1, 1, 1, lengths[i], lengths[i], 16, 16};
        const fj_device_kind kind = i == 0 ? FJ_DEVICE_CPU : FJ_DEVICE_REFERENCE;
        const double all = (double)(sizes.l * sizes.s);
        fj_block_counts of;
        const int64_t found = scores_of(kind, "(q * q + kv) % 5 < q % 4", FJ_FORWARD, sizes, &of);
        ck_assert_double_eq_tol((double)found / all, 0.3, 0.002);
    }
}
END_TEST

/* ---- Bad reads ------------------------------------------------------------------------------------------- */

START_TEST(bad_reads_are_reported) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "score + table[kv]",
                             .mask = "kv != 11",
                             .bindings = &binding,
                             .binding_count = 1};
    const int64_t ten[] = {10}, long_enough[] = {200};
    test_tensor small, table;
    test_call call;
    call_init(&call, odd);
    tensor_init(&small, FJ_DTYPE_F32, 1, ten);
    tensor_init(&table, FJ_DTYPE_F32, 1, long_enough);
    const DLTensor *captures[] = {&small.dl};
    call.args.captures = captures;
    for (int kind = FJ_DEVICE_CPU; kind <= FJ_DEVICE_UNFUSED; kind++) {
        for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
            test_stack stack;
            fj_error error = {0};
            stack_open(&stack, (fj_device_kind)kind, &mod, &problems[direction]);
            captures[0] = &small.dl;
            fj_status status = call_launch(&call, stack.kernel, NULL, &error);
            bool looks =
                kind != FJ_DEVICE_CPU || direction == FJ_FORWARD; /* the forward pass before it has looked */
            ck_assert_msg(status == (looks ? FJ_ERR_INDEX : FJ_OK), "device %d, direction %d", kind,
                          direction);
            if (looks)
                ck_assert_msg(strstr(error.text, "'table'") && strstr(error.text, "index 10") &&
                                  strstr(error.text, "b=0 h=0 q=0 kv=10"),
                              "%s", error.text);
            captures[0] = &table.dl;
            ck_assert_msg(call_launch(&call, stack.kernel, NULL, &error) == FJ_OK, "%s", error.text);
            captures[0] = NULL;
            ck_assert_int_eq(call_launch(&call, stack.kernel, NULL, &error), FJ_ERR_TENSOR);
            ck_assert_str_eq(error.text, "captured tensor 'table' is missing");
            captures[0] = &call.query.dl;
            ck_assert_int_eq(call_launch(&call, stack.kernel, NULL, &error), FJ_ERR_TENSOR);
            ck_assert_str_eq(error.text, "captured tensor 'table' has rank 4, not 1");
            stack_finish(&stack);
        }
    }
    free(small.dl.data);
    free(table.dl.data);
    call_finish(&call);
}
END_TEST

/* Two workers, one of which has the greater heads and is done first: the least position is told. */
static void run_split(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    (void)user;
    for (int64_t item = items; item-- > 0;) fn(arg, item, item < items / 2);
}

START_TEST(the_least_of_two_faults_is_told) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "score + table[torch.where((h == 0) | (h == 2), 0, q + h)]",
                             .bindings = &binding,
                             .binding_count = 1};
    const int64_t three[] = {3};
    const fj_executor executors[] = {{.workers = 2, .run = run_split}, {.workers = 1, .run = run_backwards}};
    test_tensor table;
    test_stack stack;
    test_call call;
    call_init(&call, (test_sizes){1, 4, 2, 5, 7, 16, 16});
    tensor_init(&table, FJ_DTYPE_F32, 1, three);
    const DLTensor *captures[] = {&table.dl};
    call.args.captures = captures;
    stack_open(&stack, FJ_DEVICE_CPU, &mod, &problems[FJ_FORWARD]);
    for (size_t i = 0; i < FJ_ARRAY_LEN(executors);
         i++) { /* head 1 has its first at q = 2, head 3 at q = 0 */
        fj_error error = {0};
        const fj_launch launch = {.struct_size = sizeof launch, .executor = &executors[i]};
        ck_assert_int_eq(call_launch(&call, stack.kernel, &launch, &error), FJ_ERR_INDEX);
        ck_assert_msg(strstr(error.text, "index 3") && strstr(error.text, "b=0 h=1 q=2 kv=0"), "%s",
                      error.text);
        fj_error_finish(&error);
    }
    stack_finish(&stack);
    free(table.dl.data);
    call_finish(&call);
}
END_TEST

/* What is told of an index that is made of the score: that of the keys which the query head shares. */
START_TEST(an_index_of_the_score_is_told) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .score = "score + table[score.to(torch.int32)]",
                             .bindings = &binding,
                             .binding_count = 1};
    const int64_t some[] = {35};
    test_tensor table;
    test_call call;
    call_init(&call, (test_sizes){1, 4, 2, 2, 2, 16, 16});
    tensor_init(&table, FJ_DTYPE_F32, 1, some);
    const DLTensor *captures[] = {&table.dl};
    call.args.captures = captures;
    call.args.scale = 1;
    for (int i = 0; i < 4 * 2 * 16; i++) ((float *)call.query.dl.data)[i] = (float)(i >> 5); /* its head */
    for (int i = 0; i < 2 * 2 * 16; i++) ((float *)call.key.dl.data)[i] = i < 32 ? 0.5F : 1.25F;
    for (int kind = FJ_DEVICE_CPU; kind <= FJ_DEVICE_UNFUSED; kind++) {
        fj_error error = {0};
        test_stack stack;
        stack_open(&stack, (fj_device_kind)kind, &mod, &problems[FJ_FORWARD]);
        ck_assert_int_eq(call_launch(&call, stack.kernel, NULL, &error), FJ_ERR_INDEX);
        ck_assert_msg(strstr(error.text, "index 40") && strstr(error.text, "b=0 h=2 q=0 kv=0"), "%s",
                      error.text); /* 16 * 2 * 1.25 */
        fj_error_finish(&error);
        stack_finish(&stack);
    }
    free(table.dl.data);
    call_finish(&call);
}
END_TEST

/* ---- The cache ---------------------------------------------------------------------------------------------- */

START_TEST(kernels_come_from_the_cache) {
    test_stack stack;
    fj_error error = {0};
    stack_open(&stack, FJ_DEVICE_CPU, NULL, NULL);
    ck_assert(!fj_kernel_describe(stack.kernel).cache_hit);
    ck_assert(fj_kernel_describe(stack.kernel).compile_ms > 0);
    fj_kernel *shared = NULL;
    ck_assert_int_eq(fj_kernel_create(stack.plan, &shared, &error), FJ_OK);
    ck_assert_ptr_eq(shared->object, stack.kernel->object);
    fj_kernel_unref(&shared);
    stack_finish(&stack);
    setenv("FLEXJIT_NO_JIT", "1", 1);
    stack_open(&stack, FJ_DEVICE_CPU, NULL, NULL);
    ck_assert(fj_kernel_describe(stack.kernel).cache_hit);
    ck_assert(fj_kernel_describe(stack.kernel).compile_ms == 0);
    stack_finish(&stack);
    folder_remove(folder);
    ck_assert_int_eq(stack_init(&stack, FJ_DEVICE_CPU, NULL, NULL, NULL, &error), FJ_ERR_NO_JIT);
    ck_assert_ptr_null(stack.kernel);
    stack_finish(&stack);
}
END_TEST

/* A change of lengths or of a capture's shape never recompiles. */
START_TEST(lengths_do_not_recompile) {
    for (int64_t length = 8; length <= 16; length += 8) {
        const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {length}};
        const fj_mod_desc mod = {
            .struct_size = sizeof mod, .score = "score * table[h]", .bindings = &binding, .binding_count = 1};
        test_stack stack;
        stack_open(&stack, FJ_DEVICE_CPU, &mod, NULL);
        ck_assert_int_eq(fj_kernel_describe(stack.kernel).cache_hit, length > 8);
        stack_finish(&stack);
    }
}
END_TEST

static int log_count;
static void count_log(void *user, fj_log_level level, const char *message) {
    (void)user, (void)message;
    log_count += level == FJ_LOG_WARN;
}

START_TEST(a_cache_that_cannot_be_written_is_a_warning) {
    fj_context_desc desc = {.struct_size = sizeof desc,
                            .log = count_log,
                            .log_level = FJ_LOG_WARN,
                            .cache_path = "/proc/nowhere"};
    test_stack stack;
    fj_error error = {0};
    ck_assert_int_eq(stack_init(&stack, FJ_DEVICE_CPU, NULL, NULL, &desc, &error), FJ_OK);
    ck_assert_int_gt(log_count, 0);
    stack_finish(&stack);
}
END_TEST

/* ---- Threads --------------------------------------------------------------------------------------------------- */

enum { THREADS = 8 };

struct caller {
    pthread_t thread;
    const test_stack *stack;
    test_call call;
    fj_status status;
};

static void *prepare_and_launch(void *argument) {
    struct caller *self = argument;
    int one = 1;
    fj_executor executor = {.user = &one, .workers = 1, .run = run_backwards};
    fj_launch launch = {.struct_size = sizeof launch, .executor = &executor};
    for (int round = 0; round < 5 && self->status == FJ_OK; round++) {
        fj_kernel *kernel = NULL;
        fj_plan *plan = NULL;
        self->status = fj_plan_create(self->stack->device, self->stack->mod, &problems[0], &plan, NULL);
        if (self->status == FJ_OK)
            self->status = fj_kernel_create(round % 2 ? plan : self->stack->plan, &kernel, NULL);
        if (self->status == FJ_OK) self->status = call_launch(&self->call, kernel, &launch, NULL);
        fj_kernel_unref(&kernel);
        fj_plan_unref(&plan);
    }
    return NULL;
}

START_TEST(threads_prepare_and_launch_one_plan) {
    test_stack stack = {0};
    fj_error error = {0};
    ck_assert_int_eq(fj_context_create(NULL, &stack.context), FJ_OK);
    ck_assert_int_eq(fj_device_create(stack.context, FJ_DEVICE_CPU, &stack.device, &error), FJ_OK);
    ck_assert_int_eq(fj_mod_create(stack.context, &causal_alibi, &stack.mod, &error), FJ_OK);
    ck_assert_int_eq(fj_plan_create(stack.device, stack.mod, &problems[0], &stack.plan, &error), FJ_OK);
    static struct caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.stack = &stack};
        call_init(&callers[i].call, odd);
        ck_assert_int_eq(pthread_create(&callers[i].thread, NULL, prepare_and_launch, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) (void)pthread_join(callers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(callers[i].status, FJ_OK);
        check_same(&callers[0].call, &callers[i].call, FJ_FORWARD);
    }
    for (int i = 0; i < THREADS; i++) call_finish(&callers[i].call);
    stack_finish(&stack);
}
END_TEST

/* ---- Tools ------------------------------------------------------------------------------------------------------- */

START_TEST(the_doctor_reports) {
    test_stack stack;
    fj_text text = {0};
    fj_error error = {0};
    stack_open(&stack, FJ_DEVICE_REFERENCE, NULL, NULL);
    ck_assert_int_eq(fj_doctor(stack.context, &text, &error), FJ_OK);
    static const char *const parts[] = {"\"schema\": 1", "\"compilers\"", "\"avx512\"", "\"cache_layers\"",
                                        folder};
    for (size_t i = 0; i < FJ_ARRAY_LEN(parts); i++) ck_assert_ptr_nonnull(strstr(text.data, parts[i]));
    fj_text_finish(&text);
    stack_finish(&stack);
}
END_TEST

START_TEST(the_peak_is_measured) {
    test_stack stack;
    double flops = 0;
    fj_error error = {0};
    stack_open(&stack, FJ_DEVICE_CPU, NULL, NULL);
    ck_assert_msg(fj_device_peak(stack.device, FJ_DTYPE_F32, 1, &flops, &error) == FJ_OK, "%s", error.text);
    ck_assert(flops > 1e9 && flops < 1e13);
    ck_assert_int_eq(fj_device_peak(stack.device, FJ_DTYPE_I32, 1, &flops, &error), FJ_ERR_UNSUPPORTED);
    stack_finish(&stack);
    stack_open(&stack, FJ_DEVICE_REFERENCE, NULL, NULL);
    ck_assert_int_eq(fj_device_peak(stack.device, FJ_DTYPE_F32, 1, &flops, &error), FJ_ERR_UNSUPPORTED);
    stack_finish(&stack);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("launch");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 100);
    tcase_add_test(tests, workers_do_not_change_results);
    tcase_add_test(tests, every_instruction_set_agrees_with_the_definition);
    tcase_add_test(tests, workspaces_are_checked);
    tcase_add_test(tests, sizes_need_no_data);
    tcase_add_test(tests, scores_are_what_the_mask_leaves);
    tcase_add_test(tests, scores_of_large_masks_are_estimated);
    tcase_add_test(tests, bad_reads_are_reported);
    tcase_add_test(tests, the_least_of_two_faults_is_told);
    tcase_add_test(tests, an_index_of_the_score_is_told);
    tcase_add_test(tests, workers_have_a_limit);
    tcase_add_test(tests, larger_descriptors);
    tcase_add_test(tests, kernels_come_from_the_cache);
    tcase_add_test(tests, lengths_do_not_recompile);
    tcase_add_test(tests, a_cache_that_cannot_be_written_is_a_warning);
    tcase_add_test(tests, threads_prepare_and_launch_one_plan);
    tcase_add_test(tests, the_doctor_reports);
    tcase_add_test(tests, the_peak_is_measured);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
