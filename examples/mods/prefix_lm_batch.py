"""Prefix LM with a prefix length per batch."""

import torch

prefix_length = torch.zeros(2, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    return (kv_idx <= prefix_length[b]) | (q_idx >= kv_idx)
