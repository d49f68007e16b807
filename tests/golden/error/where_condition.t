
----
import torch


def mask_mod(b, h, q_idx, kv_idx):
    return torch.where(q_idx - kv_idx, True, False)
----
mod.py:5:12: error: the condition of where must be a bool, not a run-time int: compare it with something
    5 |     return torch.where(q_idx - kv_idx, True, False)
      |            ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
