"""Lines of texts: where they are, and what leaving some of them out comes to as spans.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  Lines; and from what is to stay of each line, the spans (taggers.SPANS) that make the text so.
Cost: two passes over the bytes to cut, 1 ns a byte; one over the lines for the spans. 24 bytes of memory per line.
Not:  which lines stay is the business of the taggers.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import SPANS
from pipeline.text.interning import native
from pipeline.text.utf8 import Bytes, Offsets, decode, is_space

UPPER, DIGIT, DECIMAL, WORD = 1, 2, 4, 8
STAYS = 0
WHITESPACE = 1  # the rule of whitespace at the ends of lines and of the text

Rules = npt.NDArray[np.uint8]


@functools.cache
def character_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: bits UPPER `str.isupper()`, DIGIT `str.isdigit()`, DECIMAL and WORD what `re` matches with \\d and \\w.

    As this Python's Unicode version sees it. Takes a third of a second, once per process.
    """
    characters = map(chr, range(0x110000))
    bits = (UPPER * c.isupper() | DIGIT * c.isdigit() | DECIMAL * c.isdecimal() | WORD * (c.isalnum() or c == "_") for c in characters)
    return np.fromiter(bits, np.uint8, 0x110000)


@functools.cache
def rows_of(strings: tuple[str, ...]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """ASCII strings as the rows of an array, for kernels, and their lengths."""
    width = max(map(len, strings))
    rows = np.frombuffer("".join(string.ljust(width) for string in strings).encode("ascii"), np.uint8).reshape(-1, width)
    return rows, np.array([len(string) for string in strings])


class Lines(NamedTuple):
    """Line l of text t, offsets[t] ≤ l < offsets[t + 1], is the bytes starts[l] … ends[l] - 1; its break follows, up to stops[l]."""

    starts: Offsets
    ends: Offsets
    stops: Offsets
    offsets: Offsets


def split(data: Bytes, offsets: Offsets) -> Lines:
    """Each text's `text.split("\\n")`: a "\\n" at the end has an empty line behind it, and the empty text is one empty line."""
    return Lines(*_cut(data, offsets, False))


def splitlines(data: Bytes, offsets: Offsets) -> Lines:
    """Each text's `text.splitlines()`: every line break of Unicode, "\\r\\n" is one; the empty text has no lines."""
    return Lines(*_cut(data, offsets, True))


@numba.njit(cache=True, nogil=True)
def _cut(data, offsets, universal):  # type: ignore[no-untyped-def]
    texts = len(offsets) - 1
    may_break = np.zeros(256, dtype=np.bool_)
    may_break[0x0A] = True
    if universal:
        for byte in (0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0xC2, 0xE2):
            may_break[byte] = True
    most = texts
    if universal:
        for at in range(offsets[0], offsets[texts]):
            most += may_break[data[at]]
    else:
        for at in range(offsets[0], offsets[texts]):
            most += data[at] == 0x0A
    starts, ends, stops = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    line_offsets = np.zeros(texts + 1, dtype=np.int64)
    lines = 0
    for text in range(texts):
        start = at = offsets[text]
        end = offsets[text + 1]
        while at < end:
            width = _break_width(data, at, end) if may_break[data[at]] else 0
            if not width:
                at += 1
                continue
            starts[lines], ends[lines], stops[lines] = start, at, at + width
            lines += 1
            start = at = at + width
        if start < end or not universal:
            starts[lines], ends[lines], stops[lines] = start, end, end
            lines += 1
        line_offsets[text + 1] = lines
    return starts[:lines].copy(), ends[:lines].copy(), stops[:lines].copy(), line_offsets


@native
def _break_width(data, at, end):  # type: ignore[no-untyped-def]
    """Bytes of the line break at `at`, 0 if there is none."""
    byte = data[at]
    if byte == 0xC2:
        return 2 if data[at + 1] == 0x85 else 0
    if byte == 0xE2:
        return 3 if data[at + 1] == 0x80 and (data[at + 2] == 0xA8 or data[at + 2] == 0xA9) else 0
    return 2 if byte == 0x0D and at + 1 < end and data[at + 1] == 0x0A else 1


@native
def trimmed(data, start, end):  # type: ignore[no-untyped-def]
    """data[start:end] without the whitespace at both ends, as `str.strip()` has it: (start, end), equal if nothing is left."""
    if start < end and 0x20 < data[start] < 0x80 and 0x20 < data[end - 1] < 0x80:
        return start, end
    while start < end:
        code, width = decode(data, start)
        if not is_space(code):
            break
        start += width
    while start < end:
        last = end - 1
        while data[last] & 0xC0 == 0x80:
            last -= 1
        if not is_space(decode(data, last)[0]):
            break
        end = last
    return start, end


def sums(values: npt.NDArray, offsets: Offsets) -> npt.NDArray[np.int64]:
    """[texts] the sum of each text's lines' values."""
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[offsets])


class Kept(NamedTuple):
    """Of each line whose rules[l] is STAYS, the bytes starts[l] … ends[l] - 1 stay; of others rules[l] is the rule that removes it."""

    starts: Offsets
    ends: Offsets
    rules: Rules


class Found(NamedTuple):
    """Spans of the flat bytes, ascending, each with its rule; `replaced` is an index into the replacements that go with it."""

    starts: Offsets
    ends: Offsets
    rules: Rules
    replaced: npt.NDArray[np.int32]


def joined(data: Bytes, lines: Lines, kept: Kept) -> Found:
    """The spans after whose removal a text is the kept pieces with one "\\n" (`replaced` 1) between them.

    A removed line goes with its break, and so do the whitespace around a kept piece and the break after the last one.
    """
    return Found(*_joined(data, *lines, *kept))


@numba.njit(cache=True, nogil=True)
def _joined(data, line_starts, line_ends, line_stops, offsets, starts, ends, rules):  # type: ignore[no-untyped-def]
    most = 2 * len(line_starts)
    span_starts, span_ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    span_rules, replaced = np.empty(most, dtype=np.uint8), np.zeros(most, dtype=np.int32)
    spans = 0
    for text in range(len(offsets) - 1):
        last = offsets[text + 1] - 1
        while last >= offsets[text] and rules[last] != STAYS:
            last -= 1
        for line in range(offsets[text], offsets[text + 1]):
            if rules[line] != STAYS:
                span_starts[spans], span_ends[spans], span_rules[spans] = line_starts[line], line_stops[line], rules[line]
                spans += line_stops[line] > line_starts[line]
                continue
            span_starts[spans], span_ends[spans], span_rules[spans] = line_starts[line], starts[line], WHITESPACE
            spans += starts[line] > line_starts[line]
            span_starts[spans], span_ends[spans], span_rules[spans] = ends[line], line_stops[line], WHITESPACE
            if line == last:
                spans += line_stops[line] > ends[line]
            elif line_stops[line] - ends[line] != 1 or data[ends[line]] != 0x0A:
                replaced[spans] = 1
                spans += 1
    return span_starts[:spans].copy(), span_ends[:spans].copy(), span_rules[:spans].copy(), replaced[:spans].copy()


def span_table(offsets: Offsets, found: Found, names: Sequence[str], replacements: Sequence[str] = ("",)) -> pa.Table:
    """taggers.SPANS from spans of the flat bytes: rows of `offsets`, `by` from the rules' names, counted from 1."""
    rows = np.searchsorted(offsets, found.starts, "right") - 1
    by = pa.DictionaryArray.from_arrays(pa.array(found.rules.astype(np.int32) - 1), pa.array(names))
    replacement = pa.DictionaryArray.from_arrays(pa.array(found.replaced), pa.array(replacements))
    columns = [pa.array(rows), pa.array(found.starts - offsets[rows]), pa.array(found.ends - offsets[rows])]
    return pa.table([*columns, replacement.cast(pa.string()), by.cast(pa.string())], schema=SPANS)


def merged(first: Found, second: Found) -> Found:
    """Two lists of spans that do not overlap as one."""
    starts, ends, rules, replaced = (np.concatenate([first[column], second[column]]) for column in range(4))
    order = np.argsort(starts, kind="stable")
    return Found(starts[order], ends[order], rules[order], replaced[order])
