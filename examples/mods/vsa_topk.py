"""Video sparse attention: each tile of queries sees its list of tiles of keys, found by a
reduction over a gathered row, and a tile may be partly padding."""

import torch

TILE = 16
topk_indices = torch.zeros(2, 8, 21, 3, dtype=torch.int32)
variable_block_sizes = torch.full((21,), 16, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    kv_tile = kv_idx // TILE
    selected_tiles = topk_indices[b, h, q_idx // TILE]
    selected = (selected_tiles == kv_tile.unsqueeze(-1)).any(dim=-1)
    return selected & (kv_idx % TILE < variable_block_sizes[kv_tile])
