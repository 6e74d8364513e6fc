"""Where texts seem to name an e-mail address, a telephone number or an IP address: Dolma's three patterns, in linear time.

In:   the UTF-8 bytes of many texts in one flat array with their offsets.
Out:  a table of matches: text, kind, the bytes matched, and the bytes of the address or number itself.
Cost: one pass over the bytes and a few looks around each `@`, each number after a space, and each dot between digits.
Not:  validation. A pattern takes ten digits for a telephone number and four small numbers for an IP address.

The patterns are those of Dolma's taggers/pii.py (`pii_regex_with_counts_fast_v2`), each sought in one line at a time, its "\\n"
included, so an address that ends a text is not found:

    EMAIL  [.\\s@,?!;:)(]*  ([^\\s@]+ @ [^\\s@,?!;:)(]+?)  [.\\s@,?!;:)(]?  \\s      kept if a dot is in what follows the @
    PHONE  \\s+ \\(? \\d{3} \\)? [-. ]* \\d{3} [-. ]? \\d{4}
    IP     four numbers of one to three digits below 256 (or as 007), dots between
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.utf8 import Bytes, Offsets, decode, is_space

EMAIL, PHONE, IP = 0, 1, 2
# What a byte may be.
_DIGIT, _DOT, _AT, _WIDE, _SPACE, _MARK = 1, 2, 4, 8, 16, 32
_WORTH_A_LOOK = _DIGIT | _DOT | _AT | _WIDE


@functools.cache
def _classes() -> npt.NDArray[np.uint8]:
    """[256] uint8: the classes of each byte; _MARK for those of . @ , ? ! ; : ) ( that may stand around an address."""
    table = np.zeros(256, dtype=np.uint8)
    table[[9, 10, 11, 12, 13, 28, 29, 30, 31, 32]] = _SPACE
    table[list(b"0123456789")] = _DIGIT
    table[list(b".@,?!;:)(")] = _MARK
    table[ord("@")] |= _AT
    table[ord(".")] |= _DOT
    table[0x80:] = _WIDE
    return table


@functools.cache
def _zeros() -> npt.NDArray[np.int64]:
    """Code points of the digits zero of all scripts but ASCII's; nine more digits follow each (Unicode, section 4.6)."""
    return np.array([code for code in range(0x80, 0x110000) if chr(code).isdecimal() and int(chr(code)) == 0], dtype=np.int64)


def find(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """[matches, 6] int64: text, kind (EMAIL, PHONE, IP), start and end of the match, start and end of the thing itself.

    Bytes of the text, in the order of texts and, within one, of starts; matches of different kinds may overlap. The match
    has the spaces and punctuation around that Dolma's spans have. An empty text has none.
    """
    found = _find(data, offsets, _classes(), _zeros())
    return found[np.lexsort((found[:, 1], found[:, 2], found[:, 0]))]


@numba.njit(cache=True, nogil=True)
def without_overlaps(texts: Offsets, starts: Offsets, ends: Offsets) -> npt.NDArray[np.bool_]:
    """[matches] bool: False for a span that begins before the end of the last one that was kept, as Dolma's mixer has it."""
    keep = np.zeros(len(texts), dtype=np.bool_)
    text, end = np.int64(-1), np.int64(0)
    for i in range(len(texts)):
        if texts[i] != text or starts[i] >= end:
            keep[i] = True
            text, end = texts[i], ends[i]
    return keep


@numba.njit(cache=True, nogil=True)
def _find(data, offsets, classes, zeros):  # type: ignore[no-untyped-def]
    found = np.empty((64, 6), dtype=np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        first, end = offsets[text], offsets[text + 1]
        # Where the next match of each kind may begin.
        email_from = phone_from = ip_from = at = first
        while True:
            while at < end and not classes[data[at]] & _WORTH_A_LOOK:
                at += 1
            if at >= end:
                break
            kind = classes[data[at]]
            match, start, stop, inner, closing = -1, at, np.int64(-1), at, at
            if kind == _DIGIT:
                if at > phone_from and not _is_digit(data[at - 1]):
                    start, inner, stop = _phone(data, at, phone_from, end, classes, zeros)
                    if stop >= 0:
                        match, phone_from, closing = PHONE, stop, stop
            elif kind & _DOT:
                if at > ip_from and at + 1 < end and _is_digit(data[at - 1]) and _is_digit(data[at + 1]):
                    start, stop = _ip(data, at, ip_from, end)
                    if stop >= 0:
                        match, ip_from, inner, closing = IP, stop, start, stop
            elif kind & _AT:
                if at >= email_from:
                    start, stop, inner, closing, keep = _email(data, at, email_from, end, classes)
                    if stop >= 0:
                        match, email_from = EMAIL if keep else -1, stop
            else:
                code, width = decode(data, at)
                if _is_decimal(code, zeros):
                    start, inner, stop = _phone(data, at, phone_from, end, classes, zeros)
                    if stop >= 0:
                        match, phone_from, closing = PHONE, stop, stop
                at += width - 1
            if match >= 0:
                if count == len(found):
                    found = _doubled(found)
                found[count, 0], found[count, 1], found[count, 2], found[count, 3] = text, match, start - first, stop - first
                found[count, 4], found[count, 5] = inner - first, closing - first
                count += 1
            at += 1
    return found[:count]


@numba.njit
def _doubled(found):  # type: ignore[no-untyped-def]
    grown = np.empty((2 * len(found), found.shape[1]), dtype=np.int64)
    grown[: len(found)] = found
    return grown


@numba.njit
def _is_decimal(code, zeros):  # type: ignore[no-untyped-def]
    """`\\d` of a code point that is not ASCII."""
    if code < zeros[0]:
        return False
    return code - zeros[np.searchsorted(zeros, code, side="right") - 1] <= 9


@numba.njit
def _digits(data, at, end, count, zeros):  # type: ignore[no-untyped-def]
    """Where `count` decimal digits from `at` end; -1 if there are fewer."""
    for _ in range(count):
        if at >= end:
            return np.int64(-1)
        code, width = decode(data, at)
        if not (0x30 <= code <= 0x39 or (code >= 0x80 and _is_decimal(code, zeros))):
            return np.int64(-1)
        at += width
    return at


@numba.njit
def _phone(data, at, begin, end, classes, zeros):  # type: ignore[no-untyped-def]
    """(start of the spaces before it, start, stop) of the telephone number whose first digit this is; stop is -1 if it is none.

    Not before `begin`. Every step has one way on, so nothing is tried twice.
    """
    none = np.int64(-1)
    number = at - 1 if at > begin and data[at - 1] == 0x28 else at
    if not _spaced(data, number, begin, classes):
        return at, at, none
    stop = _digits(data, at, end, 3, zeros)
    if stop < 0:
        return at, at, none
    stop += stop < end and data[stop] == 0x29
    while stop < end and (data[stop] == 0x2D or data[stop] == 0x2E or data[stop] == 0x20):
        stop += 1
    stop = _digits(data, stop, end, 3, zeros)
    if stop < 0:
        return at, at, none
    stop += stop < end and (data[stop] == 0x2D or data[stop] == 0x2E or data[stop] == 0x20)
    stop = _digits(data, stop, end, 4, zeros)
    start = number
    while stop >= 0 and _spaced(data, start, begin, classes):
        start = _before(data, start)
    return start, number, stop


@numba.njit
def _spaced(data, at, begin, classes):  # type: ignore[no-untyped-def]
    """Whitespace of the same line stands before `at`, not before `begin`."""
    if at <= begin or data[at - 1] == 0x0A:
        return False
    kind = classes[data[at - 1]]
    return kind & _SPACE != 0 or (kind == _WIDE and is_space(decode(data, _before(data, at))[0]))


@numba.njit
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return 0x30 <= byte <= 0x39


@numba.njit
def _is_octet(data, start, size):  # type: ignore[no-untyped-def]
    """Three digits from `start`: at most 255, or with a leading 0 or 1."""
    if size < 3:
        return size > 0
    hundreds, tens, ones = data[start], data[start + 1], data[start + 2]
    return hundreds <= 0x31 or (hundreds == 0x32 and (tens <= 0x34 or (tens == 0x35 and ones <= 0x35)))


@numba.njit
def _ip(data, dot, begin, end):  # type: ignore[no-untyped-def]
    """(start, stop) of an IP address whose first dot this is, not before `begin`; stop is -1 if there is none."""
    start = dot
    while start > begin and dot - start < 3 and _is_digit(data[start - 1]):
        start -= 1
    if not _is_octet(data, start, dot - start):
        start += 1  # the last two digits of three always do
    if start >= dot:
        return start, np.int64(-1)
    at = dot + 1
    for _ in range(2):
        size = 0
        while at + size < end and size < 4 and _is_digit(data[at + size]):
            size += 1
        if size > 3 or not _is_octet(data, at, size) or at + size >= end or data[at + size] != 0x2E:
            return start, np.int64(-1)
        at += size + 1
    size = 0
    while at + size < end and size < 3 and _is_digit(data[at + size]):
        size += 1
    if size == 0:
        return start, np.int64(-1)
    return start, at + (size if _is_octet(data, at, size) else 2)


@numba.njit
def _space_width(data, at, end):  # type: ignore[no-untyped-def]
    """The bytes of the whitespace character at `at`, 0 if there is none."""
    if at >= end:
        return 0
    code, width = decode(data, at)
    return width if is_space(code) else 0


@numba.njit
def _before(data, at):  # type: ignore[no-untyped-def]
    """Where the character before `at` begins."""
    at -= 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return at


@numba.njit
def _domain(data, at, end, classes):  # type: ignore[no-untyped-def]
    """(end of the domain, end of the match, a dot is in the domain) for the `@` at `at`; the second is -1 if none matches.

    The domain is as short as the pattern allows: before its last dot if a space follows that.
    """
    closing = at + 1
    dots = 0
    while closing < end:
        code, width = decode(data, closing)
        if code == 0x2E:
            dots += 1
        elif is_space(code) or (width == 1 and classes[code] & _MARK):
            break
        closing += width
    if closing == at + 1 or closing >= end:
        return closing, np.int64(-1), False
    width = _space_width(data, closing, end)
    if width == 0:  # one more mark, and it must be followed by a space
        width = _space_width(data, closing + 1, end)
        return closing, closing + 1 + width if width else np.int64(-1), dots > 0
    if data[closing - 1] == 0x2E and closing - 1 > at + 1:
        return closing - 1, closing + width, dots > 1
    if data[closing] != 0x0A:  # a match ends with its line
        width += _space_width(data, closing + width, end)
    return closing, closing + width, dots > 0


@numba.njit
def _named(data, at, begin):  # type: ignore[no-untyped-def]
    """Something that is neither a space nor an `@` stands before the `@` at `at`, not before `begin`."""
    if at <= begin or data[at - 1] == 0x40:
        return False
    return not is_space(decode(data, _before(data, at))[0])


@numba.njit
def _around(data, at, classes):  # type: ignore[no-untyped-def]
    """The character that begins at `at` may stand before an address: whitespace or a mark."""
    kind = classes[data[at]]
    return kind & (_SPACE | _MARK) or (kind == _WIDE and is_space(decode(data, at)[0]))


@numba.njit
def _email(data, at, begin, end, classes):  # type: ignore[no-untyped-def]
    """(start, stop, start of the address, its end, worth keeping) of the first match that can hold the `@` at `at`.

    stop is -1 if there is none. It may be about a later `@` in the same run of spaces and marks: a match begins as far left as
    it can in the line, not before `begin`, and takes as many spaces and marks as it can.
    """
    none = np.int64(-1)
    if not _named(data, at, begin) or _domain(data, at, end, classes)[1] < 0:
        return at, none, at, at, False
    start = at
    while start > begin and _named(data, start, begin):
        start = _before(data, start)
    while start > begin and data[start - 1] != 0x0A and _around(data, _before(data, start), classes):
        start = _before(data, start)
    run = start  # the end of the run of spaces and marks from `start`
    while run < end and _around(data, run, classes) and (run == start or data[run - 1] != 0x0A):
        run += decode(data, run)[1]
    last = run  # the `@`, if any, of the address that begins where the run ends
    if run < end and data[run - 1 if run > start else run] != 0x0A:
        while last < end and data[last] != 0x40 and not _space_width(data, last, end):
            last += decode(data, last)[1]
        if last < end and last > run and data[last] == 0x40:
            closing, stop, dotted = _domain(data, last, end, classes)
            if stop >= 0:
                return start, stop, run, closing, dotted
    for other in range(run - 1, start, -1):  # an `@` in the run, after one of its marks
        if data[other] == 0x40 and _named(data, other, start):
            closing, stop, dotted = _domain(data, other, end, classes)
            if stop >= 0:
                return start, stop, other - 1, closing, dotted and data[other - 1] != 0x28
    return at, none, at, at, False
