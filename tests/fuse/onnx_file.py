"""ONNX models, written byte by byte (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): no package is needed."""

import struct

TYPES = {"F32": 1, "I32": 6, "I64": 7, "BOOL": 9, "F16": 10, "F64": 11, "BF16": 16}


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def real(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


def tensor(name, dtype, shape, raw=None, **more):
    """more: floats (field 4), int32s (5), int64s (7), external: location, offset, length."""
    out = b"".join(number(1, n) for n in shape) + number(2, TYPES[dtype]) + message(8, name)
    if raw is not None:
        out += message(9, raw)
    if "floats" in more:
        out += message(4, struct.pack(f"<{len(more['floats'])}f", *more["floats"]))
    for key, field in (("int32s", 5), ("int64s", 7)):
        if key in more:
            out += message(field, b"".join(map(varint, more[key])))
    if more.get("external"):
        for key, text in more["external"].items():
            out += message(13, message(1, key) + message(2, str(text)))
        out += number(14, 1)
    return out


def value(name, dtype, shape):
    dims = b"".join(message(1, message(2, n) if isinstance(n, str) else number(1, n)) for n in shape)
    return message(1, name) + message(2, message(1, number(1, TYPES[dtype]) + message(2, dims)))


def attribute(name, given):
    if isinstance(given, float):
        return message(1, name) + real(2, given)
    if isinstance(given, bytes):
        return message(1, name) + message(6, given)  # a graph
    if isinstance(given, int):
        return message(1, name) + number(3, given)
    return message(1, name) + b"".join(number(8, n) for n in given)


def node(op, inputs, outputs, domain="", **attributes):
    out = b"".join(message(1, n) for n in inputs) + b"".join(message(2, n) for n in outputs)
    out += message(3, f"{op}_{outputs[0]}") + message(4, op) + (message(7, domain) if domain else b"")
    return out + b"".join(message(5, attribute(n, v)) for n, v in attributes.items())


def inner(nodes, outputs):
    """A graph for an attribute."""
    return b"".join(message(1, n) for n in nodes) + message(2, "inner") + b"".join(message(12, message(1, n)) for n in outputs)


def model(nodes, inputs, outputs, values=(), tensors=(), opset=20, tail=b""):
    graph = b"".join(message(1, n) for n in nodes) + message(2, "graph") + b"".join(message(5, t) for t in tensors)
    graph += b"".join(message(11, v) for v in inputs) + b"".join(message(12, v) for v in outputs) + b"".join(message(13, v) for v in values)
    return number(1, 10) + message(7, graph) + message(8, message(1, "") + number(2, opset)) + tail
