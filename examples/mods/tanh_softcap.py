"""Soft-capping of the logits (Gemma 2, Grok-1): c * tanh(score / c) stays within (-c, c)."""

import torch

SOFT_CAP = 2.0


def generate_tanh_softcap(soft_cap: float):
    """Returns the score mod that caps scores at `soft_cap`."""

    def tanh_softcap(score, b, h, q_idx, kv_idx):
        return soft_cap * torch.tanh(score / soft_cap)

    return tanh_softcap


score_mod = generate_tanh_softcap(SOFT_CAP)
