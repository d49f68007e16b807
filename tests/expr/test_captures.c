/* Captured tensors and parameters of mods. */
#include "mod_case.h"

/* ---- Captures -------------------------------------------------------------------------------------------- */

START_TEST(captures_in_order) {
    ASSERT_OK(.source = SCORE("score + slopes[h] * ids[q]") MASK("ids[q] == ids[kv]"), .bindings = vectors,
              .binding_count = 3);
    ck_assert_uint_eq(graph->captures.len, 2);
    ck_assert_str_eq(graph->captures.data[0].name, "slopes");
    ck_assert(graph->captures.data[0].gradient);
    ck_assert_str_eq(graph->captures.data[1].name, "ids");
    ck_assert(!graph->captures.data[1].gradient);
}
END_TEST

/* A tensor of rank 0 that the source spells out: the caller's tensor of that name wins. */
START_TEST(bound_scalar_literals) {
    static const fj_binding t[] = {{"t", FJ_DTYPE_F32, 0, {0}}};
    static const char *const values[] = {"torch.tensor(1.0)",
                                         "torch.tensor(1.0, requires_grad=True)",
                                         "torch.scalar_tensor(2.0)",
                                         "torch.nn.Parameter(torch.tensor(1.0))",
                                         "torch.nn.parameter.Parameter(torch.ones(()))",
                                         "torch.tensor(2.0).exp()",
                                         "torch.tensor(2.0).clone().detach()"};
    static const char *const shapes[][2] = {
        {"import torch\nt = ", "\n" SCORE("score * t")},
        {"import torch\nu = ", "\ndef make(t):\n    def mod(score, b, h, q, kv):\n        return score * t\n"
                               "    return mod\nscore_mod = make(u)\n"},
        {"import torch\ndef make():\n    t = ",
         "\n    return lambda score, b, h, q, kv: score * t\nscore_mod = make()\n"},
        {"import torch\ndef score_mod(score, b, h, q, kv, t=", "):\n    return score * t\n"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(values) * FJ_ARRAY_LEN(shapes); i++) {
        const char *const *shape = shapes[i % FJ_ARRAY_LEN(shapes)];
        const char *source =
            fj_arena_printf(&arena, "%s%s%s", shape[0], values[i / FJ_ARRAY_LEN(shapes)], shape[1]);
        ASSERT_OK(.source = source, .bindings = t, .binding_count = 1);
        ck_assert_msg(graph->captures.len == 1, "%s", source);
        ck_assert_str_eq(graph->captures.data[0].name, "t");
        ck_assert(graph->captures.data[0].gradient);
    }
    ASSERT_OK(.source = "import torch\nt = torch.tensor(3.0)\n" SCORE("score * t"));
    ck_assert_uint_eq(graph->captures.len, 0);
    /* A number of Python is none, and a factory's own arithmetic on its tensor stays. */
    ASSERT_OK(.source = "t = 3.0\n" SCORE("score * t"), .bindings = t, .binding_count = 1);
    ck_assert_uint_eq(graph->captures.len, 0);
    ASSERT_OK(.source = "def make(t):\n    t = t * 2.0\n    return lambda score, b, h, q, kv: score * t\n"
                        "score_mod = make(t)\n",
              .bindings = t, .binding_count = 1);
    int products;
    count(graph, FJ_OP_MUL, &products);
    ck_assert_int_eq(products, 2);
}
END_TEST

START_TEST(innermost_name) {
    ASSERT_OK(.source = FACTORY, .bindings = vectors, .binding_count = 2);
    ck_assert_str_eq(graph->captures.data[0].name, "table");
    ASSERT_OK(.source = FACTORY, .bindings = vectors, .binding_count = 1);
    ck_assert_str_eq(graph->captures.data[0].name, "slopes");
    ASSERT_FAILS(FJ_ERR_TENSOR, "'table'", .source = FACTORY);
}
END_TEST

START_TEST(two_captures_of_one_name) {
    ASSERT_FAILS(
        FJ_ERR_MOD, "two different captured tensors",
        .source =
            "import torch\ndef make(table):\n    return lambda b, h, q, kv: table[h] > 0\n"
            "x = torch.randn(8)\ny = torch.randn(8)\n"
            "from torch.nn.attention.flex_attention import and_masks\nmask_mod = and_masks(make(x), make(y))\n",
        .bindings = vectors, .binding_count = 3);
}
END_TEST

/* The caller gives these as inputs of the attention, dlse too. */
START_TEST(reserved_names) {
    static const char *const names[] = {"q", "k", "v", "do", "dlse"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        char source[200], words[80];
        (void)snprintf(source, sizeof source,
                       "import torch\n%s = torch.randn(8)\ndef score_mod(score, b, h, q_idx, kv_idx):\n"
                       "    return score + %s[h]\n",
                       names[i], names[i]);
        (void)snprintf(words, sizeof words, "'%s' is the name of an attention input", names[i]);
        ASSERT_FAILS(FJ_ERR_MOD, words, .source = source);
    }
    ASSERT_OK(.source = "import torch\nlse = torch.randn(8)\n" SCORE("score + lse[h]"),
              .bindings_open = true);
}
END_TEST

START_TEST(missing_are_listed) {
    ASSERT_FAILS(FJ_ERR_TENSOR, "'a', 'c'",
                 .source = "import torch\na, c = torch.ones(8), torch.ones(4)\n" SCORE(
                     "score + a[h] + slopes[h] + c[b]"),
                 .bindings = vectors, .binding_count = 1);
    ck_assert_int_eq(error.line, 4);
}
END_TEST

START_TEST(open_bindings_are_guessed) {
    ASSERT_OK(.source = SCORE("score + w[h][table[q], 0]") MASK("flags[q] & (ids[kv] == 3)"),
              .bindings_open = true);
    for (size_t i = 0; i < graph->captures.len; i++) {
        const fj_capture *capture = &graph->captures.data[i];
        if (strcmp(capture->name, "w") == 0) ck_assert_int_eq(capture->rank, 3);
        if (strcmp(capture->name, "table") == 0) ck_assert_int_eq(capture->dtype, FJ_DTYPE_I32);
        if (strcmp(capture->name, "flags") == 0) ck_assert_int_eq(capture->dtype, FJ_DTYPE_BOOL);
    }
    ASSERT_FAILS(FJ_ERR_MOD, "did you mean 'score'", .source = SCORE("scroe + 1"), .bindings_open = true);
}
END_TEST

START_TEST(literal_tables) {
    const fj_binding other = {"table", FJ_DTYPE_F32, 1, {3}};
    const char *source = "import torch\ntable = torch.tensor([1.5, 2.5, 3.5])\n" SCORE("score + table[h]");
    ASSERT_OK(.source = source);
    ck_assert(graph->captures.data[0].literal);
    ck_assert_double_eq(graph->captures.data[0].values[2], 3.5);
    ck_assert_int_eq(graph->captures.data[0].dims[0], 3);
    ASSERT_OK(.source = source, .bindings = &other, .binding_count = 1);
    ck_assert(!graph->captures.data[0].literal);
    ck_assert_int_eq(graph->captures.data[0].dtype, FJ_DTYPE_F32);
}
END_TEST

START_TEST(dimensions_specialise) {
    ASSERT_OK(.score = "score + sum(slopes[i] for i in range(slopes.shape[0]))", .bindings = vectors,
              .binding_count = 1);
    ck_assert_int_eq(graph->captures.data[0].dims[0], 8);
    ASSERT_OK(.score = "score + slopes[h % slopes.shape[0]]", .bindings = vectors, .binding_count = 1);
    ck_assert_int_eq(graph->captures.data[0].dims[0], -1);
    int loops;
    ASSERT_OK(.score = "score + slopes.sum()", .bindings = vectors, .binding_count = 1);
    count(graph, FJ_OP_LOOP, &loops);
    ck_assert_int_eq(loops, 1);
}
END_TEST

START_TEST(assertions) {
#define CHECKED(text) \
    "def make(t):\n    " text "\n    return lambda s, b, h, q, kv: s + t[h]\nscore_mod = make(slopes)\n"
    ASSERT_OK(.source = CHECKED("assert t.ndim == 1 and t.shape == (8,)"), .bindings = vectors,
              .binding_count = 1);
    ck_assert_int_eq(graph->captures.data[0].dims[0], -1);
    ASSERT_FAILS(FJ_ERR_MOD, "does not hold", .source = CHECKED("assert t.shape[0] == 4, 'four'"),
                 .bindings = vectors, .binding_count = 1);
    ck_assert_str_eq(error.note, "four");
    ASSERT_FAILS(FJ_ERR_MOD, "raises this error",
                 .source = CHECKED("if t.dim() != 2: raise ValueError('two')"), .bindings = vectors,
                 .binding_count = 1);
}
END_TEST

/* ---- Parameters ----------------------------------------------------------------------------------------------- */

START_TEST(params) {
    const fj_param n = {"N", "2 * 8"}, unknown = {"M", "1"}, wrong = {"N", "1.5"}, f = {"F", "3"};
    const char *source = "N = 4\nTWICE = N * 2\nF = 1.0\n" SCORE("score * TWICE + F");
    ASSERT_OK(.source = source, .params = &n, .param_count = 1);
    bool found = false;
    for (size_t i = 1; i < graph->nodes.len; i++) {
        const fj_node *node = &graph->nodes.data[i];
        found |= node->op == FJ_OP_CONST_FLOAT && node->imm.f == 32.0;
    }
    ck_assert(found);
    ASSERT_FAILS(FJ_ERR_NAME, "no constant 'M'", .source = source, .params = &unknown, .param_count = 1);
    ASSERT_FAILS(FJ_ERR_MOD, "is an int, but a float", .source = source, .params = &wrong, .param_count = 1);
    ASSERT_OK(.source = source, .params = &f, .param_count = 1);
}
END_TEST

START_TEST(runtime_params) {
    const char *const names[] = {"N", "F"}, *const unknown[] = {"score_mod"};
    const char *source = "N = 4\nTWICE = N * 2\nF = 1.5\n" SCORE("score * F + TWICE");
    ASSERT_OK(.source = source, .runtime_params = names, .runtime_param_count = 2);
    ck_assert_uint_eq(graph->scalars.len, 2);
    ck_assert_str_eq(graph->scalars.data[0].name, "F");
    ck_assert(graph->scalars.data[0].gradient);
    ck_assert_int_eq(graph->scalars.data[1].i, 4);
    ck_assert(!graph->scalars.data[1].gradient);
    ASSERT_FAILS(FJ_ERR_NAME, "not a constant", .source = source, .runtime_params = unknown,
                 .runtime_param_count = 1);
    ASSERT_FAILS(FJ_ERR_MOD, "'N' cannot be used in range",
                 .source = "N = 4\n" SCORE("sum([score for i in range(N)])"), .runtime_params = names,
                 .runtime_param_count = 1);
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        captures_in_order,
        innermost_name,
        bound_scalar_literals,
        two_captures_of_one_name,
        reserved_names,
        missing_are_listed,
        open_bindings_are_guessed,
        literal_tables,
        dimensions_specialise,
        assertions,
        params,
        runtime_params,
    };
    return run_mod_tests("expr captures", tests, FJ_ARRAY_LEN(tests));
}
