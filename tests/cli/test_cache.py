"""`flexjit cache`, and what the cache does to kernels that are damaged, fought over, or cannot be kept. CUDA kernels are
compiled by a fake NVRTC, those of the cpu device by the host's compiler."""

import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import time

import harness

FAKE = {"FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_NVRTC", "")}
HEX = "0123456789abcdef"


class CacheCase(harness.Case):
    def setUp(self):
        super().setUp()
        self.layer = self.folder / "layer"
        self.env = {**FAKE, "FLEXJIT_CACHE_PATH": str(self.layer)}

    def manifest(self, *entries):
        return self.file("m.json", json.dumps({"schema": 1, "entries": list(entries)}))

    def entry(self, head_dim=64, **keys):
        return {"problems": [{"dtype": "BF16", "head_dim": head_dim, "few_queries": False}], **keys}

    def prebuild(self, *entries, arch="sm_80", **options):
        options["env"] = {**self.env, **options.get("env", {})}
        return self.flexjit("prebuild", "--manifest", self.manifest(*entries), "--arch", arch, "--json", **options)

    def built(self, *entries, **options):
        done = self.prebuild(*entries, **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def cache(self, *arguments, env=None):
        return self.ok("cache", *arguments, env={**self.env, **(env or {})}).stdout

    def report(self, *arguments, env=None):
        return json.loads(self.cache(*arguments, "--json", env=env))

    def refused(self, status, text, *arguments, env=None):
        return self.fails(status, text, "cache", *arguments, env={**self.env, **(env or {})})

    def kernels(self, layer=None):
        return sorted((layer or self.layer).glob("*.kernel"))

    def assert_whole(self, layer=None):
        """Nothing half-written, and everything sound."""
        self.assertEqual([path.name for path in (layer or self.layer).glob(".new-*")], [])
        self.cache("verify", env={"FLEXJIT_CACHE_PATH": str(layer or self.layer)})


class Reports(CacheCase):
    def setUp(self):
        super().setUp()
        self.built(self.entry(), self.entry(128, score="score * 2"), arch="sm_80,sm_90")

    def test_list(self):
        rows = self.report("list")["kernels"]
        self.assertEqual(len(rows), 4)
        self.assertEqual({(row["arch"], row["device"], row["layer"], row["hidden"]) for row in rows},
                         {("sm_80", "cuda", 0, False), ("sm_90", "cuda", 0, False)})
        for row in rows:
            self.assertEqual(row["bytes"], (self.layer / f"{row['key']}.kernel").stat().st_size)
            self.assertLess(abs(row["used"] - time.time()), 300)
        text = self.cache("list")
        self.assertEqual(len(text.splitlines()), 6)
        self.assertIn("4 kernels", text)
        self.assertEqual(len(self.report("list", "--arch", "sm_90")["kernels"]), 2)
        self.assertEqual(len(self.report("list", "--filter", "*_e128_*")["kernels"]), 2)
        self.assertEqual(len(self.report("list", "--filter", "fwd_*_e128_*_w?", "--arch", "sm_80")["kernels"]), 1)
        self.assertEqual(self.report("list", "--filter", "e128")["kernels"], [])
        self.assertIn("0 kernels", self.cache("list", env={"FLEXJIT_CACHE_PATH": "/nowhere"}))
        self.assertEqual(self.report("list", "--filter", "*a" * 40)["kernels"], [])

    def test_last_used_first(self):
        old = self.kernels()[0]
        os.utime(old, (1e9, 1e9))
        lines = self.cache("list").splitlines()
        self.assertTrue(lines[-2].startswith(old.name[:12]))

    def test_show(self):
        row = self.report("list", "--filter", "*_e128_*", "--arch", "sm_90")["kernels"][0]
        for name in (row["key"], row["key"][:8]):
            shown = self.report("show", name)
            self.assertEqual((shown["key"], shown["kind"], shown["arch"]), (row["key"], "kernel", "sm_90"))
        parts = shown["parts"]
        self.assertEqual((parts["direction"], parts["dtype"], parts["head_dim"]), ("forward", "BF16", "128"))
        self.assertIn("mul.float", parts["mod"])
        self.assertIn("--gpu-architecture=sm_90", parts["options"])
        self.assertEqual((parts["compiler"], parts["compiler_version"]), ("NVRTC", "13.0"))
        self.assertGreater(shown["metadata"]["launches"][0]["shared"], 0)
        record = self.report("show", shown["request"])
        self.assertEqual((record["kind"], record["kernel"]), ("request", row["key"]))
        text = self.cache("show", row["key"])
        for word in ("head_dim", "compiler_version", "payload_digest", "shared memory"):
            self.assertIn(word, text)
        self.assertEqual(self.report("show", row["variant"], "--arch", "sm_90")["key"], row["key"])

    def test_show_what_is_not_clear(self):
        row = self.report("list", "--filter", "*_e64_*")["kernels"][0]
        done = self.refused(1, "is ambiguous: 2 entries", "show", row["variant"])
        self.assertEqual(done.stderr.count(str(self.layer)), 2)
        self.refused(1, "the cache has no entry 'nonesuch'", "show", "nonesuch")
        self.refused(1, "the cache has no entry ''", "show", "")
        path = self.layer / f"{row['key']}.kernel"
        path.write_bytes(path.read_bytes()[:-1])
        self.refused(1, "has another length than it says", "show", row["key"])

    def test_explain(self):
        a, b = (self.report("list", "--filter", f"*_e{dim}_*", "--arch", "sm_80")["kernels"][0]["key"] for dim in (64, 128))
        report = self.report("explain", a, b)
        differing = {part["part"] for part in report["parts"] if not part["same"]}
        self.assertLessEqual({"kernel", "head_dim", "value_dim", "mod", "source"}, differing)
        self.assertNotIn("compiler", differing)
        self.assertIn("head_dim", report["why"])
        text = self.cache("explain", a, b)
        self.assertIn("  a  64\n  b  128\n", text)
        self.assertIn("it is one entry", self.cache("explain", a, a[:10]))
        other = self.report("list", "--filter", "*_e64_*", "--arch", "sm_90")["kernels"][0]["key"]
        self.assertIn("they differ in arch, options, source", self.cache("explain", a, other))

    def test_explain_another_text_or_compiler(self):
        templates = self.folder / "templates"
        shutil.copytree(harness.pathlib.Path(__file__).parents[2] / "templates", templates)
        before = {path.stem for path in self.kernels()}
        (templates / "cuda/fwd_mma.cu").write_text("// another\n" + (templates / "cuda/fwd_mma.cu").read_text())
        self.built(self.entry(), env={"FLEXJIT_TEMPLATE_PATH": str(templates)})
        (fresh,) = {path.stem for path in self.kernels()} - before
        old = self.report("list", "--filter", "*_e64_*", "--arch", "sm_80")["kernels"]
        (old,) = [row["key"] for row in old if row["key"] != fresh]
        # The record of the request names the newer one now: of the older only the kernel itself is known.
        report = self.report("explain", old, fresh)
        self.assertFalse([part for part in report["parts"] if part["part"] == "source"][0]["same"])
        self.built(self.entry(), env={"FAKE_NVRTC": "major=12 minor=9", "FLEXJIT_CACHE_PATH": str(self.folder / "other")})
        env = {"FLEXJIT_CACHE_PATH": f"{self.layer}:{self.folder / 'other'}"}
        (newer,) = [path.stem for path in self.kernels(self.folder / "other")]
        differing = [part["part"] for part in self.report("explain", old, newer, env=env)["parts"] if not part["same"]]
        self.assertIn("compiler_version", differing)

    def test_verify(self):
        report = self.report("verify")
        self.assertEqual((report["kernels"], report["records"], report["damaged"], report["dangling"]), (4, 4, [], 0))
        self.assertIn("all sound", self.cache("verify"))
        one, two = self.kernels()[:2]
        data = bytearray(one.read_bytes())
        data[-1] ^= 1
        one.write_bytes(data)
        two.unlink()
        done = self.refused(1, f"{one}: it is damaged: its digest is wrong", "verify")
        self.assertIn("1 damaged; the kernels of 2 records are gone", done.stdout)
        done = self.flexjit("cache", "verify", "--json", env=self.env)
        self.assertEqual([row["file"] for row in json.loads(done.stdout)["damaged"]], [str(one)])
        self.assertIn("1 file of the cache cannot be used", self.flexjit("cache", "list", env=self.env).stderr)

    def test_verify_reads_every_layer(self):
        env = {"FLEXJIT_CACHE_PATH": f"{self.folder / 'first'}:{self.layer}"}
        self.assertEqual(self.report("verify", env=env)["kernels"], 4)
        os.chmod(self.layer, 0o777)
        self.refused(1, "cannot be read or is not trusted", "verify", env=env)

    def test_what_two_layers_have(self):
        """The first sound one counts."""
        copy = self.folder / "copy"
        shutil.copytree(self.layer, copy)
        os.chmod(copy, 0o700)
        env = {"FLEXJIT_CACHE_PATH": f"{copy}:{self.layer}"}
        rows = self.report("list", env=env)["kernels"]
        self.assertEqual(sorted((row["layer"], row["hidden"]) for row in rows), [(0, False)] * 4 + [(1, True)] * 4)
        self.assertEqual(self.cache("list", env=env).count("hidden by an earlier layer"), 4)
        self.assertEqual(self.report("export", self.folder / "x.tar", env=env)["kernels"], 4)
        path = copy / self.kernels()[0].name
        self.assertEqual(self.report("show", path.stem, env=env)["file"], str(path))
        path.write_bytes(b"damaged")
        self.assertEqual(self.report("show", path.stem, env=env)["file"], str(self.kernels()[0]))
        self.assertEqual(sum(row["hidden"] for row in self.report("list", env=env)["kernels"]), 3)
        self.assertEqual(self.report("export", self.folder / "x.tar", env=env)["kernels"], 4)

    def test_an_entry_under_another_name(self):
        """Its digest is right."""
        one, two = self.kernels()[:2]
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        self.refused(1, "has another key than its name", "verify")
        one.write_bytes(first)
        self.cache("verify")

    def test_gc(self):
        entries = sorted(self.layer.iterdir())
        self.assertEqual(self.report("gc")["removed"], [])
        for age, path in enumerate(entries):
            os.utime(path, (time.time() - 1000 * (age + 1),) * 2)
        report = self.report("gc", "--size", "2K", "--dry-run")
        self.assertTrue(report["dry_run"] and report["removed"])
        self.assertEqual(sorted(self.layer.iterdir()), entries)
        self.assertIn("would remove", self.cache("gc", "--age", "1h", "--dry-run"))
        self.assertEqual([row["file"] for row in self.report("gc", "--age", "1h")["removed"]],
                         [path.name for path in reversed(entries[3:])])
        stray = self.file("layer/.new-1-2-3", "x")
        os.utime(stray, (1e9, 1e9))
        fresh = self.file("layer/.new-4-5-6", "x")
        entries[0].write_bytes(b"damaged")
        report = self.report("gc")
        self.assertEqual(([row["damaged"] for row in report["removed"]], report["temporaries"]), ([True], 1))
        self.assertTrue(fresh.exists() and not stray.exists())
        self.cache("gc", "--size", "0")
        self.assertEqual([path.name for path in self.layer.iterdir()], [fresh.name])
        self.assertIn("removed 0 of 0", self.cache("gc", env={"FLEXJIT_CACHE_PATH": "/nowhere"}))

    def test_path(self):
        env = {"FLEXJIT_CACHE_PATH": f"{self.folder / 'first'}:{self.layer}:/nowhere"}
        layers = self.report("path", env=env)["layers"]
        self.assertEqual([(layer["exists"], layer["written"], layer["entries"]) for layer in layers],
                         [(False, True, 0), (True, False, 8), (False, False, 0)])
        text = self.cache("path", env=env)
        self.assertIn("not there yet", text)
        self.assertIn(f"1  {self.layer}  only read, 8 entries", text)
        self.assertIn("of 16.0 KiB", self.cache("path", env={"FLEXJIT_CACHE_SIZE": "16K"}))

    def test_usage(self):
        self.refused(2, "an action is missing")
        self.refused(2, "unknown action 'lst'", "lst")
        self.refused(2, "KEY or VARIANT is missing", "show")
        self.refused(2, "KEY is missing", "explain", "a")
        self.refused(2, "FILE is missing", "export")
        self.refused(2, "'x' is too much", "list", "x")
        self.refused(2, "has no option '--size'", "list", "--size", "1M")
        self.refused(2, "has no option '--filter'", "import", "x", "--filter", "x")
        for size in ("", "x", "-1", "1T", "1MB", "99999999999G", " 1"):
            self.refused(2, "a size such as 500M", "gc", f"--size={size}")
        for age in ("", "d", "-1d", "1y", "99999999999999999999s", "9999999999999999d"):
            self.refused(2, "an age such as 30d", "gc", f"--age={age}")


class Archives(CacheCase):
    def setUp(self):
        super().setUp()
        self.built(self.entry(), self.entry(128), arch="sm_80,sm_90")
        self.archive = self.folder / "kernels.tar"
        self.other = {"FLEXJIT_CACHE_PATH": str(self.folder / "other")}

    def test_there_and_back(self):
        report = self.report("export", self.archive, "--arch", "sm_90")
        self.assertEqual((report["kernels"], report["records"], report["bytes"]), (2, 2, self.archive.stat().st_size))
        self.assertIn("2 kernels and 2 records, ", self.cache("import", self.archive, env=self.other))
        self.assertEqual(self.report("import", self.archive, env=self.other)["written"], 0)
        self.assert_whole(self.folder / "other")
        entries = (self.entry(), self.entry(128))
        env = {**self.other, "FLEXJIT_NVRTC": "/nowhere", "FLEXJIT_NO_JIT": "1"}
        self.assertEqual(self.built(*entries, arch="sm_90", env=env)["found"], 2)
        self.assertEqual(self.prebuild(*entries, arch="sm_80", env=env).returncode, 1)

    def test_others_can_take_it_apart(self):
        self.cache("export", self.archive)
        with tarfile.open(self.archive) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
            self.assertTrue(all(member.isreg() for member in tar))
        key = self.kernels()[0].stem
        parts = [members[f"{key}.kernel.{part}"] for part in ("header", "json", "payload")]
        self.assertEqual(b"".join(parts), self.kernels()[0].read_bytes())
        self.assertTrue(parts[2].startswith(b"\x7fELF"))
        self.assertIn("variant", json.loads(parts[1]))

    def test_what_others_put_together(self):
        """An archive of the same members that tar wrote, in any order of entries."""
        self.cache("export", self.archive)
        with tarfile.open(self.archive) as tar:
            members = [(member.name, tar.extractfile(member).read()) for member in tar]
        members.sort(key=lambda member: (member[0].split(".")[0][::-1], member[0].split(".")[1]))
        self.write_tar(members)
        self.assertEqual(self.report("import", self.archive, env=self.other)["written"], 8)
        self.assert_whole(self.folder / "other")

    def write_tar(self, members, **fields):
        with tarfile.open(self.archive, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                for field, value in fields.items():
                    setattr(info, field, value)
                tar.addfile(info, io.BytesIO(data))

    def refused_import(self, text):
        done = self.refused(1, text, "import", self.archive, env=self.other)
        self.assertIn(f"{self.archive}: ", done.stderr)
        self.assertEqual(done.stderr.count("error:"), 1)
        self.assertFalse((self.folder / "other").exists())

    def test_archives_that_are_wrong(self):
        self.refused_import("No such file")
        header = f"{'0' * 32}.kernel.header"
        for name in (f"../{header}", f"/tmp/{header}", f"./{header}", "README", header + "x"):
            self.write_tar([(name, b"x" * 64)])
            self.refused_import("is not part of an entry of a cache")
        self.write_tar([(header, b"")], type=tarfile.SYMTYPE, linkname="/etc/passwd")
        self.refused_import("is a link")
        self.write_tar([(header, b"")], type=tarfile.LNKTYPE, linkname=header)
        self.refused_import("is a link")
        self.write_tar([(header, b"x" * 64)])
        self.refused_import("is not an entry of a cache")
        self.cache("export", self.archive)
        whole = self.archive.read_bytes()
        for cut in (0, 1, 511, 512, 600, 1024, 3000, len(whole) - 1024, len(whole) - 1):
            self.archive.write_bytes(whole[:cut])
            self.refused_import("cut short")
        at = whole.index(b"\x7fELF")
        self.archive.write_bytes(whole[:at] + b"\x7eELF" + whole[at + 4 :])
        self.refused_import("is damaged: its digest is wrong")
        self.archive.write_bytes(whole + b"x" * 512)
        self.refused_import("after the archive's end")
        self.archive.write_bytes(os.urandom(4096))
        self.refused_import("is not a member of a ustar archive")

    def test_more_than_the_cache_may_have(self):
        env = {**self.other, "FLEXJIT_CACHE_SIZE": "2K"}
        self.cache("export", self.archive)
        self.refused(1, "more than the cache's limit of 2048 (FLEXJIT_CACHE_SIZE)", "import", self.archive, env=env)

    def test_nothing_to_export(self):
        self.refused(1, "the cache has no such kernel", "export", self.archive, "--filter", "nonesuch")
        self.refused(1, "No such file", "export", self.folder / "nowhere/x.tar")
        self.assertEqual(list(self.folder.glob("kernels*")), [])

    def test_a_full_disk(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        done = self.flexjit("cache", "export", self.archive, env=self.env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{self.archive}: cannot be written: File too large", done.stderr)
        self.assertEqual(list(self.folder.glob("kernels*")), [])

    def test_cuobjdump(self):
        """Of the real compiler's kernels, where it and the tool are there."""
        doctor = json.loads(self.ok("doctor", "--json", env={"FLEXJIT_NVRTC": ""}).stdout)
        tool = shutil.which("cuobjdump") or shutil.which("cuobjdump", path="/usr/local/cuda/bin")
        if not doctor["nvrtc"]["found"] or tool is None:
            self.skipTest("no NVRTC or no cuobjdump")
        env = {"FLEXJIT_NVRTC": "", "FLEXJIT_CACHE_PATH": str(self.folder / "real")}
        self.built(self.entry(), env=env)
        self.cache("export", self.archive, env=env)
        with tarfile.open(self.archive) as tar:
            (member,) = [member for member in tar if member.name.endswith(".payload")]
            self.file("x.cubin", tar.extractfile(member).read())
        done = subprocess.run([tool, "-res-usage", self.folder / "x.cubin"], capture_output=True, text=True, check=True)
        self.assertIn("REG:", done.stdout)


class Kernels(CacheCase):
    """A cached kernel of each kind: made, found, and made again."""

    SPOTS = {"magic": 0, "schema": 8, "kind": 12, "key": 16, "metadata's length": 32, "payload's length": 40, "digest": 48,
             "metadata": 70, "payload": -1}

    def setUp(self):
        super().setUp()
        self.input = self.tensors()

    def cubin(self, **options):
        """Whether it was there, and what was said."""
        done = self.prebuild(self.entry(score="score * 2"), **options)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)["rows"][0]["cache"], done.stderr

    def cpu(self, env=None, **options):
        done = self.ok("run", "--score", "score * 2", "--input", self.input, "--output", self.folder / "out", "--device",
                       "cpu", "--check", "--json", env={**self.env, **(env or {})}, **options)
        return json.loads(done.stdout)["cache"], done.stderr

    def check_miss(self, make, why, of=""):
        found, said = make()
        self.assertEqual(found, "miss", f"{of}: {said}")
        self.assertIn("is not used: it " + why, said)
        self.assertEqual(make()[0], "hit")
        self.assertEqual(list(self.layer.glob(".new-*")), [])

    def check_damage(self, make, spots):
        self.assertEqual(make()[0], "miss")
        (path,) = self.kernels()
        whole = path.read_bytes()
        for spot in spots:
            data = bytearray(whole)
            data[self.SPOTS[spot]] ^= 1
            path.write_bytes(data)
            self.check_miss(make, "", spot)
        path.write_bytes(whole[: len(whole) // 2])
        self.check_miss(make, "has another length than it says")
        path.write_bytes(b"")
        self.check_miss(make, "is cut short")
        (record,) = self.layer.glob("*.select")
        record.write_bytes(record.read_bytes()[:-1])
        found, said = make()
        self.assertIn("is not used", said)
        self.assertEqual(make()[0], "hit")

    def test_damaged_cubins_are_compiled_again(self):
        self.check_damage(self.cubin, self.SPOTS)

    def test_damaged_objects_are_compiled_again(self):
        self.check_damage(self.cpu, ["magic", "digest", "metadata", "payload"])

    def check_strangers(self, make):
        make()
        (path,) = self.kernels()
        os.chmod(path, 0o622)
        self.check_miss(make, "is owned by others, or others may write to it")
        elsewhere = self.folder / "elsewhere"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        self.check_miss(make, "is a link")
        self.assertFalse(path.is_symlink())
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
            self.check_miss(make, "is owned by others")

    def test_cubins_of_strangers(self):
        self.check_strangers(self.cubin)

    def test_objects_of_strangers(self):
        self.check_strangers(self.cpu)

    def test_a_folder_in_place_of_a_kernel(self):
        """It cannot be replaced: run works without it, prebuild says so."""
        self.cpu()
        (path,) = self.kernels()
        path.unlink()
        path.mkdir()
        found, said = self.cpu()
        self.assertEqual(found, "miss")
        self.assertIn("is not used: it is not a regular file", said)
        self.assertIn("cannot be written", said)

    def race(self, start):
        """Both at once, several times: both succeed, one content, nothing left over."""
        for _ in range(3):
            shutil.rmtree(self.layer, ignore_errors=True)
            both = [start(number) for number in range(2)]
            for process in both:
                stdout, stderr = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0, stdout + stderr)
                self.assertNotIn("warn", stderr)
            self.assert_whole()
            yield

    def test_two_processes_race_for_a_cubin(self):
        path = self.manifest(self.entry(list(range(8, 129, 8)), score="score * 2"))
        start = lambda _: self.start("prebuild", "--manifest", path, "--arch", "sm_80", env=self.env)
        for _ in self.race(start):
            self.assertEqual(len(self.kernels()), 16)

    def test_two_processes_race_for_an_object(self):
        start = lambda number: self.start("run", "--score", "score * 2", "--input", self.input, "--output",
                                          self.folder / f"out{number}", "--device", "cpu", "--check", env=self.env)
        for _ in self.race(start):
            self.assertEqual(len(self.kernels()), 1)
            self.assertEqual((self.folder / "out0").read_bytes(), (self.folder / "out1").read_bytes())

    def test_no_jit(self):
        no_jit = {**self.env, "FLEXJIT_NO_JIT": "1"}
        run = ("run", "--score", "score * 2", "--input", self.input, "--output", self.folder / "out", "--device", "cpu")
        done = self.fails(1, "FLEXJIT_NO_JIT is set and the cache has no kernel fwd_cpu_f32", *run, env=no_jit)
        self.assertIn("\n  note: `flexjit prebuild` makes it", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 2)
        self.assertFalse((self.folder / "out").exists())
        self.cpu()
        self.ok(*run, env=no_jit)

    def test_layers(self):
        """What a later layer has is found there and not copied."""
        first = self.folder / "first"
        below = {"FLEXJIT_CACHE_PATH": f"{first}:{self.layer}", "FLEXJIT_NO_JIT": "1", "FLEXJIT_NVRTC": "/nowhere",
                 "FLEXJIT_CC": "/nowhere"}
        self.cubin()
        self.cpu()
        files = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in self.layer.iterdir()}
        self.assertEqual(self.cubin(env=below)[0], "hit")
        self.assertEqual(self.cpu(env=below)[0], "hit")
        self.assertFalse(first.exists())
        self.assertEqual({path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in self.layer.iterdir()}, files)

    # A folder that cannot be written, a disk that is full: by a mount where that is allowed, else by a limit.

    def mount(self, *arguments):
        if os.geteuid() != 0 or subprocess.run(["mount", *arguments, self.layer], capture_output=True, check=False).returncode:
            self.skipTest("nothing can be mounted here")
        self.addCleanup(subprocess.run, ["umount", self.layer], check=True)

    def test_a_layer_that_is_only_read(self):
        self.cubin()
        self.cpu()
        if os.geteuid() == 0:
            self.mount("--bind", self.layer)
            subprocess.run(["mount", "-o", "remount,bind,ro", self.layer], check=True)
        else:
            os.chmod(self.layer, 0o500)
            self.addCleanup(os.chmod, self.layer, 0o700)
        self.assertEqual(self.cubin(), ("hit", ""))
        self.assertEqual(self.cpu(), ("hit", ""))
        done = self.ok("run", "--score", "score * 3", "--input", self.input, "--output", self.folder / "out", "--device",
                       "cpu", "--check", env=self.env)
        self.assertEqual(done.stderr.count("cannot be written"), 1)
        self.assertIn("warn: ", done.stderr)
        done = self.prebuild(self.entry(list(range(8, 129, 8)), score="score * 3"))
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("error:"), 1)
        self.assertIn("cannot be written", json.loads(done.stdout)["error"]["text"])
        self.assertGreater(json.loads(done.stdout)["not_reached"], 0)
        self.refused(1, "cannot be removed", "gc", "--size", "0")

    def test_a_disk_that_is_full(self):
        self.layer.mkdir(0o700)
        self.mount("-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs")
        entries = self.entry(list(range(8, 257, 8)), score="score * 2")
        done = self.prebuild(entries)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No space left on device", done.stderr)
        self.assertEqual(done.stderr.count("error:"), 1)
        self.assertGreater(report["compiled"], 0)
        self.assert_whole()
        rows = {row["variant"]: row["cache"] for row in report["rows"]}
        again = json.loads(self.prebuild(entries, env={"FLEXJIT_NO_JIT": "1"}).stdout)
        kept = {row["variant"] for row in again["rows"] if row["cache"] == "hit"}
        self.assertLessEqual({variant for variant, cache in rows.items() if cache == "miss"}, kept)
        found, said = self.cpu()
        self.assertEqual(found, "miss")
        self.assertIn("No space left on device", said)
        self.assert_whole()

    def test_files_that_may_not_grow(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        done = self.prebuild(self.entry(score="score * 2"), preexec_fn=limit)
        self.assertEqual(done.returncode, 1)
        self.assertIn("File too large", done.stderr)
        self.assertFalse(self.layer.exists() and list(self.layer.iterdir()))
        self.assertEqual(self.cubin()[0], "miss")
        self.assert_whole()


if __name__ == "__main__":
    harness.main()
