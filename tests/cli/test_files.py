"""Input files that are damaged, and outputs that cannot be written."""

import json
import os
import resource
import signal
import stat
import struct
import time

import harness


class BadInput(harness.Case):
    def rejects(self, content, text, *more):
        path = self.file("bad.safetensors", content)
        out = self.folder / "out.safetensors"
        self.fails(1, text, "run", "--input", path, "--output", out, "--device", "reference", *more)
        self.assertFalse(out.exists())

    def entry(self, dtype="F32", shape=(1,), offsets=(0, 4)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}

    def test_header(self):
        self.rejects(b"", "0 bytes")
        self.rejects(b"1234567", "7 bytes")
        self.rejects(struct.pack("<Q", 100_000_001) + b"{}", "a header of 100000001 bytes")
        self.rejects(struct.pack("<Q", 2**64 - 1) + b"{}", "a header of")
        self.rejects(struct.pack("<Q", 9) + b"{}", "cut short")
        self.rejects(harness.header_bytes(b""), "not a JSON object")
        self.rejects(harness.header_bytes(b"[]"), "not a JSON object")
        self.rejects(harness.header_bytes(b'{"a"'), "not valid")
        self.rejects(harness.header_bytes(b'{"\xff": 1}'), "not valid")
        self.rejects(harness.header_bytes(b"{" * 100000), "not valid")

    def test_duplicate_key(self):
        one = json.dumps(self.entry()).encode()
        self.rejects(harness.header_bytes(b'{"a":' + one + b',"a":' + one + b"}") + bytes(4), "duplicate")

    def test_metadata(self):
        self.rejects(harness.header_bytes({"__metadata__": 3}), "__metadata__")
        self.rejects(harness.header_bytes({"__metadata__": {"a": 3}}), "__metadata__")

    def test_what_nothing_uses(self):
        """Tensors of dtypes that nothing computes with, and metadata of null, do not refuse a file."""
        path = self.folder / "more.safetensors"
        raw = harness.safetensors(harness.attention_tensors())
        size = int.from_bytes(raw[:8], "little")
        header, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
        header["__metadata__"] = None
        for dtype, width in (("F8_E4M3FNUZ", 1), ("F8_E5M2FNUZ", 1), ("F8_E8M0", 1), ("C64", 8)):
            header[dtype] = {"dtype": dtype, "shape": [3], "data_offsets": [len(data), len(data) + 3 * width]}
            data += bytes(3 * width)
        path.write_bytes(harness.header_bytes(header) + data)
        done = self.ok("run", "--input", path, "--output", self.folder / "o", "--device", "reference")
        self.assertIn("nothing uses tensor 'C64'", done.stderr)

    def test_entries(self):
        for entry, text in [
            (3, "is not an object"),
            ({"dtype": "F32", "shape": [1]}, "data_offsets"),
            ({"shape": [1], "data_offsets": [0, 4]}, "no dtype"),
            (self.entry(dtype="F33"), "unknown dtype 'F33'"),
            ({**self.entry(), "shape": 1}, "no shape"),
            (self.entry(shape=[-1]), "dimension 0"),
            (self.entry(shape=[1.0]), "dimension 0"),
            (self.entry(shape=[2]), "4 bytes of data"),
            (self.entry(shape=[2**62, 2**62]), "overflows"),
            (self.entry(shape=[2**62]), "overflows"),
            (self.entry(offsets=[4, 0]), "is not within"),
            (self.entry(offsets=[0, 8]), "is not within"),
            (self.entry(offsets=[-4, 0]), "is not within"),
            (self.entry(offsets=[0]), "data_offsets"),
            ({**self.entry(), "more": 1}, "keys besides"),
        ]:
            with self.subTest(entry):
                self.rejects(harness.header_bytes({"weird": entry}) + bytes(4), text)
                self.rejects(harness.header_bytes({"weird": entry}) + bytes(4), "'weird'")

    def test_holes_and_overlaps(self):
        def two(a, b, size):
            return harness.header_bytes({"a": self.entry(offsets=a), "b": self.entry(offsets=b)}) + bytes(size)

        self.rejects(two([0, 4], [8, 12], 12), "hole of 4 bytes before tensor 'b'")
        self.rejects(two([4, 8], [8, 12], 12), "hole of 4 bytes before tensor 'a'")
        self.rejects(two([0, 4], [2, 6], 6), "overlaps")
        self.rejects(two([0, 4], [0, 4], 4), "overlaps")
        self.rejects(two([0, 4], [4, 8], 9), "1 bytes after the last tensor 'b'")

    def test_no_file(self):
        out = self.folder / "out"
        self.fails(1, "No such file", "run", "--input", self.folder / "none", "--output", out)
        self.fails(1, "not a regular file", "run", "--input", self.folder, "--output", out)
        self.fails(1, "not a regular file", "run", "--input", "/dev/zero", "--output", out)

    def test_tensors_of_attention(self):
        good = harness.attention_tensors(backward=True)

        def change(**tensors):
            merged = {**good, **tensors}
            return harness.safetensors({name: value for name, value in merged.items() if value is not None})

        normal = harness.normal
        self.rejects(change(k=None), "tensor 'k' [B,Hkv,S,E] is missing")
        self.rejects(change(q=normal("F32", (2, 5, 8), 1)), "tensor 'q' is [2,5,8], not [B,Hq,L,E]")
        self.rejects(change(k=normal("F16", (1, 1, 7, 8), 1)), "tensor 'k' is F16, but must be F32")
        self.rejects(change(k=normal("F32", (1, 1, 7, 9), 1)), "tensor 'k' is [1,1,7,9], but must be [1,1,7,8]")
        self.rejects(change(k=normal("F32", (2, 1, 7, 8), 1)), "tensor 'k'")
        self.rejects(change(v=normal("F32", (1, 1, 6, 8), 1)), "tensor 'v'")
        self.rejects(change(q=normal("F32", (1, 3, 5, 8), 1), k=normal("F32", (1, 2, 7, 8), 1),
                            v=normal("F32", (1, 2, 7, 8), 1)), "not a multiple")
        self.rejects(change(q=("I32", [1, 2, 5, 8], [0] * 80)), "tensor 'q' is I32")
        self.rejects(change(do=None), "tensor 'do' [B,Hq,L,Ev] is missing", "--backward")
        self.rejects(change(do=normal("F32", (1, 2, 5, 7), 1)), "tensor 'do'", "--backward")
        self.rejects(change(dlse=normal("F32", (1, 2, 6), 1)), "tensor 'dlse'", "--backward")
        self.rejects(change(dlse=normal("F16", (1, 2, 5), 1)), "tensor 'dlse' is F16, but must be F32", "--backward")

    def test_bool_that_is_none(self):
        tensors = {**harness.attention_tensors(), "keep": ("BOOL", [7], bytes([0, 1, 2, 0, 0, 0, 0]))}
        self.rejects(harness.safetensors(tensors), "tensor 'keep': element 2", "--mask", "keep[kv]")


class Output(harness.Case):
    def run_to(self, out, *more, **options):
        return self.flexjit("run", "--input", self.tensors(), "--output", out, "--device", "reference", *more, **options)

    def left_over(self):
        return sorted(path.name for path in self.folder.iterdir() if path.name != "in.safetensors")

    def test_unwritable(self):
        self.fails(1, "No such file", "run", "--input", self.tensors(), "--output", self.folder / "no" / "out",
                   "--device", "reference")
        self.fails(1, "Is a directory", "run", "--input", self.tensors(), "--output", self.folder, "--device",
                   "reference")
        if os.geteuid() != 0:
            closed = self.folder / "closed"
            closed.mkdir(mode=0o500)
            self.fails(1, "Permission denied", "run", "--input", self.tensors(), "--output", closed / "out", "--device",
                       "reference")

    def test_full_disk(self):
        self.fails(1, "No space left", "run", "--input", self.tensors(), "--output", "/dev/full", "--device", "reference")

    def test_size_limit(self):
        out = self.folder / "out"
        done = self.run_to(out, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256)))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("cannot be written", done.stderr)
        self.assertEqual(self.left_over(), [])

    def test_device_file(self):
        self.assertEqual(self.run_to("/dev/null").returncode, 0)
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_replaces_and_keeps_mode(self):
        out = self.file("out", "old")
        out.chmod(0o640)
        self.assertEqual(self.run_to(out).returncode, 0)
        self.assertIn("lse", harness.read_safetensors(out))
        self.assertEqual(out.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.left_over(), ["out"])

    def test_symbolic_link(self):
        target, link = self.file("target", "old"), self.folder / "link"
        link.symlink_to(target)
        self.assertEqual(self.run_to(link).returncode, 0)
        self.assertTrue(link.is_symlink())
        self.assertIn("out", harness.read_safetensors(target))

    def test_failure_leaves_the_old_file(self):
        out = self.file("out", "old")
        self.assertEqual(self.run_to(out, "--score", "score + nothing").returncode, 1)
        self.assertEqual(out.read_text(), "old")

    def test_output_over_input(self):
        path = self.tensors()
        self.ok("run", "--input", path, "--output", path, "--device", "reference")
        self.assertEqual(set(harness.read_safetensors(path)), {"out", "lse"})

    def test_aligned(self):
        self.assertEqual(self.run_to(self.folder / "out").returncode, 0)
        data = (self.folder / "out").read_bytes()
        self.assertEqual((8 + struct.unpack("<Q", data[:8])[0]) % 64, 0)

    def test_interrupt(self):
        path = self.tensors(l=1500, s=1500, hq=4, e=64)
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.start("run", "--input", path, "--output", self.folder / "out", "--device", "reference", "--json")
            while process.poll() is None and not self.left_over():
                time.sleep(0.002)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 130, stdout + stderr)
            self.assertEqual(json.loads(stdout)["error"]["status"], 130)
            self.assertEqual(self.left_over(), [])


if __name__ == "__main__":
    harness.main()
