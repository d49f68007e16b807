"""fuse: each of PyTorch's patterns, in float32 and half, batch 1 and 2: found, what it becomes, and compared."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
import patterns


class Patterns(harness.Case):
    def run_graph(self, name, graph, *options):
        path = self.file(f"{name}.json", graph.text())
        given = self.file(f"{name}.st", harness.safetensors(graph.given))
        done = self.ok("fuse", path, "--run", given, "--check", "--device", "reference", "--json", *options)
        return json.loads(done.stdout)

    def test_each(self):
        for number, (_, _, scale, has_score, has_mask) in patterns.ROWS.items():
            for dtype in ("F32", "F16"):
                for batch in (1, 2):
                    with self.subTest(number=number, dtype=dtype, batch=batch):
                        folder = self.folder / "out"
                        report = self.run_graph("g", patterns.graph(number, dtype, batch), "--output", folder)
                        self.assertEqual(report["refused"], [])
                        self.assertEqual(len(report["fused"]), 1)
                        fused = report["fused"][0]
                        self.assertAlmostEqual(fused["scale"], scale, delta=1e-3 if dtype == "F16" else 1e-6)
                        self.assertEqual((fused["dtype"], fused["head_dim"]), (dtype, patterns.E))
                        mod = (folder / fused["mod"]).read_text()
                        self.assertEqual("def score_mod" in mod, has_score, mod)
                        self.assertEqual("def mask_mod" in mod, has_mask, mod)


if __name__ == "__main__":
    harness.main()
