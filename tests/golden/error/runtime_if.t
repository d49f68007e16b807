
----
def score_mod(score, b, h, q_idx, kv_idx):
    if q_idx >= kv_idx:
        return score
    return -float("inf")
----
mod.py:2:8: error: the condition of 'if' is a run-time value: use torch.where
    2 |     if q_idx >= kv_idx:
      |        ^~~~~~~~~~~~~~~
  note: torch.where(condition, a, b) chooses at run time
