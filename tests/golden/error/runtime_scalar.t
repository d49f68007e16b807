--runtime-param W
----
W = 3000000000


def score_mod(score, b, h, q, kv):
    return score + (q + W) * 1e-9
----
mod.py:5:21: error: run-time parameter W: 3000000000 does not fit into an int32
    5 |     return score + (q + W) * 1e-9
      |                     ^~~~~
  note: '.long()' makes the other operand an int64
