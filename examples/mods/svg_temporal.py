"""The temporal head of Sparse VideoGen (arXiv:2502.01776): a token sees its neighbours at the
same place in every frame. The remainder of a negative number is not negative."""

import torch

PROMPT_LENGTH = 16
NUM_FRAMES = 12
TOKENS_PER_FRAME = 25
WIDTH = 2


def token_in_frame(idx):
    return (idx - PROMPT_LENGTH) % TOKENS_PER_FRAME


def mask_mod(b, h, q_idx, kv_idx):
    prompt = (kv_idx < PROMPT_LENGTH) | (q_idx < PROMPT_LENGTH)
    reach = (WIDTH * TOKENS_PER_FRAME) // NUM_FRAMES
    return prompt | (torch.abs(token_in_frame(q_idx) - token_in_frame(kv_idx)) < reach)
