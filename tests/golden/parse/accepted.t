@dataclass(frozen=True)
class Config(Base, metaclass=M):
    """A configuration."""
    window: int = 128
    kind: str = "causal"

    @property
    def half(self):
        return self.window // 2


class Empty[T]: pass


def f(score, *rest, **options):
    first, *middle, last = rest
    (a, [b, *c]) = middle
    for x, *y in rest: pass
    del first, (last,)
    if (n := len(rest)) > 3 and [k for k in rest if (m := k)]:
        return {**options, "n": n, -1: last, }
    match options["kind"].lower():
        case "a" | "b":
            return 1
        case None | True | -2 | Config.window if n: return 2
        case _:
            return {k: v for k, v in rest if v}
    return {}


match = case = 3

----
(class Config Base (locals window kind half)
  (expression "A configuration.")
  (= window 128)
  (= kind "causal")
  (def half (self) (decorators property) (locals self)
    (return (// (. self window) 2))))
(class Empty (locals)
  (pass))
(def f (score *rest **options) (locals score rest options first middle last a b c x y n m)
  (= (tuple first (star middle) last) rest)
  (= (tuple a (list b (star c))) middle)
  (for (tuple x (star y)) rest
    (pass))
  (del (tuple first (tuple last)))
  (if (and (> (:= n (call len rest)) 3) (comprehension k (for k rest (:= m k))))
    (return (dict (star options) None "n" n (- 1) last)))
  (if (or (== (call (. ([] options "kind") lower)) "a") (== (call (. ([] options "kind") lower)) "b"))
    (return 1)
    (else
      (if (and (or (or (or (is (call (. ([] options "kind") lower)) None) (is (call (. ([] options "kind") lower)) True)) (== (call (. ([] options "kind") lower)) (- 2))) (== (call (. ([] options "kind") lower)) (. Config window))) n)
        (return 2)
        (else
          (if True
            (return (dict-comprehension (tuple k v) (for (tuple k v) rest v))))))))
  (return (dict)))
(= match case 3)
