"""What taggers measure texts with: words, lines, n-grams and patterns over the UTF-8 bytes of many texts at once, compiled by numba.

Importing a module of this folder imports numba, half a second: import it where texts are worked on, not where recipes are read.
"""
