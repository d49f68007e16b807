"""Packed documents: a mask mod applied within each document, in positions of the document."""

import torch

offsets = torch.zeros(8, dtype=torch.int64)
document_id = torch.zeros(333, dtype=torch.int32)


def causal_mask(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def generate_doc_mask_mod(mask_mod, offsets, document_id):
    """Returns `mask_mod` within documents; `offsets` are cumulative lengths."""

    def doc_mask_mod(b, h, q_idx, kv_idx):
        same_doc = document_id[q_idx] == document_id[kv_idx]
        q_logical = q_idx - offsets[document_id[q_idx]]
        kv_logical = kv_idx - offsets[document_id[kv_idx]]
        return same_doc & mask_mod(b, h, q_logical, kv_logical)

    return doc_mask_mod


mask_mod = generate_doc_mask_mod(causal_mask, offsets, document_id)
