
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score * self.scale
----
mod.py:2:20: error: 'self' is not known: make 'scale' a parameter of a factory, or a module constant
    2 |     return score * self.scale
      |                    ^~~~~~~~~~
