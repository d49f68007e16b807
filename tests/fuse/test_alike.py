"""fuse: what looks like attention and is not, or is another one than it seems: each row is a graph whose wrong fusion changes its answer."""

import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
from graphs import Graph
from patterns import B, E, H, L, S, Region

N = 4


class Cube(Region):
    """Every extent is N: only the order of dimensions tells them apart."""

    def __init__(self, dtype="F32"):
        self.g, self.dtype = Graph(), dtype
        self.q, self.k, self.v = (self.g.input(name, dtype, (N, N, N, N)) for name in "qkv")


def reduced(g, op, x):
    """Without its dimension: it broadcasts along another one."""
    return g.node(op, x.dtype, x.shape[:-1], self=x, dim=[-1], keepdim=False)


# ---- Refused: what, reason, a word of the detail -----------------------------------------------------


def sum_of_other_rows():
    r = Cube()
    grown = r.g.unary("exp", r.product())
    return r.end(r.g.div(grown, reduced(r.g, "sum", grown)))


def sum_that_widens():
    """[1,4,4,S] by sums that a view made [4,1,4,1]: the quotient is larger than the weights."""
    g = Graph()
    q, k = (g.input(n, "F32", (1, N, N, E)) for n in "qk")
    grown = g.unary("exp", g.matmul(q, g.transpose(k)))
    turned = g.view(reduced(g, "sum", grown), N, 1, N, 1)
    g.outputs = [g.matmul(g.div(grown, turned), g.input("v", "F32", (N, N, N, E)))]
    return g


def guard_of_other_rows():
    """Rows that see nothing are asked for in one order and hidden in another."""
    r = Cube()
    g = r.g
    seen = g.input("seen", "BOOL", (N, 1, N, N), [int(i >= 2 * N * N or i % 3 > 0) for i in range(N * N * N)])
    scores = g.where(seen, r.product(), -math.inf)
    empty = g.unary("logical_not", g.reduce("any", g.unary("logical_not", g.binary("eq", scores, -math.inf)), dtype="BOOL"))
    turned = g.permute(g.softmax(scores), 1, 0, 2, 3)
    return r.end(g.permute(g.where(empty, 0.0, turned), 1, 0, 2, 3))


def rows_cut():
    r = Region("F32", B)
    return r.end(r.g.slice(r.g.softmax(r.product()), 2, 0, L - 1))


def rows_again():
    r = Region("F32", B)
    w = r.g.softmax(r.product())
    return r.end(r.g.node("repeat", "F32", (B, H, 2 * L, S), self=w))


def values_cut():
    """The last key has a weight and no value."""
    r = Region("F32", B)
    r.v = r.g.slice(r.v, 2, 0, S - 1)
    return r.end(r.g.slice(r.g.softmax(r.product()), 3, 0, S - 1))


def rounded_by_a_choice():
    r = Region("F32", B)
    s = r.product()
    half = r.g.node("where", "F16", s.shape, condition=r.visible((L, S)), self=s, other=-1.0)
    return r.end(r.g.softmax(r.g.cast(half, "F32")))


def softmax_of_another_half():
    r = Region("BF16", B)
    scores = r.g.cast(r.g.node("matmul", "F32", (B, H, L, S), self=r.q, other=r.g.transpose(r.k)), "F16")
    return r.end(r.g.softmax(scores, dtype="BF16"))


def weights_through_another_half():
    r = Region("BF16", B)
    w = r.g.softmax(r.product())
    return r.end(r.g.cast(r.g.cast(w, "F16"), "BF16"))


def changed_and_forgotten():
    """Nobody reads what the operation in place gives: it has changed the mask all the same."""
    r = Region("F32", B)
    mask = r.mask()
    r.g.add(r.g.slice(mask, 3, 0, 2), 1.0)
    r.g.nodes[-1]["in_place"] = True
    return r.end(r.g.softmax(r.g.add(r.product(), mask)))


def taken_apart(r, *more, zero=0.0):
    """nan_to_num of the weights as run_decompositions() has it; rows that see nothing are NaN before it."""
    g = r.g
    seen = g.input("seen", "BOOL", (L, S), [int(i >= S and i % 2) for i in range(L * S)])
    w = g.softmax(g.where(seen, r.product(), -math.inf))
    low, high = g.binary("eq", w, -math.inf), g.binary("eq", w, math.inf)
    safe = g.where(g.unary("isnan", w, "BOOL"), zero, w)
    safe = g.where(low, -3.4e38, safe)
    return r.end(g.where(high, 3.4e38, safe), *(low for _ in more))


def question_asked_outside():
    return taken_apart(Region("F32", B), True)


def question_of_another_value():
    """Weights that are 0.25 become 3: no question about infinity."""
    r = Region("F32", B)
    w = r.g.softmax(r.product())
    return r.end(r.g.where(r.g.binary("eq", w, 0.25), 3.0, w))


# Sinks: a column that the softmax sees and the values do not.


def with_sink(r, sink, first=False, shift=True, cut=None, width=1):
    """As GPT-OSS has it: the column beside the scores, the row's maximum subtracted, the softmax, the column cut off."""
    g = r.g
    scores = g.add(g.mul(r.product(), 0.3), r.mask())
    whole = g.node("cat", "F32", [B, H, L, S + width], tensors=[sink, scores] if first else [scores, sink], dim=-1)
    x = g.binary("sub", whole, g.reduce("amax", whole)) if shift else whole
    begin = (width if first else 0) if cut is None else cut
    return r.end(g.slice(g.softmax(x), 3, begin, begin + S))


def heads_sink(r, shape=(1, H, 1, 1)):
    return r.g.expand(r.g.view(r.g.input("sinks", "F32", (H,)), *shape), B, H, L, 1)


def sink():
    r = Region("F32", B)
    return with_sink(r, heads_sink(r))


def sink_before():
    r = Region("F32", B)
    return with_sink(r, r.g.expand(r.g.view(r.g.input("sinks", "F32", (B, H)), B, H, 1, 1), B, H, L, 1), True, False)


def sink_of_a_number():
    """softmax1: exp(x) / (1 + sum)."""
    r = Region("F32", B)
    return with_sink(r, r.g.node("zeros", "F32", (B, H, L, 1)))


def sink_of_queries():
    r = Region("F32", B)
    return with_sink(r, r.g.input("sinks", "F32", (B, H, L, 1)))


def sink_of_scores():
    r = Region("F32", B)
    return with_sink(r, r.g.slice(r.product(), 3, 0, 1))


def sink_that_stays():
    """The last column is cut off, and the sink was the first one."""
    r = Region("F32", B)
    return with_sink(r, heads_sink(r), True, cut=0)


def first_key_cut():
    r = Region("F32", B)
    return with_sink(r, heads_sink(r), cut=1)


def two_columns():
    r = Region("F32", B)
    return with_sink(r, r.g.expand(r.g.view(r.g.input("sinks", "F32", (H, 2)), 1, H, 1, 2), B, H, L, 2), width=2)


def shifted_by_keys():
    """What is subtracted is the maximum of a column."""
    r = Cube()
    s = r.product()
    return r.end(r.g.softmax(r.g.binary("sub", s, r.g.node("amax", "F32", (N, N, 1, N), self=s, dim=[-2], keepdim=True))))


def sink_with_a_value():
    r = Region("F32", B)
    g = r.g
    whole = g.node("cat", "F32", [B, H, L, S + 1], tensors=[r.product(), heads_sink(r)], dim=-1)
    g.outputs = [g.matmul(g.softmax(whole), g.input("values", "F32", (B, H, S + 1, E)))]
    return g


REFUSED = [
    (sink_of_queries, "op-not-in-the-mod-language", "differs between queries"), (sink_of_scores, "op-not-in-the-mod-language", ""),
    (sink_that_stays, "batch-dims-differ", ""), (first_key_cut, "batch-dims-differ", ""), (two_columns, "op-not-in-the-mod-language", "cat"),
    (shifted_by_keys, "op-not-in-the-mod-language", "amax"), (sink_with_a_value, "batch-dims-differ", ""),
    (question_asked_outside, "outputs-used", ""), (question_of_another_value, "outputs-used", "where"),
    (sum_of_other_rows, None, ""), (sum_that_widens, None, ""), (guard_of_other_rows, "op-not-in-the-mod-language", "where"),
    (rows_cut, "batch-dims-differ", "rows"), (rows_again, "batch-dims-differ", "rows"), (values_cut, "batch-dims-differ", ""),
    (rounded_by_a_choice, "rounding-differs", "F16"), (softmax_of_another_half, "rounding-differs", "F16"),
    (weights_through_another_half, "rounding-differs", "F16"), (changed_and_forgotten, "mutation-between", "add"),
]  # fmt: skip

# ---- Fused, and right: what, scale, captures, words of the mod ----------------------------------------


def maximum_of_other_rows():
    """What is subtracted is no constant of the row; it is a tensor of the scores, though."""
    r = Cube()
    s = r.product()
    grown = r.g.unary("exp", r.g.binary("sub", s, reduced(r.g, "amax", s)))
    return r.end(r.g.div(grown, r.g.reduce("sum", grown)))


def bools_counted():
    """True + True is 2, where it is True of bools."""
    r = Region("F32", B)
    g = r.g
    bits = [g.input(n, "BOOL", (L, S), [int((i * step + 1) % 3 > 0) for i in range(L * S)]) for n, step in (("a", 1), ("c", 2))]
    both = g.binary("gt", g.add(*(g.cast(b, "I64") for b in bits)), 1)
    return r.end(g.softmax(g.where(both, r.product(), -5.0)))


def a_row_of_ones():
    """An eye of integers, added to itself."""
    r = Region("F32", B)
    g = r.g
    eye = g.node("eye", "I64", (L, S))
    return r.end(g.softmax(g.where(g.binary("eq", g.add(eye, eye), 2), r.product(), -5.0)))


def position_as_half():
    """257 is 256 as BF16: what is compared is the graph's own."""
    g = Graph()
    q, k, v = (g.input(n, "BF16", (1, 1, 2 if n == "q" else 260, 4)) for n in "qkv")
    near = g.binary("le", g.cast(g.arange(260), "BF16"), 256.0)
    g.outputs = [g.matmul(g.softmax(g.where(near, g.matmul(q, g.transpose(k)), -math.inf)), v)]
    return g


def other_product_of_another_width():
    r = Region("F32", B)
    g = r.g
    other = g.matmul(g.input("rows", "F32", (B, H, L, 3)), g.input("columns", "F32", (1, H, 3, S)))
    return r.end(g.softmax(g.add(g.mul(r.product(), 0.3), other)))


def names_that_meet():
    """'a.b' becomes a_b, which there is, then a_b_2, which there is too."""
    r = Region("F32", B)
    s = r.product()
    for i, name in enumerate(("a_b_2", "a_b", "a.b", "a b")):
        s = r.g.mul(r.g.unary("tanh", s), r.g.input(name, "F32", (H, 1, 1), [i + 0.5 * h + 1 for h in range(H)]))
    return r.end(r.g.softmax(s))


def values_scaled():
    r = Region("F32", B)
    r.v = r.g.mul(r.v, 3.0)
    return r.end(r.g.softmax(r.product()))


def guard_taken_apart():
    return taken_apart(Region("F32", B))


def guard_of_a_view():
    """What the guard puts in is a view of a zero."""
    r = Region("F32", B)
    zero = r.g.expand(r.g.view(r.g.node("full", "F32", [1], fill_value=0.0), 1, 1, 1, 1), B, H, L, S)
    return taken_apart(r, zero=zero)


FUSED = [
    (sink, 0.3, 2, ["def sink_mod(b, h):\n    return sinks[h]", "mask[b, 0, 0, kv_idx]"]), (sink_before, 0.3, 2, ["return sinks[b, h]"]),
    (sink_of_a_number, 0.3, 1, ["return 0.0"]),
    (guard_taken_apart, 1.0, 1, ["return seen[q_idx, kv_idx]"]), (guard_of_a_view, 1.0, 1, ["return seen[q_idx, kv_idx]"]),
    (bools_counted, 1.0, 2, ["torch.where("]), (a_row_of_ones, 1.0, 0, []), (position_as_half, 1.0, 1, ["[kv_idx]"]),
    (other_product_of_another_width, 0.3, 1, ["[b, h, q_idx, kv_idx]"]), (names_that_meet, 1.0, 4, []), (values_scaled, 1.0, 0, []),
]  # fmt: skip


class Alike(harness.Case):
    def fuse(self, graph, run=True):
        path = self.file("g.json", graph.text())
        given = self.file("g.st", harness.safetensors(graph.given))
        ran = ("--run", given, "--check", "--device", "reference") if run else ()
        return json.loads(self.ok("fuse", path, "--json", "--output", self.folder / "out", *ran).stdout)

    def test_refused(self):
        for make, reason, detail in REFUSED:
            with self.subTest(make.__name__):
                report = self.fuse(make(), run=make is not changed_and_forgotten and "half" not in make.__name__)
                self.assertEqual(report["fused"], [])
                if reason is not None:
                    self.assertEqual([each["reason"] for each in report["refused"]], [reason], report["refused"])
                    self.assertIn(detail, report["refused"][0]["detail"])

    def test_fused(self):
        for make, scale, captures, words in FUSED:
            with self.subTest(make.__name__):
                report = self.fuse(make())
                self.assertEqual(report["refused"], [])
                self.assertAlmostEqual(report["fused"][0]["scale"], scale, delta=1e-6)
                self.assertEqual(len(set(report["fused"][0]["captures"])), captures)
                mod = (self.folder / "out" / "attention_0.py").read_text()
                for word in words:
                    self.assertIn(word, mod)

    def test_maximum_of_other_rows(self):
        self.assertEqual(self.fuse(maximum_of_other_rows())["fused"], [])

    def test_products_of_vectors(self):
        """A vector has no batch: the other factor's dimensions are the result's."""
        g = Graph()
        a, v, w = g.input("a", "F32", (B, H, L, E)), g.input("v", "F32", (E,)), g.input("w", "F32", (L,))
        g.outputs = [g.node("matmul", "F32", (B, H, L), self=a, other=v), g.node("matmul", "F32", (B, H, E), self=w, other=a),
                     g.node("matmul", "F32", (), self=v, other=v)]  # fmt: skip
        path, given = self.file("g.json", g.text()), self.file("g.st", harness.safetensors(g.given))
        self.ok("fuse", path, "--run", given, "--check", "--output", self.folder / "out")
        made, x = harness.read_safetensors(self.folder / "out/outputs.safetensors"), harness.read_safetensors(given)
        for i in range(B * H * L):
            self.assertAlmostEqual(made["output_0"][2][i], sum(x["a"][2][i * E + e] * x["v"][2][e] for e in range(E)), delta=1e-5)
        for i in range(B * H * E):
            expected = sum(x["a"][2][(i // E * L + j) * E + i % E] * x["w"][2][j] for j in range(L))
            self.assertAlmostEqual(made["output_1"][2][i], expected, delta=1e-5)

    def test_nan_to_num(self):
        """Infinities become the ends of the dtype, or what the node says."""
        g = Graph()
        x = g.input("x", "F32", (4,), [math.nan, math.inf, -math.inf, 2.0])
        g.outputs = [g.unary("nan_to_num", x), g.node("nan_to_num", "F32", (4,), self=x, nan=0.5, posinf=7.0, neginf=-1.0)]
        path, given = self.file("g.json", g.text()), self.file("g.st", harness.safetensors(g.given))
        self.ok("fuse", path, "--run", given, "--check", "--output", self.folder / "out")
        made = harness.read_safetensors(self.folder / "out/outputs.safetensors")
        most = 3.4028234663852886e38
        self.assertEqual(made["output_0"][2], [0.0, most, -most, 2.0])
        self.assertEqual(made["output_1"][2], [0.5, 7.0, -1.0, 2.0])

    def test_names_stay_names(self):
        """A node's name is the file's: no line of the mod begins with what follows a line's end in it."""
        r = Region("F32", B)
        r.end(r.g.softmax(r.product()))
        next(node for node in r.g.nodes if node["op"] == "softmax")["name"] = "s\nimport os\r\x1b[2J"
        self.fuse(r.g, run=False)
        mod = (self.folder / "out" / "attention_0.py").read_text()
        self.assertNotIn("\nimport os", mod)
        self.assertNotIn("\x1b", mod)
        self.assertNotIn("\r", mod)


if __name__ == "__main__":
    harness.main()
