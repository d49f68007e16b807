"""Soft capping and a window by head, configured by a dataclass."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Config:
    cap: float
    window: int = 64
    local_heads: tuple = (0, 2)

    @property
    def inverse(self):
        return 1.0 / self.cap


config = Config(cap=20.0)


def score_mod(score, b, h, q_idx, kv_idx):
    return config.cap * torch.tanh(score * config.inverse)


def mask_mod(b, h, q_idx, kv_idx):
    near = q_idx - kv_idx < config.window
    for head in config.local_heads:
        near = near | (h != head) & (q_idx >= kv_idx)
    return near & (q_idx >= kv_idx)
