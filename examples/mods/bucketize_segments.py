"""Segments given by their boundaries: a query sees its own segment and those before it."""

import torch

boundaries = torch.zeros(6, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    q_segment = torch.bucketize(q_idx, boundaries, right=True)
    kv_segment = torch.bucketize(kv_idx, boundaries, right=True)
    return kv_segment <= q_segment
