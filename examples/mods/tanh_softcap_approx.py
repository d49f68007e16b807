"""Soft-capping with the hardware tanh of a GPU, asked for by name; its gradient is that of
the exact function at the approximate value."""

import torch

SOFT_CAP = 2.0


class _TanhApprox(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad_output):
        (y,) = ctx.saved_tensors
        return grad_output * (1 - y * y)


tanh_approx = _TanhApprox.apply


def score_mod(score, b, h, q_idx, kv_idx):
    return SOFT_CAP * tanh_approx(score / SOFT_CAP)
