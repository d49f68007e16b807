"""Adds a constant per head, which changes lse and leaves the output as it is."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score + 2 * h
