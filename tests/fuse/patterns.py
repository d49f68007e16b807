"""PyTorch's thirty patterns of attention (torch/_inductor/fx_passes/fuse_attention.py, 2.15), as graphs, and what each becomes.

A row: what is left between the products, the scale, whether there is a score mod and a mask mod. c stands for any number."""

import math

from graphs import LOWEST, Graph

C, P = 0.66666, 0.113377
B, H, L, S, E = 2, 3, 5, 6, 8


class Region:
    """q, k and v as [B,H,L,E], or permuted from [B,L,H,E], and the steps that patterns share."""

    def __init__(self, dtype, batch, permuted=False, value=E):
        self.g, self.dtype, self.batch, self.half = Graph(), dtype, batch, dtype != "F32"
        shapes = [(batch, H, L, E), (batch, H, S, E), (batch, H, S, value)]
        if permuted:
            shapes = [(b, n, h, e) for b, h, n, e in shapes]
        self.q, self.k, self.v = (self.g.input(name, dtype, shape) for name, shape in zip("qkv", shapes))
        if permuted:
            self.q, self.k, self.v = (self.g.permute(x, 0, 2, 1, 3) for x in (self.q, self.k, self.v))

    def product(self, q=None, k=None):
        return self.g.matmul(q or self.q, self.g.transpose(k or self.k))

    def softmax(self, x):
        """Half has casts around it."""
        if not self.half:
            return self.g.softmax(x)
        return self.g.cast(self.g.softmax(self.g.cast(x, "F32")), self.dtype)

    def drop(self, x):
        return self.g.dropout(x, P, False)

    def mask(self, dtype=None, shape=None):
        shape = shape or (self.batch, 1, 1, S)
        count = math.prod(shape)
        return self.g.input("mask", dtype or self.dtype, shape, [((i * 7) % 5 - 2) / 2 for i in range(count)])

    def keep(self, shape=None):
        """0 and 1, some of each; no row is without."""
        shape = shape or (self.batch, S)
        return self.g.input("keep", "F32", shape, [float(i % 3 != 1) for i in range(math.prod(shape))])

    def visible(self, shape):
        return self.g.input("seen", "BOOL", shape, [int(i % 3 != 1) for i in range(math.prod(shape))])

    def hidden(self):
        g = self.g
        equal = g.binary("eq", self.keep(), 0)
        return g.expand(g.view(equal, self.batch, 1, 1, S), self.batch, H, L, S)

    def end(self, weights, *more):
        self.g.outputs = [self.g.matmul(weights, self.v), *more]
        return self.g


def scaled(r, how, q=None):
    return r.g.div(r.product(q), C) if how == "div" else r.g.mul(r.product(q), C)


def p1(r): return r.end(r.softmax(scaled(r, "div")))
def p2(r): return r.end(r.softmax(scaled(r, "mul")))
def p3(r): return r.end(r.drop(r.softmax(scaled(r, "div"))))
def p4(r): return r.end(r.drop(r.softmax(scaled(r, "mul"))))
def p5(r): return r.end(r.softmax(r.g.add(r.g.div(r.product(), math.sqrt(E)), r.mask(shape=(L, S)))))
def p6(r): return r.end(r.drop(r.softmax(r.g.add(r.g.div(r.product(), math.sqrt(E)), r.mask(shape=(L, S))))))
def p7(r): return r.end(r.g.cast(r.drop(r.g.softmax(r.g.cast(r.g.div(r.product(), math.sqrt(E)), "F32"))), r.dtype))
def p8(r): return r.end(r.g.cast(r.g.softmax(r.g.cast(r.g.div(r.product(), math.sqrt(E)), "F32")), r.dtype))
def p9(r): return r.end(r.g.cast(r.drop(r.g.softmax(r.g.cast(r.product(r.g.div(r.q, math.sqrt(E))), "F32"))), r.dtype))
def p10(r): return r.end(r.g.cast(r.g.softmax(r.g.cast(r.product(r.g.div(r.q, math.sqrt(E))), "F32")), r.dtype))
def p11(r): return p1(r)
def p12(r): return p3(r)


def p13(r):
    g, n = r.g, r.batch * H
    q, k, v = (g.view(x, n, *x.shape[2:]) for x in (r.q, r.k, r.v))
    g.outputs = [g.matmul(r.drop(r.softmax(g.matmul(q, g.transpose(k)))), v)]
    return g


def p14(r): return r.end(r.softmax(r.g.add(scaled(r, "div"), r.mask())))
def p15(r): return r.end(r.softmax(r.g.fill(scaled(r, "div"), r.hidden(), -math.inf)))
def p16(r): return r.end(r.g.cast(r.drop(r.softmax(r.g.add(scaled(r, "div"), r.mask()))), r.dtype))
def p17(r): return r.end(r.drop(r.softmax(r.g.fill(scaled(r, "div"), r.hidden(), -math.inf))))


def p18(r):
    g = r.g
    scores = g.div(r.product(), g.node("full", r.dtype, [], fill_value=math.sqrt(E)))
    chosen = g.where(r.visible((1, 1, L, S)), scores, g.node("full", r.dtype, [], fill_value=LOWEST[r.dtype]))
    return r.end(r.drop(r.softmax(chosen)), r.k, r.v)


def p19(r):
    g = r.g
    scores = g.div(r.product(), g.node("full", r.dtype, [], fill_value=math.sqrt(E)))
    chosen = g.where(r.visible((1, 1, L, S)), scores, g.node("full", r.dtype, [], fill_value=LOWEST[r.dtype]))
    return r.end(r.drop(r.softmax(g.add(chosen, r.mask()))))


def p20(r): return r.end(r.drop(r.softmax(r.g.fill(r.product(r.g.div(r.q, C)), r.hidden(), -math.inf))))


def t5(r, mask, drop, more):
    scores = r.g.add(r.product(), r.mask(shape=(1, H, L, S))) if mask else r.product()
    weights = r.g.cast(r.g.softmax(r.g.cast(scores, "F32")), r.dtype)
    return r.end(r.drop(weights) if drop else weights, *([r.k, r.v] if more else []))


def p21(r): return t5(r, True, False, False)
def p22(r): return t5(r, True, False, True)
def p23(r): return t5(r, False, False, True)


def p24(r):
    g, n = r.g, r.batch * H
    q, k, v = (g.view(x, n, -(-math.prod(x.shape) // (n * E)), E) for x in (r.q, r.k, r.v))
    scores = g.view(g.add(g.view(g.matmul(q, g.transpose(k)), r.batch, H, L, S), r.mask()), n, L, S)
    g.outputs = [g.view(g.matmul(r.softmax(scores), v), r.batch, H, L, E)]
    return g


def p25(r): return t5(r, True, True, False)
def p26(r): return t5(r, True, True, True)
def p27(r): return t5(r, False, True, True)
def p28(r): return p4(r)


def safe(r, mask):
    g = r.g
    scores = r.product(g.mul(r.q, 0.75), g.mul(r.k, 0.75))
    if mask:
        fill = g.where(r.visible((r.batch, 1, L, S)), g.node("full", r.dtype, [], fill_value=0.0), g.node("full", r.dtype, [], fill_value=-math.inf))
        scores = g.add(scores, fill)
    empty = g.unary("logical_not", g.reduce("any", g.unary("logical_not", g.binary("eq", scores, -math.inf)), dtype="BOOL"))
    weights = g.softmax(scores)
    return r.end(g.where(empty, g.node("zeros", r.dtype, weights.shape), weights))


def p29(r): return safe(r, True)
def p30(r): return safe(r, False)


# number -> graph, permuted inputs, scale, score mod, mask mod
DEFAULT = 1 / math.sqrt(E)
ROWS = {
    1: (p1, False, 1 / C, False, False), 2: (p2, False, C, False, False), 3: (p3, False, 1 / C, False, False),
    4: (p4, False, C, False, False), 5: (p5, False, DEFAULT, True, False), 6: (p6, False, DEFAULT, True, False),
    7: (p7, True, DEFAULT, False, False), 8: (p8, True, DEFAULT, False, False), 9: (p9, True, DEFAULT, False, False),
    10: (p10, True, DEFAULT, False, False), 11: (p11, True, 1 / C, False, False), 12: (p12, True, 1 / C, False, False),
    13: (p13, False, 1.0, False, False), 14: (p14, True, 1 / C, True, False), 15: (p15, True, 1 / C, False, True),
    16: (p16, True, 1 / C, True, False), 17: (p17, True, 1 / C, False, True), 18: (p18, True, DEFAULT, True, False),
    19: (p19, False, DEFAULT, True, False), 20: (p20, True, 1 / C, False, True), 21: (p21, True, 1.0, True, False),
    22: (p22, True, 1.0, True, False), 23: (p23, True, 1.0, False, False), 24: (p24, False, 1.0, True, False),
    25: (p25, True, 1.0, True, False), 26: (p26, True, 1.0, True, False), 27: (p27, True, 1.0, False, False),
    28: (p28, False, C, False, False), 29: (p29, False, 0.75 * 0.75, False, True), 30: (p30, False, 0.75 * 0.75, False, False),
}  # fmt: skip


def graph(number, dtype, batch):
    make, permuted = ROWS[number][:2]
    return make(Region(dtype, batch, permuted))
