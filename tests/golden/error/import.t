
----
from attn_gym.masks import helper


def mask_mod(b, h, q_idx, kv_idx):
    return helper(q_idx, kv_idx)
----
mod.py:5:12: error: 'helper' is imported from 'attn_gym.masks': paste its definition into this file
    5 |     return helper(q_idx, kv_idx)
      |            ^~~~~~~~~~~~~~~~~~~~~
