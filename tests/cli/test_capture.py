"""run --capture and FLEXJIT_CAPTURE: a call that was kept, run again from its files, gives the same bits."""

import json
import os

import harness

MOD = """
import torch
SLOPE = 0.5
WINDOW = 3

def make(window):
    def mask_mod(b, h, q_idx, kv_idx):
        return (q_idx - kv_idx < window) & (tok[cu_seqlens_q[b] + q_idx] != 9)
    return mask_mod

mask_mod = make(WINDOW)

def score_mod(score, b, h, q_idx, kv_idx):
    return score * SLOPE + bias[h, kv_idx]
"""


def counted(shape):
    return ("I32", [len(shape)], list(shape))


class Capture(harness.Case):
    def again(self, manifest, device):
        """The kept call, by the tool's options; what it gives."""
        with open(manifest) as file:
            entry = json.load(file)["entries"][0]
        problem, call, folder = entry["problems"][0], entry["call"], os.path.dirname(manifest)
        arguments = [os.path.join(folder, entry["mod"])] if "mod" in entry else []
        for key, option in (("score", "--score"), ("mask", "--mask"), ("score_mod", "--score-mod"), ("mask_mod", "--mask-mod"),
                            ("out", "--out"), ("out_mod", "--out-mod"), ("sink", "--sink"), ("sink_mod", "--sink-mod")):  # fmt: skip
            arguments += [option, entry[key]] if key in entry else []
        for name, value in entry["params"].items():
            arguments += ["--param", f"{name}={value}"]
        for name in entry["runtime_params"]:
            arguments += ["--runtime-param", name]
        if "block_mask" in call:
            arguments += ["--block-mask", os.path.join(folder, call["block_mask"])]
        if problem.get("dropout"):
            self.assertEqual(call["offset"], 0)
            arguments += ["--dropout", repr(call["dropout"]), "--seed", call["seed"]]
        backward = ["--backward"] if problem["direction"] == "bwd" else []
        out = self.folder / "again.st"
        self.ok("run", *arguments, "--input", os.path.join(folder, call["tensors"]), "--output", out, "--scale",
                repr(call["scale"]), "--device", device, *backward)  # fmt: skip
        return harness.read_safetensors(out)

    def check(self, tensors, *arguments, device="reference", directions=("fwd", "bwd"), **options):
        path = self.file("in.st", harness.safetensors(tensors))
        out, kept = self.folder / "out.st", self.folder / "kept"
        backward = ["--backward"] if "bwd" in directions else []
        done = self.ok("run", *arguments, "--input", path, "--output", out, "--device", device, *backward, "--capture",
                       kept, **options)  # fmt: skip
        manifests = [line[len("kept in ") :] for line in done.stdout.splitlines() if line.startswith("kept in ")]
        self.assertEqual([os.path.basename(m)[:3] for m in manifests], list(directions))
        expected = harness.read_safetensors(out)
        for manifest in manifests:
            got = self.again(manifest, device)
            self.assertEqual(got, {name: expected[name] for name in got})
        return manifests

    def test_dense(self):
        tensors = harness.attention_tensors("BF16", l=5, s=7, backward=True)
        tensors |= {"bias": harness.normal("F32", (2, 7), 5), "tok": counted([1, 9, 2, 3, 4]), "cu_seqlens_q": counted([0])}
        mod = self.file("mod.py", MOD)
        manifests = self.check(tensors, mod, "--scale", "-0.3", "--runtime-param", "SLOPE", "--param", "WINDOW=2", device="cpu")
        # Once for a kind: other values are no other call, other lengths are.
        before = {name: os.stat(self.folder / "kept" / name).st_mtime_ns for name in os.listdir(self.folder / "kept")}
        self.assertEqual(len(before), 6)
        other = self.file("other.st", harness.safetensors(tensors | {"q": harness.normal("BF16", (1, 2, 5, 8), 77)}))
        self.ok("run", mod, "--scale", "-0.3", "--runtime-param", "SLOPE", "--param", "WINDOW=2", "--input", other, "--output",
                self.folder / "other-out.st", "--device", "cpu", "--capture", self.folder / "kept")  # fmt: skip
        self.assertEqual(set(os.listdir(self.folder / "kept")), set(before))
        for name, time in before.items():
            self.assertEqual(os.stat(self.folder / "kept" / name).st_mtime_ns, time)
        self.assertTrue(all(m.startswith(str(self.folder / "kept")) for m in manifests))

    def test_forms(self):
        packed = {
            "q": harness.normal("F32", (9, 2, 8), 1), "k": harness.normal("F32", (11, 1, 8), 2),
            "v": harness.normal("F32", (11, 1, 4), 3), "do": harness.normal("F32", (9, 2, 4), 4),
            "cu_seqlens_q": counted([0, 4, 4, 9]), "cu_seqlens_kv": counted([0, 3, 6, 11]),
            "bias": harness.normal("F32", (2, 8), 5), "tok": counted([1, 9, 2, 3, 4, 5, 9, 7, 8]),
        }  # fmt: skip
        self.check(packed, self.file("mod.py", MOD))
        paged = {
            "q": harness.normal("F64", (2, 2, 3, 8), 1), "k_pages": harness.normal("F64", (4, 2, 1, 8), 2),
            "v_pages": harness.normal("F64", (4, 2, 1, 8), 3), "page_table": ("I32", [2, 3], [3, -1, 0, 1, 2, 2]),
            "kv_lens": counted([5, 3]), "q_offset": counted([4, 1]),
        }  # fmt: skip
        self.check(paged, "--mask", "q >= kv", directions=("fwd",))

    def test_sinks_outputs_and_dropout(self):
        tensors = harness.attention_tensors("F32", backward=True)
        tensors |= {"sink": harness.normal("F32", (2,), 5), "gate": harness.normal("F32", (2, 8), 6)}
        manifests = self.check(tensors, "--out", "out * gate[h, d]", "--dropout", "0.3", "--seed", str(2**64 - 5))
        with open(manifests[0]) as file:
            entry = json.load(file)["entries"][0]
        self.assertEqual((entry["sink"], entry["out"], entry["call"]["seed"]), ("sink[h]", "out * gate[h, d]", -5))

    def test_block_mask(self):
        shape = ["--q-len", 60, "--kv-len", 90, "--block", "16,32"]
        self.ok("mask", "--mask", "q + 30 >= kv", *shape, "--export", self.folder / "mask.st")
        tensors = harness.attention_tensors("F32", l=60, s=90, backward=True)
        self.check(tensors, "--mask", "q + 30 >= kv", "--block-mask", self.folder / "mask.st")

    def test_environment(self):
        path, kept = self.tensors(), self.folder / "env"
        run = ["run", "--input", path, "--output", self.folder / "out.st", "--device", "reference"]
        self.ok(*run, env={"FLEXJIT_CAPTURE": "cuda*", "FLEXJIT_CAPTURE_DIR": str(kept)})
        self.assertFalse(kept.exists())
        self.ok(*run, env={"FLEXJIT_CAPTURE": "ref*", "FLEXJIT_CAPTURE_DIR": str(kept)})
        self.assertEqual(sorted(name.split(".")[-1] for name in os.listdir(kept)), ["json", "safetensors"])
        done = self.ok(*run, env={"FLEXJIT_CAPTURE": "*", "FLEXJIT_CAPTURE_DIR": str(path)})
        self.assertIn("was not captured", done.stderr)

    def test_bad_folder(self):
        path, out = self.tensors(), self.folder / "out.st"
        self.fails(1, "cannot be written", "run", "--input", path, "--output", out, "--device", "reference", "--capture",
                   path / "kept")  # fmt: skip
        self.assertFalse(out.exists())


if __name__ == "__main__":
    harness.main()
