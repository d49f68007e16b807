"""A cross-shaped neighbourhood on an image, with row coordinates that are fractions."""

import torch

WIDTH = 16
RADIUS = 2


def get_x_y(idx):
    return idx / WIDTH, idx % WIDTH


def score_mod(score, b, h, q_idx, kv_idx):
    q_x, q_y = get_x_y(q_idx)
    kv_x, kv_y = get_x_y(kv_idx)
    near = ((q_x - kv_x).abs() <= RADIUS) | ((q_y - kv_y).abs() <= RADIUS)
    return torch.where(near, score, float("-inf"))
