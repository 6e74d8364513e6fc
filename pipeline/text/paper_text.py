"""Scientific papers as text: their most frequent words, and words that a scanner broke into letters.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integers per text.
Cost: one pass for each function; the most frequent words need the distinct words of one text in memory. Imports numba.
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.interning import native
from pipeline.text.utf8 import Bytes, Counts, Offsets, decode, is_space
from pipeline.text.words import Words


def top_words(words: Words) -> Counts:
    """[n, 2] int64: which of the words, by its place in `words.ids`, is the first of the most frequent one and of the second.

    Of equally frequent ones the first to occur, as `Counter.most_common` has it. -1 where a text has no such word.
    """
    return _top_words(words.ids, words.offsets, len(words.lengths))


@numba.njit(cache=True, nogil=True)
def _top_words(ids, offsets, vocabulary):  # type: ignore[no-untyped-def]
    places = np.full((len(offsets) - 1, 2), -1, dtype=np.int64)
    times = np.zeros(vocabulary, dtype=np.int32)
    for text in range(len(places)):
        for at in range(offsets[text], offsets[text + 1]):
            times[ids[at]] += 1
        most = second_most = 0
        for at in range(offsets[text], offsets[text + 1]):
            found = times[ids[at]]
            times[ids[at]] = 0  # a word counts where it is first, and the next text finds nothing
            if found > most:
                places[text, 1], second_most = places[text, 0], most
                places[text, 0], most = at, found
            elif found > second_most:
                places[text, 1], second_most = at, found
    return places


def parts(data: Bytes, offsets: Offsets, words: Words) -> Counts:
    """[n, 2] int64: pieces between "\\n\\n" with a word in them; words behind the first "\\n\\n"."""
    return _parts(data, offsets, words.ids, words.offsets, words.starts, words.byte_lengths)


@numba.njit(cache=True, nogil=True)
def _parts(data, offsets, ids, word_offsets, starts, sizes):  # type: ignore[no-untyped-def]
    counts = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    for text in range(len(counts)):
        before = offsets[text]
        behind = False  # are we behind a "\n\n"?
        for word in range(word_offsets[text], word_offsets[text + 1]):
            # "\n" parts words, so that every "\n\n" is between two of them, and two "\n" there are one.
            parted = False
            for at in range(before + 1, starts[word]):
                parted |= data[at] == 0x0A and data[at - 1] == 0x0A
            behind |= parted
            counts[text, 0] += parted or word == word_offsets[text]
            counts[text, 1] += behind
            before = starts[word] + sizes[ids[word]]
    return counts


@functools.cache
def _word_characters() -> npt.NDArray[np.bool_]:
    """[0x110000] bool: `\\w` of Python's re."""
    return np.array([chr(code).isalnum() or code == 0x5F for code in range(0x110000)])


def spaced_letters(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """[n] int64: matches of `\\b([A-Za-z]\\s)([a-z]\\s)*[A-Za-z]\\b`, from left to right without overlap."""
    return _spaced_letters(data, offsets, _word_characters())


@numba.njit(cache=True, nogil=True)
def _spaced_letters(data: Bytes, offsets: Offsets, word_characters: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for text in range(len(counts)):
        at, end = offsets[text], offsets[text + 1]
        inside = False  # is the character before `at` one of a word?
        while at < end:
            byte = data[at]
            if byte < 0x80 and (inside or at + 1 == end or 0x20 < data[at + 1] < 0x80):  # no letter by itself
                inside = word_characters[byte]
                at += 1
                continue
            code, width = decode(data, at)
            after = at + width
            if inside or not _is_letter(code) or after == end:
                inside = word_characters[code]
                at = after
                continue
            # A letter that begins a word. The pattern wants pairs of a letter and a blank, of small letters but for the
            # first, and one letter more at a word's end; of a pair it can give the blank back, but not of the first.
            stop, pairs = after, 0
            while stop < end:
                blank, width = decode(data, stop)
                if not is_space(blank) or stop + width == end:
                    break
                following, _ = decode(data, stop + width)
                if not _is_letter(following):
                    break
                last = stop + width + 1
                if last < end and word_characters[decode(data, last)[0]]:
                    break
                stop, pairs = last, pairs + 1
                if following < 0x61:  # a capital ends it
                    break
            counts[text] += pairs > 0
            at = stop
            inside = True
    return counts


@native
def _is_letter(code):  # type: ignore[no-untyped-def]
    return 0x61 <= code <= 0x7A or 0x41 <= code <= 0x5A
