
----
def mask_mod(b, h, q, kv):
    match q:
        case 0:
            return kv == 0
    return q >= kv
----
mod.py:3:9: error: the condition of 'if' is a run-time value: use torch.where
    3 |         case 0:
      |         ^~~~~~
  note: torch.where(condition, a, b) chooses at run time
