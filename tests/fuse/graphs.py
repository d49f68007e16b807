"""Small tensor graphs, in flexjit's own JSON."""

import json
import math
import random

LOWEST = {"F32": -3.4028234663852886e38, "F16": -65504.0, "BF16": -3.3895313892515355e38, "F64": -1.7976931348623157e308}


class Value:
    def __init__(self, graph, name, dtype, shape):
        self.graph, self.name, self.dtype, self.shape = graph, name, dtype, list(shape)

    def __str__(self):
        return "%" + self.name


def broadcast(*shapes):
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(s)) + list(s) for s in shapes]
    return [max(sizes) if all(s in (1, max(sizes)) for s in sizes) else None for sizes in zip(*padded)]


def encode(value):
    if isinstance(value, Value):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


class Graph:
    """Methods append a node and give its value; numbers broadcast."""

    def __init__(self):
        self.inputs, self.nodes, self.outputs, self.given, self.count = [], [], [], {}, 0

    def input(self, name, dtype, shape, values=None, kind="input", seed=None, scale=1.0):
        self.inputs.append({"name": name, "kind": kind, "dtype": dtype, "shape": list(shape)})
        if kind != "input":
            self.inputs[-1]["values"] = [encode(v) for v in values]
        else:
            source = random.Random(len(self.inputs) if seed is None else seed)
            size = math.prod(shape)
            self.given[name] = (dtype, list(shape), values if values is not None else [source.gauss(0, scale) for _ in range(size)])
        return Value(self, name, dtype, shape)

    def constant(self, dtype, shape, values):
        self.count += 1
        return self.input(f"const_{self.count}", dtype, shape, values, kind="constant")

    def node(graph, op, dtype, shape, results=1, /, **args):
        graph.count += 1
        name = f"{op}_{graph.count}".replace(".", "_")
        values = [Value(graph, name + (f"_{i}" if results > 1 else ""), dtype, s) for i, s in enumerate(shape if results > 1 else [shape])]
        graph.nodes.append({"op": op, "name": name, "args": {k: encode(v) for k, v in args.items()},
                           "results": [{"name": v.name, "dtype": v.dtype, "shape": v.shape} for v in values]})  # fmt: skip
        return values if results > 1 else values[0]

    def text(self):
        return json.dumps({"schema": 1, "inputs": self.inputs, "nodes": self.nodes, "outputs": [v.name for v in self.outputs]})

    def add_all(self, other, prefix):
        """Another graph beside this one, its names with a prefix."""

        def renamed(value):
            if isinstance(value, list):
                return [renamed(item) for item in value]
            return "%" + prefix + value[1:] if isinstance(value, str) and value.startswith("%") else value

        self.inputs += [{**each, "name": prefix + each["name"]} for each in other.inputs]
        self.given.update({prefix + name: value for name, value in other.given.items()})
        for node in other.nodes:
            results = [{**each, "name": prefix + each["name"]} for each in node["results"]]
            self.nodes.append({**node, "name": prefix + node["name"], "args": {k: renamed(v) for k, v in node["args"].items()}, "results": results})
        self.outputs += [Value(self, prefix + each.name, each.dtype, each.shape) for each in other.outputs]

    # Elements.

    def point(self, op, names, operands, dtype=None, **more):
        shapes = [v.shape for v in operands if isinstance(v, Value)]
        order = ["BOOL", "I32", "I64", "F16", "BF16", "F32", "F64"]
        ranked = max((v.dtype for v in operands if isinstance(v, Value)), key=order.index)
        return self.node(op, dtype or ranked, broadcast(*shapes), **dict(zip(names, operands)), **more)

    def binary(self, op, a, b):
        dtype = "BOOL" if op in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or") else None
        return self.point(op, ["self", "other"], [a, b], dtype)

    def mul(self, a, b):
        return self.binary("mul", a, b)

    def div(self, a, b):
        return self.binary("div", a, b)

    def add(self, a, b):
        return self.binary("add", a, b)

    def where(self, c, a, b):
        dtype = next((v.dtype for v in (a, b) if isinstance(v, Value)), "F32")
        return self.point("where", ["condition", "self", "other"], [c, a, b], dtype)

    def fill(self, x, mask, value):
        return self.point("masked_fill", ["self", "mask", "value"], [x, mask, value], x.dtype)

    def unary(self, op, x, dtype=None):
        return self.node(op, dtype or x.dtype, x.shape, self=x)

    def cast(self, x, dtype):
        return self.node("to", dtype, x.shape, self=x)

    # Shapes.

    def permute(self, x, *dims):
        return self.node("permute", x.dtype, [x.shape[d] for d in dims], self=x, dims=list(dims))

    def transpose(self, x):
        shape = x.shape[:-2] + [x.shape[-1], x.shape[-2]]
        return self.node("transpose", x.dtype, shape, self=x, dim0=-2, dim1=-1)

    def view(self, x, *shape):
        return self.node("reshape", x.dtype, shape, self=x)

    def expand(self, x, *shape):
        return self.node("expand", x.dtype, shape, self=x)

    def arange(self, n):
        return self.node("arange", "I64", [n], start=0)

    def slice(self, x, dim, start, end):
        shape = list(x.shape)
        shape[dim] = end - start
        return self.node("slice", x.dtype, shape, self=x, dim=dim, start=start, end=end)

    # The rest.

    def matmul(self, a, b):
        return self.node("matmul", a.dtype, broadcast(a.shape[:-2], b.shape[:-2]) + [a.shape[-2], b.shape[-1]], self=a, other=b)

    def softmax(self, x, dim=-1, dtype=None):
        return self.node("softmax", dtype or x.dtype, x.shape, self=x, dim=dim)

    def dropout(self, x, p=0.1, train=False):
        return self.node("dropout", x.dtype, x.shape, input=x, p=p, train=train)

    def reduce(self, op, x, keep=True, dtype=None):
        return self.node(op, dtype or x.dtype, x.shape[:-1] + ([1] if keep else []), self=x, dim=[-1], keepdim=keep)

    def sdpa(self, q, k, v, **options):
        return self.node("scaled_dot_product_attention", q.dtype, q.shape[:-1] + [v.shape[-1]], query=q, key=k, value=v, **options)
