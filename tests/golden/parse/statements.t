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
----
(= a (tuple b c) (tuple 1 (tuple 2 3)))
(= (tuple ([] d i) (. e f)) a)
(= x -9223372036854775808)
(**= x 2)
(@= x y)
(>>= x 1)
(pass)
(for (tuple i (tuple j k)) (call enumerate (call zip a b))
  (if i
    (continue)
    (else
      (if (is not j None)
        (break)
        (else
          (raise (call ValueError "no"))))))
  (else
    (assert (compare 0 <= i < 3 != j) opaque"{i}")))
(def outer (n inner!=(lambda (s *r t!=1 **w) (if t s r))) (locals n inner f)
  (global "'global' is not in the mod language: a mod assigns only its own names" (binds g))
  (def f () (locals g)
    (= g (comprehension (* x y) (for (tuple x y) n x y) (for z x)))
    (return (call sum (comprehension v (for v g)))))
  (return (tuple f g)))
