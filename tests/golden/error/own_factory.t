
----
def sink_mod(n):
    def sink(b, h):
        return h * n
    return sink
----
mod.py:1:5: error: a sink mod takes 2 arguments, (b, h), but 'sink_mod' takes 1
    1 | def sink_mod(n):
      |     ^~~~~~~~
  note: it is a factory: call it with its own arguments, as in generate(8)
