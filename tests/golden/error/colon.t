
----
def mask_mod(b, h, q, kv)
    return q >= kv
----
mod.py:1:26: error: expected ':' at the end of this line
    1 | def mask_mod(b, h, q, kv)
      |                          ^
