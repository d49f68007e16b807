--bind t=F32[3,0]
----
import torch
def score_mod(score, b, h, q, kv):
    return score + torch.argmin(t[:, 1:], dim=1)[h]
----
mod.py:3:20: error: the greatest or least of no elements: the extent that is reduced here is 0
    3 |     return score + torch.argmin(t[:, 1:], dim=1)[h]
      |                    ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~
