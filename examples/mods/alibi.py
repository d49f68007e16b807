"""ALiBi (arXiv:2108.12409): a linear penalty on distance whose slope is a power of two per head."""

import torch

NUM_HEADS = 8


def score_mod(score, b, h, q_idx, kv_idx):
    slope = torch.exp2(-((h + 1) * 8.0 / NUM_HEADS))
    return score + (kv_idx - q_idx) * slope
