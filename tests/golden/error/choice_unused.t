--score-mod warp --score score
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score
----
<score-mod>:1:1: error: the module has no function 'warp'
    1 | warp
      | ^~~~
  note: there is 'score_mod'
