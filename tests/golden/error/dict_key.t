
----
CONFIG = {"window": 8}


def mask_mod(b, h, q, kv):
    return q - kv < CONFIG["size"]
----
mod.py:5:21: error: this dict has no key 'size'
    5 |     return q - kv < CONFIG["size"]
      |                     ^~~~~~~~~~~~~~
