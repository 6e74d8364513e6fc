"""The texts of chosen documents, as they were read and as the rules saw them.

In: places of documents in a store. Out: Documents. Cost: each row group that holds one is read once, 8 MB of text; a document's tokens are
read by themselves. Memory: a row group and the chosen documents.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import damage, edits
from pipeline.errors import PipelineError
from pipeline.sql import quoted_list
from pipeline.store import Store
from pipeline.taggers import SPANS
from pipeline.tokenizer import dtype_for
from tools.report.documents.sources import Place, Source

COLUMNS = ("id", "text", "created", "metadata", "file", "row")


@dataclass(frozen=True)
class Document:
    """read: the text as it was read. text: as the rules saw it, after the source's `prepare`. Both UTF-8. edits (SPANS): all that stands
    replaced in it, bytes of `read`; none where it was not kept."""

    place: Place
    id: str
    read: bytes
    text: bytes
    created: str | None
    metadata: str | None
    file: str
    row: int
    edits: pa.Table


def documents(store: Store, sources: Mapping[str, Source], places: Iterable[Place]) -> Iterator[Document]:
    """In the order of the places in the store. Raises PipelineError where a part's documents are missing."""
    wanted: dict[tuple[str, int], set[int]] = defaultdict(set)
    for place in places:
        wanted[place.source, place.part].add(place.row)
    for (name, number), rows in sorted(wanted.items()):
        source = sources[name]
        (part,) = (part for part in source.parts if part.number == number)
        before = _spans(store, source.units.get("prepared"), number)
        after = _spans(store, source.edits, number)
        path = part.documents.path
        with damage.named(store, path), _opened(store, path) as stream, pq.ParquetFile(stream) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                mine = sorted(row for row in rows if first <= row < first + count)
                if mine:
                    table = file.read_row_group(group, columns=list(COLUMNS)).take(pa.array([row - first for row in mine]))
                    yield from _documents(name, number, mine, table, before, after)
                first += count


def _opened(store: Store, path: str) -> BinaryIO:
    try:
        return store.open(path)
    except FileNotFoundError:
        raise PipelineError(f"{path}: missing; run make mix again") from None


def _spans(store: Store, folders: Sequence[str] | None, part: int) -> pa.Table:
    if not folders:
        return SPANS.empty_table()
    return _table(store, f"{folders[part]}/spans.parquet")


def _table(store: Store, path: str) -> pa.Table:
    with damage.named(store, path), _opened(store, path) as stream:
        return pq.read_table(stream)


def _documents(source: str, part: int, rows: list[int], table: pa.Table, before: pa.Table, after: pa.Table) -> Iterator[Document]:
    for row, fields in zip(rows, table.to_pylist(), strict=True):
        read = fields.pop("text")
        prepared = edits.of_rows(before, row, row + 1)
        text = edits.apply(pa.array([read], pa.large_string()), prepared)[0].as_py() if prepared.num_rows else read
        place = fields.pop("row")
        yield Document(
            Place(source, part, row), read=read.encode(), text=text.encode(), row=place, edits=edits.of_rows(after, row, row + 1), **fields
        )


def removed(store: Store, source: Source, place: Place) -> pa.Table:
    """What deduplication of paragraphs took from a document (SPANS), bytes of it as read."""
    name, tables = f"removed-{source.scope_part(place.part):06d}.parquet", [SPANS.empty_table()]
    for folder in source.units.get("paragraphs", []):
        if f"{folder}/{name}" in {file.path for file in store.record(folder).outputs}:
            spans = _table(store, f"{folder}/{name}")
            tables.append(spans.filter(pc.equal(spans["row"], place.row)))
    return pa.concat_tables(tables)


def tokens(store: Store, source: Source, place: Place, start: int, count: int) -> npt.NDArray[np.unsignedinteger]:
    """[count] the ids of a document, its closing token included, which lie from `start` in its part's tokens.bin."""
    (part,) = (part for part in source.parts if part.number == place.part)
    dtype = dtype_for(part.tokens.unit.params["vocab_size"])
    with store.open(part.tokens.output("tokens.bin").path) as stream:
        stream.seek(start * dtype.itemsize)
        content = stream.read(count * dtype.itemsize)
    return np.frombuffer(content, dtype)


def places(store: Store, source: Source, ids: Iterable[str]) -> dict[str, Place]:
    """Where documents of these ids lie in the parts that are looked at; of several with one id the first."""
    rows = {store.url(part.tokens.output("rows.parquet").path): part.number for part in source.parts}
    query = (
        f"SELECT id, path, file_row_number FROM read_parquet({quoted_list(rows)}, filename = 'path', file_row_number = true) "
        "WHERE id IN (SELECT unnest(?::VARCHAR[]))"
    )
    with duckdb.connect(":memory:") as connection:
        store.mount(connection)
        found = [
            (Place(source.name, rows[path], row), identity) for identity, path, row in connection.execute(query, [list(ids)]).fetchall()
        ]
    return {identity: place for place, identity in sorted(found, reverse=True)}
