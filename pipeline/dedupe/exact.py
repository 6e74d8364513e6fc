"""Exact duplicates: documents whose normalised text is the same, all but one of them marked.

In:   texts → 16-byte hashes (`hash_texts`); then tables of one narrow row per document (`find_duplicates`).
Out:  one row for each document to drop, with the one that stays: the lowest source order, then the lowest id.
Cost: 10 ms of CPU per MB of text for the hash; to find duplicates, two external sorts, about 2 µs of CPU per
      document; on disk, in a temporary folder beside the output, the size of its tables uncompressed.
Not:  near-duplicates. Two texts with the same 128-bit hash count as equal: among 3 billion documents the chance
      that any two differ all the same is 10⁻²⁰.
"""

import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.dedupe import LOSERS
from pipeline.errors import PipelineError

INPUT = pa.schema(
    [
        pa.field("hash", pa.binary(16), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # the document's index within its part
    ]
)
_RANKED = pa.schema([*INPUT, pa.field("source_order", pa.int32()), pa.field("part", pa.int64())])
MEMORY_LIMIT_MB = 512
_BATCH_ROWS = 50_000


def hash_texts(texts: Iterable[str]) -> pa.FixedSizeBinaryArray:
    """xxh3-128 of each text's normal form, 16 bytes, most significant first.

    The normal form: Unicode NFC, then `str.lower()`, then every run of whitespace made one space and none left at the
    ends; in UTF-8. (NFC and lower-casing are those of this Python's Unicode version.)
    """
    return pa.array([xxhash.xxh3_128_digest(_normal(text).encode()) for text in texts], pa.binary(16))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def find_duplicates(parts: Sequence[tuple[Path, int]], sources: Sequence[str], out: Path, memory_limit_mb: int = MEMORY_LIMIT_MB) -> int:
    """Write to `out` every document whose hash another one, which stays, has too; returns how many.

    parts: Parquet files with the columns of INPUT, each with the order of its source; a part's number is its place in
    this list. sources: names by source order. Of documents with one hash the first by (source order, id, part, row)
    stays, strings in the order of their code points. `out` is Parquet with the schema LOSERS, sorted by (part, row),
    the same bytes whatever the memory limit.

    Memory: DuckDB sorts in `memory_limit_mb` (at least 128) and spills the rest to disk; the process around it takes
    up to 300 MB more. Many copies of one text cost no more than as many different texts. Raises PipelineError if
    a part is not as above, or if the limit or the disk is too small.
    """
    if memory_limit_mb < 128:
        raise PipelineError(f"exact dedupe: memory_limit_mb is {memory_limit_mb}; external sorting needs at least 128")
    with tempfile.TemporaryDirectory(prefix="dedupe-", dir=out.parent) as scratch:
        found = Path(scratch) / "losers.parquet"
        try:
            by_hash = _sorted(parts, _RANKED, "hash, source_order, id, part, row", memory_limit_mb, scratch)
            count = _write(_losers(by_hash, sources), found)
            _write(_regroup(_sorted([(found, 0)], LOSERS, "part, row", memory_limit_mb, scratch)), out)
        except duckdb.OutOfMemoryException as error:
            raise PipelineError(
                f"exact dedupe of {len(parts)} parts: {memory_limit_mb} MB of memory, or the disk under {out.parent}, "
                f"is too small; raise memory_limit_mb or free space ({str(error).splitlines()[0]})"
            ) from error
        except duckdb.Error as error:
            raise PipelineError(f"exact dedupe of {len(parts)} parts into {out}: {str(error).splitlines()[0]}") from error
    return count


def _sorted(parts: Sequence[tuple[Path, int]], schema: pa.Schema, order: str, memory_limit_mb: int, scratch: str) -> Iterator[pa.Table]:
    """The rows of Parquet files in order, a few at a time; `source_order` and `part` are known by the file's place."""
    if not parts:
        return
    places = pa.table(
        {
            "path": [str(path) for path, _ in parts],
            "source_order": pa.array([source_order for _, source_order in parts], pa.int32()),
            "part": pa.array(range(len(parts)), pa.int64()),
        }
    )
    config = {"memory_limit": f"{memory_limit_mb}MB", "threads": "1", "temp_directory": scratch}
    with duckdb.connect(":memory:", config={**config, "preserve_insertion_order": "false"}) as database:
        database.register("places", places if "source_order" in schema.names else places.select(["path"]))
        query = f"SELECT {', '.join(schema.names)} FROM read_parquet($paths, filename = 'path') JOIN places USING (path) ORDER BY {order}"
        rows = database.sql(query, params={"paths": places["path"].to_pylist()})
        for batch in rows.to_arrow_reader(_BATCH_ROWS):
            yield pa.Table.from_batches([batch]).cast(schema)


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


def _regroup(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of _BATCH_ROWS, for DuckDB's batches depend on how it spilled."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= _BATCH_ROWS:
            taken = _BATCH_ROWS - count
            yield pa.concat_tables([*pending, table.slice(0, taken)]).combine_chunks()
            table, pending, count = table.slice(taken), [], 0
        pending.append(table)
        count += table.num_rows
    if count:
        yield pa.concat_tables(pending).combine_chunks()


def _write(tables: Iterable[pa.Table], path: Path) -> int:
    count = 0
    with pq.ParquetWriter(path, LOSERS, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count
