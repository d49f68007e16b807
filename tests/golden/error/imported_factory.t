
----
from attn_gym.masks import generate_sliding_window

mask_mod = generate_sliding_window(8)
----
mod.py:3:1: error: 'generate_sliding_window' is imported from 'attn_gym.masks': paste its definition into this file
    3 | mask_mod = generate_sliding_window(8)
      | ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
