--bind a=F32[8,1] --bind c=F32[8,4]
----
def score_mod(score, b, h, q, kv):
    return score + a[q] @ c[kv]
----
mod.py:2:20: error: the extents 1 and 4 of what is combined here differ: a dot product needs equal ones
    2 |     return score + a[q] @ c[kv]
      |                    ^~~~~~~~~~~~
  note: '(a * b).sum()' broadcasts an extent of 1
