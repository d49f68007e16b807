--bind slopes=F32[8]
----
import torch

slopes = torch.empty(8)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + slopes[h, 0] * (kv_idx - q_idx)
----
mod.py:7:20: error: captured tensor 'slopes' has rank 1 but is read with 2 indices
    7 |     return score + slopes[h, 0] * (kv_idx - q_idx)
      |                    ^~~~~~~~~~~~
  note: bound to 'slopes' F32 [8]
