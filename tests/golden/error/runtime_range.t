--runtime-param N
----
N = 4


def score_mod(score, b, h, q_idx, kv_idx):
    for i in range(N):
        score = score * 2
    return score
----
mod.py:5:14: error: the run-time parameter 'N' cannot be used in range: it is not known at compile time
    5 |     for i in range(N):
      |              ^~~~~~~~
