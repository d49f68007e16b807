"""Records of tuning as the tool sees them: run, show and doctor say what decided."""

import json

import harness

PROBLEM = {
    "block_mask": False, "capture_grads": False, "cost": "none", "deterministic": True, "direction": "fwd", "dtype": "F32",
    "few_queries": False, "form": "dense", "grouped": False, "head_dim": 16, "mask": "none", "mask_cost": "none",
    "max": False, "q_offset": False, "shared_keys": False, "tf32": False, "value_dim": 16,
}
HEADER = {"schema": 1, "tool": "flexjit 0.1.0"}
SHAPE = dict(b=2, hq=2, hkv=2, l=64, s=80, e=16)


class Tuned(harness.Case):
    def setUp(self):
        super().setUp()
        self.layer = self.folder / "tune"
        self.layer.mkdir()
        self.env = {"FLEXJIT_TUNE_PATH": f"{self.layer}:{self.folder / 'absent'}"}

    def show(self, shape="2,2,2,64,80,16", *options):
        text = self.ok("show", "--score", "score", "--stage", "plan", "--device", "cpu", "--shape", shape, *options,
                       env=self.env).stdout
        lines = text.splitlines()
        return [next(line for line in lines if line.startswith(start))[len(start):] for start in ("variant ", "decided by ")]

    def record(self, **changes):
        """The second of the legal variants is the best: of any caches, so that it is near but not exact."""
        text = self.ok("show", "--score", "score", "--stage", "plan", "--device", "cpu", "--head-dim", 16).stdout
        self.variant = text.split("\n              ")[1].split("\n")[0]
        record = {
            "call": {"batch_heads": 4, "gqa": 1, "kv_len": 80, "mask_cost": 0, "q_len": 64, "score_cost": 0},
            "device": {"arch": self.variant.split("_")[-1], "target": "cpu"}, "problem": PROBLEM, "variant": self.variant,
        }
        return {**record, **changes}

    def write(self, *lines, name="mine.jsonl"):
        path = self.layer / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def test_prebuild(self):
        """What a record names, at whatever lengths, is built beside the default; what is no variant is passed over."""
        record = self.record()
        far, wrong = {**record["call"], "kv_len": 100000}, {**record, "variant": self.variant + "_x"}
        self.write(HEADER, self.record(call=far), wrong)
        default = self.show("1,2,2,64,80,16")[0]
        problem = {"dtype": "F32", "head_dim": 16, "few_queries": False}
        path = self.file("m.json", json.dumps({"schema": 1, "entries": [{"score": "score", "problems": [problem]}]}))
        for options, wanted in ([], {default, self.variant}), (["--variants", "default"], {default}):
            done = self.flexjit("prebuild", "--manifest", path, "--arch", self.variant.split("_")[-1], "--verify", "--json",
                                "--output", self.folder / "layer", *options, env=self.env)  # fmt: skip
            self.assertEqual({row["variant"] for row in json.loads(done.stdout)["rows"]}, wanted)

    def test_what_decides(self):
        path = self.write(HEADER, self.record())
        said = f"tuning record {path}:2 (nearest: another device, batch times heads 4, 64 queries, 80 keys)"
        self.assertEqual(self.show(), [self.variant, said])
        self.assertEqual(self.show("1,2,2,4096,80,16")[1], "default")
        self.assertEqual(self.show("2,2,2,64,80,16", "--variant", self.variant)[1], "variant")
        tensors = self.tensors(**SHAPE)
        run = ("run", "--device", "cpu", "--input", tensors, "--output", self.folder / "o")
        self.assertTrue(self.ok(*run, env=self.env).stdout.endswith(f", by {said}\n"))
        report = json.loads(self.ok(*run, "--check", "--json", env=self.env).stdout)
        self.assertEqual((report["variant"], report["decided"]), (self.variant, said))
        self.assertTrue(report["errors"]["out"]["ok"])
        plain = self.ok(*run)
        self.assertNotIn("tuning record", plain.stdout)
        self.assertEqual(json.loads(self.ok(*run, "--json").stdout)["decided"], "default")
        shown = self.ok("show", "--score", "score", "--stage", "plan", "--device", "cpu", "--input", tensors, env=self.env)
        self.assertIn(f"\ndecided by {said}\n", shown.stdout)

    def test_a_bad_file_is_a_warning(self):
        path = self.write({**HEADER, "schema": 99}, self.record(), "nonsense")
        done = self.ok("show", "--score", "score", "--stage", "plan", "--device", "cpu", "--shape", "2,2,2,64,80,16",
                       env=self.env)
        self.assertIn("\ndecided by default\n", done.stdout)
        self.assertIn(f"tuning file {path}: 3 lines are not used; line 1 is a header of another schema", done.stderr)
        self.assertEqual(done.stderr.count("tuning file"), 1)

    def test_doctor(self):
        self.write(HEADER, self.record(), self.record(), [1])
        self.write(HEADER, self.record(), name="other.jsonl")
        findings = json.loads(self.flexjit("doctor", "--json", env=self.env).stdout)
        first, second, built_in = findings["tuning_layers"]
        self.assertEqual(first, {"path": str(self.layer), "written": True, "exists": True, "files": 2, "records": 3,
                                 "skipped": 1})
        self.assertEqual((second["written"], second["exists"], second["records"]), (False, False, 0))
        self.assertEqual((built_in["path"], built_in["skipped"]), ("(built in)", 0))
        self.assertEqual(findings["environment"]["FLEXJIT_TUNE_PATH"], self.env["FLEXJIT_TUNE_PATH"])
        self.assertIn(f"{self.layer}, written yes", self.flexjit("doctor", env=self.env).stdout)

    def test_shape_of_show(self):
        for shape, text in (("1+2,1,1,8,8,8", "2 shapes"), ("1,1,1,8,8,2097152", "too large"), ("1,2", "not of the form")):
            self.fails(2, text, "show", "--score", "score", "--stage", "plan", "--device", "cpu", "--shape", shape)


if __name__ == "__main__":
    harness.main()
