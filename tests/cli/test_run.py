"""`flexjit run`: values, gradients, --check, reports."""

import json
import math
import os
import pty
import signal
import time

import harness

ALIBI = """
import torch

SLOPE = 0.25
table = torch.empty(2)

def score_mod(score, b, h, q_idx, kv_idx):
    return score * table[h] + SLOPE * (kv_idx - q_idx)

def mask_mod(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx
"""


def at(tensor, *index):
    _, shape, values = tensor
    offset = 0
    for extent, i in zip(shape, index):
        offset = offset * extent + i
    return values[offset]


def forward(tensors, score_mod, mask_mod, scale):
    """Attention as it is defined: probabilities, out and lse, for one batch."""
    _, (_, heads, length, _), _ = tensors["q"]
    _, (_, kv_heads, kv_length, e), _ = tensors["k"]
    ev = tensors["v"][1][3]
    out, lse, probabilities = [], [], {}
    for h in range(heads):
        kh = h * kv_heads // heads
        for i in range(length):
            scores = []
            for j in range(kv_length):
                dot = sum(at(tensors["q"], 0, h, i, c) * at(tensors["k"], 0, kh, j, c) for c in range(e))
                scores.append(score_mod(dot * scale, h, i, j) if mask_mod(i, j) else -math.inf)
            largest = max(scores)
            total = sum(math.exp(s - largest) for s in scores)
            lse.append(largest + math.log(total))
            p = [math.exp(s - lse[-1]) for s in scores]
            probabilities[h, i] = p
            out += [sum(p[j] * at(tensors["v"], 0, kh, j, c) for j in range(kv_length)) for c in range(ev)]
    return out, lse, probabilities


class Run(harness.Case):
    def run_json(self, path, *more):
        out = self.folder / "out.safetensors"
        done = self.ok("run", *more, "--input", path, "--output", out, "--json")
        return json.loads(done.stdout), harness.read_safetensors(out)

    def close(self, got, expected, tolerance):
        self.assertEqual(len(got), len(expected))
        for g, e in zip(got, expected):
            self.assertAlmostEqual(g, e, delta=tolerance * (1 + abs(e)))

    def alibi_tensors(self, dtype="F64"):
        tensors = harness.attention_tensors(dtype, l=6, s=6, e=4, ev=3, backward=True)
        tensors["table"] = (dtype, [2], [0.5, -1.5])
        return tensors

    def test_against_the_definition(self):
        tensors = self.alibi_tensors()
        path, mod = self.file("in", harness.safetensors(tensors)), self.file("mod.py", ALIBI)
        out, lse, p = forward(tensors, lambda s, h, i, j: s * (0.5, -1.5)[h] + 0.25 * (j - i), lambda i, j: i >= j, 0.5)
        for device, tolerance in (("reference", 1e-12), ("cpu", 1e-9)):
            report, got = self.run_json(path, mod, "--backward", "--max", "--device", device)
            self.assertEqual(set(got), {"out", "lse", "max", "dq", "dk", "dv", "d_table"})
            self.close(got["out"][2], out, tolerance)
            self.close(got["lse"][2], lse, tolerance)
            dv = [
                sum(p[h, i][j] * at(tensors["do"], 0, h, i, c) for h in range(2) for i in range(6))
                for j in range(6)
                for c in range(3)
            ]
            self.close(got["dv"][2], dv, tolerance)
            self.assertEqual(report["device"], device)
            self.assertEqual(got["d_table"][:2], ("F64", [2]))

    def test_gradients_by_differences(self):
        tensors, mod = self.alibi_tensors(), self.file("mod.py", ALIBI)
        weights = tensors["do"][2]

        def loss(changed):
            out, _, _ = forward(changed, lambda s, h, i, j: s * at(changed["table"], h) + 0.25 * (j - i),
                                lambda i, j: i >= j, 0.5)
            return sum(w * o for w, o in zip(weights, out))

        def difference(name, index, step=1e-5):
            sides = []
            for sign in (1, -1):
                dtype, shape, values = tensors[name]
                values = list(values)
                values[index] += sign * step
                sides.append(loss({**tensors, name: (dtype, shape, values)}))
            return (sides[0] - sides[1]) / (2 * step)

        path = self.file("in", harness.safetensors(tensors))
        _, got = self.run_json(path, mod, "--backward", "--device", "cpu")
        for name, output in (("q", "dq"), ("k", "dk"), ("v", "dv"), ("table", "d_table")):
            for index in range(0, len(tensors[name][2]), 5):
                self.assertAlmostEqual(got[output][2][index], difference(name, index), delta=1e-7)

    def test_check(self):
        mod = self.file("mod.py", ALIBI)
        for dtype, device in (("F64", "cpu"), ("BF16", "cpu"), ("F32", "reference"), ("F16", "reference")):
            with self.subTest(dtype):
                tensors = harness.attention_tensors(dtype, b=2, hq=2, l=70, s=90, e=32, backward=True)
                tensors["table"] = ("F32", [2], [0.5, 1.5])
                tensors["dlse"] = harness.normal("F64" if dtype == "F64" else "F32", (2, 2, 70), 9)
                path = self.file("in", harness.safetensors(tensors))
                report, got = self.run_json(path, mod, "--backward", "--check", "--max", "--device", device)
                self.assertEqual(set(report["errors"]), {"out", "lse", "max"})
                self.assertEqual(set(report["backward"]["errors"]), {"dq", "dk", "dv", "d_table"})
                self.assertEqual(got["dq"][0], dtype)
                self.assertEqual(got["d_table"][0], "F64" if dtype == "F64" else "F32")
                done = self.ok("run", mod, "--input", path, "--output", self.folder / "o", "--backward", "--check",
                               "--device", device)
                self.assertEqual(done.stdout.count(" ok\n"), 6)

    def test_report(self):
        path = self.tensors(l=100, s=100, e=16)
        report, _ = self.run_json(path, "--mask", "q >= kv")
        for key in ("variant", "cache", "compile_ms", "load_ms", "time_ms", "tflops", "tier", "blocks"):
            self.assertIn(key, report)
        self.assertEqual(report["schema"], 1)
        self.assertNotIn("backward", report)
        self.assertEqual(set(report["blocks"]), {"full", "partial", "empty"})
        self.assertEqual(report["scores"], 2 * 100 * 101 // 2)
        flops = report["scores"] * 4 * 16
        self.assertAlmostEqual(report["tflops"] * report["time_ms"] * 1e9 / flops, 1, 6)
        again, _ = self.run_json(path, "--mask", "q >= kv")
        self.assertEqual(again["cache"], "hit")
        self.assertEqual(again["compile_ms"], 0)
        line = self.ok("run", "--mask", "q >= kv", "--input", path, "--output", self.folder / "o").stdout
        self.assertEqual(line.count("\n"), 1)
        for word in ("(1,2,1,100,100,16,16)", "F32", "cpu", " ms ", "TFLOP/s", "mask ", "% of blocks"):
            self.assertIn(word, line)

    def test_kernel_options_are_of_both_directions(self):
        path = self.tensors(l=100, s=300, e=16, backward=True)
        options = ("--device", "cpu", "--option", "tile_q=96", "--option", "tile_kv=192", "-O", "isa=portable")
        report, _ = self.run_json(path, "--mask", "q >= kv", "--backward", "--check", *options)
        self.assertEqual(report["variant"], "fwd_cpu_f32_e16_v16_m96_n192_portable")
        self.assertEqual(report["backward"]["variant"], "bwd_cpu_f32_e16_v16_m96_n192_portable")

    def test_few_queries_in_place_or_packed(self):
        """Kernels that read keys where they lie give the bits of those that pack them; few queries take them by default."""
        path, outputs = self.tensors(dtype="BF16", hq=6, hkv=2, l=3, s=500, e=40), {}
        for direct in ("1", "0", None):
            option = ("-O", f"direct={direct}") if direct else ()
            report, outputs[direct] = self.run_json(path, "--mask", "q + 400 >= kv", "--device", "cpu", "--max", *option)
            self.assertEqual("_direct" in report["variant"], direct != "0")
        self.assertEqual(outputs["1"], outputs["0"])
        self.assertEqual(outputs["1"], outputs[None])

    def test_cut_tiles(self):
        """Partial tiles far from the first key: what backward computes of them begins and ends within its blocks."""
        mask = "((q >= kv + 50) & (q - kv < 90)) | ((kv == 300) & (q > 400))"
        for dtype, variant in (("F32", None), ("F32", "bwd_cpu_f32_e16_v16_m48_n192_portable"), ("BF16", None)):
            with self.subTest(dtype=dtype, variant=variant):
                path = self.tensors(b=1, hq=2, hkv=1, l=470, s=450, e=16, dtype=dtype, backward=True)
                variants = ("--variant", variant) if variant else ()
                report, _ = self.run_json(path, "--mask", mask, "--backward", "--check", "--device", "cpu", *variants)
                self.assertTrue(all(row["ok"] for row in report["backward"]["errors"].values()))

    def test_expression_and_params(self):
        tensors = harness.attention_tensors("F64", l=3, s=3)
        path, mod = self.file("in", harness.safetensors(tensors)), self.file("m.py", "C = 2.0\ndef f(s, b, h, q, kv):\n    return s * C\n")
        reference = ("--device", "reference")
        _, double = self.run_json(path, mod, *reference)
        _, four = self.run_json(path, mod, "--param", "C=4.0", *reference)
        _, same = self.run_json(path, "--score", "score * 4.0", *reference)
        self.assertNotEqual(double["lse"], four["lse"])
        self.close(four["lse"][2], same["lse"][2], 1e-12)
        _, runtime = self.run_json(path, mod, "--runtime-param", "C", *reference)
        self.close(runtime["lse"][2], double["lse"][2], 1e-12)
        self.fails(2, "D", "run", mod, "--param", "D=1", "--input", path, "--output", self.folder / "o")
        self.fails(2, "g", "run", mod, "--score-mod", "g", "--input", path, "--output", self.folder / "o")

    def test_gradient_of_a_runtime_scalar(self):
        path = self.tensors(backward=True, dtype="F64")
        mod = self.file("m.py", "C = 2.0\ndef f(s, b, h, q, kv):\n    return s * C\n")
        _, got = self.run_json(path, mod, "--runtime-param", "C", "--backward", "--check")
        self.assertEqual(got["d_C"][:2], ("F64", []))

    def test_gradient_at_the_bounds_of_clamp(self):
        """As PyTorch: none where the bound is a number, half each where it is a tensor."""
        path = self.file("in", harness.safetensors({**self.alibi_tensors(), "low": ("F64", [2], [0.5, -1.5])}))
        arguments = ("--backward", "--device", "reference", "--score")
        _, number = self.run_json(path, *arguments, "score + torch.clamp(table[h], 0.5, 2) * kv + 0 * low[h]")
        _, tensor = self.run_json(path, *arguments, "score + torch.clamp(table[h], min=low[h]) * kv")
        self.assertEqual(number["d_table"][2], [0, 0])
        self.assertNotEqual(tensor["d_table"][2][0], 0)
        self.close(tensor["d_table"][2], tensor["d_low"][2], 1e-12)

    def test_unused_tensors_are_warnings(self):
        tensors = {**harness.attention_tensors(backward=True), "spare": ("F32", [1], [0.0]), "odd": ("U16", [1], b"\0\0")}
        path, out = self.file("in", harness.safetensors(tensors)), self.folder / "out"
        done = self.ok("run", "--input", path, "--output", out, "--device", "reference")
        for name in ("do", "spare", "odd"):
            self.assertIn(f"nothing uses tensor '{name}'", done.stderr)
        report = json.loads(self.ok("run", "--input", path, "--output", out, "--device", "reference", "--json").stdout)
        self.assertGreaterEqual(len(report["warnings"]), 3)

    def test_missing_capture(self):
        path = self.tensors()
        self.fails(1, "table", "run", self.file("mod.py", ALIBI), "--input", path, "--output", self.folder / "o")

    def test_unaligned_data(self):
        tensors = harness.attention_tensors("F64", l=3, s=4)
        results = []
        for pad in (0, 1, 4):
            path = self.file("in", harness.safetensors(tensors, pad=pad))
            results.append(self.run_json(path, "--score", "score")[1])
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    def test_fully_masked(self):
        path = self.tensors(backward=True, l=4, s=4)
        report, got = self.run_json(path, "--mask", "q > kv", "--backward", "--check")
        self.assertEqual(got["lse"][2][0], -math.inf)
        self.assertEqual(got["out"][2][:8], [0.0] * 8)
        self.assertTrue(report["errors"]["lse"]["ok"])

    def test_empty_shapes(self):
        """No batch, heads, queries or keys, in both directions: results that are empty, or 0 and -inf."""
        mod = ("--score", "score * t[h] + c[kv]", "--mask", "q >= kv")
        for device, dtype in (("reference", "F32"), ("cpu", "F32"), ("emu", "BF16")):
            for b, hq, hkv, l, s in ((0, 4, 2, 5, 7), (2, 0, 0, 5, 7), (2, 0, 2, 5, 7), (2, 4, 2, 0, 7), (2, 4, 2, 5, 0),
                                     (0, 0, 0, 0, 0)):  # fmt: skip
                with self.subTest(device=device, b=b, hq=hq, hkv=hkv, l=l, s=s):
                    tensors = harness.attention_tensors(dtype, b=b, hq=hq, hkv=hkv, l=l, s=s, backward=True)
                    tensors |= {"t": harness.normal("F32", (hq,), 5), "c": harness.normal("F32", (s,), 6)}
                    path = self.file("in", harness.safetensors(tensors))
                    _, got = self.run_json(path, *mod, "--backward", "--check", "--device", device)
                    self.assertEqual(got.pop("lse"), ("F32", [b, hq, l], [-math.inf] * (b * hq * l)))
                    self.assertEqual(set(got), {"out", "dq", "dk", "dv", "d_t", "d_c"})
                    for name, like in (("dq", "q"), ("dk", "k"), ("dv", "v"), ("d_t", "t"), ("d_c", "c")):
                        self.assertEqual(got[name][1], tensors[like][1])
                    self.assertEqual({x for _, _, values in got.values() for x in values} - {0.0}, set())

    def test_scale(self):
        path = self.tensors(dtype="F64")
        _, got = self.run_json(path, "--score", "score", "--scale", "-0.5", "--device", "reference")
        _, same = self.run_json(path, "--score", "score * -0.5", "--scale=1", "--device=reference")
        self.close(got["out"][2], same["out"][2], 1e-12)
        path = self.tensors()
        for text in ("1e300", "-1e-39"):
            self.fails(1, "from 2^-126 to 2^126", "run", "--input", path, "--output", self.folder / "o", f"--scale={text}")

    def test_threads_do_not_change_bits(self):
        path = self.tensors(l=300, s=300, hq=4, backward=True)
        results = [self.run_json(path, "--mask", "q >= kv", "--backward", "--threads", n)[1] for n in (1, 2, 3)]
        self.assertEqual(results[0], results[1])
        self.assertEqual(results[0], results[2])

    def test_unknown_variant(self):
        self.fails(2, "fwd_nonesuch", "run", "--input", self.tensors(), "--output", self.folder / "o", "--variant",
                   "fwd_nonesuch")

    def test_no_compiler(self):
        path, empty = self.tensors(), {"FLEXJIT_CACHE_PATH": str(self.folder / "cache"), "FLEXJIT_CC": "/nonexistent/cc"}
        self.fails(3, "/nonexistent/cc", "run", "--input", path, "--output", self.folder / "o", env=empty)
        self.assertFalse((self.folder / "o").exists())

    def test_compiler_that_fails(self):
        script = self.file("cc", "#!/bin/sh\n[ \"$1\" = --version ] && exec cc --version\necho 'on fire' >&2\nexit 1\n")
        script.chmod(0o700)
        env = {"FLEXJIT_CACHE_PATH": str(self.folder / "cache"), "FLEXJIT_CC": str(script)}
        arguments = ("run", "--input", self.tensors(), "--output", self.folder / "o")
        self.assertIn("on fire", self.fails(1, str(script), *arguments, env=env).stderr)
        self.assertIn("on fire", json.loads(self.flexjit(*arguments, "--json", env=env).stdout)["error"]["detail"])
        self.assertFalse((self.folder / "o").exists())

    def test_interrupted_compiler(self):
        script = self.file("cc", "#!/bin/sh\n[ \"$1\" = --version ] && exec cc --version\ntouch started\nexec sleep 60\n")
        script.chmod(0o700)
        scratch = self.folder / "scratch"
        scratch.mkdir()
        env = {"FLEXJIT_CACHE_PATH": str(self.folder / "cache"), "FLEXJIT_CC": str(script), "TMPDIR": str(scratch)}
        path = self.tensors()
        process = self.start("run", "--input", path, "--output", self.folder / "o", env=env, cwd=self.folder)
        while process.poll() is None and not (self.folder / "started").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, stderr)
        self.assertEqual(list(scratch.iterdir()), [])
        self.assertEqual({p.name for p in self.folder.iterdir()} - {"cache"}, {"cc", "in.safetensors", "scratch", "started"})

    def test_slow_compiler(self):
        """After five seconds a terminal is told what takes so long; a file is not."""
        script = self.file("cc", "#!/bin/sh\n[ \"$1\" = --version ] || sleep 5.5\nexec cc \"$@\"\n")
        script.chmod(0o700)
        try:
            ours, theirs = pty.openpty()
        except OSError as error:  # a container without /dev/pts
            self.skipTest(str(error))
        arguments = ("run", "--input", self.tensors(), "--device", "cpu")
        env = {"FLEXJIT_CACHE_PATH": str(self.folder / "cache"), "FLEXJIT_CC": str(script)}
        quiet = self.start(*arguments, "--output", self.folder / "a", env={**env, "FLEXJIT_CACHE_PATH": str(self.folder / "b")})
        self.ok(*arguments, "--output", self.folder / "o", env=env, stderr=theirs)
        os.close(theirs)
        said = os.read(ours, 4096).decode()
        os.close(ours)
        self.assertRegex(said, r"^flexjit: compiling fwd_cpu_\w+ with \S*/cc [^\n]*: [56] s so far\r\n$")
        self.assertEqual(quiet.communicate(timeout=60)[1], "")
        self.assertEqual(quiet.returncode, 0)

    def test_no_jit(self):
        env = {"FLEXJIT_CACHE_PATH": str(self.folder / "cache"), "FLEXJIT_NO_JIT": "1"}
        self.fails(1, "FLEXJIT_NO_JIT", "run", "--input", self.tensors(), "--output", self.folder / "o", env=env)

    def test_bad_read(self):
        tensors = {**harness.attention_tensors(), "short": ("F32", [3], [0.0] * 3)}
        path = self.file("in", harness.safetensors(tensors))
        for device in ("reference", "cpu"):
            self.fails(1, "short", "run", "--score", "score + short[kv]", "--input", path, "--output", self.folder / "o",
                       "--device", device)
        self.assertFalse((self.folder / "o").exists())

    def test_bools_that_are_not_selected_are_not_read(self):
        """A where of bools is no and or or of them: what it does not select may be out of range."""
        tensors = {**harness.attention_tensors(), "short": ("F32", [3], [0.5, -0.5, 1.0])}
        path, inside = self.file("in", harness.safetensors(tensors)), "short[kv] > 0"
        for mask in (f"torch.where(kv >= 3, True, {inside})", f"torch.where(kv < 3, {inside}, True)",
                     f"torch.where(torch.where(kv < 3, {inside}, False), q >= 0, kv == 4)",
                     f"torch.where(torch.where(kv >= 3, False, {inside}), q >= 0, kv == 4)"):  # fmt: skip
            for device in ("reference", "cpu"):
                self.ok("run", "--mask", mask, "--input", path, "--output", self.folder / "o", "--device", device)
        self.fails(1, "'short' F32 [3] is read at index 3", "run", "--mask",
                   "torch.where(kv >= 4, True, short[kv] > -1)", "--input", path, "--output", self.folder / "p", "--device", "cpu")  # fmt: skip


FAKE_GPU = {
    "FLEXJIT_LIBCUDA": os.environ.get("FJ_FAKE_CUDA", ""),
    "FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_NVRTC", ""),
    "FAKE_NVRTC": "emulate=1",
}
NO_GPU = {"FLEXJIT_LIBCUDA": "/nowhere"}


class Gpu(harness.Case):
    """Kernels for a GPU: on the emulator, and on a GPU that only pretends."""

    def run_on(self, device, *more, env=None, **options):
        out = self.folder / "out.safetensors"
        path = self.tensors(backward=True, **options)
        done = self.ok("run", "--mask", "q + 3 >= kv", "--score", "score * 2.0", "--input", path, "--output", out,
                       "--device", device, "--backward", "--check", "--json", *more, env=env)
        return json.loads(done.stdout), harness.read_safetensors(out)

    def test_emu(self):
        for dtype in ("BF16", "F16", "F32", "F64"):
            with self.subTest(dtype):
                report, tensors = self.run_on("emu", dtype=dtype, hq=6, hkv=2, l=33, s=40, e=20, ev=24)
                self.assertEqual(report["device"], "emu")
                self.assertEqual(tensors["dv"][:2], (dtype, [1, 2, 40, 24]))
        self.assertIn("simt", report["variant"])
        report, _ = self.run_on("emu", "--arch", "sm_75", dtype="F16", l=20, s=20)
        self.assertEqual(report["device"], "emu:sm_75")
        self.assertIn("simt", report["variant"])
        blocks = report["blocks"]
        self.assertGreater(blocks["full"] + blocks["partial"], 0)

    def test_a_gpu(self):
        _, want = self.run_on("emu", "--arch", "sm_90", dtype="BF16", hq=4, hkv=2, l=70, s=65, e=32)
        for pace in ("async=0", "async=1", "async=2"):
            with self.subTest(pace):
                env = {**FAKE_GPU, "FAKE_CUDA": pace}
                report, tensors = self.run_on("cuda", env=env, dtype="BF16", hq=4, hkv=2, l=70, s=65, e=32)
                self.assertEqual(report["device"], "cuda")
                self.assertEqual(report["time_ms"], 1.5)  # the fake's events
                self.assertEqual(tensors, want)

    def test_auto(self):
        self.assertEqual(self.run_on("auto", env=FAKE_GPU)[0]["device"], "cuda")
        self.assertEqual(self.run_on("auto", env=NO_GPU)[0]["device"], "cpu")
        self.assertEqual(self.run_on("auto", env={**FAKE_GPU, "FAKE_CUDA": "arch=70"})[0]["device"], "cpu")

    def test_gpus_that_fail(self):
        path, out = self.tensors(dtype="BF16"), self.folder / "out"
        run = ("run", "--score", "score", "--input", path, "--output", out, "--device", "cuda")
        for settings, status, text in (
            ("init=34", 3, "is the CUDA toolkit's stub"),
            ("devices=0", 3, "finds no GPU"),
            ("arch=70", 3, "too old: it is sm_70, and sm_75 is needed"),
            ("alloc=2", 1, "bytes on GPU 0: CUDA_ERROR_OUT_OF_MEMORY"),
            ("load=200", 3, "a compiled kernel cannot be loaded on GPU 0"),
            ("threads=16", 3, "threads on GPU 0: 16 is the most"),
            ("launch=701", 3, "kernel fj_fwd cannot be launched (1 x 1 x 1 blocks): CUDA_ERROR_FAKE (701"),
        ):
            with self.subTest(settings):
                self.fails(status, text, *run, env={**FAKE_GPU, "FAKE_CUDA": settings})
                self.assertFalse(out.exists())
        self.fails(3, "no NVIDIA driver", *run, env=NO_GPU)
        self.fails(2, "--arch", *run, "--arch", "sm_90", env=FAKE_GPU)

    def test_bad_read(self):
        for device in ("emu", "cuda"):
            tensors = {**harness.attention_tensors("BF16"), "t": harness.normal("F32", (3,), 5)}
            path = self.file("in", harness.safetensors(tensors))
            self.fails(1, "captured tensor 't' F32 [3] is read at index", "run", "--score", "score + t[kv]",
                       "--input", path, "--output", self.folder / "out", "--device", device, env=FAKE_GPU)

    def test_bench(self):
        for device, more in (("emu", ("--once",)), ("cuda", ("--repeat", "3"))):
            done = self.ok("bench", "--shape", "1,2,1,40,50,32", "--dtype", "BF16,F32", "--direction", "fwd,bwd",
                           "--device", device, *more, "--json", env=FAKE_GPU)
            rows = json.loads(done.stdout)["rows"]
            self.assertEqual(len(rows), 4)
            self.assertGreater(min(row["median_ms"] for row in rows), 0)


if __name__ == "__main__":
    harness.main()
