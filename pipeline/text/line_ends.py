"""How lines end and how long they are, as FineWeb counts: lines with terminal punctuation, short lines.

In:   the bytes of many texts and their lines (duplicates.py). Out: integer counts per text, and the lines that are not blank.
Cost: two passes over the bytes, 2 ns a byte; a table of 1.1 MB per process.
"""

from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.duplicates import Pieces
from pipeline.text.utf8 import Bytes, Counts, Offsets, decode, is_space

CHARACTERS, NEWLINES, PUNCTUATED, SHORT = range(4)
SHORT_LINE = 30  # characters

# Code points and ranges of them. Sentence_Terminal of Unicode 15 and three signs of Khmer, as datatrove 0.10.1 lists them
# (utils/text.py, TERMINAL_PUNCTUATION).
TERMINAL_PUNCTUATION = """
    21 2e 3f 589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d6 17d9-17da 1803
    1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff
    a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57
    10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9
    1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8
    11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f 1da88
"""


@cache
def _terminal_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: 1 for TERMINAL_PUNCTUATION."""
    table = np.zeros(0x110000, np.uint8)
    for first, _, last in (each.partition("-") for each in TERMINAL_PUNCTUATION.split()):
        table[int(first, 16) : int(last or first, 16) + 1] = 1
    return table


def count(data: Bytes, offsets: Offsets, lines: Pieces) -> tuple[Counts, Pieces]:
    """[texts, 4] int64 and the lines with a character that is no whitespace, unstripped. In the order of their names here:

    CHARACTERS, NEWLINES  of the text;
    PUNCTUATED            lines whose last character is in TERMINAL_PUNCTUATION;
    SHORT                 lines of at most SHORT_LINE characters.
    """
    counts, *kept = _count(data, offsets, *lines, _terminal_table())
    return counts, Pieces(*kept)


@numba.njit(cache=True, nogil=True)
def _count(data, offsets, starts, ends, line_offsets, table):  # type: ignore[no-untyped-def]
    counts = np.zeros((len(offsets) - 1, 4), dtype=np.int64)
    kept_starts, kept_ends, kept_offsets = np.empty_like(starts), np.empty_like(ends), np.zeros_like(line_offsets)
    kept = 0
    for text in range(len(counts)):
        row = counts[text]
        for at in range(offsets[text], offsets[text + 1]):
            row[CHARACTERS] += data[at] & 0xC0 != 0x80
            row[NEWLINES] += data[at] == 0x0A
        for line in range(line_offsets[text], line_offsets[text + 1]):
            at, code, length, blank = starts[line], 0, 0, True
            while at < ends[line]:
                code, width = decode(data, at)
                blank = blank and is_space(code)
                length += 1
                at += width
            if not blank:
                row[PUNCTUATED] += table[code]
                row[SHORT] += length <= SHORT_LINE
                kept_starts[kept], kept_ends[kept] = starts[line], ends[line]
                kept += 1
        kept_offsets[text + 1] = kept
    return counts, kept_starts[:kept].copy(), kept_ends[:kept].copy(), kept_offsets
