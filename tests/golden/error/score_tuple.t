
----
def score_mod(score, b, h, q_idx, kv_idx):
    if 1 < 2:
        return score, q_idx
    return score
----
mod.py:3:16: error: the score mod returns a tuple, not one value
    3 |         return score, q_idx
      |                ^~~~~~~~~~~~
