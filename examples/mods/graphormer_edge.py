"""Graphormer's edge encoding (arXiv:2106.05234): the mean of learned weights of the edges on
the shortest path. The sum over the path is unrolled, with one table per position on it."""

import torch

edge_bias = torch.zeros(8, 4, 6)
path_edge_types = torch.zeros(2, 333, 333, 4, dtype=torch.int32)
path_lengths = torch.zeros(2, 333, 333, dtype=torch.int32)


def generate_graphormer_edge_bias(edge_bias, path_edge_types, path_lengths):
    """Returns the score mod; `edge_bias` is [heads, positions on the path, edge types]."""
    position_tables = [edge_bias[:, n] for n in range(path_edge_types.shape[-1])]

    def graphormer_edge_bias(score, b, h, q_idx, kv_idx):
        length = path_lengths[b, q_idx, kv_idx]
        total = 0.0
        for n, table in enumerate(position_tables):
            weight = table[h, path_edge_types[b, q_idx, kv_idx, n]]
            total = total + torch.where(length > n, weight, 0.0)
        return score + total / torch.clamp(length, min=1)

    return graphormer_edge_bias


score_mod = generate_graphormer_edge_bias(edge_bias, path_edge_types, path_lengths)
