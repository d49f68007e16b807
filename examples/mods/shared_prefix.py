"""Several answers to one prompt, packed: each document is causal and sees the whole of its
prefix document."""

import torch

offsets = torch.zeros(8, dtype=torch.int32)
document_id = torch.zeros(333, dtype=torch.int32)
prefix_document_id = torch.zeros(7, dtype=torch.int32)


def mask_mod(b, h, q_idx, kv_idx):
    document = document_id[q_idx]
    prefix = prefix_document_id[document]
    own = (kv_idx >= offsets[document]) & (q_idx >= kv_idx)
    shared = (document != prefix) & (kv_idx >= offsets[prefix]) & (kv_idx < offsets[prefix + 1])
    return own | shared
