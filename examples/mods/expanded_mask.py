"""A dense mask of one head, expanded to all of them and joined with a causal one."""

import torch

HEADS = 8
attention_mask = torch.ones(2, 1, 333, 333, dtype=torch.bool)


def make_mask(mask):
    if mask.shape[1] == 1:
        mask = mask.expand(-1, HEADS, -1, -1)
    keep = mask == 1

    def mask_mod(b, h, q_idx, kv_idx):
        return keep[b, h, q_idx, kv_idx] & (q_idx >= kv_idx)

    return mask_mod


mask_mod = make_mask(attention_mask)
