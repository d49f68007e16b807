
----
BIG = 2 ** 62


def score_mod(score, b, h, q_idx, kv_idx):
    return score * (BIG + BIG)
----
mod.py:5:21: error: this constant does not fit into 64 bits
    5 |     return score * (BIG + BIG)
      |                     ^~~~~~~~~
