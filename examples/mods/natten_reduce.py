"""Neighbourhoods in three dimensions: one comparison per axis, joined by a reduction."""

import operator
from functools import reduce
from itertools import accumulate

SHAPE, WINDOW = (9, 6, 7), (2, 2, 3)
STRIDES = list(accumulate(reversed(SHAPE), operator.mul, initial=1))[-2::-1]


def mask_mod(b, h, q_idx, kv_idx):
    near = []
    for size, stride, window in zip(SHAPE, STRIDES, WINDOW):
        distance = q_idx // stride % size - kv_idx // stride % size
        near.append(abs(distance) < window)
    return reduce(operator.and_, near)
