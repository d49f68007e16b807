--mask-mod "generate(-1)"
----
def generate(window):
    assert window >= 0, "window must be non-negative"

    def mask(b, h, q_idx, kv_idx):
        return q_idx - kv_idx <= window

    return mask
----
mod.py:2:12: error: this assertion does not hold
    2 |     assert window >= 0, "window must be non-negative"
      |            ^~~~~~~~~~~
  note: window must be non-negative
