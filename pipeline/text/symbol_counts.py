"""The symbols of Gopher's symbol-to-word ratio as datatrove counts them in a text, and what it takes for a symbol in a word.

In:   the bytes of many texts in one flat array with their offsets. Out: integer counts per text; a table of characters.
Cost: one pass over the bytes, 1 ns a byte; a table of 1.1 MB per process.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from pipeline.text.interning import kernel
from pipeline.text.line_ends import TERMINAL_PUNCTUATION
from pipeline.text.utf8 import LETTER, Bytes, Counts, Offsets, letter_table

CHARACTERS, HASHES, ELLIPSES = range(3)
NO_SYMBOL = 4  # beside LETTER

# Code points and ranges of them: control characters, punctuation of ASCII, and some of wider scripts, as datatrove 0.10.1 lists
# them (utils/text.py, PUNCTUATION_SET) beside TERMINAL_PUNCTUATION.
PUNCTUATION = """
    0-8 b-1f 22-2d 2f 3a-3e 40 5b-60 7b-9f ab b4 bb 2013-2014 2019 201c-201e 2026 2236 2501 25ba 3001 3008-300d 3010-3011 ff05
    ff08-ff09 ff0c ff11 ff1a-ff1b ff5e
"""


@cache
def character_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: bit LETTER as in `letter_table()`, bit NO_SYMBOL for what is in neither list of punctuation."""
    table = np.bitwise_or(letter_table() & LETTER, NO_SYMBOL, dtype=np.uint8)
    for first, _, last in (each.partition("-") for each in (PUNCTUATION + TERMINAL_PUNCTUATION).split()):
        table[int(first, 16) : int(last or first, 16) + 1] &= LETTER
    return table


def symbol_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[texts, 3] int64. The counts, in the order of their names here:

    CHARACTERS  of the text;
    HASHES      "#";
    ELLIPSES    "…", and "..." as `str.count()` finds it: four stops are one, six are two.
    """
    counts = np.zeros((len(offsets) - 1, 3), np.int64)
    _count(data, offsets, counts)
    return counts


@kernel
def _count(data, offsets, counts):  # type: ignore[no-untyped-def]
    for text in range(len(counts)):
        characters = hashes = ellipses = stops = 0
        for at in range(offsets[text], offsets[text + 1]):
            byte = data[at]
            characters += byte & 0xC0 != 0x80
            hashes += byte == 0x23
            stops = stops + 1 if byte == 0x2E else 0
            if stops == 3:
                ellipses, stops = ellipses + 1, 0
            if byte == 0xE2 and data[at + 1] == 0x80 and data[at + 2] == 0xA6:
                ellipses += 1
        counts[text, CHARACTERS], counts[text, HASHES], counts[text, ELLIPSES] = characters, hashes, ellipses
