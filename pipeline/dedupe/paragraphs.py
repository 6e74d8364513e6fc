"""Repeated paragraphs: each stays where it stands first in a scope, and is a span to remove wherever it comes again.

In:   the texts of a scope in its order (source, part, row), twice: to count what the filter must hold, and to decide.
Out:  a Bloom filter made for what was counted; per batch the spans to remove, and per document what was looked up, how much of it
      had been seen, and why the document is dropped, if it is.
Cost: two passes over the text in one process, for every decision depends on all before it, and the filter: 3.6 bytes of memory per
      paragraph, 1.2 per word with bff.py. 80 to 180 MB of text per CPU-second, both passes together, and the more the
      longer its lines are; bff.py says its own.
Not:  what a false positive of the filter takes away is lost, at the rate that the filter's report states. A scope too large for one
      process is cut into several that know nothing of one another, as DCLM cut its pool into ten.

This is Dolma's meaning of a paragraph (allenai/dolma, src/deduper.rs with `skip_empty`, as in configs/dolma-v1_5/para_dedupe); DCLM's
stands in bff.py. Either way a document of which nothing but white space is left is dropped, and on what it leaves neither finds more.
"""

from collections.abc import Iterable, Iterator

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dedupe import bff
from pipeline.dedupe.bff import breaks
from pipeline.dedupe.bloom import Bloom, insert
from pipeline.dedupe.methods import Bff, Paragraphs
from pipeline.taggers import SPANS
from pipeline.text.interning import hash_bytes
from pipeline.text.utf8 import Bytes, Offsets, decode, is_space

Texts = tuple[int, int, Bytes, Offsets]  # number of the part in the scope, row of the first document, UTF-8 of n documents, [n + 1]

REMOVED = SPANS.insert(0, pa.field("part", pa.int64(), nullable=False))
DECISIONS = pa.schema(
    [
        pa.field("part", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("keys", pa.int64(), nullable=False),  # paragraphs or n-grams looked up
        pa.field("seen", pa.int64(), nullable=False),  # how many of them were in the filter
        pa.field("drop", pa.string(), nullable=False),  # why the document is dropped; "" where it stays
    ]
)


def bloom_for(texts: Iterable[Texts], method: Paragraphs | Bff) -> Bloom:
    """An empty filter for all that `method` will look up in `texts`. Keys that repeat are counted each time: it is never too small."""
    keys = sum(bff.count(data, offsets, method) if isinstance(method, Bff) else int(_count(data, offsets)) for _, _, data, offsets in texts)
    return Bloom.sized(keys, method.false_positive_rate)


def remove(texts: Iterable[Texts], method: Paragraphs | Bff, bloom: Bloom) -> Iterator[tuple[pa.Table, pa.Table]]:
    """For each batch of `texts`, in the scope's order: the spans to remove (REMOVED) and all its documents (DECISIONS).

    A document's spans ascend and do not overlap; one that is dropped has its spans nonetheless. drop: `nothing_left`, or with Bff
    `repeated`, where of all the document's n-grams more than the threshold were in the filter.
    """
    for part, first, data, offsets in texts:
        rows = np.arange(first, first + len(offsets) - 1)
        if isinstance(method, Bff):
            spans, counts = bff.look_up(data, offsets, method, bloom)
            repeated = counts[:, 1] / np.maximum(counts[:, 0], 1) > method.threshold
        else:
            spans, counts = _look_up(data, offsets, bloom)
            repeated = np.zeros(len(rows), np.bool_)
        drop = np.where(repeated, "repeated", np.where(_left(data, offsets, spans), "", "nothing_left"))
        count = len(spans)
        removed = [np.full(count, part), rows[spans[:, 0]], spans[:, 1], spans[:, 2], [""] * count, [method.method] * count]
        decided = [np.full(len(rows), part), rows, counts[:, 0], counts[:, 1], drop.tolist()]
        yield pa.table(removed, schema=REMOVED), pa.table(decided, schema=DECISIONS)


def _look_up(data: Bytes, offsets: Offsets, bloom: Bloom) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spans [s, 3] int64 (text, first byte, byte after the last) and counts [n, 2] int64 (paragraphs, of these seen before).

    A paragraph is a piece between "\\n". One that is empty or White_Space alone is neither looked up nor removed. One whose bytes came
    before, in this text or an earlier one, is removed with the "\\n" that ends it.
    """
    spans, counts = _repeated(data, offsets, bloom.words, bloom.hashes)
    bloom.inserted += int(counts[:, 0].sum() - counts[:, 1].sum())
    return spans, counts


@numba.njit(cache=True, nogil=True)
def _repeated(data, offsets, words, hashes):  # type: ignore[no-untyped-def]
    spans = np.empty((breaks(data, offsets), 3), np.int64)
    counts = np.zeros((len(offsets) - 1, 2), np.int64)
    found = 0
    for text in range(len(counts)):
        begin, end = offsets[text], offsets[text + 1]
        at = begin
        while at < end:
            stop, visible = line_piece(data, at, end)
            if visible:
                counts[text, 0] += 1
                if insert(words, hashes, hash_bytes(data, at, stop)):
                    counts[text, 1] += 1
                    spans[found, 0], spans[found, 1], spans[found, 2] = text, at - begin, min(stop + 1, end) - begin
                    found += 1
            at = stop + 1
    return spans[:found], counts


@numba.njit(cache=True, nogil=True)
def _count(data, offsets):  # type: ignore[no-untyped-def]
    """How many paragraphs of the texts will be looked up."""
    count = 0
    for text in range(len(offsets) - 1):
        at = offsets[text]
        while at < offsets[text + 1]:
            stop, visible = line_piece(data, at, offsets[text + 1])
            count += visible
            at = stop + 1
    return count


@numba.njit
def line_piece(data, at, end):  # type: ignore[no-untyped-def]
    """Where the piece that begins at `at` ends, at a "\\n" or at `end`, and whether it has more than White_Space."""
    visible = False
    while at < end and data[at] != 0x0A:
        if visible:
            at += 1
        else:
            visible, width = _is_visible(data, at)
            at += width
    return at, visible


@numba.njit
def _is_visible(data, at):  # type: ignore[no-untyped-def]
    """Whether the character at byte `at` is not White_Space, and its width. (Four controls are `str.isspace()`, but not White_Space.)"""
    code, width = decode(data, at)
    return not is_space(code) or 0x1C <= code <= 0x1F, width


@numba.njit(cache=True, nogil=True)
def _left(data, offsets, spans):  # type: ignore[no-untyped-def]
    """[n] bool: whether more than White_Space is left of each text without its spans."""
    left = np.zeros(len(offsets) - 1, np.bool_)
    span = 0
    for text in range(len(left)):
        at = offsets[text]
        while at < offsets[text + 1] and not left[text]:
            if span < len(spans) and spans[span, 0] == text and offsets[text] + spans[span, 1] == at:
                at = offsets[text] + spans[span, 2]
                span += 1
            else:
                left[text], width = _is_visible(data, at)
                at += width
        while span < len(spans) and spans[span, 0] == text:
            span += 1
    return left
