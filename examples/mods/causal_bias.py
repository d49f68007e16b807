"""Causal attention written as a score mod: keys after the query get -inf."""

import torch


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score, -float("inf"))
