"""Where HTML's tags, references, comments and declarations begin and end, as Python's html.parser sees them (html_text.py).

In:   a flat array of UTF-8 bytes and a place in it. Out: the place behind the mark, and what it is.
Not:  functions for other compiled functions: none is cached by itself. A place of -1 means that the mark does not end.
"""

import numba
import numpy as np

from pipeline.text.utf8 import decode, is_space

SEED, PRIME = 0xCBF29CE484222325, 0x100000001B3  # FNV-1a
ENTITY_SLOTS = 8192
SHOWN = 1  # an entity's flag: it is more than ASCII white space
TEMPORARY, CONDITIONAL = ("temp", "cdata", "ignore", "include", "rcdata"), ("if", "else", "endif")  # kinds of marked sections


def fnv(name: str) -> int:
    """64-bit FNV-1a of a name's UTF-8 bytes."""
    value = SEED
    for byte in name.encode():
        value = (value ^ byte) * PRIME & (1 << 64) - 1
    return value


_DOCTYPE = fnv("doctype")


@numba.njit
def start_tag(data, at, end):  # type: ignore[no-untyped-def]
    """Where a start tag ends (behind its ">", or before what cannot belong to it; -1 if it is unfinished), whether it closes
    itself, and its name's hash."""
    place, tag = _name(data, at + 1, end)
    value_end = place  # a "/" behind it is no part of a value
    while place < end:
        width = 1 if data[place] == 0x2F else _space(data, place, end)
        if width == 0:
            break
        place += width
    while place < end and data[place] != 0x3E and data[place] != 0x2F and _parted(data, place):
        # an attribute's name
        place += 1
        while place < end and data[place] != 0x2F and data[place] != 0x3D and data[place] != 0x3E and _space(data, place, end) == 0:
            place += 1
        value = _value(data, place, end)
        if value >= 0:
            place = value_end = value
            place = _skip_space(data, place, end)
        while place < end:
            width = _space(data, place, end)
            if width == 0 and data[place] == 0x2F and not (place + 1 < end and data[place + 1] == 0x3E):
                width = 1
            if width == 0:
                break
            place += width
    place = _skip_space(data, place, end)
    if place == end:
        return np.int64(-1), False, tag
    if data[place] == 0x3E:
        return place + 1, data[place - 1] == 0x2F and place > value_end, tag
    if data[place] == 0x2F:
        return place + 2, True, tag
    if is_letter(data[place]) or data[place] == 0x3D:
        return np.int64(-1), False, tag
    return place, False, tag


@numba.njit
def _parted(data, at):  # type: ignore[no-untyped-def]
    """Does a quote, a slash or white space stand before `at`?"""
    before = at - 1
    while data[before] & 0xC0 == 0x80:
        before -= 1
    byte = data[before]
    return byte == 0x22 or byte == 0x27 or byte == 0x2F or is_space(decode(data, before)[0])


@numba.njit
def _value(data, at, end):  # type: ignore[no-untyped-def]
    """Where the value of an attribute ends whose name ends at `at`; -1 if it has none."""
    first = _skip_space(data, at, end)
    place = first
    while place < end and data[place] == 0x3D:
        place += 1
    if place == first:
        return np.int64(-1)
    start = _skip_space(data, place, end)
    if start < end and (data[start] == 0x22 or data[start] == 0x27):
        close = find(data, start + 1, end, data[start])
        if close >= 0:
            return close + 1
        # A quote without its other half: the value is empty if white space stands before the quote, or else begins with
        # the last of several "=".
        if start > place:
            while _space(data, place, end) + place < start:
                place += _space(data, place, end)
            return place
        if place - first == 1:
            return np.int64(-1)
        start = place - 1
    while start < end and data[start] != 0x3E and _space(data, start, end) == 0:
        start += 1
    return start


@numba.njit
def end_tag(data, at, end):  # type: ignore[no-untyped-def]
    """Where an end tag ends (-1: nowhere); 1 if it has a name, 2 if it is a comment in truth, 0 if it is "</>"; the name's hash."""
    close = find(data, at + 1, end, 0x3E)
    if close < 0:
        return close, 0, np.uint64(0)
    start = _skip_space(data, at + 2, end)
    if start < end and is_letter(data[start]):
        stop, hashed = start, np.uint64(SEED)
        while stop < end:
            byte = data[stop]
            if not (is_letter(byte) or _is_digit(byte) or byte == 0x2D or byte == 0x2E or byte == 0x3A or byte == 0x5F):
                break
            hashed = (hashed ^ np.uint64(byte | 0x20 if 0x41 <= byte <= 0x5A else byte)) * np.uint64(PRIME)
            stop += 1
        stop = _skip_space(data, stop, end)
        if stop < end and data[stop] == 0x3E:
            return stop + 1, 1, hashed
    if not is_letter(data[at + 2]):
        return close + 1, 0 if close == at + 2 else 2, np.uint64(0)
    stop, hashed = _name(data, at + 2, end)
    return find(data, stop, end, 0x3E) + 1, 1, hashed


@numba.njit
def raw_end(data, at, end, raw):  # type: ignore[no-untyped-def]
    """Where the end tag of an open script or style begins and ends, with white space around its name; -1, -1 if nowhere."""
    while at + 1 < end:
        if data[at] == 0x3C and data[at + 1] == 0x2F:
            start = _skip_space(data, at + 2, end)
            stop = start
            hashed = np.uint64(SEED)
            while stop < end and is_letter(data[stop]):
                hashed = (hashed ^ np.uint64(data[stop] | 0x20)) * np.uint64(PRIME)
                stop += 1
            if hashed == raw:
                stop = _skip_space(data, stop, end)
                if stop < end and data[stop] == 0x3E:
                    return at, stop + 1
        at += 1
    return np.int64(-1), np.int64(-1)


@numba.njit
def reference(data, at, end, entities, values):  # type: ignore[no-untyped-def]
    """Characters that "&…" stands for, what they are, and where it ends; the end is -1 if it is none."""
    stop = at + 1
    if stop < end and data[stop] == 0x23:
        stop += 1
        number, base = np.int64(0), 10
        if stop < end and data[stop] | 0x20 == 0x78:
            stop, base = stop + 1, 16
        start = stop
        while stop < end and (_is_digit(data[stop]) if base == 10 else _is_hex(data[stop])):
            byte = data[stop]
            number = min(number * base + (byte - 0x30 if byte <= 0x39 else (byte | 0x20) - 0x57), np.int64(1 << 40))
            stop += 1
        if stop in (start, end) or _is_hex(data[stop]):
            return 0, 0, np.int64(-1)
        blank = number == 9 or number == 10 or number == 12 or number == 13 or number == 32
        return 1, 0 if blank else SHOWN, stop + (data[stop] == 0x3B)
    if stop == end or not is_letter(data[stop]):
        return 0, 0, np.int64(-1)
    while stop < end and (is_letter(data[stop]) or _is_digit(data[stop]) or data[stop] == 0x2D or data[stop] == 0x2E):
        stop += 1
    if stop == end:  # a "-" or "." ends a name that the text ends in
        stop -= 1
        while is_letter(data[stop]) or _is_digit(data[stop]):
            stop -= 1
            if stop == at:
                return 0, 0, np.int64(-1)
    hashed = np.uint64(SEED)
    for place in range(at + 1, stop):
        hashed = (hashed ^ np.uint64(data[place])) * np.uint64(PRIME)
    after = stop + (data[stop] == 0x3B)
    slot = np.int64(hashed & np.uint64(ENTITY_SLOTS - 1))
    while entities[slot]:
        if entities[slot] == hashed:
            return values[slot] >> 1, values[slot] & 1, after
        slot = (slot + 1) % ENTITY_SLOTS
    return stop - at, SHOWN, after  # itself, without its semicolon


@numba.njit
def declaration(data, at, end, sections):  # type: ignore[no-untyped-def]
    """Where "<!…" or "<?…" ends (-1: nowhere; -2: the parser rejects it), and where its text begins if it is CDATA, or -1."""
    if data[at + 1] == 0x21 and at + 3 < end and data[at + 2] == 0x2D and data[at + 3] == 0x2D:
        return _comment_end(data, at + 4, end), np.int64(-1)
    if data[at + 1] == 0x21 and at + 2 < end and data[at + 2] == 0x5B:
        stop, hashed = at + 3, np.uint64(SEED)
        if stop == end:
            return np.int64(-1), np.int64(-1)
        if not is_letter(data[stop]):
            return np.int64(-2), np.int64(-1)
        while stop < end:
            byte = data[stop]
            if not (is_letter(byte) or _is_digit(byte) or byte == 0x2D or byte == 0x2E or byte == 0x5F):
                break
            hashed = (hashed ^ np.uint64(byte | 0x20 if 0x41 <= byte <= 0x5A else byte)) * np.uint64(PRIME)
            stop += 1
        named = stop
        if _skip_space(data, stop, end) == end:
            return np.int64(-1), np.int64(-1)
        which = index_of(hashed, sections)
        if which < 0:
            return np.int64(-2), np.int64(-1)
        _, after = bracket(data, at + 3, end, which < len(TEMPORARY))
        cdata = which == 1 and data[named] == 0x5B
        return after, named + 1 if cdata else np.int64(-1)
    close = find(data, at + (9 if data[at + 1] == 0x21 and _is_doctype(data, at, end) else 2), end, 0x3E)
    return close + 1 if close >= 0 else close, np.int64(-1)


@numba.njit
def _is_doctype(data, at, end):  # type: ignore[no-untyped-def]
    if at + 9 > end:
        return False
    hashed = np.uint64(SEED)
    for place in range(at + 2, at + 9):
        hashed = (hashed ^ np.uint64(data[place] | 0x20)) * np.uint64(PRIME)
    return hashed == np.uint64(_DOCTYPE)


@numba.njit
def _comment_end(data, at, end):  # type: ignore[no-untyped-def]
    """Behind the first "--" that a ">" follows, white space between them or not; -1 if there is none."""
    while at + 2 < end:
        if data[at] == 0x2D and data[at + 1] == 0x2D:
            close = _skip_space(data, at + 2, end)
            if close < end and data[close] == 0x3E:
                return close + 1
        at += 1
    return np.int64(-1)


@numba.njit
def bracket(data, at, end, double):  # type: ignore[no-untyped-def]
    """Where the end of a marked section begins and ends: "]>", or "]]>" if double; -1, -1 if it has none."""
    while at < end:
        if data[at] == 0x5D:
            close = _skip_space(data, at + 1, end)
            if double and close < end and data[close] == 0x5D:
                close = _skip_space(data, close + 1, end)
            elif double:
                close = end
            if close < end and data[close] == 0x3E:
                return at, close + 1
        at += 1
    return np.int64(-1), np.int64(-1)


@numba.njit
def _name(data, at, end):  # type: ignore[no-untyped-def]
    """Where a tag's name that begins at `at` ends, and its hash in lower case."""
    hashed = np.uint64(SEED)
    while at < end:
        byte = data[at]
        if byte == 0x20 or 0x09 <= byte <= 0x0A or 0x0C <= byte <= 0x0D or byte == 0x2F or byte == 0x3E or byte == 0:
            break
        hashed = (hashed ^ np.uint64(byte | 0x20 if 0x41 <= byte <= 0x5A else byte)) * np.uint64(PRIME)
        at += 1
    return at, hashed


@numba.njit
def index_of(tag, tags):  # type: ignore[no-untyped-def]
    for index in range(len(tags)):
        if tags[index] == tag:
            return index
    return -1


@numba.njit
def find(data, at, end, byte):  # type: ignore[no-untyped-def]
    while at < end:
        if data[at] == byte:
            return at
        at += 1
    return np.int64(-1)


@numba.njit
def _space(data, at, end):  # type: ignore[no-untyped-def]
    """The width of the white space at `at`, 0 if there is none; Unicode's, as Python's `\\s`."""
    if at >= end:
        return 0
    code, width = decode(data, at)
    return width if is_space(code) else 0


@numba.njit
def _skip_space(data, at, end):  # type: ignore[no-untyped-def]
    width = _space(data, at, end)
    while width:
        at += width
        width = _space(data, at, end)
    return at


@numba.njit
def is_letter(byte):  # type: ignore[no-untyped-def]
    return 0x61 <= byte | 0x20 <= 0x7A


@numba.njit
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return 0x30 <= byte <= 0x39


@numba.njit
def _is_hex(byte):  # type: ignore[no-untyped-def]
    return _is_digit(byte) or 0x61 <= byte | 0x20 <= 0x66
