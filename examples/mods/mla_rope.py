"""The rotary part of multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): a second,
small dot product, whose keys are shared by all heads."""

import torch

NUM_HEADS = 8
ROPE_SCALE = 0.25
query_rope = torch.zeros(2, 8, 333, 16)
key_rope = torch.zeros(2, 1, 333, 16)


def score_mod(score, b, h, q_idx, kv_idx):
    rope = torch.dot(query_rope[b, h, q_idx], key_rope[b, h // NUM_HEADS, kv_idx])
    return score + ROPE_SCALE * rope
