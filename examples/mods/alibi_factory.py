"""ALiBi (arXiv:2108.12409) made by a factory that closes over the number of heads."""

import torch

NUM_HEADS = 8


def generate_alibi_bias(num_heads: int):
    """Returns the ALiBi score mod for `num_heads` query heads."""

    def alibi_mod(score, b, h, q_idx, kv_idx):
        slope = torch.exp2(-((h + 1) * 8.0 / num_heads))
        return score + (kv_idx - q_idx) * slope

    return alibi_mod


score_mod = generate_alibi_bias(NUM_HEADS)
