
----
def mask_mod(b, h, q_idx, kv_idx):
    return q_idx - kv_idx
----
mod.py:2:12: error: the mask mod returns a run-time int, not a bool: compare it with something
    2 |     return q_idx - kv_idx
      |            ^~~~~~~~~~~~~~
