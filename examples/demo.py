"""Causal attention with soft-capped scores (Gemma 2) and ALiBi (arXiv:2108.12409)."""

import torch

SOFT_CAP = 8.0
alibi_slopes = torch.empty(12)


def score_mod(score, b, h, q_idx, kv_idx):
    score = SOFT_CAP * torch.tanh(score / SOFT_CAP)
    return score + alibi_slopes[h] * (kv_idx - q_idx)


def mask_mod(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx
