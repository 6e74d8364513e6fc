"""Where tokens of Python end, read as all its versions' tokenizers read them (python_source.py).

In:   a flat array of UTF-8 bytes, with zeros behind it, and a place in it.
Out:  the place behind the token; -1 for what is none, or what versions read in several ways.
Not:  functions for Python: other compiled functions call them.
"""

import numpy as np

from pipeline.text.interning import native
from pipeline.text.python_shapes import atom, copy, quotes

LONGEST_NUMBER = 4000  # digits; Python's limit is 4300


@native
def number_end(data, at):  # type: ignore[no-untyped-def]
    """Behind the number at `at`; -1 if it is none, or a word follows at once."""
    start, letter = at, data[at + 1] | 0x20
    if data[at] == 48 and (letter == 120 or letter == 111 or letter == 98):
        at += 2
        while True:
            at += data[at] == 95
            place = at
            while (
                48 <= data[at] <= 49
                or (letter != 98 and 50 <= data[at] <= 55)
                or (letter == 120 and (data[at] == 56 or data[at] == 57 or 97 <= data[at] | 0x20 <= 102))
            ):
                at += 1
            if at == place:
                return -1
            if data[at] != 95:
                break
    else:
        whole = data[at] != 46
        if whole:
            at = _digits(data, at)
        leading = whole and data[start] == 48
        if data[at] == 46:
            leading = False
            at += 1
            if 48 <= data[at] <= 57:
                at = _digits(data, at)
        if at >= 0 and data[at] | 0x20 == 101:
            leading = False
            at += 1 + (data[at + 1] == 43 or data[at + 1] == 45)
            if not 48 <= data[at] <= 57:
                return -1
            at = _digits(data, at)
        if at < 0:
            return -1
        if data[at] | 0x20 == 106:
            leading = False
            at += 1
        if leading:
            for place in range(start, at):
                if data[place] != 48 and data[place] != 95:
                    return -1
    follows = data[at]
    return -1 if follows == 95 or follows >= 0x80 or 97 <= follows | 0x20 <= 122 or 48 <= follows <= 57 else at


@native
def _digits(data, at):  # type: ignore[no-untyped-def]
    """Behind digits with single underscores between them; -1 if an underscore ends them."""
    while True:
        while 48 <= data[at] <= 57:
            at += 1
        if data[at] != 95:
            return at
        at += 1
        if not 48 <= data[at] <= 57:
            return -1


@native
def bracket_depth(byte, stack, depth):  # type: ignore[no-untyped-def]
    """How many brackets are open behind this byte; -1 if it closes another than the last."""
    if byte == 40 or byte == 91 or byte == 123:
        stack[depth, 3] = byte
        return depth + 1
    if byte == 41 or byte == 93 or byte == 125:
        if depth == 0 or stack[depth - 1, 3] != byte - (1 if byte == 41 else 2):
            return -1
        return depth - 1
    return depth


@native
def is_operator(byte, following):  # type: ignore[no-untyped-def]
    if byte == 33:
        return following == 61  # !=
    # % & ( ) * + , - . / : ; < = > @ [ ] ^ { | } ~
    return 37 <= byte <= 38 or 40 <= byte <= 47 or 58 <= byte <= 62 or byte in (64, 91, 93, 94, 123, 124, 125, 126)


@native
def read_string(data, start, at, end, shape, size):  # type: ignore[no-untyped-def]
    """Read the string whose prefix begins at `start` and whose quotes at `at`: its end (-1: ODD), the shape's size, and whether it
    is text and nothing to be filled in."""
    raw = octets = fields = False
    for place in range(start, at):
        letter = data[place] | 0x20
        raw, octets, fields = raw or letter == 114, octets or letter == 98, fields or letter == 102
    quote = data[at]
    width = 3 if data[at + 1] == quote and data[at + 2] == quote else 1
    begin = at = at + width
    verbatim = fields
    while True:
        if at >= end:
            return np.int64(-1), size, False
        byte = data[at]
        if byte == 92:
            byte = data[at + 1]
            if not raw and (byte == 120 or byte == 117 or byte == 85 or byte == 78):
                verbatim = True  # \x \u \U \N can be wrong
            at += 2
        elif byte == quote and (width == 1 or (data[at + 1] == quote and data[at + 2] == quote)):
            break
        elif byte == 10 and width == 1:
            return np.int64(-1), size, False
        else:
            verbatim = verbatim or (octets and byte >= 0x80)
            at += 1
    if fields and not _fields(data, begin, at, quote, width):
        return np.int64(-1), size, False
    at += width
    if verbatim:
        size = copy(data, start, at, shape, size)
        shape[size] = 32
        return at, size + 1, not octets and not fields
    if octets:
        shape[size] = 98
        size += 1
        return at, quotes(shape, size), False
    return at, atom(shape, size, 39, 2), True


@native
def _fields(data, at, stop, quote, width):  # type: ignore[no-untyped-def]
    """Do Python's tokenizers before 3.12, to which an f-string is one token, and since, to which what it has in braces is code,
    agree on this one? They do if the code is plain: names, numbers, operators, brackets in pairs and strings without ado."""
    opened = np.int64(0)  # brackets, two bits each: 1 (, 2 [, 3 {
    layout = False  # behind the colon of a field, which is text
    while at < stop:
        byte = data[at]
        if opened == 0:
            layout = False
            if byte == 92:
                at += 1
                if data[at] in (78, 123, 125):
                    return False
            elif byte == 123 and data[at + 1] != 123:
                opened = np.int64(3)
            elif byte in (123, 125):
                at += 1
                if data[at] != byte:
                    return False
        elif byte == 92:
            return False
        elif byte in (34, 39):
            if layout or (byte == quote and (width == 1 or data[at + 1] == quote)):
                return False
            at += 1
            while at < stop and data[at] != byte:
                if data[at] in (10, 92, 123, 125) or data[at] == quote:
                    return False
                at += 1
        elif byte in (123, 125) or (byte in (40, 41, 91, 93) and not (layout and opened == 3)):
            kind = 1 if byte <= 41 else 2 if byte <= 93 else 3
            if byte in (40, 91, 123):
                if opened >> 58:
                    return False
                opened = opened << 2 | kind
            else:
                if opened & 3 != kind:
                    return False
                opened >>= 2
        elif layout and opened == 3:
            pass
        elif byte == 95 or 97 <= byte | 0x20 <= 122:
            while data[at] == 95 or 97 <= data[at] | 0x20 <= 122 or 48 <= data[at] <= 57:
                at += 1
            if data[at] in (34, 39) and at < stop:
                return False
            continue
        elif 48 <= byte <= 57 or (byte == 46 and 48 <= data[at + 1] <= 57):
            at = number_end(data, at)
            if at < 0:
                return False
            continue
        elif byte == 58 and opened == 3:
            layout = True
        elif not (byte in (9, 10, 32, 33) or is_operator(byte, data[at + 1])):
            return False
        at += 1
    return opened == 0 and at == stop
