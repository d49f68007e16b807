"""Times of scaled dot product attention, forward and backward: flexjit and PyTorch in processes of their own, in turns.

A mask [B,1,L,L] is of the dtype of the others, and its gradient is not asked for. Kernels are made, and memory is had, before the
clock runs; PyTorch's backward is that of a graph that is kept.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
DTYPES = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16}


def tensors(shape, dtype, masked):
    batch, heads, length, width = shape
    torch.manual_seed(0)
    q, k, v, dout = (torch.randn(batch, heads, length, width).to(dtype) for _ in range(4))
    return q, k, v, dout, torch.randn(batch, 1, length, length).to(dtype) if masked else None


def least(call, rounds):
    best = float("inf")
    for i in range(rounds + 1):
        start = time.perf_counter()
        call()
        if i:
            best = min(best, (time.perf_counter() - start) * 1e3)
    return best


def ours(shape, dtype, masked, threads, rounds):
    sys.path.insert(0, str(ROOT / "tests" / "torch"))
    import flexjit_c

    q, k, v, dout, mask = tensors(shape, dtype, masked)
    fj, found = flexjit_c.Library(), {}
    out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
    launch = fj.make("fj_launch", workers=threads)
    for name in ("forward", "backward"):
        fields = {"query": q, "key": k, "value": v, "mask": mask, "out": out, "lse": lse}
        if name == "backward":
            fields |= {"dout": dout} | {"d" + of: torch.empty_like(q) for of in ("query", "key", "value")}
        args = fj.make("fj_sdpa_args", **fields)
        op = fj.create("fj_sdpa_create", fj.device, fj.constants["FJ_" + name.upper()], args)
        memory = fj.workspace(fj.size("fj_sdpa_workspace", op, args, launch))
        found[name] = least(lambda: fj.call("fj_sdpa_launch", op, args, launch, *memory), rounds)
    return found


def theirs(shape, dtype, masked, threads, rounds):
    torch.set_num_threads(threads)
    q, k, v, dout, mask = tensors(shape, dtype, masked)
    attend = torch.nn.functional.scaled_dot_product_attention

    def forward():
        with torch.no_grad():
            attend(q, k, v, mask)

    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(*inputs, mask)
    return {"forward": least(forward, rounds),
            "backward": least(lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True), rounds)}  # fmt: skip


def measure(side, options, dtype, masked):
    command = [sys.executable, __file__, "--side", side, "--shape", options.shape, "--dtypes", dtype, "--threads",
               str(options.threads), "--rounds", "5", *(["--masked"] if masked else [])]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"sdpa.py: {side}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(prog="./dev bench sdpa")
    parser.add_argument("--shape", default="1,8,2048,64")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="F32,BF16")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--masked", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = [int(extent) for extent in options.shape.split(",")]
    if options.side:
        side = ours if options.side == "ours" else theirs
        print(json.dumps(side(shape, DTYPES[options.dtypes], options.masked, options.threads, options.rounds)))
        return
    print(f"sdpa [B,H,L,E] = {shape}, {options.threads} threads, load {os.getloadavg()[0]:.1f}; minima in ms; PyTorch {torch.__version__}")
    columns = "{:<6} {:<5} {:<9} {:>9} {:>9} {:>6}"
    print(columns.format("dtype", "mask", "", "flexjit", "PyTorch", "ratio"))
    for dtype in options.dtypes.split(","):
        for masked in (False, True):
            best = {"ours": {}, "theirs": {}}
            for _ in range(options.rounds):
                for side, found in best.items():
                    for name, ms in measure(side, options, dtype, masked).items():
                        found[name] = min(ms, found.get(name, ms))
            for name, ms in best["ours"].items():
                other = best["theirs"][name]
                print(columns.format(dtype, "float" if masked else "none", name, f"{ms:.2f}", f"{other:.2f}", f"{other / ms:.2f}"), flush=True)


if __name__ == "__main__":
    main()
