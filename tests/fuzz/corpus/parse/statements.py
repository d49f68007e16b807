a = b, c = 1, (2, 3)
d[i], e.f = a
x: float = -9223372036854775808
x **= 2; x @= y; x >>= 1; pass
for i, (j, k) in enumerate(zip(a, b)):
    if i: continue
    elif j is not None: break
    else:
        raise ValueError("no") from None
else:
    assert 0 <= i < 3 != j, f"{i}"
def outer(n, *, inner=lambda s, *r, t=1, **w: s if t else r):
    global g
    def f():
        g = [x * y for x, y in n if x if y for z in x]
        return sum(v for v in g)
    return f, g
