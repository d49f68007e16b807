
----
BIG = 2**70


def score_mod(score, b, h, q_idx, kv_idx):
    return score * BIG
----
mod.py:1:7: error: this constant does not fit into 64 bits
    1 | BIG = 2**70
      |       ^~~~~
