#!/usr/bin/env python3
"""Few queries against many keys on the cpu, next to what the machine can do: ./dev bench decode

usage: bench/decode.py [--tool build/flexjit] [--batch 1 8] [--heads 32/8 ...] [--length 4096 ...] [--dim 64 128]
                       [--dtype F32 F16 BF16] [--queries 1] [--mask EXPR] [--most BYTES] [--rounds N] [--torch]

Each row is measured in turns with the rate at which as many threads read memory (bench/read.c), the least time and the
highest rate of all rounds: `of read` is keys and values once over the time, in that rate; `of peak` the share of the peak
of arithmetic (flexjit bench). `limit` is what takes longer of the two. With --torch also the time of PyTorch's SDPA and of
its compiled flex_attention over flexjit's: for this the Python that runs the script has to have PyTorch
(./dev test-torch makes an environment).
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


def parse_heads(text):
    q, kv = map(int, text.split("/"))
    return q, kv


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip() or f"{command[0]} failed")
    return done.stdout


def time_flexjit(options, shape, dtype):
    """Milliseconds, and the peak in FLOP/s."""
    command = [options.tool, "bench", "--device", "cpu", "--shape", ",".join(map(str, shape)), "--dtype", dtype,
               "-j", options.threads, "-o", "jsonl"]  # fmt: skip
    row = json.loads(run(command + (["--mask", options.mask] if options.mask else [])).splitlines()[-1])
    return row["min_ms"], row["peak_tflops"] * 1e12


def torch_calls(options, shape, dtype):
    """Functions without arguments: SDPA, and compiled flex_attention."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    torch.set_num_threads(options.threads)
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[dtype]
    b, hq, hkv, queries, keys, dim = shape
    q = torch.randn(b, hq, queries, dim).to(kind)
    k, v = torch.randn(2, b, hkv, keys, dim).to(kind)
    compiled = torch.compile(flex_attention)
    return [lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=hq != hkv),
            lambda: compiled(q, k, v, enable_gqa=hq != hkv)]  # fmt: skip


def time_torch(call):
    import torch

    try:
        with torch.no_grad():
            call()
            best, end = float("inf"), time.perf_counter() + 0.5
            while time.perf_counter() < end:
                start = time.perf_counter()
                call()
                best = min(best, time.perf_counter() - start)
    except Exception as error:  # what it does not do is a result, too
        return str(error).splitlines()[0][:40]
    return best * 1e3


def measure(options, shape, dtype):
    b, hq, hkv, queries, keys, dim = shape
    size, flops = 2 * b * hkv * keys * dim * SIZES[dtype], 4 * b * hq * queries * keys * dim
    least, peak, rate, others = float("inf"), 0.0, 0.0, [None, None]
    calls = torch_calls(options, shape, dtype) if options.torch else []
    for _ in range(options.rounds):
        rate = max(rate, float(run([options.reader, 256, options.threads, 5])) * 1e9)
        ms, found = time_flexjit(options, shape, dtype)
        least, peak = min(least, ms), max(peak, found)
        for i, call in enumerate(calls):
            taken = time_torch(call)
            others[i] = min(others[i], taken) if isinstance(others[i], float) and isinstance(taken, float) else taken
    seconds = least * 1e-3
    by_memory, by_peak = size / rate, flops / peak
    limit = "memory" if by_memory > by_peak else "arithmetic"
    if size < options.small:
        limit += ", small"
    row = f"{b:3} {f'{hq}/{hkv}':>6} {queries:3} {keys:7} {dim:4} {dtype:5} {size / 2**20:8.1f} {least:9.3f} "
    row += f"{size / seconds * 1e-9:7.2f} {rate * 1e-9:7.2f} {by_memory / seconds:8.2f} {by_peak / seconds:8.2f}  {limit:18}"
    for other in others if options.torch else []:
        row += f" {other / least:8.2f}" if isinstance(other, float) else f" {other}"
    print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--reader", default=str(ROOT / "build/bench/read"), help="the program of bench/read.c")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--heads", type=parse_heads, nargs="+", metavar="Q/KV",
                        default=list(map(parse_heads, ["32/8", "32/1", "8/8", "7/1", "24/8"])))  # fmt: skip
    parser.add_argument("--length", type=int, nargs="+", default=[4096, 32768, 131072])
    parser.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--dtype", nargs="+", default=["F32", "F16", "BF16"], choices=list(SIZES))
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--mask", help="a mask mod, for flexjit alone; keys count in full")
    parser.add_argument("--most", type=float, default=2**30, metavar="BYTES", help="of keys and values (default 2^30)")
    parser.add_argument("--small", type=float, default=2**26, metavar="BYTES", help="below it rows are marked as small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--torch", action="store_true", help="next to PyTorch")
    options = parser.parse_args()
    print(f"  B  Hq/Hkv  L       S    D dtype      MiB        ms    GB/s    read  of read  of peak  limit"
          f"{'                  SDPA     flex' if options.torch else ''}")  # fmt: skip
    for batch, (hq, hkv), length, dim, dtype in itertools.product(
        options.batch, options.heads, options.length, options.dim, options.dtype
    ):
        if 2 * batch * hkv * length * dim * SIZES[dtype] <= options.most:
            measure(options, (batch, hq, hkv, options.queries, length, dim), dtype)
    return 0


if __name__ == "__main__":
    sys.exit(main())
