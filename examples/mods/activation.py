"""Attention with an activation f in place of softmax: with the score log(f(s) + offset),
softmax(score) @ V * exp(lse) - offset * sum(V) is f(S) @ V."""

import torch
import torch.nn.functional as F


def generate_activation_score_mod(activation=F.gelu, offset: float = 1.0):
    """Returns the score mod for an activation with f(s) + offset > 0 everywhere."""

    def activation_score_mod(score, b, h, q_idx, kv_idx):
        return torch.log(activation(score) + offset)

    return activation_score_mod


score_mod = generate_activation_score_mod()
