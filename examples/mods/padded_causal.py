"""Causal attention wrapped in a test that compares the score itself with a table."""

import torch

seq_len = torch.full((2,), 64, dtype=torch.int32)


def causal(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score, float("-inf"))


def score_mod(score, b, h, q_idx, kv_idx):
    return torch.where(score <= seq_len[b], causal(score, b, h, q_idx, kv_idx), float("-inf"))
