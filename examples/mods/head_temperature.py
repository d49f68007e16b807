"""A temperature of each head for scores, sink and output alike: all three mods read one tensor."""

import torch

temperature = torch.ones(8)


def score_mod(score, b, h, q_idx, kv_idx):
    return score * temperature[h]


def sink_mod(b, h):
    return 0.5 * temperature[h]


def out_mod(out, b, h, q_idx, d_idx):
    return torch.where(q_idx % 2 == 0, out * temperature[h], out * out - d_idx / 64)
