
----
def score_mod(score, b, h, q, kv):
    return score


def distance(b, h, q, kv):
    return q - kv
----
mod.py:6:12: error: the mask mod returns a run-time int, not a bool: compare it with something
    6 |     return q - kv
      |            ^~~~~~
  note: 'distance' is taken for the mask mod because it takes 4 arguments; choose another with --mask-mod NAME
