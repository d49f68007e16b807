"""Times of an encoder layer: flexjit, its products alone, and PyTorch, in turns. bench/layers.sh says how it is used.

The products are those of the four linear layers by the BLAS on its own threads, and those of all heads (query by key,
probabilities by value, and for a step the four of their gradients), the heads divided among the threads.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = Path(os.environ.get("FJ_VENV", ROOT / ".venv-torch")) / "bin/python"

TORCH = """
import json, sys, time, torch
batch, length, width, heads, inner, threads, rounds = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(width, heads, inner, 0.0, "gelu", batch_first=True)
src = torch.randn(batch, length, width, requires_grad=True)
dout = torch.randn(batch, length, width)
def forward():
    layer.eval()
    with torch.inference_mode():
        layer(src)
def step():
    layer.train()
    layer.zero_grad()
    layer(src).backward(dout)
best = {}
for round in range(-1, rounds):
    for name, call in (("forward", forward), ("step", step)):
        start = time.perf_counter()
        call()
        ms = (time.perf_counter() - start) * 1e3
        if round >= 0:
            best[name] = min(ms, best.get(name, ms))
print(json.dumps(best | {"version": torch.__version__}))
"""


def measure(command, name):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"layers.py: {name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def least(old, new):
    return {key: min(old.get(key, value), value) for key, value in new.items()}


def main():
    parser = argparse.ArgumentParser(prog="./dev bench layers")
    parser.add_argument("--shape", default="8,256,384,12,1536")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    shape = options.shape.split(",")
    arguments = [*shape, str(options.threads), "5"]
    ours, torch = {}, {}
    for _ in range(options.rounds):
        ours = least(ours, measure([str(ROOT / "build/bench/layers"), *arguments], "build/bench/layers"))
        if VENV.is_file():
            torch = least(torch, measure([str(VENV), "-c", TORCH, *arguments], "PyTorch"))
    batch, length, width, heads, inner = shape
    print(f"encoder layer, F32, gelu: batch {batch}, length {length}, width {width}, {heads} heads, feed-forward {inner}")
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}; minima in ms")
    columns = "{:<14} {:>8} {:>9} {:>7} {:>15} {:>7} {:>9} {:>7}"
    print(columns.format("", "flexjit", "4 linear", "ratio", "and attention", "ratio", "PyTorch", "ratio"))
    for name, suffix in (("forward", ""), ("step", " step")):
        own, linear = ours[name], ours["linear" + suffix]
        both = linear + ours["attention" + suffix]
        other = (f"{torch[name]:.1f}", f"{torch[name] / own:.2f}") if torch else ("-", "-")
        label = "forward" if name == "forward" else "training step"
        print(columns.format(label, f"{own:.1f}", f"{linear:.1f}", f"{own / linear:.2f}", f"{both:.1f}",
                             f"{own / both:.2f}", *other))  # fmt: skip
    if torch:
        print(f"PyTorch {torch['version']}; its ratio is how many times faster flexjit is")


if __name__ == "__main__":
    main()
