#!/usr/bin/env python3
"""Puts NaN, infinities and the greatest number where masks hide them and looks for what comes through.

usage: nonfinite.py [--tool build/flexjit] [--quick] [--dtypes F32,BF16,F16,F64] DEVICE [OPTION of flexjit run ...]

For each of q, k, v, do and a captured bias, each value and each place (keys and rows that nobody sees, keys that some
rows see, rows that are dead by their scores) the call runs twice: with the value, and with 0 there. Results that do not
depend on the place must have the same bits. The others must be finite exactly where those of the reference device are,
and near them. Prints a table; needs the standard library alone.
"""

import argparse
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
B, H, HKV, L, S, E, EV = 1, 2, 1, 23, 75, 16, 24
DEAD_ROW, BLIND_KEY = 5, 3  # of the mask: a row that sees nothing, a key that nobody sees
TOLERANCE = {"F16": 2e-2, "BF16": 1e-1, "F32": 1e-3, "F64": 1e-9}
VALUES = {"nan": math.nan, "+inf": math.inf, "-inf": -math.inf, "most": None}
# Finite, but too much for what a kernel makes of it, as a product or a part of it: only where nobody sees it, it must not
# show.
MOST = {"F16": 65504.0, "BF16": 255 * 2.0**120, "F32": (2 - 2**-23) * 2.0**127, "F64": (2 - 2**-52) * 2.0**1023}
MASK = f"(q + 20 >= kv) & (q != {DEAD_ROW}) & (kv != {BLIND_KEY})"
MODS = {
    "mask": ["--mask", MASK],
    "mask and bias": ["--mask", MASK, "--score", "score + bias[q, kv]"],
    "dead by score": ["--score", f"where(q == {DEAD_ROW}, -torch.inf, score)"],
    "dead by both": ["--mask", "q >= kv", "--score", "where(kv < 4, -torch.inf, score)"],
}


def sees(mod, q, kv):
    """Whether a row's result depends on a key: dead rows depend on none."""
    if mod.startswith("mask"):
        return q + 20 >= kv and q != DEAD_ROW and kv != BLIND_KEY
    return q != DEAD_ROW if mod == "dead by score" else q >= kv and q >= 4


def encode(dtype, x):
    if dtype != "BF16":
        return struct.pack({"F16": "<e", "F32": "<f", "F64": "<d"}[dtype], x)
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    return struct.pack("<H", bits >> 16 | (0x40 if x != x else 0))


def decode(dtype, data):
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i : i + 2])[0] for i in range(0, len(data), 2)]
    letter, size = {"F16": ("e", 2), "F32": ("f", 4), "F64": ("d", 8)}[dtype]
    return list(struct.unpack(f"<{len(data) // size}{letter}", data))


def save(path, tensors):
    """tensors: name -> (dtype, shape, values)"""
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        data = b"".join(encode(dtype, x) for x in values)
        header[name] = f'{{"dtype":"{dtype}","shape":{list(shape)},"data_offsets":[{len(body)},{len(body) + len(data)}]}}'
        body += data
    text = ("{" + ",".join(f'"{name}":{entry}' for name, entry in header.items()) + "}").encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def load(path):
    """name -> [(bits, value) of each element], and the width of a row"""
    import json

    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        width = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[entry["dtype"]]
        bits = [raw[i : i + width] for i in range(0, len(raw), width)]
        found[name] = SimpleNamespace(shape=entry["shape"], bits=bits, values=decode(entry["dtype"], raw))
    return found


def inputs(dtype, mod):
    source = random.Random(7)
    shapes = {"q": (B, H, L, E), "k": (B, HKV, S, E), "v": (B, HKV, S, EV), "do": (B, H, L, EV)}
    tensors = {name: [dtype, shape, []] for name, shape in shapes.items()}
    if "bias" in mod:
        tensors["bias"] = ["F64" if dtype == "F64" else "F32", (L, S), []]
    for tensor in tensors.values():
        tensor[2] = [source.gauss(0, 1) for _ in range(math.prod(tensor[1]))]
    return tensors


def places(mod):
    """(operand, rows or keys, name of the place); of bias: pairs"""
    if mod == "mask and bias":
        yield "bias", [(q, kv) for q in range(L) for kv in range(S) if not sees(mod, q, kv)], "hidden pairs"
        yield "bias", [(9, 4)], "a pair that is seen"
        return
    if mod == "dead by both":
        yield "q", [0, 1, 2, 3], "dead rows"
        yield "do", [0, 1, 2, 3], "dead rows"
        return
    for name in ("q", "do"):
        yield name, [DEAD_ROW], "dead row"
        yield name, [9], "live row"
    for name in ("k", "v"):
        if mod == "mask":
            yield name, [BLIND_KEY], "key that nobody sees"
            yield name, list(range(L + 19, S)), "keys past all rows"
        yield name, [30, 31], "keys that some rows see" if mod == "mask" else "keys that all rows see"


def put(tensors, operand, place, x):
    """The tensors with x in two columns of some rows."""
    dtype, shape, values = tensors[operand]
    changed = list(values)
    if operand == "bias":
        for q, kv in place:
            changed[q * S + kv] = x
    else:
        length, width = shape[2:]
        for head in range(shape[0] * shape[1]):
            for row in place:
                for column in (1, width - 1):
                    changed[(head * length + row) * width + column] = x
    return {**tensors, operand: (dtype, shape, changed)}


def dependents(mod, operand, place):
    """The rows and keys whose results depend on the place, by output."""
    if operand in ("q", "do"):
        rows = {q for q in place if any(sees(mod, q, kv) for kv in range(S))}
    elif operand == "bias":
        rows = {q for q, kv in place if sees(mod, q, kv)}
    else:
        rows = {q for q in range(L) for kv in place if sees(mod, q, kv)}
    keys = {kv for kv in range(S) if any(sees(mod, q, kv) for q in rows)}
    forward = set() if operand == "do" else rows
    return {
        "out": forward,
        "lse": set() if operand == "v" else forward,
        "dq": rows,
        "dk": keys,
        "dv": set() if operand == "v" else keys,
        "d_bias": {(q, kv) for q in rows for kv in range(S) if sees(mod, q, kv)},
    }


def position(name, shape, i):
    """What dependents() knows an element by."""
    if name == "d_bias":
        return i // S, i % S
    return i % shape[2] if name == "lse" else i // shape[3] % shape[2]


def compare(got, zero, wanted, depends, tolerance):
    """The first thing that is wrong, or nothing. tolerance: of what depends on the place; None: anything may be there."""
    for name, result in got.items():
        if name not in depends:
            return f"unknown output {name}"
        size = max([1.0] + [abs(x) for x in wanted[name].values if math.isfinite(x)])
        for i, (x, right) in enumerate(zip(result.values, wanted[name].values)):
            at = position(name, result.shape, i)
            if at not in depends[name]:
                if result.bits[i] != zero[name].bits[i]:
                    return f"{name}[{at}] is {x}, with 0 there {zero[name].values[i]}"
            elif tolerance is None:
                continue
            elif math.isfinite(x) != math.isfinite(right):
                return f"{name}[{at}] is {x}, the reference {right}"
            elif math.isfinite(x) and not abs(x - right) <= tolerance * size:
                return f"{name}[{at}] is {x}, the reference {right}"
    return "" if set(got) >= {"out", "lse", "dq", "dk", "dv"} else "outputs are missing"


class Runner:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder

    def run(self, tensors, mod, device):
        source, result = f"{self.folder}/in", f"{self.folder}/out"
        save(source, tensors)
        command = [self.options.tool, "run", *MODS[mod], "--input", source, "--output", result, "--backward"]
        command += ["--device", device] + (self.options.rest if device != "reference" else [])
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        return load(result)

    def case(self, dtype, mod, operand, place, value, zero):
        """What is wrong with one case, or nothing."""
        tensors = put(inputs(dtype, mod), operand, place, MOST[dtype] if value is None else value)
        try:
            got = self.run(tensors, mod, self.options.device)
            wanted = self.run(tensors, mod, "reference")
        except RuntimeError as error:
            return str(error)
        return compare(got, zero, wanted, dependents(mod, operand, place), TOLERANCE[dtype] if value is not None else None)


def cases(quick, dtypes):
    """(dtype, mod, operand, rows, name of the place, values); quick: each place with one value and one dtype."""
    turn = 0
    for dtype in TOLERANCE:
        for mod in MODS:
            for operand, place, name in places(mod):
                turn += 1
                if dtype not in dtypes:
                    continue
                if quick and (turn + list(TOLERANCE).index(dtype)) % 4 != 0:
                    continue
                chosen = list(VALUES)[turn // 4 % len(VALUES)] if quick else None
                yield dtype, mod, operand, place, name, [v for v in VALUES if chosen in (None, v)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--quick", action="store_true", help="a part of the cases, all kinds of places among them")
    parser.add_argument("--dtypes", default=",".join(TOLERANCE))
    parser.add_argument("device")
    options, options.rest = parser.parse_known_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FLEXJIT_CACHE_PATH", f"{folder}/cache")
        runner = Runner(options, folder)
        for dtype, mod, operand, place, name, values in cases(options.quick, options.dtypes.split(",")):
            cells, said = [], []
            zero = runner.run(put(inputs(dtype, mod), operand, place, 0.0), mod, options.device)
            for value in values:
                wrong = runner.case(dtype, mod, operand, place, VALUES[value], zero)
                passed, failed = passed + (not wrong), failed + bool(wrong)
                cells.append(f"{value} {'BAD' if wrong else 'ok'}")
                said += [f"    {value}: {wrong}"] if wrong else []
            print(f"{dtype:4}  {mod:13}  {operand:4}  {name:24}  {'  '.join(cells)}", *said, sep="\n", flush=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
