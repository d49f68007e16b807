
----
from project.settings import settings


def mask_mod(b, h, q, kv):
    return q - kv < settings.window
----
mod.py:5:12: error: 'settings' is imported from 'project.settings': paste its definition into this file
    5 |     return q - kv < settings.window
      |            ^~~~~~~~~~~~~~~~~~~~~~~~
