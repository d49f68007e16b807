"""What the end-to-end tests of the tool share: running it, and safetensors files without any package.

A test file ends with harness.main(); it is run as `test_NAME.py TOOL`.
"""

import json
import math
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

TOOL = os.path.abspath(os.environ.get("FLEXJIT", "build/flexjit"))

CODES = {"F64": "d", "F32": "f", "I64": "q", "I32": "i", "I16": "h", "I8": "b", "U8": "B", "BOOL": "B", "F16": "e"}
WIDTHS = {"BF16": 2, "U16": 2, "F8_E4M3": 1}


def width(dtype):
    return WIDTHS.get(dtype) or struct.calcsize("<" + CODES[dtype])


def pack(dtype, values):
    if dtype == "BF16":  # rounded to nearest even
        words = []
        for value in values:
            bits = struct.unpack("<I", struct.pack("<f", value))[0]
            words.append((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)
        return struct.pack(f"<{len(words)}H", *words)
    return struct.pack(f"<{len(values)}{CODES[dtype]}", *values)


def unpack(dtype, data):
    count = len(data) // width(dtype)
    if dtype == "BF16":
        return [struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in struct.unpack(f"<{count}H", data)]
    return list(struct.unpack(f"<{count}{CODES[dtype]}", data))


def header_bytes(header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def safetensors(tensors, pad=0):
    """tensors: name -> (dtype, shape, values or bytes). pad: blanks after the header, which shift the data."""
    header, body = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        data = values if isinstance(values, bytes) else pack(dtype, values)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return header_bytes(json.dumps(header).encode() + b" " * pad) + body


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {
        name: (entry["dtype"], entry["shape"], unpack(entry["dtype"], body[slice(*entry["data_offsets"])]))
        for name, entry in header.items()
    }


def normal(dtype, shape, seed, scale=1.0):
    source = random.Random(seed)
    return (dtype, list(shape), [source.gauss(0, scale) for _ in range(math.prod(shape))])


def attention_tensors(dtype="F32", b=1, hq=2, hkv=1, l=5, s=7, e=8, ev=None, backward=False):
    ev = ev or e
    tensors = {
        "q": normal(dtype, (b, hq, l, e), 1),
        "k": normal(dtype, (b, hkv, s, e), 2),
        "v": normal(dtype, (b, hkv, s, ev), 3),
    }
    if backward:
        tensors["do"] = normal(dtype, (b, hq, l, ev), 4)
    return tensors


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def flexjit(self, *arguments, env=None, **options):
        return subprocess.run(
            [TOOL, *map(str, arguments)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            timeout=300,
            check=False,
        )

    def start(self, *arguments, env=None, **options):
        """A tool that runs, in a group of its own; a shell without job control would have it ignore Ctrl-C."""
        return subprocess.Popen(
            [TOOL, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )

    def ok(self, *arguments, **options):
        done = self.flexjit(*arguments, **options)
        self.assertEqual(done.returncode, 0, f"{arguments}\n{done.stdout}{done.stderr}")
        return done

    def fails(self, status, text, *arguments, **options):
        """It ends with this status and says this; with --json it says so in the error object as well."""
        done = self.flexjit(*arguments, **options)
        self.assertEqual(done.returncode, status, f"{arguments}\n{done.stdout}{done.stderr}")
        self.assertIn(text, done.stderr)
        again = self.flexjit(*arguments, "--json", **options)
        self.assertEqual(again.returncode, status, f"{arguments} --json\n{again.stdout}{again.stderr}")
        error = json.loads(again.stdout)["error"]
        self.assertEqual(error["status"], status)
        self.assertLessEqual({"status", "file", "line", "column", "text"}, set(error))
        return done

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def tensors(self, name="in.safetensors", **options):
        return self.file(name, safetensors(attention_tensors(**options)))


def main():
    global TOOL
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        TOOL = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=1)
