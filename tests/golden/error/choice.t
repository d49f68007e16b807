--mask-mod "genrate(8)"
----
def generate(window):
    def mask(b, h, q_idx, kv_idx):
        return q_idx - kv_idx <= window

    return mask
----
<mask-mod>:1:1: error: the module has no function 'genrate': did you mean 'generate'?
    1 | genrate(8)
      | ^~~~~~~
