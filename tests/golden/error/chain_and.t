
----
def mask_mod(b, h, q, kv):
    return q >= kv & q - kv < 5
----
mod.py:2:12: error: '&' binds tighter than a comparison, so this chain compares with (kv & q - kv): write (a >= b) & (c < d)
    2 |     return q >= kv & q - kv < 5
      |            ^~~~~~~~~~~~~~~~~~~~
