"""The compiled half of edits.py. Importing it imports numba: half a second."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def replaced(data, offsets, rows, starts, ends, pieces, piece_offsets, edited):  # type: ignore[no-untyped-def]
    """Fill `edited` with the texts, each span replaced by its piece. Spans ascend."""
    out = span = 0
    for text in range(len(offsets) - 1):
        at = offsets[text]
        while span < len(rows) and rows[span] == text:
            start, end = offsets[text] + starts[span], offsets[text] + ends[span]
            edited[out : out + start - at] = data[at:start]
            out += start - at
            size = piece_offsets[span + 1] - piece_offsets[span]
            edited[out : out + size] = pieces[piece_offsets[span] : piece_offsets[span + 1]]
            out += size
            at = end
            span += 1
        size = offsets[text + 1] - at
        edited[out : out + size] = data[at : at + size]
        out += size


@numba.njit(cache=True, nogil=True)
def places(rows, positions, edit_rows, edit_starts, edit_ends, sizes, behind):  # type: ignore[no-untyped-def]
    """Where in the documents the bytes at `positions` begin, or with `behind` where they end. Everything ascends."""
    places = np.empty(len(rows), np.int64)
    edit = 0
    row, shift = np.int64(-1), np.int64(0)  # shift: document minus edited text, behind the edits passed so far
    for i in range(len(rows)):
        if rows[i] != row:
            row, shift = rows[i], np.int64(0)
            while edit < len(edit_rows) and edit_rows[edit] < row:
                edit += 1
        while edit < len(edit_rows) and edit_rows[edit] == row and edit_starts[edit] - shift + sizes[edit] <= positions[i]:
            shift += edit_ends[edit] - edit_starts[edit] - sizes[edit]
            edit += 1
        if edit < len(edit_rows) and edit_rows[edit] == row and positions[i] >= edit_starts[edit] - shift:
            places[i] = edit_ends[edit] if behind else edit_starts[edit]
        else:
            places[i] = positions[i] + shift + behind
    return places


@numba.njit(cache=True, nogil=True)
def united(rows, starts, ends):  # type: ignore[no-untyped-def]
    """Of spans in order of row and start: which stay, how far each of these reaches, and [j, 2] pairs (place among those that stay, span
    that overlaps its end)."""
    kept, reach = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    joined = np.empty((len(rows), 2), np.int64)
    count = joins = 0
    for i in range(len(rows)):
        if count and rows[kept[count - 1]] == rows[i] and starts[i] < reach[count - 1]:
            if ends[i] > reach[count - 1]:
                reach[count - 1] = ends[i]
                joined[joins, 0], joined[joins, 1] = count - 1, i
                joins += 1
        else:
            kept[count], reach[count] = i, ends[i]
            count += 1
    return kept[:count], reach[:count], joined[:joins]
