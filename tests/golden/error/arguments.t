
----
def helper(x, y):
    return x + y


def score_mod(score, b, h, q_idx, kv_idx):
    return helper(score)
----
mod.py:6:12: error: helper() needs an argument for its parameter 'y'
    6 |     return helper(score)
      |            ^~~~~~~~~~~~~
