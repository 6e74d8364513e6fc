"""Counts of words and symbols in a page, as the quality heuristics of DCLM make them, from UTF-8 bytes.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integer counts per text; the taggers make shares of them.
Cost: one pass, some hundred MB per second; a table of 1.1 MB per process. Imports numba.
Not:  words here are not those of pipeline.text.words: DCLM counts some rules over `str.split()` and some over fastText's.
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.utf8 import Bytes, Counts, Offsets, decode

LETTER, ALPHANUMERIC, SPACE, FASTTEXT_SPACE, SYMBOL, DOT = (1 << bit for bit in range(6))
WORDS, WORDS_WITHOUT_LETTER, SYMBOLS, FASTTEXT_WORDS = range(4)


@functools.cache
def character_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8, as this Python has it: bit LETTER where `str.isalpha()`, ALPHANUMERIC where `str.isalnum()`, SPACE
    where `str.isspace()`; FASTTEXT_SPACE where fastText's words end, SYMBOL at "#" and "…", DOT at "."."""
    table = np.zeros(0x110000, dtype=np.uint8)
    for code in range(len(table)):
        character = chr(code)
        table[code] = LETTER * character.isalpha() | ALPHANUMERIC * character.isalnum() | SPACE * character.isspace()
    for characters, bit in ((" \n\r\t\v\f\0", FASTTEXT_SPACE), ("#…", SYMBOL), (".", DOT)):
        table[[ord(character) for character in characters]] |= bit
    return table


def page_counts(data: Bytes, offsets: Offsets) -> Counts:
    """[texts, 4] int64, all 0 for an empty text; in the order of their names here:

    WORDS                 pieces of `str.split()`;
    WORDS_WITHOUT_LETTER  those without any `str.isalpha()`;
    SYMBOLS               "#", "…", "..." and ". . .", each found from left to right without overlap, as `str.count` does;
    FASTTEXT_WORDS        words of fastText's `tokenize`, which end at ASCII whitespace and NUL, whose first character is
                          alphanumeric: DCLM's `split_words(text, ignore_punctuation=True)`.
    """
    return _page_counts(data, offsets, character_table())


@numba.njit(cache=True, nogil=True)
def _page_counts(data, offsets, table):  # type: ignore[no-untyped-def]
    counts = np.zeros((len(offsets) - 1, 4), dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        words = without_letter = symbols = fasttext_words = 0
        dots = spaced_dots = at  # where the next "..." and ". . ." may begin
        before, letter = SPACE | FASTTEXT_SPACE, LETTER  # the character before; what the word so far has
        while at < end:
            code, width = decode(data, at)
            kind = table[code]
            if kind & SPACE:
                without_letter += not letter
                letter = LETTER
            elif before & SPACE:
                words += 1
                letter = kind & LETTER
            else:
                letter |= kind & LETTER
            fasttext_words += before & FASTTEXT_SPACE != 0 and kind & ALPHANUMERIC != 0
            if kind & (SYMBOL | DOT):
                symbols += kind & SYMBOL != 0
                if kind & DOT and at >= dots and at + 3 <= end and data[at + 1] == 0x2E and data[at + 2] == 0x2E:
                    symbols += 1
                    dots = at + 3
                if kind & DOT and at >= spaced_dots and at + 5 <= end and _spaced(data, at):
                    symbols += 1
                    spaced_dots = at + 5
            before = kind
            at += width
        without_letter += not letter
        counts[text, 0], counts[text, 1], counts[text, 2], counts[text, 3] = words, without_letter, symbols, fasttext_words
    return counts


@numba.njit
def _spaced(data, at):  # type: ignore[no-untyped-def]
    """Whether a dot is followed by " . ."."""
    return data[at + 1] == 0x20 and data[at + 2] == 0x2E and data[at + 3] == 0x20 and data[at + 4] == 0x2E
