
----
def score_mod(score, b, h, q_idx, kv_idx):
    größe = 3
    return score * größe * grösse
----
mod.py:3:28: error: unknown name 'grösse': did you mean 'größe'?
    3 |     return score * größe * grösse
      |                            ^~~~~~
