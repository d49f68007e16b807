
----
def window(b, h, q, kv, w):
    return q - kv < w
----
mod.py:1:1: error: neither a score mod nor a mask mod is found in this file
    1 | def window(b, h, q, kv, w):
      | ^
  note: functions of four or five parameters: 'window' (line 1, 5 parameters); a mod is defined at module level or returned by a factory, and chosen with --score-mod X or --mask-mod X
