"""Prefix LM: the first PREFIX_LENGTH keys are seen by all, the others causally."""

from torch.nn.attention.flex_attention import or_masks

PREFIX_LENGTH = 40


def causal_mask(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def generate_prefix_lm_mask(prefix_length: int):
    """Returns the mask mod for a prefix of `prefix_length` tokens."""

    def prefix_mask(b, h, q_idx, kv_idx):
        return kv_idx < prefix_length

    return or_masks(prefix_mask, causal_mask)


mask_mod = generate_prefix_lm_mask(PREFIX_LENGTH)
