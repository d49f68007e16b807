"""Three captured vectors at once: per query token, per batch and per head."""

import torch

tok_scale = torch.zeros(333)
batch_scale = torch.zeros(2)
head_scale = torch.zeros(8)


def score_mod(score, b, h, q_idx, kv_idx):
    score = score + tok_scale[q_idx]
    score = score + batch_scale[b]
    return score + head_scale[h]
