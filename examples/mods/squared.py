"""Squares every score: the derivative with respect to the score is not constant."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score * score
