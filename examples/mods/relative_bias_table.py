"""A learned bias per signed distance (as in T5), shifted so that indices are not negative."""

import torch

SEQ_LEN = 333
rel_bias = torch.zeros(2 * 333)


def score_mod(score, b, h, q_idx, kv_idx):
    return score + rel_bias[(q_idx - kv_idx) + SEQ_LEN]
