"""Test inputs for the mods of examples/mods: q, k, v, do, dlse and captured tensors, as safetensors.

examples/mods/README.md describes corpus.json, from which they are made. Everything follows from a
seed, and the standard library is enough, as the normal tests run where there is no NumPy.
Independent values are drawn from a table of 65,536 equally likely outcomes that are already encoded
in the tensor's dtype, which makes a million of them in a tenth of a second. Little-endian machines.
"""

import json
import math
import random
import struct
from array import array
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

TYPECODES = {
    "F64": "d", "F32": "f", "F16": "H", "BF16": "H", "I64": "q", "I32": "i", "I16": "h", "I8": "b",
    "U8": "B", "BOOL": "B",
}  # fmt: skip
OUTCOMES = 1 << 16


class Tensor(NamedTuple):
    dtype: str
    dims: tuple
    data: bytes


# Safetensors: the length of the header in 8 bytes, the header in JSON, then the tensors.


def save(path, tensors):
    """Writes {name: Tensor} to a safetensors file."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.dims), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(tensor.data for tensor in tensors.values())


def load(path):
    """Reads a safetensors file into {name: Tensor}."""
    data = Path(path).read_bytes()
    start = 8 + struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), data[begin:end])
    return tensors


# Values


def encode(dtype, values):
    """Rounds numbers to a dtype, to nearest even; returns an array of its elements (or their bits)."""
    if dtype == "F16":
        return array("H", struct.pack(f"<{len(values)}e", *values))
    if dtype == "BF16":
        bits = array("I", array("f", values).tobytes())
        return array("H", [(u + 0x7FFF + (u >> 16 & 1)) >> 16 for u in bits])
    return array(TYPECODES[dtype], values)


@lru_cache
def quantiles():
    return [NormalDist().inv_cdf((i + 0.5) / OUTCOMES) for i in range(OUTCOMES)]


def outcomes(spec, evaluate):
    """The equally likely outcomes of an independent value."""
    if "normal" in spec:
        mean, deviation = map(evaluate, spec["normal"])
        return [mean + deviation * x for x in quantiles()]
    if "uniform" in spec:
        low, high = map(evaluate, spec["uniform"])
        return [low + (high - low) * (i + 0.5) / OUTCOMES for i in range(OUTCOMES)]
    if "integers" in spec:
        low, high = map(evaluate, spec["integers"])
        return [low + i * (high - low) // OUTCOMES for i in range(OUTCOMES)]
    return [i < spec["bernoulli"] * OUTCOMES for i in range(OUTCOMES)]


def permutations(rng, rows, length, holes):
    """Rows that are permutations of range(length), each place being -1 with probability `holes`."""
    for _ in range(rows):
        row = rng.sample(range(length), length)
        yield from (-1 if rng.random() < holes else x for x in row)


def generate(spec, dtype, shape, seed):
    """Makes one tensor as an entry of corpus.json describes it."""
    evaluate = Evaluator(shape)
    dims = tuple(map(evaluate, spec["dims"]))
    count = math.prod(dims)
    rng = random.Random(seed)
    if "formula" in spec:
        code = compile(spec["formula"], "<formula>", "eval")
        places = product(*map(range, dims))
        values = encode(dtype, [evaluate(code, **dict(zip("ijkl", place))) for place in places])
    elif "permutation" in spec:
        rows = permutations(rng, count // dims[-1], dims[-1], spec["permutation"])
        values = encode(dtype, list(rows))
    else:
        table = encode(dtype, outcomes(spec, evaluate)).tolist()
        picks = array("H", rng.randbytes(2 * count))
        values = array(TYPECODES[dtype], map(table.__getitem__, picks))
    return Tensor(dtype, dims, values.tobytes())


# Shapes and mods


class Shape(NamedTuple):
    B: int
    Hq: int
    Hkv: int
    L: int
    S: int
    E: int
    Ev: int

    @classmethod
    def parse(cls, text):
        """Reads B,Hq,Hkv,L,S,E[,Ev]."""
        numbers = [int(number) for number in text.split(",")]
        if len(numbers) == 6:
            numbers.append(numbers[-1])
        return cls(*numbers)


class Evaluator:
    """Evaluates the expressions of corpus.json, which know the sizes and a few functions."""

    def __init__(self, shape):
        self.names = {"__builtins__": {}, "max": max, "min": min, "isqrt": math.isqrt, **shape._asdict()}

    def __call__(self, expression, **names):
        if isinstance(expression, (int, float)):
            return expression
        return eval(expression, {**self.names, **names})


def attention_inputs(shape, dtype, seed=0, dlse=False):
    """Makes q, k, v, do and, when asked for, dlse."""
    dims = {
        "q": ["B", "Hq", "L", "E"],
        "k": ["B", "Hkv", "S", "E"],
        "v": ["B", "Hkv", "S", "Ev"],
        "do": ["B", "Hq", "L", "Ev"],
    }
    dtypes = dict.fromkeys(dims, dtype)
    if dlse:
        dims["dlse"] = ["B", "Hq", "L"]
        dtypes["dlse"] = "F64" if dtype == "F64" else "F32"
    return {
        name: generate({"dims": dims[name], "normal": [0, 1]}, dtypes[name], shape, f"{seed} {name}")
        for name in dims
    }


def captured_inputs(entry, shape, dtype, seed=0):
    """Makes the captured tensors of a mod; those of floats are F64 when the inputs are."""
    tensors = {}
    for name, spec in entry.get("tensors", {}).items():
        wide = dtype == "F64" and spec["dtype"] in ("F32", "F16", "BF16")
        tensors[name] = generate(spec, "F64" if wide else spec["dtype"], shape, f"{seed} {name}")
    return tensors


def parameters(entry, shape):
    """The constants of the mod's file that its entry replaces."""
    evaluate = Evaluator(shape)
    return {name: evaluate(expression) for name, expression in entry.get("params", {}).items()}


def mod_options(entry, shape):
    """The options by which the command line chooses the mod and its constants."""
    options = []
    for key in ("score_mod", "mask_mod"):
        if key in entry:
            options += ["--" + key.replace("_", "-"), entry[key]]
    for name, value in parameters(entry, shape).items():
        options += ["--param", f"{name}={value}"]
    return options


def read_corpus(table, folder, beyond=False):
    """Reads a table of mods: {name: entry}, each with the path of its file in `folder` under "path"; beyond: also what
    FlexAttention does not have."""
    entries = json.loads(table.read_text(encoding="utf-8"))["mods"]
    entries = {name: entry for name, entry in entries.items() if beyond or not entry.get("beyond")}
    for name, entry in entries.items():
        entry["path"] = folder / entry.get("file", name + ".py")
    return entries
