
----
def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def window(b, h, q_idx, kv_idx):
    return q_idx - kv_idx <= 8
----
mod.py:1:5: error: several functions could be the mask mod: 'causal', 'window'
    1 | def causal(b, h, q_idx, kv_idx):
      |     ^~~~~~
  note: choose with --mask-mod NAME, or call one of them mask_mod
