"""A dense learned bias: one number per score."""

import torch

bias = torch.zeros(2, 8, 333, 333)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + bias[b, h, q_idx, kv_idx]
