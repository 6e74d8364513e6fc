"""Comments of Java and JavaScript, as Pygments' lexers see them, counted in one pass without Pygments.

In:   the bytes of many texts in one flat array with their offsets, and which of the two languages each is in.
Out:  characters in comments per text.
Cost: one pass, some hundred MB per second.
Not:  tokens. Followed is only what decides whether a "/" begins a comment: strings, templates, regular expressions, and the
      states that Pygments 2.21 (lexer.py, lexers/jvm.py, lexers/javascript.py) is in behind `class`, `import`, `record` … or
      where it has lost track. Its mistakes are kept, since the published thresholds were set with them; only which
      characters beyond ASCII are letters is this Python's notion, and Java's numbers are read simply ("0xFimport" is one word).
"""

import functools
import unicodedata

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.code_text import character_table
from pipeline.text.interning import Table, native
from pipeline.text.java_comments import TABLES, java_characters
from pipeline.text.javascript_comments import BEFORE_REGEX, PART, START, javascript_characters
from pipeline.text.utf8 import Bytes, Counts, Offsets

JAVA, JAVASCRIPT = 1, 2
PADDING = 6

_TABLES = (BEFORE_REGEX, *TABLES)
Tables = tuple[Table, Table, Table, Table]


def comment_characters(data: Bytes, offsets: Offsets, languages: npt.NDArray[np.int8]) -> Counts:
    """[n] int64: characters in comments; 0 where the language is neither JAVA nor JAVASCRIPT."""
    return _comment_characters(data, offsets, languages, _kinds(), _TABLES)


@functools.cache
def _kinds() -> Bytes:
    """[0x110000] code_text's flags, and START and PART beyond ASCII."""
    table = character_table().copy()
    for code in range(0x80, len(table)):
        category = unicodedata.category(chr(code))
        if category in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nl"):
            table[code] |= START | PART
        elif category in ("Mn", "Mc", "Nd", "Pc") or code in (0x200C, 0x200D):
            table[code] |= PART
    for code in map(ord, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$"):
        table[code] |= START | PART
    for code in map(ord, "0123456789"):
        table[code] |= PART
    return table


@numba.njit(cache=True, nogil=True)
def _comment_characters(data: Bytes, offsets: Offsets, languages: npt.NDArray[np.int8], kinds: Bytes, tables: Tables) -> Counts:
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    longest = 0
    for text in range(len(counts)):
        longest = max(longest, offsets[text + 1] - offsets[text])
    lines = np.zeros(longest + 1 + PADDING, dtype=np.uint8)
    for text in range(len(counts)):
        if languages[text]:
            start, end = _normal(data, offsets[text], offsets[text + 1], lines)
            if languages[text] == JAVA:
                counts[text] = java_characters(lines, start, end, kinds, tables)
            else:
                counts[text] = javascript_characters(lines, start, end, kinds, tables[0])
    return counts


@native
def _normal(data, at, end, lines):  # type: ignore[no-untyped-def]
    """Into `lines`: the text with "\\n" for every line's end, a last one, none before the first line, no byte order mark.

    More of them follow, so that a look at the next characters needs no check.
    """
    if end - at >= 3 and data[at] == 0xEF and data[at + 1] == 0xBB and data[at + 2] == 0xBF:
        at += 3
    size = 0
    while at < end:
        byte = data[at]
        if byte == 13:
            byte = np.uint8(10)
            if at + 1 < end and data[at + 1] == 10:
                at += 1
        lines[size] = byte
        size += 1
        at += 1
    start = 0
    while start < size and lines[start] == 10:
        start += 1
    while size > start and lines[size - 1] == 10:
        size -= 1
    lines[size : size + 1 + PADDING] = 10
    return start, size + 1
