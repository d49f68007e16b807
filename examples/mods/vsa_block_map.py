"""Video sparse attention with a dense map of tiles in place of lists."""

import torch

TILE = 16
block_map = torch.zeros(2, 8, 21, 21, dtype=torch.bool)
variable_block_sizes = torch.full((21,), 16, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    kv_tile = kv_idx // TILE
    selected = block_map[b, h, q_idx // TILE, kv_tile]
    return selected & (kv_idx % TILE < variable_block_sizes[kv_tile])
