"""Casts at the edges of their types: the reference, every instruction set of the cpu device and the CUDA text agree."""

import re

import harness

INT32, INT64 = 2**31, 2**63
INF = float("inf")

# Of each row: a float, and what it is as int32, as int64, as bool. A float truncates and saturates; NaN gives 0.
FLOATS = [
    (float("nan"), 0, 0, 1),
    (INF, INT32 - 1, INT64 - 1, 1),
    (-INF, -INT32, -INT64, 1),
    (2.0**31, INT32 - 1, INT32, 1),
    (2.0**31 - 128, INT32 - 128, INT32 - 128, 1),
    (-(2.0**31), -INT32, -INT32, 1),
    (-(2.0**31) - 256, -INT32, -INT32 - 256, 1),
    (3e9, INT32 - 1, 3 * 10**9, 1),
    (2.0**63, INT32 - 1, INT64 - 1, 1),
    (-(2.0**63), -INT32, -INT64, 1),
    (2.0**62, INT32 - 1, 2**62, 1),
    (-(2.0**70), -INT32, -INT64, 1),
    (0.99, 0, 0, 1),
    (-0.99, 0, 0, 1),
    (-0.0, 0, 0, 0),
    (1e-45, 0, 0, 1),
]
# An int64, and what it is as int32: it wraps.
WIDE = [2**31, -(2**31) - 1, 2**32, 2**32 + 7, -1, INT64 - 1, -INT64, 3 * 10**9] * 2

SCORE = " & ".join(["(f[kv].int() == i[kv])", "(f[kv].long() == l[kv])", "(f[kv].bool() == t[kv])", "(w[kv].int() == n[kv])",
                    "(n[kv] * 65536 == (w[kv] * 65536).int())", "(n[kv].long().int() == n[kv])", "(w[kv].bool() == (w[kv] != 0))"])


def wrapped(value):
    return (value + INT32) % (2 * INT32) - INT32


class Casts(harness.Case):
    def test_edges(self):
        size = len(FLOATS)
        unit = [float(row == column) for row in range(size) for column in range(size)]
        data = self.file("in.st", harness.safetensors({
            "q": ("F32", [1, 1, 1, 16], [0.0] * 16), "k": ("F32", [1, 1, size, 16], [0.0] * size * 16),
            "v": ("F32", [1, 1, size, size], unit), "f": ("F32", [size], [row[0] for row in FLOATS]),
            "i": ("I32", [size], [row[1] for row in FLOATS]), "l": ("I64", [size], [row[2] for row in FLOATS]),
            "t": ("BOOL", [size], [row[3] for row in FLOATS]), "w": ("I64", [size], WIDE),
            "n": ("I32", [size], [wrapped(value) for value in WIDE])}))

        def run(*options):
            out = self.folder / "out.st"
            done = self.flexjit("run", "--score", f"where({SCORE}, 0.0, -30.0)", "--input", data, "--output", out, *options)
            if done.returncode == 0:
                weights = harness.read_safetensors(out)["out"][2]
                self.assertEqual([j for j in range(size) if weights[j] < 0.5 / size], [], options)
            return done

        for device in ("reference", "cpu", "emu"):
            done = run("--device", device)
            self.assertEqual(done.returncode, 0, done.stderr)
            if device == "cpu":
                variant = re.search(r"fwd_cpu_\w+", done.stdout)[0]
        for isa in ("avx512", "avx2", "portable"):
            name = re.sub("_[a-z0-9]+$", f"_{isa}", variant)
            done = run("--device", "cpu", "--variant", name)
            self.assertTrue(done.returncode == 0 or "unknown variant" in done.stderr, done.stderr)


if __name__ == "__main__":
    harness.main()
