
----
import torch
def out_mod(out, b, h, q, d):
    total = out
    for i in range(4000):
        total = total + torch.tan(out * i) * torch.atan(out + i)
    return total
----
mod.py:6:12: error: in the gradient: the mod needs more than 65536 values
    6 |     return total
      |            ^~~~~
  note: unroll less, or split what is computed
