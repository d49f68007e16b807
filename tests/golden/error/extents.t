--bind a=F32[8,6] --bind c=F32[8,5]
----
def score_mod(score, b, h, q, kv):
    return score + (a[h] * c[h]).sum()
----
mod.py:2:21: error: dimensions of 6 and 5 do not fit together
    2 |     return score + (a[h] * c[h]).sum()
      |                     ^~~~~~~~~~~
