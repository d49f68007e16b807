"""Doubles every score, as if the scale were twice as large."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score * 2
