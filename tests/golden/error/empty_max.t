--bind t=F32[8,0]
----
def score_mod(score, b, h, q, kv):
    return score + t[h].max()
----
mod.py:2:20: error: the greatest or least of no elements: the extent that is reduced here is 0
    2 |     return score + t[h].max()
      |                    ^~~~~~~~~~
