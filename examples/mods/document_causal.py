"""Packed documents by their ids alone: the same document, and causal."""

import torch

document_id = torch.zeros(333, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    same_document = document_id[q_idx] == document_id[kv_idx]
    return same_document & (q_idx >= kv_idx)
