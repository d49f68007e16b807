"""Decoding: both mods see the query at its position in the sequence, given by a tensor of
rank 0 that changes from step to step."""

import torch

WINDOW = 48
offset = torch.zeros((), dtype=torch.int32)


def relative_bias(score, b, h, q_idx, kv_idx):
    return score + 0.125 * (kv_idx - q_idx)


def sliding_window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)


def with_offset_score(inner, offset):
    """Moves the queries of a score mod by `offset`."""

    def offset_score_mod(score, b, h, q_idx, kv_idx):
        return inner(score, b, h, q_idx + offset, kv_idx)

    return offset_score_mod


def with_offset_mask(inner, offset):
    """Moves the queries of a mask mod by `offset`."""

    def offset_mask_mod(b, h, q_idx, kv_idx):
        return inner(b, h, q_idx + offset, kv_idx)

    return offset_mask_mod


score_mod = with_offset_score(relative_bias, offset)
mask_mod = with_offset_mask(sliding_window, offset)
