"""A window around the query that takes every DILATION-th key."""

import torch

WINDOW = 60
DILATION = 3


def mask_mod(b, h, q_idx, kv_idx):
    distance = torch.abs(q_idx - kv_idx)
    return (distance <= WINDOW) & (distance % DILATION == 0)
