"""`flexjit prebuild`: manifests, layers, shards; what is missing. Kernels are compiled by a fake NVRTC, and by the real
one where there is one."""

import json
import os
import pty
import re
import signal
import time

import harness

FAKE = {"FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_NVRTC", "")}
ALIBI = "def alibi(score, b, h, q, kv):\n    return score + slopes[h] * (kv - q)\n"


def manifest(*entries):
    return json.dumps({"schema": 1, "entries": list(entries)})


def entry(problem=None, **keys):
    """Of many queries, unless the problem says else: one kernel."""
    return {"problems": [{"dtype": "BF16", "head_dim": 64, "few_queries": False, **(problem or {})}], **keys}


class Prebuild(harness.Case):
    def prebuild(self, text, *arguments, env=None):
        done = self.ok("prebuild", "--manifest", self.file("m.json", text), "--output", self.folder / "layer", *arguments,
                       "--json", env={**FAKE, **(env or {})})
        return json.loads(done.stdout)

    def counts(self, *arguments, **options):
        report = self.prebuild(*arguments, **options)
        return tuple(report[key] for key in ("kernels", "found", "compiled", "failed"))

    def test_the_second_time_all_is_found(self):
        text = manifest(entry(), entry(score="score * 2", mask="q >= kv"))
        self.assertEqual(self.counts(text, "--arch", "sm_80,sm_90"), (4, 0, 4, 0))
        self.assertEqual(self.counts(text, "--arch", "sm_80,sm_90"), (4, 4, 0, 0))
        self.assertEqual(self.counts(text, "--arch", "sm_90a", "--verify"), (2, 2, 0, 0))  # the same as for sm_90
        nowhere = {"FLEXJIT_NVRTC": "/nowhere", "FLEXJIT_NO_JIT": "1"}
        self.assertEqual(self.counts(text, "--arch", "sm_80", env=nowhere), (2, 2, 0, 0))

    def test_rows(self):
        self.file("alibi.py", ALIBI)
        text = manifest(entry(mod="alibi.py", bind={"slopes": "F32[8]"}))
        report = self.prebuild(text, "--arch", "sm_80")
        row = report["rows"][0]
        self.assertEqual((row["mod"], row["arch"], row["cache"]), ("alibi.py", "sm_80", "miss"))
        self.assertRegex(row["variant"], r"^fwd_mma_bf16_e64_v64_m\d+_n\d+_s\d+_w\d+$")
        self.assertGreater(row["shared_bytes"], 0)

    def test_lists_give_the_cross_product(self):
        text = manifest(entry({"dtype": ["F16", "BF16", "F32"], "head_dim": [64, 128], "gqa": [1, 8]}))
        self.assertEqual(self.counts(text, "--arch", "75,8.0,90"), (18, 0, 18, 0))
        text = manifest(entry({"value_dim": [32, None], "max": [False, True]}))
        self.assertEqual(self.counts(text, "--arch", "sm_80"), (4, 1, 3, 0))
        text = manifest(entry({"block_mask": [False, True]}))
        self.assertEqual(self.counts(text, "--arch", "sm_80"), (2, 1, 1, 0))
        text = manifest(entry({"dropout": [False, True]}), entry(out="out * g[h]", sink="s[h]", bind={"g": "F32[8]", "s": "F32[8]"}))
        self.assertEqual(self.counts(text, "--arch", "sm_80"), (3, 1, 2, 0))
        text = manifest(entry({"few_queries": True, "gqa": [1, 8]}))
        self.assertEqual(self.counts(text, "--arch", "sm_80"), (1, 0, 1, 0))  # one for any number of heads that share keys
        text = manifest(entry({"form": ["dense", "packed", "paged"], "q_offset": [False, True]}))
        self.assertEqual(self.counts(text, "--arch", "sm_80"), (4, 1, 3, 0))  # packed and paged ones take offsets

    def test_few_queries_and_many(self):
        """A manifest that does not say which is for both; what they have in common is built once."""
        both = {"dtype": "BF16", "head_dim": 64}
        cases = {(): (2, 0), (("gqa", 1),): (2, 0), (("gqa", 8),): (2, 0), (("gqa", (1, 8)),): (2, 2),
                 (("few_queries", True),): (1, 0), (("few_queries", False),): (1, 0), (("direction", "bwd"),): (1, 1)}  # fmt: skip
        for keys, (kernels, repeated) in cases.items():
            with self.subTest(keys):
                text = manifest({"problems": [{**both, **dict(keys)}]})
                report = self.prebuild(text, "--arch", "sm_80")
                self.assertEqual((report["kernels"], report["repeated"]), (kernels, repeated))
        variants = [row["variant"] for row in self.prebuild(manifest({"problems": [both]}), "--arch", "sm_80")["rows"]]
        self.assertEqual(sorted("_pack" in name for name in variants), [False, True])

    def test_kernel_options(self):
        problem = {"kernel": ["simt", "mma"], "options": [{"tile_q": 64, "tile_kv": 64}, {"tile_q": 32}]}
        rows = self.prebuild(manifest(entry(problem)), "--arch", "sm_80")["rows"]
        self.assertEqual(
            sorted(row["variant"].split("_e64_v64_")[0] + "_" + row["variant"].split("_")[5] for row in rows),
            ["fwd_mma_bf16_m32", "fwd_mma_bf16_m64", "fwd_simt_bf16_m32", "fwd_simt_bf16_m64"])

    def test_variants(self):
        """The default alone, or every legal one, of what names none; records are in test_tuned.py."""
        shown = self.ok("show", "--score", "score", "--device", "cuda", "--arch", "sm_80", "--dtype", "BF16", "--stage", "plan").stdout
        listed = re.findall(r"fwd_mma_\w+", shown)
        wanted = {}
        for which in ("default", "tuned", "all"):
            path = self.file("m.json", manifest(entry()))
            done = self.flexjit("prebuild", "--manifest", path, "--arch", "sm_80", "--variants", which, "--verify", "--json",
                                "--output", self.folder / "layer", env=FAKE)  # fmt: skip
            wanted[which] = [row["variant"] for row in json.loads(done.stdout)["rows"]]
        self.assertEqual((wanted["default"], wanted["tuned"]), ([listed[0]], [listed[0]]))
        self.assertLess(set(listed), set(wanted["all"]))
        self.assertEqual(len(set(wanted["all"])), len(wanted["all"]))
        named = manifest(entry({"variant": listed[1]}))
        self.assertEqual([row[2] for row in self.rows(named, "--arch", "sm_80", "--variants", "all")], [listed[1]])
        self.fails(2, "unknown variants 'some'", "prebuild", "--manifest", path, "--arch", "sm_80", "--variants", "some")

    def test_numbers_as_params(self):
        """As if the file had them: an integer stays one, a float too."""
        self.file("w.py", "W = 3\nX = 0.5\nB = False\n\ndef mask_mod(b, h, q, kv):\n"
                          "    return (q - kv < W * X) | (B & (kv < 1)) | (kv // W == 0)\n")
        keys = [self.rows(manifest(entry(mod="w.py", params=params)), "--arch", "sm_80") and self.counts(
            manifest(entry(mod="w.py", params=params), entry(mod="w.py", params=text)), "--arch", "sm_80", "--verify")[0]
            for params, text in (({"W": 1024}, {"W": "1024"}), ({"X": 2.0}, {"X": "2.0"}), ({"B": True}, {"B": "True"}),
                                 ({"W": 7, "X": 0.1}, {"W": "7", "X": "0.1"}))]  # fmt: skip
        self.assertEqual(keys, [1, 1, 1, 1])
        self.counts(manifest(entry(mod="w.py", params={"W": 1024}, shapes=["1,8,8,512..1024,=,64"])), "--arch", "sm_80")
        self.fails(1, "m.json: entries[0]: <param NONE>:1:1: error: the module has no constant 'NONE'", "prebuild", "--arch", "sm_80", "--manifest",
                   self.file("m.json", manifest(entry(mod="w.py", params={"NONE": 1}))))

    def test_shards(self):
        text = manifest(entry({"head_dim": [16, 32, 48, 64, 80]}))
        self.assertEqual(self.counts(text, "--arch", "sm_80", "--shard", "1/2"), (3, 0, 3, 0))
        self.assertEqual(self.counts(text, "--arch", "sm_80", "--shard", "2/2", "-j1"), (2, 0, 2, 0))
        self.assertEqual(self.counts(text, "--arch", "sm_80", "--verify", "--jobs", "3"), (5, 5, 0, 0))

    def rows(self, *arguments, **options):
        return [(row["entry"], row["arch"], row["variant"]) for row in self.prebuild(*arguments, **options)["rows"]]

    def test_the_shards_together_are_the_whole(self):
        text = manifest(entry({"head_dim": [16, 32, 64], "direction": ["fwd", "bwd"]}), entry({"head_dim": [48, 64]}, score="score * 2"))
        arguments = (text, "--arch", "sm_80,sm_90")
        whole = self.rows(*arguments)
        self.assertEqual(len(set(whole)), 16)
        for shards in (1, 2, 3, 4, 7, 16, 17):
            parts = [self.rows(*arguments, "--shard", f"{i + 1}/{shards}") for i in range(shards)]
            self.assertEqual(sorted(sum(parts, [])), sorted(whole))
            self.assertLessEqual(max(map(len, parts)) - min(map(len, parts)), 1)
        # Of a larger one each shard has some of every direction and architecture.
        text = manifest(entry({"head_dim": list(range(8, 129, 8)), "direction": ["fwd", "bwd"]}))
        for i in range(4):
            part = self.rows(text, "--arch", "sm_80,sm_90", "--shard", f"{i + 1}/4")
            self.assertEqual(len({(arch, variant[:3]) for _, arch, variant in part}), 4)

    def content(self, folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def test_the_shards_are_the_whole_byte_for_byte(self):
        """Nothing of an entry says when, how long, where or beside what it was made."""
        path = self.file("m.json", manifest(entry({"head_dim": [16, 32, 64], "few_queries": [False, True], "direction": ["fwd", "bwd"]}),
                                            entry({"dtype": "F32", "head_dim": 16}, score="score * 3")))  # fmt: skip
        cpu = "avx2" if "avx2" in self.ok("doctor", "--json").stdout else "portable"

        def build(name, *arguments, ms=1.5):
            log = f"ptxas info    : Used 32 registers\nptxas info    : Compile time = {ms} ms\n"
            text, archs = (one, cpu) if name.startswith("cpu") else (path, "sm_80,sm_100")
            self.ok("prebuild", "--manifest", text, "--output", self.folder / name, "--arch", archs, *arguments,
                    env={**FAKE, "FAKE_NVRTC_LOG": log})  # fmt: skip
            return self.content(self.folder / name)

        one = self.file("one.json", manifest(entry({"dtype": "F32", "head_dim": 8})))
        self.assertEqual(build("cpu1"), build("cpu2"))  # by the C compiler
        whole, merged = build("whole", "-j3"), {}
        for i in range(3):
            part = build(f"part{i}", "--shard", f"{i + 1}/3", ms=i + 2.25)
            self.assertFalse(merged.keys() & part.keys())
            merged.update(part)
        self.assertEqual(merged, whole)

    def test_the_shard_of_a_launcher(self):
        path = self.file("m.json", manifest(entry({"head_dim": [16, 32, 48]})))
        arguments = ("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80", "--shard", "auto")
        none = dict.fromkeys(("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "SLURM_PROCID", "SLURM_NTASKS",
                              "SLURM_STEP_NUM_TASKS"))  # fmt: skip
        for name in none:
            os.environ.pop(name, None)
        for names in (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"),
                      ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):  # fmt: skip
            done = self.ok(*arguments, "--json", env={**FAKE, names[0]: "1", names[1]: "2"})
            self.assertEqual(json.loads(done.stdout)["shard"], "2/2")
        slurm = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}  # mpirun under Slurm
        done = self.ok(*arguments, env={**FAKE, **slurm, "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"})
        self.assertIn("shard 3/3, by OMPI_COMM_WORLD_RANK", done.stderr)
        self.fails(2, "finds no launcher", *arguments, env=FAKE)
        for rank, size in (("3", "3"), ("-1", "2"), ("x", "2"), ("0", "0"), ("", "2"), ("0", "99999999999")):
            self.fails(2, "OMPI_COMM_WORLD_RANK is '", *arguments, env={"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": size})

    def test_what_failed_is_said_at_the_end(self):
        path = self.file("m.json", manifest(entry({"head_dim": [32, 64]}, score="score * 2"), entry({"head_dim": 64})))
        arguments = ("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80,sm_90")
        bad = {**FAKE, "FAKE_NVRTC_BAD": "_e64_", "FAKE_NVRTC_LOG": "k(7): error: a mistake\n"}
        lines = self.flexjit(*arguments, env=bad).stdout.splitlines()
        self.assertRegex(lines[0], "^6 kernels: 0 found, 2 compiled, 4 failed, ")
        self.assertEqual([line.split(": NVRTC")[0] for line in sorted(lines[1:])],
                         ["failed: entries[0]: 2 for sm_80,sm_90", "failed: entries[1]: 2 for sm_80,sm_90"])  # fmt: skip
        failures = json.loads(self.flexjit(*arguments, "--json", env=bad).stdout)["failures"]
        self.assertEqual(sorted((of["mod"], of["kernels"], sorted(of["archs"])) for of in failures),
                         [("entries[0]", 2, ["sm_80", "sm_90"]), ("entries[1]", 2, ["sm_80", "sm_90"])])  # fmt: skip
        lines = self.flexjit(*arguments, "--verify", env=bad).stdout.splitlines()
        self.assertIn("missing: entries[0]: 2 for", lines[1] + lines[2])

    def test_a_kernel_is_built_once(self):
        self.file("a.py", "def double(score, b, h, q, kv):\n    return score * 2.0\n")
        text = manifest(entry(mod="a.py"), entry(score="score * (1 + 1)"), entry({"dtype": ["BF16", "BF16"]}, score="2.0 * score"),
                        entry(score="score * 3"))
        report = self.prebuild(text, "--arch", "sm_80", "-j2")
        self.assertEqual((report["kernels"], report["compiled"]), (len(report["rows"]), report["kernels"]))
        self.assertEqual(report["kernels"] + report["repeated"], 5)
        self.assertGreaterEqual(report["repeated"], 2)
        self.assertEqual(len(list((self.folder / "layer").glob("*.kernel"))), report["kernels"])

    def test_one_that_does_not_compile(self):
        self.file("alibi.py", ALIBI)
        path = self.file("m.json", manifest(entry({"head_dim": [32, 64, 96]}, mod="alibi.py", bind={"slopes": "F32[8]"})))
        arguments = ("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80,sm_90")
        bad = {**FAKE, "FAKE_NVRTC_BAD": "_e64_", "FAKE_NVRTC_LOG": "cuda/fwd_mma.cu(7): error: a mistake\n"}
        done = self.flexjit(*arguments, env=bad)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 2)
        for line in errors:
            self.assertRegex(line, r"alibi.py for cuda:sm_[89]0: NVRTC 13.0 failed on kernel fwd_mma_bf16_e64_v64_\w+: "
                                   r"cuda/fwd_mma.cu:7: a mistake$")
        self.assertIn("6 kernels: 0 found, 4 compiled, 2 failed", done.stdout)
        report = json.loads(self.flexjit(*arguments, "--json", env=bad).stdout)
        self.assertEqual((report["found"], report["failed"], report["error"]["status"]), (4, 2, 1))
        failed = [row for row in report["rows"] if row["cache"] == "failed"]
        self.assertEqual(len(failed), 2)
        for row in failed:
            self.assertIn("a mistake", row["error"])
            self.assertIn("fwd_mma.cu(7)", row["log"])
        done = self.ok(*arguments, env=FAKE)
        self.assertIn("6 kernels: 4 found, 2 compiled,", done.stdout)

    def test_progress_on_a_terminal(self):
        path = self.file("m.json", manifest(entry({"head_dim": [32, 64, 96]})))
        try:
            ours, theirs = pty.openpty()
        except OSError as error:  # a container without /dev/pts
            self.skipTest(str(error))
        done = self.ok("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80", "-j1", env=FAKE,
                       stderr=theirs)
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 4096):
                said += chunk
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        for n in (1, 2, 3):
            self.assertIn(b"\r\033[K%d of 3 kernels, %d compiled, 0 failed" % (n, n), said)
        self.assertEqual(said.count(b"\n"), 1)
        self.assertIn("3 kernels: 0 found, 3 compiled", done.stdout)

    def test_what_is_missing(self):
        path = self.file("m.json", manifest(entry({"head_dim": [64, 128]})))
        arguments = ("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80")
        done = self.fails(1, "entries[0] for cuda:sm_80: the cache has no kernel fwd_mma_bf16_e64", *arguments, "--verify")
        self.assertIn("2 kernels: 0 found, 0 compiled, 2 missing", done.stdout)
        self.fails(1, "FLEXJIT_NO_JIT is set", *arguments, env={"FLEXJIT_NO_JIT": "1"})
        self.fails(3, "NVRTC cannot be opened", *arguments, env={"FLEXJIT_NVRTC": "/nowhere"})
        self.fails(3, "does not compile for sm_121: 12.9 or newer does", *arguments[:-1], "sm_121", env=FAKE)
        self.fails(1, "a mistake", *arguments, env={**FAKE, "FAKE_NVRTC": "result=6", "FAKE_NVRTC_LOG":
                                                    "cuda/fwd_mma.cu(7): error: a mistake"})

    def test_the_rest_is_built(self):
        """A kernel that fails does not keep the others from being built."""
        path = self.file("m.json", manifest(entry({"head_dim": [64, 128]})))
        done = self.flexjit("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_121,sm_80",
                            "--json", env=FAKE)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 3)
        self.assertEqual((report["compiled"], report["failed"]), (2, 2))
        self.assertEqual(report["error"]["status"], 3)

    def test_a_layer_that_cannot_be_written(self):
        path = self.file("m.json", manifest(entry()))
        self.fails(1, "cannot be written", "prebuild", "--manifest", path, "--output", "/proc/nowhere", "--arch", "sm_80",
                   env=FAKE)

    def test_a_layer_that_is_too_small(self):
        path = self.file("m.json", manifest(entry({"head_dim": list(range(8, 129, 8))})))
        done = self.fails(1, "of the kernels were removed again", "prebuild", "--manifest", path, "--output",
                          self.folder / "layer", "--arch", "sm_80", env={**FAKE, "FLEXJIT_CACHE_SIZE": "8K"})
        self.assertIn("is too small for this process", done.stderr)

    def test_usage(self):
        path = self.file("m.json", manifest())
        self.fails(2, "--manifest FILE is missing", "prebuild", "--arch", "sm_80")
        self.fails(2, "--arch is missing", "prebuild", "--manifest", path)
        self.fails(2, "'x' is too much", "prebuild", "--manifest", path, "--arch", "sm_80", "x")
        for arch in ("sm_70", "gfx90a", "sm_80,,sm_90", ""):
            self.fails(2, "arch", "prebuild", "--manifest", path, "--arch", arch)
        for shard in ("0/2", "3/2", "1", "1/", "a/b", "1/0", "1/2x"):
            self.fails(2, "--shard", "prebuild", "--manifest", path, "--arch", "sm_80", "--shard", shard)
        self.ok("prebuild", "--manifest", path, "--arch", "sm_80")

    def test_manifests_that_are_wrong(self):
        cases = {
            "": "line 1",
            "[]": "an object is expected",
            '{"schema":1,"schema":1,"entries":[]}': "line 1",
            '{"schema":2,"entries":[]}': "'schema' is not 1",
            '{"schema":1}': "'entries' is not a list",
            '{"schema":1,"entries":[],"x":0}': "unknown key 'x'",
            manifest(1): "entries[0]: an object is expected",
            manifest({}): "entries[0]: 'problems' is not a list",
            manifest(entry(modd="x")): "entries[0]: unknown key 'modd'",
            manifest(entry(mod=3)): "'mod' is not a string",
            manifest(entry(mod="nowhere.py")): "nowhere.py",
            manifest(entry(score="score +")): "error",
            manifest(entry(score="score + t[h]")): "unknown name 't'",
            manifest(entry(score="score + t[h]", bind={"t": "F33[8]"})): "'bind': 't': there is no such dtype",
            manifest(entry(score="score + t[h]", bind={"t": "F32"})): "not of the form",
            manifest(entry(score="score", params={"a": [1]})): "'params': 'a' is not a number, a truth value or a string",
            manifest(entry(score="score", params={"a": None})): "'params': 'a' is not a number",
            manifest(entry({"form": []})): "entries[0].problems[0]: 'form' is an empty list",
            manifest(entry({"dtype": []})): "'dtype' is an empty list",
            manifest(entry({"few_queries": []})): "'few_queries' is an empty list",
            manifest(entry({"few_queries": 0})): "'few_queries' is neither true nor false",
            manifest(entry({"form": "packed", "shared_keys": True})): "entries[0].problems[0]: packed keys have no batch",
            manifest(entry({"form": "paged", "shared_keys": [False, True]})): "paged keys have no batch",
            manifest(entry({"gqaa": 1})): "entries[0].problems[0]: unknown key 'gqaa'",
            manifest(entry(shapes="1,1,1,1,1,1")): "'shapes' is not a list",
            manifest(entry(), entry(shapes=["1,1,1,1,1,1", 3])): "entries[1]: 'shapes'[1] is not a string",
            manifest(entry(shapes=["1,3,2,1,1,64"])): "'shapes'[0]: '1,3,2,1,1,64' has heads of q that are not a multiple",
            manifest(entry(shapes=["1,1"])): "'shapes'[0]: '1,1' is not of the form B,Hq",
            manifest(entry({"dtype": "F31"})): "entries[0].problems[0]: 'dtype' is not one of",
            manifest(entry({"dtype": "I32"})): "dtype I32 is not supported",
            manifest(entry({"head_dim": 0})): "'head_dim' is not an integer from 1 to 256",
            manifest(entry({"head_dim": "64"})): "'head_dim' is not an integer",
            manifest(entry({"gqa": [1, 0]})): "'gqa' is not an integer",
            manifest(entry({"direction": "up"})): "'direction' is neither",
            manifest(entry({"max": 1})): "'max' is neither true nor false",
            manifest({"problems": [{"dtype": "F16"}]}): "'head_dim' is missing",
            manifest(entry({"options": 64})): "'options' is not an object",
            manifest(entry({"options": {"tile": 1}})): "'options': unknown option 'tile': there are tile_q, ",
            manifest(entry({"options": {"tile_q": 1.5}})): "'options': 'tile_q' is not an integer",
            manifest(entry({"options": {"tile_q": 48}})): "option tile_q=48 is not legal",
            manifest(entry({"kernel": 1})): "'kernel' is not a string",
            manifest(entry({"kernel": "wgmma"})): "no wgmma kernels",
            manifest(entry({"kernel": "mma", "variant": "x"})): "a variant is given, and a kernel or options",
        }
        for text, part in cases.items():
            with self.subTest(text):
                self.fails(1, part, "prebuild", "--manifest", self.file("m.json", text), "--arch", "sm_80")
        self.fails(1, "No such file", "prebuild", "--manifest", self.folder / "none.json", "--arch", "sm_80")
        text = manifest(entry({"variant": "nonesuch"}))
        self.fails(2, "unknown variant 'nonesuch'", "prebuild", "--manifest", self.file("m.json", text), "--arch", "sm_80")

    def test_interrupt_keeps_what_is_done(self):
        text = manifest(entry({"dtype": ["F16", "BF16"], "head_dim": list(range(8, 129, 8)), "value_dim": list(range(8, 129, 8))}))
        layer = self.folder / "layer"
        process = self.start("prebuild", "--manifest", self.file("m.json", text), "--output", layer, "--arch", "sm_80",
                             "--json", env=FAKE)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(layer.glob("*.select"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, stdout + stderr)
        report = json.loads(stdout)
        rows = [row["cache"] for row in report["rows"]]
        self.assertEqual((rows.count("miss"), rows.count("waiting")), (report["compiled"], report["not_reached"]))
        self.assertGreater(report["not_reached"], 0)
        self.assertEqual(list(layer.glob(".new-*")), [])
        kept = len(list(layer.glob("*.kernel")))
        self.assertEqual(kept, report["compiled"])
        report = self.prebuild(text, "--arch", "sm_80")  # goes on from there
        self.assertEqual((report["found"], report["compiled"]), (kept, report["kernels"] - kept))
        self.assertGreaterEqual(kept, 3)


    def test_killed_and_run_again(self):
        """What is there stays as it is: no file of it is written again."""
        text = manifest(entry({"dtype": ["F16", "BF16"], "head_dim": list(range(8, 129, 8)), "value_dim": [8, 16, 24]}))
        layer = self.folder / "layer"
        process = self.start("prebuild", "--manifest", self.file("m.json", text), "--output", layer, "--arch", "sm_80", env=FAKE)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(layer.glob("*.select"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.communicate(timeout=60)
        kept = {path.name: path.stat().st_ino for path in layer.iterdir() if path.suffix in (".select", ".kernel")}
        kernels = sum(name.endswith(".kernel") for name in kept)
        report = self.prebuild(text, "--arch", "sm_80")
        self.assertEqual((report["found"], report["compiled"]), (kernels, report["kernels"] - kernels))
        self.assertGreater(report["compiled"], 0)
        self.assertEqual({name: (layer / name).stat().st_ino for name in kept}, kept)
        self.assertEqual(self.counts(text, "--arch", "sm_80", "--verify")[1], report["kernels"])


class Real(harness.Case):
    def test_a_kernel(self):
        doctor = json.loads(self.ok("doctor", "--json", env={"FLEXJIT_NVRTC": ""}).stdout)
        if not doctor["nvrtc"]["found"]:
            self.skipTest(doctor["nvrtc"]["error"])
        self.assertTrue(doctor["nvrtc"]["works"], doctor["nvrtc"])
        path = self.file("m.json", manifest(entry(score="score * 2", mask="q >= kv")))
        done = self.ok("prebuild", "--manifest", path, "--output", self.folder / "layer", "--arch", "sm_80", "--json")
        row = json.loads(done.stdout)["rows"][0]
        self.assertGreater(row["registers"], 0)
        self.assertEqual(row["spill_bytes"], 0)


class Run(harness.Case):
    """What `run` asks for is what was built: every problem of a manifest, without a compiler."""

    SHAPES = ({"l": 70, "hq": 2, "hkv": 2}, {"l": 66, "hq": 4, "hkv": 1}, {"l": 1, "hq": 4, "hkv": 1}, {"l": 1, "hq": 2, "hkv": 2})

    def run_all(self, problem, device, arch, env):
        keys = {"score": "score * 2.0 + slopes[h]", "mask": "q + 9 >= kv", "bind": {"slopes": "F32[8]"}}
        path, layer = self.file("m.json", manifest({"problems": [problem], **keys})), self.folder / device
        arguments = ("prebuild", "--manifest", path, "--arch", arch, "--output", layer)
        built = json.loads(self.ok(*arguments, "--json", env=env).stdout)
        self.ok(*arguments, "--verify", env={**env, "FLEXJIT_NVRTC": "/nowhere", "FLEXJIT_CC": "/nowhere"})
        used = set()
        for shape in self.SHAPES:
            backward = "bwd" in problem["direction"]
            tensors = harness.attention_tensors(problem["dtype"], s=75, e=problem["head_dim"], backward=backward, **shape)
            tensors["slopes"] = harness.normal("F32", (shape["hq"],), 5)
            done = self.ok("run", "--score", keys["score"], "--mask", keys["mask"], "--device", device, "--check", "--json",
                           "--input", self.file("in", harness.safetensors(tensors)), "--output", self.folder / "out",
                           *(["--backward"] if backward else []),
                           env={**env, "FLEXJIT_CACHE_PATH": f"{self.folder / 'own'}:{layer}", "FLEXJIT_NO_JIT": "1",
                                "FLEXJIT_NVRTC": "/nowhere", "FLEXJIT_CC": "/nowhere"})  # fmt: skip
            report = json.loads(done.stdout)
            for part in [report] + ([report["backward"]] if backward else []):
                self.assertEqual(part["cache"], "hit")
                used.add(part["variant"])
        self.assertEqual(used, {row["variant"] for row in built["rows"]})
        return used

    def test_cpu(self):
        plan = self.ok("show", "--score", "score", "--device", "cpu", "--stage", "plan", "--dtype", "F32").stdout
        isa = next(line.split("_")[-1] for line in plan.splitlines() if line.startswith("variant"))
        used = self.run_all({"dtype": "F32", "head_dim": 16, "direction": ["fwd", "bwd"]}, "cpu", isa, {})
        self.assertGreaterEqual(len(used), 2)

    def test_cuda(self):
        fake = {**FAKE, "FLEXJIT_LIBCUDA": os.environ.get("FJ_FAKE_CUDA", ""), "FAKE_NVRTC": "emulate=1"}
        used = self.run_all({"dtype": "BF16", "head_dim": 16, "direction": ["fwd"]}, "cuda", "sm_90", fake)
        self.assertEqual(sorted("_pack" in name for name in used), [False, True])


class Missing(harness.Case):
    """Devices that are not there: one sentence, status 3."""

    def test_no_driver(self):
        arguments = ("run", "--device", "cuda", "--score", "score", "--input", self.tensors(), "--output", self.folder / "o")
        self.fails(3, "no NVIDIA driver", *arguments, env={"FLEXJIT_LIBCUDA": "/nowhere"})
        fake = {"FLEXJIT_LIBCUDA": os.environ.get("FJ_FAKE_CUDA", "")}
        self.fails(3, "is the CUDA toolkit's stub", *arguments, env={**fake, "FAKE_CUDA": "init=34"})
        self.fails(3, "finds no GPU", *arguments, env={**fake, "FAKE_CUDA": "devices=0"})
        self.fails(3, "is too old: it is sm_61, and sm_75 is needed", *arguments, env={**fake, "FAKE_CUDA": "arch=61"})

    def broken(self, env):
        """What doctor says of something that is there and does not work."""
        done = self.flexjit("doctor", "--json", env=env)
        self.assertEqual(done.returncode, 1, done.stdout)
        report = json.loads(done.stdout)
        self.assertFalse(report["works"])
        return report

    def test_doctor(self):
        fake = {"FLEXJIT_LIBCUDA": os.environ.get("FJ_FAKE_CUDA", ""), **FAKE, "FAKE_CUDA": "devices=2 arch=61"}
        report = json.loads(self.ok("doctor", "--json", env=fake).stdout)
        self.assertEqual([gpu["usable"] for gpu in report["driver"]["gpus"]], [False, False])
        self.assertEqual(report["nvrtc"]["version"], "13.0")
        self.assertTrue(report["works"])
        report = self.broken({**fake, "FAKE_NVRTC": "result=7"})
        self.assertFalse(report["nvrtc"]["works"])
        self.assertIn("libnvrtc-builtins", report["nvrtc"]["error"])
        report = self.broken({**fake, "FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_OTHER_NVRTC", "")})
        self.assertIn("it has no nvrtc", report["nvrtc"]["error"])
        text = self.file("libnvrtc.so.12", "no library")
        report = self.broken({**fake, "FLEXJIT_NVRTC": str(text)})
        self.assertIn("file too short", report["nvrtc"]["error"])
        report = self.broken({**fake, "FLEXJIT_LIBCUDA": str(text)})
        self.assertIn("file too short", report["driver"]["error"])
        self.broken({**fake, "FAKE_CUDA": "init=34"})
        self.assertTrue(json.loads(self.ok("doctor", "--json", env={**fake, "FAKE_CUDA": "devices=0"}).stdout)["works"])
        script = self.file("cc", "#!/bin/sh\n[ \"$1\" = --version ] && exec cc --version\nexit 1\n")
        script.chmod(0o700)
        used = [row for row in self.broken({**fake, "FLEXJIT_CC": str(script)})["compilers"] if row["used"]]
        self.assertEqual([row["works"] for row in used], [False, True])
        self.assertIn("failed with status 1", used[0]["error"])
        nowhere = {"FLEXJIT_LIBCUDA": "/nowhere", "FLEXJIT_NVRTC": "/nowhere"}
        report = json.loads(self.ok("doctor", "--json", env=nowhere).stdout)
        self.assertFalse(report["nvrtc"]["found"] or report["driver"]["found"])
        self.assertIn("error", self.ok("doctor", env=nowhere).stdout)

    def test_show(self):
        for stage in ("prologue", "source", "plan", "key"):
            text = self.ok("show", "--score", "score * 2", "--dtype", "F16", "--device", "cuda", "--arch", "sm_80",
                           "--stage", stage).stdout
            self.assertIn("fwd_mma_f16_e64_v64", text)
        self.fails(2, "is not a GPU architecture", "show", "--score", "score", "--device", "cuda", "--arch", "sm_1",
                   "--stage", "plan")


if __name__ == "__main__":
    harness.main()
