"""Anti-causal attention: a query sees itself and what comes after it."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx <= kv_idx, score, float("-inf"))
