"""fuse: models that PyTorch exported (export.py --committed), against what PyTorch gave; their kernels; damaged archives."""

import json
import os
import pathlib
import shutil
import sys
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
import models
from patterns import Region

DATA = pathlib.Path(__file__).parent / "data"
SMALL = DATA / "sdpa_eager_F32_core.pt2"


class Models(harness.Case):
    def test_each(self):
        for path in sorted(DATA.glob("*.pt2")):
            with self.subTest(path.stem):
                line = models.run(harness.TOOL, path)
                self.assertTrue(line.startswith("1 softmaxes, 1 fused"), line)
                self.assertNotIn("BAD", line)

    def test_mods(self):
        expected = {"alibi_eager_BF16_core": "score_mod", "dynamic_eager_F32_raw": "mask_mod", "llama_eager_F32_raw": "score_mod",
                    "sdpa_eager_F32_core": "mask_mod", "window_eager_F32_raw": "mask_mod"}  # fmt: skip
        for name, kind in expected.items():
            with self.subTest(name):
                out = self.folder / name
                report = json.loads(self.ok("fuse", DATA / f"{name}.pt2", "--output", out, "--json").stdout)
                self.assertIn(f"def {kind}(", (out / "attention_0.py").read_text())
                self.assertEqual(report["fused"][0]["shape"][1:3], [4, 2 if "llama" in name else 4])

    def test_three_commands(self):
        """Those of README.md: fuse, prebuild, run."""
        root = pathlib.Path(__file__).resolve().parents[2]
        text = (root / "README.md").read_text()
        block = next(part for part in text.split("```") if part.strip().startswith("flexjit fuse "))
        (self.folder / "tests").symlink_to(root / "tests")
        self.file("in.safetensors", harness.safetensors(harness.attention_tensors(b=2, hq=4, hkv=4, l=7, s=7, e=8)))
        commands = [line.split()[1:] for line in block.strip().splitlines()]
        self.assertEqual([command[0] for command in commands], ["fuse", "prebuild", "run"])
        for command in commands:
            done = self.ok(*command, cwd=self.folder, env={"FLEXJIT_CACHE_PATH": str(self.folder / "cache")})
        self.assertIn("mask", done.stdout)

    def test_on_devices(self):
        path = DATA / "window_eager_F32_raw.pt2"
        for device in ("cpu", "emu"):
            with self.subTest(device):
                self.ok("fuse", path, "--run", path.with_suffix(".st"), "--check", "--device", device)

    def test_scale(self):
        """`run` takes a scale that is not 1/sqrt(E) from the manifest; --scale wins."""
        region = Region("F32", 2)
        path = self.file("g.json", region.end(region.g.softmax(region.g.mul(region.product(), 0.75))).text())
        self.ok("fuse", path, "--output", self.folder / "out")
        mod, manifest, given = self.folder / "out/attention_0.py", self.folder / "out/manifest.json", self.file("in.st", harness.safetensors(region.g.given))
        self.assertEqual(json.loads(manifest.read_text())["entries"][0]["scale"], 0.75)
        def run(*options):
            self.ok("run", mod, "--input", given, "--output", self.folder / "o.st", "--device", "reference", *options)
            return harness.read_safetensors(self.folder / "o.st")["out"][2]
        self.assertEqual(run("--manifest", manifest), run("--scale", "0.75"))
        self.assertNotEqual(run("--manifest", manifest), run())
        self.assertEqual(run("--manifest", manifest, "--scale", "0.5"), run("--scale", "0.5"))
        other = self.file("other.py", mod.read_text())
        self.fails(1, "no entry has the mod", "run", other, "--manifest", manifest, "--input", given, "--output", self.folder / "o.st")
        self.fails(2, "--manifest says the scale", "run", "--manifest", manifest, "--input", given, "--output", self.folder / "o.st")
        broken = self.file("out/broken.json", manifest.read_text().replace('"scale":0.75', '"scale":"x"'))
        self.fails(1, "'scale' is not a number", "run", mod, "--manifest", broken, "--input", given, "--output", self.folder / "o.st")

    def test_graph_is_read_back(self):
        """The rewritten graph is a graph; its weights lie beside it."""
        model = shutil.copy(SMALL, self.folder / SMALL.name)
        self.ok("fuse", model, "--output", self.folder)
        report = json.loads(self.ok("fuse", self.folder / "graph.json", "--json").stdout)
        self.assertEqual(report["fused"] + report["refused"], [])
        self.fails(1, "only the graph that was fused in this call can be run", "fuse", self.folder / "graph.json", "--run", SMALL.with_suffix(".st"))


class Archives(harness.Case):
    def members(self, path=SMALL):
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def archive(self, members, method=zipfile.ZIP_STORED, name="bad.pt2"):
        path = self.folder / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, data in members.items() if isinstance(members, dict) else members:
                archive.writestr(zipfile.ZipInfo(member), data, method)
        return path

    def model(self, change, path=SMALL):
        members = self.members(path)
        name = next(n for n in members if n.endswith("models/model.json"))
        model = json.loads(members[name])
        change(model)
        members[name] = json.dumps(model).encode()
        return self.archive(members)

    def test_truncated(self):
        whole = SMALL.read_bytes()
        for size in (0, 3, 4, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            with self.subTest(size):
                self.fails(1, "bad.pt2", "fuse", self.file("bad.pt2", whole[:size]))

    def test_damaged(self):
        whole = SMALL.read_bytes()
        at = whole.index(b'"schema_version"')
        self.fails(1, "checksum", "fuse", self.file("bad.pt2", whole[:at] + b"X" + whole[at + 1 :]))

    def test_members(self):
        members = self.members()
        root = next(iter(members)).split("/")[0]
        self.fails(1, "compressed", "fuse", self.archive(members, zipfile.ZIP_DEFLATED))
        self.fails(1, "two members called", "fuse", self.archive([*members.items(), *list(members.items())[:1]]))
        self.fails(1, "its path leaves the archive", "fuse", self.archive({**members, f"{root}/../../evil": b"x"}))
        self.fails(1, "its path leaves the archive", "fuse", self.archive({**members, "/evil": b"x"}))
        self.fails(1, "no member 'NAME/models/model.json'", "fuse", self.archive({"a/b": b"x"}))
        self.fails(1, "before August 2025", "fuse", self.archive({"serialized_exported_program.json": b"{}"}))
        weight = next(n for n in members if "weight_" in n)
        self.fails(1, "is missing", "fuse", self.archive({n: d for n, d in members.items() if n != weight}))
        self.fails(1, "fewer than", "fuse", self.archive({**members, weight: members[weight][:-1]}))

    def test_pickles(self):
        members = self.members()
        name = next(n for n in members if n.endswith("model_weights_config.json"))
        members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true')
        self.fails(1, "is a pickle", "fuse", self.archive(members))

    def test_json(self):
        members = self.members()
        name = next(n for n in members if n.endswith("models/model.json"))
        for text, error in ((b"{", "line 1"), (b"[" * 10000, "depth"), (b"[]", "not an object"), (b'{"a":1,"a":1}', "duplicate")):
            with self.subTest(text[:10]):
                self.fails(1, error, "fuse", self.archive({**members, name: text}))

    def test_models(self):
        graph = lambda model: model["graph_module"]["graph"]
        def major(model): model["schema_version"]["major"] = 9
        def undefined(model): graph(model)["nodes"][0]["inputs"][0]["arg"] = {"as_tensor": {"name": "nowhere"}}
        def no_type(model): graph(model)["tensor_values"].clear()
        def dtype(model): next(iter(graph(model)["tensor_values"].values()))["dtype"] = 11
        def twice(model): graph(model)["nodes"].append(graph(model)["nodes"][0])
        def shape(model): next(v for k, v in graph(model)["tensor_values"].items() if "softmax" in k)["sizes"][-1] = {"as_int": 8}
        def output(model): graph(model)["outputs"] = [{"as_tensor": {"name": "nowhere"}}]
        for change, error in ((major, "schema 9."), (undefined, "'nowhere' is not defined"), (no_type, "not in tensor_values"),
                              (dtype, "dtype number 11"), (twice, "two values are called"), (shape, "does not broadcast"),
                              (output, "'nowhere' is not defined")):  # fmt: skip
            with self.subTest(change.__name__):
                self.fails(1, error, "fuse", self.model(change))

    def test_weights_that_contradict(self):
        """Bytes of another dtype or shape than the graph says."""
        members = self.members()
        name = next(n for n in members if n.endswith("model_weights_config.json"))
        config = json.loads(members[name])
        meta = next(iter(config["config"].values()))["tensor_meta"]
        for key, other, error in (("dtype", 6, "another dtype"), ("sizes", [{"as_int": 1}, *meta["sizes"]], "another shape"), ("sizes", "x", "not a list")):
            with self.subTest(error):
                kept, meta[key] = meta[key], other
                self.fails(1, error, "fuse", self.archive({**members, name: json.dumps(config).encode()}))
                meta[key] = kept

    def test_devices(self):
        def slopes(model): model["graph_module"]["graph"]["tensor_values"]["mul"]["device"] = {"type": "cuda", "index": 0}
        report = json.loads(self.ok("fuse", self.model(slopes, DATA / "alibi_eager_BF16_core.pt2"), "--json").stdout)
        self.assertEqual([each["reason"] for each in report["refused"]], ["device-mix"])

    def test_newer_minor(self):
        def minor(model): model["schema_version"]["minor"] = 99
        report = json.loads(self.ok("fuse", self.model(minor), "--json").stdout)
        self.assertIn("newer", report["notes"][0])

    def test_unknown_operation(self):
        """The graph is read; a region with it has a reason."""
        def unknown(model):
            node = next(n for n in graph_nodes(model) if n["target"].endswith("_softmax.default"))
            node["target"] = "torch.ops.my.softmax.default"
        def graph_nodes(model): return model["graph_module"]["graph"]["nodes"]
        report = json.loads(self.ok("fuse", self.model(unknown), "--json").stdout)
        self.assertEqual(report["fused"], [])
        self.fails(1, "not one that flexjit evaluates", "fuse", self.model(unknown), "--run", SMALL.with_suffix(".st"))

    def test_inputs(self):
        given = {name: value for name, value in harness.read_safetensors(SMALL.with_suffix(".st")).items()}
        self.fails(1, "input 'x' is missing", "fuse", SMALL, "--run", self.file("e.st", harness.safetensors({})))
        wrong = {**given, "x": ("F32", [2, 6, 32], given["x"][2][: 2 * 6 * 32])}
        self.fails(1, "dimension 1 of input 'x' is 6, not 7", "fuse", SMALL, "--run", self.file("w.st", harness.safetensors(wrong)))
        self.fails(2, "--check needs --run", "fuse", SMALL, "--check")
        self.fails(2, "takes one graph", "fuse")
        self.fails(1, "cannot open", "fuse", self.folder / "none.pt2")


if __name__ == "__main__":
    harness.main()
