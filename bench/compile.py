#!/usr/bin/env python3
"""What the CUDA compiler makes of the kernels: registers, spills, shared memory, time. Needs NVRTC and no GPU.

The default is the table of the default variants: six mods by dtype, head dimension, direction and
architecture. --corpus takes every mod of examples/mods instead. Each run compiles everything into a
fresh cache, one kernel after the other; the least time of the runs is shown, in ms. Exit status 1:
a kernel spills, or does not compile.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/torch"))
sys.path.insert(0, str(ROOT / "tests"))
import corpus_manifest
import inputs

ARCHS = "sm_75,sm_80,sm_86,sm_89,sm_90,sm_100,sm_120"
MODS = {
    "no mod": {"score": "score"},
    "causal": {"mask": "q >= kv"},
    "alibi": {"score": "score + 2.0 ** (-0.5 * (h + 1)) * (kv - q)"},
    "softcap": {"score": "20 * tanh(score / 20)"},
    "document": {"mod": "document.py", "bind": {"document_id": "I32[4096]"}},
    "bias": {"mod": "bias.py", "bind": {"bias": "F32[8,1024,1024]"}},
}
FILES = {
    "document.py": "import torch\ndocument_id = torch.empty(4096, dtype=torch.int32)\n\n"
    "def mask_mod(b, h, q_idx, kv_idx):\n    return document_id[q_idx] == document_id[kv_idx]\n",
    "bias.py": "import torch\nbias = torch.empty(8, 1024, 1024)\n\n"
    "def score_mod(score, b, h, q_idx, kv_idx):\n    return score + bias[h, q_idx, kv_idx]\n",
}
COLUMNS = ["mod", "kernel", "arch", "registers", "spills", "shared", "ms"]


def split(text):
    return [item for item in text.split(",") if item]


def write_manifest(options, folder):
    """Writes the manifest of all kernels; returns its path and the names of its entries."""
    problems = [
        {
            "dtype": split(options.dtype),
            "head_dim": [int(dim) for dim in split(options.dim)],
            "direction": split(options.direction),
            "few_queries": False,
        }
    ]
    for name, text in FILES.items():
        (folder / name).write_text(text)
    if options.corpus:
        corpus = inputs.read_corpus(corpus_manifest.MODS / "corpus.json", corpus_manifest.MODS)
        mods = {name: corpus_manifest.entry_of(entry, folder) for name, entry in corpus.items()}
    else:
        mods = MODS
    mods = {name: mod for name, mod in mods.items() if options.filter in name}
    entries = [{**mod, "problems": problems} for mod in mods.values()]
    path = folder / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "entries": entries}))
    return path, list(mods)


def build(options, path, arch):
    """Compiles all for one architecture into a fresh cache; returns the rows of `flexjit prebuild`."""
    with tempfile.TemporaryDirectory() as layer:
        command = [options.tool, "prebuild", "--manifest", str(path), "--arch", arch, "--jobs", "1"]
        done = subprocess.run(command + ["--output", layer, "--json"], capture_output=True, text=True)
    try:
        rows = json.loads(done.stdout)["rows"]
    except (ValueError, KeyError):
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[:500]}{done.stderr[:500]}")
    return sorted(rows, key=lambda row: (row["entry"], row["variant"]))


def measure(options, path, names):
    rows = []
    for arch in split(options.arch):
        runs = [build(options, path, arch) for _ in range(options.runs)]
        for same in zip(*runs):
            row = same[0]
            rows.append(
                {
                    "mod": names[row["entry"]],
                    "kernel": row["variant"],
                    "arch": row["arch"],
                    "failed": any(run["cache"] == "failed" for run in same),
                    "registers": row["registers"],
                    "spills": row["spill_bytes"],
                    "shared": row["shared_bytes"],
                    "ms": round(min(run["compile_ms"] or 0 for run in same), 1),
                }
            )
    return rows


def print_table(rows):
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        cells = ["failed" if row["failed"] and name == "spills" else str(row[name]) for name in COLUMNS]
        print(f"| {' | '.join(cells)} |")


def print_summary(rows):
    """The least and the greatest time of each mod and direction, over all that was compiled."""
    times = {}
    for row in rows:
        times.setdefault((row["mod"], row["kernel"][:3]), []).append(row["ms"])
    print("\n| mod | direction | least ms | greatest ms |\n|---|---|---|---|")
    for (mod, direction), found in times.items():
        print(f"| {mod} | {direction} | {min(found)} | {max(found)} |")
    spilling = [row for row in rows if row["spills"] or row["failed"]]
    print(f"\n{len(rows)} kernels, {len(spilling)} that spill or fail")
    for row in spilling:
        print(f"    {row['mod']}: {row['kernel']} for {row['arch']}: {'failed' if row['failed'] else row['spills']}")
    return 1 if spilling else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"), help="the flexjit to use")
    parser.add_argument("--corpus", action="store_true", help="every mod of examples/mods, BF16, 64 and 128")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--arch", default=ARCHS, help=f"default: {ARCHS}")
    parser.add_argument("--dtype", help="default: BF16,F16,F32; of the corpus BF16")
    parser.add_argument("--dim", help="head dimensions; default: 64,72,80,128,256; of the corpus 64,128")
    parser.add_argument("--direction", default="fwd,bwd")
    parser.add_argument("--runs", type=int, default=1, help="of which the least time is taken")
    parser.add_argument("--json", metavar="FILE", help="writes the rows there too")
    options = parser.parse_args()
    options.dtype = options.dtype or ("BF16" if options.corpus else "BF16,F16,F32")
    options.dim = options.dim or ("64,128" if options.corpus else "64,72,80,128,256")
    if not Path(options.tool).is_file():
        parser.error(f"there is no {options.tool}: run ./dev build, or use --tool")
    with tempfile.TemporaryDirectory() as folder:
        path, names = write_manifest(options, Path(folder))
        rows = measure(options, path, names)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    return print_summary(rows)


if __name__ == "__main__":
    sys.exit(main())
