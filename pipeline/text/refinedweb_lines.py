"""Which lines of a page the RefinedWeb rules leave, and how many words that costs, as DCLM's line modifiers have it.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column, and their lines.
Out:  per line the rule that removes it or what stays of it; phrases that are cut out of lines; words before and after.
Cost: three passes over the bytes, about 5 ns a byte in all; texts with one of three phrases in a short line are done again,
      in Python, at some 10 µs a line. Imports numba.
Not:  DCLM's modifiers each split and join the page again; between most of them they strip it, which is done here to the line
      that is then first and to the one that is then last.
"""

import re
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.text.interning import native
from pipeline.text.lines import DECIMAL, DIGIT, STAYS, UPPER, WHITESPACE, WORD, Found, Kept, Lines, character_table, rows_of, trimmed
from pipeline.text.utf8 import Bytes, Counts, decode, is_space

UPPERCASE, NUMERIC, COUNTER, SHORT, PHRASE = range(2, 7)
RULES = ("whitespace", "uppercase", "numeric", "counter", "short", "phrase")

# dclm_baseline_refinedweb.yaml
MOST_UPPERCASE, MOST_NUMERIC, FEWEST_WORDS, PHRASE_WORDS = 0.5, 0.999999, 2, 10
# counter_line_modifier
COUNTED = (
    "likes",
    "shares",
    "comments",
    "retweets",
    "reposts",
    "quotes",
    "bookmarks",
    "upvotes",
    "downvotes",
    "downloads",
    "views",
    "followers",
)
# substring_line_modifier's patterns of the three phrases; a dot is any character.
PHRASES = tuple(re.compile(pattern, re.I) for pattern in (r"\s?(?:items in cart)", r"\s?(?:read more...)$", r"^(?:sign-in)\s?"))
_FASTTEXT_SPACE = re.compile("[ \\t\\n\\v\\f\\r\\0]+")
# Matches in every text that one of them matches in: `re` takes ı and İ for i as well, ſ for s and the Kelvin sign for k.
_HINT = "(?i)[iıİ]tems [iıİ]n cart|read more|s[iıİ]gn-[iıİ]n"
_find_hint = re.compile(_HINT).search
_CHARACTERS, _UPPER, _DIGITS, _WORDS, _FASTTEXT_WORDS = range(5)


class Judged(NamedTuple):
    """Per line what stays; besides, spans within lines, and what replaces them; words [texts, 2] int64 before and after."""

    kept: Kept
    cut: Found
    replacements: list[str]
    words: Counts


def judge(texts: pa.Array, data: Bytes, lines: Lines) -> Judged:
    """Lines (of `split`) by the rule that removes them, in DCLM's order. Words are those of `gopher_dclm_words`."""
    hinted = pc.match_substring_regex(texts, _HINT).to_numpy(zero_copy_only=False)
    starts, ends, rules, counts, words = _judge(data, *lines, hinted, character_table(), *rows_of(COUNTED))
    kept = Kept(starts, ends, rules)
    cuts: list[tuple[int, int, str]] = []
    for text in np.flatnonzero(hinted):
        words[text, 1] = _cut_phrases(data, range(lines.offsets[text], lines.offsets[text + 1]), kept, counts, cuts)
    pieces = ["", "\n", *(piece for _, _, piece in cuts)]
    cut_starts, cut_ends = (np.array([cut[end] for cut in cuts], np.int64) for end in (0, 1))
    cut = Found(cut_starts, cut_ends, np.full(len(cuts), PHRASE, np.uint8), np.arange(2, len(pieces), dtype=np.int32))
    return Judged(kept, cut, pieces, words)


@numba.njit(cache=True, nogil=True)
def _judge(data, line_starts, line_ends, line_stops, offsets, hinted, table, counted, counted_lengths):  # type: ignore[no-untyped-def]
    starts, ends, rules = line_starts.copy(), line_ends.copy(), np.zeros(len(line_starts), dtype=np.uint8)
    counts = np.zeros((len(starts), 5), dtype=np.int64)
    words = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    for text in range(len(words)):
        first, stop = offsets[text], offsets[text + 1]
        for line in range(first, stop):
            _measure(data, starts[line], ends[line], table, counts, line)
            words[text, 0] += counts[line, _FASTTEXT_WORDS]
            if counts[line, _CHARACTERS] and counts[line, _UPPER] / counts[line, _CHARACTERS] > MOST_UPPERCASE:
                rules[line] = UPPERCASE
        _strip(data, first, stop, starts, ends, rules, counts, table)
        for line in range(first, stop):
            characters = counts[line, _CHARACTERS]
            if rules[line] == STAYS and characters and counts[line, _DIGITS] / characters > MOST_NUMERIC:
                rules[line] = NUMERIC
        _strip(data, first, stop, starts, ends, rules, counts, table)
        for line in range(first, stop):
            if rules[line] == STAYS and _is_counter(data, starts[line], ends[line], table, counted, counted_lengths):
                rules[line] = COUNTER
        _strip(data, first, stop, starts, ends, rules, counts, table)
        for line in range(first, stop):
            if rules[line] == STAYS and counts[line, _CHARACTERS] and counts[line, _WORDS] < FEWEST_WORDS:
                rules[line] = SHORT
        if hinted[text]:
            continue
        _strip(data, first, stop, starts, ends, rules, counts, table)
        for line in range(first, stop):
            if rules[line] == STAYS:
                words[text, 1] += counts[line, _FASTTEXT_WORDS]
    return starts, ends, rules, counts, words


@native
def _measure(data, at, end, table, counts, line):  # type: ignore[no-untyped-def]
    characters = upper = digits = words = fasttext_words = 0
    inside = fasttext_inside = False
    while at < end:
        byte = data[at]
        if 0x20 < byte < 0x80:
            words += not inside
            fasttext_words += not fasttext_inside and table[byte] & WORD != 0 and byte != 0x5F
            inside = fasttext_inside = True
            first = at
            while at < end:
                byte = data[at]
                if not 0x20 < byte < 0x80:
                    break
                upper += 0x41 <= byte <= 0x5A
                digits += 0x30 <= byte <= 0x39
                at += 1
            characters += at - first
            continue
        code, width = decode(data, at)
        bits = table[code]
        characters += 1
        upper += bits & UPPER != 0
        digits += bits & DIGIT != 0
        space = is_space(code)
        words += not space and not inside
        inside = not space
        if code == 0x20 or 0x09 <= code <= 0x0D or code == 0:
            fasttext_inside = False
        elif not fasttext_inside:
            fasttext_words += bits & WORD != 0 and code != 0x5F  # alphanumeric
            fasttext_inside = True
        at += width
    counts[line, _CHARACTERS], counts[line, _UPPER], counts[line, _DIGITS] = characters, upper, digits
    counts[line, _WORDS], counts[line, _FASTTEXT_WORDS] = words, fasttext_words


@native
def _strip(data, first, stop, starts, ends, rules, counts, table):  # type: ignore[no-untyped-def]
    """What `str.strip()` does to the lines that stay, joined with newlines."""
    for step in (1, -1):
        line = first if step == 1 else stop - 1
        while first <= line < stop:
            if rules[line] == STAYS:
                start, end = trimmed(data, starts[line], ends[line])
                if start < end:
                    start, end = (start, ends[line]) if step == 1 else (starts[line], end)
                    if start > starts[line] or end < ends[line]:
                        starts[line], ends[line] = start, end
                        _measure(data, start, end, table, counts, line)
                    break
                rules[line] = WHITESPACE
            line += step


@native
def _is_counter(data, at, end, table, counted, lengths):  # type: ignore[no-untyped-def]
    r"""`^\W*\d(?:,|\.|\d)*(?:k|m|b)?\s+(?:COUNTED)\W*$` of the line in lower case."""
    at = _no_word(data, at, end, table)
    if at == end or not table[decode(data, at)[0]] & DECIMAL:
        return False
    while at < end:
        code, width = decode(data, at)
        if not (table[code] & DECIMAL or code == 0x2C or code == 0x2E):
            break
        at += width
    if at < end:
        code, width = _folded(data, at)
        at += width * (code == 0x6B or code == 0x6D or code == 0x62)
    space = at
    while at < end:
        code, width = decode(data, at)
        if not is_space(code):
            break
        at += width
    if at == space:
        return False
    for word in range(len(counted)):
        behind = _behind(data, at, end, counted, word, lengths[word])
        if behind:
            return _no_word(data, behind, end, table) == end
    return False


@native
def _no_word(data, at, end, table):  # type: ignore[no-untyped-def]
    r"""Where the run of \W at `at` ends."""
    while at < end:
        code, width = decode(data, at)
        if table[code] & WORD:
            break
        at += width
    return at


@native
def _folded(data, at):  # type: ignore[no-untyped-def]
    """The character at `at` in lower case, as far as ASCII goes, and its width."""
    code, width = decode(data, at)
    if 0x41 <= code <= 0x5A:
        return code + 0x20, width
    return (0x6B if code == 0x212A else code), width


@native
def _behind(data, at, end, strings, row, length):  # type: ignore[no-untyped-def]
    """Where strings[row] ends that begins at `at` in any case; 0 if it does not."""
    for i in range(length):
        if at == end:
            return 0
        code, width = _folded(data, at)
        if code != strings[row, i]:
            return 0
        at += width
    return at


def _cut_phrases(data: Bytes, lines: range, kept: Kept, counts: Counts, cuts: list[tuple[int, int, str]]) -> int:
    """The last three modifiers on one text. Writes to `kept` and `cuts` (start, end, replacement); returns the words left."""
    before = {line: data[kept.starts[line] : kept.ends[line]].tobytes().decode() for line in lines if kept.rules[line] == STAYS}
    after = dict(before)
    hinted = [line for line, text in before.items() if _find_hint(text)]
    for phrase in PHRASES:
        for line in hinted:
            text = after.get(line, "")
            if text and len(text.split()) <= PHRASE_WORDS:
                after[line] = phrase.sub("", text)
                if not after[line].strip():
                    del after[line]
                    kept.rules[line] = PHRASE
        for line in list(after):
            after[line] = after[line].lstrip()
            if after[line]:
                break
            del after[line]
            kept.rules[line] = WHITESPACE
        for line in reversed(list(after)):
            after[line] = after[line].rstrip()
            if after[line]:
                break
            del after[line]
            kept.rules[line] = WHITESPACE
    for line, text in after.items():
        if text != before[line]:
            cuts.append(_difference(int(kept.starts[line]), before[line], text))
            counts[line, _FASTTEXT_WORDS] = sum(word[:1].isalnum() for word in _FASTTEXT_SPACE.split(text))
    return int(counts[list(after), _FASTTEXT_WORDS].sum())


def _difference(start: int, before: str, after: str) -> tuple[int, int, str]:
    """The bytes, counted from `start`, where two strings differ, and what `after` has there."""
    shorter = min(len(before), len(after))
    head = next((i for i in range(shorter) if before[i] != after[i]), shorter)
    tail = next((i for i in range(shorter - head) if before[-1 - i] != after[-1 - i]), shorter - head)
    first = start + len(before[:head].encode())
    return first, first + len(before[head : len(before) - tail].encode()), after[head : len(after) - tail]
