"""Time of the first call of cpu kernels, two builds in turns. bench/cold.sh says how it is used."""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/torch"))
import inputs

LENGTH = 64
MODS = {
    "no mod": [],
    "soft cap, causal": ["--score", "20 * tanh(score / 20)", "--mask", "q >= kv"],
    "relative bias": ["--score", f"score + bias[q - kv + {LENGTH}]"],
}
CALLS = {"run": [], "run --backward": ["--backward"]}
LAYOUT = "{:<18} {:<5} {:<15} {:>8} {:>8} {:>6}   {:>8} {:>8} {:>6}"


def tensors(dtype, dim):
    """q, k, v and do of one head, and the bias of the last mod."""
    size = 2 if dtype == "BF16" else 4
    one = bytes([0x80, 0x3E]) if size == 2 else bytes([0, 0, 0x80, 0x3E])
    four = {name: inputs.Tensor(dtype, (1, 1, LENGTH, dim), one * (LENGTH * dim)) for name in ("q", "k", "v", "do")}
    return four | {"bias": inputs.Tensor("F32", (2 * LENGTH + 1,), bytes(4 * (2 * LENGTH + 1)))}


def measure(command, cache):
    """Seconds: wall, and processor time of the tool with all that it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, env=os.environ | {"FLEXJIT_CACHE_PATH": str(cache)}, capture_output=True)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        sys.exit(f"cold.py: {' '.join(command)}\n{done.stderr.decode()}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_call(command, folder):
    """What an empty cache adds."""
    cache = Path(folder) / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cold = measure(command, cache)
    warm = [measure(command, cache) for _ in range(2)]
    return [c - min(w[i] for w in warm) for i, c in enumerate(cold)]


def compare(tools, case, rounds, folder):
    """Minima of each tool: [wall, processor time], in the order of the tools."""
    got = [[first_call([str(tool), *case], folder) for tool in tools] for _ in range(rounds)]
    return [[min(round[i][k] for round in got) for k in range(2)] for i in range(len(tools))]


def tool_of(place):
    path = Path(place)
    path = path / "build/flexjit" if path.is_dir() else path
    return path.resolve() if path.is_file() else sys.exit(f"cold.py: there is no {path}")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench cold")
    parser.add_argument("old")
    parser.add_argument("--new", default=str(ROOT))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="F32,BF16")
    parser.add_argument("--head-dim", type=int, default=64)
    options = parser.parse_args()
    tools = [tool_of(options.old), tool_of(options.new)]
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; seconds, minima of {options.rounds} rounds")
    print(LAYOUT.format("mod", "dtype", "call", "old wall", "new", "ratio", "old cpu", "new", "ratio"))
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in options.dtype.split(","):
            file = Path(folder) / f"{dtype}.safetensors"
            inputs.save(file, tensors(dtype, options.head_dim))
            for call, more in CALLS.items():
                for name, mod in MODS.items():
                    output = str(Path(folder) / "out.safetensors")
                    case = ["run", *mod, *more, "--device", "cpu", "-i", str(file), "--output", output]
                    old, new = compare(tools, case, options.rounds, folder)
                    ratios.append(new[0] / old[0])
                    print(LAYOUT.format(name, dtype, call, *(f"{x:.3f}" for x in (old[0], new[0], new[0] / old[0])),
                                        *(f"{x:.3f}" for x in (old[1], new[1], new[1] / old[1]))), flush=True)
    print(f"ratio of wall time: median {statistics.median(ratios):.2f}, greatest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
