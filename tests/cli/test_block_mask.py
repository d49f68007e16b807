"""run --block-mask: what kernels see through a block mask, and masks that do not fit."""

import json
import random

import harness

# Batch, heads of queries and of keys, lengths, dimension (one: few kernels); block size. Decoding, odd lengths, blocks of 1
# and beyond lengths.
CALLS = [
    ((2, 4, 2, 150, 200, 16), (64, 64)),
    ((1, 2, 1, 60, 700, 16), (128, 128)),
    ((2, 2, 2, 77, 130, 16), (7, 13)),
    ((1, 4, 1, 5, 1500, 16), (3, 100)),
    ((1, 1, 1, 50, 60, 16), (1, 1)),
    ((1, 2, 2, 50, 70, 16), (1000, 1000)),
]
MODS = [
    (["--mask", "q + 20 >= kv"], lambda q, kv: q + 20 >= kv),
    (["--score", "score + slopes[h] * (kv - q) / 16"], lambda q, kv: True),
    (["--score", "score * slopes[h]", "--mask", "(q - kv) % 3 != 0"], lambda q, kv: (q - kv) % 3 != 0),
]


# On the emulator few kernels: a mod each. Packed rows of heads, an atomic dq, captured gradients are among them.
EMULATED = [
    ("F32", 2, [], range(6)),
    ("BF16", 1, [], (0, 3, 4)),
    ("F16", 0, ["--no-deterministic"], (0, 2)),
    ("F64", 2, [], (1, 4)),
]


def floats(rng, *shape, dtype="F32"):
    count = 1
    for extent in shape:
        count *= extent
    return dtype, list(shape), [rng.uniform(-2, 2) for _ in range(count)]


def blocks_of(length, block):
    return -(-length // block)


class Mask:
    """Classes [B][H][Qb][KVb], drawn; lists in any order, with numbers past the count."""

    def __init__(self, rng, batch, heads, lengths, block):
        self.lengths, self.block, self.shape = lengths, block, (batch, heads)
        rows, columns = blocks_of(lengths[0], block[0]), blocks_of(lengths[1], block[1])
        draw = lambda: rng.choices((0, 1, 2), (5, 3, 2), k=columns)  # noqa: E731
        self.classes = [[[draw() for _ in range(rows)] for _ in range(heads)] for _ in range(batch)]
        self.rows, self.columns, self.rng = rows, columns, rng

    def seen(self, b, h, q, kv, mod):
        plane = self.classes[b % self.shape[0]][h % self.shape[1]]
        kind = plane[q // self.block[0]][kv // self.block[1]]
        return kind == 2 or (kind == 1 and mod(q, kv))

    def tensors(self):
        result = {"block_size": ("I32", [2], list(self.block)), "seq_lengths": ("I32", [2], list(self.lengths))}
        for name, kind in (("kv", 1), ("full_kv", 2)):
            counts, indices = [], []
            for row in (row for plane in self.classes for head in plane for row in head):
                listed = [i for i, c in enumerate(row) if c == kind]
                self.rng.shuffle(listed)
                counts.append(len(listed))
                indices += listed + [-7] * (self.columns - len(listed))
            shape = [*self.shape, self.rows]
            result[f"{name}_num_blocks"] = ("I32", shape, counts)
            result[f"{name}_indices"] = ("I32", [*shape, self.columns], indices)
        return result


class BlockMask(harness.Case):
    def save(self, name, tensors):
        return self.file(name, harness.safetensors(tensors))

    def inputs(self, rng, shape, dtype="F32", **more):
        batch, heads, kv_heads, q_len, kv_len, dim = shape
        of_queries, of_keys = (batch, heads, q_len, dim), (batch, kv_heads, kv_len, dim)
        return self.save("in.st", {
            "q": floats(rng, *of_queries, dtype=dtype), "k": floats(rng, *of_keys, dtype=dtype),
            "v": floats(rng, *of_keys, dtype=dtype), "do": floats(rng, *of_queries, dtype=dtype),
            "slopes": floats(rng, heads), **more,
        })  # fmt: skip

    def run_mask(self, *arguments):
        return self.ok("run", *arguments, "--output", self.folder / "out.st", "--json")

    def check_call(self, number, device, dtype, options, more):
        """The reference device reads the same lists by code of its own; --check compares, forward and backward."""
        shape, block = CALLS[number]
        rng = random.Random(number)
        data = self.inputs(rng, shape, dtype)
        mask = Mask(rng, rng.choice((1, shape[0])), rng.choice((1, shape[1])), shape[3:5], block)
        lists = self.save("mask.st", mask.tensors())
        report = json.loads(self.run_mask(*options, *more, "--input", data, "--block-mask", lists, "--backward",
                                          "--check", "--device", device).stdout)  # fmt: skip
        self.assertEqual(report["tier"], "blocks")
        self.assertIn("_blocks", report["variant"])
        self.assertIn("_blocks", report["backward"]["variant"])
        self.assertIn("dk", report["backward"]["errors"])
        return mask, report

    def test_against_the_definition(self):
        for number in range(len(CALLS)):
            self.check_call(number, "cpu", "F32", MODS[number % len(MODS)][0], [])

    def test_emulated_against_the_definition(self):
        for dtype, mod, more, calls in EMULATED:
            for number in calls:
                self.check_call(number, "emu", dtype, MODS[mod][0], more)

    def test_blocks_of_emulated_kernels(self):
        """Tiles of what the kernel computes are counted as the mask and the mod have them."""
        mask, report = self.check_call(4, "emu", "BF16", MODS[1][0], [])
        m, n = (int(part[1:]) for part in report["variant"].split("_")[5:7])
        counts = {"full": 0, "partial": 0, "empty": 0}
        for top in range(0, 50, m):
            for left in range(0, 60, n):
                seen = {mask.seen(0, 0, q, kv, MODS[1][1])
                        for q in range(top, min(top + m, 50)) for kv in range(left, min(left + n, 60))}  # fmt: skip
                counts["partial" if len(seen) == 2 else "full" if True in seen else "empty"] += 1
        self.assertEqual(report["blocks"], counts)

    def test_equals_a_dense_mask(self):
        """A captured table of what is seen gives the same result as blocks and mod."""
        for number, (shape, block) in enumerate(CALLS[:3]):
            rng = random.Random(100 + number)
            batch, heads, _, q_len, kv_len, _ = shape
            mask = Mask(rng, batch, heads, (q_len, kv_len), block)
            options, mod = MODS[2]
            table = [int(mask.seen(b, h, q, kv, mod)) for b in range(batch) for h in range(heads)
                     for q in range(q_len) for kv in range(kv_len)]  # fmt: skip
            data = self.inputs(rng, shape, see=("BOOL", [batch, heads, q_len, kv_len], table))
            lists = self.save("mask.st", mask.tensors())
            outputs = []
            for device in ("cpu", "reference"):
                for how in ([*options, "--block-mask", lists],
                            [*options[:2], "--mask", "see[b, h, q, kv]"]):  # fmt: skip
                    self.run_mask(*how, "--input", data, "--backward", "--device", device)
                    outputs.append(harness.read_safetensors(self.folder / "out.st"))
            for name in ("out", "lse", "dq", "dk", "dv", "d_slopes"):
                for got, want in ((outputs[0], outputs[1]), (outputs[2], outputs[3]), (outputs[0], outputs[3])):
                    for x, y in zip(got[name][2], want[name][2]):
                        self.assertTrue(x == y or abs(x - y) <= 2e-4 * (1 + abs(y)), f"{name}: {x} is not {y}")

    def test_of_the_mod_itself(self):
        """What mask --export writes changes nothing, at any block size."""
        shape = (1, 2, 1, 300, 300, 16)
        data = self.inputs(random.Random(7), shape)
        mod = ["--mask", "(q >= kv) & (q - kv < 100)"]
        self.run_mask(*mod, "--input", data, "--backward", "--device", "cpu")
        plain = harness.read_safetensors(self.folder / "out.st")
        for block in ("64,64", "128,128", "16,48"):
            lists = self.folder / "mask.st"
            self.ok("mask", *mod, "--q-len", 300, "--kv-len", 300, "--block", block, "--export", lists)
            self.run_mask(*mod, "--input", data, "--block-mask", lists, "--backward", "--device", "cpu")
            for name, tensor in harness.read_safetensors(self.folder / "out.st").items():
                for x, y in zip(tensor[2], plain[name][2]):
                    self.assertTrue(abs(x - y) <= 1e-5 * (1 + abs(y)), f"{block} {name}")

    def test_nothing_is_seen(self):
        rng = random.Random(1)
        mask = Mask(rng, 1, 1, (40, 50), (16, 16))
        mask.classes = [[[[0] * mask.columns for _ in range(mask.rows)]]]
        lists = self.save("mask.st", mask.tensors())
        for device, options in (("cpu", []), ("emu", MODS[2][0])):
            self.run_mask(*options, "--input", self.inputs(rng, (1, 4, 2, 40, 50, 16)), "--block-mask", lists,
                          "--backward", "--device", device)  # fmt: skip
            outputs = harness.read_safetensors(self.folder / "out.st")
            self.assertEqual(set(outputs["lse"][2]), {float("-inf")})
            for name in ("out", "dq", "dk", "dv", *(["d_slopes"] if options else [])):
                self.assertEqual(set(outputs[name][2]), {0.0}, f"{device} {name}")

    def test_what_is_hidden_does_not_show(self):
        """NaN in keys and values that no block shows."""
        rng = random.Random(5)
        mask = Mask(rng, 1, 1, (64, 96), (32, 32))
        mask.classes = [[[[2, 0, 1], [1, 0, 2]]]]
        lists = self.save("mask.st", mask.tensors())
        for device, options in (("cpu", []), ("emu", MODS[2][0])):
            results = []
            for bad in (0.0, float("nan")):
                rng = random.Random(6)
                tensors = {name: floats(rng, 1, 1, 96, 16) for name in ("k", "v")}
                for _, _, values in tensors.values():
                    values[40 * 16 + 3] = bad
                self.run_mask(*options, "--input", self.inputs(rng, (1, 1, 1, 64, 96, 16), **tensors),
                              "--block-mask", lists, "--backward", "--device", device)  # fmt: skip
                results.append(harness.read_safetensors(self.folder / "out.st"))
            self.assertEqual(results[0], results[1], device)

    def test_masks_that_do_not_fit(self):
        rng = random.Random(2)
        data = self.inputs(rng, (2, 2, 1, 40, 50, 16))
        good = Mask(rng, 1, 1, (40, 50), (16, 16)).tensors()
        columns = good["kv_indices"][1][3]
        counts, indices = good["kv_num_blocks"][2], good["kv_indices"][2]
        first = next(i for i, n in enumerate(counts) if n >= 1)
        wrong = {
            "was made for 41 queries and 50 keys": {"seq_lengths": ("I32", [2], [41, 50])},
            "'block_size' is [0,16]": {"block_size": ("I32", [2], [0, 16])},
            "'seq_lengths' is [-1,50]": {"seq_lengths": ("I32", [2], [-1, 50])},
            "'block_size' I32 [2] is missing": {"block_size": None},
            "'kv_indices' is missing": {"kv_indices": None},
            "kv_num_blocks": {"kv_num_blocks": ("I32", good["kv_num_blocks"][1], [columns + 1, *counts[1:]])},
            "kv_indices": {"kv_indices": ("I32", good["kv_indices"][1],
                                          [columns if i == first * columns else x for i, x in enumerate(indices)])},
            "batch 3": {name: ("I32", [3, *tensor[1][1:]], tensor[2] * 3)
                        for name, tensor in good.items() if len(tensor[1]) > 1},
        }  # fmt: skip
        for text, changes in wrong.items():
            tensors = {name: tensor for name, tensor in {**good, **changes}.items() if tensor}
            self.fails(1, text, "run", "--input", data, "--output", self.folder / "out.st", "--device", "cpu",
                       "--block-mask", self.save("mask.st", tensors))  # fmt: skip
            self.assertFalse((self.folder / "out.st").exists())


if __name__ == "__main__":
    harness.main()
