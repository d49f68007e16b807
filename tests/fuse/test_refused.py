"""fuse: near misses with their reasons, traps whose wrong fusion would change an answer, and what has to fuse all the same."""

import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
from graphs import LOWEST, Graph
from patterns import B, E, H, L, S, Region

# ---- Refused: (what, reason, node that the detail names) ------------------------------------------------


def scores(r):
    return r.g.mul(r.product(), 0.3)


def weights_asked_for(r):
    w = r.g.softmax(scores(r))
    return r.end(w, w)


def scores_asked_for(r):
    s = scores(r)
    return r.end(r.g.softmax(s), s)


def weights_read_twice(r):
    w = r.g.softmax(scores(r))
    return r.end(w, r.g.reduce("sum", w))


def softmax_over_rows(r):
    return r.end(r.g.softmax(scores(r), dim=-2))


def no_product_above(r):
    s = r.g.input("s", "F32", (B, H, L, S))
    return r.end(r.g.softmax(s))


def no_product_below(r):
    r.g.outputs = [r.g.mul(r.g.softmax(scores(r)), 2.0)]
    return r.g


def values_of_another_dtype(r):
    r.v = r.g.cast(r.v, "F16")
    out = r.g.node("matmul", "F32", [B, H, L, E], self=r.g.softmax(scores(r)), other=r.v)
    r.g.outputs = [out]
    return r.g


def scores_rounded(r):
    return r.end(r.g.softmax(r.g.cast(r.g.cast(scores(r), "F16"), "F32")))


def softmax_in_half(r):
    return r.end(r.g.cast(r.g.softmax(scores(r), dtype="F16"), "F32"))


def weights_rounded(r):
    return r.end(r.g.cast(r.g.cast(r.g.softmax(scores(r)), "BF16"), "F32"))


def products_rounded(r):
    g = r.g
    product = g.node("matmul", "F16", [B, H, L, S], self=r.q, other=g.transpose(r.k))
    return r.end(g.softmax(g.cast(product, "F32")))


def mask_of_f64(r):
    g = r.g
    added = g.node("add", "F32", [B, H, L, S], self=scores(r), other=g.input("m", "F64", (L, S)))
    return r.end(g.softmax(added))


def gelu_of_scores(r):
    s = scores(r)
    return r.end(r.g.softmax(r.g.node("gelu", "F32", s.shape, self=s)))


def cumulative_scores(r):
    s = scores(r)
    return r.end(r.g.softmax(r.g.add(s, r.g.node("cumsum", "F32", s.shape, self=s, dim=-1))))


def unknown_of_scores(r):
    s = scores(r)
    return r.end(r.g.softmax(r.g.node("my.op", "F32", s.shape, x=s)))


def weights_masked(r):
    return r.end(r.g.mul(r.g.softmax(scores(r)), r.mask()))


def normalised_by_rows(r):
    """softmax over keys of scores from which the mean of each row is taken: a reduction of the scores."""
    s = scores(r)
    return r.end(r.g.softmax(r.g.binary("sub", s, r.g.reduce("mean", s))))


def dropout(r):
    return r.end(r.g.dropout(r.g.softmax(scores(r)), 0.5, True))


def eps_in_divisor(r):
    g = r.g
    grown = g.unary("exp", scores(r))
    return r.end(g.div(grown, g.add(g.reduce("sum", grown), 1e-6)))


def sink_column(r):
    """An extra column that the softmax sees and the product does not."""
    g = r.g
    whole = g.node("cat", "F32", [B, H, L, S + 1], tensors=[scores(r), g.input("sink", "F32", (B, H, L, 1))], dim=-1)
    return r.end(g.slice(g.softmax(whole), 3, 0, S))


def wrong_heads(r):
    """The weights' batch and heads change places before the values are multiplied."""
    g = r.g
    w = g.softmax(scores(r))
    turned = g.view(g.permute(w, 1, 0, 2, 3), B, H, L, S)
    return r.end(turned)


def keys_reversed(r):
    g = r.g
    w = g.softmax(scores(r))
    return r.end(g.node("flip", "F32", w.shape, self=w, dims=[3]))


def repeated_like_tiles(r):
    """Head h has keys h % Hkv: no group of neighbours."""
    g = r.g
    q = g.input("q4", "F32", (B, 4, L, E))
    k, v = (g.node("repeat", "F32", (B, 4, S, E), self=g.input(n, "F32", (B, 2, S, E))) for n in ("k2", "v2"))
    g.outputs = [g.matmul(g.softmax(g.matmul(q, g.transpose(k))), v)]
    return g


def large_heads(r):
    g = r.g
    q, k, v = (g.input(f"{n}9", "F32", (1, 1, 3, 257)) for n in "qkv")
    g.outputs = [g.matmul(g.softmax(g.matmul(q, g.transpose(k))), v)]
    return g


def changed_between(r):
    """A part of a mask is written in place before it is added."""
    g = r.g
    mask = r.mask()
    changed = g.add(g.slice(mask, 3, 0, 2), 1.0)
    g.nodes[-1]["in_place"] = True
    return r.end(g.softmax(g.add(scores(r), mask)), changed)


def scale_of_zero(r):
    r.g.outputs = [r.g.sdpa(r.q, r.k, r.v, scale=0.0)]
    return r.g


def mask_that_does_not_fit(r):
    """One mask for two batches of scores each: no broadcast of a call."""
    g = r.g
    q = g.input("q1", "F32", (1, H, L, E))
    r.g.outputs = [g.node("scaled_dot_product_attention", "F32", (1, H, L, E), query=q, key=g.slice(r.k, 0, 0, 1), value=g.slice(r.v, 0, 0, 1),
                          attn_mask=g.input("m2", "F32", (B, 1, L, S)))]  # fmt: skip
    return g


REFUSED = [
    (changed_between, "mutation-between", "add"), (scale_of_zero, "scale-not-constant", ""), (mask_that_does_not_fit, "mask-does-not-broadcast", "m2"),
    (weights_asked_for, "outputs-used", ""), (scores_asked_for, "outputs-used", ""), (weights_read_twice, "outputs-used", "also read by"),
    (softmax_over_rows, "softmax-dim", "dimension 2"), (no_product_above, "not-attention", ""),
    (no_product_below, "op-not-in-the-mod-language", "mul"), (values_of_another_dtype, "dtype-mix", ""),
    (scores_rounded, "rounding-differs", "F16"), (softmax_in_half, "rounding-differs", "F16"), (weights_rounded, "rounding-differs", "BF16"),
    (products_rounded, "rounding-differs", "products"), (mask_of_f64, "mask-dtype", "m"), (gelu_of_scores, "op-not-in-the-mod-language", "gelu"),
    (cumulative_scores, "op-not-in-the-mod-language", "cumsum"), (unknown_of_scores, "op-not-in-the-mod-language", "my.op"),
    (weights_masked, "op-not-in-the-mod-language", "mul"), (normalised_by_rows, "op-not-in-the-mod-language", "mean"),
    (dropout, "dropout-in-training", "dropout"), (eps_in_divisor, "op-not-in-the-mod-language", "add"),
    (sink_column, "op-not-in-the-mod-language", "differs between queries"), (wrong_heads, "batch-dims-differ", ""), (keys_reversed, "batch-dims-differ", ""),
    (large_heads, "size-bound", "257"),
]  # fmt: skip
RUNS = {softmax_over_rows, no_product_above, no_product_below, weights_masked, normalised_by_rows, sink_column, wrong_heads, keys_reversed,
        repeated_like_tiles, eps_in_divisor, scores_rounded, gelu_of_scores, cumulative_scores}  # fmt: skip

# ---- Fused, and right: (what, scale, words of the mod, words that are not in it) ------------------------


def added_bool(r):
    """It adds 0 or 1: no mask."""
    return r.end(r.g.softmax(r.g.add(scores(r), r.visible((L, S)))))


def integer_mask(r):
    """keep == 0 hides; 2 keeps, though it is not 1."""
    keep = r.g.input("keep", "F32", (B, S), [[0.0, 1.0, 2.0][i % 3] for i in range(B * S)])
    hidden = r.g.expand(r.g.view(r.g.binary("eq", keep, 0), B, 1, 1, S), B, H, L, S)
    return r.end(r.g.softmax(r.g.fill(scores(r), hidden, -math.inf)))


def lowest_fill(r):
    """A row that is filled with the lowest float sees the mean of all values."""
    seen = r.g.input("seen", "BOOL", (L, S), [int(i >= S and i % 2) for i in range(L * S)])
    return r.end(r.g.softmax(r.g.where(seen, scores(r), LOWEST["F32"])))


def empty_rows(r):
    seen = r.g.input("seen", "BOOL", (L, S), [int(i >= S and i % 2) for i in range(L * S)])
    return r.end(r.g.softmax(r.g.where(seen, scores(r), -math.inf)))


def keys_of_another_layout(r):
    """k comes as [B,E,S,H]."""
    r.k = r.g.permute(r.g.input("k9", "F32", (B, E, S, H)), 0, 3, 2, 1)
    return r.end(r.g.softmax(scores(r)))


def keys_that_only_look_transposed(r):
    """A reshape of [S,E] to [E,S] is no transposition: captured as it is."""
    g = r.g
    turned = g.view(r.k, B, H, E, S)
    return r.end(g.softmax(g.matmul(r.q, turned)))


def mask_first(r):
    return r.end(r.g.softmax(r.g.add(r.mask(), scores(r))))


def number_added(r):
    return r.end(r.g.softmax(r.g.add(scores(r), 2.5)))


def tensor_without_dimensions(r):
    return r.end(r.g.softmax(r.g.add(scores(r), r.g.input("m0", "F32", (), [0.5]))))


def constant_scale(r):
    return r.end(r.g.softmax(r.g.mul(r.product(), r.g.constant("F32", [1], [0.25]))))


def scale_on_both(r):
    return r.end(r.g.softmax(r.product(r.g.mul(r.q, 0.5), r.g.div(r.k, 4.0))))


def tensor_factor(r):
    """A temperature for each head is no scale, but a mod."""
    return r.end(r.g.softmax(r.g.mul(r.product(), r.g.input("temperature", "F32", (H, 1, 1)))))


def negative_scale(r):
    return r.end(r.g.softmax(r.g.unary("neg", scores(r))))


def scores_in_two_ways(r):
    s = r.product()
    return r.end(r.g.softmax(r.g.add(r.g.mul(s, 0.25), r.g.unary("tanh", r.g.mul(s, 0.5)))))


def capped(r):
    return r.end(r.g.softmax(r.g.mul(r.g.unary("tanh", r.g.div(scores(r), 5.0)), 5.0)))


def causal(r):
    g = r.g
    q, kv = g.view(g.arange(L), L, 1), g.view(g.arange(S), 1, S)
    return r.end(g.softmax(g.where(g.binary("le", kv, q), scores(r), -math.inf)))


def sliced_causal(r):
    g = r.g
    table = g.node("tril", "BOOL", [1, 1, 9, 9], self=g.node("ones", "BOOL", [1, 1, 9, 9]))
    window = g.slice(g.slice(table, 2, 2, 2 + L), 3, 0, S)
    return r.end(g.softmax(g.where(window, scores(r), -math.inf)))


def table_of_distances(r):
    """T5: a table read at what positions make."""
    g = r.g
    apart = g.binary("sub", g.view(g.arange(S), 1, S), g.view(g.arange(L), L, 1))
    bucket = g.point("clamp", ["self", "min", "max"], [apart, 0, 3])
    bias = g.node("embedding", "F32", [L, S, H], weight=g.input("table", "F32", (4, H)), indices=bucket)
    return r.end(g.softmax(g.add(scores(r), g.view(g.permute(bias, 2, 0, 1), 1, H, L, S))))


def fills_in_a_chain(r):
    g = r.g
    first = g.fill(scores(r), g.input("a", "BOOL", (L, S), [int(i % 4 == 1) for i in range(L * S)]), -math.inf)
    second = g.where(g.input("c", "BOOL", (B, 1, 1, S), [int(i % S != 2) for i in range(B * S)]), first, -math.inf)
    return r.end(g.softmax(g.add(second, r.mask(shape=(H, 1, 1)))))


def groups(r):
    g = r.g
    q = g.input("q4", "F32", (B, 4, L, E))
    k, v = (g.view(g.expand(g.view(g.input(n, "F32", (B, 2, S, E)), B, 2, 1, S, E), B, 2, 2, S, E), B, 4, S, E) for n in ("k2", "v2"))
    g.outputs = [g.matmul(g.softmax(g.matmul(q, g.transpose(k))), v)]
    return g


def one_head_of_keys(r):
    g = r.g
    k, v = (g.input(n, "F32", (B, 1, S, E)) for n in ("k1", "v1"))
    g.outputs = [g.matmul(g.softmax(g.matmul(r.q, g.transpose(k))), v)]
    return g


def turned_product(r):
    """(k qT)T."""
    return r.end(r.g.softmax(r.g.transpose(r.g.matmul(r.k, r.g.transpose(r.q)))))


def turned_result(r):
    """(vT wT)."""
    g = r.g
    g.outputs = [g.matmul(g.transpose(r.v), g.transpose(g.softmax(scores(r))))]
    return g


def guarded(r):
    g = r.g
    seen = g.input("seen", "BOOL", (L, S), [int(i >= S and i % 2) for i in range(L * S)])
    w = g.softmax(g.where(seen, scores(r), -math.inf))
    return r.end(g.where(g.unary("isnan", w, "BOOL"), 0.0, w))


def written_out(r):
    g = r.g
    s = scores(r)
    grown = g.unary("exp", g.binary("sub", s, g.reduce("amax", s)))
    return r.end(g.div(grown, g.reduce("sum", grown)))


def one_query(r):
    g = r.g
    q = g.input("q1", "F32", (B, H, 1, E))
    g.outputs = [g.matmul(g.softmax(g.add(g.matmul(q, g.transpose(r.k)), r.mask())), r.v)]
    return g


def one_of_everything(r):
    g = r.g
    q, k, v = (g.input(f"{n}1", "F32", (1, 1, 1, 1)) for n in "qkv")
    g.outputs = [g.matmul(g.softmax(g.matmul(q, g.transpose(k))), v)]
    return g


def two_products_added(r):
    """The second one is captured as a bias."""
    g = r.g
    other = g.matmul(r.q, g.input("rel", "F32", (1, H, E, S)))
    return r.end(g.softmax(g.add(scores(r), other)))


def five_dimensions(r):
    g = r.g
    q = g.input("q5", "F32", (B, 2, 3, L, E))
    k, v = (g.input(n, "F32", (B, 2, 1, S, E)) for n in ("k5", "v5"))
    m = g.input("m5", "F32", (1, 2, 3, 1, S))
    g.outputs = [g.matmul(g.softmax(g.add(g.matmul(q, g.transpose(k)), m)), v)]
    return g


def rank_two(r):
    g = r.g
    q, k, v = (g.input(f"{n}2", "F32", (n == "q" and L or S, E)) for n in "qkv")
    g.outputs = [g.matmul(g.softmax(g.matmul(q, g.transpose(k))), v)]
    return g


def sdpa_node(r):
    r.g.outputs = [r.g.sdpa(r.q, r.k, r.v, attn_mask=r.visible((B, 1, L, S)), scale=0.5)]
    return r.g


def sdpa_added(r):
    r.g.outputs = [r.g.sdpa(r.q, r.k, r.v, attn_mask=r.mask(shape=(L, S)))]
    return r.g


def sdpa_causal(r):
    r.g.outputs = [r.g.sdpa(r.q, r.k, r.v, is_causal=True)]
    return r.g


def sdpa_groups(r):
    g = r.g
    q = g.input("q4", "F32", (B, 4, L, E))
    k, v = (g.input(n, "F32", (B, 2, S, E)) for n in ("k2", "v2"))
    g.outputs = [g.sdpa(q, k, v, enable_gqa=True)]
    return g


def compared_in_half(r):
    """0.1 is half's 0.1 where halves are compared with it."""
    g = r.g
    m = g.input("m16", "F16", (L, S), [[0.1, 0.5][i % 2] for i in range(L * S)])
    return r.end(g.softmax(g.where(g.binary("eq", m, 0.1), scores(r), -1.0)))


def large_positions(r):
    """Products that may leave 32 bits."""
    g = r.g
    q, kv = g.view(g.arange(L), L, 1), g.view(g.arange(S), 1, S)
    large = g.mul(g.add(q, 1), 200000)
    return r.end(g.softmax(g.where(g.binary("gt", large, g.mul(kv, 150000)), scores(r), -1.0)))


def positions_multiplied(r):
    g = r.g
    q, kv = g.view(g.arange(L), L, 1), g.view(g.arange(S), 1, S)
    return r.end(g.softmax(g.add(scores(r), g.cast(g.mul(q, kv), "F32"))))


FUSED = [
    (compared_in_half, 0.3, ["0.0999755859375"], []), (large_positions, 0.3, [".long()"], []), (positions_multiplied, 0.3, ["[q_idx, kv_idx]"], []),
    (added_bool, 0.3, ["score + seen[q_idx, kv_idx]"], ["mask_mod"]), (integer_mask, 0.3, ["keep[b, kv_idx]", "mask_mod"], ["== 1"]),
    (lowest_fill, 0.3, ["torch.where", "3.4028"], ["mask_mod"]), (empty_rows, 0.3, ["return seen[q_idx, kv_idx]"], ["score_mod(score"]),
    (keys_of_another_layout, 0.3, [], ["def"]), (keys_that_only_look_transposed, None, None, None),
    (mask_first, 0.3, ["mask[b, 0, 0, kv_idx]"], []), (number_added, 0.3, ["2.5"], ["empty"]), (tensor_without_dimensions, 0.3, ["m0"], ["m0["]),
    (constant_scale, 0.25, [], ["def"]), (scale_on_both, 0.125, [], ["def"]), (tensor_factor, 1.0, ["score * temperature[h, 0, 0]"], []),
    (negative_scale, -0.3, [], ["def"]), (scores_in_two_ways, 1.0, ["tanh", "0.25"], []), (capped, 0.06, ["torch.tanh(score) * 5.0"], []),
    (causal, 0.3, ["return (kv_idx <= q_idx)"], ["empty"]), (sliced_causal, 0.3, ["return (kv_idx <= (q_idx + 2))"], ["empty"]),
    (table_of_distances, 0.3, ["table["], []), (fills_in_a_chain, 0.3, ["mask_mod", "score + mask[h, 0, 0]"], []),
    (groups, 1.0, [], ["def"]), (one_head_of_keys, 1.0, [], ["def"]), (turned_product, 1.0, [], ["def"]), (turned_result, 0.3, [], ["def"]),
    (guarded, 0.3, ["mask_mod"], []), (written_out, 0.3, [], ["def"]), (one_query, 1.0, ["mask[b, 0, 0, kv_idx]"], []),
    (one_of_everything, 1.0, [], ["def"]), (two_products_added, 0.3, ["[b, h, q_idx, kv_idx]"], []),
    (five_dimensions, 1.0, ["m5[0, (h // 3), (h % 3), 0, kv_idx]"], []), (rank_two, 1.0, [], ["def"]),
    (sdpa_node, 0.5, ["return seen[b, 0, q_idx, kv_idx]"], ["score_mod(score"]), (sdpa_added, 1 / math.sqrt(E), ["mask[q_idx, kv_idx]"], ["mask_mod"]),
    (sdpa_causal, 1 / math.sqrt(E), ["return (kv_idx <= q_idx)"], []), (sdpa_groups, 1 / math.sqrt(E), [], ["def"]),
]  # fmt: skip
GROUPED = {groups: 2, sdpa_groups: 2, one_head_of_keys: 3, five_dimensions: 3}


class Regions(harness.Case):
    def fuse(self, make, *options, run=True):
        graph = make(Region("F32", B))
        path = self.file("g.json", graph.text())
        given = self.file("g.st", harness.safetensors(graph.given))
        ran = ("--run", given, "--check", "--device", "reference") if run else ()
        return json.loads(self.ok("fuse", path, "--json", "--output", self.folder / "out", *ran, *options).stdout)

    def test_refused(self):
        for make, reason, detail in REFUSED:
            with self.subTest(make.__name__):
                report = self.fuse(make, run=make in RUNS)
                self.assertEqual(report["fused"], [])
                self.assertEqual([each["reason"] for each in report["refused"]], [reason], report["refused"])
                self.assertIn(detail, report["refused"][0]["detail"])
                self.assertEqual(report["counters"][reason], 1)

    def test_fused(self):
        for make, scale, words, others in FUSED:
            with self.subTest(make.__name__):
                report = self.fuse(make)
                if scale is None:  # either way, as long as the answer is right
                    continue
                self.assertEqual(report["refused"], [])
                fused = report["fused"][0]
                self.assertAlmostEqual(fused["scale"], scale, delta=1e-6)
                mod = (self.folder / "out" / fused["mod"]).read_text()
                for word in words:
                    self.assertIn(word, mod)
                for word in others:
                    self.assertNotIn(word, mod.replace("mask_mod = None", "").replace("score_mod = None", ""))
                self.assertEqual(fused["shape"][1] // fused["shape"][2], GROUPED.get(make, 1))

    def test_tiles(self):
        """Keys that repeat like tiles are copied by the graph, or refused; never read as groups."""
        report = self.fuse(repeated_like_tiles)
        for fused in report["fused"]:
            self.assertEqual(fused["shape"][1], fused["shape"][2])

    def test_no_empty_rows(self):
        report = self.fuse(lowest_fill, "--assume-no-empty-rows", run=False)
        mod = (self.folder / "out" / report["fused"][0]["mod"]).read_text()
        self.assertIn("def mask_mod", mod)
        self.assertNotIn("def score_mod", mod)

    def test_notes(self):
        notes = {make: " ".join(self.fuse(make, run=False)["fused"][0]["notes"]) for make in (empty_rows, guarded, sdpa_node, written_out)}
        self.assertIn("see nothing", notes[empty_rows])
        self.assertIn("NaN", notes[guarded])
        self.assertEqual(notes[sdpa_node] + notes[written_out], "")


if __name__ == "__main__":
    harness.main()
