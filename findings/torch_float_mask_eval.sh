#!/usr/bin/env bash
# PyTorch's TransformerEncoderLayer hides, in evaluation, every key whose floating mask is not 0.
#
# Guess:   a floating src_mask is added to the scores, in evaluation as in training, as its documentation says.
# Version: torch 2.15.0, Linux, x86-64, CPU.
# Seen:    without gradients and in eval(), layers of batch_first=True with an even number of heads run a fused function
#          that takes the mask for bools. With ALiBi's mask, 0 on the diagonal and less elsewhere, the output is, bit for
#          bit, that of queries which see themselves alone; with a bias that is nowhere 0 it is NaN; a causal mask of 0
#          and -inf is right. A floating src_key_padding_mask is taken likewise. With
#          torch.backends.mha.set_fastpath_enabled(False) evaluation is what training is. Known for its NaN: pytorch#118628.
# Means:   a model that was trained with a bias of attention gives other, finite numbers as soon as it is evaluated,
#          and nothing says so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(dirname "${BASH_SOURCE[0]}")/../tests/torch/install.sh" "$work/venv" torch==2.15.0
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import nn

torch.manual_seed(0)
length, heads = 6, 2
layer = nn.TransformerEncoderLayer(16, heads, 32, dropout=0.0, batch_first=True)
x = torch.randn(3, length, 16)
distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
padding = torch.tensor([[0.0, 0, 0, 0, -1, -1]]).expand(3, length)  # lessens two keys
masks = {
    "none": {},
    "causal, 0 and -inf": {"src_mask": nn.Transformer.generate_square_subsequent_mask(length)},
    "ALiBi": {"src_mask": -0.5 * distance},
    "bias that is nowhere 0": {"src_mask": -0.5 * distance - 1},
    "floating padding": {"src_key_padding_mask": padding},
}


def evaluate(fast=True, **mask):
    torch.backends.mha.set_fastpath_enabled(fast)
    with torch.no_grad():
        return layer.eval()(x, **mask)


seen = {}
for name, mask in masks.items():
    seen[name] = (layer.train()(x, **mask) - evaluate(**mask)).abs().max().item()
    slow = (layer.train()(x, **mask) - evaluate(fast=False, **mask)).abs().max().item()
    print(f"{name:24} evaluation is off by {seen[name]:.1e}, with the fast path off by {slow:.1e}")
alone = torch.equal(evaluate(**masks["ALiBi"]), evaluate(src_mask=~torch.eye(length).bool()))
hidden = torch.equal(evaluate(**masks["floating padding"]), evaluate(src_key_padding_mask=padding != 0))
print("ALiBi equals a mask that shows each query itself alone:", alone, " floating padding hides:", hidden)
wrong = seen["ALiBi"] > 0.1 and seen["bias that is nowhere 0"] != seen["bias that is nowhere 0"]
right = max(seen["none"], seen["causal, 0 and -inf"]) < 1e-5
sys.exit(0 if wrong and right and alone and hidden else "PyTorch no longer does this")
PYTHON
