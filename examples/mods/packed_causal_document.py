"""Packed causal documents as one interval of keys per query: from the document's start on."""

import torch

offsets = torch.zeros(8, dtype=torch.int32)
document_id = torch.zeros(333, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    return (kv_idx >= offsets[document_id[q_idx]]) & (q_idx >= kv_idx)
