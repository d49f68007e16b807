"""Soft capping as an autograd function: its forward is differentiated."""

import torch


class SoftCap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, score, cap):
        result = cap * torch.tanh(score / cap)
        ctx.save_for_backward(result)
        ctx.cap = cap
        return result

    @staticmethod
    def backward(ctx, grad):
        (result,) = ctx.saved_tensors
        return grad * (1 - (result / ctx.cap) ** 2), None


def score_mod(score, b, h, q_idx, kv_idx):
    return SoftCap.apply(score, 10.0)
