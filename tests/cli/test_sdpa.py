"""sdpa: attention of tensors as PyTorch defines it: masks, broadcast, jagged sequences, backends; every error."""

import itertools
import json
import math
import random

import harness


def drawn(rng, dtype, *shape):
    count = math.prod(shape)
    if dtype == "BOOL":
        return dtype, list(shape), [int(rng.random() < 0.7) for _ in range(count)]
    return dtype, list(shape), [rng.gauss(0, 1) for _ in range(count)]


def i32(*values):
    return "I32", [len(values)], list(values)


def inputs(rng, dtype="F32", q=(2, 4, 7, 16), k=(2, 4, 9, 16), v=(2, 4, 9, 8), out=(2, 4, 7, 8), **more):
    tensors = {"q": drawn(rng, dtype, *q), "k": drawn(rng, dtype, *k), "v": drawn(rng, dtype, *v), "do": drawn(rng, dtype, *out)}
    for name, (kind, *shape) in more.items():
        tensors[name] = drawn(rng, kind, *shape)
    return tensors


# ---- The definition, in Python --------------------------------------------------------------------------


def at(tensor, *index):
    """An element; axes are aligned at the right, an extent of 1 stands for any, fewer heads for groups."""
    _, shape, values = tensor
    index = index[len(index) - len(shape) :]
    place = 0
    for extent, i in zip(shape, index):
        place = place * extent + (0 if extent == 1 else i)
    return values[place]


def attention(q, k, v, mask=None, causal=None, scale=None, heads=None):
    """Rows of out for [B,H,L,S] of the tensors' own."""
    shapes = [[1] * (4 - len(t[1])) + t[1] for t in (q, k, v)]
    batch = max(s[0] for s in shapes)
    heads = max(s[1] for s in shapes)
    length, keys, width, value_width = shapes[0][2], shapes[1][2], shapes[0][3], shapes[2][3]
    scale = 1 / math.sqrt(width) if scale is None else scale
    out = []
    for b, h, i in itertools.product(range(batch), range(heads), range(length)):
        key_head, value_head = (h * s[1] // heads for s in shapes[1:])
        scores = []
        for j in range(keys):
            score = scale * sum(at(q, b, h, i, e) * at(k, b, key_head, j, e) for e in range(width))
            if mask and mask[0] == "BOOL":
                score = score if at(mask, b, h, i, j) else -math.inf
            elif mask:
                score += at(mask, b, h, i, j)
            if causal == "upper" and j > i or causal == "lower" and j > i + keys - length:
                score = -math.inf
            scores.append(score)
        most = max(scores, default=-math.inf)
        weights = [math.exp(s - most) if most > -math.inf else 0.0 for s in scores]
        total = sum(weights) or 1.0
        out += [sum(w * at(v, b, value_head, j, e) for j, w in enumerate(weights)) / total for e in range(value_width)]
    return out


class Sdpa(harness.Case):
    def save(self, name, tensors):
        return self.file(name, harness.safetensors(tensors))

    def run_on(self, device, tensors, *options):
        out = self.folder / "out.st"
        report = self.ok("sdpa", *options, "--input", self.save("in.st", tensors), "--output", out, "--json",
                         "--device", device)  # fmt: skip
        return harness.read_safetensors(out), json.loads(report.stdout)

    def checked(self, device, tensors, *options):
        """Every output within the bounds of --check, with the names that it has."""
        found, report = self.run_on(device, tensors, "--backward", "--check", *options)
        names = {*report["errors"], *report["backward"]["errors"]}
        self.assertEqual(names, set(found))
        return found, report

    def near(self, got, want, bound):
        self.assertEqual(len(got), len(want))
        for x, y in zip(got, want):
            self.assertLessEqual(abs(x - y), bound * (1 + abs(y)))

    # ---- Masks -------------------------------------------------------------------------------------------

    def test_masks_of_every_rank(self):
        """Each of the 16 patterns of extents of 1, against the definition; BOOL keeps, floats are added."""
        rng = random.Random(1)
        for number, ones in enumerate(itertools.product((False, True), repeat=4)):
            shape = [1 if one else extent for one, extent in zip(ones, (2, 4, 7, 9))]
            shape = shape[number % 2 if shape[0] == 1 else 0 :]
            tensors = inputs(rng, "F64", mask=("BOOL" if number % 3 == 0 else "F64", *shape))
            found, report = self.run_on("reference", tensors)
            self.near(found["out"][2], attention(*(tensors[n] for n in ("q", "k", "v", "mask"))), 1e-12)
            self.assertEqual(report["backend"], "math")

    def test_masks_by_kernels(self):
        """Gradients too; the mask's in its shape."""
        rng = random.Random(2)
        for device, dtype, mask in (("cpu", "F32", ("F32", 2, 1, 7, 9)), ("cpu", "BF16", ("BOOL", 4, 1, 9)), ("emu", "F32", ("F16", 1, 4, 7, 1))):
            found, _ = self.checked(device, inputs(rng, dtype, mask=mask))
            if mask[0] == "BOOL":
                self.assertNotIn("dmask", found)
            else:
                self.assertEqual(found["dmask"][:2], ("F64" if dtype == "F64" else "F32", list(mask[1:])))

    def test_masks_that_hide_whole_rows(self):
        """BOOL or -inf: 0 and no NaN."""
        rng = random.Random(3)
        for device, mask in (("reference", ("BOOL", [7, 9], [0] * 18 + [1] * 45)), ("cpu", ("F32", [1, 1, 7, 9], [-math.inf] * 18 + [0.0] * 45))):
            tensors = {**inputs(rng), "mask": mask}
            found, _ = self.checked(device, tensors)
            for head in range(8):
                self.assertEqual(found["out"][2][head * 56 : head * 56 + 16], [0.0] * 16)
                self.assertEqual(found["lse"][2][head * 7 : head * 7 + 2], [-math.inf] * 2)

    # ---- Positions and scale -----------------------------------------------------------------------------

    def test_causal(self):
        rng = random.Random(4)
        for length, keys in ((7, 9), (9, 7)):
            tensors = inputs(rng, "F64", (2, length, 8), (2, keys, 8), (2, keys, 8), (2, length, 8))
            for option, causal in (("--causal", "upper"), ("--causal-lower-right", "lower")):
                found, _ = self.run_on("cpu" if causal == "lower" else "reference", tensors, option)
                self.near(found["out"][2], attention(tensors["q"], tensors["k"], tensors["v"], causal=causal), 1e-12)

    def test_scale(self):
        tensors = inputs(random.Random(5), "F64", (7, 16), (9, 16), (9, 8), (7, 8))
        for scale in (-0.5, 0.0, 3.0):
            found, _ = self.run_on("cpu", tensors, "--scale", scale)
            self.near(found["out"][2], attention(tensors["q"], tensors["k"], tensors["v"], scale=scale), 1e-12)

    def test_dropout(self):
        """What is kept is the same forward and backward, and on every device (--check); the seed says which."""
        tensors = inputs(random.Random(16))
        found, _ = self.checked("cpu", tensors, "--dropout", 0.3, "--seed", 5)
        same, _ = self.run_on("reference", tensors, "--dropout", 0.3, "--seed", 5)
        self.near(found["out"][2], same["out"][2], 1e-5)
        other, _ = self.run_on("reference", tensors, "--dropout", 0.3, "--seed", 6)
        self.assertNotEqual(other["out"], same["out"])
        none, _ = self.run_on("reference", tensors, "--dropout", 1)
        self.assertEqual((set(none["out"][2]), none["lse"]), ({0.0}, same["lse"]))
        options = ("--input", self.save("in.st", tensors), "--output", self.folder / "out.st")
        self.fails(2, "takes a probability from 0 to 1, not '1.5'", "sdpa", *options, "--dropout", 1.5)
        self.fails(2, "option '--seed' is for --dropout", "sdpa", *options, "--seed", 1)

    # ---- Ranks and broadcast -----------------------------------------------------------------------------

    def test_ranks(self):
        """The same numbers of any rank give the same."""
        rng = random.Random(6)
        four = inputs(rng, "F32", (1, 1, 7, 16), (1, 1, 9, 16), (1, 1, 9, 8), (1, 1, 7, 8))
        whole, _ = self.run_on("cpu", four, "--backward")
        for rank in (2, 3):
            fewer = {name: (d, shape[4 - rank :], values) for name, (d, shape, values) in four.items()}
            found, _ = self.run_on("cpu", fewer, "--backward")
            for name, (_, shape, values) in found.items():
                self.assertEqual((shape, values), (whole[name][1][4 - rank :], whole[name][2]), name)

    def test_broadcast(self):
        """Batches and heads of 1, groups of heads that differ: by value, and gradients of the tensor's own shape."""
        rng = random.Random(7)
        for q, k, v in (((1, 4), (2, 4), (2, 4)), ((2, 4), (1, 4), (2, 4)), ((2, 4), (1, 2), (1, 2)), ((2, 1), (2, 4), (1, 4)),
                        ((2, 4), (2, 1), (2, 4)), ((1, 6), (2, 2), (1, 3))):  # fmt: skip
            heads = max(q[1], k[1], v[1])
            tensors = inputs(rng, "F32", (*q, 7, 16), (*k, 9, 16), (*v, 9, 8), (2, heads, 7, 8))
            for device in ("cpu", "reference") if q == (1, 4) else ("reference",):
                found, report = self.checked(device, tensors)
                self.near(found["out"][2], attention(tensors["q"], tensors["k"], tensors["v"]), 1e-5)
                for name, of in (("dq", "q"), ("dk", "k"), ("dv", "v")):
                    self.assertEqual(found[name][1], tensors[of][1])
            self.assertEqual("dquery" in report["backward"]["copies"], q[0] == 1 or q[1] == 1)

    def test_lengths_of_zero(self):
        rng = random.Random(8)
        for batch, length, keys in ((2, 0, 9), (2, 7, 0), (0, 7, 9)):
            tensors = inputs(rng, "F32", (batch, 4, length, 16), (batch, 4, keys, 16), (batch, 4, keys, 8), (batch, 4, length, 8))
            found, _ = self.checked("cpu", tensors)
            self.assertTrue(all(x == 0 for x in found["out"][2]))
            self.assertEqual(found["dk"][1], [batch, 4, keys, 16])

    # ---- Jagged ------------------------------------------------------------------------------------------

    def test_jagged_is_each_sequence_alone(self):
        rng = random.Random(9)
        q_at, kv_at = (0, 5, 5, 17), (0, 3, 12, 20)
        tensors = {**inputs(rng, "F64", (17, 4, 8), (20, 2, 8), (20, 1, 8), (17, 4, 8)),
                   "cu_seqlens_q": ("I64", [4], list(q_at)), "cu_seqlens_kv": i32(*kv_at)}  # fmt: skip
        for device, option, causal in (("reference", (), None), ("reference", ("--causal",), "upper"), ("cpu", ("--causal-lower-right",), "lower")):
            found, report = self.checked(device, tensors, *option)
            self.assertEqual(report["form"], "packed")
            for b in range(3):
                one = [self.sequence(tensors[n], *(q_at if n == "q" else kv_at)[b : b + 2]) for n in ("q", "k", "v")]
                if q_at[b] == q_at[b + 1]:
                    continue
                self.near(self.sequence(found["out"], *q_at[b : b + 2])[2], attention(*one, causal=causal), 1e-12)

    def sequence(self, tensor, first, last):
        """Rows of [T,H,E] as [H,rows,E]."""
        dtype, (_, heads, width), values = tensor
        rows = [values[(row * heads + h) * width + e] for h in range(heads) for row in range(first, last) for e in range(width)]
        return dtype, [heads, last - first, width], rows

    def test_jagged_broadcast(self):
        """One batch or one head of q, k and v: as with what is the same for all written out. tests/sdpa has all 64 combinations."""
        rng = random.Random(10)
        batch, heads, length = 3, 2, 5
        lists = i32(*(b * length for b in range(batch + 1)))
        for ones in list(itertools.product((False, True), repeat=6))[5::9]:
            tensors, whole = {}, {}
            for number, (name, width) in enumerate((("q", 8), ("k", 8), ("v", 4))):
                one_batch, one_head = ones[2 * number : 2 * number + 2]
                own = 1 if one_head else heads
                if one_batch:
                    tensors[name] = drawn(rng, "F64", 1, own, length, width)
                else:
                    tensors[name] = drawn(rng, "F64", batch * length, own, width)
                whole[name] = self.dense(tensors[name], batch, length)
            if not ones[0]:
                tensors["cu_seqlens_q"] = lists
            if not (ones[2] and ones[4]):
                tensors["cu_seqlens_kv"] = lists
            if ones[0] and ones[2] and ones[4]:
                continue  # a dense call
            out_heads = heads if not all(ones[1::2]) else 1
            tensors["do"] = drawn(rng, "F64", batch * length, out_heads, 4)
            found, _ = self.run_on("reference", tensors, "--backward")
            self.near(self.dense(found["out"], batch, length)[2], attention(whole["q"], whole["k"], whole["v"]), 1e-12)
            dense = {**whole, "do": self.dense(tensors["do"], batch, length)}
            want, _ = self.run_on("reference", dense, "--backward")
            for name, of in (("dq", "q"), ("dk", "k"), ("dv", "v")):
                self.assertEqual(found[name][1], tensors[of][1])
                got = found[name]
                if len(got[1]) == 3:
                    got, all_of = self.dense(got, batch, length), want[name][2]
                else:
                    size = len(want[name][2]) // batch
                    all_of = [sum(want[name][2][b * size + i] for b in range(batch)) for i in range(size)]
                self.near(got[2], all_of, 1e-12)

    def dense(self, tensor, batch, length):
        """[B*L,H,E] as [B,H,L,E]; [1,H,L,E] for each batch."""
        dtype, shape, values = tensor
        if len(shape) == 4:
            return dtype, [batch, *shape[1:]], values * batch
        _, heads, width = shape
        return dtype, [batch, heads, length, width], [
            values[((b * length + row) * heads + h) * width + e]
            for b in range(batch) for h in range(heads) for row in range(length) for e in range(width)
        ]  # fmt: skip

    def test_jagged_by_kernels(self):
        """What is the same for every sequence is copied, on devices whose memory is the host's."""
        rng = random.Random(11)
        tensors = {**inputs(rng, "F32", (17, 4, 16), (1, 4, 6, 16), (1, 1, 6, 8), (17, 4, 8)), "cu_seqlens_q": i32(0, 5, 5, 17)}
        for device in ("cpu", "emu"):
            _, report = self.checked(device, tensors)
            self.assertIn("key is copied: it serves every sequence", report["copies"])

    # ---- Backends ----------------------------------------------------------------------------------------

    def test_backends(self):
        tensors = inputs(random.Random(12))
        for device, backend, refused in (("cpu", "cpu", ["efficient", "flash"]), ("emu", "flash", ["cpu"]), ("reference", "math", ["cpu", "efficient", "flash"])):
            _, report = self.run_on(device, tensors)
            self.assertEqual(report["backend"], backend)
            self.assertEqual(sorted(r["backend"] for r in report["refused"]), refused)
            self.assertTrue(all(r["reason"] for r in report["refused"]))
        for device, allowed, backend in (("cpu", "math,flash", "math"), ("emu", "efficient", "efficient"), ("cpu", "cpu", "cpu")):
            _, report = self.run_on(device, tensors, "--backend", allowed)
            self.assertEqual(report["backend"], backend)
        _, report = self.run_on("emu", inputs(random.Random(12), "F64"))
        self.assertEqual((report["backend"], report["refused"][0]["reason"]), ("efficient", "query is F64: its kernels take F16, BF16 and F32"))

    def test_no_backend_is_left(self):
        tensors = self.save("in.st", inputs(random.Random(13)))
        wide = self.save("wide.st", inputs(random.Random(13), "F32", (7, 257), (9, 257), (9, 8), (7, 8)))
        options = ("--output", self.folder / "out.st", "--device", "cpu")
        done = self.flexjit("sdpa", "--input", tensors, *options, "--backend", "flash,efficient", "--json")
        self.assertEqual(done.returncode, 1)
        report = json.loads(done.stdout)
        self.assertEqual([r["backend"] for r in report["refused"]], ["flash", "efficient", "cpu", "math"])
        for each in report["refused"]:
            self.assertIn(each["reason"], done.stderr)
        self.fails(1, "query has shape [7,257]: head dimensions, the last extent, are 1 to 256", "sdpa", "--input", wide, *options)
        self.fails(2, "unknown backend 'fast'", "sdpa", "--input", tensors, *options, "--backend", "fast")
        self.assertFalse((self.folder / "out.st").exists())

    # ---- Errors ------------------------------------------------------------------------------------------

    def test_errors(self):
        rng = random.Random(14)
        good = inputs(rng)
        lists = {"cu_seqlens_q": i32(0, 3, 7), "cu_seqlens_kv": i32(0, 4, 9)}
        jagged = inputs(rng, "F32", (7, 4, 16), (9, 4, 16), (9, 4, 8), (7, 4, 8))
        cases = (
            ({"q": drawn(rng, "F32", 16)}, "query has rank 1, shape [16]: it is [L,E], [H,L,E] or [B,H,L,E]"),
            ({"k": drawn(rng, "F16", 2, 4, 9, 16)}, "key is F16, query F32"),
            ({"q": i32(1, 2)}, "query has rank 1"),
            ({"k": drawn(rng, "F32", 2, 4, 9, 15)}, "query and key have one head dimension"),
            ({"v": drawn(rng, "F32", 2, 4, 8, 8)}, "value [2,4,8,8]: key and value have one length"),
            ({"k": drawn(rng, "F32", 3, 4, 9, 16)}, "batches are equal, or 1"),
            ({"k": drawn(rng, "F32", 2, 3, 9, 16)}, "query's heads are a multiple of key's and of value's, or 1"),
            ({"mask": drawn(rng, "F32", 3, 7, 9)}, "mask has shape [3,7,9]: each dimension is that of [B,H,L,S] = [2,4,7,9]"),
            ({"mask": drawn(rng, "BOOL", 9, 7)}, "mask has shape [9,7]"),
            ({"mask": ("I32", [9], [1] * 9)}, "mask is I32: BOOL (true keeps) and floats (added to the scores) are allowed"),
            ({"mask": drawn(rng, "F32", 1, 1, 1, 7, 9)}, "tensor 'mask' has rank 5"),
            ({"mask": ("BOOL", [9], [2] * 9)}, "is 2, which is not a BOOL"),
            ({"do": drawn(rng, "F32", 2, 4, 7, 9)}, "dout has shape [2,4,7,9]: it is [2,4,7,8]"),
            ({"dlse": drawn(rng, "F64", 7)}, "dlse has rank 1, shape [7]: it is [2,4,7]"),
            ({**jagged, **lists, "cu_seqlens_q": i32(0, 8, 7)}, "cu_seqlens_q decreases from 8 to 7 at index 2"),
            ({**jagged, **lists, "cu_seqlens_kv": i32(0, 4, 8)}, "cu_seqlens_kv ends with 8, but key has 9 rows"),
            ({**jagged, **lists, "cu_seqlens_kv": i32(0, 9)}, "cu_seqlens_kv has 2 elements, cu_seqlens_q 3"),
            ({**jagged, "cu_seqlens_q": i32(0, 3, 7)}, "cu_seqlens_kv is missing: key has the rows of all sequences"),
            ({**jagged, **lists, "k": drawn(rng, "F32", 1, 4, 5, 16)}, "key is the same 5 rows for every sequence, but sequence 0 has 4 keys"),
            ({**jagged, **lists, "q": drawn(rng, "F32", 2, 4, 7, 16)}, "of jagged calls a tensor of rank 4 has a batch of 1"),
        )  # fmt: skip
        for change, text in cases:
            path = self.save("bad.st", {**good, **change})
            self.fails(1, text, "sdpa", "--input", path, "--output", self.folder / "out.st", "--backward", "--device", "cpu")
        masked = self.save("masked.st", inputs(rng, mask=("BOOL", 9)))
        options = ("--output", self.folder / "out.st", "--device", "cpu")
        self.fails(1, "mask is given, but causal too", "sdpa", "--input", masked, *options, "--causal")
        self.fails(2, "exclude each other", "sdpa", "--input", masked, *options, "--causal", "--causal-lower-right")
        self.fails(1, "tensor 'do' is missing", "sdpa", "--input", self.save("no.st", {n: good[n] for n in "qkv"}), *options, "--backward")
        self.fails(2, "--input FILE is missing", "sdpa", *options)
        self.assertFalse((self.folder / "out.st").exists())

    def test_a_tensor_that_nothing_uses(self):
        out = self.folder / "out.st"
        done = self.ok("sdpa", "--input", self.save("in.st", inputs(random.Random(15))), "--output", out, "--device", "reference")
        self.assertIn("nothing uses tensor 'do'", done.stderr)


if __name__ == "__main__":
    harness.main()
