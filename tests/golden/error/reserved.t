
----
import torch

k = torch.randn(8)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + k[h]
----
mod.py:7:20: error: 'k' is the name of an attention input, so no captured tensor can be called so
    7 |     return score + k[h]
      |                    ^~~~
