#!/usr/bin/env python3
"""What masks save on the cpu: the time of a masked call over (that of the dense call x the share of 128 x 128 blocks with work).

usage: bench/share.py [--tool build/flexjit] [--shape 1,2,2,16384,16384,64] [--dtype BF16,F32] [--direction fwd,bwd]
                      [--filter TEXT] [--rounds N] [--threads N]

1 is as good as a kernel of such blocks can be, without a mask to evaluate. All cases run in turns, dense ones among them, and
each one's least time counts. Documents have random lengths, from a seed. Needs the standard library alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/cli"))
import harness  # noqa: E402

DOCUMENT = "doc[q] == doc[kv]"
MASKS = {  # name: the mask, documents
    "dense": (None, 0),
    "causal": ("q >= kv", 0),
    "window 1024": ("(q >= kv) & (q - kv < 1024)", 0),
    "8 documents": (DOCUMENT, 8),
    "32 documents": (DOCUMENT, 32),
    "8 documents, causal": (f"({DOCUMENT}) & (q >= kv)", 8),
    "32 documents, causal": (f"({DOCUMENT}) & (q >= kv)", 32),
}


def write_documents(path, count, length):
    ends = sorted(random.Random(count).sample(range(1, length), count - 1)) if count else []
    numbers = [sum(end <= i for end in ends) for i in range(length)]
    path.write_bytes(harness.safetensors({"doc": ("I32", [length], numbers)}))


def call(options, *arguments):
    done = subprocess.run([options.tool, *map(str, arguments), "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Case:
    def __init__(self, options, name, folder):
        mask, documents = MASKS[name]
        lengths = options.shape.split(",")[3:5]
        self.name, self.best, self.variant = name, {}, ""
        self.mod = ["--mask", mask] if mask else ["--score", "score"]
        if documents:
            path = folder / f"{documents}.safetensors"
            write_documents(path, documents, int(max(lengths, key=int)))
            self.mod += ["--input", path]
        of = {"full": 1, "partial": 0, "empty": 0}
        if mask:
            of = call(options, "mask", *self.mod, "--q-len", lengths[0], "--kv-len", lengths[1], "--block", "128,128")
        self.share = (of["full"] + of["partial"]) / (of["full"] + of["partial"] + of["empty"])

    def run(self, options, dtype, direction):
        threads = ["--threads", options.threads] if options.threads else []
        row = call(options, "bench", *self.mod, "--shape", options.shape, "--dtype", dtype, "--direction", direction,
                   "--device", "cpu", "--warmup", 1, "--repeat", 2, *threads)["rows"][0]  # fmt: skip
        key = dtype, direction
        self.best[key] = min(row["min_ms"], self.best.get(key, row["min_ms"]))
        self.scores = row["scores"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--shape", default="1,2,2,16384,16384,64", metavar="B,Hq,Hkv,L,S,E")
    parser.add_argument("--dtype", default="BF16,F32", metavar="LIST")
    parser.add_argument("--direction", default="fwd,bwd", metavar="LIST")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only masks whose names contain it")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    options = parser.parse_args()
    kinds = [(dtype, d) for dtype in options.dtype.split(",") for d in options.direction.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        cases = [Case(options, name, Path(folder)) for name in MASKS if name == "dense" or options.filter in name]
        for _ in range(options.rounds):
            for kind in kinds:
                for case in cases:
                    case.run(options, *kind)
    print(f"{options.shape} on {os.cpu_count()} cores, least of {2 * options.rounds} launches; over dense time x share of blocks")
    for kind in kinds:
        dense = cases[0].best[kind]
        for case in cases:
            over = case.best[kind] / (dense * case.share)
            print(f"{kind[0]:5} {kind[1]:3} {case.name:22} {case.best[kind]:10.2f} ms  {100 * case.share:6.2f} % of blocks "
                  f"{over:6.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
