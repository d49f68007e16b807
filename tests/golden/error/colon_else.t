
----
def mask_mod(b, h, q, kv):
    if True:
        return q >= kv
    else  # comment
        return q < kv
----
mod.py:4:9: error: expected ':' at the end of this line
    4 |     else  # comment
      |         ^
