def f(q):
	if q:
		return "é α",  q

----
-:3:17: error: character U+00A0 looks like another: type the plain ASCII one
    3 | 		return "é α",  q
      | 		              ^
