"""Nested trigonometry on the score, and a term that depends on the batch alone."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.sin(torch.cos(score)) + torch.tan(b)
