
----
import torch


def score_mod(score, b, h, q_idx, kv_idx):
    total = score
    for i in range(4000):
        total = total + torch.tan(score * i) * torch.atan(score + i)
    return total
----
mod.py:8:12: error: in the gradient: the mod needs more than 65536 values
    8 |     return total
      |            ^~~~~
  note: unroll less, or split what is computed
