"""fuse: random regions. Never a changed answer; nearly all of those that are attention by construction fuse.

FJ_SEED and FJ_COUNT say which and how many; the seed is the day's."""

import json
import math
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness
from graphs import LOWEST, Graph

SEED = int(os.environ.get("FJ_SEED", time.time() // 86400))
COUNT = int(os.environ.get("FJ_COUNT", 300))
EACH = 30  # regions of a graph


class Region:
    def __init__(self, g, rng, index):
        self.g, self.rng, self.index, self.sound = g, rng, index, True
        self.dtype = rng.choice(["F32", "F32", "F32", "F16", "BF16", "F64"])
        self.b, self.kv_heads, self.group = rng.randint(1, 3), rng.randint(1, 3), rng.choice([1, 1, 2, 3])
        self.h = self.kv_heads * self.group
        self.alike = rng.random() < 0.3  # all extents are one number: only their order tells them apart
        self.l, self.s = rng.randint(1, 6), rng.randint(1, 6)
        self.e = rng.choice([1, 2, 4, 5, 8])
        self.ev = rng.choice([self.e, self.e, 3])
        if self.alike:
            self.b = self.h = self.kv_heads = self.l = self.s = self.e = self.ev = rng.randint(2, 4)
            self.group = 1

    def pick(self, *choices):
        return self.rng.choice(choices)

    def input(self, name, shape, dtype=None, values=None):
        return self.g.input(f"{name}_{self.index}_{len(self.g.inputs)}", dtype or self.dtype, shape, values, seed=self.rng.random())

    def bits(self, shape, share=0.7):
        return self.input("seen", shape, "BOOL", [int(self.rng.random() < share) for _ in range(math.prod(shape))])

    def rows(self, name, heads, length, width):
        """[B,heads,length,width], by some way."""
        g, b = self.g, self.b
        how = self.pick("plain", "permuted", "joined", "sliced", "flat")
        if how == "plain":
            return self.input(name, (b, heads, length, width))
        if how == "permuted":
            order = self.pick((0, 2, 1, 3), (1, 0, 2, 3), (0, 3, 1, 2), (2, 1, 0, 3))
            shape = [0] * 4
            for to, at in zip((b, heads, length, width), order):
                shape[at] = to
            return g.permute(self.input(name, shape), *order)
        if how == "joined":
            return g.permute(g.view(self.input(name, (b, length, heads * width)), b, length, heads, width), 0, 2, 1, 3)
        if how == "sliced":
            whole = self.input(name, (b, length, 3 * heads * width))
            part = g.slice(whole, 2, heads * width, 2 * heads * width)
            return g.permute(g.view(part, b, length, heads, width), 0, 2, 1, 3)
        return g.view(self.input(name, (b * heads, length, width)), b, heads, length, width)

    def repeated(self, x):
        if self.group == 1:
            return x
        b, heads, length, width = x.shape
        if self.pick(True, False):
            spread = self.g.expand(self.g.view(x, b, heads, 1, length, width), b, heads, self.group, length, width)
            return self.g.view(spread, b, self.h, length, width)
        return self.g.node("repeat_interleave", x.dtype, (b, self.h, length, width), self=x, repeats=self.group, dim=1)

    def product(self, a, b):
        """matmul, or what it is taken apart to."""
        g = self.g
        if self.pick(True, False):
            return g.matmul(a, b)
        n = a.shape[0] * a.shape[1]
        flat = [g.view(g.expand(x, *x.shape), n, *x.shape[2:]) for x in (a, b)]
        return g.view(g.matmul(*flat), *a.shape[:3], b.shape[3])

    def scores(self, q, k):
        g, how = self.g, self.pick("none", "mul", "div", "q", "k", "both", "tensor", "neg")
        c = self.pick(0.25, 0.3, 1.5)
        if how in ("q", "both"):
            q = g.mul(q, c)
        if how in ("k", "both"):
            k = g.div(k, 2.0)
        if self.pick(True, True, False):
            x = self.product(q, g.transpose(k))
        else:
            x = g.transpose(self.product(k, g.transpose(q)))
        if how == "mul":
            return g.mul(x, c)
        if how == "div":
            return g.div(x, c)
        if how == "tensor":
            return g.mul(x, g.constant(self.dtype, self.pick((), (1,), (1, 1, 1)), [0.5]))
        return g.unary("neg", x) if how == "neg" else x

    def position(self):
        g = self.g
        q, kv = g.view(g.arange(self.l), self.l, 1), g.view(g.arange(self.s), 1, self.s)
        return g.binary("sub", kv, q)

    def shape(self):
        full = (self.b, self.h, self.l, self.s)
        shape = [n if self.rng.random() < 0.6 else 1 for n in full]
        return shape[self.rng.randint(0, 3) :] if shape[0] == 1 else shape

    def condition(self):
        g, how = self.g, self.pick("bits", "causal", "window", "tril", "equal")
        if how == "bits":
            return self.bits(self.shape())
        if how == "causal":
            return g.binary(self.pick("le", "lt"), self.position(), self.pick(0, 1, 2))
        if how == "window":
            apart = self.position()
            return g.binary("logical_and", g.binary("ge", apart, -2), g.binary("le", apart, 1))
        if how == "tril":
            n = max(self.l, self.s)
            table = g.node("tril", "BOOL", (n, n), self=g.node("ones", "BOOL", (n, n)), diagonal=self.pick(0, 1))
            return g.slice(g.slice(table, 0, 0, self.l), 1, n - self.s, n)
        keep = self.input("keep", (self.b, self.s), "F32", [float(self.rng.random() < 0.7) for _ in range(self.b * self.s)])
        equal = g.binary("ne", keep, 0)
        return g.expand(g.view(equal, self.b, 1, 1, self.s), self.b, self.h, self.l, self.s)

    def change(self, x):
        g, how = self.g, self.pick("add", "first", "hide", "fill", "lowest", "bool", "number", "cap", "slopes", "table", "inverse", "factor")
        if how in ("add", "first"):
            m = self.input("mask", self.shape())
            return g.add(x, m) if how == "add" else g.add(m, x)
        if how == "hide":
            return g.where(self.condition(), x, -math.inf)
        if how == "fill":
            return g.fill(x, self.condition(), self.pick(-math.inf, -100.0))
        if how == "lowest":
            return g.where(self.condition(), x, LOWEST[x.dtype])
        if how == "bool":
            return g.add(x, self.bits(self.shape()))
        if how == "number":
            return g.add(x, 0.5)
        if how == "cap":
            return g.mul(g.unary("tanh", g.div(x, 4.0)), 4.0)
        if how == "slopes":
            slopes = self.input("slopes", (self.h, 1, 1))
            return g.add(x, g.mul(slopes, g.cast(self.position(), self.dtype)))
        if how == "table":
            bucket = g.point("clamp", ["self", "min", "max"], [self.position(), -1, 2])
            index = g.add(bucket, 1)
            bias = g.node("embedding", self.dtype, (self.l, self.s, self.h), weight=self.input("table", (4, self.h)), indices=index)
            return g.add(x, g.permute(bias, 2, 0, 1))
        if how == "inverse":
            m = self.input("keep", (self.b, 1, 1, self.s), self.dtype, [float(self.rng.random() < 0.7) for _ in range(self.b * self.s)])
            return g.add(x, g.mul(g.node("rsub", self.dtype, m.shape, self=m, other=1.0), -1000.0))
        return g.mul(x, self.input("factor", self.shape()))

    def softmax(self, x):
        g, how = self.g, self.pick("op", "op", "written", "safe", "nan")
        if how == "written":
            grown = g.unary("exp", g.binary("sub", x, g.reduce("amax", x)))
            return g.div(grown, g.reduce("sum", grown))
        w = g.softmax(x)
        if how == "nan":
            return g.where(g.unary("isnan", w, "BOOL"), 0.0, w)
        if how == "safe":
            seen = g.reduce("any", g.unary("logical_not", g.binary("eq", x, -math.inf)), dtype="BOOL")
            return g.where(g.unary("logical_not", seen), g.node("zeros", x.dtype, w.shape), w)
        return w

    def twist(self, w):
        """What must not be fused, or has to be seen to change nothing."""
        g, how = self.g, self.pick("heads", "keys", "read", "rounded", "masked", "dim", "rows", "order")
        self.sound = False
        b, h, l, s = w.shape
        if how == "order":
            order = self.rng.sample(range(4), 4)
            return g.view(g.permute(w, *order), b, h, l, s)
        if how == "heads":
            return g.view(g.permute(w, 1, 0, 2, 3), b, h, l, s)
        if how == "rows":
            return g.view(g.permute(w, 0, 2, 1, 3), b, h, l, s)
        if how == "keys":
            return g.node("flip", w.dtype, w.shape, self=w, dims=[self.pick(1, 2, 3)])
        if how == "read":
            g.outputs.append(g.reduce("sum", w))
            return w
        if how == "rounded":
            return g.cast(g.cast(w, "F16"), w.dtype)
        if how == "dim":
            return g.softmax(w, dim=self.pick(1, 2))
        return g.mul(w, self.input("drop", self.shape(), w.dtype))

    def misplaced(self, x):
        """A permutation of dimensions that are alike: a right answer needs it to be seen."""
        return self.g.permute(x, *self.rng.sample(range(4), 4)) if self.alike and self.rng.random() < 0.4 else x

    def build(self):
        g = self.g
        q = self.rows("q", self.h, self.l, self.e)
        k, v = self.repeated(self.rows("k", self.kv_heads, self.s, self.e)), self.repeated(self.rows("v", self.kv_heads, self.s, self.ev))
        q, k, v = (self.misplaced(each) for each in (q, k, v))
        scores = self.scores(q, k)
        x = self.misplaced(scores)
        self.sound = x is scores
        for _ in range(self.rng.randint(0, 3)):
            x = self.change(x)
        half = self.dtype in ("F16", "BF16")
        if half and self.pick(True, False):
            x = g.cast(x, "F32")
        w = self.softmax(x)
        if self.rng.random() < 0.25:
            w = self.twist(w)
        if w.dtype != self.dtype:
            w = g.cast(w, self.dtype)
        if self.pick(True, False):
            w = g.dropout(w)
        out = self.product(w, v) if self.pick(True, True, False) else g.transpose(self.product(g.transpose(v), g.transpose(w)))
        if self.pick(True, False):
            out = g.view(g.permute(out, 0, 2, 1, 3), self.b, self.l, self.h * self.ev)
        g.outputs.append(out)


class Random(harness.Case):
    def test_regions(self):
        sound = fused = 0
        for start in range(0, COUNT, EACH):
            g, regions = Graph(), []
            for index in range(start, min(start + EACH, COUNT)):
                before = len(g.nodes)
                regions.append(Region(g, random.Random(SEED * 1000003 + index), index))
                regions[-1].build()
                regions[-1].names = {node["name"] for node in g.nodes[before:]}
            path, given = self.file("g.json", g.text()), self.file("g.st", harness.safetensors(g.given))
            with self.subTest(seed=SEED, first=start):
                done = self.ok("fuse", path, "--run", given, "--check", "--device", "reference", "--json")
                report = json.loads(done.stdout)
                sound += sum(region.sound for region in regions)
                found = {each["softmax"] for each in report["fused"]}
                fused += sum(region.sound and bool(region.names & found) for region in regions)
                if os.environ.get("FJ_VERBOSE"):
                    for each in report["refused"]:
                        print(each, file=sys.stderr)
        print(f"seed {SEED}: {COUNT} regions, {sound} sound by construction, {fused} of these fused", file=sys.stderr)
        self.assertGreaterEqual(fused, 0.9 * sound)


if __name__ == "__main__":
    harness.main()
