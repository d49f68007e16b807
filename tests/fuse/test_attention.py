"""fuse: ONNX's operation Attention, in all of its forms, against the standard's definition written out here."""

import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
from onnx_file import model, node, value

B, HQ, HKV, L, N, P, E, EV = 2, 4, 2, 3, 4, 2, 4, 5  # N keys of the call, P of the past


def numbers(name, shape):
    return harness.normal("F32", shape, sum(map(ord, name)))


class Tensor:
    """Elements by index."""

    def __init__(self, shape, data):
        self.shape, self.data = shape, data

    def __getitem__(self, index):
        at = 0
        for i, n in zip(index[-len(self.shape) :], self.shape):
            at = at * n + (i if n > 1 else 0)
        return self.data[at]


def defined(given, attributes, opset):
    """Y as rows of [B, HQ, L, EV], as the standard says."""
    heads = {name: Tensor(t[1], t[2]) for name, t in given.items()}
    flat = len(given["q"][1]) == 3

    def element(name, b, h, i, e, width):
        return heads[name][(b, i, h * width + e)] if flat else heads[name][(b, h, i, e)]

    past = P if "past_k" in given else 0
    total = past + N
    scale = attributes.get("scale", 1 / math.sqrt(E))
    cap, left, right = attributes.get("softcap", 0), attributes.get("left_window_size", -1), attributes.get("right_window_size", -1)
    out = []
    for b in range(B):
        length = int(given["lengths"][2][b]) if "lengths" in given else None
        for h in range(HQ):
            g = h // (HQ // HKV)
            key = lambda j, e: heads["past_k"][(b, g, j, e)] if j < past else element("k", b, g, j - past, e, E)
            val = lambda j, e: heads["past_v"][(b, g, j, e)] if j < past else element("v", b, g, j - past, e, EV)
            for i in range(L):
                p = i + (past if length is None else length - L)
                row = []
                for j in range(total):
                    s = scale * sum(element("q", b, h, i, e, E) * key(j, e) for e in range(E))
                    s = cap * math.tanh(s / cap) if cap else s
                    seen = not (attributes.get("is_causal") and j > p)
                    seen &= (left < 0 or p - j <= left) and (right < 0 or j - p <= right) and (length is None or j < length)
                    if "m" in given:
                        short = j >= given["m"][1][-1]
                        if given["m"][0] == "BOOL":
                            seen &= not short and bool(heads["m"][(b, h, i, j)])
                        else:
                            s += -math.inf if short else heads["m"][(b, h, i, j)]
                    row.append(s if seen else -math.inf)
                most = max(row)
                weights = [math.exp(s - most) if most > -math.inf else 0.0 for s in row]
                whole = sum(weights) or 1.0
                out.append([sum(w / whole * val(j, e) for j, w in enumerate(weights)) for e in range(EV)])
    return out


def bits(shape, period=3):
    return ("BOOL", list(shape), [int(i % period > 0) for i in range(math.prod(shape))])


ROWS = {
    "plain": (23, {}, {}, "sdpa"),
    "scaled": (23, {"scale": 0.3}, {}, "sdpa"),
    "of scale 2 with a cap": (23, {"scale": 2.0, "softcap": 1.5}, {}, "safe-softmax"),
    "causal": (23, {"is_causal": 1}, {}, "sdpa"),
    "bits": (23, {}, {"m": bits((B, 1, L, N))}, "sdpa"),
    "added": (23, {}, {"m": numbers("m", (HQ, 1, N))}, "sdpa"),
    "cap before mask": (23, {"softcap": 0.5}, {"m": numbers("m", (L, N))}, "safe-softmax"),
    "cap before bits": (23, {"softcap": 0.5, "is_causal": 1}, {"m": bits((L, N))}, "safe-softmax"),
    "past": (23, {}, {"past_k": numbers("pk", (B, HKV, P, E)), "past_v": numbers("pv", (B, HKV, P, EV))}, "sdpa"),
    "past, causal": (23, {"is_causal": 1}, {"past_k": numbers("pk", (B, HKV, P, E)), "past_v": numbers("pv", (B, HKV, P, EV))}, "safe-softmax"),
    "lengths": (24, {}, {"lengths": ("I64", [B], [2, 4])}, "safe-softmax"),
    "lengths, causal, rows without keys": (24, {"is_causal": 1}, {"lengths": ("I64", [B], [1, 4])}, "safe-softmax"),
    "shorter bits": (24, {}, {"m": bits((L, N - 1))}, "sdpa"),
    "shorter and added": (24, {}, {"m": numbers("m", (1, 1, L, N - 1))}, "sdpa"),
    "window": (25, {"left_window_size": 1, "right_window_size": 0}, {}, "safe-softmax"),
    "window of a past": (25, {"left_window_size": 2, "is_causal": 1},
                         {"past_k": numbers("pk", (B, HKV, P, E)), "past_v": numbers("pv", (B, HKV, P, EV))}, "safe-softmax"),
    "window of lengths": (25, {"left_window_size": 1, "right_window_size": 1}, {"lengths": ("I64", [B], [3, 4])}, "safe-softmax"),
    "float32 softmax": (24, {"softmax_precision": 1}, {}, "sdpa"),
}  # fmt: skip
INPUTS = ["q", "k", "v", "m", "past_k", "past_v", "lengths"]


class Attention(harness.Case):
    def make(self, opset, attributes, more, flat=False, outputs=("out",)):
        shapes = {"q": (B, HQ, L, E), "k": (B, HKV, N, E), "v": (B, HKV, N, EV)}
        out = (B, HQ, L, EV)
        if flat:
            shapes = {n: (b, length, h * e) for n, (b, h, length, e) in shapes.items()}
            out, attributes = (B, L, HQ * EV), {**attributes, "q_num_heads": HQ, "kv_num_heads": HKV}
        given = {**{n: numbers(n, s) for n, s in shapes.items()}, **more}
        names = [n if n in given else "" for n in INPUTS]
        while not names[-1]:
            names.pop()
        total = N + (P if "past_k" in more else 0)
        types = {"out": out, "pk": (B, HKV, total, E), "pv": (B, HKV, total, EV), "qk": (B, HQ, L, total)}
        content = model([node("Attention", names, list(outputs), **attributes)], [value(n, t[0], t[1]) for n, t in given.items()],
                        [value(n, "F32", types[n]) for n in outputs if n], opset=opset)  # fmt: skip
        return given, self.file("m.onnx", content)

    def run_one(self, given, path):
        report = json.loads(self.ok("fuse", path, "--json", "--run", self.file("m.st", harness.safetensors(given)), "--check", "--device", "reference",
                                    "--output", self.folder / "o").stdout)  # fmt: skip
        return report, harness.read_safetensors(self.folder / "o/outputs.safetensors")

    def test_forms(self):
        for flat in (False, True):
            for name, (opset, attributes, more, pattern) in ROWS.items():
                with self.subTest(name, flat=flat):
                    given, path = self.make(opset, attributes, more, flat)
                    report, made = self.run_one(given, path)
                    self.assertEqual([each["pattern"] for each in report["fused"]], [pattern], report["refused"])
                    self.assertEqual(report["fused"][0]["shape"], [B, HQ, HKV, L, N + (P if "past_k" in more else 0), E, EV])
                    rows, got = defined(given, attributes, opset), made["output_0"][2]
                    for r, row in enumerate(rows):
                        b, h, i = r // (HQ * L), r // L % HQ, r % L
                        at = ((b * L + i) * HQ + h) * EV if flat else r * EV
                        for e in range(EV):
                            self.assertAlmostEqual(got[at + e], row[e], delta=2e-5)

    def test_present(self):
        """The past and the new keys are results too, and the attention is fused all the same."""
        past = {"past_k": numbers("pk", (B, HKV, P, E)), "past_v": numbers("pv", (B, HKV, P, EV))}
        for flat in (False, True):
            given, path = self.make(23, {"is_causal": 1}, past, flat, ("out", "pk", "pv"))
            report, made = self.run_one(given, path)
            self.assertEqual(len(report["fused"]), 1)
            self.assertEqual(made["output_1"][1], [B, HKV, P + N, E])
            if not flat:
                for x, y in zip(made["output_2"][2][P * EV : (P + N) * EV], given["v"][2]):
                    self.assertAlmostEqual(x, y, delta=1e-6)

    def test_scores_as_a_result(self):
        """By mode the scores, capped, masked, or the weights: used outside, so nothing is fused; asked for by nobody, it is."""
        mask = {"m": bits((L, N))}
        for mode in range(4):
            given, path = self.make(24, {"softcap": 2.0, "qk_matmul_output_mode": mode}, mask, outputs=("out", "", "", "qk"))
            report, made = self.run_one(given, path)
            self.assertEqual([each["reason"] for each in report["refused"]], ["outputs-used"])
            row = made["output_1"][2][:N]
            self.assertEqual(any(math.isinf(x) for x in row), mode == 2)
            self.assertEqual(abs(sum(row) - 1) < 1e-5, mode == 3)
            self.assertEqual(max(map(abs, row)) <= 2.0, mode != 2)
            given, path = self.make(24, {"softcap": 2.0, "qk_matmul_output_mode": mode}, mask)
            self.assertEqual(len(self.run_one(given, path)[0]["fused"]), 1)

    def test_refused(self):
        past = {"past_k": numbers("pk", (B, HKV, P, E)), "past_v": numbers("pv", (B, HKV, P, EV))}
        rows = (
            ("one half of a past", 23, {}, {"past_k": past["past_k"]}), ("a past and nonpad_kv_seqlen", 24, {}, {**past, "lengths": ("I64", [B], [1, 1])}),
            ("fewer keys", 24, {}, {"m": bits((L, 1))}), ("fewer keys", 23, {}, {"m": bits((L, N - 1))}),
            ("is not one", 25, {"left_window_size": -2}, {}), ("nonpad_kv_seqlen is not", 24, {}, {"lengths": ("I32", [B], [1, 1])}),
            ("mode is not 0 to 3", 23, {"qk_matmul_output_mode": 4}, {}),
        )  # fmt: skip
        for text, opset, attributes, more in rows:
            with self.subTest(text):
                report = json.loads(self.ok("fuse", self.make(opset, attributes, more)[1], "--json").stdout)
                self.assertEqual(report["fused"], [])
                self.assertEqual([each["reason"] for each in report["refused"]], ["op-not-in-the-mod-language"])
                self.assertIn(text, report["refused"][0]["detail"])
        doubles = self.make(24, {"softmax_precision": 11}, {})[1]
        self.assertEqual(json.loads(self.ok("fuse", doubles, "--json").stdout)["counters"]["rounding-differs"], 1)

    def test_contradictions(self):
        given = self.make(23, {}, {}, True)[0]
        names = [node("Attention", ["q", "k", "v"], ["out"], q_num_heads=3, kv_num_heads=HKV)]
        inputs = [value(n, "F32", given[n][1]) for n in "qkv"]
        self.fails(1, "are not 3 heads", "fuse", self.file("h.onnx", model(names, inputs, [value("out", "F32", (B, L, HQ * EV))], opset=23)))
        names = [node("Attention", ["q", "k", "v"], ["out"], q_num_heads=HQ, kv_num_heads=HKV)]
        self.fails(1, "another shape or dtype", "fuse", self.file("h.onnx", model(names, inputs, [value("out", "F32", (B, L, 7))], opset=23)))


if __name__ == "__main__":
    harness.main()
