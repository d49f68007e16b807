"""Adds the signed distance from key to query."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score + (q_idx - kv_idx)
