"""The score as it is: plain softmax attention (also known as noop)."""


def score_mod(score, b, h, q_idx, kv_idx):
    return score
