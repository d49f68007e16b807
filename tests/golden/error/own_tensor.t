--bind gate=F32[4,8]
----
def out_mod(out, b, h, q_idx, d_idx):
    return out * gate[h]
----
mod.py:2:12: error: the out mod returns a tensor of rank 1, not one value
    2 |     return out * gate[h]
      |            ^~~~~~~~~~~~~
  note: reduce it, or read it with more indices
