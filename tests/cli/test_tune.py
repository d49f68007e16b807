"""`flexjit tune`: what counts, what is rejected, what is kept. No test depends on a time."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import time

import harness

TEMPLATES = pathlib.Path(__file__).resolve().parents[2] / "templates"
SHAPE = ("--shape", "1,2,1,70,90,16", "--device", "cpu")
ISA = {
    "portable": "!defined(__AVX2__)",
    "avx2": "defined(__AVX2__) && !defined(__AVX512F__)",
    "avx512": "defined(__AVX512F__)",
}
PLANTS = {  # where in the template, what it becomes
    "hang": ("ENTRY", "for (volatile int forever = 1; forever;) {}"),
    "crash": ("ENTRY", "*(volatile int *)8 = 1;"),
    "nothing": ("ENTRY", "if (a) return;"),
    "slightly": ("EXIT", "for (int i = 0; i < FJ_VALUE_DIM; i++) line[i] *= (fj_real)1.001;"),
    "nan": ("EXIT", "if (q == 69) line[3] = FJ_INF - FJ_INF;"),
    "outside": ("EXIT", "if (!q && !h) ((char *)row_at(&a->out, 0, 0, 0))[-3] = 7;"),
    "text": ("TOP", "#error planted"),
    # Right, but its output holds what the tool might take for an answer of its child: of another request, of none, no JSON.
    "talks": ("ENTRY", """
extern long write(int, const void *, unsigned long);
static int lines;
static const char text[] = "{\\"ms\\":1e-9,\\"number\\":1}\\n{\\"ms\\":1e-9,\\"runtimes\\":[]}\\n[1]\\n{";
if (!lines++ && write(0, text, sizeof text - 1) < 0) return;"""),
}
REJECTED = {"hang": "timeout", "crash": "crash", "nothing": "wrong", "slightly": "wrong", "nan": "wrong",
            "outside": "wrong", "text": "compile", "talks": None}  # fmt: skip


def condition(variant):
    tile_q, tile_kv, isa = re.search(r"_m(\d+)_n(\d+)_(\w+)$", variant).groups()
    return f"#if FJ_TILE_Q == {tile_q} && FJ_TILE_KV == {tile_kv} && defined(FJ_DIRECT) && !FJ_DIRECT && {ISA[isa]}\n"


class Tune(harness.Case):
    def tune(self, *arguments, env=None):
        return json.loads(self.ok("tune", *arguments, "--json", env=self.env(env)).stdout)

    def env(self, more=None):
        return {"FLEXJIT_TUNE_PATH": str(self.folder / "tuned"), "FLEXJIT_TUNE_TIMEOUT": "6", **(more or {})}

    def log(self, path):
        return json.loads(path.read_text())

    def variants(self):
        """Those that the plan lists; the first is the default."""
        text = self.ok("show", "--stage", "plan", "--head-dim", "16", "--device", "cpu", "--mask", "q >= kv - 30").stdout
        return re.findall(r"\bfwd_cpu_f32_e16_v16_m\d+_n\d+_(?:portable|avx2|avx512)\b", text.split("legal")[1])

    def plant(self, plants):
        """Templates in which each variant of `plants` is wrong in its way."""
        folder = self.folder / "templates"
        shutil.copytree(TEMPLATES, folder)
        seams = {"ENTRY": ("fwd.c", "kernel_run(const struct fj_cpu_args *a, int phase, int64_t item, int worker) {\n"),
                 "EXIT": ("fwd_results.h", "    if (a->out.data) tile_unpack_row("), "TOP": ("fwd.c", '#include "abi.h"\n')}  # fmt: skip
        for variant, kind in plants.items():
            where, what = PLANTS[kind]
            path, seam = folder / "cpu" / seams[where][0], seams[where][1]
            text = path.read_text()
            self.assertEqual(text.count(seam), 1, seam)
            planted = f"{condition(variant)}{what}\n#endif\n"
            path.write_text(text.replace(seam, planted + seam if where == "EXIT" else seam + planted))
        return {"FLEXJIT_TEMPLATE_PATH": str(folder)}

    def test_planted_candidates_are_rejected_under_their_names(self):
        variants, log = self.variants(), self.folder / "log.json"
        kinds = list(PLANTS)
        while kinds:
            plants = dict(zip(variants[1:], kinds))
            kinds = kinds[len(plants) :]
            self.assertTrue(plants, "one variant alone")
            shutil.rmtree(self.folder / "templates", ignore_errors=True)
            log.unlink(missing_ok=True)
            report = self.tune("--mask", "q >= kv - 30", *SHAPE, "--strategy", "list", "-O", "direct=0", "--log", log,
                               env=self.plant(plants))  # fmt: skip
            found = {r["variant"]: r.get("rejected") for r in self.log(log)["results"]}
            for variant, kind in plants.items():
                self.assertEqual(found[variant], REJECTED[kind], (kind, self.log(log)["results"]))
            row = report["rows"][0]
            self.assertEqual(row["tried"], len(found))
            wrong = [variant for variant, kind in plants.items() if REJECTED[kind]]
            self.assertEqual(sum(row["rejected"].values()), len(wrong), self.log(log)["results"])
            self.assertNotIn(row["best"]["variant"], wrong)
            for result in self.log(log)["results"]:  # nothing was taken from the one that talks
                self.assertTrue(all(m["value"] > 1e-6 for m in result["measurements"]), result)

    def test_kernels_for_a_gpu(self):
        """On the emulator, whose times are no GPU's, and on a GPU that only pretends."""
        sweep = ("--shape", "1,1,1,40,33,8", "--dtype", "F64", "--output", self.folder / "gpu.jsonl", "--strategy", "list",
                 "-O", "tile_q=16", "-O", "pack=0")  # fmt: skip
        folder = self.folder / "templates"
        shutil.copytree(TEMPLATES, folder)
        path, seam = folder / "cuda/fwd_simt.cu", "fj_fma_rn(p[i], v, t.o[i][j])"
        text = path.read_text()
        self.assertEqual(text.count(seam), 1)
        path.write_text(text.replace(seam, "fj_fma_rn(p[i], FJ_TILE_M == 16 ? v * 1.001 : v, t.o[i][j])"))
        fake = {"FLEXJIT_LIBCUDA": os.environ.get("FJ_FAKE_CUDA", ""), "FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_NVRTC", ""),
                "FAKE_NVRTC": "emulate=1", "FLEXJIT_TEMPLATE_PATH": str(folder)}  # fmt: skip
        for device, env, rejected in (("emu:sm_80", {}, 0), ("cuda", fake, 1)):
            name, *arch = device.split(":")
            options = ("--device", name, *(("--arch", *arch) if arch else ()))
            row = self.tune(*sweep, *options, env={**env, "FLEXJIT_TUNE_TIMEOUT": "60"})["rows"][0]
            self.assertEqual((row["tried"], row["rejected"]["wrong"], sum(row["rejected"].values())), (2, rejected, rejected))
            self.assertRegex(row["default"]["variant"], "^fwd_simt_f64_e8_v8_m64")
        targets = [json.loads(line)["device"]["target"] for line in (self.folder / "gpu.jsonl").read_text().splitlines()[1:]]
        self.assertEqual(targets, ["emu", "cuda"])
        self.assertEqual(row["best"], row["default"])

    def test_the_winner_decides(self):
        log, output = self.folder / "log.json", self.folder / "mine.jsonl"
        report = self.tune("--mask", "q >= kv - 30", *SHAPE, "--strategy", "list", "--log", log)
        self.assertEqual(report["output"], str(self.folder / "tuned/tune.jsonl"))
        plan = self.ok("show", "--stage", "plan", "--mask", "q >= kv - 30", *SHAPE, env=self.env()).stdout
        self.assertRegex(plan, rf"variant +{report['rows'][0]['best']['variant']}\n")
        self.assertRegex(plan, r"decided by +tuning record .*tune\.jsonl:\d+ \(exact\)")
        again = self.tune("--mask", "q >= kv - 30", *SHAPE, "--strategy", "list", "--log", log, "--output", output)
        self.assertEqual(again["rows"], report["rows"])  # the default of a sweep is that of no record
        self.assertEqual(again["output"], str(output))
        self.assertIn(report["rows"][0]["best"]["variant"], output.read_text())

    def test_budget(self):
        row = self.tune(*SHAPE, "--budget", "0")["rows"][0]
        self.assertEqual((row["tried"], row["speedup"]), (1, 1))
        self.assertEqual(row["best"], row["default"])
        self.assertEqual(row["shape"], [1, 2, 1, 70, 90, 16, 16])
        self.assertEqual(set(row["rejected"]), {"compile", "spill", "launch", "wrong", "timeout", "crash"})

    def test_manifest(self):
        entry = {"score": "score + slopes[h]", "bind": {"slopes": "F32[2]"},
                 "problems": [{"dtype": ["F32", "BF16"], "head_dim": 16}]}  # fmt: skip
        manifest = self.file("m.json", json.dumps({"schema": 1, "entries": [{**entry, "shapes": ["1,2,1,70,90,16"]}, entry]}))
        rows = self.tune("--manifest", manifest, "--device", "cpu", "--budget", "0")["rows"]
        self.assertEqual([(row["dtype"], row["shape"][3]) for row in rows], [("F32", 70), ("BF16", 70)])
        self.fails(2, "--manifest does not go with --shape", "tune", "--manifest", manifest, *SHAPE)
        self.file("m.json", json.dumps({"schema": 1, "entries": [entry]}))
        self.fails(1, "no entry has 'shapes'", "tune", "--manifest", manifest, "--device", "cpu")
        self.file("m.json", json.dumps({"schema": 1, "entries": [{**entry, "shapes": ["1,2,1,70,90,32"]}]}))
        self.fails(1, "entries[0]: none of its problems", "tune", "--manifest", manifest, "--device", "cpu")

    def test_options_limit_the_candidates(self):
        log = self.folder / "log.json"
        self.tune(*SHAPE, "--strategy", "list", "-O", "isa=portable", "-O", "tile_kv=128", "-O", "direct=1", "--log", log)
        default, *others = [result["configuration"] for result in self.log(log)["results"]]
        self.assertEqual(others, [{"tile_q": 48, "tile_kv": 128, "isa": "portable", "splits": 1, "direct": 1}])
        self.assertNotIn(default, others)
        self.fails(2, "'stages'", "tune", *SHAPE, "-O", "stages")
        done = self.fails(1, "option tile_q=64 is not legal", "tune", *SHAPE, "-O", "tile_q=64")
        self.assertIn("legal are: 48, ", done.stderr)
        self.fails(2, "unknown option 'stages' of kernels of the cpu device", "tune", *SHAPE, "-O", "stages=2")
        self.fails(1, "kernel 'mma' is for cuda and emu", "tune", *SHAPE, "--kernel", "mma")
        self.fails(1, "no variant that the plan lists has these options", "tune", *SHAPE, "--strategy", "list", "-O", "tile_q=96")

    def test_gradients_that_cancel_are_not_wrong(self):
        """What is added to all scores of a row has no gradient: the variants give different rounding of nothing."""
        rows = self.tune("--score", "score + slopes[h]", "--bind", "slopes=F32[2]", *SHAPE, "--direction", "bwd", "--strategy",
                         "list", "-O", "isa=portable")["rows"]  # fmt: skip
        self.assertGreater(rows[0]["tried"], 1)
        self.assertEqual(sum(rows[0]["rejected"].values()), 0)

    def test_kept_calls(self):
        tensors = {**harness.attention_tensors(l=6, s=9, e=16, backward=True), "bias": harness.normal("F32", (2, 9), 5)}
        path, kept = self.file("in.st", harness.safetensors(tensors)), self.folder / "kept"
        self.ok("run", "--score", "score + bias[h, kv]", "--input", path, "--output", self.folder / "out.st", "--backward",
                "--scale", "-0.5", "--capture", kept, "--device", "cpu")  # fmt: skip
        rows = self.tune("--from", kept, "--device", "cpu", "--budget", "0")["rows"]
        self.assertEqual([(row["direction"], row["shape"]) for row in rows], [(d, [1, 2, 1, 6, 9, 16, 16]) for d in ("bwd", "fwd")])
        self.assertEqual([sum(row["rejected"].values()) for row in rows], [0, 0])
        self.fails(2, "--from does not go with --shape", "tune", "--from", kept, *SHAPE)
        self.fails(1, "No such file", "tune", "--from", self.folder / "nowhere", "--device", "cpu")
        self.fails(1, "no call in it", "tune", "--from", self.folder, "--device", "cpu")

    def test_the_log_is_t4(self):
        log = self.folder / "log.json"
        report = self.tune(*SHAPE, "--budget", "0", "--direction", "fwd,bwd", "--dtype", "BF16", "--log", log)
        self.assertEqual(report["log"], str(log))
        kept = self.log(log)
        self.assertEqual((kept["schema_version"], len(kept["results"])), ("1.0.0", 2))
        for result in kept["results"]:
            self.assertLessEqual({"timestamp", "configuration", "objectives", "times", "invalidity", "correctness",
                                  "measurements"}, set(result))  # fmt: skip
            self.assertEqual((result["invalidity"], result["correctness"]), ("correct", 1))
            self.assertGreater(len(result["times"]["runtimes"]), 1)
            self.assertEqual([(m["name"], m["unit"]) for m in result["measurements"]], [("time", "ms")])

    def test_killed_and_resumed(self):
        log, chance = self.folder / "log.json", random.Random(7)
        arguments = ("tune", "--score", "score * 3", *SHAPE, "--strategy", "list", "--log", log)
        seen = []
        for _ in range(4):
            tool = self.start(*arguments, env=self.env())
            time.sleep(chance.uniform(0.05, 1.5))
            tool.kill()
            tool.communicate()
            kept = self.log(log)["results"] if log.exists() else []
            self.assertEqual(kept[: len(seen)], seen)  # neither lost nor measured again
            seen = kept
        report = self.tune(*arguments[1:])
        kept = self.log(log)["results"]
        self.assertEqual(kept[: len(seen)], seen)
        names = [result["variant"] for result in kept]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(self.tune("--replay", log)["rows"], report["rows"])
        before = log.read_bytes()
        self.assertEqual(self.tune(*arguments[1:])["rows"], report["rows"])
        self.assertEqual(log.read_bytes(), before)

    def start_hanging(self, log, seconds):
        """A sweep whose last candidate hangs, once all others are in the log."""
        variants = self.variants()
        env = self.env({**self.plant({variants[-1]: "hang"}), "FLEXJIT_TUNE_TIMEOUT": seconds})
        tool = self.start("tune", "--mask", "q >= kv - 30", *SHAPE, "--strategy", "list", "--log", log, "--json", env=env)
        until = time.monotonic() + 120
        while time.monotonic() < until and not (log.exists() and len(self.log(log)["results"]) == len(variants) - 1):
            time.sleep(0.05)
        return tool, len(variants) - 1

    def test_interrupted(self):
        log, link = self.folder / "log.json", self.folder / "link.json"
        tool, count = self.start_hanging(log, "300")
        link.symlink_to(log)
        for path in (log, link):  # one of two would lose what it measured
            self.fails(1, "another sweep writes this log", "tune", *SHAPE, "--budget", "0", "--log", path, env=self.env())
        os.killpg(tool.pid, signal.SIGINT)
        out, err = tool.communicate(timeout=60)
        self.assertEqual(tool.returncode, 130, err)
        self.assertEqual(json.loads(out)["rows"][0]["tried"], count)
        self.assertEqual([p.name for p in self.folder.glob(".*.lock")], [])

    def test_a_log_that_cannot_be_written_any_more_is_kept(self):
        folder = self.folder / "logs"
        folder.mkdir()
        tool, count = self.start_hanging(folder / "log.json", "6")
        kept = folder.rename(self.folder / "moved") / "log.json"
        out, err = tool.communicate(timeout=60)
        self.assertEqual(tool.returncode, 1, err)
        self.assertIn("log.json", json.loads(out)["error"]["file"] + json.loads(out)["error"]["text"])
        self.assertEqual(len(self.log(kept)["results"]), count)

    def test_logs_of_others(self):
        log = self.folder / "log.json"
        self.tune(*SHAPE, "--budget", "0", "--log", log)
        kept = log.read_text()
        for text, word in [
            (kept.replace('"machine": "', '"machine": "another '), "another machine"),
            (kept.replace('"device": "cpu', '"device": "cuda'), "is of device cuda"),
            (kept.replace('"digest": "', '"digest": "f'), "another problem"),
            (kept.replace('"schema": 1', '"schema": 99'), "another flexjit"),
            (kept.replace('"1.0.0"', '"2.0.0"'), "'schema_version'"),
            (kept[: len(kept) // 2], "line "),
            ("{}", "not a log"),
            ("", "line 1"),
        ]:
            path = self.file("other.json", text)
            self.fails(1, word, "tune", *SHAPE, "--budget", "0", "--log", path, env=self.env())
            self.assertEqual(path.read_text(), text)
        more = self.tune(*SHAPE, "--shape", "1,2,1,70,80,16", "--budget", "0", "--log", log)
        self.assertEqual([row["shape"][4] for row in more["rows"]], [90, 80])  # it grows by problems

    def test_paths_that_cannot_be_written(self):
        nowhere = self.folder / "nowhere" / "x"
        for option in ("--report", "--output", "--log"):
            self.fails(1, str(nowhere), "tune", *SHAPE, "--budget", "0", option, nowhere, env=self.env())
            self.fails(1, str(self.folder), "tune", *SHAPE, "--budget", "0", option, self.folder, env=self.env())
        other, log = self.file("other.txt", "a letter\n"), self.folder / "unused.json"
        self.fails(1, "it is not a file of tuning records", "tune", *SHAPE, "--budget", "0", "--log", log, "--output", other,
                   env=self.env())  # fmt: skip
        self.assertEqual(other.read_text(), "a letter\n")
        self.assertNotIn("median", log.read_text() if log.exists() else "")  # nothing was measured
        self.fails(1, "no folder for tuning records", "tune", *SHAPE, "--budget", "0", env={"FLEXJIT_TUNE_PATH": ":"})

    def test_files_that_would_replace_each_other(self):
        same, link = self.file("same", "kept"), self.folder / "link"
        link.symlink_to(same)
        for pair in [("--log", "--output"), ("--log", "--report"), ("--output", "--report"), ("--replay", "--report")]:
            shape = () if "--replay" in pair else SHAPE
            for other in (same, link):
                self.fails(2, f"{pair[0]} and {pair[1]} are the same file", "tune", *shape, pair[0], same, pair[1], other)
        self.assertEqual(same.read_text(), "kept")

    def test_report(self):
        page, log = self.folder / "page.html", self.folder / "log.json"
        self.tune(*SHAPE, "--budget", "0", "--dtype", "F32,BF16", "--log", log, "--report", page)
        text = page.read_text()
        self.assertEqual(text.count("<section>"), 2)
        self.assertGreaterEqual(text.count("<svg"), 2)
        self.assertNotRegex(text, r"https?:|src=|<script|@import|url\(")
        for name in self.log(log)["flexjit"]["problems"]:
            self.assertIn(name["default"], text)
        self.file("odd.json", log.read_text().replace('"device": "cpu', '"device": "<cpu&>'))
        self.tune("--replay", self.folder / "odd.json", "--report", page)
        self.assertIn("&lt;cpu&amp;&gt;", page.read_text())

    def test_usage(self):
        self.fails(2, "--shape is missing: what to tune for is said by it, --manifest or --from", "tune")
        self.fails(2, "'--budget'", "tune", *SHAPE, "--budget", "-1")
        self.fails(2, "unknown strategy 'lst'", "tune", *SHAPE, "--strategy", "lst")
        self.fails(2, "does not go with --shape", "tune", *SHAPE, "--replay", "x.json")
        self.fails(2, "no variants", "tune", "--shape", SHAPE[1], "--device", "reference")
        self.fails(1, "x.json", "tune", "--replay", self.folder / "x.json")


if __name__ == "__main__":
    harness.main()
