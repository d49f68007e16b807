"""mask: counts, pictures, PyTorch's tensors."""

import json
import xml.etree.ElementTree as xml

import harness

MOD = """\
import torch
doc = torch.empty(8)
bias = torch.empty(8)
def mask_mod(b, h, q, kv):
    return (doc[q] == doc[kv]) & (q >= kv - 10 * h)
def score_mod(score, b, h, q, kv):
    return score + bias[kv]
"""
L, S, DOC = 130, 150, [i // 47 for i in range(150)]


def seen(h, q, kv):
    return DOC[q] == DOC[kv] and q >= kv - 10 * h


def classes(heads, bq, bkv):
    """[H][Qb][KVb]: 0 empty, 1 partial, 2 full."""
    result = []
    for h in range(heads):
        rows = []
        for q in range(0, L, bq):
            row = []
            for kv in range(0, S, bkv):
                block = [seen(h, i, j) for i in range(q, min(q + bq, L)) for j in range(kv, min(kv + bkv, S))]
                row.append(0 if not any(block) else 2 if all(block) else 1)
            rows.append(row)
        result.append(rows)
    return result


def listed(rows, kind):
    """Counts and indices of the blocks of a kind: these first, then the others, in ascending order."""
    counts = [row.count(kind) for row in rows]
    indices = [sorted(range(len(row)), key=lambda i: (row[i] != kind, i)) for row in rows]
    return counts, [i for row in indices for i in row]


class Mask(harness.Case):
    def documents(self):
        return self.file("doc.st", harness.safetensors({"doc": ("I32", [150], DOC)}))

    def test_json(self):
        report = json.loads(self.ok("mask", "--mask", "q >= kv", "--q-len", 300, "--kv-len", 256, "--batch", 2,
                                    "--heads", 3, "--json").stdout)  # fmt: skip
        expected = {"schema": 1, "tier": "blocks", "block": [64, 64], "full": 6 * 10, "partial": 6 * 4, "empty": 6 * 6}
        self.assertEqual({key: report[key] for key in expected}, expected)
        self.assertEqual(report["undecided"], 24)
        self.assertEqual(report["sparsity"], 30)
        self.assertGreater(report["time_ms"], 0)
        self.assertGreater(report["bytes"], 0)

    def test_none(self):
        report = json.loads(self.ok("mask", "--score", "score * 2", "--q-len", 65, "--kv-len", 64, "--json").stdout)
        self.assertEqual([report[key] for key in ("tier", "full", "partial", "empty")], ["none", 2, 0, 0])

    def test_floats_of_f64_calls(self):
        sizes = ["mask", "--mask", "kv + 1e-9 > kv", "--q-len", 64, "--kv-len", 64, "--json"]
        self.assertEqual(json.loads(self.ok(*sizes).stdout)["full"], 0)
        self.assertEqual(json.loads(self.ok(*sizes, "--dtype", "F64").stdout)["full"], 1)

    def test_what_rows_and_columns_span(self):
        """Searches and bits of an index are computed once a row or column: they leave no more undecided than intervals do."""
        path = self.file("ends.st", harness.safetensors({"ends": ("I32", [5], [0, 100, 333, 600, 900])}))
        for value in ("torch.searchsorted(ends, {})", "(({} & 0xff00) >> 7)", "torch.sin({} / 300.0)", "(ends < {}).any()",
                      "ends[ends[{} % 1] + {} // 300]"):  # fmt: skip
            with self.subTest(value):
                q, kv = value.replace("{}", "q"), value.replace("{}", "kv")
                report = json.loads(self.ok("mask", "--mask", f"{q} == {kv}" if "any" not in value else f"{q} != {kv}", "--q-len",
                                            1000, "--kv-len", 900, "--input", path, "--json").stdout)  # fmt: skip
                self.assertGreater(report["empty"], 0)
                if "sin" not in value:
                    self.assertEqual(report["undecided"], report["partial"])

    def test_lengths_of_zero(self):
        for q, kv in ((0, 64), (64, 0), (0, 0)):
            report = json.loads(self.ok("mask", "--mask", "q >= kv", "--q-len", q, "--kv-len", kv, "--json").stdout)
            self.assertEqual([report[key] for key in ("full", "partial", "empty")], [0, 0, 0])

    def test_export(self):
        mod, out = self.file("mod.py", MOD), self.folder / "mask.st"
        sizes = ["--q-len", L, "--kv-len", S, "--batch", 2, "--heads", 3, "--block", "32,24"]
        report = json.loads(self.ok("mask", mod, *sizes, "--input", self.documents(), "--export", out, "--json").stdout)
        wanted = classes(3, 32, 24)
        flat = [c for head in wanted for row in head for c in row]
        for name, kind in (("empty", 0), ("partial", 1), ("full", 2)):
            self.assertEqual(report[name], 2 * flat.count(kind))
        tensors = harness.read_safetensors(out)
        self.assertEqual(len(tensors), 10)
        self.assertEqual(tensors.pop("block_size"), ("I32", [2], [32, 24]))
        self.assertEqual(tensors.pop("seq_lengths"), ("I32", [2], [L, S]))
        for name, (dtype, shape, values) in tensors.items():
            kind = 2 if name.startswith("full_") else 1
            by_key = "kv_" not in name
            sides = [[list(column) for column in zip(*head)] if by_key else head for head in wanted]
            rows, columns = (7, 5) if by_key else (5, 7)
            indices = name.endswith("indices")
            self.assertEqual((dtype, shape), ("I32", [2, 3, rows] + [columns] * indices), name)
            expected = [x for side in sides for x in listed(side, kind)[indices]] * 2
            self.assertEqual(values, expected, name)

    def test_pictures(self):
        done = self.ok("mask", "--mask", "q >= kv", "--q-len", 6, "--kv-len", 6, "--block", "2,2")
        line, *picture = done.stdout.splitlines()
        self.assertRegex(line, r"mask blocks \(1,1,6,6\), blocks of 2 x 2: 3 full, 3 partial, 3 empty, sparsity 33.33 %; "
                               r"3 undecided by intervals; [\d.]+ ms, \d+ bytes")  # fmt: skip
        self.assertEqual(picture, ["▒▒····", "██▒▒··", "████▒▒"])
        svg = self.folder / "mask.svg"
        done = self.ok("mask", "--mask", "(q >= kv) & (kv < 4)", "--q-len", 6, "--kv-len", 6, "--block", "2,2", "--output", svg)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        root = xml.parse(svg).getroot()
        texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertEqual(texts[0], "(q >= kv) & (kv < 4)")
        paths = {node.get("class"): node.get("d") for node in root.iter("{http://www.w3.org/2000/svg}path")}
        self.assertEqual(paths, {"s4": "M0 0h1v1h-1zM1 1h1v1h-1z", "s8": "M0 1h1v1h-1zM0 2h2v1h-2z"})

    def test_usage(self):
        sizes = ["--q-len", 64, "--kv-len", 64]
        self.fails(2, "a mod is missing", "mask", *sizes)
        self.fails(2, "--q-len N is missing", "mask", "--mask", "q >= kv", "--kv-len", 64)
        self.fails(2, "--kv-len N is missing", "mask", "--mask", "q >= kv", "--q-len", 64)
        same = self.folder / "same"
        self.fails(2, "name the same file", "mask", "--mask", "q >= kv", *sizes, "--export", same, "--output", same)
        for block in ("64", "64,", "0,64", "64,-1", "64,64,64", "64,2000000000", "a,b", ""):
            self.fails(2, f"'--block {block}' is not of the form Q,KV", "mask", "--mask", "q >= kv", *sizes, "--block", block)
        self.fails(2, "--q-len", "mask", "--mask", "q >= kv", "--q-len", "-1", "--kv-len", 64)
        self.fails(2, "--heads", "mask", "--mask", "q >= kv", *sizes, "--heads", "x")

    def test_wrong(self):
        mod, sizes = self.file("mod.py", MOD), ["--q-len", L, "--kv-len", S]
        self.fails(1, "captured tensor 'doc' is not bound", "mask", mod, *sizes)
        self.fails(1, "captured tensor 'doc' is missing", "mask", mod, *sizes, "--bind", "doc=I32[150]")
        short = self.file("short.st", harness.safetensors({"doc": ("I32", [20], DOC[:20])}))
        done = self.fails(1, "captured tensor 'doc' I32 [20] is read at index 20 (dimension 0) at b=0 h=0 q=20 kv=0", "mask", mod, *sizes, "--input", short)
        self.assertEqual(done.stdout, "")
        floats = self.file("floats.st", harness.safetensors({"doc": ("F32", [2, 2], [0.0] * 4)}))
        self.fails(1, "rank", "mask", mod, *sizes, "--input", floats)
        flags = self.file("flags.st", harness.safetensors({"doc": ("BOOL", [150], [0, 7] * 75)}))
        self.fails(1, "element 1 is 7, which is not a BOOL", "mask", mod, *sizes, "--input", flags)
        for option in ("--output", "--export"):
            self.fails(1, "cannot be written", "mask", "--mask", "q >= kv", *sizes, option, self.folder / "none" / "x")
        self.fails(1, "FLEXJIT_NO_JIT", "mask", "--mask", "q >= kv + 12345", *sizes, env={"FLEXJIT_NO_JIT": "1"})
        self.fails(3, "compiler", "mask", "--mask", "q >= kv + 12346", *sizes, env={"FLEXJIT_CC": "/nonexistent"})

    def test_values_do_not_compile(self):
        """Lengths, blocks and values are no part of the code."""
        mod = self.file("w.py", "WINDOW = 7\ndef mask_mod(b, h, q, kv):\n    return q - kv <= WINDOW\n")
        cache = {"FLEXJIT_CACHE_PATH": str(self.folder / "cache")}
        found = []
        for length, block in ((64, "64,64"), (999, "128,32")):
            done = self.ok("mask", mod, "--runtime-param", "WINDOW", "--q-len", length, "--kv-len", length, "--block", block,
                           "--json", env=cache)  # fmt: skip
            found.append(json.loads(done.stdout)["cache"])
        self.assertEqual(found, ["miss", "hit"])


if __name__ == "__main__":
    harness.main()
