def f(q):
	if q:
		return "é α",  q

