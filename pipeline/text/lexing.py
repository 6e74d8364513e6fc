"""Small steps that the lexers of Java and JavaScript share (slash_comments.py).

In:   a flat array of UTF-8 bytes that ends with a line's end, and a place in it. Out: the place behind what stands there.
Not:  functions for Python: other compiled functions call them.
"""

import numpy as np

from pipeline.text.code_text import ALPHANUMERIC, DECIMAL, SPACE
from pipeline.text.interning import native
from pipeline.text.utf8 import decode


@native
def kind_at(data, at, kinds):  # type: ignore[no-untyped-def]
    """Flags of the character at `at`, and its width."""
    byte = data[at]
    if byte < 0x80:
        return np.int64(kinds[byte]), 1
    code, width = decode(data, at)
    return np.int64(kinds[code]), width


@native
def skip_spaces(data, at, end, kinds):  # type: ignore[no-untyped-def]
    """Behind the white space at `at`: \\s*"""
    while at < end:
        kind, width = kind_at(data, at, kinds)
        if not kind & SPACE:
            break
        at += width
    return at


@native
def skip_word(data, at, end, kinds):  # type: ignore[no-untyped-def]
    """Behind the word at `at`: \\w*"""
    while at < end:
        kind, width = kind_at(data, at, kinds)
        if not kind & ALPHANUMERIC and data[at] != 95:
            break
        at += width
    return at


@native
def skip_name(data, at, end, kinds):  # type: ignore[no-untyped-def]
    """Behind the name at `at`, or `at`: ([^\\W\\d]|\\$)[\\w$]*"""
    if at == end or kind_at(data, at, kinds)[0] & DECIMAL:
        return at
    while True:
        place = skip_word(data, at, end, kinds)
        if place == end or data[place] != 36:
            return place
        at = place + 1


@native
def count_characters(data, at, end):  # type: ignore[no-untyped-def]
    count = 0
    for place in range(at, end):
        count += data[place] & 0xC0 != 0x80
    return count


@native
def line_end(data, at):  # type: ignore[no-untyped-def]
    while data[at] != 10:
        at += 1
    return at


@native
def block_end(data, at, end):  # type: ignore[no-untyped-def]
    """Behind the "*/" of the comment that begins at `at`; -1 if there is none."""
    at += 2
    while at + 1 < end:
        if data[at] == 42 and data[at + 1] == 47:
            return at + 2
        at += 1
    return -1
