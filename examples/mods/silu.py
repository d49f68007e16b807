"""SiLU of the score: a smooth function that is not monotonic."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.nn.functional.silu(score)
