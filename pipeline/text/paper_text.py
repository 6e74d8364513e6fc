"""Scientific papers as text: their most frequent words, and words that a scanner broke into letters.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  integers per text.
Cost: one pass for each function; the most frequent words need the distinct words of one text in memory. Imports numba.
"""

import functools

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.utf8 import SLOTS, Bytes, Counts, Offsets, count_words, decode, doubled, is_space, place_words


@numba.njit(cache=True, nogil=True)
def top_words(data: Bytes, offsets: Offsets) -> Counts:
    """[n, 4] int64: where the most frequent word and the second most frequent one begin and end in `data`.

    Words of `str.split()`; of equally frequent ones the first to occur, as `Counter.most_common` has it. 0, 0 where a text
    has no such word.
    """
    places = np.zeros((len(offsets) - 1, 4), dtype=np.int64)
    slots = np.empty(SLOTS, dtype=np.int32)
    seen = np.empty((SLOTS // 2, 4), dtype=np.int64)
    for text in range(len(places)):
        size, distinct = SLOTS, 0
        place_words(slots, size, seen, 0)
        at, distinct = count_words(data, offsets[text], offsets[text + 1], slots, size, seen, distinct)
        while at < offsets[text + 1]:  # as in utf8.word_counts
            size *= 2
            if size > len(slots):
                slots, seen = np.empty(size, dtype=np.int32), doubled(seen)
            place_words(slots, size, seen, distinct)
            at, distinct = count_words(data, at, offsets[text + 1], slots, size, seen, distinct)
        first = second = -1
        for row in range(distinct):
            if first < 0 or seen[row, 3] > seen[first, 3]:
                first, second = row, first
            elif second < 0 or seen[row, 3] > seen[second, 3]:
                second = row
        if first >= 0:
            places[text, 0], places[text, 1] = seen[first, 0], seen[first, 1]
        if second >= 0:
            places[text, 2], places[text, 3] = seen[second, 0], seen[second, 1]
    return places


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


@numba.njit
def _is_letter(code):  # type: ignore[no-untyped-def]
    return 0x61 <= code <= 0x7A or 0x41 <= code <= 0x5A
