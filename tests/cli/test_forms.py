"""run: packed and paged tensors, positions of first queries, keys that serve a batch, gradients by choice."""

import json
import math
import random

import harness
import test_block_mask

DEVICES = ("cpu", "emu", "reference")
MOD = ["--score", "score * slopes[h] + bias[b] * (q - kv) / 64", "--mask", "(q + 20 >= kv) & (q - kv < 90)"]  # one: few kernels
HEADS, KV_HEADS, E, EV = 6, 2, 16, 8


def drawn(rng, dtype, *shape):
    count = 1
    for extent in shape:
        count *= extent
    return dtype, list(shape), [rng.uniform(-2, 2) for _ in range(count)]


def rows(tensor, first, last):
    """Rows of a tensor whose first axis they are."""
    dtype, shape, values = tensor
    size = len(values) // shape[0] if shape[0] else 0
    return dtype, [last - first, *shape[1:]], values[first * size : last * size]


def swap(tensor):
    """[a,b,...] to [b,a,...]."""
    dtype, (a, b, *rest), values = tensor
    size = 1
    for extent in rest:
        size *= extent
    at = [values[i * size : (i + 1) * size] for i in range(a * b)]
    return dtype, [b, a, *rest], [x for j in range(b) for i in range(a) for x in at[i * b + j]]


def batched(tensor):
    return tensor[0], [1, *tensor[1]], tensor[2]


def i32(*values):
    return "I32", [len(values)], list(values)


class Forms(harness.Case):
    def save(self, name, tensors):
        return self.file(name, harness.safetensors(tensors))

    def run_on(self, device, tensors, *options):
        """The outputs and the report."""
        out = self.folder / "out.st"
        report = self.ok("run", *options, "--input", self.save("in.st", tensors), "--output", out, "--json",
                         "--device", device)  # fmt: skip
        return harness.read_safetensors(out), json.loads(report.stdout)

    def near(self, got, want, name, bound=1e-5):
        self.assertEqual(got[1], want[1], name)
        for x, y in zip(got[2], want[2]):
            self.assertTrue(x == y or abs(x - y) <= bound * (1 + abs(y)), f"{name}: {x} is not {y}")

    # ---- Packed --------------------------------------------------------------------------------------

    def packed(self, rng, dtype, q_lens, kv_lens):
        cu_q, cu_kv = [0], [0]
        for q, kv in zip(q_lens, kv_lens):
            cu_q.append(cu_q[-1] + q)
            cu_kv.append(cu_kv[-1] + kv)
        return cu_q, cu_kv, {
            "q": drawn(rng, dtype, cu_q[-1], HEADS, E), "k": drawn(rng, dtype, cu_kv[-1], KV_HEADS, E),
            "v": drawn(rng, dtype, cu_kv[-1], KV_HEADS, EV), "do": drawn(rng, dtype, cu_q[-1], HEADS, EV),
            "dlse": drawn(rng, "F64" if dtype == "F64" else "F32", HEADS, cu_q[-1]), "slopes": drawn(rng, "F32", HEADS),
            "bias": drawn(rng, "F32", len(q_lens)), "cu_seqlens_q": i32(*cu_q), "cu_seqlens_kv": i32(*cu_kv),
        }  # fmt: skip

    def alone(self, tensors, b, q, kv):
        """Sequence b as a dense call."""
        one = {name: batched(swap(rows(tensors[name], *(q if name in ("q", "do") else kv))))
               for name in ("q", "k", "v", "do")}  # fmt: skip
        one["dlse"] = batched(swap(rows(swap(tensors["dlse"]), *q)))
        one["slopes"], one["bias"] = tensors["slopes"], rows(tensors["bias"], b, b + 1)
        return one

    def test_packed_is_each_sequence_alone(self):
        """Bit for bit, empty sequences and other lengths of keys included; captured gradients are the sums."""
        for dtype, device in (("F32", "cpu"), ("BF16", "cpu"), ("BF16", "emu"), ("F64", "emu"), ("F32", "reference")):
            rng = random.Random(1)
            q_lens, kv_lens = (70, 0, 1, 33, 5), (70, 9, 140, 0, 64)
            cu_q, cu_kv, tensors = self.packed(rng, dtype, q_lens, kv_lens)
            # Parts of keys follow the call's shape: where they are merged, sums have another order.
            options = [*MOD, "--backward", *(("--option", "splits=1") if device == "emu" else ())]
            together, report = self.run_on(device, tensors, *options)
            self.assertEqual(report["form"], "packed")
            self.assertEqual(report["backward"]["form"], "packed")
            sums = {"d_slopes": [0.0] * HEADS, "d_bias": []}
            for b in range(len(q_lens)):
                q, kv = cu_q[b : b + 2], cu_kv[b : b + 2]
                one, _ = self.run_on(device, self.alone(tensors, b, q, kv), *options)
                for name in ("out", "dq", "dk", "dv", "lse"):
                    part = together[name] if name == "lse" else swap(together[name])
                    part = batched(swap(rows(swap(part), *(kv if name in ("dk", "dv") else q))))
                    self.assertEqual(part, one[name], f"{device} {dtype} {name} {b}")
                sums["d_slopes"] = [x + y for x, y in zip(sums["d_slopes"], one["d_slopes"][2])]
                sums["d_bias"] += one["d_bias"][2]
            for name, values in sums.items():
                self.near(together[name], (together[name][0], [len(values)], values), name)

    def test_packed_against_the_definition(self):
        for number, dtype in enumerate(("F16", "BF16", "F32", "F64")):
            _, _, tensors = self.packed(random.Random(number), dtype, (40, 3, 0, 120), (41, 100, 7, 120))
            for device in DEVICES[:2]:
                _, report = self.run_on(device, tensors, *MOD, "--backward", "--check")
                self.assertEqual(sorted(report["backward"]["errors"]), ["d_bias", "d_slopes", "dk", "dq", "dv"])
                if device == "emu" and dtype != "F64":  # atomic sums of dq
                    self.run_on(device, tensors, *MOD, "--backward", "--check", "--no-deterministic")

    def test_a_packed_table_is_read_with_the_lengths(self):
        """tok [Tq], which a mod sees through cu_seqlens_q."""
        cu_q, cu_kv, tensors = self.packed(random.Random(9), "F32", (20, 0, 31), (20, 0, 31))
        tensors["tok"] = drawn(random.Random(10), "F32", cu_q[-1])
        mod = ["--score", "score + tok[cu_seqlens_q[b] + q]"]
        for device in DEVICES:
            together, _ = self.run_on(device, tensors, *mod)
            for b in range(3):
                q, kv = cu_q[b : b + 2], cu_kv[b : b + 2]
                one = self.alone(tensors, b, q, kv)
                one["tok"] = rows(tensors["tok"], *q)
                alone, _ = self.run_on(device, one, "--score", "score + tok[q]")
                self.assertEqual(batched(swap(rows(together["out"], *q))), alone["out"])

    # ---- Paged ---------------------------------------------------------------------------------------

    def paged(self, rng, dtype, lengths, page, width, q_len, holes=()):
        """Pages in any order; those that nobody owns, and rows behind the lengths, hold NaN."""
        batch, pages = len(lengths), len(lengths) * width + 3
        order = rng.sample(range(pages), pages)
        keys = {"k": drawn(rng, dtype, batch, width * page, KV_HEADS, E),
                "v": drawn(rng, dtype, batch, width * page, KV_HEADS, EV)}  # fmt: skip
        table, stored = [], {}
        for name, dim in (("k", E), ("v", EV)):
            stored[name] = [float("nan")] * (pages * page * KV_HEADS * dim)
        for b in range(batch):
            for i in range(width):
                used = i * page < lengths[b] and (b, i) not in holes
                table.append(order[b * width + i] if used else -1 if i * page < lengths[b] else -7)
                for name, dim in (("k", E), ("v", EV)):
                    size = KV_HEADS * dim
                    for row in range(page if used else 0):
                        at = i * page + row
                        if at >= lengths[b]:
                            break
                        to, source = (table[-1] * page + row) * size, (b * width * page + at) * size
                        stored[name][to : to + size] = keys[name][2][source : source + size]
        tensors = {"q": drawn(rng, dtype, batch, HEADS, q_len, E), "slopes": drawn(rng, "F32", HEADS),
                   "bias": drawn(rng, "F32", batch), "page_table": ("I32", [batch, width], table),
                   "kv_lens": i32(*lengths), "k_pages": (dtype, [pages, page, KV_HEADS, E], stored["k"]),
                   "v_pages": (dtype, [pages, page, KV_HEADS, EV], stored["v"])}  # fmt: skip
        return keys, tensors

    def test_paged_is_the_dense_call(self):
        """Bit for bit; decode and prefill."""
        for number, (q_len, page) in enumerate(((1, 16), (5, 64), (40, 10))):
            rng = random.Random(number)
            lengths, width = (130, 0, 257, 17), -(-257 // page)
            keys, tensors = self.paged(rng, "F32", lengths, page, width, q_len)
            tensors["q_offset"] = i32(*(max(0, n - q_len) for n in lengths))
            for device in DEVICES:
                together, report = self.run_on(device, tensors, *MOD)
                self.assertEqual(report["form"], "paged")
                for b, length in enumerate(lengths):
                    one = {name: batched(swap(rows((x[0], x[1][1:], x[2][b * width * page * x[1][2] * x[1][3] :]), 0, length)))
                           for name, x in ((n, (keys[n][0], keys[n][1], keys[n][2])) for n in keys)
                           } if length else None  # fmt: skip
                    if one is None:
                        self.assertEqual(set(rows(together["out"], b, b + 1)[2]), {0.0})
                        self.assertEqual(set(rows(together["lse"], b, b + 1)[2]), {float("-inf")})
                        continue
                    for name in one:
                        one[name] = (one[name][0], one[name][1], one[name][2][: one[name][1][1] * length * one[name][1][3]])
                    one["q"] = rows(tensors["q"], b, b + 1)
                    one["slopes"], one["bias"] = tensors["slopes"], rows(tensors["bias"], b, b + 1)
                    one["q_offset"] = rows(tensors["q_offset"], b, b + 1)
                    alone, _ = self.run_on(device, one, *MOD)
                    for name in ("out", "lse"):
                        self.assertEqual(rows(together[name], b, b + 1), alone[name], f"{device} {name} {b}")

    def test_pages_that_are_not_there_are_hidden(self):
        for dtype in ("F16", "F32", "BF16", "F64"):
            _, tensors = self.paged(random.Random(3), dtype, (100, 48), 16, 7, 3, holes={(0, 0), (0, 3), (1, 1)})
            for device in DEVICES[:2]:
                self.run_on(device, tensors, *MOD, "--check")
        seen, _ = self.run_on("cpu", tensors)
        self.assertFalse(any(x != x for x in seen["out"][2]))
        for dtype in ("F32", "BF16"):  # as many queries as kernels of other calls are for
            _, tensors = self.paged(random.Random(3), dtype, (100, 48), 16, 7, 66, holes={(0, 0), (0, 3), (1, 1)})
            _, report = self.run_on("cpu", tensors, *MOD, "--check")
            self.assertNotIn("_direct", report["variant"])

    def test_paged_with_a_block_mask(self):
        """Pages that are not there stay hidden in full blocks; blocks are of indices."""
        for number, (q_len, block) in enumerate(((1, (7, 13)), (40, (64, 32)))):
            rng = random.Random(number)
            _, tensors = self.paged(rng, "BF16", (100, 144, 7), 16, 9, q_len, holes={(1, 3), (0, 2)})
            mask = test_block_mask.Mask(rng, 3, HEADS, (q_len, 144), block)
            lists = self.save("mask.st", mask.tensors())
            for device in DEVICES[:2]:
                _, report = self.run_on(device, tensors, *MOD, "--block-mask", lists, "--check")
                self.assertIn("_paged_blocks", report["variant"])

    # ---- Offsets and shared keys ----------------------------------------------------------------------

    def dense(self, rng, batch, kv_batch, q_len, kv_len):
        return {"q": drawn(rng, "F32", batch, HEADS, q_len, E), "k": drawn(rng, "F32", kv_batch, KV_HEADS, kv_len, E),
                "v": drawn(rng, "F32", kv_batch, KV_HEADS, kv_len, EV), "do": drawn(rng, "F32", batch, HEADS, q_len, EV),
                "slopes": drawn(rng, "F32", HEADS), "bias": drawn(rng, "F32", batch)}  # fmt: skip

    def test_offsets_move_positions(self):
        tensors = self.dense(random.Random(1), 3, 3, 21, 100)
        offsets = (0, 79, 40)
        mod = ["--score", "score + (q - kv) * slopes[h] / 64", "--mask", "q >= kv"]
        moved = ["--score", "score + (q + start[b] - kv) * slopes[h] / 64", "--mask", "q + start[b] >= kv"]
        for device in DEVICES:
            got, _ = self.run_on(device, {**tensors, "q_offset": i32(*offsets)}, *mod, "--backward")
            want, _ = self.run_on(device, {**tensors, "start": i32(*offsets)}, *moved, "--backward")
            for name in ("out", "lse", "dq", "dk", "dv"):
                self.assertEqual(got[name], want[name], f"{device} {name}")
            self.near(got["d_slopes"], want["d_slopes"], "d_slopes")
            captured, _ = self.run_on(device, {**tensors, "q_offset": i32(*offsets)},
                                      "--mask", "q + q_offset[b] >= kv")  # fmt: skip
            plain, _ = self.run_on(device, {**tensors, "start": i32(*offsets)}, "--mask", "q + start[b] >= kv")
            self.assertEqual(captured["out"], plain["out"])

    def test_keys_serve_a_batch(self):
        """Gradients of k and v are the sums; a batch of none gives zeros."""
        for q_len, kv_len, batch in ((40, 70, 3), (3, 150, 2), (5, 6, 0)):
            tensors = self.dense(random.Random(4), batch, 1, q_len, kv_len)
            for device in DEVICES:
                got, _ = self.run_on(device, tensors, *MOD, "--backward", *(["--check"] if batch else []))
                sums = {name: [0.0] * len(tensors[x][2]) for name, x in (("dk", "k"), ("dv", "v"))}
                for b in range(batch):
                    one = {name: rows(x, b, b + 1) if name in ("q", "do", "bias") else x for name, x in tensors.items()}
                    alone, _ = self.run_on(device, one, *MOD, "--backward")
                    self.assertEqual(rows(got["out"], b, b + 1), alone["out"])
                    self.near(rows(got["dq"], b, b + 1), alone["dq"], "dq")
                    for name, total in sums.items():
                        total[:] = [x + y for x, y in zip(total, alone[name][2])]
                for name, total in sums.items():
                    self.near(got[name], ("F32", tensors[name[1]][1], total), name, 1e-4)

    def test_halves_merge_by_lse(self):
        """What even and odd keys give, weighed by lse, is what all give; so are the gradients, through out and lse."""
        tensors = {name: ("F64", *x[1:]) for name, x in self.dense(random.Random(8), 1, 1, 30, 40).items()}
        mod = ["--mask", "(q >= kv) & (kv % 2 != hidden[0])", "--backward"]  # one: few kernels
        all_keys, *outs = [self.run_on("cpu", {**tensors, "hidden": i32(which)}, *mod)[0] for which in (2, 1, 0)]
        out, lse, dout = all_keys["out"][2], all_keys["lse"][2], tensors["do"][2]
        weights = [[math.exp(x - y) for x, y in zip(half["lse"][2], lse)] for half in outs]
        merged = [sum(w[i // EV] * half["out"][2][i] for w, half in zip(weights, outs)) for i in range(len(out))]
        self.near(("F64", all_keys["out"][1], merged), all_keys["out"], "out", 1e-12)
        sums = {name: [0.0] * len(all_keys[name][2]) for name in ("dq", "dk", "dv")}
        for which, w, half in zip((1, 0), weights, outs):
            dlse = [w[r] * sum(dout[r * EV + e] * (half["out"][2][r * EV + e] - out[r * EV + e]) for e in range(EV))
                    for r in range(len(w))]  # fmt: skip
            inputs = {**tensors, "hidden": i32(which), "dlse": ("F64", all_keys["lse"][1], dlse),
                      "do": ("F64", tensors["do"][1], [w[i // EV] * x for i, x in enumerate(dout)])}  # fmt: skip
            part, _ = self.run_on("cpu", inputs, *mod)
            for name, total in sums.items():
                total[:] = [x + y for x, y in zip(total, part[name][2])]
        for name, total in sums.items():
            self.near(("F64", all_keys[name][1], total), all_keys[name], name, 1e-12)

    def test_gradients_by_choice(self):
        tensors = self.dense(random.Random(6), 2, 2, 33, 40)
        mod = [*MOD, "--backward"]
        for device in DEVICES:
            every, _ = self.run_on(device, tensors, *mod)
            for chosen in ("dq", "dk", "dv", "d_bias", "dq,d_slopes", "dv,dk"):
                some, report = self.run_on(device, tensors, *mod, "--gradients", chosen, "--check")
                self.assertEqual(set(some), {"out", "lse", *chosen.split(",")})
                self.assertEqual(set(report["backward"]["errors"]), set(chosen.split(",")))
                for name in some:
                    self.assertEqual(some[name], every[name], f"{device} {chosen} {name}")
        data = self.save("in.st", tensors)
        self.fails(2, "'d_nothing' is not a gradient", "run", *mod, "--gradients", "dq,d_nothing", "--input", data,
                   "--output", "x.st")  # fmt: skip
        self.fails(2, "--gradients", "run", "--gradients", "dq", "--input", data, "--output", "x.st")

    def test_the_reference_sums_in_full(self):
        """The gradient of a run-time scalar in F64 is a sum of so many terms that doubles alone lose what is checked."""
        mod = self.file("mod.py", "ALPHA = 0.5\ndef score_mod(score, b, h, q, kv):\n    return score * ALPHA\n")
        rng = random.Random(0)
        for _ in range(3):
            tensors = {name: drawn(rng, "F64", 1, 16, 200, 16) for name in ("q", "k", "v", "do")}
            self.run_on("cpu", tensors, mod, "--runtime-param", "ALPHA", "--backward", "--check")

    # ---- Bad input -------------------------------------------------------------------------------------

    def test_what_does_not_fit(self):
        _, _, packed = self.packed(random.Random(2), "F32", (4, 5), (6, 7))
        _, paged = self.paged(random.Random(2), "F32", (20, 9), 16, 2, 1)
        wrong = [
            (packed, {"cu_seqlens_q": i32(0, 10, 9)}, "cu_seqlens_q decreases from 10 to 9 at index 2"),
            (packed, {"cu_seqlens_q": i32(1, 4, 9)}, "cu_seqlens_q begins with 1, not with 0"),
            (packed, {"cu_seqlens_kv": i32(0, 6, 12)}, "cu_seqlens_kv ends with 12, but key has 13 rows"),
            (packed, {"cu_seqlens_kv": i32(0, 13)}, "'cu_seqlens_kv' is [2], but must be [3]"),
            (packed, {"cu_seqlens_q": i32()}, "'cu_seqlens_q' is empty"),
            (packed, {"cu_seqlens_kv": None}, "'cu_seqlens_kv' [B+1] is missing"),
            (packed, {"cu_seqlens_q": ("I64", [3], [0, 4, 9])}, "'cu_seqlens_q' is I64, but must be I32"),
            (packed, {"q_offset": i32(0, -1)}, "q_offset[1] is -1"),
            (packed, {"q_offset": i32(2**31 - 1, 0)}, "q_offset[0] is 2147483647"),
            (packed, {"v": ("F32", [12, KV_HEADS, EV], [0.0] * 12 * KV_HEADS * EV)}, "'v' is [12,2,8]"),
            (paged, {"kv_lens": i32(33, 9)}, "kv_lens[0] is 33: the table's 2 pages of 16 have 0 to 32 keys"),
            (paged, {"kv_lens": i32(20, -1)}, "kv_lens[1] is -1"),
            (paged, {"page_table": ("I32", [2, 2], [0, 7, 1, -1])}, "page_table[0,1] is 7: there are 7 pages"),
            (paged, {"page_table": ("I32", [2, 2], [0, -2, 1, -1])}, "page_table[0,1] is -2"),
            (paged, {"page_table": ("I32", [1, 2], [0, 1])}, "'page_table' has 1 rows, but 'q' has a batch of 2"),
            (packed, {"cu_seqlens_q": None, "cu_seqlens_kv": None}, "packed sequences have tensors cu_seqlens_q"),
            (paged, {"kv_lens": None}, "'kv_lens' [B] is missing"),
            (paged, {"v_pages": None}, "'v_pages' [N,P,Hkv,Ev] is missing"),
        ]  # fmt: skip
        for tensors, changes, text in wrong:
            for device in DEVICES:
                all_tensors = {name: x for name, x in {**tensors, **changes}.items() if x is not None}
                path = self.save("in.st", all_tensors)
                failed = self.fails(1, text, "run", "--input", path, "--output", self.folder / "bad.st", "--device", device)
                self.assertIn(f"{path}: ", failed.stderr)
                self.assertFalse((self.folder / "bad.st").exists())
        self.fails(1, "no backward", "run", "--backward", "--input", self.save("in.st", paged), "--output",
                   self.folder / "bad.st")  # fmt: skip


if __name__ == "__main__":
    harness.main()
