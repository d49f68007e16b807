"""The padding of video sparse attention alone: the tail of each tile of keys is unused."""

import torch

TILE = 16
variable_block_sizes = torch.full((21,), 16, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    return kv_idx % TILE < variable_block_sizes[kv_idx // TILE]
