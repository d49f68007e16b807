"""Within the first n[b] tokens attention goes both ways, after them it is causal."""

import torch

num_bidirectional = torch.zeros(2, dtype=torch.int32)


def score_mod(score, b, h, q_idx, kv_idx):
    both_in_prefix = (q_idx <= num_bidirectional[b]) & (kv_idx <= num_bidirectional[b])
    return torch.where(both_in_prefix | (q_idx >= kv_idx), score, float("-inf"))
