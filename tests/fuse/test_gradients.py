"""fuse --backward: gradients of fused attentions, by the backward kernel, against differences of the graph as it was; graphs of training."""

import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
import test_alike as alike
import test_refused as regions
from graphs import Graph
from patterns import B, E, H, L, S, Region


def itself(r):
    """Queries, keys and values are one tensor."""
    g = r.g
    g.outputs = [g.matmul(g.softmax(g.mul(g.matmul(r.q, g.transpose(r.q)), 0.5)), r.q)]
    return g


def biased(r):
    """A captured bias, which also has a gradient, times one for each head."""
    g = r.g
    bias = g.mul(r.mask(shape=(H, L, S)), 1.0)
    return r.end(g.softmax(g.add(g.mul(r.product(), g.input("temperature", r.dtype, (H, 1, 1), [0.5 + i for i in range(H)])), bias)))


def dropped_with_no_chance(r):
    """Training with p = 0 keeps everything."""
    return r.end(r.g.dropout(r.g.softmax(r.product()), 0.0, True))


# what, values with a gradient
ROWS = [
    (itself, {"q"}), (biased, {"q", "k", "v", "temperature", "mask"}), (dropped_with_no_chance, {"q", "k", "v"}),
    (regions.capped, {"q", "k", "v"}), (regions.groups, {"q4", "k2", "v2"}), (regions.one_head_of_keys, {"q", "k1", "v1"}),
    (regions.turned_result, {"q", "k", "v"}), (regions.turned_product, {"q", "k", "v"}), (regions.scale_on_both, {"q", "k", "v"}),
    (regions.empty_rows, {"q", "k", "v"}), (regions.table_of_distances, {"q", "k", "v", "table"}), (regions.five_dimensions, {"q5", "k5", "v5", "m5"}),
    (regions.sdpa_groups, {"q4", "k2", "v2"}), (regions.keys_of_another_layout, {"q", "permute_1", "v"}),
    (lambda r: alike.sink(), {"q", "k", "v", "mask", "sinks"}),
]  # fmt: skip


class Gradients(harness.Case):
    def fuse(self, graph, *options):
        path, given = self.file("g.json", graph.text()), self.file("g.st", harness.safetensors(graph.given))
        return json.loads(self.ok("fuse", path, "--json", "--output", self.folder / "out", "--run", given, "--check", "--backward", *options).stdout)

    def test_each(self):
        for make, parts in ROWS:
            with self.subTest(make.__name__):
                report = self.fuse(make(Region("F32", B)), "--device", "reference")
                self.assertEqual(report["refused"], [])
                checked = report["gradients"]["attention_0"]
                self.assertEqual(set(checked), parts)
                for name, part in checked.items():
                    self.assertLessEqual(part["error"], part["bound"], name)
                    self.assertGreater(part["bound"], 1e-6, name)

    def test_dtypes(self):
        for dtype in ("F64", "F16", "BF16"):
            with self.subTest(dtype):
                r = Region(dtype, B)
                self.fuse(r.end(r.g.softmax(r.g.mul(r.product(), 0.5))), "--device", "reference")

    def test_on_the_cpu(self):
        """And two attentions, one on the other's result."""
        r = Region("F32", B)
        first = r.g.matmul(r.g.softmax(r.product()), r.v)
        r.g.outputs = [r.g.matmul(r.g.softmax(r.g.mul(r.g.matmul(first, r.g.transpose(r.k)), 0.3)), r.v)]
        report = self.fuse(r.g)
        self.assertEqual(sorted(report["gradients"]), ["attention_0", "attention_1"])

    def test_joint(self):
        """The backward part of a graph of training reads the weights: the softmax is named, with the reason."""
        r = Region("F32", B)
        w = r.g.softmax(r.product())
        self.assertEqual(self.fuse(r.end(w, r.g.matmul(r.g.transpose(w), r.g.input("dout", "F32", (B, H, L, E)))))["counters"]["outputs-used"], 1)

    def test_dropout(self):
        """Weights that are dropped are refused, and not run."""
        r = Region("F32", B)
        path = self.file("g.json", r.end(r.g.dropout(r.g.softmax(r.product()), 0.1, True)).text())
        self.assertEqual(json.loads(self.ok("fuse", path, "--json").stdout)["counters"]["dropout-in-training"], 1)
        self.fails(2, "--backward needs --check", "fuse", path, "--backward")


if __name__ == "__main__":
    harness.main()
