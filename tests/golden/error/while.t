
----
def score_mod(score, b, h, q_idx, kv_idx):
    while True:
        score = score + 1
    return score
----
mod.py:2:5: error: while loops are not in the mod language: use a for loop over range(...)
    2 |     while True:
      |     ^~~~~
