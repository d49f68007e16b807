#!/usr/bin/env python3
"""Runs every mod of examples/mods through `flexjit run --check` and prints a table.

For each output the table shows the mean error as a share of its bound: above 1.00 it is BAD. The
column d_* is the worst of the gradients of captured tensors. Needs the standard library alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/torch"))
import forms
import inputs

MODS = ROOT / "examples/mods"
SHAPES = ["2,8,2,333,333,64", "2,8,2,200,333,64", "1,4,1,65,77,37"]
SHAPES_EMU = ["1,4,2,133,150,64", "2,2,2,150,150,64", "1,4,1,65,77,37"]
SHAPES_QUICK = ["2,2,1,200,200,64", "1,4,2,133,260,64", "1,4,1,65,77,37"]
DTYPES = "F32,BF16,F16"
COLUMNS = ["out", "lse", "dq", "dk", "dv", "d_*"]

attention_inputs = lru_cache(inputs.attention_inputs)


def ratios(report):
    """The mean error over the bound of each output in the JSON of a run."""
    errors = {**report["errors"], **report.get("backward", {}).get("errors", {})}
    found = {}
    for name, error in errors.items():
        column = name if name in COLUMNS else "d_*"
        mean, bound = error["mean"], error["bound"]
        ratio = mean / bound if bound else (float("inf") if mean else 0.0)
        found[column] = max(ratio, found.get(column, 0.0))
    return found


def required_columns(entry, backward):
    """The columns that a run has to fill."""
    if not backward:
        return {"out", "lse"}
    captured = entry.get("tensors", {}).values()
    gradients = {"d_*"} if any("F" in spec["dtype"] for spec in captured) else set()
    return {"out", "lse", "dq", "dk", "dv"} | gradients


def run(options, name, entry, dtype, shape, backward, folder):
    """Runs one mod; returns its row of the table and what went wrong, if anything."""
    # Cross lengths also get an incoming gradient of lse.
    tensors = attention_inputs(shape, dtype, dlse=backward and shape.L != shape.S)
    path = Path(folder) / f"{name}-{dtype}-{shape.L}-{shape.S}.safetensors"
    captured = inputs.captured_inputs(entry, shape, dtype)
    inputs.save(path, {**forms.FORMS[options.form](tensors, shape), **captured})
    command = [options.tool, "run", str(entry["path"]), "--input", str(path)]
    if options.form == "blocks":
        block = f"{shape.L // 3 + 1},{shape.S // 5 + 1}"
        command += forms.export_mask(
            options.tool, str(entry["path"]), inputs.mod_options(entry, shape), str(path), shape, block)  # fmt: skip
    command += ["--output", f"{path}.out", "--device", options.device, "--check", "--json"]
    command += ["--arch", options.arch] if options.arch else []
    command += ["--backward"] if backward else []
    command += ["--dropout", str(entry["dropout"]), "--seed", "7"] if "dropout" in entry else []
    done = subprocess.run(command + inputs.mod_options(entry, shape), capture_output=True, text=True)
    for used in (path, Path(f"{path}.out"), Path(f"{path}.mask")):
        used.unlink(missing_ok=True)

    try:
        report = json.loads(done.stdout)
        found = ratios(report)
    except (ValueError, KeyError, TypeError):
        report, found = {}, {}
    missing = required_columns(entry, backward) - found.keys()
    good = done.returncode == 0 and not missing and all(ratio <= 1 for ratio in found.values())
    cells = [f"{found[column]:6.2f}" if column in found else "     -" for column in COLUMNS]
    sizes = ",".join(map(str, shape[:-1] if shape.E == shape.Ev else shape))
    row = f"{name:28} {dtype:4} {sizes:18} {report.get('tier', '-'):12}{' '.join(cells)}"
    said = f"exit status {done.returncode}\n{done.stdout[:2000]}{done.stderr[-2000:]}".strip()
    return (f"{row} ok", "") if good else (f"{row} BAD", said)


def parse_day(text):
    return int(time.time() // 86400) if text == "today" else int(text)


def goes_back(options, index):
    """Whether a mod also runs backward: with --day, one of two, in turn."""
    return options.backward and options.form != "paged" and (options.day is None or (index + options.day) % 2 == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"), help="the flexjit to test")
    parser.add_argument("--shape", action="append", metavar="B,Hq,Hkv,L,S,E[,Ev]", help="may be repeated")
    parser.add_argument("--dtype", default=DTYPES, help=f"default: {DTYPES}")
    parser.add_argument("--quick", action="store_true", help="one dtype and small shape a mod, in turn")
    parser.add_argument("--day", type=parse_day, metavar="N|today", help="backward for half of the mods, in turn")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th mod, with --day in turn")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--device", default="cpu", help="default: cpu; emu takes smaller shapes unless given")
    parser.add_argument("--form", choices=forms.FORMS, default="dense", help="the same call packed (each batch a sequence), "
                        "paged, or with the mod's own block mask; default: dense")  # fmt: skip
    parser.add_argument("--arch", help="GPU architecture for emu, such as sm_90")
    parser.add_argument("--backward", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    options = parser.parse_args()
    if not Path(options.tool).is_file():
        parser.error(f"there is no {options.tool}: run ./dev build, or use --tool")

    # Parallel runs share the cores best when each uses one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // options.jobs)))
    usual = SHAPES_EMU if options.device == "emu" else SHAPES_QUICK if options.quick else SHAPES
    shapes = [inputs.Shape.parse(text) for text in options.shape or usual]
    corpus = inputs.read_corpus(MODS / "corpus.json", MODS, beyond=True)
    chosen = list(corpus.items())[(options.day or 0) % options.every :: options.every]
    failed = passed = 0
    print(f"{'mod':28} {'type':4} {'shape':18} {'tier':12}{' '.join(f'{c:>6}' for c in COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        cases = [(shape, dtype) for shape in shapes for dtype in options.dtype.split(",")]
        runs = [
            pool.submit(run, options, name, entry, dtype, shape, goes_back(options, i), folder)
            for turn, (shape, dtype) in enumerate(cases)
            for i, (name, entry) in enumerate(chosen)
            if options.filter in name and (options.form in ("dense", "blocks") or not forms.RESERVED & entry.get("tensors", {}).keys()) and (not options.quick or i % len(cases) == turn)
        ]
        for done in runs:
            row, trouble = done.result()
            print(row, flush=True)
            if trouble:
                print("    " + trouble.replace("\n", "\n    "), flush=True)
            failed += bool(trouble)
            passed += not trouble
    print(f"{passed} passed, {failed} failed" + (f"; day {options.day}" if options.day is not None else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
