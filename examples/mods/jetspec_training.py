"""Training of a draft head on several sampled blocks (JetSpec, arXiv:2606.18394): each is
causal in itself and sees the prefix. Floor division meets negative numbers within the prefix."""

PREFIX_LENGTH = 24
BLOCK_SIZE = 20


def mask_mod(b, h, q_idx, kv_idx):
    block_idx = kv_idx - PREFIX_LENGTH
    same_block = q_idx // BLOCK_SIZE == block_idx // BLOCK_SIZE
    causal = block_idx % BLOCK_SIZE <= q_idx % BLOCK_SIZE
    return (kv_idx < PREFIX_LENGTH) | ((kv_idx >= PREFIX_LENGTH) & same_block & causal)
