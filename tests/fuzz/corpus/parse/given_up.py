for i in x: = 1
if a = b:
  c
elif d:
  e
def f(a, a):
  return 1 1
