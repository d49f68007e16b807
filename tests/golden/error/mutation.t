
----
def score_mod(score, b, h, q_idx, kv_idx):
    score.add_(1)
    return score
----
mod.py:2:5: error: 'add_' changes a value in place, which the mod language does not have: make a new value
    2 |     score.add_(1)
      |     ^~~~~~~~~~~~~
