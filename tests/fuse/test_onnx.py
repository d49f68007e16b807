"""fuse: ONNX models: each pitfall of the format, and what PyTorch exported (data/*.onnx)."""

import json
import math
import os
import pathlib
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
import models
from onnx_file import inner, message, model, node, number, tensor, value

DATA = pathlib.Path(__file__).parent / "data"
B, H, L, S, E = 2, 3, 5, 6, 8
Q, K, V = (value(n, "F32", (B, H, L if n == "q" else S, E)) for n in "qkv")
SCORES, OUT = (B, H, L, S), value("out", "F32", (B, H, L, E))
GIVEN = {n: harness.normal("F32", (B, H, L if n == "q" else S, E), i) for i, n in enumerate("qkv")}
BITS = ("BOOL", [L, S], [int(i % S <= i // S) for i in range(L * S)])


def eager(middle=(), last="scores", softmax=None, values=(), tensors=(), inputs=(), opset=20, outputs=(), **more):
    nodes = [node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], ["scores"]), *middle,
             softmax or node("Softmax", [last], ["w"], axis=-1), node("MatMul", ["w", "v"], ["out"])]  # fmt: skip
    types = [value("kt", "F32", (B, H, E, S)), value("scores", "F32", SCORES), value("w", "F32", SCORES), *values]
    return model(nodes, [Q, K, V, *inputs], [OUT, *outputs], types, tensors, opset, **more)


def deep(levels):
    return inner([node("If", ["c"], ["x"], then_branch=deep(levels - 1))] if levels else [], [])


def scaled(data):
    return eager([node("Mul", ["scores", "c"], ["scaled"])], "scaled", values=[value("scaled", "F32", SCORES)], tensors=[data])


class Onnx(harness.Case):
    def fuse(self, content, given=None, *options):
        path = self.file("m.onnx", content)
        tensors = self.file("m.st", harness.safetensors({**GIVEN, **(given or {})}))
        return json.loads(self.ok("fuse", path, "--json", "--run", tensors, "--check", "--device", "reference", "--output", self.folder / "o", *options).stdout)

    def mod(self):
        return (self.folder / "o" / "attention_0.py").read_text()

    def test_exported(self):
        for path in sorted(DATA.glob("*.onnx")):
            with self.subTest(path.stem):
                line = models.run(harness.TOOL, path)
                self.assertTrue(line.startswith("1 softmaxes, 1 fused"), line)
                self.assertNotIn("BAD", line)

    def test_data_of_tensors(self):
        """Raw bytes and typed fields, 16-bit floats in int32_data."""
        for data in (tensor("c", "F32", (), struct.pack("<f", 0.25)), tensor("c", "F32", (1,), floats=[0.25])):
            self.assertEqual(self.fuse(scaled(data))["fused"][0]["scale"], 0.25)
        half = [node("Cast", ["h"], ["c"], to=1), node("Mul", ["scores", "c"], ["scaled"])]
        for dtype, bits in (("F16", 0x3400), ("BF16", 0x3E80)):
            report = self.fuse(eager(half, "scaled", values=[value("scaled", "F32", SCORES), value("c", "F32", ())], tensors=[tensor("h", dtype, (), int32s=[bits])]))
            self.assertEqual(len(report["fused"]), 1)

    def test_opsets(self):
        for opset in (11, 13, 18, 23, 25):
            self.assertEqual(len(self.fuse(eager(opset=opset))["fused"]), 1)
        self.fails(1, "opset 26 is not supported", "fuse", self.file("m.onnx", eager(opset=26)))
        self.fails(1, "opset 10 is not supported", "fuse", self.file("m.onnx", eager(opset=10)))

    def test_softmax_that_flattens(self):
        """Before opset 13 the default is over all dimensions from the second on."""
        plain = node("Softmax", ["scores"], ["w"])
        path = self.file("m.onnx", eager(softmax=plain, opset=12))
        self.assertEqual(json.loads(self.ok("fuse", path, "--json").stdout)["fused"], [])
        self.assertEqual(len(self.fuse(eager(softmax=plain, opset=13))["fused"]), 1)

    def test_transpose_reverses(self):
        nodes = [node("Transpose", ["k9"], ["k"]), node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], ["s"]),
                 node("Softmax", ["s"], ["w"]), node("MatMul", ["w", "v"], ["out"])]  # fmt: skip
        types = [K, value("kt", "F32", (B, H, E, S)), value("s", "F32", SCORES), value("w", "F32", SCORES)]
        report = self.fuse(model(nodes, [Q, value("k9", "F32", (E, S, H, B)), V], [OUT], types), {"k9": harness.normal("F32", (E, S, H, B), 7)})
        self.assertEqual(len(report["fused"]), 1)

    def test_masks(self):
        hidden = tensor("low", "F32", (), struct.pack("<f", -math.inf))
        where = [node("Where", ["m", "scores", "low"], ["x"])]
        report = self.fuse(eager(where, "x", values=[value("x", "F32", SCORES)], tensors=[hidden], inputs=[value("m", "BOOL", (L, S))]), {"m": BITS})
        self.assertTrue(report["fused"][0]["mask_mod"])
        self.assertIn("return m[q_idx, kv_idx]", self.mod())

    def test_slices_of_many_axes(self):
        lists = [tensor(n, "I64", (2,), int64s=v) for n, v in (("starts", [1, 2]), ("ends", [1 + L, 2 + S]), ("axes", [2, 3]), ("steps", [1, 1]))]
        middle = [node("Slice", ["big", "starts", "ends", "axes", "steps"], ["m"]), node("Add", ["scores", "m"], ["x"])]
        types = [value("m", "F32", (1, 1, L, S)), value("x", "F32", SCORES)]
        self.fuse(eager(middle, "x", values=types, tensors=lists, inputs=[value("big", "F32", (1, 1, 9, 9))]), {"big": harness.normal("F32", (1, 1, 9, 9), 3)})
        self.assertIn("big[0, 0, (q_idx + 1), (kv_idx + 2)]", self.mod())

    def attention(self, inputs, values=(), **attributes):
        return model([node("Attention", ["q", "k", "v", *inputs], ["out"], **attributes)], [Q, K, V, *values], [OUT], opset=23)

    def test_attention(self):
        report = self.fuse(self.attention(["m"], [value("m", "BOOL", (L, S))], scale=0.5), {"m": BITS})
        self.assertEqual((report["fused"][0]["scale"], report["fused"][0]["pattern"]), (0.5, "sdpa"))
        self.fuse(self.attention([], is_causal=1))
        self.assertIn("return (kv_idx <= q_idx)", self.mod())

    def test_symbols(self):
        q, k, v = (value(n, "F32", ("batch", H, "length", E)) for n in "qkv")
        nodes = [node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], ["s"]), node("Softmax", ["s"], ["w"]), node("MatMul", ["w", "v"], ["out"])]
        types = [value("kt", "F32", ("batch", H, E, "length")), *(value(n, "F32", ("batch", H, "length", "length")) for n in "sw")]
        path = self.file("m.onnx", model(nodes, [q, k, v], [value("out", "F32", ("batch", H, "length", E))], types))
        self.assertEqual(json.loads(self.ok("fuse", path, "--json").stdout)["fused"][0]["shape"], ["?", H, H, "?", "?", E, E])

    def test_symbols_that_may_be_one(self):
        """A mask of [other] against scores of [length]: it may have one element, which broadcasts."""
        for size, count in (("length", 1), ("other", 0), (1, 1)):
            q, k, v = (value(n, "F32", (1, H, "length", E)) for n in "qkv")
            scores = (1, H, "length", "length")
            nodes = [node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], ["s"]), node("Add", ["s", "m"], ["x"]),
                     node("Softmax", ["x"], ["w"]), node("MatMul", ["w", "v"], ["out"])]  # fmt: skip
            types = [value("kt", "F32", (1, H, E, "length")), *(value(n, "F32", scores) for n in "sxw")]
            path = self.file("m.onnx", model(nodes, [q, k, v, value("m", "F32", (size,))], [value("out", "F32", (1, H, "length", E))], types))
            report = json.loads(self.ok("fuse", path, "--json").stdout)
            self.assertEqual(len(report["fused"]), count)
            if count == 0:
                self.assertEqual(report["refused"][0]["reason"], "mask-does-not-broadcast")

    def test_tensors_that_a_caller_may_replace(self):
        """An initializer that is an input too is a default: it is read, and becomes no number of the scale."""
        quarter = tensor("c", "F32", (), struct.pack("<f", 0.25))
        types = {"values": [value("scaled", "F32", SCORES)], "tensors": [quarter], "inputs": [value("c", "F32", ())]}
        report = self.fuse(eager([node("Mul", ["scores", "c"], ["scaled"])], "scaled", **types))
        self.assertEqual((report["fused"][0]["scale"], report["fused"][0]["captures"]), (1.0, ["c"]))

    def test_symbols_that_expand(self):
        """[other] expanded to [length]: it may have one element, and is read as it is after that."""
        q, k, v = (value(n, "F32", (1, H, "length", E)) for n in "qkv")
        nodes = [node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), node("MatMul", ["q", "kt"], ["s"]), node("Expand", ["m", "size"], ["wide"]),
                 node("Add", ["s", "wide"], ["x"]), node("Softmax", ["x"], ["w"]), node("MatMul", ["w", "v"], ["out"])]  # fmt: skip
        types = [value("kt", "F32", (1, H, E, "length")), *(value(n, "F32", (1, H, "length", "length")) for n in "sxw"), value("wide", "F32", ("length",))]
        inputs = [q, k, v, value("m", "F32", ("other",)), value("size", "I64", (1,))]
        path = self.file("m.onnx", model(nodes, inputs, [value("out", "F32", (1, H, "length", E))], types))
        self.assertEqual(json.loads(self.ok("fuse", path, "--json").stdout)["fused"][0]["captures"], ["wide"])

    def test_unknown_operations(self):
        other = [node("Mystery", ["scores"], ["x"], domain="com.microsoft")]
        report = json.loads(self.ok("fuse", self.file("m.onnx", eager(other, "x", values=[value("x", "F32", SCORES)])), "--json").stdout)
        self.assertEqual(report["refused"][0]["reason"], "op-not-in-the-mod-language")
        self.assertIn("Mystery", report["refused"][0]["detail"])

    def test_other_files(self):
        """Data in a file of the model's folder, and nowhere else."""
        def external(**more):
            return self.file("m.onnx", scaled(tensor("c", "F32", (), external=more)))
        given = self.file("m.st", harness.safetensors(GIVEN))
        self.file("w.bin", bytes(8) + struct.pack("<f", 0.25))
        whole = external(location="w.bin", offset=8, length=4)
        report = json.loads(self.ok("fuse", whole, "--json", "--run", given, "--check", "--device", "reference", "--output", self.folder).stdout)
        self.assertEqual(report["fused"][0]["scale"], 0.25)
        self.ok("fuse", self.folder / "graph.json")
        missing = external(location="none.bin")
        self.assertEqual(len(json.loads(self.ok("fuse", missing, "--json").stdout)["fused"]), 1)
        self.fails(1, "the data of 'c' is in 'none.bin', which is not in the model's folder", "fuse", missing, "--run", given)
        (self.folder / "inner").mkdir()
        self.file("inner/w.bin", struct.pack("<f", 0.5))
        report = json.loads(self.ok("fuse", external(location="inner/w.bin"), "--json").stdout)
        self.assertEqual(report["fused"][0]["scale"], 0.5)
        for location in ("../w.bin", "/etc/passwd", "inner/../w.bin", "", "a\\b"):
            self.fails(1, "not in the model's folder", "fuse", external(location=location))
        (self.folder / "out.bin").symlink_to("/etc/passwd")
        self.fails(1, "not in the model's folder", "fuse", external(location="out.bin"), "--run", given)
        self.fails(1, "lies outside of 'w.bin'", "fuse", external(location="w.bin", offset=9))
        self.fails(1, "lies outside of 'w.bin'", "fuse", external(location="w.bin", offset=18446744073709551615))
        self.fails(1, "offset of external data is not a number", "fuse", external(location="w.bin", offset="-1"))
        self.fails(1, "other data than its 4 bytes", "fuse", external(location="w.bin", length=5))

    def branches(self, *then):
        """A region with an If between its softmax and its product, or beside it."""
        both = {"then_branch": inner([*then, node("Neg", ["v"], ["a"])], ["a"]), "else_branch": inner([node("Neg", ["v"], ["b"])], ["b"])}
        choice = node("If", ["c"], ["chosen"], **both)
        content = eager([choice], inputs=[value("c", "BOOL", ())], values=[value("chosen", "F32", (B, H, S, E))], outputs=[value("chosen", "F32", (B, H, S, E))])
        return json.loads(self.ok("fuse", self.file("m.onnx", content), "--json").stdout)

    def test_graphs_inside(self):
        """If and Loop are operations that nobody knows; softmaxes inside of them have their reason, and what they read is used."""
        self.assertEqual(len(self.branches()["fused"]), 1)
        report = self.branches(node("Softmax", ["v"], ["inside"]), node("If", ["c"], ["deeper"], then_branch=inner([node("Softmax", ["v"], ["w2"])], ["w2"])))
        self.assertEqual([(r["softmax"], r["reason"]) for r in report["refused"]],
                         [("Softmax_inside", "op-not-in-the-mod-language"), ("Softmax_w2", "op-not-in-the-mod-language")])  # fmt: skip
        self.assertIn("inside of 'If_chosen' (If)", report["refused"][0]["detail"])
        self.assertEqual(len(report["fused"]), 1)
        for reads in ([node("Neg", ["scores"], ["z"])], [node("If", ["c"], ["z"], then_branch=inner([], ["scores"]))]):
            report = self.branches(*reads)
            self.assertEqual([r["reason"] for r in report["refused"]], ["outputs-used"])
            self.assertIn("If_chosen", report["refused"][0]["detail"])

    def test_errors(self):
        cases = {
            "nested more than 32 deep": eager([node("If", ["c"], ["x"], then_branch=deep(40))], inputs=[value("c", "BOOL", ())],
                                              values=[value("x", "F32", SCORES)]),
            "functions of its own": eager(tail=message(25, b"")),
            "'x' has no type and shape": eager([node("Neg", ["scores"], ["x"])], "x"),
            "input 0, 'nowhere', is not a value": eager([node("Neg", ["nowhere"], ["x"])], "x", values=[value("x", "F32", SCORES)]),
            "two values are called 'scores'": eager([node("Neg", ["scores"], ["scores"])]),
            "other data than its 1 elements": scaled(tensor("c", "F32", (), b"123")),
            "extent beyond": scaled(tensor("c", "F32", (1 << 40,), b"")),
            "it has no graph": number(1, 10) + message(8, number(2, 20)),
            "node 'Add_x' (Add): dimension 0 of 'm' is 7, which does not broadcast": eager([node("Add", ["scores", "m"], ["x"])], "x", values=[value("x", "F32", SCORES)], inputs=[value("m", "F32", (7,))]),
        }
        for text, content in cases.items():
            with self.subTest(text):
                self.fails(1, text, "fuse", self.file("m.onnx", content))

    def test_truncated(self):
        whole = eager()
        for size in range(1, len(whole), 97):
            done = self.flexjit("fuse", self.file("m.onnx", whole[:size]))
            self.assertEqual(done.returncode, 1, done.stderr)


if __name__ == "__main__":
    harness.main()
