/* Every operation of ops.def by every device: the hooks that kernels get, compiled and run by the cpu and the emulator
 * against the evaluator at edges, with their gradients; and compiled by NVRTC, where there is one, with a call of each.
 * In float and in double.
 *
 * What ops.def calls exact is exact; functions are within a few ulp, gradients within what rounding does to them. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "driver/driver.h"
#include "driver/emu/emu.h"
#include "generate.h"
#include "jit/compile.h"
#include "jit/nvrtc.h"
#include "ops_cases.h"
#include "templates/cpu/abi.h"
#include "templates/cuda/abi.h"

#include "ops_call.h"

enum { MOST_OPTIONS = 40, FUNCTION_ULP = 4, GRADIENT_ULP = 32 };

static fj_error error;

/* ---- Comparing ------------------------------------------------------------------------------------------ */

/* Rounded once, though they take floats only; and what is far from it. */
static const struct {
    fj_op op;
    double ulp;
} bounds[] = {{FJ_OP_DIV, 0},      {FJ_OP_SQRT, 0},     {FJ_OP_FLOOR, 0},
              {FJ_OP_CEIL, 0},     {FJ_OP_ROUND, 0},    {FJ_OP_TRUNC, 0},
              {FJ_OP_FLOORDIV, 1}, {FJ_OP_FLOORMOD, 1}, {FJ_OP_TANH_APPROX, 1 << 14}};

static double bound_of(fj_op op) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(bounds); i++)
        if (bounds[i].op == op) return bounds[i].ulp;
    return fj_op_table[op].rule == FJ_RULE_FLOAT ? FUNCTION_ULP : 0;
}

static double ulp_of(double x, bool f64) {
    int exponent;
    (void)frexp(x, &exponent);
    return f64 ? ldexp(1, (exponent < -1021 ? -1021 : exponent) - DBL_MANT_DIG)
               : ldexp(1, (exponent < -125 ? -125 : exponent) - FLT_MANT_DIG);
}

/* bound: how far apart finite ones may be. */
static bool is_near(double got, double want, double bound, bool f64) {
    const double most = f64 ? DBL_MAX : (double)FLT_MAX;
    if (isnan(got) || isnan(want)) return isnan(got) && isnan(want);
    if (got == want) return true;
    if (isinf(got) && isinf(want)) return false;
    if (isinf(got)) return copysign(most, got) == copysign(most, want) && fabs(want) >= most - bound;
    if (isinf(want)) return copysign(most, got) == copysign(most, want) && fabs(got) >= most - bound;
    return fabs(got - want) <= bound;
}

typedef struct answers {
    ops_answer exact, rounded, got;
} answers;

/* A gradient is a chain of operations: where it is rounded at each step it may be far from what is exact. */
static bool is_near_gradient(const ops_case *c, bool f64, double got, double rounded, double exact) {
    const double own = fmax(GRADIENT_ULP, 2 * bound_of(c->op));
    double bound = own * ulp_of(rounded, f64) + own * ulp_of(1, f64);
    if (isfinite(exact) && isfinite(rounded)) bound += 4 * fabs(exact - rounded);
    return is_near(got, rounded, bound, f64) || is_near(got, exact, bound, f64);
}

static void check_case(const char *device, const ops_case *c, const ops_inputs *in, int query,
                       const answers *a) {
    const double ulp = bound_of(c->op);
    for (int p = 0; p < OPS_POSITIONS; p++) {
        const double want = a->rounded.score[p], got = a->got.score[p];
        FJ_HOLD(is_near(got, want, ulp * ulp_of(want, in->f64), in->f64) &&
                    (got != 0 || want != 0 || signbit(got) == signbit(want)),
                "%s f%d, %s, position %d, query %d: score %a gives %a instead of %a", device,
                in->f64 ? 64 : 32, c->name, p, query, in->score[p], got, want);
        FJ_HOLD(a->got.fault[p] == a->rounded.fault[p], "%s f%d, %s, position %d: fault %d", device,
                in->f64 ? 64 : 32, c->name, p, a->got.fault[p]);
        FJ_HOLD(is_near_gradient(c, in->f64, a->got.dscore[p], a->rounded.dscore[p], a->exact.dscore[p]),
                "%s f%d, %s, position %d: d/dscore at %a is %a instead of %a", device, in->f64 ? 64 : 32,
                c->name, p, in->score[p], a->got.dscore[p], a->rounded.dscore[p]);
        const double *of = a->rounded.dcaptures[OPS_FB];
        FJ_HOLD(
            is_near_gradient(c, in->f64, a->got.dcaptures[OPS_FB][p], of[p], a->exact.dcaptures[OPS_FB][p]),
            "%s f%d, %s, position %d: d/db at score %a is %a instead of %a", device, in->f64 ? 64 : 32,
            c->name, p, in->score[p], a->got.dcaptures[OPS_FB][p], of[p]);
    }
    FJ_HOLD(is_near(a->got.dscalar, a->exact.dscalar, 1e-4 * (1 + fabs(a->exact.dscalar)), in->f64),
            "%s f%d, %s: the gradient of the scalar is %a instead of %a", device, in->f64 ? 64 : 32, c->name,
            a->got.dscalar, a->exact.dscalar);
}

/* ---- Compiling ------------------------------------------------------------------------------------------- */

/* options and the folders of the texts' includes. */
static void join_options(const char *const *options, const char *const *more,
                         const char *list[MOST_OPTIONS]) {
    static const char *const folders[] = {"-I" OPS_SOURCE "/tests/expr/ir", "-I" OPS_SOURCE, NULL};
    const char *const *const parts[] = {options, more, folders};
    int count = 0;
    for (size_t i = 0; i < FJ_ARRAY_LEN(parts); i++)
        for (const char *const *option = parts[i]; *option; option++) list[count++] = *option;
    list[count] = NULL;
    ck_assert_int_lt(count, MOST_OPTIONS);
}

static fj_code *compile(fj_language language, const char *const *options, const char *const *more,
                        const fj_buf *text) {
    const char *list[MOST_OPTIONS];
    fj_compiler compiler;
    fj_buf object;
    fj_code *code = NULL;
    join_options(options, more, list);
    fj_buf_init(&object, &fj_allocator_libc);
    fj_status status =
        fj_jit_compiler_find(language, &fj_file_ops_system, &fj_allocator_libc, &compiler, &error);
    if (status == FJ_OK)
        status = fj_jit_compile(&compiler, language, list, &fj_file_ops_system,
                                (fj_str){text->data, text->len}, &object, &error);
    if (status == FJ_OK)
        status =
            fj_driver_cpu.load(&fj_driver_cpu, &fj_allocator_libc, object.data, object.len, &code, &error);
    FJ_HOLD(status == FJ_OK, "%s\n%.800s", error.text, error.detail ? error.detail : "");
    fj_buf_finish(&object);
    return code;
}

/* ---- Devices ------------------------------------------------------------------------------------------------ */

/* A word that holds a real. */
typedef union word {
    double f64;
    float f32;
} word;

static struct ops_call call_of(const ops_inputs *in, int number, int query, answers *a) {
    return (struct ops_call){
        .score = in->score,
        .adjoint = in->adjoint,
        .live = (const uint8_t *)in->live,
        .out = a->got.score,
        .dout = a->got.dscore,
        .fault = (uint8_t *)a->got.fault,
        .number = number,
        .query = query,
        .positions = OPS_POSITIONS,
        .summed = OPS_FB,
    };
}

typedef void (*lanes_entry)(const struct fj_cpu_args *, const struct ops_call *);

static void run_lanes(const void *entry, const ops_inputs *in, int number, int query, answers *a) {
    struct fj_cpu_tensor tensors[OPS_CAPTURES];
    union fj_cpu_scalar scalars[OPS_SCALARS];
    struct ops_call call = call_of(in, number, query, a);
    lanes_entry run;
    for (int i = 0; i < OPS_CAPTURES; i++) {
        tensors[i] = (struct fj_cpu_tensor){
            .data = (char *)(uintptr_t)in->captures[i].data, .shape = {OPS_POSITIONS}, .stride = {1}};
    }
    for (int i = 0; i < OPS_SCALARS; i++) scalars[i].i = in->scalars[i].i;
    call.sums = a->got.dcaptures[OPS_FB];
    call.scalar_sums = &a->got.dscalar;
    const struct fj_cpu_args args = {.captures = tensors, .scalars = scalars};
    memcpy(&run, &entry, sizeof run);
    run(&args, &call);
}

static void run_emu(const void *entry, const ops_inputs *in, int number, int query, answers *a) {
    static fj_emu *emu;
    struct fj_cuda_capture captures[OPS_CAPTURES];
    struct fj_cuda_scalar scalars[OPS_SCALARS];
    word sums[OPS_POSITIONS] = {{0}}, scalar = {0};
    struct {
        const struct fj_cuda_capture *captures;
        const struct fj_cuda_scalar *scalars;
        struct ops_call call;
    } args = {captures, scalars, call_of(in, number, query, a)};
    for (int i = 0; i < OPS_CAPTURES; i++) {
        captures[i] =
            (struct fj_cuda_capture){.data = in->captures[i].data, .shape = {OPS_POSITIONS}, .stride = {1}};
    }
    for (int i = 0; i < OPS_SCALARS; i++) {
        scalars[i] =
            (struct fj_cuda_scalar){.f = i == 0 ? in->scalars[i].f : 0, .i = i > 0 ? in->scalars[i].i : 0};
    }
    args.call.sums = sums;
    args.call.scalar_sums = &scalar;
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options options = {.launch = &one};
    const fj_emu_shape shape = {{1, 1, 1}, 32, 0};
    if (!emu) ck_assert_int_eq(fj_emu_create(&fj_allocator_libc, &emu, &error), FJ_OK);
    const fj_status status = fj_emu_launch(emu, entry, &shape, &args, &options, &error);
    FJ_HOLD(status == FJ_OK, "%s %s", error.text, error.detail ? error.detail : "");
    for (int p = 0; p < OPS_POSITIONS; p++)
        a->got.dcaptures[OPS_FB][p] = in->f64 ? sums[p].f64 : (double)sums[p].f32;
    a->got.dscalar = in->f64 ? scalar.f64 : (double)scalar.f32;
}

static void check_device(fj_arena *arena, const char *device, const fj_code *code, const ops_cases *cases,
                         const ops_inputs *in,
                         void (*run)(const void *, const ops_inputs *, int, int, answers *)) {
    const void *entry = fj_driver_cpu.symbol(code, "ops_try");
    ck_assert_ptr_nonnull(entry);
    answers *a = FJ_NEW(arena, answers);
    for (int n = 0; n < cases->count; n++)
        for (int query = 0; query < cases->list[n].pieces; query++) {
            ops_evaluate(arena, &cases->list[n], in, query, false, &a->exact);
            ops_evaluate(arena, &cases->list[n], in, query, !in->f64, &a->rounded);
            memset(&a->got, 0, sizeof a->got);
            run(entry, in, n, query, a);
            check_case(device, &cases->list[n], in, query, a);
        }
}

/* The widest instruction set of this machine that has no kind of number of its own. */
static fj_isa best_isa(void) {
    const fj_features features = fj_jit_features();
    return features.isa[FJ_ISA_AVX512] ? FJ_ISA_AVX512
         : features.isa[FJ_ISA_AVX2]   ? FJ_ISA_AVX2
                                       : FJ_ISA_PORTABLE;
}

static void check_cpu(fj_arena *arena, const ops_cases *cases, const ops_inputs *in) {
    static const char *const isas[] = {"-DFJ_ISA=0", "-DFJ_ISA_AVX2=1", "-DFJ_ISA_AVX512=1"};
    const fj_isa isa = best_isa();
    fj_buf text;
    fj_buf_init(&text, &fj_allocator_libc);
    ops_emit(cases, FJ_EMIT_CPU, in->f64, &text);
    const char *const more[] = {isas[isa], "-O0", "-I" OPS_SOURCE "/templates/cpu", NULL};
    fj_code *code = compile(FJ_LANGUAGE_C, fj_jit_compile_options(isa), more, &text);
    check_device(arena, "cpu", code, cases, in, run_lanes);
    fj_driver_cpu.unload(&code);
    fj_buf_finish(&text);
}

static void check_emu(fj_arena *arena, const ops_cases *cases, const ops_inputs *in, const fj_buf *text) {
    const char *const more[] = {"-DFJ_ARCH=80", "-O0", "-I" OPS_SOURCE "/templates/cuda", NULL};
    fj_code *code = compile(FJ_LANGUAGE_CXX, fj_jit_compile_options_emu(), more, text);
    check_device(arena, "emu", code, cases, in, run_emu);
    fj_driver_cpu.unload(&code);
}

/* The kernel calls what the operations call: a function that is not there is an error. */
static void check_nvrtc(const fj_buf *text) {
    static const char *const options[] = {"--gpu-architecture=sm_80", "--std=c++17",
                                          "-default-device",          "--fmad=false",
                                          "--ptxas-options=-O0",      NULL};
    static const char *const more[] = {"-I" OPS_SOURCE "/templates/cuda", NULL};
    const char *list[MOST_OPTIONS];
    const fj_nvrtc *nvrtc = NULL;
    fj_buf cubin, log;
    if (fj_jit_nvrtc_open((fj_arch){80, 0}, &fj_file_ops_system, &nvrtc, &error) != FJ_OK) {
        printf("nvrtc: skipped: %s\n", error.text);
        return;
    }
    join_options(options, more, list);
    fj_buf_init(&cubin, &fj_allocator_libc);
    fj_buf_init(&log, &fj_allocator_libc);
    const fj_status status = fj_jit_nvrtc_compile(
        nvrtc, &fj_file_ops_system, "ops", (fj_str){text->data, text->len}, list, &cubin, &log, &error);
    FJ_HOLD(status == FJ_OK, "%s\n%.800s", error.text, log.data ? log.data : "");
    FJ_HOLD(cubin.len > 4 && memcmp(cubin.data, "\177ELF", 4) == 0, "NVRTC gives no cubin");
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
}

/* ---- Tests ---------------------------------------------------------------------------------------------------- */

static void check_all(fj_arena *arena, fj_random *random, int number) {
    ops_inputs *in = FJ_NEW(arena, ops_inputs);
    ops_cases *cases = FJ_NEW(arena, ops_cases);
    fj_buf text;
    (void)random;
    ops_inputs_make(in, number != 0);
    ops_cases_make(arena, in, cases);
    check_cpu(arena, cases, in);
    fj_buf_init(&text, &fj_allocator_libc);
    ops_emit(cases, FJ_EMIT_CUDA, in->f64, &text);
    check_emu(arena, cases, in, &text);
    check_nvrtc(&text);
    fj_buf_finish(&text);
}

START_TEST(every_operation_on_every_device) { fj_check_property("ops", 2, check_all); }
END_TEST

int main(void) {
    Suite *suite = suite_create("ops");
    TCase *tcase = tcase_create("devices");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, every_operation_on_every_device);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
