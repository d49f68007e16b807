/* Compiling mods: choice, captures, parameters, shapes, errors, failing allocations. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expr/lang/mod.h"

/* ---- Helpers ------------------------------------------------------------------------------------------- */

static fj_arena arena;
static fj_error error;
static fj_ir *graph;
static fj_mod_origins origins;

static void setup(void) {
    fj_arena_init(&arena, &fj_allocator_libc);
    memset(&error, 0, sizeof error);
    graph = NULL;
}

static void teardown(void) {
    fj_error_finish(&error);
    fj_arena_finish(&arena);
}

static void body(fj_scope *scope, void *user) { graph = fj_expr_compile(scope, user, &origins); }

static fj_status compile(fj_mod_desc desc) {
    desc.struct_size = sizeof desc;
    if (desc.source != NULL) desc.source_length = strlen(desc.source);
    const fj_status status = fj_scope_run(&arena, &error, body, &desc);
    if (status == FJ_OK) ck_assert_ptr_null(fj_ir_validate(graph));
    return status;
}

#define ASSERT_OK(...)                                                      \
    do {                                                                    \
        const fj_status status_ = compile((fj_mod_desc){__VA_ARGS__});      \
        ck_assert_msg(status_ == FJ_OK, "%s (%s)", error.text, error.note); \
    } while (0)

#define ASSERT_FAILS(wanted, words, ...)                                      \
    do {                                                                      \
        ck_assert_int_eq(compile((fj_mod_desc){__VA_ARGS__}), (wanted));      \
        ck_assert_msg(strstr(error.text, (words)) != NULL, "%s", error.text); \
    } while (0)

static void count(const fj_ir *ir, fj_op op, int *ret_count) {
    *ret_count = 0;
    for (size_t i = 1; i < ir->nodes.len; i++) *ret_count += ir->nodes.data[i].op == op;
}

#define SCORE(text) "def score_mod(score, b, h, q, kv):\n    return " text "\n"
#define MASK(text) "def mask_mod(b, h, q, kv):\n    return " text "\n"

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

/* ---- Captures -------------------------------------------------------------------------------------------- */

static const fj_binding vectors[] = {
    {"slopes", FJ_DTYPE_F32, 1, {8}},
    {"table", FJ_DTYPE_F16, 1, {8}},
    {"ids", FJ_DTYPE_I32, 1, {64}},
};

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

#define FACTORY                                                                                   \
    "import torch\nslopes = torch.randn(8)\ndef make(table):\n    def mod(score, b, h, q, kv):\n" \
    "        return score + table[h]\n    return mod\nscore_mod = make(slopes)\n"

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

/* ---- Python that configures mods --------------------------------------------------------------------------- */

static const char *canonical(const char *source) {
    ASSERT_OK(.source = source, .bindings = vectors, .binding_count = 3);
    fj_buf text;
    fj_buf_init(&text, &fj_allocator_libc);
    fj_ir_print_canonical(fj_ir_optimise(graph), &text);
    const char *copy = fj_arena_strdup(&arena, (fj_str){text.data, text.len});
    fj_buf_finish(&text);
    return copy;
}

/* Each is one of the plain mods below. */
#define WINDOW8 MASK("(q >= kv) & (q - kv < 8)")
static const char *const windows[] = {
    "CONFIG = {'window': 4, \"n\": 2}\n" MASK("(q >= kv) & (q - kv < CONFIG['window'] * CONFIG.get('n', 7))"),
    "CONFIG = {}\nCONFIG['window'] = 4\nCONFIG.update(n=2)\n" MASK(
        "(q >= kv) & (q - kv < CONFIG['window'] * CONFIG['n'])"),
    "base = dict(window=2)\nCONFIG = {**base, 'n': 4, 3: 5}\n" MASK(
        "(q >= kv) & (q - kv < CONFIG['window'] * CONFIG['n'])"),
    "T = {k: v for k, v in zip('ab', (8, 9))}\n" MASK("(q >= kv) & (q - kv < T['a'])"),
    "from types import SimpleNamespace\nc = SimpleNamespace(window=3)\nc.window += 5\n" MASK(
        "(q >= kv) & (q - kv < c.window)"),
    "from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass Config:\n    a: int\n    n: int = 4\n"
    "    rest: list = field(default_factory=list)\n    @property\n    def window(self):\n        return self.a * self.n\n"
    "c = Config(a=2)\n" MASK("(q >= kv) & (q - kv < c.window)"),
    "class Window:\n    scale = 2\n    def __init__(self, size):\n        self.size = size * self.scale\n"
    "    def __call__(self, b, h, q, kv):\n        return (q >= kv) & self.near(q, kv)\n"
    "    def near(self, q, kv):\n        return q - kv < self.size\nmask_mod = Window(4)\n",
    "import torch.nn as nn\nclass Window(nn.Module):\n    def __init__(self, size):\n        super().__init__()\n"
    "        self.size = size\n    def forward(self, b, h, q, kv):\n        return (q >= kv) & (q - kv < self.size)\n"
    "class Wide(Window):\n    def __init__(self):\n        super().__init__(size=8)\nmask_mod = Wide().eval()\n",
    "class Masks:\n    N = 8\n    @staticmethod\n    def window(b, h, q, kv):\n        return (q >= kv) & (q - kv < Masks.N)\n"
    "mask_mod = Masks.window\n",
    "class Masks:\n    N = 8\n    @classmethod\n    def make(cls):\n        return lambda b, h, q, kv: (q >= kv) & (q - kv < cls.N)\n"
    "mask_mod = Masks.make()\n",
    "def mask_mod(b, h, q, kv):\n    del b, h\n    parts = [q >= kv]\n    parts.append(q - kv < 8)\n"
    "    return parts[0] & parts[1]\n",
    "parts = []\nfor n in (8, 9):\n    parts.append(n)\nparts.pop()\n" MASK(
        "(q >= kv) & (q - kv < parts[-1])"),
    "def mask_mod(b, h, q, kv):\n    parts, names = [], {}\n    parts.append(q >= kv)\n    names['near'] = q - kv < 8\n"
    "    return parts[0] & names['near']\n",
    "import operator\nfrom functools import reduce\n"
    "def mask_mod(b, h, q, kv):\n    return reduce(operator.and_, [q >= kv, operator.lt(q - kv, 8)])\n",
    "from itertools import accumulate, product\nN = list(accumulate([1, 2, 5]))[-1]\n"
    "M = len(list(product(range(2), 'abcd')))\n" MASK("(q >= kv) & (q - kv < N) & (q - kv < M)"),
    "def mask_mod(b, h, q, kv):\n    return q >= kv and (d := q - kv) < 8 if (n := 3) else d\n",
    "def near(q, kv, *, size, **other):\n    return q - kv < size + len(other)\nargs = {'size': 7, 'x': 1}\n"
    "def mask_mod(b, h, q, kv):\n    return (q >= kv) & near(q, kv, **args)\n",
    "kind = 'window'\ndef mask_mod(b, h, q, kv):\n    match kind:\n        case 'full' | 'none':\n            return q >= 0\n"
    "        case 'window' if h is not None:\n            return (q >= kv) & (q - kv < 8)\n        case _:\n            return q < kv\n",
    "first, *rest = (1, 2, 3, 8)\n" MASK("(q >= kv) & (q - kv < rest[-1])"),
    "for first, *rest in [(1, 2, 8)]: pass\n" MASK("(q >= kv) & (q - kv < rest[-1])"),
    "config = {'a': [4, 8]}\n" MASK("(q >= kv) & (q - kv < getattr(config, 'get')('a')[1])"),
};

#define CAPPED SCORE("torch.tanh(score / 8.0) * 8.0")
static const char *const caps[] = {
    "import torch\nclass Cap(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x, cap):\n"
    "        ctx.save_for_backward(x)\n        ctx.cap = cap\n        return torch.tanh(x / cap) * cap\n    @staticmethod\n"
    "    def backward(ctx, g):\n        while True:\n            return g\n" SCORE("Cap.apply(score, 8.0)"),
    "import torch\nclass Cap(torch.autograd.Function):\n    @staticmethod\n    def forward(x, cap):\n"
    "        return torch.tanh(x / cap) * cap\n    @staticmethod\n    def setup_context(ctx, inputs, output):\n        pass\n" SCORE(
        "Cap.apply(score, 8.0)"),
    "import torch.nn as nn\nact = nn.Tanh()\n" SCORE("act(score / 8.0) * 8.0"),
    "import torch\nimport torch.nn as nn\nclass M(nn.Module):\n    def __init__(self, cap):\n        super().__init__()\n"
    "        self.act, self.cap = nn.Tanh(), cap\n    def forward(self, score, b, h, q, kv):\n"
    "        return self.act(score / self.cap) * self.cap\nscore_mod = M(8.0)\n",
};

START_TEST(configurations) {
    const char *window = canonical(WINDOW8), *cap = canonical("import torch\n" CAPPED);
    for (size_t i = 0; i < FJ_ARRAY_LEN(windows); i++) ck_assert_str_eq(canonical(windows[i]), window);
    for (size_t i = 0; i < FJ_ARRAY_LEN(caps); i++) ck_assert_str_eq(canonical(caps[i]), cap);
}
END_TEST

/* A tensor that an object holds is captured under the attribute's name. */
START_TEST(attributes_are_captures) {
    static const char *const sources[] = {
        "import torch\nclass M(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.register_buffer('slopes', torch.zeros(8))\n    def forward(self, score, b, h, q, kv):\n"
        "        return score + self.slopes[h]\nscore_mod = M().cuda()\n",
        "import torch\nclass M:\n    def __init__(self, x):\n        self.slopes = x\n    def __call__(self, score, b, h, q, kv):\n"
        "        return score + self.slopes[h]\nscore_mod = M(torch.randn(8))\n",
        "import torch\nclass M:\n    slopes = torch.empty(8)\n    def bias(self, score, b, h, q, kv):\n"
        "        return score + self.slopes[h]\nscore_mod = M().bias\n",
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(sources); i++) {
        ASSERT_OK(.source = sources[i], .bindings = vectors, .binding_count = 1);
        ck_assert_str_eq(graph->captures.data[0].name, "slopes");
        ck_assert(graph->captures.data[0].gradient);
        ASSERT_FAILS(FJ_ERR_TENSOR, "'slopes'", .source = sources[i]);
        fj_error_finish(&error);
    }
}
END_TEST

START_TEST(configurations_that_fail) {
    static const char *const cases[][2] = {
        {"C = {'a': 1}\n" SCORE("score * C['b']"), "this dict has no key 'b'"},
        {"L = [1]\nM = [L]\nL.append(M)\n" SCORE("score * L[0]"), "an item of another one"},
        {"L = [1]\nL.append(L)\n" SCORE("score * L[0]"), "an item of itself"},
        {"class C:\n    def f(self):\n        return 1\nc = C()\n" SCORE("score * c.g"),
         "an object has no attribute 'g'"},
        {"class C:\n    pass\nc = C(3)\n" SCORE("score * c.g"), "takes no arguments"},
        {"class C:\n    pass\nscore_mod = C()\n", "is an object, not a function"},
        {"class C:\n    pass\nscore_mod = C\n", "is a class, not a function"},
        {"def score_mod(score, b, h, q, kv):\n    del score\n    return score\n",
         "read before it is assigned"},
        {"def score_mod(score, b, h, q, kv):\n    d = {q: 1}\n    return score\n",
         "the key of a dict is a constant"},
        {"def f(**kw):\n    return kw['a']\n" SCORE("f(**{1: 2})"), "the keys of '**' are strings"},
        {"def f(a):\n    return a\n" SCORE("f(**[1])"), "'**' takes a dict"},
        {"def score_mod(score, b, h, q, kv):\n    match q:\n        case 1:\n            return score\n    return score\n",
         "use torch.where"},
        {"D = {chr(97): 1}\ndef f(**kw):\n    return 1\n" SCORE("score * f(**D)"), "unknown name 'chr'"},
        {"L = [chr(97)]\n" SCORE("score * sum(x for x in L)"), "unknown name 'chr'"},
        {"import functools\nfrom a import f\ng = f(1)\nscore_mod = functools.partial(g, 1)\n",
         "imported from 'a'"},
        {"from a import f\nmask_mod = and_masks(f(1), causal_mask)\n", "imported from 'a'"},
        {"class A:\n    pass\n"
         "class B(A, A):\n    pass\nclass C(B, B):\n    pass\n" SCORE("score * C.x"),
         "a class has no attribute 'x'"},
        {"@wrap\nclass C:\n    pass\nc = C()\n" SCORE("score * c.g"), "this decorator of a class"},
        {"x = 1\nL = []\nfor i in range(3):\n    L.append(i)\n    L.append(unknown_thing)\n" SCORE(
             "score * len(L)"),
         "unknown_thing"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        ASSERT_FAILS(FJ_ERR_MOD, cases[i][1], .source = cases[i][0]);
        fj_error_finish(&error);
    }
}
END_TEST

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
        late_binding,
        mutation_is_refused,
        configurations,
        attributes_are_captures,
        configurations_that_fail,
        results,
        error_place,
        every_allocation_fails_once,
    };
    TCase *all = tcase_create("mod");
    tcase_add_checked_fixture(all, setup, teardown);
    for (size_t i = 0; i < FJ_ARRAY_LEN(tests); i++) tcase_add_test(all, tests[i]);
    Suite *suite = suite_create("expr mod");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
