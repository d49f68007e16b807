"""All is seen but by the first query, which sees nothing in the first block of keys: a block
that looks full for its rows is not."""

import torch

BLOCK_SIZE = 64


def mask_mod(b, h, q_idx, kv_idx):
    return torch.where((q_idx == 0) & ~(kv_idx >= BLOCK_SIZE), False, True)
