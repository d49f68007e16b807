"""A sliding window with a learned sink: a logit of each head, in the denominator alone, that a query may attend to in place of tokens."""

import torch

WINDOW = 48
sinks = torch.zeros(8)


def mask_mod(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx <= WINDOW)


def sink_mod(b, h):
    return sinks[h]
