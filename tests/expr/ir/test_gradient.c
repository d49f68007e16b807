/* Gradients: every operation and many random graphs against central differences in double, and the
 * conventions where there is no derivative. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "generate.h"

/* ---- Central differences ------------------------------------------------------------------------- */

typedef struct probe {
    fj_world *world;
    fj_eval *eval;
    int32_t at[4];
    double score;
    fj_outcome scratch;
} probe;

/* The loss is so many times the score: a derivative that forgets the adjoint of its result is wrong. */
#define ADJOINT (-1.5)

static double value_at(probe *p, double *input, double x) {
    const double kept = *input;
    *input = x;
    fj_world_run(p->world, p->eval, p->at, p->score, 0, true, &p->scratch);
    *input = kept;
    return ADJOINT * p->scratch.score;
}

/* False: the differences do not settle, as beside a kink, or where rounding of what is large hides them. */
static bool difference(probe *p, double *input, double *ret, double *ret_bound) {
    const double x = *input, h = 1e-4 * fmax(1.0, fabs(x));
    const double rounding = 16 * DBL_EPSILON * fabs(value_at(p, input, x)) / h;
    const double wide = (value_at(p, input, x + h) - value_at(p, input, x - h)) / (2 * h);
    const double narrow = (value_at(p, input, x + h / 2) - value_at(p, input, x - h / 2)) / h;
    *ret = (4 * narrow - wide) / 3;
    *ret_bound = 1e-7 * (1 + fabs(*ret)) + fabs(narrow - wide) + rounding;
    return isfinite(wide) && isfinite(narrow) && fabs(narrow - wide) + rounding <= 1e-4 * (1 + fabs(narrow));
}

/* Compares all gradients at a position; counts those that were compared. */
static int compare(probe *p, const fj_ir *gradient, const char *what) {
    fj_world *world = p->world;
    fj_arena *arena = world->ir->arena;
    fj_outcome got = fj_outcome_new(arena, world);
    int compared = 0;
    double expected, bound;
    p->scratch = fj_outcome_new(arena, world);
    fj_world_run(world, fj_eval_create(arena, gradient), p->at, p->score, ADJOINT, true, &got);
    if (difference(p, &p->score, &expected, &bound)) {
        FJ_HOLD(fabs(got.dscore - expected) <= bound, "%s: dscore %.17g, difference %.17g", what, got.dscore,
                expected);
        compared++;
    }
    for (size_t i = 0; i < world->ir->scalars.len; i++) {
        if (world->ir->scalars.data[i].type != FJ_TYPE_FLOAT ||
            !difference(p, &world->scalars[i].f, &expected, &bound))
            continue;
        FJ_HOLD(fabs(got.dscalars[i] - expected) <= bound, "%s: dscalar %zu %.17g, difference %.17g", what, i,
                got.dscalars[i], expected);
        compared++;
    }
    for (size_t c = 0; c < world->ir->captures.len; c++) {
        const fj_eval_tensor *tensor = &world->captures[c];
        if (tensor->dtype != FJ_DTYPE_F64) continue;
        for (int64_t k = 0; k < world->elements[c]; k++) {
            int64_t rest = k, offset = 0;
            for (int d = world->ir->captures.data[c].rank - 1; d >= 0; d--) {
                offset += rest % tensor->dims[d] * tensor->strides[d];
                rest /= tensor->dims[d];
            }
            double *element = (double *)(uintptr_t)tensor->data + offset;
            if (!difference(p, element, &expected, &bound)) continue;
            FJ_HOLD(fabs(got.dcaptures[c][k] - expected) <= bound,
                    "%s: capture %zu [%lld] %.17g, difference %.17g", what, c, (long long)k,
                    got.dcaptures[c][k], expected);
            compared++;
        }
    }
    return compared;
}

/* ---- Random graphs ------------------------------------------------------------------------------------ */

static long total_compared, total_graphs;

static void random_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    probe p = {.world = fj_generate_world(arena, random, FJ_GENERATE_SMOOTH)};
    const fj_ir *gradient =
        fj_ir_gradient(fj_random_below(random, 2) ? fj_ir_optimise(p.world->ir) : p.world->ir);
    ck_assert_ptr_null(fj_ir_validate(gradient));
    p.eval = fj_eval_create(arena, p.world->ir);
    for (int k = 0; k < 4; k++) p.at[k] = (int32_t)fj_random_below(random, 5);
    p.score = fj_random_real(random, -2, 2);
    const int compared = compare(&p, gradient, "random");
    total_compared += compared;
    total_graphs += compared > 0;
}

START_TEST(random_graphs) {
    const int count = fj_test_count(2500);
    fj_check_property("gradient", count, random_property);
    FJ_HOLD(total_graphs * 10 >= count * 8L, "only %ld graphs of %d were compared", total_graphs, count);
    ck_assert_int_ge(total_compared, count);
}
END_TEST

/* ---- Every operation -------------------------------------------------------------------------------------- */

/* score = op(score, scalar 0, scalar 1); where: of score > 0. */
static fj_ref operation(fj_ir *ir, fj_op op) {
    const fj_ref a = fj_ir_leaf(ir, FJ_OP_SCORE), b = fj_ir_scalar(ir, 0), c = fj_ir_scalar(ir, 1);
    if (op == FJ_OP_WHERE) return fj_ir_op3(ir, op, fj_ir_op2(ir, FJ_OP_GT, a, fj_ir_float(ir, 0)), b, c);
    return fj_op_table[op].arity == 1 ? fj_ir_op1(ir, op, a) : fj_ir_op2(ir, op, a, b);
}

typedef struct op_case {
    fj_op op;
    double a, b;
} op_case;

static fj_world *plain_world(fj_arena *arena, int captures) {
    fj_world *world = FJ_NEW(arena, fj_world);
    world->ir = fj_ir_create(arena);
    world->captures = FJ_NEW_ARRAY(arena, fj_eval_tensor, captures + 1);
    world->elements = FJ_NEW_ARRAY(arena, int64_t, captures + 1);
    world->scalars = FJ_NEW_ARRAY(arena, fj_scalar, 2);
    for (int i = 0; i < 2; i++)
        FJ_PUSH(arena, &world->ir->scalars, (fj_runtime_scalar){.name = "s", .type = FJ_TYPE_FLOAT});
    world->input = (fj_eval_input){.captures = world->captures, .scalars = world->scalars};
    return world;
}

static void check_operation(fj_scope *scope, void *argument) {
    const op_case *c = argument;
    probe p = {.world = plain_world(scope->arena, 0), .score = c->a};
    p.world->scalars[0].f = c->b;
    p.world->scalars[1].f = 0.75;
    p.world->ir->score = operation(p.world->ir, c->op);
    p.eval = fj_eval_create(scope->arena, p.world->ir);
    const int compared = compare(&p, fj_ir_gradient(p.world->ir), fj_op_table[c->op].name);
    FJ_HOLD(compared > 1, "%s(%g, %g): nothing could be compared", fj_op_table[c->op].name, c->a, c->b);
}

static void in_scope(void (*body)(fj_scope *, void *), void *argument) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_status status = fj_scope_run(&arena, &error, body, argument);
    fj_arena_finish(&arena);
    FJ_HOLD(status == FJ_OK, "%s", error.text);
}

START_TEST(every_operation) {
    static const double lefts[] = {0.3, -0.7, 0.9, 2.3, -3.7}, rights[] = {0.6, -1.7, 2.2};
    int operations = 0;
    for (int op = FJ_OP_NONE + 1; op < FJ_OP_COUNT; op++) {
        if (!fj_op_is_pointwise((fj_op)op) || fj_op_result((fj_op)op, FJ_TYPE_FLOAT) != FJ_TYPE_FLOAT)
            continue;
        operations++;
        const bool positive =
            op == FJ_OP_LOG || op == FJ_OP_LOG2 || op == FJ_OP_SQRT || op == FJ_OP_RSQRT || op == FJ_OP_POW;
        const bool unit = op == FJ_OP_ASIN || op == FJ_OP_ACOS;
        for (size_t i = 0; i < FJ_ARRAY_LEN(lefts); i++) {
            for (size_t k = 0; k < FJ_ARRAY_LEN(rights); k++) {
                op_case c = {(fj_op)op, lefts[i], rights[k]};
                if (positive) c.a = fabs(c.a);
                if (op == FJ_OP_LOG1P && c.a < -1) c.a = 0.2;
                if (unit && fabs(c.a) > 1) c.a = 0.4;
                in_scope(check_operation, &c);
            }
        }
    }
    ck_assert_int_gt(operations, 40);
}
END_TEST

/* ---- Reductions ------------------------------------------------------------------------------------------- */

typedef struct reduction_case {
    fj_op op;
    const double *values;
    const double *expected; /* of each value; NULL: by differences */
} reduction_case;

/* score + reduction of t[i] * 2 over i in 0..3 */
static void check_reduction(fj_scope *scope, void *argument) {
    const reduction_case *c = argument;
    probe p = {.world = plain_world(scope->arena, 1), .score = 0.5};
    fj_ir *ir = p.world->ir;
    double data[4];
    for (int i = 0; i < 4; i++) data[i] = c->values[i];
    const fj_capture capture = {
        .name = "t", .dtype = FJ_DTYPE_F64, .rank = 1, .dims = {-1}, .gradient = true};
    FJ_PUSH(scope->arena, &ir->captures, capture);
    p.world->captures[0] = (fj_eval_tensor){.data = data, .dtype = FJ_DTYPE_F64, .dims = {4}, .strides = {1}};
    p.world->elements[0] = 4;
    const fj_ref loop = fj_ir_loop(ir, fj_ir_dim(ir, 0, 0));
    const fj_ref body = fj_ir_op2(ir, FJ_OP_MUL, fj_ir_load(ir, 0, &loop, 1), fj_ir_float(ir, 2));
    ir->score = fj_ir_op2(ir, FJ_OP_ADD, fj_ir_leaf(ir, FJ_OP_SCORE), fj_ir_reduce(ir, c->op, loop, body));
    const fj_ir *gradient = fj_ir_gradient(ir);
    ck_assert_ptr_null(fj_ir_validate(gradient));
    p.eval = fj_eval_create(scope->arena, ir);
    if (c->expected == NULL) ck_assert_int_eq(compare(&p, gradient, fj_op_table[c->op].name), 7);
    fj_outcome got = fj_outcome_new(scope->arena, p.world);
    fj_world_run(p.world, fj_eval_create(scope->arena, gradient), p.at, 0.5, 1.0, true, &got);
    for (int i = 0; i < 4 && c->expected != NULL; i++)
        ck_assert_double_eq(got.dcaptures[0][i], c->expected[i]);
}

START_TEST(reductions) {
    static const double plain[] = {0.5, -1.5, 2.5, 1.0}, one_zero[] = {0.5, 0.0, 2.0, 1.0},
                        two_zeros[] = {0.0, 0.0, 2.0, 1.0};
    static const double tie[] = {3.0, 1.0, 3.0, 2.0};
    reduction_case cases[] = {
        {FJ_OP_REDUCE_SUM, plain, NULL},
        {FJ_OP_REDUCE_PROD, plain, NULL},
        {FJ_OP_REDUCE_PROD, one_zero, (const double[]){0, 16, 0, 0}},
        {FJ_OP_REDUCE_PROD, two_zeros, (const double[]){0, 0, 0, 0}},
        {FJ_OP_REDUCE_MAX, plain, NULL},
        {FJ_OP_REDUCE_MIN, plain, NULL},
        {FJ_OP_REDUCE_MAX, tie, (const double[]){1, 0, 1, 0}},
        {FJ_OP_REDUCE_MIN, tie, (const double[]){0, 2, 0, 0}},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) in_scope(check_reduction, &cases[i]);
}
END_TEST

/* ---- Conventions ----------------------------------------------------------------------------------------------- */

typedef struct convention {
    const char *text; /* over score %1 and scalar %2 */
    double score, scalar, dscore, dscalar;
} convention;

#define LEAVES "scalar 0 float 1.0 \"s\"\nscalar 1 float 1.0 \"t\"\n%1 = score\n%2 = scalar.float $0\n"

static const convention conventions[] = {
    {"%3 = maximum.float %1, %2\nscore %3\n", 1, 1, 0.5, 0.5},
    {"%3 = minimum.float %1, %2\nscore %3\n", 1, 1, 0.5, 0.5},
    {"%3 = clamp_min.float %1, %2\nscore %3\n", 1, 1, 0, 0},
    {"%3 = clamp_max.float %1, %2\nscore %3\n", 1, 1, 0, 0},
    {"%3 = clamp_max.float %1, %2\nscore %3\n", 2, 1, 0, 1},
    {"%3 = abs.float %1\nscore %3\n", 0, 1, 0, 0},
    {"%3 = pow.float %1, %2\nscore %3\n", 0, 0, 0, 0},
    {"%3 = pow.float %1, %2\nscore %3\n", 0, 2, 0, 0},
    {"%3 = pow.float %1, %2\nscore %3\n", -2, 3, 12, (double)NAN},
    /* what is not selected gives exactly 0: log, sqrt and quotients at 0 and below */
    {"%3 = const_float 0.0\n%4 = gt.bool %1, %3\n%5 = log.float %1\n%6 = where.float %4, %5, %2\nscore %6\n",
     -1, 3, 0, 1},
    {"%3 = const_float 0.0\n%4 = gt.bool %1, %3\n%5 = sqrt.float %1\n%6 = where.float %4, %5, %2\nscore %6\n",
     0, 3, 0, 1},
    {"%3 = const_float 0.0\n%4 = ne.bool %1, %3\n%5 = div.float %2, %1\n%6 = where.float %4, %5, %1\nscore %6\n",
     0, 3, 1, 0},
    /* a value with a selected and an unselected user */
    {"%3 = const_float 0.0\n%4 = gt.bool %1, %3\n%5 = mul.float %1, %2\n%6 = log.float %5\n"
     "%7 = where.float %4, %6, %5\nscore %7\n",
     -1, 3, 3, -1},
    {"%3 = floor.float %1\n%4 = floormod.float %1, %2\n%5 = add.float %3, %4\nscore %5\n", 7, 2, 1, -3},
};

static void check_convention(fj_scope *scope, void *argument) {
    const convention *c = argument;
    const char *text = fj_arena_printf(scope->arena, "%s%s", LEAVES, c->text);
    fj_world *world = plain_world(scope->arena, 0);
    world->ir = fj_ir_parse(scope->arena, scope, fj_str_from(text));
    world->scalars[0].f = c->scalar;
    fj_outcome got = fj_outcome_new(scope->arena, world);
    fj_world_run(world, fj_eval_create(scope->arena, fj_ir_gradient(world->ir)), (int32_t[]){0, 0, 0, 0},
                 c->score, 1, true, &got);
    FJ_HOLD(got.dscore == c->dscore || (got.dscore != got.dscore && c->dscore != c->dscore), "%s: dscore %g",
            c->text, got.dscore);
    FJ_HOLD(got.dscalars[0] == c->dscalar || (got.dscalars[0] != got.dscalars[0] && c->dscalar != c->dscalar),
            "%s: dscalar %g", c->text, got.dscalars[0]);
}

START_TEST(conventions_at_kinks) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(conventions); i++) {
        convention c = conventions[i];
        in_scope(check_convention, &c);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gradient");
    TCase *tcase = tcase_create("gradient");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, every_operation);
    tcase_add_test(tcase, reductions);
    tcase_add_test(tcase, conventions_at_kinks);
    tcase_add_test(tcase, random_graphs);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
