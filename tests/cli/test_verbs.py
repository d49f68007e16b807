"""check, show, bench, doctor, run-tests."""

import csv
import io
import json
import signal
import time

import harness

TESTS = """\
# comment
1 + 2
-
3

# two lines are enough
7 // -2
-4

q * 2 + kv
q=3 kv=5
11

t[1] + 0.5
t=[1.0, 2.0]
2.5

nonesuch + 1
-
error: nonesuch
"""


NESTED = """\
class Model:
    def forward(self, x):
        def mask_mod(b, h, q_idx, kv_idx):
            return q_idx >= kv_idx
        return mask_mod
"""

GUESSED = """\
def soft(score, b, h, q, kv):
    return score * 2
def make(n):
    return lambda b, h, q, kv: q - kv < n
"""


class Check(harness.Case):
    def test_chosen(self):
        mod = self.file("m.py", GUESSED)
        done = self.ok("check", mod)
        self.assertEqual(done.stdout, "")
        self.assertIn(f"score mod 'soft' ({mod}:1, by its number of parameters)", done.stderr)
        self.assertIn("no mask mod", done.stderr)
        report = json.loads(self.ok("check", mod, "--mask-mod", "make(3)", "--json").stdout)
        self.assertEqual(report, {"schema": 1, "ok": True, "score_mod": {"name": "soft", "by_count": True, "line": 1},
                                  "mask_mod": {"name": "make(3)", "by_count": False, "line": 4},
                                  "out_mod": None, "sink_mod": None})
        report = json.loads(self.ok("check", mod, "--json").stdout)
        self.assertIsNone(report["mask_mod"])  # none is chosen
        self.assertIn("note: score mod 'soft'", self.ok("show", mod, "--mask-mod", "make(3)").stderr)
        self.assertEqual(self.ok("show", mod).stderr, "")

    def test_own(self):
        """Mods of the output and of the sink: of the file by name, by option, by expression."""
        mod = self.file("m.py", GUESSED + "def gate(scale):\n    def gated(out, b, h, q, d):\n        return out * scale\n"
                                          "    return gated\nout_mod = gate(2)\ndef sink_mod(b, h):\n    return h * 0.5\n")
        done = self.ok("check", mod)
        for line in ("score mod 'soft'", f"out mod 'out_mod' ({mod}:6)", f"sink mod 'sink_mod' ({mod}:10)"):
            self.assertIn(line, done.stderr)
        self.assertIn("note: score mod 'soft'", self.ok("show", mod).stderr)  # guessed beside those that have names
        report = json.loads(self.ok("check", mod, "--out-mod", "gate(3)", "--sink", "1", "--json").stdout)
        self.assertEqual(report["out_mod"], {"name": "gate(3)", "by_count": False, "line": 6})
        self.assertEqual(report["sink_mod"], {"name": "<sink>", "by_count": False})
        self.assertNotIn("; out", self.ok("show", "--score", "score").stdout)
        shown = json.loads(self.ok("show", "--out", "out * d", "--sink", "sinks[h]", "--bind", "sinks=F32[4]", "--json").stdout)
        for stage in ("ir", "grad"):
            self.assertRegex(shown["stages"][stage], r"(?s)^capture 0 F32 .*; out.*; sink\n.*load")
        self.fails(2, "--out-mod chooses from a MOD.py", "check", "--out", "out", "--out-mod", "gate(1)")
        self.fails(1, "<out>:1:7: error: unknown name 'kv'", "check", "--out", "out + kv")

    def test_nested(self):
        """A file in which no mod is found is an error, whoever reads it; never attention without a mod."""
        mod, layer = self.file("nested.py", NESTED), self.folder / "layer"
        problem = {"dtype": "F32", "head_dim": 16, "direction": ["fwd"]}
        manifest = self.file("m.json", json.dumps({"schema": 1, "entries": [{"mod": "nested.py", "problems": [problem]}]}))
        data = self.file("in.st", harness.safetensors({n: ("F32", [1, 1, 4, 16], [0.5] * 64) for n in "qkv"}))
        for command in (["check", mod], ["show", mod], ["bench", mod, "--shape", "1,1,1,4,4,16", "--device", "cpu"],
                        ["run", mod, "--input", data, "--output", self.folder / "out.st"],
                        ["prebuild", "--manifest", manifest, "--arch", "sm_80", "--output", layer]):
            with self.subTest(verb=command[0]):
                done = self.flexjit(*command)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("neither a score mod nor a mask mod is found", done.stderr)
                self.assertIn("'mask_mod' (line 3, 4 parameters)", done.stderr)

    def test_right(self):
        done = self.ok("check", "--score", "score + (kv - q)")
        self.assertEqual((done.stdout, done.stderr), ("", ""))
        self.assertEqual(json.loads(self.ok("check", "--mask", "q >= kv", "--json").stdout), {"schema": 1, "ok": True})

    def test_gradient_limit(self):
        """Beyond the bound of values only in the gradient: whoever asks for it gets the place of the result."""
        mod = self.file("m.py", "import torch\ndef score_mod(score, b, h, q, kv):\n    total = score\n    for i in range(4000):\n"
                                "        total = total + torch.tan(score * i) * torch.atan(score + i)\n    return total\n")
        for command in (["check", mod], ["show", mod, "--stage", "grad"],
                        ["show", mod, "--direction", "bwd", "--stage", "plan", "--device", "cpu"]):
            self.fails(1, "m.py:6:12: error: in the gradient: the mod needs more than 65536 values", *command)
        self.ok("show", mod, "--stage", "ir")

    def test_wrong(self):
        self.fails(1, "<score>:1:9: error:", "check", "--score", "score + nonesuch")
        mod = self.file("alibi.py", "def score_mod(score, b, h, q, kv):\n    return score + slopes[h, 0]\n")
        self.fails(1, "alibi.py:2:20: error:", "check", mod, "--bind", "slopes=F32[8]")
        report = json.loads(self.flexjit("check", mod, "--bind", "slopes=F32[8]", "--json").stdout)
        self.assertEqual((report["error"]["line"], report["error"]["column"]), (2, 20))
        self.assertEqual(report["error"]["file"], str(mod))

    def test_files(self):
        self.fails(1, "No such file", "check", self.folder / "none.py")
        self.fails(1, "Is a directory", "check", self.folder)
        self.fails(1, "error", "check", "/dev/zero")
        self.fails(1, "error", "check", self.file("big.py", "x = 1\n" * 300000))
        self.fails(1, "error", "check", self.file("bytes.py", b"def \xff\xfe(a, b"))

    def test_names(self):
        mod = self.file("m.py", "C = 1.0\ndef f(s, b, h, q, kv):\n    return s + C\n")
        self.ok("check", mod, "--param", "C=2.0", "--score-mod", "f", "--runtime-param", "C")
        self.fails(2, "D", "check", mod, "--param", "D=2.0")
        self.fails(2, "D", "check", mod, "--runtime-param", "D")
        self.fails(2, "nonesuch", "check", mod, "--mask-mod", "nonesuch")

    def test_input_binds(self):
        tensors = {**harness.attention_tensors(), "slopes": ("F32", [2], [1.0, 2.0])}
        self.ok("check", "--score", "score + slopes[h]", "--input", self.file("in", harness.safetensors(tensors)))


class Show(harness.Case):
    def test_default(self):
        text = self.ok("show", "--score", "score * 2").stdout
        self.assertIn("# ir\n", text)
        self.assertIn("# grad\n", text)

    def test_one_stage_has_no_title(self):
        self.assertNotIn("# ir", self.ok("show", "--score", "score * 2", "--stage", "ir").stdout)

    def test_every_stage(self):
        for stage in ("ast", "ir", "grad", "rates", "ranges", "prologue", "source", "plan", "key"):
            with self.subTest(stage):
                arguments = ("show", "--score", "score * 2", "--mask", "q >= kv", "--stage", stage, "--dtype", "BF16",
                             "--head-dim", 32, "--value-dim", 16)
                self.assertGreater(len(self.ok(*arguments).stdout), 1)
                stages = json.loads(self.ok(*arguments, "--json").stdout)["stages"]
                self.assertEqual(list(stages), [stage])

    def test_ranges(self):
        window = self.ok("show", "--mask", "((q >= kv) & (q - kv < 100)) | (kv < 4)", "--stage", "ranges").stdout
        self.assertIn("tier ranges", window)
        self.assertIn("\nq 192 to 255: [0, 4) full [0, 4), [93, 256) full [156, 193)\n", window)
        self.assertIn("\n+.+++...\n", window)
        document = self.ok("show", "--mask", "doc[q] == doc[kv]", "--bind", "doc=I32[100]", "--stage", "ranges").stdout
        self.assertRegex(document, r"not decided: %\d+, what captured tensor 'doc' holds")
        self.assertIn("\nq 0 to 63: [0, 512)\n", document)
        wave = self.ok("show", "--mask", "torch.sin(q) > 0", "--stage", "ranges").stdout
        self.assertRegex(wave, r"tier elementwise.*\nnot decided: %\d+, sin has no interval\n")

    def test_backward(self):
        forward, backward = (
            self.ok("show", "--score", "score * 2", "--stage", "key", "--direction", d).stdout for d in ("fwd", "bwd"))
        self.assertNotEqual(forward, backward)

    def test_input_says_what_the_kernel_is(self):
        key = self.ok("show", "--score", "score", "--stage", "key", "--input", self.tensors(e=24, dtype="F16")).stdout
        self.assertNotEqual(key, self.ok("show", "--score", "score", "--stage", "key").stdout)


class Bench(harness.Case):
    def rows(self, *arguments):
        report = json.loads(self.ok("bench", *arguments, "--once", "--json").stdout)
        self.assertEqual(report["schema"], 1)
        return report["rows"]

    def test_cross_product(self):
        rows = self.rows("--shape", "1,1+2,1,16..64,=,8,8", "--shape", "1,1,1,3,4,8", "--dtype", "F32,BF16",
                         "--direction", "fwd", "--direction", "bwd")
        shapes = [[1, h, 1, n, n, 8, 8] for h in (1, 2) for n in (16, 32, 64)] + [[1, 1, 1, 3, 4, 8, 8]]
        self.assertEqual([row["shape"] for row in rows[::4]], shapes)
        self.assertEqual([(row["dtype"], row["direction"]) for row in rows[:4]],
                         [("F32", "fwd"), ("F32", "bwd"), ("BF16", "fwd"), ("BF16", "bwd")])
        for row in rows:
            self.assertLessEqual({"variant", "median_ms", "min_ms", "max_ms", "tflops", "gbps", "peak_tflops", "of_peak"},
                                 set(row))

    def test_devices(self):
        rows = self.rows("--shape", "1,1,1,8,8,8", "--device", "cpu,reference")
        self.assertEqual([row["device"] for row in rows], ["cpu", "reference"])

    def test_captures_are_filled(self):
        rows = self.rows("--shape", "1,2,2,64,64,8", "--score", "score + slopes[h] * table[q, kv]", "--mask",
                         "(doc[q] == doc[kv]) & keep[kv]", "--bind", "slopes=BF16[2]", "--bind", "table=F32[64,64]",
                         "--bind", "doc=I32[64]", "--bind", "keep=BOOL[64]", "--direction", "fwd,bwd",
                         "--device", "reference")
        self.assertEqual(len(rows), 2)
        self.fails(2, "whole shape", "bench", "--shape", "1,1,1,8,8,8", "--score", "score + a[h]", "--bind", "a=F32[?]")

    def test_captures_of_a_file(self):
        path = self.file("in", harness.safetensors({"slopes": ("F32", [2], [1.0, 2.0])}))
        self.assertEqual(len(self.rows("--shape", "1,2,2,8,8,8", "--score", "score + slopes[h]", "--input", path,
                                       "--device", "reference")), 1)

    def test_formats(self):
        arguments = ("bench", "--shape", "1,1,1,8..16,=,8", "-n", "2", "--device", "reference")
        self.assertEqual(self.ok(*arguments).stdout.count("\n"), 3)
        self.assertEqual(self.ok(*arguments, "-o", "md").stdout.count("\n|"), 3)
        rows = list(csv.DictReader(io.StringIO(self.ok(*arguments, "-ocsv").stdout)))
        self.assertEqual([row["q_len"] for row in rows], ["8", "16"])
        self.assertEqual({row["of_peak"] for row in rows}, {""})
        lines = self.ok(*arguments, "-o", "jsonl").stdout.splitlines()
        self.assertEqual([json.loads(line)["shape"][3] for line in lines], [8, 16])
        self.assertEqual(len(json.loads(self.ok(*arguments, "-o", "json").stdout)["rows"]), 2)

    def test_interrupt_keeps_rows(self):
        process = self.start("bench", "--shape", "1,1,1,16,16,8", "--shape", "1,1,1,512,512,64", "--device", "reference",
                             "-o", "jsonl")
        first = process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, first + rest + stderr)
        self.assertEqual(json.loads(first)["shape"][3], 16)


class Doctor(harness.Case):
    def test_both_forms(self):
        report = json.loads(self.ok("doctor", "--json").stdout)
        self.assertEqual(report["schema"], 1)
        text = self.ok("doctor").stdout
        for key in report:
            if key != "schema":
                self.assertIn(key, text)
        self.fails(2, "too much", "doctor", "now")


class RunTests(harness.Case):
    def test_pass(self):
        path = self.file("good.test", TESTS)
        self.assertEqual(self.ok("run-tests", path).stdout, "5 passed, 0 failed\n")
        self.assertEqual(self.ok("run-tests", path, path).stdout, "10 passed, 0 failed\n")

    def test_fail(self):
        path = self.file("bad.test", "1 + 2\n-\n4\n\n1.5\n-\nerror: no\n\nnonesuch\n-\n1\n\nalone\n\n1\n2\n3\n4\n\n2\n-\n2.0\n")
        done = self.flexjit("run-tests", path)
        self.assertEqual(done.returncode, 1)
        self.assertIn("0 passed, 6 failed", done.stdout)
        for line in (1, 5, 9, 13, 15, 20):
            self.assertIn(f"{path}:{line}: ", done.stdout)
        report = json.loads(self.flexjit("run-tests", path, "--json").stdout)
        self.assertEqual((report["passed"], report["failed"]), (0, 6))
        self.assertEqual(report["failures"][0]["line"], 1)

    def test_no_file(self):
        self.fails(1, "No such file", "run-tests", self.folder / "none.test")

    def test_odd_files(self):
        self.assertEqual(self.ok("run-tests", self.file("a", "")).stdout, "0 passed, 0 failed\n")
        self.assertEqual(self.ok("run-tests", self.file("b", "1\r\n-\r\n1")).stdout, "1 passed, 0 failed\n")
        spelled = "\ufeffq > 0\nq=1\nTrue\n\nq > 0\nq=0\nfalse\n\ngelu(score)\nscore=1\n0.8413447460685429\n"
        self.assertEqual(self.ok("run-tests", self.file("d", spelled)).stdout, "3 passed, 0 failed\n")
        wrong = "score\nscore=inf\n-inf\n\nscore\nscore=1\n1.00000000001\n\nq\nq=1\n1.0\n\nq > 0\nq=1\nFalse\n"
        self.assertIn("0 passed, 4 failed\n", self.flexjit("run-tests", self.file("e", wrong)).stdout)
        self.assertEqual(self.flexjit("run-tests", self.file("c", b"\0\xff\n\xff\0\n\0")).returncode, 1)


if __name__ == "__main__":
    harness.main()
