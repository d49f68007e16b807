
----
def sink_mod(b, h):
    return score * kv_idx
----
mod.py:2:12: error: unknown name 'score'
    2 |     return score * kv_idx
      |            ^~~~~
