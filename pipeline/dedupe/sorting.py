"""External sorting: rows of any number in a bounded memory, the same rows in the same tables whatever that is.

In:   tables of a few rows each, as they come.
Out:  the same rows in order, in tables of ROWS rows; `write` puts them into a Parquet file.
Cost: 0.2 µs of CPU per row of two integers, 1 µs per row with strings; what does not fit goes to disk uncompressed.
Not:  rows whose keys are all equal come in no defined order: name enough columns.
"""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError

MEMORY_LIMIT_MB = 512
ROWS = 50_000
_LEAST_MB = 128
_FEW_BYTES = 16 << 20


@contextmanager
def scratch(what: str, out: Path, memory_limit_mb: int) -> Iterator[Path]:
    """A folder beside `out` for as long as the block runs; what goes wrong with sorting in it becomes a PipelineError."""
    if memory_limit_mb < _LEAST_MB:
        raise PipelineError(f"{what}: memory_limit_mb is {memory_limit_mb}; external sorting needs at least {_LEAST_MB}")
    with tempfile.TemporaryDirectory(prefix="sorting-", dir=out.parent) as folder:
        try:
            yield Path(folder)
        except duckdb.OutOfMemoryException as error:
            raise PipelineError(
                f"{what}: {memory_limit_mb} MB of memory, or the disk under {out.parent}, is too small; "
                f"raise memory_limit_mb or free space ({str(error).splitlines()[0]})"
            ) from error
        except duckdb.Error as error:
            raise PipelineError(f"{what} into {out}: {str(error).splitlines()[0]}") from error


def sort(tables: Iterable[pa.Table], schema: pa.Schema, order: Sequence[str], memory_limit_mb: int, folder: Path) -> Iterator[pa.Table]:
    """The rows of `tables`, all of `schema`, by the columns of `order`, strings by their code points; spills into `folder`.

    DuckDB sorts in `memory_limit_mb`; the process around it takes up to 300 MB more. A few rows are sorted where they are,
    for DuckDB takes 20 ms to begin. What `tables` raises is raised here.
    """
    waiting = iter(tables)
    first: list[pa.Table] = []
    while sum(table.nbytes for table in first) <= _FEW_BYTES:
        table = next(waiting, None)
        if table is None:
            rows = pa.Table.from_batches([], schema) if not first else pa.concat_tables(first)
            yield from _regrouped([rows.sort_by([(name, "ascending") for name in order])])
            return
        first.append(table)
    yield from _regrouped(_sorted_by_duckdb(chain(first, waiting), schema, order, memory_limit_mb, folder))


def _sorted_by_duckdb(
    tables: Iterable[pa.Table], schema: pa.Schema, order: Sequence[str], memory_limit_mb: int, folder: Path
) -> Iterator[pa.Table]:
    raised: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in tables:
                yield from table.to_batches()
        except Exception as error:  # DuckDB would tell it in its own words
            raised.append(error)
            raise

    limits = {"memory_limit": f"{memory_limit_mb}MB", "threads": "1", "temp_directory": str(folder)}
    with duckdb.connect(":memory:", config={**limits, "preserve_insertion_order": "false"}) as database:
        database.register("unsorted", pa.RecordBatchReader.from_batches(schema, batches()))
        try:
            for batch in database.sql(f"SELECT * FROM unsorted ORDER BY {', '.join(order)}").to_arrow_reader(ROWS):
                yield pa.Table.from_batches([batch]).cast(schema)
        except duckdb.Error as error:
            raise (raised[0] if raised else error) from None


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ROWS: DuckDB's batches depend on how it spilled."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        while count + table.num_rows >= ROWS:
            taken = ROWS - count
            yield pa.concat_tables([*pending, table.slice(0, taken)]).combine_chunks()
            table, pending, count = table.slice(taken), [], 0
        pending.append(table)
        count += table.num_rows
    if count:
        yield pa.concat_tables(pending).combine_chunks()


def read(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A Parquet file's rows, a few at a time. Raises PipelineError if it lacks one of `columns`."""
    with pq.ParquetFile(path) as file:
        if missing := set(columns or []) - set(file.schema_arrow.names):
            raise PipelineError(f"{path} has no column {', '.join(sorted(missing))}; it has {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(ROWS, columns=columns):
            yield pa.Table.from_batches([batch])


def write(tables: Iterable[pa.Table], schema: pa.Schema, path: Path) -> int:
    """Write `tables`, each a row group, as they come; returns the number of rows."""
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count
