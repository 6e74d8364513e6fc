"""Pieces of texts, that is lines or paragraphs: where they are, how they begin and end, how many a text has twice.

In:   the bytes of many texts in one flat array with their offsets, as Arrow holds a string column.
Out:  Pieces, where each begins and ends; integer counts per text.
Cost: `split`, `stripped` and `duplicate_counts` a pass over the bytes each, 1 or 2 ns a byte; 16 bytes per piece, and
      20 more per piece of the text that has the most.
Not:  no piece is told from another by its hash alone; all counts are exact.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from pipeline.text.lines import trimmed
from pipeline.text.utf8 import Bytes, Counts, Offsets

PIECES, CHARACTERS, COPIES, COPY_CHARACTERS, LATER, LATER_CHARACTERS = range(6)

_FREE = -1


class Pieces(NamedTuple):
    """Piece p of text t, offsets[t] ≤ p < offsets[t + 1], is the bytes starts[p] … ends[p] - 1. All int64."""

    starts: Offsets
    ends: Offsets
    offsets: Offsets


def split(data: Bytes, offsets: Offsets, newlines: int) -> Pieces:
    """Each text's `re.split("\\\\n{newlines,}", text)`: between longest runs of at least so many "\\n".

    A text that begins or ends with such a run has an empty first or last piece; the empty text is one empty piece.
    """
    begin = offsets[0]
    return Pieces(*_split(np.flatnonzero(data[begin : offsets[-1]] == 0x0A) + begin, offsets, newlines))


@numba.njit(cache=True, nogil=True)
def _split(breaks, offsets, newlines):  # type: ignore[no-untyped-def]
    """breaks: where all "\\n" are."""
    texts = len(offsets) - 1
    starts, ends = np.empty(len(breaks) + texts, dtype=np.int64), np.empty(len(breaks) + texts, dtype=np.int64)
    piece_offsets = np.zeros(texts + 1, dtype=np.int64)
    pieces = i = 0
    for text in range(texts):
        start, end = offsets[text], offsets[text + 1]
        while i < len(breaks) and breaks[i] < end:
            first, stop = i, breaks[i]
            while i < len(breaks) and breaks[i] == stop and stop < end:
                i, stop = i + 1, stop + 1
            if i - first >= newlines:
                starts[pieces], ends[pieces] = start, breaks[first]
                pieces += 1
                start = stop
        starts[pieces], ends[pieces] = start, end
        pieces += 1
        piece_offsets[text + 1] = pieces
    return starts[:pieces].copy(), ends[:pieces].copy(), piece_offsets


def stripped(data: Bytes, pieces: Pieces) -> Pieces:
    """The pieces without Unicode whitespace at both ends, as `str.strip()` has it, without those that are then empty."""
    return Pieces(*_stripped(data, *pieces))


@numba.njit(cache=True, nogil=True)
def _stripped(data, starts, ends, offsets):  # type: ignore[no-untyped-def]
    kept_starts, kept_ends, kept_offsets = np.empty_like(starts), np.empty_like(ends), np.zeros_like(offsets)
    kept = 0
    for text in range(len(offsets) - 1):
        for piece in range(offsets[text], offsets[text + 1]):
            start, end = trimmed(data, starts[piece], ends[piece])
            if start < end:
                kept_starts[kept], kept_ends[kept] = start, end
                kept += 1
        kept_offsets[text + 1] = kept
    return kept_starts[:kept].copy(), kept_ends[:kept].copy(), kept_offsets


def duplicate_counts(data: Bytes, pieces: Pieces) -> Counts:
    """[texts, 6] int64. Two pieces are equal if all their bytes are; the counts, in the order of their names here:

    PIECES, CHARACTERS              all pieces, and their characters;
    COPIES, COPY_CHARACTERS         those that the text has more than once, all of them, and their characters;
    LATER, LATER_CHARACTERS         those that an equal one comes before, and their characters.
    """
    return _duplicate_counts(data, *pieces)


@numba.njit(cache=True, nogil=True)
def _duplicate_counts(data, starts, ends, offsets):  # type: ignore[no-untyped-def]
    counts = np.zeros((len(offsets) - 1, 6), dtype=np.int64)
    most = 0
    for text in range(len(counts)):
        most = max(most, offsets[text + 1] - offsets[text])
    hashes, first = np.empty(most, dtype=np.uint64), np.empty(most, dtype=np.bool_)
    slots = np.empty(4 * most + 4, dtype=np.int32)
    for text in range(len(counts)):
        begin, pieces = offsets[text], offsets[text + 1] - offsets[text]
        mask = 3
        while mask < 2 * pieces:
            mask = 2 * mask + 1
        slots[: mask + 1] = _FREE
        row = counts[text]
        row[PIECES] = pieces
        for piece in range(pieces):
            start, end = starts[begin + piece], ends[begin + piece]
            hashed, characters = np.uint64(0xCBF29CE484222325), 0  # FNV-1a
            for at in range(start, end):
                hashed = (hashed ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
                characters += data[at] & 0xC0 != 0x80
            row[CHARACTERS] += characters
            hashes[piece], first[piece] = hashed, True
            slot = np.int64(hashed >> np.uint64(32)) & mask
            while slots[slot] != _FREE:
                before = slots[slot]
                if hashes[before] == hashed and _equal(data, starts[begin + before], ends[begin + before], start, end):
                    break
                slot = (slot + 1) & mask
            if slots[slot] == _FREE:
                slots[slot] = piece
                continue
            times = 1 + first[before]  # the first one counts when the second one comes
            first[before] = False
            row[COPIES] += times
            row[COPY_CHARACTERS] += times * characters
            row[LATER] += 1
            row[LATER_CHARACTERS] += characters
    return counts


@numba.njit
def _equal(data, before, before_end, at, end):  # type: ignore[no-untyped-def]
    if before_end - before != end - at:
        return False
    while at < end and data[before] == data[at]:
        before, at = before + 1, at + 1
    return at == end


def edge_counts(data: Bytes, pieces: Pieces, beginnings: Sequence[str], endings: Sequence[str]) -> Counts:
    """[texts, 2] int64: pieces that begin with one of `beginnings`, and pieces that end with one of `endings`."""
    return _edge_counts(data, *pieces, *_padded(beginnings), *_padded(endings))


def _padded(strings: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoded = [string.encode() for string in strings]
    width = max(map(len, encoded))
    return (
        np.frombuffer(b"".join(each.ljust(width) for each in encoded), dtype=np.uint8).reshape(-1, width),
        np.array([len(each) for each in encoded]),
    )


@numba.njit(cache=True, nogil=True)
def _edge_counts(data, starts, ends, offsets, beginnings, beginning_lengths, endings, ending_lengths):  # type: ignore[no-untyped-def]
    counts = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
    for text in range(len(counts)):
        for piece in range(offsets[text], offsets[text + 1]):
            start, end = starts[piece], ends[piece]
            for each in range(len(beginnings)):
                stop = start + beginning_lengths[each]
                if stop <= end and _equal_to(data, start, beginnings[each], beginning_lengths[each]):
                    counts[text, 0] += 1
                    break
            for each in range(len(endings)):
                at = end - ending_lengths[each]
                if at >= start and _equal_to(data, at, endings[each], ending_lengths[each]):
                    counts[text, 1] += 1
                    break
    return counts


@numba.njit
def _equal_to(data, at, string, length):  # type: ignore[no-untyped-def]
    same = 0
    while same < length and data[at + same] == string[same]:
        same += 1
    return same == length
