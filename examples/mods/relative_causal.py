"""Adds the distance to the keys at or before the query and drops the others."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score + (q_idx - kv_idx), float("-inf"))
