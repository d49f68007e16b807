
----
MODE = "window"
N = 4
KIND = f"{MODE}_{N}"
def score_mod(score, b, h, q_idx, kv_idx):
    if KIND == "window_4":
        return score * 2
    return score
----
mod.py:5:8: error: this needs the value of a string, which the mod language does not compute
    5 |     if KIND == "window_4":
      |        ^~~~~~~~~~~~~~~~~~
  note: strings are known that are written as they are, joined with '+', or made by str() of a string, an int, a bool or None
