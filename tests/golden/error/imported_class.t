
----
from project.masks import Window

window = Window(8)


def mask_mod(b, h, q, kv):
    return window.near(q, kv)
----
mod.py:7:12: error: 'Window' is imported from 'project.masks': paste its definition into this file
    7 |     return window.near(q, kv)
      |            ^~~~~~~~~~~
