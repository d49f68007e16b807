"""Soft capping as an autograd function: its forward is differentiated."""

import torch


class SoftCap(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(score, cap):
        return cap * torch.tanh(score / cap)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.cap = inputs
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        (result,) = ctx.saved_tensors
        return grad * (1 - (result / ctx.cap) ** 2), None


def score_mod(score, b, h, q_idx, kv_idx):
    return SoftCap.apply(score, 10.0)
