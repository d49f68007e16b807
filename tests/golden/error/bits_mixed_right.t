
----
def mask_mod(b, h, q, kv):
    return 2 < kv | (q >= kv)
----
mod.py:2:16: error: '|' binds tighter than a comparison, so this compares the '|' of a bool and an int: write (a >= b) | (c < d), or put parentheses around what is compared
    2 |     return 2 < kv | (q >= kv)
      |                ^~~~~~~~~~~~~~
