"""ALiBi with slopes from a table, together with a causal mask mod."""

import torch

alibi_bias = torch.zeros(8)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + alibi_bias[h] * (kv_idx - q_idx)


def mask_mod(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx
