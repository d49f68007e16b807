#!/usr/bin/env python3
"""Errors at every magnitude of scores and where gradients cancel, next to those of an unfused pass of the same dtype:
tables in Markdown.

usage: magnitudes.py [--tool build/flexjit] [--quick] [--dtypes F32,BF16,F16,F64]
                     [--kinds fill,product,equal,cancel,two,sixteen] DEVICE [OPTION of flexjit run ...]

A cell is the greatest ratio of the mean error to the unfused pass's, both against the reference in double, over the
outputs of a direction. `r` stands at those of which the unfused pass has no error to compare with, as it overflows or is
exact: the share of `--check`'s bound, which is then that of rounding alone. `!` where `--check` fails. Fills put a constant beside ordinary scores, products have random
factors, equal ones constant factors. Where gradients cancel, rows see one key (dP is delta) or scores are tied, and their
factor is a run-time scalar; matrix products of the emulator also truncate (FLEXJIT_EMU_MMA). Needs the standard library alone.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import nonfinite

ROOT = Path(__file__).resolve().parent.parent
B, H, L, S, E, EV = 1, 2, 64, 64, 24, 16  # 1 / sqrt(24) is not a power of 2: large products are rounded
MAGNITUDES = [1e0, 1e2, 1e4, 1e6, 1e7, 1e8, 1e9, 1e10, 1e12, 1e16, 1e20, 1e30, 2.3e38, 3.4e38]
QUICK = [1e2, 1e8, 1e20, 3.4e38]
MOST_FACTOR = {"F16": 1.5e4, "BF16": 1e18, "F32": 1e18, "F64": 1e18}  # of q and k: beyond, a product overflows
KINDS = {"fill": "fills", "product": "products", "equal": "equal products", "cancel": "gradients that cancel",
         "two": "products of two queries", "sixteen": "products of sixteen queries"}  # fmt: skip
FEW = {"two": 2, "sixteen": 16}  # the cpu's forward has ways of its own for these: backward has to find the same scores
FACTOR = "ALPHA = 0.5\n\ndef score_mod(score, b, h, q, kv):\n    return score * ALPHA\n"
CANCEL = [  # E, Ev, the mask, constants of q and k or none, whether v and do are positive
    (16, 256, "q % 5 == kv", None, False),
    (8, 24, "q >= 0", (3.0, 1.7320508), True),
    (1, 1, "q % 5 == kv", None, False),
    (64, 64, "q % 5 == kv", None, True),
    (1, 1, "q >= 0", (3.0, 1.7320508), True),
    (37, 5, "q >= 0", (0.0, 1.0), False),
    (64, 64, "q >= 0", (0.0, 1.0), False),
]
QUICK_CANCEL = 2
FILL = "FILL = 0.0\n\ndef score_mod(score, b, h, q, kv):\n    return torch.where(q % 4 < 2, score, FILL)\n"


def tensors(dtype, kind, size):
    """Inputs whose scores have about the size, or None where the dtype does not reach it."""
    source = random.Random(11)
    factor = math.sqrt(size) if kind != "fill" else 1.0
    if factor > MOST_FACTOR[dtype]:
        return None
    found = {}
    queries = FEW.get(kind, L)
    for name, length, width in (("q", queries, E), ("k", S, E), ("v", S, EV), ("do", queries, EV)):
        count = B * H * length * width
        if name in "qk" and kind == "equal":
            values = [factor / E**0.25] * count
        else:
            values = [(factor if name in "qk" else 1.0) * source.gauss(0, 1) for _ in range(count)]
        found[name] = (dtype, (B, H, length, width), values)
    return found


def cell(errors):
    """The worst of the outputs that have a yardstick, and of those that have none."""
    measured = [e["mean"] / e["unfused"] for e in errors.values() if e["unfused"] > 1e-6 * e["bound"]]
    rounding = [e["mean"] / e["bound"] for e in errors.values() if not e["unfused"] > 1e-6 * e["bound"] and e["mean"]]
    parts = [f"{max(measured):.2f}"] if measured else []
    parts += [f"{max(rounding):.2f}r"] if rounding else []
    return (" ".join(parts) or "0") + ("" if all(e["ok"] for e in errors.values()) else " !")


def cancelling(dtype, case):
    """Inputs of a row of CANCEL."""
    e, ev, _, constants, positive = case
    source = random.Random(11)
    found = {}
    for name, length, width in (("q", L, e), ("k", S, e), ("v", S, ev), ("do", L, ev)):
        count = B * H * length * width
        values = [source.gauss(0, 1) for _ in range(count)]
        if name in "qk" and constants:
            values = [constants[name == "k"]] * count
        elif name not in "qk" and positive:
            values = [abs(x) for x in values]
        found[name] = (dtype, (B, H, length, width), values)
    return found


def judge(options, folder, inputs, rest, products="nearest"):
    """Two cells: forward and backward."""
    nonfinite.save(f"{folder}/in", inputs)
    command = [options.tool, "run", "--input", f"{folder}/in", "--output", f"{folder}/out", "--backward", "--check"]
    command += ["--json", "--device", options.device, *options.rest, *rest]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "FLEXJIT_EMU_MMA": products})
    try:
        report = json.loads(done.stdout)
        return [cell(report["errors"]), cell(report["backward"]["errors"])]
    except (ValueError, KeyError):
        print(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}", file=sys.stderr)
        return ["failed !", "failed !"]


def run(options, folder, dtype, kind, sign, size):
    inputs = tensors(dtype, kind, size)
    if inputs is None:
        return ["-", "-"]
    rest = [f"--scale={sign / math.sqrt(E)!r}"]
    if kind == "fill":
        rest = [f"{folder}/fill.py", "--runtime-param", "FILL", "--param", f"FILL={sign * size!r}"]
    return judge(options, folder, inputs, rest)


def rows(options, folder, kind, dtypes):
    """The names of a table's rows, and their cells."""
    if kind == "cancel":
        for case in CANCEL[:QUICK_CANCEL] if options.quick else CANCEL:
            rest = [f"{folder}/factor.py", "--mask", case[2], "--runtime-param", "ALPHA"]
            for products in ("nearest", "truncate") if options.device == "emu" else ("nearest",):
                cells = [judge(options, folder, cancelling(dtype, case), rest, products) for dtype in dtypes]
                where = "one key" if "==" in case[2] else "tied"
                yield f"{where}, E {case[0]}, Ev {case[1]}, {products}", sum(cells, [])
        return
    for size in QUICK if options.quick else MAGNITUDES:
        for sign in (1, -1):
            yield f"{sign * size:g}", sum((run(options, folder, dtype, kind, sign, size) for dtype in dtypes), [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--quick", action="store_true", help="a few magnitudes")
    parser.add_argument("--dtypes", default="F32,BF16,F16,F64")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("device")
    options, options.rest = parser.parse_known_args()
    dtypes = options.dtypes.split(",")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FLEXJIT_CACHE_PATH", f"{folder}/cache")
        Path(f"{folder}/fill.py").write_text(FILL)
        Path(f"{folder}/factor.py").write_text(FACTOR)
        for kind in options.kinds.split(","):
            print(f"\n{KINDS[kind]}, {options.device}\n")
            print("| scores | " + " | ".join(f"{dtype} fwd | {dtype} bwd" for dtype in dtypes) + " |")
            print("|---|" + "---|" * (2 * len(dtypes)))
            for name, cells in rows(options, folder, kind, dtypes):
                bad += sum("!" in text for text in cells)
                print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{bad} checks failed")
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
