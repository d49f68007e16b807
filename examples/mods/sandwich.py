"""Sandwich (arXiv:2212.10356): the inner product of sinusoidal position embeddings as a bias
by distance. The factory computes its two tables, which are captured under their names."""

import torch

NUM_HEADS = 8
MAX_SEQ_LEN = 333


def generate_sandwich_bias(num_heads: int, max_seq_len: int, d_bar: int = 128):
    """Returns the score mod for distances below `max_seq_len`."""
    freqs = 1.0 / 10000 ** (2 * torch.arange(d_bar // 2) / d_bar)
    distances = torch.arange(2 * max_seq_len - 1) - (max_seq_len - 1)
    rel_bias = torch.cos(distances.abs()[:, None] * freqs).sum(dim=-1)
    head_scale = num_heads / (8.0 * torch.arange(1, num_heads + 1))
    offset = max_seq_len - 1

    def sandwich_mod(score, b, h, q_idx, kv_idx):
        return score + rel_bias[q_idx - kv_idx + offset] * head_scale[h]

    return sandwich_mod


score_mod = generate_sandwich_bias(NUM_HEADS, MAX_SEQ_LEN)
