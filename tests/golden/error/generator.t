
----
def score_mod(score, b, h, q_idx, kv_idx):
    yield score
----
mod.py:1:5: error: 'score_mod' is a generator or a coroutine, which the mod language does not have
    1 | def score_mod(score, b, h, q_idx, kv_idx):
      |     ^~~~~~~~~
