--mask-mod generate
----
def generate(window):
    def mask(b, h, q_idx, kv_idx):
        return q_idx - kv_idx <= window

    return mask
----
mod.py:1:5: error: a mask mod takes 4 arguments, (b, h, q_idx, kv_idx), but 'generate' takes 1
    1 | def generate(window):
      |     ^~~~~~~~
  note: it is a factory: call it with its own arguments, as in generate(8)
