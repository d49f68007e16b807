"""A product of two functions of the score, which share their argument."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    cos_score = torch.cos(score)
    sin_score = torch.sin(score)
    return cos_score * sin_score + torch.tan(b)
