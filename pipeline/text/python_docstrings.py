"""What a docstring says and how long that is, in UTF-8 bytes: the literal's escapes read, then as `inspect.cleandoc` leaves it.

In:   a flat array of UTF-8 bytes and the literal's place in it.
Out:  characters, and white space at both ends.
Not:  all escapes and all white space: the caller is told, and asks Python itself.
"""

import numpy as np

from pipeline.text.interning import native
from pipeline.text.utf8 import decode, is_space


@native
def literal_text(data, at, stop, raw, text):  # type: ignore[no-untyped-def]
    """Into `text` what the string literal means; its size, -1 where escapes or white space are out of the ordinary."""
    size = 0
    while at < stop:
        byte = data[at]
        at += 1
        if byte >= 0x80:
            if is_space(decode(data, at - 1)[0]):
                return -1
        elif byte < 32 and byte != 9 and byte != 10 and is_space(byte):
            return -1
        elif byte == 92 and not raw:
            byte = data[at]
            at += 1
            if byte == 10:
                continue
            if byte == 110:
                byte = np.uint8(10)
            elif byte == 116:
                byte = np.uint8(9)
            elif byte in (120, 117, 85):
                code, at = _hexadecimal(data, at, 2 if byte == 120 else 4 if byte == 117 else 8)
                if code < 32 or is_space(code):
                    return -1
                byte = np.uint8(120)  # any character will do
            elif byte in (114, 102, 118, 78) or 48 <= byte <= 55:
                return -1
            elif byte == 97 or byte == 98:
                byte = np.uint8(byte - 90)  # \a is 7, \b is 8
            elif byte != 92 and byte != 34 and byte != 39:
                byte = np.uint8(92)
                at -= 1
        text[size] = byte
        size += 1
    return size


@native
def _hexadecimal(data, at, digits):  # type: ignore[no-untyped-def]
    """The number of so many digits at `at`, -1 if there are none, and where it ends."""
    code = np.int64(0)
    for place in range(at, at + digits):
        byte = data[place]
        if 48 <= byte <= 57:
            code = code << 4 | byte - 48
        elif 97 <= byte | 0x20 <= 102:
            code = code << 4 | (byte | 0x20) - 87
        else:
            return np.int64(-1), at
    return code, at + digits


@native
def clean_size(text, size):  # type: ignore[no-untyped-def]
    """Characters that inspect.cleandoc leaves, and how many of them are white space at the beginning and at the end."""
    margin = 1 << 62
    for line in range(2):  # the first line's margin is its own; the others share one
        at = 0
        first = True
        characters, gap, leading, last = 0, 0, -1, -1
        while at <= size:
            column, inner, final = 0, -1, -1
            while at < size and text[at] != 10:
                byte = text[at]
                column = column // 8 * 8 + 8 if byte == 9 else column + (byte & 0xC0 != 0x80)
                if byte != 9 and byte != 32:
                    final = column - 1
                    if inner < 0:
                        inner = final
                at += 1
            at += 1
            if line == 0:
                if not first and inner >= 0:
                    margin = min(margin, inner)
            else:
                removed = (inner if inner >= 0 else column) if first else margin if margin < 1 << 62 else 0
                if column > removed:
                    if characters > 0:
                        characters += gap
                    if inner >= 0:
                        last = characters + final - removed
                        if leading < 0:
                            leading = characters + inner - removed
                    characters += column - removed
                    gap = 0
                gap += 1
            first = False
    return characters, (leading if leading >= 0 else characters), characters - 1 - last
