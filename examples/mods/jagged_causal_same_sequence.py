"""Causal by the position within a sequence of a packed batch, within the same sequence only."""

import torch

offsets = torch.zeros(8, dtype=torch.int32)
seq_idx = torch.zeros(333, dtype=torch.int32)


def causal(score, b, h, q_idx, kv_idx):
    return torch.where(q_idx >= kv_idx, score, float("-inf"))


def create_jagged_wrapper(orig_score_mod, offsets, seq_idx):
    """Wraps a score mod so that it sees positions within each sequence, and one sequence."""

    def jagged_score_mod(score, b, h, q_idx, kv_idx):
        q_nested = q_idx - offsets[seq_idx[q_idx]]
        kv_nested = kv_idx - offsets[seq_idx[kv_idx]]
        is_same_sequence = seq_idx[q_idx] == seq_idx[kv_idx]
        inner = orig_score_mod(score, b, h, q_nested, kv_nested)
        return torch.where(is_same_sequence, inner, float("-inf"))

    return jagged_score_mod


score_mod = create_jagged_wrapper(causal, offsets, seq_idx)
