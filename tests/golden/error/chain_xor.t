--mask "q == 1 ^ kv == 2"
----
N = 1
----
<mask>:1:1: error: '^' binds tighter than a comparison, so this chain compares with (1 ^ kv): write (a >= b) ^ (c < d)
    1 | q == 1 ^ kv == 2
      | ^~~~~~~~~~~~~~~~
