"""The mask mod of a paged key cache: the wrapped mask sees logical key positions."""

import torch

PAGE_SIZE = 16
physical_to_logical = torch.zeros(2, 21, dtype=torch.int32)


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def paged_mask_mod(inner, physical_to_logical, page_size):
    """Wraps a mask mod that is written in logical key positions."""

    def new_mask_mod(b, h, q_idx, physical_kv_idx):
        logical_block = physical_to_logical[b, physical_kv_idx // page_size]
        logical_kv_idx = logical_block * page_size + physical_kv_idx % page_size
        return torch.where(logical_block >= 0, inner(b, h, q_idx, logical_kv_idx), False)

    return new_mask_mod


mask_mod = paged_mask_mod(causal, physical_to_logical, PAGE_SIZE)
