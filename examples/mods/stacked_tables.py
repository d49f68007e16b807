"""Bias tables by kind of head, stacked and reshaped; the kinds are a table computed at module level."""

import torch

HEADS = 8
near = torch.zeros(16)
far = torch.zeros(16)
tables = torch.stack([near, far]).reshape(2, 4, 4)
is_far = (torch.arange(HEADS) % 3) == 2


def score_mod(score, b, h, q_idx, kv_idx):
    bucket = (q_idx - kv_idx).abs() // 8 % 16
    kind = torch.where(is_far[h], 1, 0)
    return score + tables[kind, bucket // 4, bucket % 4]
