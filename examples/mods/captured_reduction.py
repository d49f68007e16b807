"""Adds the sum of a captured row; the row is read with fewer indices than its rank."""

import torch

scale = torch.zeros(2, 16)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + scale[b].sum(dim=-1)
