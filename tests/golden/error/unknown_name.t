
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score + (kv_idx - q_id)
----
mod.py:2:30: error: unknown name 'q_id': did you mean 'q_idx'?
    2 |     return score + (kv_idx - q_id)
      |                              ^~~~
