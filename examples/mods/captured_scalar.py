"""Adds a captured integer of rank 0, which is used bare."""

import torch

scale = torch.zeros((), dtype=torch.int32)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + scale
