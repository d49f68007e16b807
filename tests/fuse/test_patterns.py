"""fuse: each of PyTorch's patterns, in float32 and half, batch 1 and 2: found, what it becomes, and compared."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import graphs
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
            whole = graphs.Graph()
            for dtype in ("F32", "F16"):
                for batch in (1, 2):
                    whole.add_all(patterns.graph(number, dtype, batch), f"{dtype}_{batch}_")
            with self.subTest(number):
                report = self.run_graph("g", whole)
                self.assertEqual(report["refused"], [])
                self.assertEqual([each["dtype"] for each in report["fused"]], ["F32", "F32", "F16", "F16"])
                for fused in report["fused"]:
                    self.assertAlmostEqual(fused["scale"], scale, delta=1e-3 if fused["dtype"] == "F16" else 1e-6)
                    self.assertEqual(fused["head_dim"], patterns.E)
                    self.assertEqual((fused["score_mod"], fused["mask_mod"]), (has_score, has_mask))


if __name__ == "__main__":
    harness.main()
