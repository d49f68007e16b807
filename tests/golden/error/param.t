--param WINDOWS=8
----
WINDOW = 4


def mask_mod(b, h, q_idx, kv_idx):
    return q_idx - kv_idx <= WINDOW
----
<param WINDOWS>:1:1: error: the module has no constant 'WINDOWS': did you mean 'WINDOW'?
    1 | WINDOWS
      | ^~~~~~~
