"""The C library from Python, by ctypes, for tests that compare many calls with PyTorch in one process.

Structures and constants are read from the public headers, so that nothing here has to follow them:

    fj = flexjit_c.Library()
    desc = fj.make("fj_mod_desc", mask=b"q >= kv")          # struct_size is set; a dict is a struct within
    mod = fj.create("fj_mod_create", fj.context, desc)      # a handle, given back with fj_mod_unref when it is dropped
    fj.call("fj_kernel_launch", kernel, args, None, workspace, size)   # raises flexjit_c.Error with the library's text

A field that is a pointer to a DLTensor takes a torch.Tensor (of the CPU; it must stay alive) or None; one that is a
pointer to a struct takes a struct. Arguments of calls likewise.
"""

import ctypes
import re
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]

SCALARS = {
    "bool": ctypes.c_bool, "int": ctypes.c_int, "unsigned": ctypes.c_uint, "double": ctypes.c_double, "float": ctypes.c_float,
    "size_t": ctypes.c_size_t, "void": None, "char": ctypes.c_char,
    "int8_t": ctypes.c_int8, "uint8_t": ctypes.c_uint8, "uint16_t": ctypes.c_uint16,
    "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
}  # fmt: skip

DTYPES = {
    torch.bool: (6, 8), torch.int8: (0, 8), torch.uint8: (1, 8), torch.int16: (0, 16), torch.int32: (0, 32),
    torch.int64: (0, 64), torch.float16: (2, 16), torch.bfloat16: (4, 16), torch.float32: (2, 32), torch.float64: (2, 64),
}  # fmt: skip


class Error(Exception):
    """A call that failed: its status, as its name, and the library's text."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


class Handle:
    """An object of the library, with the function that gives it back."""

    def __init__(self, library, pointer, unref, kept):
        self.library, self.pointer, self.unref = library, pointer, unref
        self.kept = kept  # what it was made with: a device goes before its context

    def __del__(self):
        if self.unref is not None:
            getattr(self.library, self.unref)(ctypes.byref(self.pointer))


class Headers:
    """The enums and structs of the public headers."""

    def __init__(self, folder):
        self.constants, self.structs, self.types = {}, {}, dict(SCALARS)
        for name in ("dlpack.h", "flexjit.h", "sdpa.h", "nn.h"):
            path = folder / name
            if path.exists():
                self.read(path.read_text())

    def read(self, text):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)
        for name, value in re.findall(r"^#define (\w+) +(\d+)$", text, re.M):
            self.constants[name] = int(value)
        text = re.sub(r"^\s*#.*(?:\\\n.*)*$", "", text, flags=re.M)
        pattern = r"typedef (enum|struct|union)\s*\w*\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*(\w+)\s*;"
        for kind, body, name in re.findall(pattern, text):
            if kind == "enum":
                self.read_enum(name, body)
            else:
                base = ctypes.Structure if kind == "struct" else ctypes.Union
                self.types[name] = self.structs[name] = type(name, (base,), {"_fields_": self.fields(body)})

    def read_enum(self, name, body):
        value = -1
        for item in filter(None, (item.strip() for item in body.split(","))):
            key, _, given = (part.strip() for part in item.partition("="))
            value = int(eval(given, {}, self.constants)) if given else value + 1
            self.constants[key] = value
        self.types[name] = ctypes.c_int

    def fields(self, body):
        found = []
        for line in filter(None, (line.strip() for line in body.split(";"))):
            pointer = re.match(r".*\(\*\s*(\w+)\)", line, re.S)  # to a function
            if pointer:
                found.append((pointer[1], ctypes.c_void_p))
                continue
            words = re.sub(r"\bconst\b|\bstruct\b", " ", line)
            kind, declarators = re.match(r"\s*(\w+)(.*)", words, re.S).groups()
            found += [self.field(kind, declarator) for declarator in declarators.split(",")]
        return found

    def field(self, kind, declarator):
        stars, name, extents = re.match(r"([\s*]*)(\w+)((?:\s*\[\w+\])*)", declarator).groups()
        ctype = self.pointer_to(kind, stars.count("*")) if "*" in stars else self.types[kind]
        for extent in reversed(re.findall(r"\w+", extents)):
            ctype *= int(extent) if extent.isdigit() else self.constants[extent]
        return name, ctype

    def pointer_to(self, kind, depth):
        if depth == 1 and kind == "char":
            return ctypes.c_char_p
        if kind not in self.structs:
            return ctypes.c_void_p
        ctype = self.structs[kind]
        for _ in range(depth):
            ctype = ctypes.POINTER(ctype)
        return ctype


class Library:
    def __init__(self, path=ROOT / "build" / "libflexjit.so", device="FJ_DEVICE_CPU"):
        self.c = ctypes.CDLL(str(path))
        self.headers = Headers(ROOT / "include" / "flexjit")
        self.constants, self.structs = self.headers.constants, self.headers.structs
        self.status_names = {v: k for k, v in self.constants.items() if k == "FJ_OK" or k.startswith("FJ_ERR_")}
        self.context = self.create("fj_context_create", None, error=False)
        self.device = self.create("fj_device_create", self.context, self.constants[device])

    # Values of C

    def tensor(self, value):
        """A DLTensor over a torch.Tensor's memory."""
        code, bits = DTYPES[value.dtype]
        rank = max(value.dim(), 1)
        made = self.structs["DLTensor"]()
        made.data, made.ndim = value.data_ptr() or None, value.dim()
        made.device.device_type = 1
        made.dtype.code, made.dtype.bits, made.dtype.lanes = code, bits, 1
        made.kept = value, (ctypes.c_int64 * rank)(*value.shape), (ctypes.c_int64 * rank)(*value.stride())
        made.shape, made.strides = (ctypes.addressof(extents) for extents in made.kept[1:])
        return made

    def make(self, name, **fields):
        made = self.structs[name]()
        self.fill(made, fields)
        return made

    def fill(self, made, fields):
        types = dict(made._fields_)
        kept = []
        if "struct_size" in types:
            made.struct_size = ctypes.sizeof(made)
        for key, value in fields.items():
            if key not in types:
                raise TypeError(f"{type(made).__name__} has no field {key}")
            if isinstance(value, dict):
                self.fill(getattr(made, key), value)
                kept.append(getattr(made, key))
                continue
            if isinstance(value, (list, tuple)) and issubclass(types[key], ctypes._Pointer):
                value = self.array(types[key]._type_, value)
                kept.append(value)
                value = ctypes.cast(value, types[key])
            elif isinstance(value, torch.Tensor):
                value = ctypes.pointer(self.tensor(value))
            elif isinstance(value, (ctypes.Structure, ctypes.Union)) and issubclass(types[key], ctypes._Pointer):
                value = ctypes.pointer(value)
            kept.append(value)
            setattr(made, key, value)
        made.kept = kept

    def array(self, ctype, values):
        """An array of structs, or of pointers to DLTensors or structs."""
        if issubclass(ctype, ctypes._Pointer):
            values = [self.tensor(v) if isinstance(v, torch.Tensor) else v for v in values]
            made = (ctype * max(len(values), 1))(*(ctypes.pointer(v) if v is not None else ctype() for v in values))
        else:
            made = (ctype * max(len(values), 1))(*values)
        made.kept = values
        return made

    def argument(self, value):
        if isinstance(value, torch.Tensor):
            value = self.tensor(value)
        if isinstance(value, Handle):
            return value.pointer
        if isinstance(value, (ctypes.Structure, ctypes.Union)):
            return ctypes.byref(value)
        if isinstance(value, bool):
            return ctypes.c_bool(value)
        if isinstance(value, int) and not -(2**31) <= value < 2**31:
            return ctypes.c_int64(value)
        return ctypes.c_double(value) if isinstance(value, float) else value

    # Calls

    def call(self, name, *arguments, error=True):
        """Calls a function whose last parameter is an fj_error *, where error says so; a failure is an Error."""
        values = [self.argument(argument) for argument in arguments]
        failure = self.structs["fj_error"]()
        if error:
            values.append(ctypes.byref(failure))
        status = getattr(self.c, name)(*values)
        if status == 0:
            return
        text = failure.text.decode() + (f" ({failure.note.decode()})" if failure.note else "")
        self.c.fj_error_finish(ctypes.byref(failure))
        raise Error(self.status_names.get(status, status), text)

    def create(self, name, *arguments, error=True):
        """Calls a function that makes an object, its last parameter but for the error."""
        pointer = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(pointer), error=error)
        unref = re.sub(r"_create\w*$|_make$", "_unref", name)
        return Handle(self.c, pointer, unref if hasattr(self.c, unref) else None, arguments)

    def size(self, name, *arguments):
        """Calls a function that gives a size_t, its last parameter but for the error."""
        size = ctypes.c_size_t()
        self.call(name, *arguments, ctypes.byref(size))
        return size.value

    def workspace(self, size):
        """(pointer, size) of aligned memory; keep the pointer's object for as long as it is used."""
        memory = ctypes.create_string_buffer(size + 256)
        pointer = ctypes.c_void_p((ctypes.addressof(memory) + 255) // 256 * 256)
        pointer.kept = memory
        return pointer, ctypes.c_size_t(size)
