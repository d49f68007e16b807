#!/usr/bin/env python3
"""Block masks of every mask of examples/mods against the mask at every position.

The positions come from the reference device: with keys of 0 and values that are rows of a unit matrix, a row of the output
has something at the keys that it sees, and nothing at others. Blocks that `flexjit mask --export` writes must be full where
all is seen, empty where nothing is, partial elsewhere. Prints a row for each mod: blocks, how many intervals left undecided,
and the time. Needs the standard library alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import corpus
import inputs

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ["2,2,2,200,250,1,250", "1,3,1,133,77,1,77"]
BLOCKS = [(64, 64), (32, 48), (7, 50)]


def call(options, *arguments):
    done = subprocess.run([options.tool, *map(str, arguments), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def positions(options, entry, shape, folder):
    """[B*H*L] rows of S bools."""
    unit = [float(i % shape.S == i // shape.S) for i in range(shape.S * shape.S)] * (shape.B * shape.Hkv)
    zeros = {"q": (shape.B, shape.Hq, shape.L, 1), "k": (shape.B, shape.Hkv, shape.S, 1)}
    tensors = {n: inputs.Tensor("F32", d, bytes(4 * d[0] * d[1] * d[2])) for n, d in zeros.items()}
    values = inputs.encode("F32", unit).tobytes()
    tensors["v"] = inputs.Tensor("F32", (shape.B, shape.Hkv, shape.S, shape.Ev), values)
    inputs.save(f"{folder}/in", {**tensors, **inputs.captured_inputs(entry, shape, "F32")})
    call(options, "run", entry["path"], *mask_options(entry, shape), "--score", "score", "--device", "reference",
         "--input", f"{folder}/in", "--output", f"{folder}/out")  # fmt: skip
    out = inputs.load(f"{folder}/out")["out"].data
    flat = memoryview(out).cast("f").tolist()
    return [[x != 0 for x in flat[i : i + shape.S]] for i in range(0, len(flat), shape.S)]


def mask_options(entry, shape):
    return inputs.mod_options({k: v for k, v in entry.items() if k != "score_mod"}, shape)


def classes(rows, shape, block):
    """Of each block in turn: 0 empty, 1 partial, 2 full."""
    for plane in range(shape.B * shape.Hq):
        for q in range(0, shape.L, block[0]):
            lines = rows[plane * shape.L + q : plane * shape.L + min(q + block[0], shape.L)]
            for kv in range(0, shape.S, block[1]):
                seen = [any(line[kv : kv + block[1]]) for line in lines]
                whole = [all(line[kv : kv + block[1]]) for line in lines]
                yield 0 if not any(seen) else 2 if all(whole) else 1


def exported(path, shape, block):
    """The same of the tensors of a file."""
    tensors = {name: memoryview(tensor.data).cast("i").tolist() for name, tensor in inputs.load(path).items()}
    columns = -(-shape.S // block[1])
    for row in range(shape.B * shape.Hq * -(-shape.L // block[0])):
        line = [0] * columns
        for kind, prefix in ((1, ""), (2, "full_")):
            for i in tensors[f"{prefix}kv_indices"][row * columns :][: tensors[f"{prefix}kv_num_blocks"][row]]:
                line[i] = kind
        yield from line


def check(options, name, entry):
    """The lines to print for a mod, and what is wrong."""
    lines, wrong = [], []
    with tempfile.TemporaryDirectory() as folder:
        for shape in map(inputs.Shape.parse, SHAPES):
            try:
                rows = positions(options, entry, shape, folder)
                for block in BLOCKS:
                    report = call(options, "mask", entry["path"], *mask_options(entry, shape), "--q-len", shape.L, "--kv-len",
                                  shape.S, "--batch", shape.B, "--heads", shape.Hq, "--block", "{},{}".format(*block),
                                  "--input", f"{folder}/in", "--export", f"{folder}/mask")  # fmt: skip
                    if list(exported(f"{folder}/mask", shape, block)) != list(classes(rows, shape, block)):
                        wrong.append(f"{name}: {shape}, blocks of {block}: other blocks")
            except ValueError as error:
                wrong.append(f"{name}: {shape}: {error}")
                break
            lines.append("{:28} {:>6} full {:>6} partial {:>6} empty {:>6} undecided".format(
                name, *(report[key] for key in ("full", "partial", "empty", "undecided"))))  # fmt: skip
    return lines, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"), help="the flexjit to test")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th mod, with --day in turn")
    parser.add_argument("--day", type=corpus.parse_day, default=0, metavar="N|today")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mods at a time")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    mods = inputs.read_corpus(corpus.MODS / "corpus.json", corpus.MODS)
    masks = [(n, e) for n, e in mods.items() if options.filter in n and has_mask(options, e)]
    chosen = masks[options.day % options.every :: options.every]
    failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for lines, wrong in pool.map(lambda item: check(options, *item), chosen):
            print("\n".join(lines + wrong), flush=True)
            failed += bool(wrong)
    print(f"{len(chosen) - failed} of {len(chosen)} masks are right, day {options.day}")
    return failed != 0


def has_mask(options, entry):
    """Whether a mod's file has a mask: what `check` chooses."""
    done = subprocess.run([options.tool, "check", entry["path"], "--json", *mask_options(entry, inputs.Shape.parse(SHAPES[0]))],
                          capture_output=True, text=True)  # fmt: skip
    return done.returncode == 0 and json.loads(done.stdout).get("mask_mod") is not None


if __name__ == "__main__":
    sys.exit(main())
