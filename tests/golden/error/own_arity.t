
----
def out_mod(out, b, h, q_idx):
    return out
----
mod.py:1:5: error: an out mod takes 5 arguments, (out, b, h, q_idx, d_idx), but 'out_mod' takes 4
    1 | def out_mod(out, b, h, q_idx):
      |     ^~~~~~~
