f"{a["}"]!r:>{w}} {{" rb"\x00" u"\u00e9\N{BULLET}" '''a\
'''