"""Causal attention that looks back at most WINDOW tokens."""

from torch.nn.attention.flex_attention import and_masks

WINDOW = 48


def causal_mask(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def generate_sliding_window(window_size: int):
    """Returns the causal mask mod with a look-back of `window_size` tokens."""

    def sliding_window(b, h, q_idx, kv_idx):
        return q_idx - kv_idx <= window_size

    return and_masks(sliding_window, causal_mask)


mask_mod = generate_sliding_window(WINDOW)
