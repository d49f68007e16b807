/* Times of kernels that are right: `kern --bench`. On the cpu and a GPU the median of many runs; the emulator counts what
 * a kernel does, which does not depend on the machine. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern/kern.h"

enum { WARM = 3, RUNS = 21 };

static const char *const bench_mods[] = {"none", "causal", "alibi", "softcap"};
static const int bench_dims[] = {64, 128};

/* Variants of one problem that match the filter. */
static int add_variants(test *to, const kernel *model, const range *r) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    const fj_features features = target_features(r->targets[0]);
    const int count = fj_jit_variants(&model->problem, &features, list);
    int added = 0;
    for (int i = 0; i < count; i++) {
        test *t = &to[added];
        t->kernel = *model;
        t->kernel.variant = list[i];
        kernel_finish(&t->kernel);
        if ((!list[i].mma && list[i].target != FJ_TARGET_CPU) || fnmatch(r->filter, t->kernel.name, 0) != 0)
            continue;
        table_shapes(t, r, 2);
        added++;
    }
    return added;
}

/* BF16 on tensor cores, and F32 on the cpu, at the usual dimensions and mods. */
test *bench_make(const range *r, int *count) {
    enum { EACH = 2 * FJ_ARRAY_LEN(bench_mods) * FJ_ARRAY_LEN(bench_dims), PROBLEMS = 2 * EACH };
    test *tests = calloc((size_t)PROBLEMS * FJ_JIT_MAX_VARIANTS, sizeof *tests);
    if (!tests) abort();
    *count = 0;
    for (size_t i = 0; i < (target_is_cpu(r->targets[0]) ? PROBLEMS : EACH); i++) {
        const int dim = bench_dims[i % EACH / 2 / FJ_ARRAY_LEN(bench_mods)];
        kernel model = {.problem = {.kind = i % 2 ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD,
                                    .dtype = i < EACH ? FJ_DTYPE_BF16 : FJ_DTYPE_F32,
                                    .head_dim = dim,
                                    .value_dim = dim,
                                    .deterministic = true},
                        .mod = mod_find(bench_mods[i / 2 % FJ_ARRAY_LEN(bench_mods)])};
        const graphs g = mod_graphs(model.mod);
        model.problem.ir = g.ir;
        model.problem.gradient = i % 2 ? g.gradient : NULL;
        *count += add_variants(tests + *count, &model, r);
    }
    return tests;
}

/* ---- Measuring ------------------------------------------------------------------------------------------ */

typedef struct job {
    const call *c;
    const object *o;
} job;

static fj_status run_once(void *user) {
    const job *j = user;
    const mode first = {.schedule = FJ_EMU_FORWARD};
    return j->c->device->run(j->c, j->o, &first, NULL, NULL);
}

static int compare_times(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the products alone, over what is visible; backward has five. */
static double flops_of(const call *c) {
    const fj_jit_problem *p = &c->kernel->problem;
    const double pairs = (double)(c->shape->batch * c->shape->heads_q) * (double)reference_area(c);
    return 2 * pairs *
           (kernel_is_backward(c->kernel) ? 3.0 * p->head_dim + 2.0 * p->value_dim
                                          : (double)(p->head_dim + p->value_dim));
}

static bool report_times(const job *j, FILE *out) {
    double ms[RUNS];
    job copy = *j;
    if (!j->c->device->measure(run_once, &copy, WARM, ms) ||
        !j->c->device->measure(run_once, &copy, RUNS, ms))
        return (void)fprintf(out, "    it cannot be measured\n"), false;
    qsort(ms, RUNS, sizeof *ms, compare_times);
    (void)fprintf(out, "    %9.4f ms (%.4f to %.4f) %8.3f TFLOP/s\n", ms[RUNS / 2], ms[0], ms[RUNS - 1],
                  flops_of(j->c) / ms[RUNS / 2] * 1e-9);
    return true;
}

static bool report_counts(call *c, const object *o, FILE *out) {
    const mode first = {.schedule = FJ_EMU_FORWARD};
    fj_emu_counts n = {0};
    if (!call_run(c, o, &first, &n, out)) return false;
    (void)fprintf(
        out,
        "    %llu products, %llu matrix loads, %llu bank conflicts, %llu barriers, %llu asynchronous bytes\n",
        (unsigned long long)n.matrix_products, (unsigned long long)n.matrix_loads,
        (unsigned long long)n.bank_conflicts, (unsigned long long)n.barriers,
        (unsigned long long)n.async_bytes);
    return true;
}

static bool time_kernel(const runner *r, const kernel *k, const object *o, FILE *out) {
    const bool measured = r->device->measure != NULL;
    const bool cpu = r->device == &device_cpu; /* one worker */
    const int64_t length = r->length ? r->length : cpu ? 2048 : measured ? 4096 : 256;
    const int64_t heads = cpu ? 1 : measured ? 16 : 2;
    const shape s = {.batch = cpu ? 1 : 2,
                     .heads_q = heads,
                     .heads_kv = heads,
                     .q_len = length,
                     .kv_len = length,
                     .scale = 0.125,
                     .how = LAYOUT_PACKED,
                     .l2_group = 8,
                     .dropout = 0.1};
    call c;
    call_make(&c, r->device, k, &s, r->seed, false);
    bool good;
    if (measured) {
        const mode first = {.schedule = FJ_EMU_FORWARD};
        good = call_run(&c, o, &first, NULL, out) &&
               report_times(&(job){&c, o}, out); /* everything is there then */
    } else {
        good = report_counts(&c, o, out);
    }
    call_finish(&c);
    return good;
}

/* Only of what is right. */
isolate_result bench_test(const runner *r, const test *t, FILE *out, char where[ISOLATE_WHERE]) {
    fj_buf text;
    object *o = NULL;
    isolate_result result = run_test(r, t, out, where);
    if (result != ISOLATE_OK) return result;
    (void)snprintf(where, ISOLATE_WHERE, "while it is measured");
    fj_buf_init(&text, &fj_allocator_libc);
    bool good =
        kernel_render(&t->kernel, NULL, &text, out) && r->device->build(&t->kernel, text.data, out, &o);
    fj_buf_finish(&text);
    if (!good) return ISOLATE_FAILED;
    good = time_kernel(r, &t->kernel, o, out);
    r->device->unload(o);
    return good ? ISOLATE_OK : ISOLATE_SPENT;
}
