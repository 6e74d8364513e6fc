"""Formulas and accents of mathematical pages, counted in UTF-8 bytes as OpenWebMath's filter counts them.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integer counts per text.
Cost: one pass, some hundred MB per second. Imports numba.
Not:  a formula is what stands between dollar signs, whether it is one or a price list.
"""

import numba
import numpy as np

from pipeline.text.utf8 import Bytes, Counts, Offsets

DOLLAR = 0x24


@numba.njit(cache=True, nogil=True)
def formula_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[n] int64: matches of `\\$\\$[^$]*\\$\\$|\\$[^$]*\\$`, from left to right without overlap."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        while at < end:
            if data[at] != DOLLAR:
                at += 1
                continue
            opened = at + 1
            if opened < end and data[opened] == DOLLAR:
                close = opened + 1
                while close < end and data[close] != DOLLAR:
                    close += 1
                if close + 1 < end and data[close + 1] == DOLLAR:  # $$ … $$
                    counts[text] += 1
                    at = close + 2
                    continue
                counts[text] += 1  # $$, an empty formula: what follows it does not end in $$
                at = opened + 1
                continue
            while opened < end and data[opened] != DOLLAR:
                opened += 1
            counts[text] += opened < end
            at = opened + 1
    return counts


@numba.njit(cache=True, nogil=True)
def accent_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[n, 2] int64: characters; those that are, in lower case, one of à â ä è é ê ï î ô ö û ü."""
    counts = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    accented = np.zeros(64, dtype=np.int64)
    for letter in (0xE0, 0xE2, 0xE4, 0xE8, 0xE9, 0xEA, 0xEE, 0xEF, 0xF4, 0xF6, 0xFB, 0xFC):
        accented[letter - 0xC0] = accented[letter - 0xE0] = 1  # U+00C0 to U+00FF: the byte C3, then 80 to BF
    for text in range(len(counts)):
        start, characters, found = offsets[text], 0, 0
        for at in range(start, offsets[text + 1]):
            characters += data[at] & 0xC0 != 0x80
            if data[at] == 0xC3:
                found += accented[data[at + 1] & 0x3F]
        counts[text, 0], counts[text, 1] = characters, found
    return counts
