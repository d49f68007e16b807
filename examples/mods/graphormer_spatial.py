"""Graphormer's spatial encoding (arXiv:2106.05234): a learned bias per head and distance
in the graph."""

import torch

spatial_bias = torch.zeros(8, 12)
distances = torch.zeros(2, 333, 333, dtype=torch.int32)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + spatial_bias[h, distances[b, q_idx, kv_idx]]
