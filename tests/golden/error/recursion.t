
----
def mask_mod(b, h, q_idx, kv_idx):
    return mask_mod(b, h, q_idx, kv_idx)
----
mod.py:2:12: error: 'mask_mod' calls itself: the mod language has no recursion
    2 |     return mask_mod(b, h, q_idx, kv_idx)
      |            ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~
