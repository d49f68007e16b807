/* Records of tuning: which of them a call takes. */
#include "tests/jit/tuning_fixture.h"

/* ---- Which record ------------------------------------------------------------------------------------------ */

START_TEST(exact_then_nearest) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 1024, 1024, THIRD);
    check(first, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    check(first, 8, 1024, 1024, THIRD, "exact tune.jsonl:3");
    check(first, 8, 600, 600, OTHER, "nearest tune.jsonl:2");
    check(first, 8, 900, 900, THIRD, "nearest tune.jsonl:3");
    check(first, 16, 512, 512, OTHER, "nearest tune.jsonl:2");
    check(first, 64, 2048, 2048, "", "");
}
END_TEST

/* The worst ratio counts, not all of them together; they do where the worst are equal. */
START_TEST(distance) {
    append_at(first, 32, 512, 512, THIRD);
    append_at(first, 8, 1448, 1448, OTHER);
    check(first, 8, 512, 512, OTHER, "nearest tune.jsonl:3");
    append_at(first, 8, 1448, 512, DEFAULT);
    append_at(first, 8, 1448, 1448, THIRD);
    check(first, 8, 512, 512, DEFAULT, "nearest tune.jsonl:4");
}
END_TEST

static const struct {
    int64_t heads, q_len, kv_len;
    bool is_near;
} limits[] = {
    {8, 512, 512, true},
    {32, 512, 512, true},
    {33, 512, 512, false},
    {2, 512, 512, true},
    {1, 512, 512, false},
    {8, 2048, 512, true},
    {8, 2049, 512, false},
    {8, 128, 512, true},
    {8, 127, 512, false},
    {8, 512, 2048, true},
    {8, 512, 2049, false},
    {32, 2048, 2048, true},
    {64, 64, 512, false} /* as many queries in all */,
    {1, 4096, 512, false},
    {8, 1, 512, false},
};

/* The three lengths apart, each within a factor. */
START_TEST(reach) {
    append_at(first, 8, 512, 512, OTHER);
    for (size_t i = 0; i < FJ_ARRAY_LEN(limits); i++) {
        char rule[160];
        const fj_tuning_call call = call_of(&avx512, limits[i].heads, limits[i].q_len, limits[i].kv_len);
        const bool is_found = *find_among(first, NULL, 0, &call, rule) != '\0';
        ck_assert_msg(is_found == limits[i].is_near, "%zu: %s", i, rule);
    }
}
END_TEST

/* Within reach by its numbers, but one is decoding: by its length, or because the caller says so. */
START_TEST(decoding_and_prefill_apart) {
    append_at(first, 8, 64, 512, OTHER);
    check(first, 8, 63, 512, "", "");
    fj_jit_problem few = forward;
    few.few_queries = true;
    fj_tuning_call call = call_of(&avx512, 8, 64, 512);
    call.problem = &few;
    check_call(first, &call, "", "");
    append(first, NULL, &call, THIRD);
    check_call(first, &call, THIRD, "exact tune.jsonl:3");
    check(first, 8, 48, 512, THIRD, "nearest tune.jsonl:3");
    check(first, 8, 64, 512, OTHER, "exact tune.jsonl:2");
}
END_TEST

START_TEST(lengths_not_known) {
    append_at(first, 8, 512, 512, OTHER);
    check(first, 0, 512, 512, "", "");
    check(first, 8, 0, 512, "", "");
    check(first, 8, 512, 0, "", "");
}
END_TEST

START_TEST(later_wins_in_a_layer) {
    append_at(first, 8, 512, 512, OTHER);
    append_at(first, 8, 512, 512, THIRD);
    check(first, 8, 512, 512, THIRD, "exact tune.jsonl:3");
    char path[128];
    (void)snprintf(path, sizeof path, "%s/zz.jsonl", first);
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    append(first, path, &call, DEFAULT);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2"); /* files in the order of their names */
    (void)snprintf(path, sizeof path, "%s/aa.jsonl", first);
    append(first, path, &call, OTHER);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2");
    (void)snprintf(path, sizeof path, "%s/zzz.json", first); /* is none of them */
    append(first, path, &call, OTHER);
    check(first, 8, 512, 512, DEFAULT, "exact zz.jsonl:2");
}
END_TEST

START_TEST(earlier_layers_win) {
    char both[256], reversed[256], far[256];
    (void)snprintf(both, sizeof both, "%s:%s", first, second);
    (void)snprintf(reversed, sizeof reversed, "%s::%s", second, first);
    (void)snprintf(far, sizeof far, "%s/absent:%s", folder, second);
    append_at(first, 8, 512, 512, OTHER);
    append_at(second, 8, 512, 512, THIRD);
    append_at(second, 8, 1024, 1024, DEFAULT);
    check(both, 8, 512, 512, OTHER, "exact tune.jsonl:2");
    check(reversed, 8, 512, 512, THIRD, "exact tune.jsonl:2");
    check(far, 8, 512, 512, THIRD, "exact tune.jsonl:2");
    check(both, 8, 1024, 1024, DEFAULT,
          "exact tune.jsonl:3"); /* exact in any layer before near in an earlier one */
    check(both, 8, 600, 600, OTHER, "nearest tune.jsonl:2");
}
END_TEST

START_TEST(shipped_comes_last) {
    char rule[160];
    append_at(first, 8, 512, 512, THIRD);
    char *text = text_of("tune.jsonl");
    /* Of any version: the library was built with it. */
    char *version = strstr(text, FJ_VERSION);
    overwrite(version, "9.9.9");
    const fj_embedded shipped = {"tuning/cpu.jsonl", text, strlen(text)};
    const fj_tuning_call call = call_of(&avx512, 8, 512, 512), near = call_of(&avx512, 8, 1024, 512);
    ck_assert_str_eq(find_among(second, &shipped, 1, &call, rule), THIRD);
    ck_assert_str_eq(rule, "shipped exact cpu.jsonl:2");
    ck_assert_str_eq(find_among(second, &shipped, 1, &near, rule), THIRD);
    ck_assert_str_eq(rule, "shipped nearest cpu.jsonl:2");
    append_at(second, 16, 512, 512, OTHER);
    ck_assert_str_eq(find_among(second, &shipped, 1, &call, rule), OTHER); /* near, but the user's */
    ck_assert_str_eq(rule, "nearest tune.jsonl:2");
    free(text);
}
END_TEST

/* Other caches are near, another instruction set is not; F32 has no kernels of its own for BF16 instructions. */
START_TEST(devices) {
    const fj_tuning_call here = call_of(&avx512, 8, 512, 512), caches = call_of(&other_caches, 8, 512, 512),
                         old = call_of(&avx2, 8, 512, 512), newer = call_of(&bf16, 8, 512, 512);
    append(first, NULL, &caches, OTHER);
    check_call(first, &here, OTHER, "nearest tune.jsonl:2");
    check_call(first, &newer, OTHER, "nearest tune.jsonl:2");
    check_call(first, &old, "", "");
    append(first, NULL, &here, THIRD);
    check_call(first, &newer, THIRD, "exact tune.jsonl:3");
    check_call(first, &caches, OTHER, "exact tune.jsonl:2");
    const fj_tuning_call many = call_of(&many_cores, 8, 512, 512);
    check_call(first, &many, THIRD, "nearest tune.jsonl:3");
    append(first, NULL, &old, THIRD);
    check_call(first, &old, THIRD, "exact tune.jsonl:4");
    ck_assert_int_eq(warnings, 0); /* records of other devices are nothing to warn of */
}
END_TEST

START_TEST(gpus) {
    fj_arch sm_90 = {90, 'a'}, sm_80 = {80, '\0'};
    const fj_features of_90 = fj_jit_arch_features(sm_90), of_80 = fj_jit_arch_features(sm_80);
    fj_features emulated = of_90, smaller = of_90;
    emulated.emulated = true;
    smaller.multiprocessors = 100;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    ck_assert_int_gt(fj_jit_variants(&forward, &of_90, variants), 2);
    const char *name = variants[1].name;
    const fj_tuning_call here = call_of(&of_90, 8, 512, 512), old = call_of(&of_80, 8, 512, 512),
                         emu = call_of(&emulated, 8, 512, 512), less = call_of(&smaller, 8, 512, 512);
    append(first, NULL, &here, name);
    check_call(first, &here, name, "exact tune.jsonl:2");
    check_call(first, &less, name, "nearest tune.jsonl:2");
    check_call(first, &old, "", "");
    check_call(first, &emu, "", "");
    check(first, 8, 512, 512, "", "");
}
END_TEST

/* Each differs from `forward` in what makes another kernel, or another choice of one. */
START_TEST(problems_apart) {
    enum { PROBLEMS = 13 };
    const fj_ir graph = {0};
    fj_jit_problem problems[PROBLEMS];
    for (int i = 0; i < PROBLEMS; i++) problems[i] = forward;
    problems[0].dtype = FJ_DTYPE_F64;
    problems[1].head_dim = 63;
    problems[2].value_dim = 63;
    problems[3].max = true;
    problems[4].packed = true;
    problems[5].paged = true;
    problems[6].block_mask = true;
    problems[7].few_queries = true;
    problems[8].gqa = 4;
    problems[9].kind = FJ_JIT_BACKWARD;
    problems[10].dropout = true;
    problems[11].out = &graph;
    problems[12].sink = &graph;
    append_at(first, 8, 512, 512, OTHER);
    fj_tuning_call call = call_of(&avx512, 8, 512, 512);
    for (int i = 0; i < PROBLEMS; i++) {
        call.problem = &problems[i];
        check_call(first, &call, "", "");
    }
    call.problem = &forward;
    for (int tier = FJ_TIER_RANGES; tier <= FJ_TIER_ELEMENTWISE; tier++) {
        call.tier = (fj_mask_tier)tier;
        check_call(first, &call, "", "");
    }
    ck_assert_int_eq(warnings, 0);
    /* What kernels of the cpu do not know makes no other problem of theirs. */
    fj_jit_problem same = forward;
    same.deterministic = false;
    same.tf32 = same.q_offset = same.shared_keys = true;
    call = call_of(&avx512, 8, 512, 512);
    call.problem = &same;
    check_call(first, &call, OTHER, "exact tune.jsonl:2");
}
END_TEST

/* Groups of several heads are alike, the nearest is that of the same size. */
START_TEST(groups) {
    fj_jit_problem grouped = forward, other = forward;
    grouped.gqa = 4;
    other.gqa = 8;
    fj_tuning_call four = call_of(&avx512, 8, 512, 512), eight = four;
    four.problem = &grouped;
    eight.problem = &other;
    append(first, NULL, &four, OTHER);
    check_call(first, &eight, OTHER, "nearest tune.jsonl:2");
    append(first, NULL, &eight, THIRD);
    check_call(first, &eight, THIRD, "exact tune.jsonl:3");
    check_call(first, &four, OTHER, "exact tune.jsonl:2");
}
END_TEST

START_TEST(cost_classes) {
    static const struct {
        int score, class;
    } costs[] = {{0, 0}, {1, 1}, {15, 1}, {16, 2}, {255, 2}, {256, 3}, {100000, 3}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(costs); i++) {
        for (size_t j = 0; j < FJ_ARRAY_LEN(costs); j++) {
            fj_ir a = {.cost = {.score = costs[i].score}}, b = {.cost = {.score = costs[j].score}};
            fj_jit_problem of_a = forward, of_b = forward;
            of_a.ir = &a;
            of_b.ir = &b;
            fj_tuning_call x = call_of(&avx512, 8, 512, 512), y = x;
            x.problem = &of_a;
            y.problem = &of_b;
            fj_tuning_key key_x, key_y;
            ck_assert(fj_tuning_key_of(&x, &key_x) && fj_tuning_key_of(&y, &key_y));
            ck_assert_int_eq(fj_cache_digest_equal(key_x.problem, key_y.problem),
                             costs[i].class == costs[j].class);
        }
    }
}
END_TEST

/* Mods of one class share records, and their own come first; of equal lengths, not before nearer ones. */
START_TEST(mods_of_one_class) {
    const fj_ir bias = {.cost = {.score = 3}}, cap = {.cost = {.score = 9}},
                window = {.cost = {.score = 3, .mask = 2}}, band = {.cost = {.score = 3, .mask = 5}};
    const fj_ir *const mods[] = {&bias, &cap, &window, &band};
    fj_jit_problem problems[FJ_ARRAY_LEN(mods)];
    fj_tuning_call calls[FJ_ARRAY_LEN(mods)];
    for (size_t i = 0; i < FJ_ARRAY_LEN(mods); i++) {
        problems[i] = forward;
        problems[i].ir = mods[i];
        calls[i] = call_of(&avx512, 8, 512, 512);
        calls[i].problem = &problems[i];
    }
    append(first, NULL, &calls[0], OTHER);
    append(first, NULL, &calls[2], OTHER);
    check_call(first, &calls[0], OTHER, "exact tune.jsonl:2");
    check_call(first, &calls[1], OTHER, "nearest tune.jsonl:2");
    check_call(first, &calls[3], OTHER, "nearest tune.jsonl:3");
    append(first, NULL, &calls[1], THIRD);
    append(first, NULL, &calls[3], THIRD);
    check_call(first, &calls[0], OTHER, "exact tune.jsonl:2");
    check_call(first, &calls[1], THIRD, "exact tune.jsonl:4");
    check_call(first, &calls[2], OTHER, "exact tune.jsonl:3");
    check_call(first, &calls[3], THIRD, "exact tune.jsonl:5");
    fj_tuning_call longer = calls[1];
    longer.q_len = longer.kv_len = 1024;
    append(first, NULL, &longer, DEFAULT);
    longer.problem = &problems[0];
    check_call(first, &longer, DEFAULT, "nearest tune.jsonl:6");
}
END_TEST

/* Gradients of captures are summed by more kernels. */
START_TEST(capture_gradients_apart) {
    fj_ir plain = {.cost = {.gradient = 1}}, summing = plain;
    fj_jit_problem backward = forward;
    fj_tuning_key keys[2];
    summing.scatters.len = 1;
    backward.kind = FJ_JIT_BACKWARD;
    for (int i = 0; i < 2; i++) {
        fj_tuning_call call = call_of(&avx512, 8, 512, 512);
        backward.gradient = i ? &summing : &plain;
        call.problem = &backward;
        ck_assert(fj_tuning_key_of(&call, &keys[i]));
    }
    ck_assert(!fj_cache_digest_equal(keys[0].problem, keys[1].problem));
}
END_TEST

RUN_SUITE("jit tuning", exact_then_nearest, distance, reach, decoding_and_prefill_apart, lengths_not_known,
          later_wins_in_a_layer, earlier_layers_win, shipped_comes_last, devices, gpus, problems_apart,
          groups, cost_classes, mods_of_one_class, capture_gradients_apart)
