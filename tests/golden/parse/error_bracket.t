x = (1,
  2
y = 3

----
-:1:5: error: the '(' of line 1 is never closed
    1 | x = (1,
      |     ^
