"""The word boundaries of UAX #29 at native speed: rules WB3c to WB16 over the Word_Break classes of Unicode 16.

In:   chunks between whitespace. Out: their segments, without those that are whitespace (only U+202F can be one).
Cost: see words.py; 1 MB of classes, a tenth of a second once per process, read from the tables of `uniseg`.
Not:  WB3 to WB3b: a chunk holds no line end. No dictionary: a run of Chinese is one segment per character.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.text.interning import Bytes, Table, kernel, native
from pipeline.text.utf8 import decode, is_space

Ints = npt.NDArray[np.int32]

# fmt: off
_NAMES = (
    "Other", "ALetter", "Hebrew_Letter", "Numeric", "ExtendNumLet", "Katakana", "Single_Quote", "Double_Quote", "MidNumLet",
    "MidLetter", "MidNum", "Regional_Indicator", "WSegSpace", "Extend", "Format", "ZWJ", "CR", "LF", "Newline",
)
(OTHER, LETTER, HEBREW, NUMERIC, JOINER, KATAKANA, SINGLE_QUOTE, DOUBLE_QUOTE, MID_BOTH,
 MID_LETTER, MID_NUMBER, FLAG, SPACE, EXTEND, FORMAT, ZWJ, CR, LF, NEWLINE) = range(len(_NAMES))
# fmt: on
PICTURE = 32  # a bit beside the class: Extended_Pictographic


@cache
def classes() -> Bytes:
    """[0x110000] uint8 by code point: the Word_Break class, and the bit PICTURE."""
    from uniseg import db_lookups as tables

    word_break, picture = tables.columns.index("Word_Break"), tables.columns.index("Extended_Pictographic")
    by_value = [_NAMES.index(row[word_break] or "Other") | PICTURE * bool(row[picture]) for row in tables.values]
    blocks = np.array(by_value, np.uint8)[list(tables.index2)].reshape(-1, 1 << tables.shift)
    return blocks[list(tables.index1)].reshape(-1)


def cut(chunks: Table, start: int, stop: int) -> tuple[Ints, Ints, Ints]:
    """Words of the chunks start … stop - 1: how many each has, and the bytes of its chunk where each begins and ends."""
    size = int(chunks.starts[stop] - chunks.starts[start])  # no word is shorter than a byte
    counts, begins, ends = np.zeros(stop - start, np.int32), np.empty(size, np.int32), np.empty(size, np.int32)
    words = _cut(chunks, start, stop, classes(), counts, begins, ends)
    return counts, begins[:words].copy(), ends[:words].copy()


@kernel
def _cut(chunks, first, last, classes, counts, begins, ends):  # type: ignore[no-untyped-def]
    data = chunks.arena
    done = 0
    for chunk in range(first, last):
        origin, stop = chunks.starts[chunk], chunks.starts[chunk + 1]
        at = begin = origin
        # Classes: of the character before, and of the last two before that are no mark (WB4 looks through marks).
        adjacent = previous = earlier = OTHER
        flags = 0  # regional indicators in a row
        blank = True  # the segment is whitespace so far
        while at < stop:
            code, width = decode(data, at)
            kind = classes[code] & (PICTURE - 1)
            mark = EXTEND <= kind <= ZWJ
            if at == origin or mark or (adjacent == ZWJ and classes[code] & PICTURE) or (adjacent == SPACE and kind == SPACE):
                joined = True  # WB4, WB3c, WB3d
            elif SINGLE_QUOTE <= kind <= MID_NUMBER:
                joined = previous == HEBREW and kind == SINGLE_QUOTE  # WB7a
                joined = joined or _holds(previous, kind, _next_class(data, at + width, stop, classes))
            elif SINGLE_QUOTE <= previous <= MID_NUMBER:
                joined = _holds(earlier, previous, kind)
            else:
                joined = _binds(previous, kind) or (previous == kind == FLAG and flags % 2 == 1)  # WB15, WB16
            if not joined:
                if not blank:
                    begins[done], ends[done] = begin - origin, at - origin
                    done += 1
                    counts[chunk - first] += 1
                begin, blank = at, True
            blank = blank and is_space(code)
            if not mark:
                flags = flags + 1 if kind == FLAG else 0
                earlier, previous = previous, kind
            adjacent = kind
            at += width
        if not blank:
            begins[done], ends[done] = begin - origin, stop - origin
            done += 1
            counts[chunk - first] += 1
    return done


@native
def is_mark(classes, code):  # type: ignore[no-untyped-def]
    """Whether the character belongs to the one before it, whatever that is but a line end (WB4)."""
    return EXTEND <= classes[code] & (PICTURE - 1) <= ZWJ


@native
def with_blanks_before(data, origin, at, classes):  # type: ignore[no-untyped-def]
    """Where the segment of the character at byte `at` begins, if whitespace stands before that; `origin`: where the text does.

    At `at`, but a mark belongs to the whitespace before it (WB4, unless that ends a line), and blanks belong together (WB3d).
    """
    code, _ = decode(data, at)
    if at == origin or not is_mark(classes, code):
        return at
    code, width = decode_back(data, at)
    kind = classes[code] & (PICTURE - 1)
    if kind >= CR:
        return at
    start = at - width
    while kind == SPACE and start > origin:
        code, width = decode_back(data, start)
        kind = classes[code] & (PICTURE - 1)
        if kind == SPACE:
            start -= width
    return start


@native
def decode_back(data, stop):  # type: ignore[no-untyped-def]
    """The code point that ends before byte `stop`, and its width in bytes."""
    at = stop - 1
    while data[at] & 0xC0 == 0x80:
        at -= 1
    return decode(data, at)


@native
def _binds(left, right):  # type: ignore[no-untyped-def]
    """WB5, WB8 to WB10, WB13 to WB13b: neighbours without a mark of punctuation between them."""
    if not (LETTER <= left <= KATAKANA and LETTER <= right <= KATAKANA):
        return False
    return left == JOINER or right == JOINER or (left == KATAKANA) == (right == KATAKANA)


@native
def _holds(left, middle, right):  # type: ignore[no-untyped-def]
    """WB6, WB7, WB7b, WB7c, WB11, WB12: whether the two keep a punctuation mark between them, on both of its sides."""
    if left in (LETTER, HEBREW) and right in (LETTER, HEBREW):
        if middle == DOUBLE_QUOTE:
            return left == right == HEBREW
        return middle != MID_NUMBER
    return left == NUMERIC and right == NUMERIC and middle != DOUBLE_QUOTE and middle != MID_LETTER


@native
def _next_class(data, at, stop, classes):  # type: ignore[no-untyped-def]
    """The class of the first character from byte `at` on that is no mark; OTHER if there is none."""
    while at < stop:
        code, width = decode(data, at)
        kind = classes[code] & (PICTURE - 1)
        if not EXTEND <= kind <= ZWJ:
            return kind
        at += width
    return OTHER
