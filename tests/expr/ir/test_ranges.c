/* Ranges of keys against every position: sound for random masks, exact for those that are monotone between their ends. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "generate.h"

enum { MOST_KEYS = 1024 };

/* Of each key, whether some query and whether all queries of the block see it. */
typedef struct truth {
    bool any[MOST_KEYS], all[MOST_KEYS];
} truth;

static truth look(const fj_ir *ir, const fj_eval_input *input, const fj_block *block) {
    fj_eval *eval = fj_eval_create(ir->arena, ir);
    truth of;
    memset(of.any, 0, sizeof of.any);
    memset(of.all, 1, sizeof of.all);
    for (int64_t b = block->b[0]; b <= block->b[1]; b++) {
        for (int64_t q = block->q[0]; q <= block->q[1]; q++) {
            for (int64_t kv = block->kv[0]; kv <= block->kv[1]; kv++) {
                const fj_eval_lanes lane = {.b = (int32_t)b,
                                            .h = (int32_t)block->h[0],
                                            .q = (int32_t)q,
                                            .kv0 = (int32_t)kv,
                                            .count = 1};
                bool seen;
                fj_eval_run(eval, input, &lane, NULL, &seen, NULL, NULL, NULL);
                of.any[kv] |= seen;
                of.all[kv] &= seen;
            }
        }
    }
    return of;
}

static void check_sound(const fj_ranges *found, const truth *of, const fj_block *block) {
    int64_t at = block->kv[0];
    FJ_TRUE(found->count <= FJ_RANGES);
    for (int i = 0; i < found->count; i++) {
        const fj_key_range *r = &found->of[i];
        FJ_TRUE(r->first < r->last && (i == 0 || found->of[i - 1].last < r->first));
        FJ_TRUE(r->first >= block->kv[0] && r->last <= block->kv[1] + 1);
        FJ_TRUE(r->first <= r->first_full && r->first_full <= r->last_full && r->last_full <= r->last);
        for (; at < r->first; at++) FJ_HOLD(!of->any[at], "key %d is outside of a range", (int)at);
        for (at = r->first_full; at < r->last_full; at++) FJ_HOLD(of->all[at], "key %d is not full", (int)at);
        at = r->last;
    }
    for (; at <= block->kv[1]; at++) FJ_HOLD(!of->any[at], "key %d is behind all ranges", (int)at);
}

/* ---- Random masks ------------------------------------------------------------------------------------- */

static void sound_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    fj_world *world = fj_generate_world(arena, random, FJ_GENERATE_MASK);
    const fj_ir *ir = fj_random_below(random, 2) ? world->ir : fj_ir_optimise(world->ir);
    const int64_t b = fj_random_below(random, 3), q = fj_random_below(random, 40),
                  kv = fj_random_below(random, 8);
    const fj_block block = {.b = {b, b + fj_random_below(random, 2)},
                            .h = {1, 1},
                            .q = {q, q + fj_random_below(random, 9)},
                            .kv = {kv, kv + fj_random_below(random, 50)}};
    int64_t *dims = FJ_NEW_ARRAY(arena, int64_t, ir->captures.len * FJ_MAX_RANK);
    for (size_t i = 0; i < ir->captures.len; i++)
        memcpy(dims + i * FJ_MAX_RANK, world->captures[i].dims, sizeof world->captures[i].dims);
    const fj_ranges found =
        fj_ir_key_ranges(ir, &block, world->scalars, fj_random_below(random, 2) ? dims : NULL);
    const truth of = look(ir, &world->input, &block);
    check_sound(&found, &of, &block);
}

START_TEST(ranges_are_sound) { fj_check_property("ranges", fj_test_count(500), sound_property); }
END_TEST

/* ---- Known masks -------------------------------------------------------------------------------------- */

#define POSITIONS "%1 = q\n%2 = kv\n%3 = sub.i32 %1, %2\n%4 = le.bool %2, %1\n"

static const struct known {
    const char *name, *text;
    int ranges; /* for queries 300 to 363 of 1024 keys */
    bool exact;
} masks[] = {
    {"causal", POSITIONS "mask %4\n", 1, true},
    {"anti-causal", POSITIONS "%5 = not.bool %4\nmask %5\n", 1, true},
    {"window", POSITIONS "%5 = const_i32 100\n%6 = lt.bool %3, %5\n%7 = and.bool %4, %6\nmask %7\n", 1, true},
    {"prefix", POSITIONS "%5 = const_i32 500\n%6 = lt.bool %2, %5\n%7 = or.bool %4, %6\nmask %7\n", 1, true},
    {"window with sink",
     POSITIONS
     "%5 = const_i32 100\n%6 = lt.bool %3, %5\n%7 = and.bool %4, %6\n%8 = const_i32 4\n%9 = lt.bool %2, "
     "%8\n%10 = or.bool %7, %9\nmask %10\n",
     2, true},
    {"outside of a window", POSITIONS "%5 = abs.i32 %3\n%6 = const_i32 100\n%7 = gt.bool %5, %6\nmask %7\n",
     2, true},
    {"stripes",
     "%1 = kv\n%2 = const_i32 100\n%3 = floormod.i32 %1, %2\n%4 = const_i32 40\n%5 = lt.bool %3, %4\nmask %5\n",
     FJ_RANGES, false},
    {"nothing", "%1 = kv\n%2 = const_i32 0\n%3 = lt.bool %1, %2\nmask %3\n", 0, true},
    {"no mask", "%1 = score\nscore %1\n", 1, true},
};

/* The longest run of a key range that all queries see. */
static int64_t longest(const truth *of, const fj_key_range *range) {
    int64_t most = 0, run = 0;
    for (int64_t at = range->first; at < range->last; at++) {
        run = of->all[at] ? run + 1 : 0;
        most = run > most ? run : most;
    }
    return most;
}

static void known_body(fj_scope *scope, void *argument) {
    const struct known *known = argument;
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(known->text));
    const fj_block block = {.q = {300, 363}, .kv = {0, MOST_KEYS - 1}};
    const fj_eval_input input = {0};
    const fj_ranges found = fj_ir_key_ranges(ir, &block, NULL, NULL);
    const truth of = look(ir, &input, &block);
    check_sound(&found, &of, &block);
    ck_assert_msg(found.count == known->ranges, "%s: %d ranges", known->name, found.count);
    for (int i = 0; known->exact && i < found.count; i++) {
        const fj_key_range *r = &found.of[i];
        for (int64_t at = r->first; at < r->last; at++)
            ck_assert_msg(of.any[at], "%s: no query sees key %d", known->name, (int)at);
        ck_assert_msg(r->last_full - r->first_full == longest(&of, r), "%s: range %d is full in [%d, %d)",
                      known->name, i, (int)r->first_full, (int)r->last_full);
    }
    ck_assert(known->exact || longest(&of, &found.of[0]) == found.of[0].last_full - found.of[0].first_full);
}

START_TEST(known_masks) {
    fj_arena arena;
    fj_error error = {0};
    struct known known = masks[_i];
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_status status = fj_scope_run(&arena, &error, known_body, &known);
    fj_arena_finish(&arena);
    ck_assert_msg(status == FJ_OK, "%s: %s", known.name, error.text);
}
END_TEST

/* What no interval decides is one range, whatever its length. */
static void undecided_body(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_ir *ir =
        fj_ir_parse(scope->arena, scope,
                    FJ_STR("capture 0 BOOL [-1] \"seen\"\n%1 = kv\n%2 = load.bool @0 %1\nmask %2\n"));
    const fj_block block = {.q = {0, 63}, .kv = {5, (INT64_C(1) << 31) - 2}};
    const fj_ranges found = fj_ir_key_ranges(ir, &block, NULL, NULL);
    ck_assert_int_eq(found.count, 1);
    ck_assert(found.of[0].first == 5 && found.of[0].last == (INT64_C(1) << 31) - 1);
    ck_assert(found.of[0].first_full == found.of[0].last_full);
}

START_TEST(undecided) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_status status = fj_scope_run(&arena, &error, undecided_body, NULL);
    fj_arena_finish(&arena);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ranges");
    TCase *tcase = tcase_create("ranges");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, ranges_are_sound);
    tcase_add_loop_test(tcase, known_masks, 0, (int)FJ_ARRAY_LEN(masks));
    tcase_add_test(tcase, undecided);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
