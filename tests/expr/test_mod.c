/* Compiling mods: choice, order, results, failing allocations. */
#include "mod_case.h"

/* ---- Choosing ------------------------------------------------------------------------------------------- */

START_TEST(names_win) {
    ASSERT_OK(.source = "def other(score, b, h, q, kv):\n    return score * 3\n" SCORE("score * 2"));
    ck_assert_uint_ne(graph->score, 0);
    ck_assert_uint_eq(graph->mask, 0);
}
END_TEST

START_TEST(only_candidate) {
    ASSERT_OK(.source =
                  "def f(a, x, y, z, w, n=3):\n    return a * n\ndef g(x, y, z, w):\n    return z >= w\n");
    ck_assert_uint_ne(graph->score, 0);
    ck_assert_uint_ne(graph->mask, 0);
}
END_TEST

START_TEST(factories_are_no_candidates) {
    ASSERT_OK(
            .source =
                "def make(a, b, c, d):\n    def mask(b, h, q, kv):\n        return q >= kv\n    return mask\n"
                "def nothing(a, b, c, d):\n    print(a)\n" SCORE("score * 2"));
    ck_assert_uint_eq(graph->mask, 0);
    ASSERT_OK(.source = "def make(a, b, c, d):\n    return lambda b, h, q, kv: q >= kv\n" SCORE("score * 2"));
    ck_assert_uint_eq(graph->mask, 0);
}
END_TEST

START_TEST(several_candidates) {
    ASSERT_FAILS(FJ_ERR_MOD, "'f', 'g'",
                 .source =
                     "def f(b, h, q, kv):\n    return q >= kv\ndef g(b, h, q, kv):\n    return q < kv\n");
}
END_TEST

START_TEST(nothing_at_all) {
    ASSERT_OK(.source = NULL);
    ck_assert_uint_eq(graph->score | graph->mask, 0);
    ck_assert_ptr_null(origins.score.name);
    ASSERT_FAILS(FJ_ERR_MOD, "neither a score mod nor a mask mod", .source = "x = 1\n");
    ASSERT_FAILS(FJ_ERR_MOD, "neither a score mod nor a mask mod", .source = "");
    ASSERT_OK(.source = "N = 4\n", .mask = "q - kv < N");
    ck_assert_str_eq(origins.mask.name, "<mask>");
    ASSERT_OK(.source = "mask_mod = None\n");
}
END_TEST

/* What is nested is not found: it is listed, with its line, instead of computing something else. */
START_TEST(nested_is_listed) {
    static const char *const sources[] = {
        "class M:\n    def forward(self, x):\n        def mask_mod(b, h, q, kv):\n            return q >= kv\n",
        "def main():\n    x = 1\n    def mask_mod(b, h, q, kv=0, *, n=1):\n        return q >= kv\n    f = lambda score, b, h, q, kv: score\n",
        "class M:\n    x = 1\n    def mask_mod(self, b, h, q, kv):\n        return q >= kv\n",
    };
    static const char *const notes[] = {
        "'mask_mod' (line 3, 4 parameters)", "a lambda (line 5, 5 parameters)",
        "'mask_mod' (line 3, 4 parameters)", "'mask_mod' (line 3, 4 parameters)"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(sources); i++) {
        ASSERT_FAILS(FJ_ERR_MOD, "neither a score mod nor a mask mod", .source = sources[i]);
        ck_assert_msg(strstr(error.note, notes[i]) != NULL, "%s", error.note);
        fj_error_finish(&error);
    }
}
END_TEST

#define WINDOW5 "def window(b, h, q, kv, w):\n    return q - kv < w\n"

/* A function that is only called, or only a target of functools.partial, is a helper. */
START_TEST(helpers_are_no_candidates) {
    ASSERT_OK(.source = "import functools\n" WINDOW5 "mask_mod = functools.partial(window, w=3)\n");
    ck_assert_uint_eq(graph->score, 0);
    ASSERT_OK(.source = WINDOW5 "def mine(b, h, q, kv):\n    return window(b, h, q, kv, 3)\n");
    ck_assert_uint_eq(graph->score, 0);
    ck_assert_str_eq(origins.mask.name, "mine");
    ASSERT_OK(.source = "def rel(b, h, q, kv):\n    return q - kv\n" SCORE("score + rel(b, h, q, kv)"));
    ck_assert_uint_eq(graph->mask, 0);
    /* A reference, or a parameter of the same name, is not a call. */
    ASSERT_OK(.source = "def f(score, b, h, q, kv):\n    return score * 2\n"
                        "def run(f):\n    return f(1, 2, 3, 4, 5)\nout = run(f)\n");
    ck_assert_uint_ne(graph->score, 0);
    ASSERT_FAILS(FJ_ERR_MOD, "neither", .source = WINDOW5 "x = window(0, 0, 1, 2, 3)\n");
}
END_TEST

/* A result that is a bool is not a score. */
START_TEST(bools_are_no_scores) {
    ASSERT_OK(.source = WINDOW5 MASK("q >= kv"));
    ck_assert_uint_eq(graph->score, 0);
    ASSERT_OK(.source = WINDOW5 "def soft(score, b, h, q, kv):\n    return score * 2\n");
    ck_assert_str_eq(origins.score.name, "soft");
    ASSERT_FAILS(FJ_ERR_MOD, "neither", .source = WINDOW5);
    ASSERT_FAILS(FJ_ERR_MOD, "'soft', 'hard'",
                 .source = WINDOW5 "def soft(score, b, h, q, kv):\n    return score * 2\n"
                                   "def hard(score, b, h, q, kv):\n    return score * 3\n");
}
END_TEST

START_TEST(origins_are_told) {
    const char *source = "\ndef soft(score, b, h, q, kv):\n    return score * 2\n"
                         "def make(n):\n    return lambda b, h, q, kv: q - kv < n\n";
    ASSERT_OK(.source = source, .mask_mod = "make(3)");
    ck_assert_str_eq(origins.score.name, "soft");
    ck_assert_int_eq(origins.score.line, 2);
    ck_assert(origins.score.by_count);
    ck_assert_str_eq(origins.mask.name, "make(3)");
    ck_assert_int_eq(origins.mask.line, 5);
    ck_assert(!origins.mask.by_count);
    ASSERT_OK(.mask_mod = "causal_mask");
    ck_assert_int_eq(origins.mask.line, 0);
}
END_TEST

/* What only its parameters made a mod says so when it cannot be one. */
START_TEST(guesses_are_explained) {
    ASSERT_FAILS(FJ_ERR_MOD, "not a bool",
                 .source = "def rel(b, h, q, kv):\n    return q - kv\n" SCORE("score"));
    ck_assert_msg(strstr(error.note, "'rel' is taken for the mask mod because it takes 4 arguments") != NULL,
                  "%s", error.note);
}
END_TEST

START_TEST(chosen_by_option) {
    const char *source =
        "def make(n, k=1):\n    return lambda b, h, q, kv: q - kv <= n * k\n" MASK("q >= kv");
    ASSERT_OK(.source = source, .mask_mod = "make(8, k=2)");
    ASSERT_FAILS(FJ_ERR_NAME, "did you mean 'make'", .source = source, .mask_mod = "maek(8)");
    ASSERT_FAILS(FJ_ERR_MOD, "takes 4 arguments", .source = source, .mask_mod = "make");
    ASSERT_OK(.mask_mod = "causal_mask");
}
END_TEST

START_TEST(expressions_win) {
    ASSERT_OK(.source = "N = 4\n" SCORE("score / 0 / N"), .score = "score * N", .mask = "q_idx >= kv");
    int divisions;
    count(graph, FJ_OP_DIV, &divisions);
    ck_assert_int_eq(divisions, 0);
    ck_assert_uint_ne(graph->mask, 0);
}
END_TEST

START_TEST(unreached_is_not_compiled) {
    ASSERT_OK(.source = "import foo\nfrom bar import baz\nx = baz(foo.y)\nclass C:\n    pass\n"
                        "def main():\n    while True:\n        pass\n" SCORE(
                            "score * 2") "if __name__ == '__main__':\n    main()\n");
}
END_TEST

/* ---- Module order ------------------------------------------------------------------------------------------------ */

START_TEST(late_binding) {
    ASSERT_OK(.source = "A = 1\nB = A\nA = 2\n" SCORE("score * A + B"));
    ASSERT_FAILS(FJ_ERR_MOD, "unknown name 'A'", .source = "B = A\nA = 2\n" SCORE("score * B"));
    ASSERT_FAILS(FJ_ERR_MOD, "before it is assigned",
                 .source = "def score_mod(s, b, h, q, kv):\n    x = s + y\n    y = 1\n    return x\n");
    ASSERT_OK(
            .source =
                "T = 0\nfor i in range(3):\n    T += i\nif T == 3:\n    K = 2.0\nelse:\n    K = bad\n" SCORE(
                    "score * K"));
}
END_TEST

START_TEST(mutation_is_refused) {
    ASSERT_FAILS(FJ_ERR_MOD, "cannot be assigned",
                 .source = "def score_mod(s, b, h, q, kv):\n    s[0] = 1\n    return s\n");
    ASSERT_FAILS(FJ_ERR_MOD, "in place",
                 .source = "def score_mod(s, b, h, q, kv):\n    s.add_(1)\n    return s\n");
    ASSERT_OK(.source = "import torch\nids = torch.zeros(64)\nids[3:] = 1\n" SCORE("score + ids[q]"),
              .bindings = vectors, .binding_count = 3);
}
END_TEST

/* ---- Results ---------------------------------------------------------------------------------------------------- */

START_TEST(results) {
    ASSERT_FAILS(FJ_ERR_MOD, "not a bool", .source = MASK("q - kv"));
    ASSERT_FAILS(FJ_ERR_MOD, "returns nothing", .source = "def mask_mod(b, h, q, kv):\n    x = q\n");
    ASSERT_FAILS(FJ_ERR_MOD, "tensor of rank 1", .source = SCORE("score + slopes"), .bindings = vectors,
                 .binding_count = 1);
    ASSERT_FAILS(FJ_ERR_MOD, "returns a function", .source = SCORE("lambda x: x"), .score_mod = "score_mod");
    ASSERT_OK(.source = SCORE("q >= kv"));
    ASSERT_OK(.source = MASK("True"));
    ck_assert_uint_eq(graph->mask, 0);
}
END_TEST

START_TEST(error_place) {
    ASSERT_FAILS(FJ_ERR_MOD, "rank 1 but is read with 2", .source = SCORE("score + slopes[h, 0]"),
                 .file = "alibi.py", .bindings = vectors, .binding_count = 1);
    ck_assert_str_eq(error.file, "alibi.py");
    ck_assert_int_eq(error.line, 2);
    ck_assert_int_eq(error.column, 20);
    ck_assert_int_eq(error.length, 12);
    ck_assert_str_eq(error.note, "bound to 'slopes' F32 [8]");
    fj_error_finish(&error);
    const fj_binding one[] = {{"one", FJ_DTYPE_F16, 0, {0}}};
    ASSERT_FAILS(FJ_ERR_MOD, "rank 0 but is read with 1", .source = SCORE("score + one[h]"), .bindings = one,
                 .binding_count = 1);
    ck_assert_str_eq(error.note, "bound to 'one' F16 []");
}
END_TEST

/* ---- Failing allocations -------------------------------------------------------------------------------------------- */

typedef struct budget {
    long left;
} budget;

static void *limited(void *user, void *pointer, size_t old_size, size_t new_size) {
    budget *b = user;
    if (new_size > 0 && b->left-- <= 0) return NULL;
    return fj_allocator_libc.resize(NULL, pointer, old_size, new_size);
}

START_TEST(every_allocation_fails_once) {
    fj_mod_desc desc = {.struct_size = sizeof desc,
                        .source = FACTORY,
                        .source_length = strlen(FACTORY),
                        .bindings = vectors,
                        .binding_count = 2};
    fj_status status = FJ_ERR_MEMORY;
    for (long n = 0; status != FJ_OK; n++) {
        budget b = {n};
        const fj_allocator allocator = {limited, &b};
        fj_arena own;
        fj_error said = {0};
        fj_arena_init(&own, &allocator);
        status = fj_scope_run(&own, &said, body, &desc);
        ck_assert(status == FJ_OK || status == FJ_ERR_MEMORY);
        fj_error_finish(&said);
        fj_arena_finish(&own);
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        names_win,
        only_candidate,
        factories_are_no_candidates,
        several_candidates,
        nothing_at_all,
        guesses_are_explained,
        origins_are_told,
        bools_are_no_scores,
        helpers_are_no_candidates,
        nested_is_listed,
        chosen_by_option,
        expressions_win,
        unreached_is_not_compiled,
        late_binding,
        mutation_is_refused,
        results,
        error_place,
        every_allocation_fails_once,
    };
    return run_mod_tests("expr mod", tests, FJ_ARRAY_LEN(tests));
}
