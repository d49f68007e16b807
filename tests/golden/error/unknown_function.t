
----
def score_mod(score, b, h, q_idx, kv_idx):
    return warp(score)
----
mod.py:2:12: error: unknown function 'warp': paste its definition into this file
    2 |     return warp(score)
      |            ^~~~~~~~~~~
