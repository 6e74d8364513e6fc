"""The patterns by which spaCy 3.8 splits English, as compiled code: prefixes, suffixes, infixes, URLs, exceptions.

In:   a stretch of UTF-8 bytes without whitespace, and the rules (spacy_rules.py). Out: what spaCy's regular expressions match.
Cost: a few ns per byte; each is linear, however long the stretch.
Not:  other languages: their patterns are others.
"""

import numpy as np

from pipeline.text import interning
from pipeline.text.interning import native
from pipeline.text.spacy_rules import ALPHA, BEFORE_STOP, DIGIT, HOST, ICON, LOWER, PREFIX, QUOTE, SUFFIX, UPPER, WORD
from pipeline.text.unicode_words import decode_back
from pipeline.text.utf8 import decode


@native
def _is_digit(byte):  # type: ignore[no-untyped-def]
    return 48 <= byte <= 57


@native
def exception(data, start, stop, rules):  # type: ignore[no-untyped-def]
    if stop - start > 31 or not rules.hints[data[start], data[stop - 1]] >> np.uint32(stop - start) & np.uint32(1):
        return -1
    return interning.find(rules.exceptions, data, start, stop)


@native
def prefix(data, start, stop, flags):  # type: ignore[no-untyped-def]
    """Bytes of the prefix that spaCy would peel off data[start:stop]."""
    first = data[start]
    if 97 <= first <= 122:
        return 0
    if first == 46:  # .
        at = start
        while at < stop and data[at] == 46:
            at += 1
        return at - start if at - start > 1 else 0
    if first == 43:  # +
        return 0 if start + 1 < stop and _is_digit(data[start + 1]) else 1
    if first == 65 or first == 67:  # A$ C$
        return 2 if start + 1 < stop and data[start + 1] == 36 else 0
    if first == 85:  # US$
        return 3 if start + 2 < stop and data[start + 1] == 83 and data[start + 2] == 36 else 0
    code, width = decode(data, start)
    return width if flags[code] & PREFIX else 0


@native
def suffix(data, start, stop, rules):  # type: ignore[no-untyped-def]
    """Bytes of the suffix; the longest that any pattern allows, as the search goes from left to right."""
    if start >= stop:
        return 0
    flags = rules.flags
    code, width = decode_back(data, stop)
    before = stop - width
    found = width if flags[code] & SUFFIX else 0
    if before == start:
        return found
    previous, previous_width = decode_back(data, before)
    if code == 46:
        at = before
        while at > start and data[at - 1] == 46:
            at -= 1
        if at < before:
            return stop - at
        if flags[previous] & BEFORE_STOP:
            return 1
        if before - previous_width > start:
            third, _ = decode_back(data, before - previous_width)
            if flags[previous] & UPPER and flags[third] & UPPER:
                return 1
            if third == 0xB0 and (previous == 70 or previous == 67 or previous == 75):  # °F °C °K; the small ones are above
                return 1
        return 0
    if code == 0x2026 and previous == 0x2026:
        return 2 * width
    if (code == 115 or code == 83) and (previous == 39 or previous == 0x2019):  # 's 'S
        found = width + previous_width
    if code == 43 and _is_digit(previous):
        found = 1
    if rules.unit_hints[data[stop - 1]]:
        at = stop
        while at > start and stop - at < 16 and not _is_digit(data[at - 1]):
            at -= 1
        if at > start and at < stop and _is_digit(data[at - 1]) and interning.find(rules.units, data, at, stop) >= 0:
            found = max(found, stop - at)
    return found


@native
def infix(data, at, start, stop, flags):  # type: ignore[no-untyped-def]
    """Bytes to go on by from byte `at` of data[start:stop], and whether they are an infix; at `start` itself spaCy passes over it."""
    first = data[at]
    if 97 <= first <= 122 or 65 <= first <= 90 or 48 <= first <= 57:
        return 1, False
    code, width = decode(data, at)
    after = at + width
    if code == 46 and after < stop and data[after] == 46:
        while after < stop and data[after] == 46:
            after += 1
        return after - at, True
    if flags[code] & ICON:
        return width, True
    dash = code == 45 or code == 0x2013 or code == 0x2014 or code == 126  # - – — ~
    between = 42 <= code <= 47 or code == 58 or 60 <= code <= 62 or code == 94  # * + , - . / : < = > ^
    if at == start or after == stop or not (dash or between):
        return width, False
    previous, _ = decode_back(data, at)
    following, following_width = decode(data, after)
    if (code == 43 or code == 45 or code == 42 or code == 94) and _is_digit(previous) and (_is_digit(following) or following == 45):
        return width, True
    if code == 46:
        return width, flags[previous] & (LOWER | QUOTE) != 0 and flags[following] & (UPPER | QUOTE) != 0
    if code == 44:
        return width, flags[previous] & ALPHA != 0 and flags[following] & ALPHA != 0
    if code == 43 or code == 42 or code == 94 or not (flags[previous] & ALPHA or _is_digit(previous)):
        return width, False
    most = 3 if code == 45 else 2 if code == 0x2014 else 1
    count = 1
    while dash and following == code and count < most and after + following_width < stop:
        after += following_width
        following, following_width = decode(data, after)
        count += 1
    return (after - at, True) if flags[following] & ALPHA else (width, False)


@native
def is_url(data, start, stop, flags):  # type: ignore[no-untyped-def]
    """spaCy's URL_MATCH: an optional scheme and user, a host name with a top-level domain or an IP address, port, path."""
    dot = start
    while dot < stop and data[dot] != 46:
        dot += 1
    if dot >= stop - 1:
        return False
    if _is_host(data, start, stop, flags):
        return True
    at, characters = start, 0
    while at < stop:
        code, width = decode(data, at)
        if code == 58 and characters >= 2 and at + 3 < stop and data[at + 1] == 47 and data[at + 2] == 47:
            if _is_host(data, at + 3, stop, flags):
                return True
            break
        if not flags[code] & WORD:
            break
        at += width
        characters += 1
    at = start + 1
    while at < stop - 1 and not (data[at] == 64 and _is_host(data, at + 1, stop, flags)):
        at += 1
    return at < stop - 1


@native
def _is_host(data, start, stop, flags):  # type: ignore[no-untyped-def]
    if _is_address(data, start, stop, flags):
        return True
    at = start
    while True:  # one label and its dot at a time
        characters, last = 0, 0
        while at < stop and data[at] != 46:
            code, width = decode(data, at)
            if not flags[code] & HOST and (characters == 0 or (code != 95 and code != 45)):
                return False
            last = code
            at += width
            characters += 1
        if at == stop or characters == 0 or characters > 64 or not flags[last] & HOST:
            return False
        at += 1
        end, characters = at, 0
        while end < stop and characters < 64:
            code, width = decode(data, end)
            if not flags[code] & LOWER:
                break
            end += width
            characters += 1
        if 2 <= characters <= 63 and _is_tail(data, end, stop, flags):
            return True


@native
def _is_tail(data, at, stop, flags):  # type: ignore[no-untyped-def]
    """Whether data[at:stop] is a port and a path, each optional."""
    if at < stop and data[at] == 58:
        at += 1
        digits = 0
        while at < stop and digits < 6:
            code, width = decode(data, at)
            if not flags[code] & DIGIT:
                break
            at += width
            digits += 1
        if digits < 2 or digits > 5:
            return False
    return at == stop or data[at] == 47 or data[at] == 63 or data[at] == 35


@native
def _is_address(data, start, stop, flags):  # type: ignore[no-untyped-def]
    """Four numbers in the ranges that the pattern spells out digit by digit; private networks are none."""
    if not 49 <= data[start] <= 57:
        return False
    at, first, second = start, 0, 0
    for group in range(4):
        a, b, c, digits = 0, 0, 0, 0
        while at < stop and digits < 4:
            code, width = decode(data, at)
            if not flags[code] & DIGIT:
                break
            a, b, c = b, c, code
            at += width
            digits += 1
        if digits < 1 or digits > 3:
            return False
        # a, b, c: the last three digits as code points; a digit of another script is only allowed where any digit is.
        if digits == 3 and not (a == 49 or (a == 50 and (48 <= b <= 52 or (b == 53 and 48 <= c <= 53)))):
            return False
        if group == 0 or group == 3:
            leading = c if digits == 1 else b if digits == 2 else a
            if not 49 <= leading <= 57:
                return False
            if group == 0 and digits == 3 and a == 50 and not (48 <= b <= 49 or (b == 50 and 48 <= c <= 51)):
                return False
            if group == 3 and digits == 3 and a == 50 and b == 53 and c == 53:
                return False
        if group == 0:
            first = _number(a, b, c, digits)
        if group == 1:
            second = _number(a, b, c, digits)
            if (first == 169 and second == 254) or (first == 192 and second == 168):
                return False
            if first == 172 and digits == 2 and ((b == 49 and 54 <= c <= 57) or b == 50 or (b == 51 and 48 <= c <= 49)):
                return False
        if group < 3:
            if at == stop or data[at] != 46:
                return False
            at += 1
    return first != 10 and first != 127 and _is_tail(data, at, stop, flags)


@native
def _number(a, b, c, digits):  # type: ignore[no-untyped-def]
    """The value of up to three ASCII digits; -1 if one of them is of another script."""
    value = 0
    for place in range(3 - digits, 3):
        code = a if place == 0 else b if place == 1 else c
        if not 48 <= code <= 57:
            return -1
        value = 10 * value + code - 48
    return value
