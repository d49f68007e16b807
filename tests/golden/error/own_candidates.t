
----
def one(score, b, h, q, kv):
    return score
def two(score, b, h, q, kv):
    return score
def out_mod(out, b, h, q, d):
    return out
----
mod.py:1:5: error: several functions could be the score mod: 'one', 'two'
    1 | def one(score, b, h, q, kv):
      |     ^~~
  note: choose with --score-mod NAME, or call one of them score_mod
