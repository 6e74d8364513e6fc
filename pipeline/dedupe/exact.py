"""Exact duplicates: documents whose normalised text is the same, all but one of them marked.

In:   texts → 16-byte hashes (`hash_texts`); then tables of one narrow row per document (`find_duplicates`).
Out:  one row for each document to drop, with the one that stays: the lowest source order, then the lowest id.
Cost: 10 ms of CPU per MB of text for the hash; to find duplicates, two external sorts, about 2 µs of CPU per
      document; on disk, in a temporary folder beside the output, the size of its tables uncompressed.
Not:  near-duplicates. Two texts with the same 128-bit hash count as equal: among 3 billion documents the chance
      that any two differ all the same is 10⁻²⁰.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.dedupe import LOSERS, removed_before
from pipeline.dedupe.sorting import MEMORY_LIMIT_MB, read, scratch, sort, write

INPUT = pa.schema(
    [
        pa.field("hash", pa.binary(16), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # the document's index within its part
    ]
)
_RANKED = pa.schema([*INPUT, pa.field("source_order", pa.int32()), pa.field("part", pa.int64())])
_NONE = pa.scalar(bytes(16), pa.binary(16))


def hash_texts(texts: Iterable[str]) -> pa.FixedSizeBinaryArray:
    """xxh3-128 of each text's normal form, 16 bytes, most significant first.

    The normal form: Unicode NFC, then `str.lower()`, then every run of whitespace made one space and none left at the
    ends; in UTF-8. (NFC and lower-casing are those of this Python's Unicode version.)
    """
    return pa.array([xxhash.xxh3_128_digest(_normal(text).encode()) for text in texts], pa.binary(16))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def find_duplicates(
    parts: Sequence[tuple[Path, int]],
    sources: Sequence[str],
    out: Path,
    memory_limit_mb: int = MEMORY_LIMIT_MB,
    column: str = "hash",
    without: Sequence[Path] = (),
) -> int:
    """Write to `out` every document whose hash another one, which stays, has too; returns how many.

    parts: Parquet files with the columns of INPUT, the hash under the name `column`, each with the order of its source; a
    part's number is its place in this list. A hash of zeros alone is none. without: tables with part and row of documents
    that are out already and count for nothing. sources: names by source order. Of documents with one hash the first by
    (source order, id, part, row) stays, strings in the order of their code points. `out` is Parquet with the schema LOSERS,
    sorted by (part, row), the same bytes whatever the memory limit.

    Memory: DuckDB sorts in `memory_limit_mb` (at least 128) and spills the rest to disk; the process around it takes
    up to 300 MB more. Many copies of one text cost no more than as many different texts. Raises PipelineError if
    a part is not as above, or if the limit or the disk is too small.
    """
    with scratch(f"exact dedupe of {len(parts)} parts", out, memory_limit_mb) as folder:
        found = folder / "losers.parquet"
        by_hash = sort(_ranked(parts, column, without), _RANKED, ["hash", "source_order", "id", "part", "row"], memory_limit_mb, folder)
        count = write(_losers(by_hash, sources), LOSERS, found)
        write(sort(read(found), LOSERS, ["part", "row"], memory_limit_mb, folder), LOSERS, out)
    return count


def _ranked(parts: Sequence[tuple[Path, int]], column: str, without: Sequence[Path]) -> Iterator[pa.Table]:
    """Every document that has a hash and is not out already, with what decides which stays."""
    for part, (path, source_order) in enumerate(parts):
        gone = pa.array(removed_before(without, part))
        for table in read(path, [column, "id", "row"]):
            present = pc.and_(pc.not_equal(table[column], _NONE), pc.invert(pc.is_in(table["row"], gone)))
            table = table.filter(present).combine_chunks()
            orders, numbers = (np.full(len(table), value) for value in (source_order, part))
            columns = [table[column], table["id"], table["row"], orders, numbers]
            yield pa.table(columns, names=_RANKED.names).cast(_RANKED)


def _losers(batches: Iterable[pa.Table], sources: Sequence[str]) -> Iterator[pa.Table]:
    """Of rows sorted by hash and rank, all but the first of each hash, beside that first."""
    names = pa.array(list(sources), pa.string())
    winner: pa.Table | None = None  # the first row of the hash that the last batch ended in
    for batch in batches:
        rows = (pa.concat_tables([winner, batch]) if winner else batch).combine_chunks()
        if not rows.num_rows:
            continue
        hashes = np.frombuffer(b"".join(rows["hash"].to_pylist()), dtype=np.uint64).reshape(-1, 2)
        first = np.ones(len(hashes), dtype=np.bool_)
        first[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
        winners = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
        winner = rows.slice(int(winners[-1]), 1)
        lost, kept = rows.filter(pa.array(~first)), rows.take(pa.array(winners[~first]))
        if lost.num_rows:
            columns = [lost["part"], lost["row"], kept["id"], names.take(kept["source_order"].combine_chunks())]
            yield pa.table(columns, schema=LOSERS)
