--bind bias=F32[8] --bind table=F32[8]
----
import torch

slopes = torch.zeros(8)


def score_mod(score, b, h, q, kv):
    return score + slopes[h]
----
mod.py:7:20: error: captured tensor without a value: 'slopes'
    7 |     return score + slopes[h]
      |                    ^~~~~~~~~
  note: a captured tensor takes its value from the caller's tensor of that name (--input or --bind; in a manifest "bind"); given are 'bias', 'table'
