"""Parquet: the rows of a table, each a dict of Python values.

Values become what JSON can say, since metadata ends as JSON: timestamps, dates and times are ISO 8601
strings (microseconds at most, and in UTC where they have a zone, so that no machine's list of time zones matters), decimals are
strings, binary columns are decoded as UTF-8, structs are dicts and lists are lists; a map is a list of (key, value) pairs, for its keys
may repeat.

Failures: `invalid_utf8` (a row whose string or binary value is no UTF-8), `unreadable_value` (a date after the year 9999, a
struct with two fields of one name).
Cost: one pass; rows are decoded about 16 MiB at a time, so memory is one page of each column and one such
batch. A file without Parquet's magic numbers, footer or readable pages, or with two columns of one name, raises `PipelineError`.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record

BATCH_BYTES = 16 << 20
BATCH_ROWS = 4096
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)
UNREADABLE = (ValueError, OverflowError, pa.ArrowException)
PLAIN_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_floating,
               pa.types.is_boolean, pa.types.is_null)  # fmt: skip


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the rows of `file`; row = 0-based row of the table. Raises `PipelineError` for a damaged file."""
    row = 0
    for batch in _batches(file):
        columns = [field.name for field in batch.schema if not _is_plain(field.type)]
        for fields in _rows(batch):
            try:
                if isinstance(fields, Exception):
                    raise fields
                for column in columns:
                    fields[column] = _to_json(fields[column])
            except UnicodeDecodeError as error:
                yield Failure(row, "invalid_utf8", f"a value's byte {error.start} is 0x{error.object[error.start]:02x}")
            except UNREADABLE as error:
                yield Failure(row, "unreadable_value", f"{type(error).__name__}: {error}")
            else:
                yield Record(row, fields)
            row += 1


def _batches(file: RawFile) -> Iterator[pa.RecordBatch]:
    try:
        # `buffer_size` streams each column's pages instead of loading its whole chunk of the row group.
        table = pq.ParquetFile(file.path, buffer_size=1 << 20, pre_buffer=False)
        names = table.schema_arrow.names
    except DAMAGE as error:
        raise _damaged(file, f"is no whole Parquet file of {file.bytes:,} bytes", error) from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PipelineError(f"{file.name}: has two columns called {twice[0]!r}; rename one, or leave the file out")
    with table:
        for group in range(table.num_row_groups):
            part = table.metadata.row_group(group)
            row_bytes = part.total_byte_size / max(part.num_rows, 1)
            rows = int(min(max(BATCH_BYTES / max(row_bytes, 1), 1), BATCH_ROWS))
            try:
                for batch in table.iter_batches(batch_size=rows, row_groups=[group], use_threads=False):
                    yield _portable(batch)
            except DAMAGE as error:
                raise _damaged(file, f"has a damaged row group {group} of {table.num_row_groups}", error) from error


def _portable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with times that Python has on every machine: no nanoseconds (pandas), no zone but UTC (a list of zones)."""
    types = [_portable_type(field.type) for field in batch.schema]
    if types == batch.schema.types:
        return batch
    columns = [column.cast(type_, safe=False) for column, type_ in zip(batch.columns, types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _portable_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us" if type_.unit == "ns" else type_.unit, None if type_.tz is None else "UTC")
    if pa.types.is_time64(type_):
        return pa.time64("us")
    if pa.types.is_duration(type_) and type_.unit == "ns":
        return pa.duration("us")
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_portable_type(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_portable_type(type_.value_type)))
    if pa.types.is_map(type_):
        return pa.map_(_portable_type(type_.key_type), type_.item_field.with_type(_portable_type(type_.item_type)))
    if pa.types.is_dictionary(type_):
        return _portable_type(type_.value_type)
    return type_


def _damaged(file: RawFile, found: str, error: Exception) -> PipelineError:
    reason = " ".join(str(error).split())  # Arrow's messages have lines of their own
    return PipelineError(f"{file.name}: {found} ({reason}); fetch the file again and compare its sha256")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Exception]:
    """Rows as dicts; where a value has no Python form (as a string that is no UTF-8: Parquet does not check), the error in its place."""
    try:
        yield from batch.to_pylist()
    except UNREADABLE:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UNREADABLE as error:
                yield error


def _is_plain(type_: pa.DataType) -> bool:
    """Whether values of this type come out of Arrow as JSON has them, with nothing left to convert."""
    if pa.types.is_struct(type_):
        return all(_is_plain(field.type) for field in type_)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return _is_plain(type_.value_type)
    return any(test(type_) for test in PLAIN_TYPES)


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, dict):
        return {key: _to_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(inner) for inner in value]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    return value
