"""Sinks, mods of the output and dropout on the command line: `run`, `bench`, `show`, manifests."""

import json
import math

import harness

GATED = """
def out_mod(out, b, h, q_idx, d_idx):
    return out * gate[h, d_idx] + q_idx

def sink_mod(b, h):
    return 2.0 * sink[h]
"""


def philox(counter, key):
    """Philox 4x32-10 of Salmon et al., 2011."""
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def keeps(rate, seed, plane, q, kv):
    """What flexjit.h says of dropout, for an offset of 0."""
    key = philox([0, 0, 0, 0], [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])[:2]
    word = philox([kv // 64 * 16 + kv % 16, q, plane & 0xFFFFFFFF, plane >> 32], key)[kv // 16 % 4]
    return word >= rate * 2**32


class Case(harness.Case):
    def call(self, tensors, *more, status=0, device="reference"):
        path, out = self.file("in.safetensors", harness.safetensors(tensors)), self.folder / "out.safetensors"
        done = self.flexjit("run", "--device", device, "--input", path, "--output", out, "--json", *more)
        self.assertEqual(done.returncode, status, f"{more}\n{done.stdout}{done.stderr}")
        report = json.loads(done.stdout)
        return report, harness.read_safetensors(out) if status == 0 else None

    def near(self, got, want, tolerance=1e-12):
        self.assertEqual(len(got), len(want))
        for i, (x, y) in enumerate(zip(got, want)):
            self.assertLessEqual(abs(x - y), tolerance * (1 + abs(y)), f"element {i}: {x}, not {y}")


class Sinks(Case):
    def test_a_tensor_named_sink_joins_the_denominator(self):
        tensors = harness.attention_tensors("F64", s=3, backward=True)
        _, plain = self.call(tensors)
        tensors["sink"] = ("F64", [2], [0.5, -math.inf])
        report, got = self.call(tensors, "--backward", "--check")
        lse = plain["lse"][2]
        want = [math.log(math.exp(x) + math.exp(0.5)) for x in lse[:5]] + lse[5:]
        self.near(got["lse"][2], want)
        share = [math.exp(x - y) for x, y in zip(lse, want)]
        self.near(got["out"][2], [x * share[i // 8] for i, x in enumerate(plain["out"][2])])
        # what the sink takes from the output: -P_sink * (out . do)
        dots = [sum(a * b for a, b in zip(got["out"][2][r * 8 : r * 8 + 8], tensors["do"][2][r * 8 : r * 8 + 8])) for r in range(5)]
        self.near(got["d_sink"][2], [-sum(math.exp(0.5 - want[r]) * dots[r] for r in range(5)), 0])
        self.assertTrue(report["backward"]["errors"]["d_sink"]["ok"])

    def test_a_mod_of_the_file_takes_it(self):
        mod = self.file("mod.py", GATED)
        tensors = harness.attention_tensors("F32", backward=True)
        tensors["sink"], tensors["gate"] = harness.normal("F32", (2,), 5), harness.normal("F32", (2, 8), 6)
        report, got = self.call(tensors, mod, "--backward", "--check")
        self.assertEqual(set(got), {"out", "lse", "dq", "dk", "dv", "d_gate", "d_sink"})
        self.assertNotIn("warnings", report)
        twice = dict(tensors, sink=("F32", [2], [2 * x for x in tensors["sink"][2]]))
        _, same = self.call(twice, "--out", "out * gate[h, d] + q", "--backward")
        for name in ("out", "lse", "dq", "dk", "dv", "d_gate"):
            self.assertEqual(got[name], same[name], name)
        self.near(got["d_sink"][2], [2 * x for x in same["d_sink"][2]], 1e-6)

    def test_rows_that_see_nothing(self):
        tensors = harness.attention_tensors("BF16", backward=True)
        tensors["sink"] = ("F32", [2], [1.5, -2.0])
        more = ("--mask", "q > 1", "--backward", "--check", "--max")
        _, got = self.call(tensors, *more)
        self.assertEqual(got["lse"][2][:2] + got["lse"][2][5:7], [1.5, 1.5, -2.0, -2.0])
        self.assertEqual(got["max"][2][:2], [-math.inf, -math.inf])
        self.assertEqual(got["out"][2][:16], [0] * 16)
        self.assertEqual(got["dq"][2][:16], [0] * 16)
        _, got = self.call(tensors, "--out", "out + 1 + d", *more)
        self.assertEqual(got["out"][2][:8], [1 + d for d in range(8)])

    def test_what_rows_that_see_nothing_hold(self):
        tensors = harness.attention_tensors("F32", backward=True)
        tensors["sink"] = ("F32", [2], [1.5, -2.0])
        width = len(tensors["do"][2]) // 10
        hidden = [i // width % 5 < 2 for i in range(len(tensors["do"][2]))]
        made = [
            tensors | {name: tensors[name][:2] + ([x if not h else fill for x, h in zip(tensors[name][2], hidden)],) for name in ("q", "do")}
            for fill in (0.0, math.nan, math.inf)
        ]  # fmt: skip
        for device in ("reference", "cpu", "emu"):
            got = [self.call(each, "--mask", "q > 1", "--backward", device=device)[1] for each in made]
            self.assertEqual(got[0], got[1], device)
            self.assertEqual(got[0], got[2], device)

    def test_a_sink_that_is_nan_or_infinite(self):
        """All that see something are NaN, on every device; rows that see nothing still give 0."""
        tensors = harness.attention_tensors("F32", backward=True)
        tensors["sink"] = ("F32", [2], [math.inf, math.nan])
        for device in ("reference", "cpu", "emu"):
            _, got = self.call(tensors, "--mask", "q > 1", "--backward", "--check", device=device)
            for head in range(2):
                row = got["out"][2][head * 40 : head * 40 + 40]
                self.assertEqual(row[:16], [0] * 16, device)
                self.assertTrue(all(math.isnan(x) for x in row[16:]), device)
            self.assertTrue(all(math.isnan(x) for x in got["lse"][2] + got["d_sink"][2]), device)
            self.assertEqual(got["dq"][2][:16], [0] * 16, device)

    def test_what_is_no_sink(self):
        tensors = harness.attention_tensors("F32")
        self.call(tensors | {"sink": harness.normal("F32", (2,), 1)}, "--score", "score + sink[h]")
        for sink, text in [
            (("I32", [2], [0, 1]), "tensor 'sink' is I32, not one of F16, BF16, F32, F64"),
            (("F32", [3], [0] * 3), "tensor 'sink' is [3], but must be [2], a logit for each head of 'q'"),
        ]:
            report, _ = self.call(tensors | {"sink": sink}, status=1)
            self.assertEqual(report["error"]["text"], text)
        report, _ = self.call(tensors | {"sink": ("F32", [2, 1], [0, 1])})
        self.assertIn("nothing uses tensor 'sink'", report["warnings"][0])


class Dropout(Case):
    def test_it_drops_what_the_definition_says(self):
        tensors = harness.attention_tensors("F64", b=2, l=3, s=130, e=4, ev=2)
        tensors["q"] = ("F64", tensors["q"][1], [0.0] * math.prod(tensors["q"][1]))
        value = tensors["v"][2]
        for seed, word in [("0", 0), ("-3", 2**64 - 3), (str(2**64 - 3), 2**64 - 3), (str(2**32), 2**32)]:
            report, got = self.call(tensors, "--dropout", "0.25", "--seed", seed)
            self.assertEqual((report["dropout"], report["seed"]), (0.25, str(word)))
            want = []
            for row in range(2 * 2 * 3):
                plane, q = divmod(row, 3)
                kept = [kv for kv in range(130) if keeps(0.25, word, plane, q, kv)]
                base = plane // 2 * 130 * 2
                want += [sum(value[base + kv * 2 + d] for kv in kept) / 130 / 0.75 for d in range(2)]
            self.near(got["out"][2], want)
            self.near(got["lse"][2], [math.log(130)] * 12)

    def test_every_device_drops_the_same_in_both_directions(self):
        """Values and dO that are unit matrices show what is kept: rows of out, columns of dv."""
        n, rate, seed = 70, 0.4, 2**63 + 5
        unit = [float(i == j) for i in range(n) for j in range(n)]
        kept = [[keeps(rate, seed, plane, q, kv) for kv in range(n)] for plane in range(2) for q in range(n)]
        tensors = {"q": ("F32", [1, 2, n, 4], [0.0] * (2 * n * 4)), "k": ("F32", [1, 2, n, 4], [0.0] * (2 * n * 4)),
                   "v": ("F32", [1, 2, n, n], unit * 2), "do": ("F32", [1, 2, n, n], unit * 2)}  # fmt: skip
        for device in ("reference", "cpu", "emu"):
            _, got = self.call(tensors, "--dropout", repr(rate), "--seed", str(seed), "--backward", device=device)
            out, dv = got["out"][2], got["dv"][2]
            for plane in range(2):
                for q in range(n):
                    row = [out[(plane * n + q) * n + kv] != 0 for kv in range(n)]
                    column = [dv[(plane * n + kv) * n + q] != 0 for kv in range(n)]
                    self.assertEqual(row, kept[plane * n + q], (device, plane, q))
                    self.assertEqual(column, row, (device, plane, q))

    def test_check_and_ends(self):
        tensors = harness.attention_tensors("BF16", s=70, backward=True)
        report, got = self.call(tensors, "--dropout", "0.4", "--backward", "--check")
        self.assertTrue(all(e["ok"] for e in report["backward"]["errors"].values()))
        _, plain = self.call(tensors, "--backward")
        self.assertNotEqual(got["out"], plain["out"])
        self.assertEqual(got["lse"], plain["lse"])
        _, none = self.call(tensors, "--dropout", "0", "--seed", "5", "--backward")
        self.assertEqual(none, plain)
        _, all_dropped = self.call(tensors, "--dropout", "1", "--backward")
        for name in ("out", "dq", "dk", "dv"):
            self.assertEqual(set(all_dropped[name][2]), {0.0}, name)

    def test_refusals(self):
        path = self.tensors()
        run = ("run", "--device", "reference", "--input", path, "--output", self.folder / "out")
        for more, text in [
            (("--dropout", "1.5"), "'--dropout' takes a probability from 0 to 1, not '1.5'"),
            (("--dropout", "-0.1"), "'--dropout' takes a probability from 0 to 1, not '-0.1'"),
            (("--dropout", "nan"), "'--dropout' takes a finite number"),
            (("--seed", "1"), "'--seed' is for --dropout"),
            (("--dropout", "0.1", "--seed", str(2**64)), "'--seed' takes an integer of 64 bits"),
            (("--dropout", "0.1", "--seed", str(-(2**63) - 1)), "'--seed' takes an integer of 64 bits"),
            (("--dropout", "0.1", "--seed", "1.0"), "'--seed' takes an integer of 64 bits"),
        ]:
            self.fails(2, text, *run, *more)


class Others(harness.Case):
    def test_show_says_that_a_kernel_has_dropout(self):
        show = ("show", "--score", "score", "--device", "cpu", "--stage", "plan,key,prologue")
        text = self.ok(*show, "--dropout", "0.1").stdout
        for line in ("dropout       yes\n", "\ndropout 1\n", "#define FJ_DROPOUT 1\n"):
            self.assertIn(line, text)
        text = self.ok(*show).stdout
        self.assertNotIn("dropout ", text)
        self.assertIn("#define FJ_DROPOUT 0\n", text)

    def test_bench_has_them(self):
        shape = ("--shape", "1,2,1,8,8,4", "--device", "reference", "--once", "--direction", "fwd,bwd")
        more = ("--out", "out * g[h]", "--bind", "g=F32[2]", "--sink", "s[h]", "--bind", "s=F32[2]", "--dropout", "0.1")
        self.assertEqual(len(json.loads(self.ok("bench", *shape, *more, "--json").stdout)["rows"]), 2)

    def test_mask_needs_none_of_them(self):
        mod = ("--mask", "q >= kv", "--out", "out * gate[h]", "--sink", "s[h]")
        report = json.loads(self.ok("mask", *mod, "--q-len", 256, "--kv-len", 256, "--json").stdout)
        self.assertEqual(report["partial"], 4)


if __name__ == "__main__":
    harness.main()
