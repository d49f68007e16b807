with a as (b, c), d as e:
 x
match y:
 case [p, Q(r)] if s: t = 1
try: import u.v as w
except E as z: pass
