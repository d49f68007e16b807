/* The fault root against a lazy evaluator, which computes only what a where selects and notes every bad
 * read and integer division on its way. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "expr/ir/loops.h"
#include "generate.h"

typedef union element {
    bool b;
    int32_t i;
    int64_t l;
    double f;
} element;

typedef struct lazy {
    const fj_world *world;
    const fj_ir *ir;
    const fj_free_loops *loops;
    element *values; /* kept for values without free loops */
    bool *known;
    int64_t *counters; /* of the open loops */
    int32_t at[4];
    double score;
    bool fault;
} lazy;

static element value_of(lazy *z, fj_ref ref);

static element from_int(fj_type type, int64_t i) {
    if (type == FJ_TYPE_BOOL) return (element){.b = i != 0};
    return type == FJ_TYPE_I32 ? (element){.i = (int32_t)i} : (element){.l = i};
}

static element read_value(lazy *z, fj_ref ref) {
    const fj_node *node = fj_ir_at(z->ir, ref);
    const fj_eval_tensor *tensor = &z->world->captures[node->imm.i];
    int64_t offset = 0;
    bool outside = false;
    for (int d = 0; d < node->argc; d++) {
        const fj_ref index = fj_ir_args(z->ir, ref)[d];
        const element e = value_of(z, index);
        const int64_t i = fj_ir_type(z->ir, index) == FJ_TYPE_I32 ? e.i : e.l, n = tensor->dims[d];
        if (i < -n || i >= n)
            outside = true;
        else
            offset += (i < 0 ? i + n : i) * tensor->strides[d];
    }
    if (node->op == FJ_OP_OUT_OF_RANGE) return (element){.b = outside};
    z->fault |= outside;
    if (node->type == FJ_TYPE_FLOAT)
        return (element){.f = outside ? 0 : fj_dtype_load_float(tensor->dtype, tensor->data, offset)};
    return from_int((fj_type)node->type,
                    outside ? 0 : fj_dtype_load_int(tensor->dtype, tensor->data, offset));
}

static element pointwise(lazy *z, fj_ref ref) {
    const fj_node *node = fj_ir_at(z->ir, ref);
    const fj_ref *args = fj_ir_args(z->ir, ref);
    element e[3] = {{0}}, result = {0};
    if (node->op == FJ_OP_WHERE) return value_of(z, value_of(z, args[0]).b ? args[1] : args[2]);
    for (int i = 0; i < node->argc; i++) e[i] = value_of(z, args[i]);
    const fj_type type = fj_ir_type(z->ir, args[0]);
    const bool divides = node->op == FJ_OP_FLOORDIV || node->op == FJ_OP_FLOORMOD || node->op == FJ_OP_FMOD;
    if (divides && type == FJ_TYPE_I32) z->fault |= e[1].i == 0;
    if (divides && type == FJ_TYPE_I64) z->fault |= e[1].l == 0;
    fj_op_lanes_table[node->op][type](&result, &e[0], &e[1], &e[2], 1);
    return result;
}

static element reduction(lazy *z, fj_ref ref) {
    const fj_node *node = fj_ir_at(z->ir, ref);
    const fj_ref *args = fj_ir_args(z->ir, ref);
    const fj_reduction_info *info = &fj_reduction_table[node->op];
    const fj_type type = fj_ir_type(z->ir, args[1]);
    const bool is_arg = fj_op_table[node->op].rule == FJ_RULE_REDUCE_ARG;
    const int64_t extent = value_of(z, fj_ir_args(z->ir, args[0])[0]).l, kept = z->counters[args[0]];
    element best = type == FJ_TYPE_FLOAT
                     ? (element){.f = info->empty}
                     : from_int(type, type == FJ_TYPE_I64 ? info->empty_i64 : info->empty_i32);
    element where = {.l = 0};
    for (int64_t i = 0; i < extent; i++) {
        element next, better = {0};
        z->counters[args[0]] = i;
        next = value_of(z, args[1]);
        if (!is_arg) {
            element joined = {0};
            fj_op_lanes_table[info->step][type](&joined, &best, &next, NULL, 1);
            best = joined;
            continue;
        }
        fj_op_lanes_table[info->step][type](&better, &next, &best, NULL, 1);
        if (type == FJ_TYPE_FLOAT) better.b |= next.f != next.f && best.f == best.f;
        if (better.b) {
            best = next;
            where.l = i;
        }
    }
    z->counters[args[0]] = kept;
    return is_arg ? where : best;
}

static element leaf(lazy *z, fj_ref ref) {
    const fj_node *node = fj_ir_at(z->ir, ref);
    switch ((fj_op)node->op) {
    case FJ_OP_CONST_FLOAT: return (element){.f = node->imm.f};
    case FJ_OP_B:
    case FJ_OP_H:
    case FJ_OP_Q:
    case FJ_OP_KV: return (element){.i = z->at[node->op - FJ_OP_B]};
    case FJ_OP_SCORE: return (element){.f = z->score};
    case FJ_OP_SCALAR:
        if (node->type == FJ_TYPE_FLOAT) return (element){.f = z->world->scalars[node->imm.i].f};
        return from_int((fj_type)node->type, z->world->scalars[node->imm.i].i);
    case FJ_OP_DIM: return (element){.l = z->world->captures[node->imm.i >> 8].dims[node->imm.i & 255]};
    case FJ_OP_LOOP: return (element){.l = z->counters[ref]};
    default: return from_int((fj_type)node->type, node->imm.i);
    }
}

static element value_of(lazy *z, fj_ref ref) {
    const fj_op op = (fj_op)fj_ir_at(z->ir, ref)->op;
    element e;
    if (z->known[ref]) return z->values[ref];
    if (op == FJ_OP_LOAD || op == FJ_OP_OUT_OF_RANGE)
        e = read_value(z, ref);
    else if (fj_op_is_pointwise(op))
        e = pointwise(z, ref);
    else if (fj_op_is_reduction(op))
        e = reduction(z, ref);
    else
        e = leaf(z, ref);
    z->known[ref] = z->loops[ref].count == 0;
    z->values[ref] = e;
    return e;
}

static void fault_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    const fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    /* What optimisation finds dead fails no more: both sides get the same graph. */
    const fj_ir *ir = fj_random_below(random, 2) ? fj_ir_optimise(world->ir) : world->ir;
    const fj_ir *guarded = fj_ir_guard(ir);
    fj_eval *eval = fj_eval_create(arena, fj_random_below(random, 2) ? fj_ir_optimise(guarded) : guarded);
    for (int k = 0; k < 5; k++) {
        lazy z = {
            .world = world, .ir = ir, .loops = fj_ir_free_loops(ir), .score = fj_random_real(random, -2, 2)};
        z.values = FJ_NEW_ARRAY(arena, element, ir->nodes.len);
        z.known = FJ_NEW_ARRAY(arena, bool, ir->nodes.len);
        z.counters = FJ_NEW_ARRAY(arena, int64_t, ir->nodes.len);
        for (int i = 0; i < 4; i++) z.at[i] = (int32_t)fj_random_below(random, 6);
        fj_outcome got = fj_outcome_new(arena, world);
        fj_world_run(world, eval, z.at, z.score, 0, true, &got);
        const double score = ir->score != 0 ? value_of(&z, ir->score).f : z.score;
        const bool mask = ir->mask == 0 || value_of(&z, ir->mask).b;
        FJ_HOLD(fj_same(score, got.score) && mask == got.mask, "score %a, lazily %a", got.score, score);
        FJ_HOLD(z.fault == got.fault, "fault %d, lazily %d", got.fault, z.fault);
    }
}

START_TEST(faults_are_those_of_lazy_evaluation) {
    fj_check_property("fault", fj_test_count(1500), fault_property);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("guard");
    TCase *tcase = tcase_create("guard");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, faults_are_those_of_lazy_evaluation);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
