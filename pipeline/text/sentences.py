"""Sentences of English texts, counted as spaCy's rule-based sentencizer counts them.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  how many sentences each has.
Cost: two passes over the bytes, 6 ns a byte in all; and splitting into spaCy's words what has a full stop or its like in it,
      which is one stretch without whitespace in twenty. A table of 1.1 MB per process. Imports numba, and spaCy.
Not:  it does not say where they are.

A sentence begins behind a terminator, at the first word that is neither punctuation nor a terminator. So it only matters in a
stretch with a terminator where spaCy sees words; any other is a word or is punctuation as a whole, for this purpose.
"""

import unicodedata
from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import native
from pipeline.text.utf8 import Bytes, Counts, Offsets, decode, is_space
from pipeline.text.words import segment

_TERMINATOR, _NO_PUNCTUATION = 1, 2


def count_sentences(data: Bytes, offsets: Offsets) -> Counts:
    """[texts] int64: `len(list(nlp(text).sents))`, nlp being spaCy's blank English with a sentencizer; 0 for an empty text."""
    table = _sentence_table()
    chunks, chunk_offsets, starts = _terminated_chunks(data, offsets, table)
    words = segment(chunks, chunk_offsets, "spacy")
    flags = words.flags(table)
    flags = np.where(words.lengths == 1, flags, flags & _NO_PUNCTUATION).astype(np.uint8)
    return _count_sentences(data, offsets, table, starts, flags[words.ids], words.offsets)


@cache
def _sentence_table() -> npt.NDArray[np.uint8]:
    """[0x110000] uint8: _TERMINATOR and _NO_PUNCTUATION of each character, as spaCy's sentencizer and `token.is_punct` have them."""
    from spacy.pipeline import Sentencizer

    no_punctuation = (not unicodedata.category(chr(code)).startswith("P") for code in range(0x110000))
    table = np.fromiter(no_punctuation, np.uint8, 0x110000) * np.uint8(_NO_PUNCTUATION)
    for character in Sentencizer.default_punct_chars:
        table[ord(character)] |= _TERMINATOR
    return table


@numba.njit(cache=True, nogil=True)
def _terminated_chunks(data, offsets, table):  # type: ignore[no-untyped-def]
    """The chunks, that is words of `str.split()`, with a terminator in them: one flat array, offsets, and where in `data` each is."""
    chunks, chunk_offsets = np.empty(len(data), dtype=np.uint8), np.zeros(len(data) + 1, dtype=np.int64)
    starts = np.empty(len(data), dtype=np.int64)  # pages that are not written to cost nothing
    found = size = 0
    for line in range(len(offsets) - 1):
        at, end = offsets[line], offsets[line + 1]
        while at < end:
            code, width = np.int64(data[at]), 1
            if code >= 0x80:
                code, width = decode(data, at)
            if not table[code] & _TERMINATOR:
                at += width
                continue
            start = _chunk_start(data, offsets[line], at)
            _, stop, _ = _next_chunk(data, start, end, table)
            starts[found] = start
            for i in range(start, stop):
                chunks[size] = data[i]
                size += 1
            found += 1
            chunk_offsets[found] = size
            at = stop
    return chunks[:size], chunk_offsets[: found + 1].copy(), starts[:found].copy()


@native
def _chunk_start(data, first, at):  # type: ignore[no-untyped-def]
    """Where the chunk begins that has the character at `at`, in a text that begins at `first`."""
    while at > first:
        before = at - 1
        while data[before] & 0xC0 == 0x80:
            before -= 1
        if is_space(decode(data, before)[0]):
            break
        at = before
    return at


@native
def _next_chunk(data, at, end, table):  # type: ignore[no-untyped-def]
    """(start, stop, the table's flags of its characters) of the first word of `str.split()`; start is `end` if there is none."""
    start, flags = end, np.uint8(0)
    while at < end:
        code, width = decode(data, at)
        if not is_space(code):
            start = min(start, at)
            flags |= table[code]
        elif start < end:
            break
        at += width
    return start, at, flags


@numba.njit(cache=True, nogil=True)
def _count_sentences(data, offsets, table, chunk_starts, word_flags, word_offsets):  # type: ignore[no-untyped-def]
    """[lines] int64. The words are those of the terminated chunks, in their order. Others matter only behind a terminator."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    chunk = 0
    for line in range(len(counts)):
        at, end = offsets[line], offsets[line + 1]
        counts[line] = at < end
        terminated = False
        while at < end:
            if not terminated:
                if chunk == len(chunk_starts) or chunk_starts[chunk] >= end:
                    break
                at = chunk_starts[chunk]
            start, stop, flags = _next_chunk(data, at, end, table)
            if terminated and (start - at > 1 or data[at] != 0x20):  # whitespace is a word, but for a single space
                counts[line] += 1
                terminated = False
            if not flags & _TERMINATOR:
                counts[line] += terminated and flags & _NO_PUNCTUATION > 0
                terminated = terminated and not flags & _NO_PUNCTUATION
            else:
                for word in range(word_offsets[chunk], word_offsets[chunk + 1]):
                    if word_flags[word] & _TERMINATOR:
                        terminated = True
                    elif terminated and word_flags[word] & _NO_PUNCTUATION:
                        counts[line] += 1
                        terminated = False
                chunk += 1
            at = stop
    return counts
