"""A sliding window with sinks whose settings are a namespace."""

from types import SimpleNamespace

config = SimpleNamespace(window=48, sinks=4)


def mask_mod(b, h, q_idx, kv_idx):
    causal = q_idx >= kv_idx
    return causal & ((q_idx - kv_idx < config.window) | (kv_idx < config.sinks))
