"""Penalises the keys within a window and rewards those behind it by their distance."""

import torch

WINDOW = 32


def score_mod(score, b, h, q_idx, kv_idx):
    distance = q_idx - kv_idx
    return torch.where(distance <= WINDOW, score - 1.0, score + distance)
