#!/usr/bin/env python3
"""Compares the outputs of two builds bit by bit, over the mods of the corpus. `./dev same OLD` runs it.

usage: same.py OLD [OPTION...]     (OLD: another tree of flexjit, built; the new one is that of this file)

Each case is a mod, a dtype, a shape and a device, forward and backward: both builds run it on the same inputs, and every
output has to have the same name, dtype, dims and bytes. Runs that fail in both builds with one status and one text are
alike too, and counted. By default each mod runs once a device, its dtype and shape in turn; --all runs every combination.
Kernels stay in build/same, by the digest of the tool that made them, so that OLD compiles nothing the second time.
Exit status 1: a case differs, or none was compared.
"""

import argparse
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/torch"))
import inputs

MODS = ROOT / "examples/mods"
# Few rows, and many in unequal parts; groups of heads; dimensions that fill no vector.
SHAPES = ["1,4,2,65,130,32", "1,2,1,5,260,64", "2,2,1,40,40,37"]
DTYPES = "F32,BF16,F16,F64"
DEVICES = "cpu,emu"
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

attention_inputs = lru_cache(inputs.attention_inputs)


def tool_of(place):
    """The tool of a tree, or the tool itself."""
    path = Path(place)
    path = path / "build/flexjit" if path.is_dir() else path
    if not path.is_file():
        sys.exit(f"same.py: there is no {path}: run ./dev build in that tree")
    return path.resolve()


class Tool:
    """A copy of a tool, which may be built again meanwhile, and the folder of what it has compiled."""

    def __init__(self, place, folder):
        data = place.read_bytes()
        self.path = Path(folder) / hashlib.sha256(data).hexdigest()[:16]
        self.kernels = ROOT / "build/same" / self.path.name
        self.kernels.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.write_bytes(data)
        self.path.chmod(0o700)


def run(tool, arguments, output):
    """What a tool makes of a case: (outputs by name, variants) or (None, its status and error)."""
    environment = {name: value for name, value in os.environ.items() if name != "FLEXJIT_TEMPLATE_PATH"}
    environment |= {"FLEXJIT_CACHE_PATH": str(tool.kernels), "OMP_NUM_THREADS": "1"}
    command = [str(tool.path), "run", *arguments, "--output", str(output), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stdout + done.stderr
        return None, f"exit status {done.returncode}: {said.replace(str(output), 'OUTPUT').strip()}"
    tensors = inputs.load(output)
    output.unlink()
    report = json.loads(done.stdout)
    variants = [part["variant"] for part in (report, report.get("backward", {})) if "variant" in part]
    return tensors, " ".join(variants)


def differing(old, new):
    """How the two versions of an output differ; empty: they do not."""
    if (old.dtype, old.dims) != (new.dtype, new.dims):
        return f"{old.dtype} {old.dims} became {new.dtype} {new.dims}"
    if old.data == new.data:
        return ""
    size = SIZES.get(old.dtype, 1)
    places = [i for i in range(0, len(old.data), size) if old.data[i : i + size] != new.data[i : i + size]]
    at = places[0]
    bits = f"{old.data[at : at + size][::-1].hex()} became {new.data[at : at + size][::-1].hex()}"
    return f"{len(places)} of {len(old.data) // size} differ; first at {at // size}: {bits}"


def compare(old, new):
    """The verdict on a case and what to print below it."""
    (old_tensors, old_said), (new_tensors, new_said) = old, new
    if old_tensors is None or new_tensors is None:
        alike = old_tensors is new_tensors and old_said == new_said
        return ("refused", []) if alike else ("DIFFERS", [f"old: {old_said}", f"new: {new_said}"])
    names = sorted(old_tensors.keys() | new_tensors.keys())
    found = [f"{name}: in one build only" for name in names if not (name in old_tensors and name in new_tensors)]
    shared = [(name, differing(old_tensors[name], new_tensors[name])) for name in names if not found]
    found += [f"{name}: {text}" for name, text in shared if text]
    if found and old_said != new_said:
        found.append(f"variants: {old_said} became {new_said}")
    return ("DIFFERS" if found else "same"), found


def run_case(options, case, tools, folder):
    name, entry, dtype, shape, device = case
    stem = Path(folder) / f"{name}-{dtype}-{shape.L}-{shape.S}-{device}"
    path = stem.with_suffix(".safetensors")
    tensors = attention_inputs(shape, dtype, dlse=shape.L != shape.S)
    inputs.save(path, {**tensors, **inputs.captured_inputs(entry, shape, dtype)})
    arguments = [str(entry["path"]), "--input", str(path), "--device", device, "--backward", "--max"]
    arguments += ["--arch", options.arch] if options.arch and device == "emu" else []
    arguments += inputs.mod_options(entry, shape)
    results = [run(tool, arguments, stem.with_suffix(f".{tool.path.name}")) for tool in tools]
    path.unlink()
    return compare(*results)


def choose(options):
    """The cases: without --all each mod has one dtype and shape a device, in turn."""
    corpus = inputs.read_corpus(MODS / "corpus.json", MODS)
    shapes = [inputs.Shape.parse(text) for text in options.shape or SHAPES]
    kinds = list(itertools.product(options.dtype.split(","), shapes))
    for device in options.device.split(","):
        for turn, (name, entry) in enumerate(list(corpus.items())[:: options.every]):
            if re.search(options.filter, name):
                for dtype, shape in kinds if options.all else [kinds[(turn * 5 + len(device)) % len(kinds)]]:
                    yield name, entry, dtype, shape, device


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=tool_of, help="a built tree, or its flexjit")
    parser.add_argument("--new", type=tool_of, default=str(ROOT), help="default: this tree")
    parser.add_argument("--all", action="store_true", help="every dtype and shape of each mod")
    parser.add_argument("--shape", action="append", metavar="B,Hq,Hkv,L,S,E[,Ev]", help="may be repeated")
    parser.add_argument("--dtype", default=DTYPES, help=f"default: {DTYPES}")
    parser.add_argument("--device", default=DEVICES, help=f"default: {DEVICES}")
    parser.add_argument("--arch", help="GPU architecture for emu, such as sm_90")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only mods whose names match")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th mod")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at a time")
    options = parser.parse_args()

    counts = dict.fromkeys(("same", "DIFFERS", "refused"), 0)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        tools = [Tool(place, folder) for place in (options.old, options.new)]
        if tools[0].path == tools[1].path:
            print(f"{options.old} and {options.new} are the same bytes: nothing was run")
            return 0
        cases = list(choose(options))
        for case, (verdict, found) in zip(cases, pool.map(lambda case: run_case(options, case, tools, folder), cases)):
            counts[verdict] += 1
            name, _, dtype, shape, device = case
            sizes = ",".join(map(str, shape[:-1] if shape.E == shape.Ev else shape))
            print(f"{name:28} {dtype:4} {sizes:18} {device:9} {verdict}", flush=True)
            for line in found:
                print("    " + line.replace("\n", "\n    "), flush=True)
    print(", ".join(f"{counts[key]} {key.lower()}" for key in counts))
    return 1 if counts["DIFFERS"] or not counts["same"] else 0


if __name__ == "__main__":
    sys.exit(main())
