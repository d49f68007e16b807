"""Block diffusion training (BD3-LM, arXiv:2503.09573): noised tokens followed by clean ones;
noised blocks see themselves and the clean blocks before them."""

SEQ_LEN = 167
BLOCK_SIZE = 16


def mask_mod(b, h, q_idx, kv_idx):
    q_noised = q_idx < SEQ_LEN
    kv_noised = kv_idx < SEQ_LEN
    q_block = (q_idx % SEQ_LEN) // BLOCK_SIZE
    kv_block = (kv_idx % SEQ_LEN) // BLOCK_SIZE
    block_diagonal = (q_block == kv_block) & (q_noised == kv_noised)
    offset_block_causal = (q_block > kv_block) & q_noised & ~kv_noised
    block_causal = (q_block >= kv_block) & ~q_noised & ~kv_noised
    return block_diagonal | offset_block_causal | block_causal
