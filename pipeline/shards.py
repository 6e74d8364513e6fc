"""Token shards: raw little-endian ids that any memmap reader understands, with their papers beside them.

    train-00000.bin      uint16 or uint32 ids, nothing else (OLMo, OLMo-core and nanotron-style loaders read it as it is)
    train-00000.parquet  document table: id, file, row, start (first token in this shard), length (the closing
                         end-of-document token included), offset (tokens of the document in earlier shards: 0 unless it
                         is longer than a shard)
    train-00000.json     header: format, dtype, tokenizer, eos, source, split, counts and the sha256 of the .bin

A shard holds whole documents and at most `max_tokens` tokens. A document longer than that begins a shard of its own
and is continued in the following ones; the end-of-document token stands only at its very end.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.documents import write_table
from pipeline.unit import Json, canonical

FORMAT = 1
TABLE = pa.schema(
    [("id", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("start", pa.int64()), ("length", pa.int64()),
     ("offset", pa.int64())]
)  # fmt: skip
COPY_TOKENS = 1 << 22


class ShardWriter:
    """Writes one split's shards of one unit, `<split>-00000.*` onwards.

    `header` is written into each shard's JSON as it is (dtype, tokenizer, eos, source); `shards` afterwards lists
    name, tokens and documents of each.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, max_tokens: int, header: Mapping[str, Json]) -> None:
        self.folder, self.split, self.dtype, self.max_tokens, self.header = folder, split, dtype, max_tokens, header
        self.shards: list[dict[str, Json]] = []
        self._file: BinaryIO | None = None
        self._tokens = 0

    def add(self, tokens: np.ndarray, rows: pa.Table, starts: np.ndarray, lengths: np.ndarray) -> list[tuple[int, int]]:
        """Append documents: `starts` and `lengths` say where each lies in `tokens`, `rows` has their id, file and row.

        Returns for each document the index of the shard it begins in and its start there.
        """
        places: list[tuple[int, int]] = []
        first = 0  # of the documents that wait to be copied into the current shard
        room = self._room()
        for index, length in enumerate(lengths.tolist()):
            if length > room:
                self._copy(tokens, rows, starts, lengths, first, index)
                first = index
                if self._tokens:
                    self._finish()
                room = self.max_tokens
            places.append((len(self.shards), self.max_tokens - room))
            if length > room:
                self._copy_long(tokens, rows, int(starts[index]), length, index)
                first, room = index + 1, self._room()
            else:
                room -= length
        self._copy(tokens, rows, starts, lengths, first, len(lengths))
        return places

    def close(self) -> None:
        if self._file:
            self._finish()

    def _room(self) -> int:
        return self.max_tokens - self._tokens

    def _copy(self, tokens: np.ndarray, rows: pa.Table, starts: np.ndarray, lengths: np.ndarray, first: int, end: int) -> None:
        if first == end:
            return
        starts, lengths = starts[first:end], lengths[first:end]
        ends = np.cumsum(lengths)
        placed = rows.slice(first, end - first)
        self._append_rows(placed, self._tokens + ends - lengths, lengths, np.zeros(end - first, np.int64))
        # Documents that also lie side by side in the source are copied in one piece.
        breaks = np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1
        for begin, finish in zip([0, *breaks], [*breaks, end - first], strict=True):
            self._write(tokens, int(starts[begin]), int(starts[finish - 1] + lengths[finish - 1]))

    def _copy_long(self, tokens: np.ndarray, rows: pa.Table, start: int, length: int, index: int) -> None:
        done = 0
        while done < length:
            piece = min(self._room(), length - done)
            row = rows.slice(index, 1)
            self._append_rows(row, np.array([self._tokens]), np.array([piece]), np.array([done]))
            self._write(tokens, start + done, start + done + piece)
            done += piece
            if done < length:
                self._finish()

    def _append_rows(self, rows: pa.Table, starts: np.ndarray, lengths: np.ndarray, offsets: np.ndarray) -> None:
        if self._file is None:
            self._file = open(self._path(".bin"), "wb")
            self._digest = hashlib.sha256()
            self._tables: list[pa.Table] = []
        columns = [rows["id"], rows["file"], rows["row"], *(pa.array(column, pa.int64()) for column in (starts, lengths, offsets))]
        self._tables.append(pa.table(columns, schema=TABLE))

    def _write(self, tokens: np.ndarray, start: int, end: int) -> None:
        for begin in range(start, end, COPY_TOKENS):
            piece = np.ascontiguousarray(tokens[begin : min(end, begin + COPY_TOKENS)], dtype=self.dtype).data
            self._digest.update(piece)
            self._file.write(piece)  # type: ignore[union-attr]  # opened by _append_rows
        self._tokens += end - start

    def _finish(self) -> None:
        self._file.close()  # type: ignore[union-attr]
        table = pa.concat_tables(self._tables).combine_chunks()
        write_table(table, self._path(".parquet"))
        counts = {"tokens": self._tokens, "documents": table.num_rows}
        header = {
            "format": FORMAT, "split": self.split, "dtype": self.dtype.name, **self.header, **counts,
            "sha256": self._digest.hexdigest(),
        }  # fmt: skip
        self._path(".json").write_bytes(canonical(header, indent=1))
        self.shards.append({"name": self._path(".bin").name, **counts})
        self._file, self._tokens = None, 0

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):05d}{suffix}"
