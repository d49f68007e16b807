
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score + (q_idx + 4_000_000_000)
----
mod.py:2:21: error: 4000000000 does not fit into an int32
    2 |     return score + (q_idx + 4_000_000_000)
      |                     ^~~~~~~~~~~~~~~~~~~~~
  note: '.long()' makes the other operand an int64
