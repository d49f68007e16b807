
----
sink_mod = 0.5
def soft(score, b, h, q, kv):
    return score
----
mod.py:1:1: error: the sink mod is a float, not a function
    1 | sink_mod = 0.5
      | ^~~~~~~~~~~~~~
