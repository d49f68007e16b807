"""flexjit's C library through ctypes, as far as the benchmarks need it: raw pointers and a stream go in.

The structures mirror include/flexjit/flexjit.h; what holds memory is kept alive by the Python object that passed it.
"""

import ctypes as c
from dataclasses import dataclass, field

DTYPES = {"BOOL": 0, "I8": 1, "U8": 2, "I16": 3, "I32": 4, "I64": 5, "F16": 8, "BF16": 9, "F32": 10, "F64": 11}
DLPACK = {  # (code, bits) of DLPack
    "BOOL": (6, 8), "I8": (0, 8), "U8": (1, 8), "I16": (0, 16), "I32": (0, 32), "I64": (0, 64),
    "F16": (2, 16), "BF16": (4, 16), "F32": (2, 32), "F64": (2, 64),
}  # fmt: skip
DEVICES = {"cpu": 0, "reference": 1, "unfused": 2, "cuda": 3, "emu": 4, "rounding": 5}
ON_HOST, ON_GPU = 1, 2  # DLDevice.device_type
FORWARD, BACKWARD = 0, 1
MAX_RANK = 8


class DLTensor(c.Structure):
    _fields_ = [("data", c.c_void_p), ("device_type", c.c_int32), ("device_id", c.c_int32), ("ndim", c.c_int32),
                ("code", c.c_uint8), ("bits", c.c_uint8), ("lanes", c.c_uint16), ("shape", c.POINTER(c.c_int64)),
                ("strides", c.POINTER(c.c_int64)), ("byte_offset", c.c_uint64)]  # fmt: skip


Tensor = c.POINTER(DLTensor)


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("line", c.c_int), ("column", c.c_int), ("length", c.c_int), ("file", c.c_char * 256),
                ("text", c.c_char * 512), ("note", c.c_char * 512), ("source_line", c.c_char * 512),
                ("detail", c.c_void_p)]  # fmt: skip


class Binding(c.Structure):
    _fields_ = [("name", c.c_char_p), ("dtype", c.c_int), ("rank", c.c_int), ("dims", c.c_int64 * MAX_RANK)]


class Described(c.Structure):
    """A descriptor: begins with its size, the rest zero unless given."""

    def __init__(self, **values):
        super().__init__(struct_size=c.sizeof(type(self)), **values)


class ModDesc(Described):
    _fields_ = [("struct_size", c.c_size_t), ("source", c.c_char_p), ("source_length", c.c_size_t), ("file", c.c_char_p),
                ("score", c.c_char_p), ("mask", c.c_char_p), ("score_mod", c.c_char_p), ("mask_mod", c.c_char_p),
                ("params", c.c_void_p), ("param_count", c.c_size_t), ("runtime_params", c.c_void_p),
                ("runtime_param_count", c.c_size_t), ("bindings", c.POINTER(Binding)), ("binding_count", c.c_size_t),
                ("bindings_open", c.c_bool)]  # fmt: skip


class Problem(Described):
    _fields_ = [("struct_size", c.c_size_t), ("direction", c.c_int), ("dtype", c.c_int), ("head_dim", c.c_int),
                ("value_dim", c.c_int), ("max", c.c_bool), ("dlse", c.c_bool), ("nondeterministic", c.c_bool),
                ("tf32", c.c_bool), ("variant", c.c_char_p), ("gqa", c.c_int), ("few_queries", c.c_bool),
                ("block_mask", c.c_bool), ("form", c.c_int), ("q_offset", c.c_bool), ("shared_keys", c.c_bool),
                ("kernel", c.c_char_p), ("options", c.c_void_p), ("option_count", c.c_size_t),
                ("batch_heads", c.c_int64), ("q_len", c.c_int64), ("kv_len", c.c_int64), ("untuned", c.c_bool),
                ("dropout", c.c_bool)]  # fmt: skip


class KernelInfo(c.Structure):
    _fields_ = [("variant", c.c_char_p), ("cache_hit", c.c_bool), ("compile_ms", c.c_double), ("load_ms", c.c_double),
                ("registers", c.c_int), ("spill_bytes", c.c_int), ("shared_bytes", c.c_int)]  # fmt: skip


class InputInfo(c.Structure):
    _fields_ = [("name", c.c_char_p), ("is_scalar", c.c_bool), ("is_float", c.c_bool), ("gradient", c.c_bool),
                ("dtype", c.c_int), ("rank", c.c_int), ("value", c.c_double), ("int_value", c.c_int64)]  # fmt: skip


TENSORS = ["query", "key", "value", "out", "lse", "max", "dout", "dlse", "dquery", "dkey", "dvalue"]


class Args(Described):
    _fields_ = [("struct_size", c.c_size_t)] + [(name, Tensor) for name in TENSORS] + [
        ("captures", c.POINTER(Tensor)), ("dcaptures", c.POINTER(Tensor)), ("scalars", c.c_void_p),
        ("dscalars", c.c_void_p), ("scale", c.c_double), ("lse_low", Tensor), ("block_mask", c.c_void_p)] + [
        (name, Tensor) for name in ("cu_seqlens_q", "cu_seqlens_kv", "page_table", "kv_lens", "q_offset", "out_raw")] + [
        ("dropout", c.c_double), ("dropout_seed", c.c_uint64), ("dropout_offset", c.c_uint64),
        ("dropout_state", Tensor)]  # fmt: skip


class Launch(Described):
    _fields_ = [("struct_size", c.c_size_t), ("executor", c.c_void_p), ("workers", c.c_int), ("stream", c.c_void_p)]


class Failure(Exception):
    """A call that returned an error: the library's own sentence."""


@dataclass
class Array:
    """A tensor somewhere in memory: what DLTensor says, in Python's words. strides in elements."""

    address: int
    dtype: str
    shape: tuple
    strides: tuple
    on_gpu: bool = False
    kept: list = field(default_factory=list, repr=False)

    def tensor(self):
        code, bits = DLPACK[self.dtype]
        count = len(self.shape)
        shape, strides = (c.c_int64 * count)(*self.shape), (c.c_int64 * count)(*self.strides)
        return DLTensor(self.address, ON_GPU if self.on_gpu else ON_HOST, 0, count, code, bits, 1, shape, strides, 0)


class Flexjit:
    """The library, a context and a device."""

    def __init__(self, path, device, arch=None):
        self.c = c.CDLL(path)
        self.c.fj_device_name.restype = c.c_char_p
        self.c.fj_mod_capture.restype = InputInfo
        self.c.fj_mod_capture_count.restype = c.c_size_t
        self.c.fj_kernel_describe.restype = KernelInfo
        self.context, self.device = c.c_void_p(), c.c_void_p()
        self.check(self.c.fj_context_create(None, c.byref(self.context)), None)
        if arch:
            self.call("fj_device_create_for_arch", self.context, DEVICES[device], arch.encode(), c.byref(self.device))
        else:
            self.call("fj_device_create", self.context, DEVICES[device], c.byref(self.device))

    def check(self, status, error):
        if status == 0:
            return
        text = c.create_string_buffer(4096)
        if error is None:
            raise Failure(f"status {status}")
        self.c.fj_error_format(c.byref(error), text, c.c_size_t(len(text)))
        self.c.fj_error_finish(c.byref(error))
        raise Failure(text.value.decode())

    def call(self, name, *args):
        error = Error()
        self.check(getattr(self.c, name)(*args, c.byref(error)), error)

    def mod(self, source, captures):
        """A mod from text; captures: name -> Array. Returns the mod and its captures' names, in order."""
        text, mod = source.encode(), c.c_void_p()
        bindings = (Binding * max(1, len(captures)))()
        for binding, (name, array) in zip(bindings, captures.items()):
            binding.name, binding.dtype, binding.rank = name.encode(), DTYPES[array.dtype], len(array.shape)
            binding.dims = (c.c_int64 * MAX_RANK)(*array.shape)
        desc = ModDesc(source=text, source_length=len(text), bindings=bindings, binding_count=len(captures))
        self.call("fj_mod_create", self.context, c.byref(desc), c.byref(mod))
        count = self.c.fj_mod_capture_count(mod)
        return mod, [self.c.fj_mod_capture(mod, c.c_size_t(i)).name.decode() for i in range(count)]

    def kernel(self, mod, direction, dtype, head_dim, value_dim=None, deterministic=True, variant=None, dlse=False,
               dropout=False):  # fmt: skip
        """Plans, compiles (or finds in the cache) and loads. Returns the kernel and what is known of it."""
        plan, kernel = c.c_void_p(), c.c_void_p()
        problem = Problem(direction=direction, dtype=DTYPES[dtype], head_dim=head_dim, value_dim=value_dim or head_dim,
                          nondeterministic=not deterministic, dlse=dlse, dropout=dropout, variant=variant.encode() if variant else None)  # fmt: skip
        self.call("fj_plan_create", self.device, mod, c.byref(problem), c.byref(plan))
        try:
            self.call("fj_kernel_create", plan, c.byref(kernel))
        finally:
            self.c.fj_plan_unref(c.byref(plan))
        return kernel, self.c.fj_kernel_describe(kernel)

    def bind(self, kernel, arrays, captures, dcaptures, scale, dropout=(0.0, 0)):
        """Everything of a call but its workspace and stream. arrays: by the names of fj_args; dropout: chance and seed."""
        return Call(self, kernel, arrays, captures, dcaptures, scale, dropout)


class Call:
    """A kernel bound to its tensors."""

    def __init__(self, library, kernel, arrays, captures, dcaptures, scale, dropout=(0.0, 0)):
        self.library, self.kernel = library, kernel
        self.kept = {name: array.tensor() for name, array in arrays.items()}
        self.args = Args(scale=scale, dropout=dropout[0], dropout_seed=dropout[1], **{name: c.pointer(tensor) for name, tensor in self.kept.items()})
        self.args.captures = self.pointers(captures)
        self.args.dcaptures = self.pointers(dcaptures)
        self.launch = Launch()

    def pointers(self, arrays):
        tensors = [array.tensor() if array else None for array in arrays]
        self.kept[len(self.kept)] = tensors
        return (Tensor * max(1, len(tensors)))(*[c.pointer(t) if t else Tensor() for t in tensors])

    def workspace_size(self):
        size = c.c_size_t()
        self.library.call("fj_kernel_workspace", self.kernel, c.byref(self.args), c.byref(self.launch), c.byref(size))
        return size.value

    def run(self, workspace, size, stream=None):
        """On a GPU this returns when the work is in the stream."""
        self.launch.stream = stream
        self.library.call("fj_kernel_launch", self.kernel, c.byref(self.args), c.byref(self.launch),
                          c.c_void_p(workspace), c.c_size_t(size))  # fmt: skip
