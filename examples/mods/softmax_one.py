"""Softmax with 1 added to the denominator: a query that finds nothing gives nearly nothing."""


def mask_mod(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx % 7 != 3)


def sink_mod(b, h):
    return 0.0
