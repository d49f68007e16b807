/* Python beside the mods that configures them: dicts, objects, classes, conditions at module level. */
#include "mod_case.h"

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

int main(void) {
    const TTest *const tests[] = {
        configurations,
        attributes_are_captures,
        configurations_that_fail,
    };
    return run_mod_tests("expr config", tests, FJ_ARRAY_LEN(tests));
}
