--out-mod gaet(2)
----
def gate(n):
    return lambda out, b, h, q, d: out * n
def soft(score, b, h, q, kv):
    return score
----
<out-mod>:1:1: error: the module has no function 'gaet': did you mean 'gate'?
    1 | gaet(2)
      | ^~~~
  note: there is 'soft'
