"""A learned bias per pair of positions, shared by all batches and heads."""

import torch

bias = torch.zeros(333, 333)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + bias[q_idx, kv_idx]
