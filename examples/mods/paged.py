"""A paged key cache: physical pages lie in any order, a page that belongs to nobody is -1, and
the wrapped score mod sees logical positions."""

import torch

PAGE_SIZE = 16
physical_to_logical = torch.zeros(2, 21, dtype=torch.int32)


def relative_causal(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score + 0.0625 * (kv_idx - q_idx), float("-inf"))


def paged_score_mod(inner, physical_to_logical, page_size):
    """Wraps a score mod that is written in logical key positions."""

    def new_score_mod(score, b, h, q_idx, physical_kv_idx):
        logical_block = physical_to_logical[b, physical_kv_idx // page_size]
        logical_kv_idx = logical_block * page_size + physical_kv_idx % page_size
        return torch.where(logical_block >= 0, inner(score, b, h, q_idx, logical_kv_idx), float("-inf"))

    return new_score_mod


score_mod = paged_score_mod(relative_causal, physical_to_logical, PAGE_SIZE)
