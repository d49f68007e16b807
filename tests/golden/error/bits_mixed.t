
----
def mask_mod(b, h, q, kv):
    return (q >= kv) & kv > 2
----
mod.py:2:12: error: '&' binds tighter than a comparison, so this compares the '&' of a bool and an int: write (a >= b) & (c < d), or put parentheses around what is compared
    2 |     return (q >= kv) & kv > 2
      |            ^~~~~~~~~~~~~~
