"""Longformer (arXiv:2004.05150): a window around the query, and global tokens that see all
and are seen by all."""

import torch
from torch.nn.attention.flex_attention import or_masks

WINDOW = 16
is_global = torch.zeros(333, dtype=torch.bool)


def sliding_window(b, h, q_idx, kv_idx):
    return (q_idx - kv_idx).abs() <= WINDOW


def global_attention(b, h, q_idx, kv_idx):
    return is_global[q_idx] | is_global[kv_idx]


mask_mod = or_masks(sliding_window, global_attention)
