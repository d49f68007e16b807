#!/usr/bin/env python3
"""Sweeps a fixed table of problems on this CPU, and writes the winners where the library is built with them.

The table, bench/tune_shipped.json, has prefill and decoding, forward and backward, F32 and BF16. It is swept for each
instruction set that this CPU has, in less than 20 minutes on a machine that does nothing else. The records take the place of
what this machine wrote before; those of other machines stay. What was measured stays in FOLDER: a sweep that was stopped goes
on where it was.

A problem gets records only where a variant beats the default by more than the spread of their comparison in turns. Then it has
one for each of its lengths, the default's too: without it a length where the default is the best would take the nearest winner.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# F32 has no kernels of its own for the last: its records would be those of AVX-512 again.
ARCHES = {"avx2": ("avx2", ["F32", "BF16"]), "avx512": ("avx512f", ["F32", "BF16"]), "avx512bf16": ("avx512_bf16", ["BF16"])}


def arches_here():
    flags = next((line for line in open("/proc/cpuinfo") if line.startswith("flags")), "").split()
    return [arch for arch, (flag, _) in ARCHES.items() if flag in flags]


def manifest_of(table, dtypes):
    """The table for some dtypes, with the number of its rows: shapes may have lists, as 512+4096, and dimensions go with theirs."""
    manifest, count = json.loads(table.read_text()), 0
    for entry in manifest["entries"]:
        for problem in entry["problems"]:
            problem["dtype"] = dtypes
            directions, dims = ([x] if not isinstance(x, list) else x for x in (problem["direction"], problem["head_dim"]))
            lengths = sum(math.prod(len(n.split("+")) for n in shape.split(",")[:5]) for shape in entry["shapes"])
            count += len(dtypes) * len(directions) * len(dims) * lengths
    return manifest, count


def sweep(arch, options):
    paths = {kind: options.folder / f"{arch}.{kind}" for kind in ("manifest", "json", "html", "jsonl")}
    manifest, count = manifest_of(options.table, ARCHES[arch][1])
    paths["manifest"].write_text(json.dumps(manifest))
    paths["jsonl"].unlink(missing_ok=True)
    budget = count * options.seconds
    print(f"{arch}: {count} problems, {budget:g} s", flush=True)
    command = [options.tool, "tune", "--manifest", paths["manifest"], "--device", "cpu", "--arch", arch, "--budget", f"{budget:g}",
               "--log", paths["json"], "--report", paths["html"], "--output", paths["jsonl"]]  # fmt: skip
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"tune-shipped: the sweep for {arch} failed; what it measured is in {paths['json']}")
    return records_of(paths["jsonl"])


def records_of(path):
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else []
    return [record for record in lines if "device" in record]


def key(record):
    return json.dumps([record["device"], record["problem"], record["call"]["gqa"]], sort_keys=True)


def worth_shipping(records):
    """Those of problems where something beats the default; the tool names another variant only where that is sure."""
    won = {key(record) for record in records if record["variant"] != record["default"]["variant"]}
    return [record for record in records if key(record) in won]


def write(path, every):
    header, *lines = path.read_text().splitlines()
    mine = {(record["machine"], record["device"]["arch"]) for record in every}
    old = [line for line in lines if (json.loads(line)["machine"], json.loads(line)["device"]["arch"]) not in mine]
    ours = [json.dumps(record, sort_keys=True, separators=(",", ":")) for record in worth_shipping(every)]
    fresh = path.with_name(path.name + ".new")
    fresh.write_text("".join(f"{line}\n" for line in [header, *old, *ours]))
    fresh.replace(path)
    print(f"{len(ours)} records of this machine and {len(old)} of others in {path}")


def main():
    parser = argparse.ArgumentParser(prog="./dev tune-shipped", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=ROOT / "build/tune-shipped", help="for logs and reports")
    parser.add_argument("--seconds", type=float, default=24, help="for each problem of each instruction set (24)")
    parser.add_argument("--arch", action="append", choices=ARCHES, help="one of those of this CPU (all)")
    parser.add_argument("--table", type=pathlib.Path, default=HERE / "tune_shipped.json", help="a manifest with shapes")
    parser.add_argument("--records", type=pathlib.Path, default=ROOT / "tuning/cpu.jsonl", help="the file that is written")
    parser.add_argument("--tool", default=os.environ.get("FLEXJIT", ROOT / "build/flexjit"), help="the flexjit that measures")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    every = [record for arch in options.arch or arches_here() for record in sweep(arch, options)]
    for record in every:
        gain = record["default"]["time_ms"] / record["time_ms"] if record["variant"] != record["default"]["variant"] else 1
        problem = record["problem"]
        print(f"{record['device']['arch']:10} {problem['direction']} {problem['dtype']:4} {problem['head_dim']:3} "
              f"{problem['mask']:11} {gain:6.3f} {record['variant']}")  # fmt: skip
    write(options.records, every)


if __name__ == "__main__":
    main()
