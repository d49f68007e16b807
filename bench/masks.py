#!/usr/bin/env python3
"""Block masks of every mask of examples/mods at long lengths: tier, time to make, bytes, blocks.

usage: bench/masks.py [--tool build/flexjit] [--length 16384 ...] [--block Q,KV] [--filter TEXT] [--threads N]

Visited are the blocks that a kernel with the mask computes; all of them are needed, as each partial one has something to
see. Undecided are those whose elements were looked at. Masks that read tables of queries by keys are left out where these
have more than 2^26 elements. Needs the standard library alone.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/torch")]
import inputs  # noqa: E402
import masks  # noqa: E402

LARGEST = 1 << 26


def is_small(entry, shape):
    evaluate = inputs.Evaluator(shape)
    return all(math.prod(map(evaluate, spec["dims"])) <= LARGEST for spec in entry.get("tensors", {}).values())


def measure(options, name, entry, length, folder):
    shape = inputs.Shape(1, 1, 1, length, length, 1, 1)
    if not is_small(entry, shape):
        return f"{name:28} {length:8} its tables are too large"
    inputs.save(f"{folder}/in.st", inputs.captured_inputs(entry, shape, "F32"))
    command = [options.tool, "mask", entry["path"], *masks.mask_options(entry, shape), "--input", f"{folder}/in.st",
               "--q-len", length, "--kv-len", length, "--block", options.block, "--json", *options.threads]  # fmt: skip
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return f"{name:28} {length:8} more than {options.timeout} s"
    if done.returncode != 0:
        return f"{name:28} {length:8} {done.stderr.splitlines()[-1] if done.stderr else done.returncode}"
    of = json.loads(done.stdout)
    return (f"{name:28} {length:8} {of['tier']:7} {of['time_ms']:11.3f} ms {of['bytes']:11} bytes "
            f"{of['full'] + of['partial']:9} visited {of['partial']:9} partial {of['undecided']:9} undecided "
            f"{of['sparsity']:6.2f} % empty")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--length", type=int, action="append", help="may be repeated; default 16384 and 131072")
    parser.add_argument("--block", default="64,64", metavar="Q,KV")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--timeout", type=int, default=120, metavar="SECONDS", help="for one mask, with its compilation")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all")
    options = parser.parse_args()
    options.threads = ["--threads", options.threads] if options.threads else []
    corpus = inputs.read_corpus(masks.corpus.MODS / "corpus.json", masks.corpus.MODS)
    with tempfile.TemporaryDirectory() as folder:
        for name, entry in corpus.items():
            if options.filter in name and masks.has_mask(options, entry):
                for length in options.length or [16384, 131072]:
                    print(measure(options, name, entry, length, folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
