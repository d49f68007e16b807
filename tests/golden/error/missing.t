--bind ids=I32[64]
----
import torch

slopes = torch.randn(8)
bias = torch.zeros(4, 4)
ids = torch.zeros(64, dtype=torch.int32)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + slopes[h] + bias[ids[q_idx], ids[kv_idx]]
----
mod.py:9:20: error: captured tensors without a value: 'slopes', 'bias'
    9 |     return score + slopes[h] + bias[ids[q_idx], ids[kv_idx]]
      |                    ^~~~~~~~~
  note: a captured tensor takes its value from the caller's tensor of that name (--input or --bind; in a manifest "bind"); given are 'ids'
