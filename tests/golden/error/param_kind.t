--param WINDOW=8.5
----
WINDOW = 4


def mask_mod(b, h, q_idx, kv_idx):
    return q_idx - kv_idx <= WINDOW
----
<param WINDOW>:1:1: error: the constant 'WINDOW' is an int, but a float is given for it
    1 | 8.5
      | ^~~
