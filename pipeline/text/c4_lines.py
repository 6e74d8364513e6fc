"""Which lines of a text C4 keeps, and how many sentences they hold, as datatrove's C4QualityFilter has it.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column, and their lines.
Out:  per line the rule that removes it or what stays of it, the citations in it, its sentences.
Cost: three passes over the bytes, about 8 ns a byte in all, and one over the lines that stay; sentences.py.
Not:  it drops nothing; datatrove stops at the first line that condemns a document, this goes on.
"""

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import native
from pipeline.text.lines import DECIMAL, STAYS, WHITESPACE, Found, Kept, Lines, character_table, rows_of, sums, trimmed
from pipeline.text.sentences import count_sentences
from pipeline.text.utf8 import Bytes, Counts, decode, is_space

CITATION, LONG_WORD, NO_TERMINAL_PUNCTUATION, FEW_WORDS, JAVASCRIPT, POLICY = range(2, 8)
RULES = ("whitespace", "citation", "long_word", "no_terminal_punctuation", "few_words", "javascript", "policy")
LONGEST_WORD, FEWEST_WORDS = 1000, 3
LOREM_IPSUM, CURLY_BRACKET = 1, 2

# The first, the second and all others mean different things below.
_PHRASES = ("lorem ipsum", "javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_NOTES = ("[edit]", "[citation needed]")

Flags = npt.NDArray[np.uint8]


class Judged(NamedTuple):
    """Per line: what stays; whether a citation is in that; LOREM_IPSUM | CURLY_BRACKET where the line condemns its text."""

    kept: Kept
    cited: npt.NDArray[np.bool_]
    condemns: Flags


def judge(data: Bytes, lines: Lines) -> Judged:
    """Lines (of `splitlines`), stripped, by the first rule that applies, in datatrove's order; citations stay in them here."""
    starts, ends, rules, cited, condemns = _judge(data, lines.starts, lines.ends, character_table(), *rows_of(_PHRASES), *rows_of(_NOTES))
    return Judged(Kept(starts, ends, rules), cited, condemns)


@numba.njit(cache=True, nogil=True)
def _judge(data, line_starts, line_ends, table, phrases, phrase_lengths, notes, note_lengths):  # type: ignore[no-untyped-def]
    starts, ends = np.empty_like(line_starts), np.empty_like(line_starts)
    rules, condemns = np.zeros(len(starts), dtype=np.uint8), np.zeros(len(starts), dtype=np.uint8)
    cited = np.zeros(len(starts), dtype=np.bool_)
    begins = np.zeros(256, dtype=np.bool_)
    for phrase in phrases:
        begins[phrase[0]] = True
    hints = np.zeros(256, dtype=np.bool_)
    for byte in (0x5B, 0x7B, 0x4A, 0x6A, 0x56, 0x76, 0x4B, 0x6B, 0x46, 0x66, 0x50, 0x70, 0xE2):  # [ { j v k f p, and the Kelvin sign's
        hints[byte] = True
    text = np.empty(1 << 12, dtype=np.uint8)
    for line in range(len(starts)):
        start, end = trimmed(data, line_starts[line], line_ends[line])
        starts[line], ends[line] = start, end
        if _may_have_long_word(data, start, end) and _longest_word(data, start, end) > LONGEST_WORD:
            rules[line] = LONG_WORD
            continue
        if start == end or not (_is_terminal(data[end - 1]) or data[end - 1] == 0x5D):
            rules[line] = NO_TERMINAL_PUNCTUATION
            continue
        if _is_plain(data, start, end, hints):  # nothing to take out and nothing to find
            if not _is_terminal(data[end - 1]) or _is_ellipsis(data, start, end):
                rules[line] = NO_TERMINAL_PUNCTUATION
            elif not _has_words(data, start, end, FEWEST_WORDS):
                rules[line] = FEW_WORDS
            continue
        if end - start > len(text):
            text = np.empty(2 * (end - start), dtype=np.uint8)
        size, cited[line] = _lowered(data, start, end, table, notes, note_lengths, text)
        if not size or not _is_terminal(text[size - 1]) or _is_ellipsis(text, 0, size):
            rules[line] = NO_TERMINAL_PUNCTUATION
        elif not _has_words(data, start, end, FEWEST_WORDS):
            rules[line] = FEW_WORDS
        else:
            found, curly = _found(text, size, begins, phrases, phrase_lengths)
            javascript, policy = found & 2 > 0, found >> 2 > 0
            condemns[line] = LOREM_IPSUM * (found & 1) | CURLY_BRACKET * (curly and not javascript)
            rules[line] = JAVASCRIPT if javascript else POLICY if policy else STAYS
    return starts, ends, rules, cited, condemns


@native
def _may_have_long_word(data, start, end):  # type: ignore[no-untyped-def]
    """False only if among every LONGEST_WORD bytes is one of ASCII's whitespace, for which few bytes need be read."""
    while end - start > LONGEST_WORD:
        at = start + LONGEST_WORD
        while at >= start and not (data[at] <= 0x20 and is_space(data[at])):
            at -= 1
        if at < start:
            return True
        start = at + 1
    return False


@native
def _longest_word(data, start, end):  # type: ignore[no-untyped-def]
    """Characters of the longest word of `str.split()`."""
    longest = size = 0
    while start < end:
        code, width = decode(data, start)
        start += width
        size = 0 if is_space(code) else size + 1
        longest = max(longest, size)
    return longest


@native
def _has_words(data, start, end, wanted):  # type: ignore[no-untyped-def]
    """Whether there are as many words of `str.split()`."""
    inside = False
    while start < end and wanted > 0:
        code, width = decode(data, start)
        start += width
        space = is_space(code)
        wanted -= not space and not inside
        inside = not space
    return wanted == 0


@native
def _is_plain(data, start, end, hints):  # type: ignore[no-untyped-def]
    """True only if there is no bracket, no Kelvin sign and no phrase: none of some letters that each phrase has one of, between
    its neighbours there: Javascript, priVacy, cooKie, oF use, iPsum. Phrases span no line's end."""
    for at in range(start, end):
        byte = data[at]
        if not hints[byte]:
            continue
        if byte >= 0x80:
            if data[at + 1] == 0x84 and data[at + 2] == 0xAA:
                return False
            continue
        byte |= 0x20
        if byte == 0x7B:
            return False
        if at + 1 == end:
            continue
        before, after = data[max(at - 1, start)] | 0x20, data[at + 1] | 0x20
        if (
            (byte == 0x6A and after == 0x61)
            or (byte == 0x76 and before == 0x69 and after == 0x61)
            or (byte == 0x6B and before == 0x6F and after == 0x69)
            or (byte == 0x66 and before == 0x6F and after == 0x20)
            or (byte == 0x70 and before == 0x69 and after == 0x73)
        ):
            return False
    return True


@native
def _is_terminal(byte):  # type: ignore[no-untyped-def]
    return byte == 0x2E or byte == 0x3F or byte == 0x21 or byte == 0x22 or byte == 0x27


@native
def _is_ellipsis(text, start, end):  # type: ignore[no-untyped-def]
    return end - start >= 3 and text[end - 1] == 0x2E and text[end - 2] == 0x2E and text[end - 3] == 0x2E


@numba.njit
def _lowered(data, start, end, table, notes, note_lengths, text):  # type: ignore[no-untyped-def]
    """Write data[start:end] to `text`, without citations and in lower case as far as ASCII goes: (bytes, was there a citation)."""
    size, cited = 0, False
    while start < end:
        byte = data[start]
        if byte == 0x5B:
            stop = _citation(data, start, end, table, notes, note_lengths)
            if stop > start:
                start, cited = stop, True
                continue
        elif 0x41 <= byte <= 0x5A:
            byte += 0x20
        elif byte == 0xE2 and data[start + 1] == 0x84 and data[start + 2] == 0xAA:
            byte = 0x6B  # the Kelvin sign: the only other character whose lower case is ASCII
            start += 2
        text[size] = byte
        size += 1
        start += 1
    return size, cited


@numba.njit
def _citation(data, start, end, table, notes, note_lengths):  # type: ignore[no-untyped-def]
    """Where the citation that begins with the bracket at `start` ends, `start` if none does: digits or a note, in brackets."""
    at = start + 1
    while at < end:
        code, width = decode(data, at)
        if not table[code] & DECIMAL:
            break
        at += width
    if at < end and data[at] == 0x5D:
        return at + 1
    for note in range(len(notes)):
        if start + note_lengths[note] <= end and _stands(notes[note], note_lengths[note], data, start):
            return start + note_lengths[note]
    return start


@numba.njit
def _stands(string, length, data, at):  # type: ignore[no-untyped-def]
    i = 0
    while i < length and data[at + i] == string[i]:
        i += 1
    return i == length


@numba.njit
def _found(text, size, begins, phrases, lengths):  # type: ignore[no-untyped-def]
    """Which phrases are in the text, a bit for each, and whether a curly bracket is."""
    found, curly = 0, False
    for at in range(size):
        curly |= text[at] == 0x7B
        if begins[text[at]]:
            for phrase in range(len(phrases)):
                if text[at] == phrases[phrase, 0] and at + lengths[phrase] <= size and _stands(phrases[phrase], lengths[phrase], text, at):
                    found |= 1 << phrase
    return found, curly


def citations(data: Bytes, lines: Lines, judged: Judged) -> Found:
    """The citations in the lines that stay; and where they open a text, the whitespace that then does (rule WHITESPACE)."""
    return Found(*_citations(data, lines.offsets, *judged.kept, judged.cited, character_table(), *rows_of(_NOTES)))


@numba.njit(cache=True, nogil=True)
def _citations(data, offsets, starts, ends, rules, cited, table, notes, note_lengths):  # type: ignore[no-untyped-def]
    most = 0
    for line in np.flatnonzero(cited):
        for at in range(starts[line], ends[line]):
            most += 2 * (data[at] == 0x5B)
    span_starts, span_ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    span_rules = np.empty(most, dtype=np.uint8)
    spans = 0
    for text in range(len(offsets) - 1):
        opens = True
        for line in range(offsets[text], offsets[text + 1]):
            if rules[line] != STAYS:
                continue
            at = starts[line]
            while cited[line] and at < ends[line]:
                stop, rule = at, CITATION
                if data[at] == 0x5B:
                    stop = _citation(data, at, ends[line], table, notes, note_lengths)
                elif opens:
                    stop = trimmed(data, at, ends[line])[0]
                    rule = WHITESPACE
                if stop > at:
                    span_starts[spans], span_ends[spans], span_rules[spans] = at, stop, rule
                    spans += 1
                    at = stop
                else:
                    opens = False
                    at += 1
            opens = False
    return span_starts[:spans].copy(), span_ends[:spans].copy(), span_rules[:spans].copy(), np.zeros(spans, dtype=np.int32)


def sentences(data: Bytes, lines: Lines, judged: Judged) -> Counts:
    """[texts] int64: sentences (sentences.py) of each text's lines that stay, without their citations, each line by itself."""
    stays = np.flatnonzero(judged.kept.rules == STAYS)
    starts, ends, cited = judged.kept.starts[stays], judged.kept.ends[stays], judged.cited[stays]
    counts = np.zeros(len(judged.kept.rules), np.int64)
    counts[stays] = count_sentences(*_cleaned(data, starts, ends, cited, character_table(), *rows_of(_NOTES)))
    return sums(counts, lines.offsets)


@numba.njit(cache=True, nogil=True)
def _cleaned(data, starts, ends, cited, table, notes, note_lengths):  # type: ignore[no-untyped-def]
    """data[starts:ends] without citations: one flat array, and offsets."""
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    cleaned = np.empty((ends - starts).sum(), dtype=np.uint8)
    size = 0
    for line in range(len(starts)):
        at = starts[line]
        if not cited[line]:
            for i in range(at, ends[line]):
                cleaned[size + i - at] = data[i]
            size += ends[line] - at
            at = ends[line]
        while at < ends[line]:
            stop = _citation(data, at, ends[line], table, notes, note_lengths) if data[at] == 0x5B else at
            if stop == at:
                cleaned[size] = data[at]
                size += 1
                stop += 1
            at = stop
        offsets[line + 1] = size
    return cleaned[:size], offsets
