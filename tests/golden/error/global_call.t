
----
x = 1
y = 1
def g():
    global y, x
    x = 5
def main():
    g()
main()
def mask_mod(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx + x
----
mod.py:8:1: error: what runs here may assign 'x' by 'global'
    8 | main()
      | ^~~~~~
  note: 'global' is not in the mod language: assign the name at module level instead
