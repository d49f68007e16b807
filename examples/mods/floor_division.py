"""Subtracts a floor division of the two indices."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score - q_idx // (1 + kv_idx)
