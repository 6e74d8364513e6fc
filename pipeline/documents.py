"""Documents: the immutable Parquet tables that everything downstream is keyed by.

A read unit writes its documents in parts of at most `PART_BYTES` of text; within a part, row groups of about
`GROUP_BYTES`, so that whoever reads a part streams it in bounded memory.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PART_BYTES = 64_000_000
GROUP_BYTES = 8_000_000
METADATA_CHARACTERS = 64_000_000  # of a group, where texts are short and metadata is not

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("added", pa.string()),
        pa.field("created", pa.string()),
        pa.field("metadata", pa.string()),  # a JSON object
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)


class PartWriter:
    """Writes documents to `part-00000.parquet`, `part-00001.parquet`, … in a folder.

    `parts` afterwards tells each part's documents and bytes of text.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[dict[str, int]] = []
        self._writer: pq.ParquetWriter | None = None
        self._columns: list[list] = [[] for _ in SCHEMA]
        self._pending = 0
        self._beside = 0  # characters of metadata

    def add(self, document: Sequence[str | int | None], size: int) -> None:
        """Append one document, its values in the order of SCHEMA, of `size` bytes of text."""
        if self.parts and self._writer and self.parts[-1]["bytes"] + self._pending + size > PART_BYTES:
            self.close()
        for column, value in zip(self._columns, document, strict=True):
            column.append(value)
        self._pending += size
        self._beside += len(str(document[SCHEMA.get_field_index("metadata")]))
        if self._pending >= GROUP_BYTES or self._beside >= METADATA_CHARACTERS:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._columns[0]:
            return
        if self._writer is None:
            path = self.folder / f"part-{len(self.parts):05d}.parquet"
            # Text barely repeats, so a dictionary would only cost; level 1 writes twice as fast as the default 3.
            self._writer = pq.ParquetWriter(
                path, SCHEMA, compression="zstd", compression_level=1, use_dictionary=["source", "file", "added", "created"]
            )
            self.parts.append({"documents": 0, "bytes": 0})
        batch = pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(self._columns, SCHEMA, strict=True)], schema=SCHEMA
        )
        self._writer.write_batch(batch)
        self.parts[-1]["documents"] += batch.num_rows
        self.parts[-1]["bytes"] += self._pending
        self._columns = [[] for _ in SCHEMA]
        self._pending = self._beside = 0


def row_groups(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """A part's row groups, one at a time, with just these columns."""
    with pq.ParquetFile(path) as part:
        for index in range(part.num_row_groups):
            yield from part.read_row_group(index, columns=list(columns), use_threads=False).combine_chunks().to_batches()


def write_table(table: pa.Table, path: Path) -> None:
    """Write one of the narrow tables that stand beside the documents: Parquet, zstd."""
    pq.write_table(table, path, compression="zstd")
