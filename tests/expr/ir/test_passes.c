/* Properties of the passes on random graphs: text, validity, meaning bit for bit, rates, intervals. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

enum { POSITIONS = 6 };

static void check_valid(const fj_ir *ir, const char *after) {
    const char *wrong = fj_ir_validate(ir);
    FJ_HOLD(wrong == NULL, "after %s: %s", after, wrong);
}

/* ---- Text ------------------------------------------------------------------------------------------- */

static void print(const fj_ir *ir, fj_buf *out) {
    fj_buf_init(out, &fj_allocator_libc);
    fj_ir_print(ir, out);
    FJ_TRUE(!out->failed);
}

static void check_text(fj_arena *arena, const fj_ir *ir) {
    fj_buf first, second;
    print(ir, &first);
    fj_ir *parsed = fj_ir_parse(arena, arena->scope, (fj_str){first.data, first.len});
    print(parsed, &second);
    ck_assert_str_eq(first.data, second.data);
    fj_buf_finish(&first);
    fj_buf_finish(&second);
}

static void text_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    const fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    check_valid(world->ir, "generation");
    check_text(arena, world->ir);
    check_text(arena, fj_ir_gradient(fj_ir_guard(world->ir)));
}

START_TEST(parse_of_print_is_the_same) { fj_check_property("text", fj_test_count(300), text_property); }
END_TEST

/* ---- Meaning ------------------------------------------------------------------------------------------ */

static void check_same(const fj_world *world, const fj_ir *before, const fj_ir *after, fj_random *random,
                       const char *pass) {
    fj_arena *arena = before->arena;
    fj_eval *a = fj_eval_create(arena, before), *b = fj_eval_create(arena, after);
    for (int i = 0; i < POSITIONS; i++) {
        int32_t at[4];
        for (int k = 0; k < 4; k++) at[k] = (int32_t)fj_random_below(random, 6);
        const double score = fj_random_real(random, -3, 3), adjoint = fj_random_real(random, -1, 1);
        fj_outcome first = fj_outcome_new(arena, world), second = fj_outcome_new(arena, world);
        const bool live = fj_random_below(random, 4) != 0;
        fj_world_run(world, a, at, score, adjoint, live, &first);
        fj_world_run(world, b, at, score, adjoint, live, &second);
        FJ_HOLD(fj_outcome_same(world, &first, &second),
                "%s changes the meaning: score %a, %a; dscore %a, %a", pass, first.score, second.score,
                first.dscore, second.dscore);
    }
}

static void passes_property(fj_arena *arena, fj_random *random, int number) {
    (void)arena, (void)number;
    fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    const fj_ir *optimised = fj_ir_optimise(world->ir);
    check_valid(optimised, "optimise");
    check_same(world, world->ir, optimised, random, "optimise");
    const fj_ir *guarded = fj_ir_guard(optimised), *again = fj_ir_optimise(guarded);
    check_valid(guarded, "guard");
    check_valid(again, "optimise of guard");
    check_same(world, guarded, again, random, "optimise of guard");
    const fj_ir *gradient = fj_ir_gradient(again);
    check_valid(gradient, "gradient");
    check_same(world, gradient, fj_ir_optimise(gradient), random, "optimise of gradient");
}

START_TEST(passes_keep_the_meaning) { fj_check_property("passes", fj_test_count(400), passes_property); }
END_TEST

/* Lanes: many positions in one call give what each gives alone. */
static void lanes_property(fj_arena *arena, fj_random *random, int number) {
    enum { COUNT = 40 };
    (void)number;
    fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    const fj_ir *ir = fj_ir_gradient(fj_ir_guard(world->ir));
    fj_eval *eval = fj_eval_create(arena, ir), *single = fj_eval_create(arena, ir);
    double score[COUNT], adjoint[COUNT], new_score[COUNT], dscore[COUNT];
    bool live[COUNT], mask[COUNT], fault[COUNT];
    for (int i = 0; i < COUNT; i++) {
        score[i] = fj_random_real(random, -3, 3);
        adjoint[i] = fj_random_real(random, -1, 1);
        live[i] = fj_random_below(random, 3) != 0;
    }
    world->input.round_f32 = fj_random_below(random, 2) != 0;
    for (int half = 0; half < 2; half++) { /* the second call finds the row's values cached */
        const fj_eval_lanes lanes = {.h = 1,
                                     .q = 2,
                                     .kv0 = half * COUNT / 2,
                                     .count = COUNT / 2,
                                     .score = score + half * COUNT / 2,
                                     .adjoint = adjoint + half * COUNT / 2,
                                     .live = live + half * COUNT / 2};
        const int at = half * COUNT / 2;
        fj_eval_run(eval, &world->input, &lanes, new_score + at, mask + at, dscore + at, fault + at, NULL);
    }
    for (int i = 0; i < COUNT; i++) {
        fj_outcome one = fj_outcome_new(arena, world);
        fj_world_run(world, single, (int32_t[]){0, 1, 2, i}, score[i], adjoint[i], live[i], &one);
        FJ_TRUE(fj_same(one.score, new_score[i]) && fj_same(one.dscore, dscore[i]));
        FJ_TRUE(one.mask == mask[i] && one.fault == fault[i]);
    }
}

START_TEST(lanes_are_independent) { fj_check_property("lanes", fj_test_count(200), lanes_property); }
END_TEST

/* ---- Guards ----------------------------------------------------------------------------------------------- */

/* A position with a fault can be explained; one that is not live has none. */
static void guard_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    const fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    const fj_ir *ir = fj_ir_guard(world->ir);
    fj_eval *eval = fj_eval_create(arena, ir);
    for (int i = 0; i < POSITIONS; i++) {
        const int32_t at[4] = {0, 1, (int32_t)fj_random_below(random, 6),
                               (int32_t)fj_random_below(random, 6)};
        fj_outcome outcome = fj_outcome_new(arena, world);
        char text[256] = "";
        fj_world_run(world, eval, at, 0.5, 0, true, &outcome);
        const bool explained =
            fj_eval_explain(eval, &world->input, at[0], at[1], at[2], at[3], 0.5, text, sizeof text);
        ck_assert_int_eq(explained, outcome.fault);
        if (explained) FJ_HOLD(strstr(text, "kv=") != NULL, "%s", text);
        fj_world_run(world, eval, at, 0.5, 0, false, &outcome);
        FJ_TRUE(!outcome.fault);
    }
}

START_TEST(faults_are_explained) { fj_check_property("guard", fj_test_count(400), guard_property); }
END_TEST

/* ---- Rates -------------------------------------------------------------------------------------------------- */

/* A root whose leaves do not hold an index is the same for every value of it. */
static void rates_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    const fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_ANY);
    const uint8_t *leaves = fj_ir_leaves(world->ir);
    const fj_rate *rates = fj_ir_rates(world->ir);
    fj_eval *eval = fj_eval_create(arena, world->ir);
    for (int axis = 0; axis < 4 && world->ir->mask != 0; axis++) {
        if (leaves[world->ir->mask] & (1 << axis)) continue;
        int32_t at[4] = {1, 2, 3, 1};
        fj_outcome first = fj_outcome_new(arena, world), second = fj_outcome_new(arena, world);
        fj_world_run(world, eval, at, 0.5, 0, true, &first);
        at[axis] = 4;
        fj_world_run(world, eval, at, 0.5, 0, true, &second);
        FJ_TRUE(first.mask == second.mask);
    }
    for (fj_ref ref = 1; ref < world->ir->nodes.len; ref++) {
        for (int i = 0; i < fj_ir_at(world->ir, ref)->argc; i++) {
            FJ_TRUE(rates[fj_ir_args(world->ir, ref)[i]] <= rates[ref]);
        }
    }
}

START_TEST(rates_hold_what_is_read) { fj_check_property("rates", fj_test_count(200), rates_property); }
END_TEST

/* ---- Intervals ------------------------------------------------------------------------------------------------ */

static void interval_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_MASK);
    const fj_ir *ir = fj_random_below(random, 2) ? world->ir : fj_ir_optimise(world->ir);
    fj_eval *eval = fj_eval_create(arena, ir);
    fj_block block = {.b = {0, 0}};
    check_valid(ir, "generation of a mask");
    int64_t *const axes[4] = {block.b, block.h, block.q, block.kv};
    for (int k = 0; k < 4; k++) {
        axes[k][0] = fj_random_below(random, 20);
        axes[k][1] = axes[k][0] + fj_random_below(random, k < 2 ? 2 : 6);
    }
    world->input.round_f32 = fj_random_below(random, 2) != 0;
    int64_t *dims = FJ_NEW_ARRAY(arena, int64_t, ir->captures.len * FJ_MAX_RANK);
    for (size_t i = 0; i < ir->captures.len; i++)
        memcpy(dims + i * FJ_MAX_RANK, world->captures[i].dims, sizeof world->captures[i].dims);
    const fj_block_class class =
        fj_ir_classify(ir, &block, world->scalars, fj_random_below(random, 2) ? dims : NULL);
    for (int64_t b = block.b[0]; b <= block.b[1]; b++) {
        for (int64_t h = block.h[0]; h <= block.h[1]; h++) {
            for (int64_t q = block.q[0]; q <= block.q[1]; q++) {
                for (int64_t kv = block.kv[0]; kv <= block.kv[1]; kv++) {
                    fj_outcome outcome = fj_outcome_new(arena, world);
                    fj_world_run(world, eval, (int32_t[]){(int32_t)b, (int32_t)h, (int32_t)q, (int32_t)kv}, 0,
                                 0, true, &outcome);
                    FJ_TRUE(class != FJ_BLOCK_EMPTY || !outcome.mask);
                    FJ_TRUE(class != FJ_BLOCK_FULL || outcome.mask);
                }
            }
        }
    }
}

START_TEST(intervals_are_sound) { fj_check_property("interval", fj_test_count(3000), interval_property); }
END_TEST

int main(void) {
    Suite *suite = suite_create("passes");
    TCase *tcase = tcase_create("properties");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, parse_of_print_is_the_same);
    tcase_add_test(tcase, passes_keep_the_meaning);
    tcase_add_test(tcase, lanes_are_independent);
    tcase_add_test(tcase, faults_are_explained);
    tcase_add_test(tcase, rates_hold_what_is_read);
    tcase_add_test(tcase, intervals_are_sound);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
