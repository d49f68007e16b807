"""The spatial head of Sparse VideoGen (arXiv:2502.01776): a prompt that all share, a sink of
one frame, and a band of a few frames, rounded down to whole blocks."""

from math import floor

import torch

PROMPT_LENGTH = 16
TOKENS_PER_FRAME = 25
WIDTH = 2
ATTN_SINK = True
ROUND_WIDTH = 16


def mask_mod(b, h, q_idx, kv_idx):
    if ATTN_SINK:
        first_columns = kv_idx < (PROMPT_LENGTH + TOKENS_PER_FRAME)
    else:
        first_columns = kv_idx < PROMPT_LENGTH
    band = floor(WIDTH * TOKENS_PER_FRAME / ROUND_WIDTH) * ROUND_WIDTH
    return first_columns | (q_idx < PROMPT_LENGTH) | (torch.abs(q_idx - kv_idx) < band)
