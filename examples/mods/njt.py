"""A mask mod wrapped for a nested (jagged) tensor: positions count within each sequence, and
sequences do not see each other."""

import torch

offsets = torch.zeros(8, dtype=torch.int64)
seq_idx = torch.zeros(333, dtype=torch.int64)


def causal_mask(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def create_njt_wrapper(orig_mask_mod, offsets, seq_idx):
    """Returns `orig_mask_mod` within the sequences of a jagged batch."""

    def njt_mask_mod(b, h, q_idx, kv_idx):
        q_nested = q_idx - offsets[seq_idx[q_idx]]
        kv_nested = kv_idx - offsets[seq_idx[kv_idx]]
        is_same_sequence = seq_idx[q_idx] == seq_idx[kv_idx]
        return orig_mask_mod(b, h, q_nested, kv_nested) & is_same_sequence

    return njt_mask_mod


mask_mod = create_njt_wrapper(causal_mask, offsets, seq_idx)
