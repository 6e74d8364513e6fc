"""Edits: spans of documents' texts and what stands in their place, applied while a text is on its way, never written back.

In:   the UTF-8 of many texts, as Arrow holds it, and spans (taggers.SPANS): bytes of a document's text, at least one each, ascending,
      not overlapping.
Out:  the texts so edited; positions in them as positions in the documents; several editors' spans as one table.
Cost: one copy of the bytes, native; nothing for documents without spans beyond it.
Not:  a span that begins or ends inside a character is refused: what it left would not be UTF-8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.documents import row_groups
from pipeline.errors import PipelineError
from pipeline.taggers import SPANS

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Consecutive documents of a part. `documents`: their columns, the text edited. `spans`: what was replaced in it, rows counted
    from 0. `bytes` [n] int64: of each text as read."""

    first: int  # the first one's row in the part
    documents: pa.RecordBatch
    spans: pa.Table
    bytes: npt.NDArray[np.int64]


def groups(part: Path, columns: Sequence[str], *spans: Path) -> Iterator[Group]:
    """A part's row groups, with these spans, if any, replaced in their texts."""
    edits = union([pq.read_table(path) for path in spans]) if spans else SPANS.empty_table()
    first = 0
    for documents in row_groups(part, columns):
        own = of_rows(edits, first, first + documents.num_rows)
        sizes = np.zeros(documents.num_rows, np.int64)
        if "text" in columns:
            field = documents.schema.get_field_index("text")
            sizes = pc.binary_length(documents["text"]).to_numpy().astype(np.int64)
            if own.num_rows:
                documents = documents.set_column(field, documents.schema.field(field), apply(documents["text"], own))
        yield Group(first, documents, own, sizes)
        first += documents.num_rows


def picked(group: Group, rows: npt.NDArray[np.int64]) -> tuple[pa.RecordBatch, pa.Table]:
    """Some documents of a group, given by their ascending places in it, and their spans with rows counted among these."""
    own = group.spans.filter(pc.is_in(group.spans["row"], pa.array(rows)))
    places = pa.array(np.searchsorted(rows, own["row"].to_numpy()))
    return group.documents.take(pa.array(rows)), own.set_column(0, SPANS.field("row"), places).combine_chunks()


def of_rows(spans: pa.Table, start: int, stop: int) -> pa.Table:
    """The spans of rows start … stop - 1, their rows counted from `start`. `spans` are ascending by row."""
    rows = spans["row"].to_numpy()
    begin, end = np.searchsorted(rows, (start, stop))
    own = spans.slice(int(begin), int(end - begin))
    return own.set_column(0, SPANS.field("row"), pa.array(rows[begin:end] - start, pa.int64())).combine_chunks()


def apply(texts: pa.Array, spans: pa.Table) -> pa.LargeStringArray:
    """The texts with each span replaced. `spans`: SPANS, row being the text's index.

    Raises PipelineError when spans overlap, do not ascend, or leave the text or a character.
    """
    from pipeline.text.edit_kernels import replaced

    data, offsets = flat(texts)
    rows, starts, ends = (spans[name].to_numpy() for name in ("row", "start", "end"))
    pieces, piece_offsets = flat(spans["replacement"].combine_chunks() if spans.num_rows else pa.array([], pa.string()))
    _check(data, offsets, rows, starts, ends)
    grown = np.diff(piece_offsets) - (ends - starts)
    lengths = np.diff(offsets)
    np.add.at(lengths, rows, grown)
    edited_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(lengths, out=edited_offsets[1:])
    edited = np.empty(int(edited_offsets[-1]), np.uint8)
    replaced(data, offsets, rows, starts, ends, pieces, piece_offsets, edited)
    return pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(edited_offsets), pa.py_buffer(edited))


def flat(texts: pa.Array) -> tuple[Bytes, Offsets]:
    """A string array's bytes and its n + 1 offsets into them, nothing copied where it is large_string."""
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    if offsets is None or not len(texts):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    values = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return values, np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]


def _check(data: Bytes, offsets: Offsets, rows: Offsets, starts: Offsets, ends: Offsets) -> None:
    if not len(rows):
        return
    begin, end = offsets[rows], offsets[rows + 1]
    inside = (starts >= 0) & (starts < ends) & (begin + ends <= end)
    inside[1:] &= (rows[1:] > rows[:-1]) | ((rows[1:] == rows[:-1]) & (starts[1:] >= ends[:-1]))
    for position in (starts, ends):
        at = begin + position
        within = inside & (at < end)
        inside[within] &= (data[at[within]] & 0xC0) != 0x80
    if not inside.all():
        bad = int(np.flatnonzero(~inside)[0])
        raise PipelineError(
            f"the edit of bytes {starts[bad]} to {ends[bad]} of row {rows[bad]} ({end[bad] - begin[bad]} bytes) is empty, overlaps "
            "another, or leaves the text or a character"
        )


def original(spans: pa.Table, before: pa.Table) -> pa.Table:
    """Spans of texts that `before` has edited, as spans of the documents themselves.

    A span reaches from where its first byte came from to where its last one did; a byte of a replacement came from all that was
    replaced. So what was removed inside a span is taken in with it, and what was removed beside it is not.
    """
    if not spans.num_rows or not before.num_rows:
        return spans
    from pipeline.text.edit_kernels import places

    was, begin, end = (before[name].to_numpy() for name in ("row", "start", "end"))
    sizes = pc.binary_length(before["replacement"]).to_numpy().astype(np.int64)
    rows, starts, ends = (spans[name].to_numpy() for name in ("row", "start", "end"))
    first, last = places(rows, starts, was, begin, end, sizes, False), places(rows, ends - 1, was, begin, end, sizes, True)
    return spans.set_column(1, SPANS.field("start"), pa.array(first)).set_column(2, SPANS.field("end"), pa.array(last))


def union(tables: Sequence[pa.Table]) -> pa.Table:
    """Several editors' spans of the same documents as one table that can be applied.

    Where spans overlap, the one that begins first (of these the longest, of these the last editor's) takes the others in: it then
    reaches to their end, and a replacement that stands in its middle is gone with its text; one that only overlaps its end follows its own.
    """
    from pipeline.text.edit_kernels import united

    together = pa.concat_tables(tables).combine_chunks()
    if sum(table.num_rows > 0 for table in tables) < 2:
        return together
    rows, starts, ends = (together[name].to_numpy() for name in ("row", "start", "end"))
    editor = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    order = np.lexsort((-editor, -ends, starts, rows))
    kept, reach, joined = united(rows[order], starts[order], ends[order])
    spans = together.take(pa.array(order[kept])).combine_chunks()
    if len(joined):
        texts, more = spans["replacement"].to_pylist(), together["replacement"].take(pa.array(order[joined[:, 1]])).to_pylist()
        for place, text in zip(joined[:, 0].tolist(), more, strict=True):
            texts[place] += text
        spans = spans.set_column(3, SPANS.field("replacement"), pa.array(texts, pa.string()))
    return spans.set_column(2, SPANS.field("end"), pa.array(reach))
