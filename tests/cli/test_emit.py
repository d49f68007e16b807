"""`flexjit prebuild --emit-c`: the C files compile without warnings, and compute what `flexjit run` does, bit for bit: those of
the cpu, and those of a GPU on the fake driver, whose cubins run on the emulator."""

import ctypes
import json
import os
import pathlib
import re
import subprocess
import unittest

import harness

SUPPORT = pathlib.Path(__file__).resolve().parent.parent / "support"
CC = os.environ.get("FLEXJIT_CC", "cc")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
FAKE_CUDA = os.environ.get("FJ_FAKE_CUDA", "")
FAKE = {"FLEXJIT_LIBCUDA": FAKE_CUDA, "FLEXJIT_NVRTC": os.environ.get("FJ_FAKE_NVRTC", ""), "FAKE_NVRTC": "emulate=1"}

# A captured tensor and a run-time scalar, both with gradients, a table of the text, and a mask.
MOD = """
table = torch.tensor([0.5, -1.0, 0.25])
strength = 1.5
def biased(score, b, h, q, kv):
    return score * strength + bias[h, kv] + table[kv % 3]
def causal(b, h, q, kv):
    return q + 3 >= kv
"""
BINDINGS = {"bias": "F32[?,?]"}


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("strides", ctypes.POINTER(ctypes.c_int64)), ("shape", ctypes.POINTER(ctypes.c_int64))]


OPERANDS = ("query", "key", "value", "out", "lse", "lse_low", "max", "dout", "dlse", "dquery", "dkey", "dvalue")


class Args(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("batch", "heads_q", "heads_kv", "q_len", "kv_len")]
        + [("scale", ctypes.c_double)]
        + [(name, Tensor) for name in OPERANDS]
        + [(name, ctypes.POINTER(Tensor)) for name in ("captures", "dcaptures")]
        + [("scalars", ctypes.POINTER(ctypes.c_double)), ("dscalars", ctypes.POINTER(Tensor))]
    )


class Fault(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("found", "b", "h", "q", "kv")]


class Host:
    """Memory of the host."""

    def __init__(self):
        self.blocks = {}

    def alloc(self, size):
        block = ctypes.create_string_buffer(size + 256)
        address = (ctypes.addressof(block) + 255) // 256 * 256
        self.blocks[address] = block
        return address

    def put(self, data):
        address = self.alloc(len(data))
        ctypes.memmove(address, data, len(data))
        return address

    def get(self, address, size):
        return ctypes.string_at(address, size)


class Gpu:
    """Memory of the fake GPU, which the host cannot reach."""

    def __init__(self):
        try:
            self.cuda = ctypes.CDLL(FAKE_CUDA, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:  # Python does not have a sanitizer's run-time library
            if re.search("undefined symbol: __[at]san", str(error)):
                raise unittest.SkipTest("a build with a sanitizer") from error
            raise
        context, device = ctypes.c_void_p(), ctypes.c_int()
        self.check(self.cuda.cuInit(0))
        self.check(self.cuda.cuDeviceGet(ctypes.byref(device), 0))
        self.check(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        self.check(self.cuda.cuCtxPushCurrent_v2(context))

    @staticmethod
    def check(result):
        if result != 0:
            raise RuntimeError(f"CUDA error {result}")

    def alloc(self, size):
        address = ctypes.c_uint64()
        if size:
            self.check(self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)))
        return address.value

    def put(self, data):
        address = self.alloc(len(data))
        self.check(self.cuda.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(address), data, ctypes.c_size_t(len(data)), None))
        return address

    def get(self, address, size):
        data = ctypes.create_string_buffer(size)
        self.check(self.cuda.cuMemcpyDtoHAsync_v2(data, ctypes.c_uint64(address), ctypes.c_size_t(size), None))
        self.check(self.cuda.cuStreamSynchronize(None))
        return data.raw


def integers(values):
    return (ctypes.c_int64 * max(len(values), 1))(*values)


class Kernel:
    """An emitted kernel, compiled and loaded."""

    def __init__(self, source, memory, *flags):
        self.name, self.memory = source.stem, memory
        path = source.with_suffix(".so")
        subprocess.run([CC, *STRICT, "-O0", "-fPIC", "-shared", source, "-o", path, *flags, "-lm"], check=True, timeout=300)
        self.library = ctypes.CDLL(str(path))
        self.handle = None
        self.wrong = self.function("wrong", ctypes.c_char_p)
        if isinstance(memory, Gpu):
            self.handle = ctypes.create_string_buffer(256)
            memory.check(self.function("load")(self.handle))

    def function(self, name, result=ctypes.c_int):
        function = getattr(self.library, f"{self.name}_{name}")
        function.restype = result
        return function

    def launch(self, args, workers=0, fault=None):
        if not self.handle:
            size = self.function("workspace", ctypes.c_size_t)(ctypes.byref(args), workers)
            return self.function("launch")(ctypes.byref(args), workers, ctypes.c_void_p(self.memory.alloc(size)),
                                           ctypes.c_size_t(size), fault and ctypes.byref(fault))
        size = ctypes.c_size_t()
        self.memory.check(self.function("workspace")(ctypes.byref(args), ctypes.byref(size)))
        workspace = ctypes.c_uint64(self.memory.alloc(size.value))
        status = self.function("launch")(self.handle, ctypes.byref(args), workspace, size, None)
        if status == 0 and fault is not None:
            self.memory.check(self.function("check")(workspace, None, ctypes.byref(fault)))
        return status


class Call:
    """The tensors of a file, in memory of a device, and the results of emitted kernels."""

    def __init__(self, tensors, memory):
        self.memory, self.results = memory, {}
        (self.dtype, (b, hq, l, e), _), (_, (_, hkv, s, _), _), (_, (_, _, _, ev), _) = (tensors[n] for n in "qkv")
        self.real = "F64" if self.dtype == "F64" else "F32"
        self.args = Args(b, hq, hkv, l, s, e**-0.5)
        for name, field in (("q", "query"), ("k", "key"), ("v", "value"), ("do", "dout"), ("dlse", "dlse")):
            if name in tensors:
                setattr(self.args, field, Tensor(memory.put(harness.pack(tensors[name][0], tensors[name][2]))))
        self.shape = {"q": [b, hq, l, e], "k": [b, hkv, s, e], "v": [b, hkv, s, ev], "o": [b, hq, l, ev], "r": [b, hq, l]}
        dtype, self.bias, values = tensors["bias"]
        capture = Tensor(memory.put(harness.pack(dtype, values)), None, integers(self.bias))
        self.args.captures = (Tensor * 1)(capture)
        self.args.scalars = (ctypes.c_double * 1)(1.5)

    def result(self, name, dtype, shape):
        size = harness.math.prod(shape) * harness.width(dtype)
        address = self.memory.put(b"\xa5" * size) if size else 0
        self.results[name] = (address, size, shape)
        return Tensor(address)

    def forward(self):
        self.args.out = self.result("out", self.dtype, self.shape["o"])
        self.args.lse = self.result("lse", self.real, self.shape["r"])
        self.args.lse_low = self.result("lse_low", self.real, self.shape["r"])
        return self.args

    def backward(self):
        for name, field, shape in (("dq", "dquery", "q"), ("dk", "dkey", "k"), ("dv", "dvalue", "v")):
            setattr(self.args, field, self.result(name, self.dtype, self.shape[shape]))
        self.args.dcaptures = (Tensor * 1)(self.result("d_bias", self.real, self.bias))
        self.args.dscalars = (Tensor * 1)(self.result("d_strength", self.real, []))
        return self.args

    def bytes_of(self, name):
        address, size, _ = self.results[name]
        return self.memory.get(address, size) if size else b""


def raw_tensors(path):
    data = pathlib.Path(path).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {name: body[slice(*entry["data_offsets"])] for name, entry in header.items() if name != "__metadata__"}


def call_tensors(dtype, b, hq, hkv, l, s, e, ev):
    tensors = harness.attention_tensors(dtype, b, hq, hkv, l, s, e, ev, backward=True)
    tensors["dlse"] = harness.normal("F64" if dtype == "F64" else "F32", (b, hq, l), 5)
    tensors["bias"] = harness.normal("F32", (hq, s), 6)
    return tensors


class Emit(harness.Case):
    def emit(self, folder, arch, *problems, env=None, **entry):
        self.file("mod.py", MOD)
        entry = {"mod": "mod.py", "bind": BINDINGS, "runtime_params": ["strength"], **entry}
        entry["problems"] = [{"few_queries": False, "direction": ["fwd", "bwd"], **problem} for problem in problems]
        manifest = self.file("m.json", json.dumps({"schema": 1, "entries": [entry]}))
        self.ok("prebuild", "--manifest", manifest, "--arch", arch, "--output", self.folder / "layer", "--emit-c",
                self.folder / folder, "-j1", env=env)
        return {"fwd" if "_fwd_" in path.name else "bwd": path for path in sorted((self.folder / folder).glob("*.c"))}

    def header_compiles(self, header, *flags):
        for language in (["c", "-std=c11"], ["c++", "-std=c++11"]):
            subprocess.run([CC, "-x", language[0], language[1], "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-fsyntax-only", *flags, header],
                           check=True, timeout=60)

    def same_as_run(self, kernels, memory, shapes, dtype, *arguments, env=None):
        """Every result of forward and backward, with the file's values and the kernels' variants."""
        env = {**(env or {}), "FLEXJIT_CACHE_PATH": str(self.folder / "layer")}
        for shape in shapes:
            tensors = call_tensors(dtype, *shape)
            given = self.file("in.safetensors", harness.safetensors(tensors))
            self.ok("run", self.folder / "mod.py", "--runtime-param", "strength", "--input", given, "--output", self.folder / "out.safetensors",
                    "--backward", *arguments, env=env)
            expected = raw_tensors(self.folder / "out.safetensors")
            call = Call(tensors, memory)
            self.assertEqual(kernels["fwd"].launch(call.forward(), fault=Fault()), 0)
            self.assertEqual(kernels["bwd"].launch(call.backward()), 0)
            for name in set(expected) | {"out", "lse", "dq", "dk", "dv", "d_bias", "d_strength"}:
                self.assertEqual(call.bytes_of(name), expected[name], f"{name} of {shape}")

    def test_cpu(self):
        sources = self.emit("c", "avx2", {"dtype": "F32", "head_dim": 24})
        kernels = {name: Kernel(path, Host(), "-fopenmp") for name, path in sources.items()}
        self.header_compiles(sources["fwd"].with_suffix(".h"))
        if kernels["fwd"].function("supported")():
            shapes = [(2, 4, 2, 61, 130, 24, 24), (1, 2, 1, 1, 3, 24, 24), (1, 2, 2, 0, 5, 24, 24), (2, 2, 1, 3, 0, 24, 24)]
            self.same_as_run(kernels, Host(), shapes, "F32", "--device", "cpu", "--arch", "avx2")

    @unittest.skipUnless(FAKE_CUDA, "there is no fake driver")
    def test_cuda(self):
        sources = self.emit("c", "sm_90", {"dtype": "BF16", "head_dim": 16}, env=FAKE)
        memory = Gpu()
        include = f"-I{SUPPORT / 'cuda'}"
        kernels = {name: Kernel(path, memory, include, FAKE_CUDA) for name, path in sources.items()}
        self.header_compiles(sources["fwd"].with_suffix(".h"), include)
        variants = [argument for path in sources.values() for argument in ("--variant", path.stem[4:].removesuffix("_sm_90"))]
        shapes = [(2, 4, 2, 33, 70, 16, 16), (1, 2, 1, 1, 3, 16, 16)]
        self.same_as_run(kernels, memory, shapes, "BF16", "--device", "cuda", *variants, env=FAKE)

    def test_wrong_arguments_and_bad_reads(self):
        sources = self.emit("c", "portable", {"dtype": "F32", "head_dim": 8, "direction": "fwd"}, bind={"bias": "F32[2,?]", "scores": "F32[2]"},
                            score="score * strength + bias[h, kv] + 0 * (bias[:, kv] * scores).sum()")
        kernel = Kernel(sources["fwd"], Host())
        call = Call(call_tensors("F32", 1, 2, 1, 3, 5, 8, 8), kernel.memory)
        bias, scores = kernel.memory.put(bytes(40)), Tensor(kernel.memory.put(bytes(8)), None, integers([2]))
        call.args.captures = (Tensor * 2)(Tensor(bias, None, integers([2, 5])), scores)
        good = bytes(call.forward())

        def says(text, **changes):
            args = Args.from_buffer_copy(good)
            for name, value in changes.items():
                setattr(args, name, value)
            self.assertIn(text, kernel.wrong(ctypes.byref(args)).decode())
            self.assertEqual(kernel.function("workspace", ctypes.c_size_t)(ctypes.byref(args), 1), 0)
            self.assertEqual(kernel.launch(args), -2)

        self.assertIsNone(kernel.wrong(ctypes.byref(call.args)))
        says("negative", q_len=-1)
        says("negative", kv_len=1 << 31)
        says("multiple", heads_kv=3)
        says("scale", scale=float("nan"))
        says("scale", scale=1e-40)
        says("key has no data", key=Tensor())
        says("value is not aligned", value=Tensor(call.args.value.data + 2))
        says("last stride of query", query=Tensor(call.args.query.data, integers([48, 24, 8, 2])))
        says("a stride of out is 0", out=Tensor(call.args.out.data, integers([48, 0, 8, 1])))
        says("query reaches further than 64-bit", query=Tensor(call.args.query.data, integers([48, 1 << 62, 8, 1])))
        says("captures is NULL", captures=None)
        says("'bias' has another shape", captures=(Tensor * 2)(Tensor(bias, None, integers([3, 5])), scores))
        says("'scores' has no data", captures=(Tensor * 2)(Tensor(bias, None, integers([2, 5])), Tensor(None, None, integers([2]))))
        says("scalars is NULL", scalars=None)
        self.assertEqual(kernel.function("launch")(ctypes.byref(call.args), 1, ctypes.c_void_p(call.memory.alloc(64)), ctypes.c_size_t(64), None), -2)
        fault = Fault()
        self.assertEqual(kernel.launch(call.args, fault=fault), 0)
        self.assertEqual(fault.found, 0)
        call.args.captures = (Tensor * 2)(Tensor(bias, None, integers([2, 4])), scores)
        self.assertEqual(kernel.launch(call.args, fault=fault), -6)
        self.assertEqual((fault.found, fault.b, fault.h, fault.q, fault.kv), (1, 0, 0, 1, 4))  # the first query that sees key 4

    def test_files(self):
        def texts():
            return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (self.folder / "c").iterdir()}

        fake = {**FAKE, "FAKE_NVRTC": ""}
        problem = {"dtype": "F32", "head_dim": [8, 16], "max": [False, True], "direction": "fwd"}
        self.emit("c", "sm_80", problem, env=fake)
        first = texts()
        self.assertEqual(len(first), 2 * 4 + 2)
        self.assertEqual(len([name for name in first if name.endswith("_2.c")]), 2)  # with and without max
        self.emit("c", "sm_80", problem, env=fake)
        self.assertEqual(texts(), first)  # not written again
        for name in ("meson.build", "CMakeLists.txt"):
            self.assertTrue(all(path in first[name][0].decode() for path in first if path.endswith(".c")))
        self.assertNotIn(str(self.folder).encode(), b"".join(text for text, _ in first.values()))
        (self.folder / "c" / "meson.build").write_text("project('mine')\n")
        arguments = ("prebuild", "--manifest", self.folder / "m.json", "--arch", "sm_80", "--output", self.folder / "layer")
        self.fails(1, "was not written by flexjit", *arguments, "--emit-c", self.folder / "c", env=fake)
        self.assertEqual((self.folder / "c" / "meson.build").read_text(), "project('mine')\n")
        self.fails(1, "cannot be made", *arguments, "--emit-c", self.folder / "no" / "c", env=fake)
        self.fails(2, "--shard", *arguments, "--emit-c", self.folder / "c", "--shard", "1/2", env=fake)

    def test_what_is_not_covered(self):
        def refused(text, problem, **entry):
            entry["problems"] = [{"dtype": "F32", "head_dim": 8, "few_queries": False, **problem}]
            manifest = self.file("m.json", json.dumps({"schema": 1, "entries": [entry]}))
            arguments = ("prebuild", "--manifest", manifest, "--arch", "sm_80", "--output", self.folder / "layer", "--emit-c", self.folder / "c")
            done = self.flexjit(*arguments, env={**FAKE, "FAKE_NVRTC": ""})
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(text, done.stderr)
            self.assertEqual(list((self.folder / "c").iterdir()), [])

        refused("do not cover packed sequences", {"form": "packed"})
        refused("do not cover paged keys", {"form": "paged"})
        refused("(q_offset)", {"q_offset": True})
        refused("do not cover block masks", {"block_mask": True})
        refused("(shared_keys)", {"shared_keys": True, "direction": "bwd"})
        refused("do not cover dropout", {"dropout": True})
        refused("do not cover mods of the output", {}, out="out * 2")
        refused("do not cover sinks", {}, sink="0.5")
        refused("with all their dimensions", {}, score="score + (x * y).sum()", bind={"x": "F32[?]", "y": "F32[?]"})


if __name__ == "__main__":
    harness.main()
