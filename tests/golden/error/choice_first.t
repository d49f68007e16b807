--mask-mod 'warp(3)' --bind bias=F32[8,8]
----
def score_mod(score, b, h, q_idx, kv_idx):
    return score + bias[h]
----
<mask-mod>:1:1: error: the module has no function 'warp'
    1 | warp(3)
      | ^~~~
