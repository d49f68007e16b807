"""A bias by distance as a module: its slopes are a buffer, which the caller binds."""

import torch
import torch.nn as nn


class DistanceBias(nn.Module):
    def __init__(self, slopes, limit=32):
        super().__init__()
        self.register_buffer("slopes", slopes)
        self.limit = limit

    def distance(self, q_idx, kv_idx):
        return (q_idx - kv_idx).abs().clamp(max=self.limit)

    def forward(self, score, b, h, q_idx, kv_idx):
        return score - self.slopes[h] * self.distance(q_idx, kv_idx)


score_mod = DistanceBias(torch.zeros(8))
