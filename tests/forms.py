"""Dense inputs of a call in another form: what --form of corpus.py runs. Results are those of the dense call, and are
checked against the definition by the tool itself."""

import array
import json
import random
import struct
import subprocess

from inputs import TYPECODES, Tensor

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
RESERVED = {"q_offset", "cu_seqlens_q", "cu_seqlens_kv", "page_table", "kv_lens"}


def i32(*values):
    return Tensor("I32", (len(values),), array.array(TYPECODES["I32"], values).tobytes())


def rows_first(tensor):
    """[B,H,L,...] to [B*L,H,...]."""
    b, h, length, *rest = tensor.dims
    size = WIDTHS[tensor.dtype]
    for extent in rest:
        size *= extent
    data = tensor.data
    starts = [((i * h + j) * length + row) * size for i in range(b) for row in range(length) for j in range(h)]
    return Tensor(tensor.dtype, (b * length, h, *rest), b"".join(data[at : at + size] for at in starts))


def heads_first(tensor):
    """[B,H,L] to [H,B*L]."""
    b, h, length = tensor.dims
    size = WIDTHS[tensor.dtype] * length
    starts = [(i * h + j) * size for j in range(h) for i in range(b)]
    return Tensor(tensor.dtype, (h, b * length), b"".join(tensor.data[at : at + size] for at in starts))


def packed(tensors, shape):
    """Each batch is a sequence."""
    result = {name: heads_first(x) if name == "dlse" else rows_first(x) for name, x in tensors.items()}
    result["cu_seqlens_q"] = i32(*range(0, (shape.B + 1) * shape.L, shape.L or 1))
    result["cu_seqlens_kv"] = i32(*range(0, (shape.B + 1) * shape.S, shape.S or 1))
    return result


def paged(tensors, shape, page=16):
    """Pages in any order; what no key fills is NaN."""
    width = -(-shape.S // page)
    order = random.Random(shape.S).sample(range(shape.B * width + 2), shape.B * width)
    result = {"q": tensors["q"]}
    for name in ("k", "v"):
        rows = rows_first(tensors[name])
        size = len(rows.data) // (shape.B * shape.S)
        nan = {"F64": struct.pack("<d", float("nan")), "F32": struct.pack("<f", float("nan"))}.get(
            rows.dtype, b"\xff\x7f")  # fmt: skip
        pages = [nan * (page * size // len(nan))] * (shape.B * width + 2)
        for b in range(shape.B):
            for i in range(width):
                count = min(page, shape.S - i * page)
                first = (b * shape.S + i * page) * size
                data = rows.data[first : first + count * size]
                pages[order[b * width + i]] = data + nan * ((page - count) * size // len(nan))
        dims = (len(pages), page, *rows.dims[1:])
        result[f"{name}_pages"] = Tensor(rows.dtype, dims, b"".join(pages))
    table = array.array(TYPECODES["I32"], order).tobytes()
    result["page_table"] = Tensor("I32", (shape.B, width), table)
    result["kv_lens"] = i32(*[shape.S] * shape.B)
    return result


FORMS = {"dense": lambda tensors, shape: tensors, "blocks": lambda tensors, shape: tensors, "packed": packed, "paged": paged}


def export_mask(tool, path, options, file, shape, block):
    """The mod's own block mask, as the tool writes it. The options that call with it; none for a mod without a mask."""
    mask = f"{file}.mask"
    done = subprocess.run(
        [tool, "mask", path, *options, "--q-len", str(shape.L), "--kv-len", str(shape.S), "--batch", str(shape.B),
         "--heads", str(shape.Hq), "--block", block, "--input", file, "--export", mask, "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise ValueError(done.stdout + done.stderr)
    json.loads(done.stdout)
    return ["--block-mask", mask]
