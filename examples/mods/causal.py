"""A query sees itself and what comes before it."""


def mask_mod(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx
