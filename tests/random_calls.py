#!/usr/bin/env python3
"""Random calls, each from a seed of its own: mods, sinks, dropout, dtypes, shapes, captured tensors, run-time scalars, fills
and scales.

Of every call:
  check    `flexjit run --backward --check` judges it; a mod whose constants are run-time scalars is judged as well, and
           what only ints and bools decide gives the same bits as with the numbers in the source
  library  the same call through the C library, packed; with strides, offsets and zeros between the elements; and with NaN
           there, NaN and infinities in what the mask hides, in a locale with a decimal comma: the same bits, and nothing
           between the elements of an output is written
  extents  captured tensors that must have one extent and do not are an error, else the call is right

A failure prints the seed and keeps the files. Needs the standard library alone; tests/support/comma_locale.py gives it the
locale (`./dev random` runs it so).
"""

import argparse
import ctypes
import json
import locale
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/cli"), str(ROOT / "bench")]
import flexjit  # noqa: E402
import harness  # noqa: E402

DTYPES = {"F32": 4, "BF16": 3, "F16": 3, "F64": 2}  # how often
LARGEST = {"F16": 6e4, "BF16": 3e38, "F32": 3e38, "F64": 1e300}
FILLS = ["-1e9", "-1e10", "-1e20", "-1e30", "-2.3e38", "1e12", "-inf", "torch.finfo(torch.float32).min", "0.0"]
POISON = [math.nan, math.inf, -math.inf]


class Wrong(Exception):
    """What is not as it should be."""


# ---- Drawing ---------------------------------------------------------------------------------------------------


class Draw(random.Random):
    def often(self, table):
        return self.choices(list(table), weights=list(table.values()))[0]

    def extent(self, most, small=(0, 1)):
        return self.choice(small) if self.random() < 0.12 else self.randint(1, most)

    def score(self, names):
        """An expression over what the mod is given; notes the captures and constants that it uses."""
        terms = {"score": 6, "score * ALPHA": 2, "score + bias[kv]": 3, "score + slopes[h] * (kv - q)": 3,
                 "score + rel[h, (q + 2 * kv) % 7]": 2, "score - abs(q - kv) * ALPHA": 2,
                 "20.0 * torch.tanh(score / 20.0)": 2, "torch.where(q < SPLIT, score, FILL)": 3,
                 "torch.where(kv < SPLIT, score, FILL)": 2, "torch.where(flags[kv], score, score * 0.5)": 2,
                 "score + torch.where((q + kv) % 3 == 0, 0.0, FILL)": 1, "torch.maximum(score, -ALPHA)": 1,
                 "score + (left[h] * right[h]).sum()": 1, "score * score * ALPHA": 1}  # fmt: skip
        text = "score"
        for _ in range(self.choice([0, 1, 1, 2, 3])):
            text = self.often(terms).replace("score", f"({text})" if text != "score" else text)
            text = text.replace("FILL", self.fill())
        names.update(word for word in CAPTURES | CONSTANTS if word in text)
        return text

    def fill(self):
        fill = self.choice(FILLS)
        return "float('-inf')" if fill == "-inf" else fill

    def mask(self, names):
        terms = {"q >= kv": 4, "q - kv < WINDOW": 3, "kv - q <= WINDOW": 2, "q == kv": 1, "(q + kv) % 3 != 0": 2,
                 "docs[q % 16] == docs[kv % 16]": 2, "flags[kv]": 1, "ON | (q >= kv)": 1, "(h % 2 == 0) | (kv < 5)": 1,
                 "q * 3 > kv": 1}  # fmt: skip
        chosen = [self.often(terms) for _ in range(self.choice([0, 1, 1, 2]))]
        if self.random() < 0.5:
            chosen.append("(kv < SEEN)")
            chosen.append("(q < ROWS)")
        text = self.choice([" & ", " & ", " | "]).join(f"({term})" for term in chosen) if len(chosen) > 1 else "".join(chosen)
        names.update(word for word in CAPTURES | CONSTANTS if word in text)
        return text

    def out(self, names):
        """The mod of the output, or none."""
        terms = {"out * ALPHA": 2, "out * torch.sigmoid(gate[h, d % 3])": 3, "out + slopes[h]": 2, "out * out": 1,
                 "torch.where(q < SPLIT, out, gate[h, d % 3])": 2, "torch.tanh(out) - 0.01 * d": 1, "out / (1 + b)": 1}  # fmt: skip
        text = self.often(terms) if self.random() < 0.3 else ""
        names.update(word for word in CAPTURES | CONSTANTS if word in text)
        return text

    def sink(self, names):
        """The sink's mod, or none."""
        terms = {"slopes[h]": 3, "0.0": 1, "ALPHA * h": 1, "float('-inf')": 1, "gate[h, b % 3] - 2.0": 2, "-1e4": 1, "1e4": 1,
                 "torch.where(h % 2 == 0, float('-inf'), slopes[h])": 1}  # fmt: skip
        text = self.often(terms) if self.random() < 0.3 else ""
        names.update(word for word in CAPTURES | CONSTANTS if word in text)
        return text

    def values(self, dtype, count, kind):
        """count numbers of a kind, within the dtype."""
        most = LARGEST[dtype]
        if kind == "constant":
            value = min(self.choice([0.0, 1.0, 3.0, 1e4]), most)
            return [value] * count
        if kind == "large":
            return [max(-most, min(most, self.gauss(0, 30))) for _ in range(count)]
        return [self.gauss(0, 1) for _ in range(count)]


CAPTURES = {"bias", "slopes", "rel", "flags", "docs", "left", "right", "gate"}
CONSTANTS = {"ALPHA", "SPLIT", "WINDOW", "ON", "SEEN", "ROWS"}


class Mod:
    """A mod file and what belongs to it, for one dtype and head dimensions."""

    def __init__(self, draw):
        names = set()
        self.dtype = draw.often(DTYPES)
        self.e, self.ev = draw.choice([(16, 16), (64, 64), (8, 24), (37, 5), (1, 1), (40, 40), (128, 32)])
        self.score, self.mask = draw.score(names), draw.mask(names)
        self.out, self.sink = draw.out(names), draw.sink(names)
        self.dropout = draw.choice([0.0, 0.1, 0.5, 0.9, 1.0]) if draw.random() < 0.3 else None
        self.captures, self.constants = names & CAPTURES, names & CONSTANTS
        self.float_dtype = draw.choice(["F32", "F32", self.dtype, "BF16", "F16"])
        self.int_dtype = draw.choice(["I32", "I64", "U8"])
        self.values = {
            "ALPHA": draw.choice([0.5, 2.0, -1.25, 1e-3]),
            "SPLIT": draw.choice([0, 1, 2, 9, 40]),
            "WINDOW": draw.choice([0, 1, 7, 31, -3, 2**31 - 1, -(2**31) + 1]),
            "ON": draw.random() < 0.5,
            "SEEN": draw.choice([0, 1, 5, 23, 70]),
            "ROWS": draw.choice([0, 1, 4, 30, 70]),
        }
        self.dlse = draw.random() < 0.4
        self.hides = "(kv < SEEN)" in self.mask and " | " not in self.mask.replace("ON | ", "").replace(") | (kv < 5", "")

    def source(self):
        lines = ["import torch", ""]
        lines += [f"{name} = {self.values[name]!r}" for name in sorted(self.constants)]
        lines += [f"{name} = torch.empty(1)" for name in sorted(self.captures)]
        lines += ["", "def score_mod(score, b, h, q, kv):", f"    return {self.score}"]
        if self.mask:
            lines += ["", "def mask_mod(b, h, q, kv):", f"    return {self.mask}"]
        if self.out:
            lines += ["", "def out_mod(out, b, h, q, d):", f"    return {self.out}"]
        if self.sink:
            lines += ["", "def sink_mod(b, h):", f"    return {self.sink}"]
        return "\n".join(lines) + "\n"


class Call:
    """Tensors for a mod: name -> (dtype, shape, values), and the scale."""

    def __init__(self, draw, mod):
        self.mod, dtype = mod, mod.dtype
        self.b, self.hkv = draw.extent(2, (0, 1)), draw.extent(2, (1, 1))
        self.hq = self.hkv * draw.choice([1, 1, 2, 3])
        self.l, self.s = draw.extent(70), draw.extent(90)
        kind = draw.often({"normal": 6, "large": 2, "constant": 1})
        e, ev = mod.e, mod.ev
        shapes = {"q": (self.b, self.hq, self.l, e), "k": (self.b, self.hkv, self.s, e),
                  "v": (self.b, self.hkv, self.s, ev), "do": (self.b, self.hq, self.l, ev)}  # fmt: skip
        self.tensors = {
            name: (dtype, list(shape), draw.values(dtype, math.prod(shape), kind if name in "qk" else "normal"))
            for name, shape in shapes.items()
        }
        if mod.dlse:
            statistic = "F64" if dtype == "F64" else "F32"
            shape = [self.b, self.hq, self.l]
            self.tensors["dlse"] = (statistic, shape, draw.values("F32", math.prod(shape), "normal"))
        self.extents = (draw.choice([1, 2, 3]), draw.choice([1, 2, 3]))
        for name in sorted(mod.captures):
            self.tensors[name] = self.capture(draw, name)
        self.seed = draw.getrandbits(64)
        root = 1 / math.sqrt(e)
        self.scale = draw.choice([root, root, root, root, 1.0, -root, 0.0, 1e-3, 2.0**-60, 2.0**30])

    def capture(self, draw, name):
        floats, ints = self.mod.float_dtype, self.mod.int_dtype
        shape = {"bias": [self.s], "slopes": [self.hq], "rel": [self.hq, 7], "flags": [self.s], "docs": [16],
                 "gate": [self.hq, 3], "left": [self.hq, self.extents[0]], "right": [self.hq, self.extents[1]]}[name]  # fmt: skip
        count = math.prod(shape)
        if name == "flags":
            return ("BOOL", shape, [draw.randint(0, 1) for _ in range(count)])
        if name == "docs":
            return (ints, shape, [draw.randint(0, 2) for _ in range(count)])
        return (floats, shape, draw.values(floats, count, "normal"))

    def is_legal(self):
        return not {"left", "right"} <= self.mod.captures or 1 in self.extents or self.extents[0] == self.extents[1]

    def hidden(self, poison):
        """The tensors with 0, or what poison() gives, where the mask lets nobody see them. What a mod of the output reads has a
        gradient of every row, and a sink has one of every row's lse."""
        if not self.mod.hides:
            return self.tensors
        seen = {"do"} if self.mod.out else set()
        seen |= {"dlse"} if self.mod.sink else set()
        changed = dict(self.tensors)
        for name, first, axis in (("q", "ROWS", 2), ("do", "ROWS", 2), ("dlse", "ROWS", 2), ("k", "SEEN", 2),
                                  ("v", "SEEN", 2), ("bias", "SEEN", 0)):  # fmt: skip
            if name not in changed or name in seen:
                continue
            dtype, shape, values = changed[name]
            width = math.prod(shape[axis + 1 :])
            values = [
                poison() if i // width % shape[axis] >= self.mod.values[first] else value for i, value in enumerate(values)
            ]
            changed[name] = (dtype, shape, values)
        return changed


# ---- Through the tool --------------------------------------------------------------------------------------------


class Tool:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder

    def run(self, call, tensors, device, *more):
        mod, inputs, outputs = (self.folder / name for name in ("mod.py", "in.safetensors", "out.safetensors"))
        mod.write_text(call.mod.source())
        inputs.write_bytes(harness.safetensors(tensors))
        command = [self.options.tool, "run", mod, "--input", inputs, "--output", outputs, "--device", device, "--backward",
                   f"--scale={call.scale!r}", *more]  # fmt: skip
        if call.mod.dropout is not None:
            command += ["--dropout", repr(call.mod.dropout), "--seed", str(call.seed)]
        (self.folder / "command").write_text(" ".join(map(str, command)) + "\n")
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", timeout=600, check=False)
        return done, outputs

    def check(self, call, tensors, device, *more):
        done, outputs = self.run(call, tensors, device, "--check", *more)
        if not call.is_legal():
            if done.returncode != 1 or "do not fit together" not in done.stderr:
                raise Wrong(f"extents {call.extents} are taken: exit {done.returncode}\n{done.stdout}{done.stderr}")
            return None
        if done.returncode != 0:
            raise Wrong(f"{device}: exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return harness.read_safetensors(outputs)

    def check_scalars(self, call, tensors, device, baked, more):
        """Constants as run-time scalars: judged, and of ints and bools the same bits."""
        names = sorted(call.mod.constants)
        got = self.check(call, tensors, device, *[f"--runtime-param={name}" for name in names], *more)
        if got is None or "ALPHA" in names:
            return
        for name, tensor in baked.items():
            if repr(tensor) != repr(got[name]):
                raise Wrong(f"{device}: {name} is not the same with the run-time scalars {names}")


# ---- Through the library -------------------------------------------------------------------------------------------


class Memory:
    """A tensor in memory of its own: packed, or with strides, an offset, and bytes of `gap` between its elements."""

    def __init__(self, dtype, shape, data, draw=None, gap=0xFF):
        size = harness.width(dtype)
        order = list(range(len(shape)))
        if draw and len(shape) > 2:
            head = order[:-1]
            draw.shuffle(head)
            order = head + order[-1:]
        self.strides, step = [0] * len(shape), 1
        for axis in reversed(order):
            self.strides[axis] = step
            step = step * max(1, shape[axis]) + (draw.randint(0, 3) if draw else 0)
        first = draw.randint(0, 5) if draw else 0
        count = first + step + 4
        self.memory = (ctypes.c_double * (count * size // 8 + 1))()
        self.bytes = ctypes.cast(self.memory, ctypes.POINTER(ctypes.c_uint8 * ctypes.sizeof(self.memory))).contents
        ctypes.memset(self.memory, gap, ctypes.sizeof(self.memory))
        self.dtype, self.shape, self.size, self.first, self.gap = dtype, tuple(shape), size, first, gap
        self.places = [self.first * size + place * size for place in self.offsets()]
        for i, place in enumerate(self.places) if data is not None else ():
            self.bytes[place : place + size] = data[i * size : (i + 1) * size]

    def offsets(self):
        places = [0]
        for extent, stride in zip(self.shape, self.strides):
            places = [place + i * stride for place in places for i in range(extent)]
        return places

    def array(self):
        address = ctypes.addressof(self.memory) + self.first * self.size
        return flexjit.Array(address, self.dtype, self.shape, tuple(self.strides), kept=[self])

    def content(self):
        whole = bytes(self.bytes)
        return b"".join(whole[place : place + self.size] for place in self.places)

    def gaps_are_kept(self):
        used = {place + i for place in self.places for i in range(self.size)}
        return all(byte == self.gap for i, byte in enumerate(self.bytes) if i not in used)


class Library:
    def __init__(self, options):
        self.options = options
        self.devices = {name: flexjit.Flexjit(options.library, name) for name in options.device.split(",")}

    def open(self, device, call):
        """Kernels of both directions, the captures in order, and which of them have gradients."""
        library = self.devices[device]
        captures = {name: Memory(*call.tensors[name][:2], None).array() for name in call.mod.captures}
        mod, order = library.mod(call.mod.source(), captures)
        gradients = [library.c.fj_mod_capture(mod, ctypes.c_size_t(i)).gradient for i in range(len(order))]
        kernels = [
            library.kernel(mod, direction, call.mod.dtype, call.mod.e, call.mod.ev,
                           dlse=direction == flexjit.BACKWARD and call.mod.dlse, dropout=call.mod.dropout is not None)[0]
            for direction in (flexjit.FORWARD, flexjit.BACKWARD)
        ]  # fmt: skip
        return library, mod, kernels, order, gradients

    def close(self, opened):
        library, mod, kernels, _, _ = opened
        for kernel in kernels:
            library.c.fj_kernel_unref(ctypes.byref(kernel))
        library.c.fj_mod_unref(ctypes.byref(mod))

    def launch(self, library, kernel, arrays, captures, dcaptures, of):
        call = library.bind(kernel, {name: memory.array() for name, memory in arrays.items()},
                            [memory.array() for memory in captures],
                            [memory.array() if memory else None for memory in dcaptures], of.scale,
                            (of.mod.dropout or 0.0, of.seed))  # fmt: skip
        size = call.workspace_size()
        workspace = (ctypes.c_uint8 * (size + 256))()
        address = (ctypes.addressof(workspace) + 255) // 256 * 256
        call.run(address, size)

    def results(self, opened, call, tensors, layout=None, gap=0xFF):
        """Bytes of every output. layout: the seed of strides and gaps; None: packed."""
        draw = Draw(layout) if layout is not None else None
        library, _, kernels, order, gradients = opened
        statistic = "F64" if call.mod.dtype == "F64" else "F32"
        inputs = {name: Memory(dtype, shape, harness.pack(dtype, values), draw, gap) for name, (dtype, shape, values) in tensors.items()}
        rows, dtype = [call.b, call.hq, call.l], call.mod.dtype
        outputs = {"out": Memory(dtype, rows + [call.mod.ev], None, draw, gap), "lse": Memory(statistic, rows, None, draw, gap),
                   "lse_low": Memory(statistic, rows, None, draw, gap)}  # fmt: skip
        outputs |= {f"d{name}": Memory(dtype, tensors[name][1], None, draw, gap) for name in "qkv"}
        captures = [inputs[name] for name in order]
        wanted = [Memory(statistic, memory.shape, None, draw, gap) if gradient else None for memory, gradient in zip(captures, gradients)]
        names = {"q": "query", "k": "key", "v": "value", "do": "dout", "dlse": "dlse"}
        given = {names[name]: inputs[name] for name in names if name in inputs}
        forward = {name: memory for name, memory in given.items() if name in ("query", "key", "value")}
        if call.mod.out:
            outputs["out_raw"] = Memory(dtype, rows + [call.mod.ev], None, draw, gap)
        common = {name: outputs[name] for name in ("out", "lse", "lse_low", "out_raw") if name in outputs}
        gradient = {"dquery": outputs["dq"], "dkey": outputs["dk"], "dvalue": outputs["dv"]}
        self.launch(library, kernels[0], forward | common, captures, [None] * len(captures), call)
        self.launch(library, kernels[1], given | common | gradient, captures, wanted, call)
        outputs |= {f"d_{name}": memory for name, memory in zip(order, wanted) if memory}
        for name, memory in outputs.items():
            if not memory.gaps_are_kept():
                raise Wrong(f"{name}: what lies between its elements is written over")
        return {name: memory.content() for name, memory in outputs.items()}

    def check(self, device, call, draw):
        zeros, poisoned = call.hidden(lambda: 0.0), call.hidden(lambda: draw.choice(POISON) if self.options.poison else 0.0)
        opened, layout = self.open(device, call), draw.getrandbits(32)
        comma = locale.setlocale(locale.LC_ALL, "") if draw.random() < 0.5 else None
        try:
            dirty = self.results(opened, call, poisoned, layout)
            locale.setlocale(locale.LC_ALL, "C")
            clean, packed = self.results(opened, call, zeros, layout, 0), self.results(opened, call, zeros)
        finally:
            locale.setlocale(locale.LC_ALL, "C")
            self.close(opened)
        for name, content in clean.items():
            if dirty[name] != content:
                raise Wrong(f"{device}: {name} is not as with zeros between the elements"
                            f"{' and where the mask hides' if call.mod.hides else ''}{', locale ' + comma if comma else ''}")  # fmt: skip
            # On GPUs the order in which rowsum(out dout) is added up depends on alignment.
            if packed[name] != content and (device == "cpu" or name in ("out", "out_raw", "lse", "dv")):
                raise Wrong(f"{device}: {name} has other bits with strides")


# ---- All -----------------------------------------------------------------------------------------------------------


def run_seed(seed, options, library, folder):
    """One mod with some calls."""
    draw = Draw(seed)
    mod = Mod(draw)
    tool = Tool(options, folder)
    for _ in range(options.calls):
        call = Call(draw, mod)
        more = draw.choice([(), (), ("--max",), ("--threads", "1")])
        tensors = call.hidden(lambda: draw.choice(POISON)) if options.poison and draw.random() < 0.4 else call.tensors
        for device in options.device.split(","):
            got = tool.check(call, tensors, device, *more)
            if got is not None and mod.constants and draw.random() < 0.3:
                tool.check_scalars(call, tensors, device, got, more)
            if got is not None:
                library.check(device, call, draw)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"))
    parser.add_argument("--library", default=str(ROOT / "build/libflexjit.so"))
    parser.add_argument("--device", default="cpu,emu", help="default: cpu,emu")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, help="the first one; default: the clock's")
    parser.add_argument("--count", type=int, help="seeds; default: as many as fit into --seconds")
    parser.add_argument("--calls", type=int, default=3, help="calls of each mod")
    parser.add_argument("--poison", action=argparse.BooleanOptionalAction, default=True, help="NaN where a mask hides")
    parser.add_argument("--keep", default="random-failures", help="where files of failures go")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time()) % 10**8 * 1000
    end, failed, done, cache = time.monotonic() + options.seconds, 0, 0, "FLEXJIT_CACHE_PATH"
    print(f"seeds from {first}, devices {options.device}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault(cache, f"{scratch}/cache")
        library, folder = Library(options), Path(scratch, "case")
        while done < options.count if options.count else time.monotonic() < end:
            seed = first + done
            done += 1
            folder.mkdir()
            try:
                run_seed(seed, options, library, folder)
            except (Wrong, flexjit.Failure, subprocess.TimeoutExpired) as wrong:
                failed += 1
                kept = Path(options.keep, str(seed))
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                print(f"seed {seed}: {wrong}\n{folder.joinpath('mod.py').read_text()}files are in {kept}; "
                      f"again: tests/random_calls.py --seed {seed} --count 1\n", flush=True)  # fmt: skip
            shutil.rmtree(folder)
    print(f"{done} mods, {failed} failed")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
