
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score +
----
mod.py:2:19: error: unexpected end of the line: expected an expression
    2 |     return score +
      |                   ^
