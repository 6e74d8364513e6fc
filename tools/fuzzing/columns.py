"""Tables of random Arrow types, with values up to the ends of their ranges."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import pyarrow as pa

UNITS = ("s", "ms", "us", "ns")
ZONES = (None, "UTC", "+02:00", "Europe/Berlin", "Mars/Olympus", "")
NAMES = ("id", "text", "content", "metadata", "created", "meta", "", "a.b", "é", "id")


def random_table(random: Random) -> pa.Table:
    """One to four columns of zero to five rows. Names may repeat, as they may in Parquet. Raises ArrowException for some types."""
    rows = random.randrange(6)
    columns = [random_column(random, rows) for _ in range(random.randrange(1, 5))]
    return pa.Table.from_arrays(columns, names=[random.choice(NAMES) for _ in columns])


def random_column(random: Random, rows: int, depth: int = 0) -> pa.Array:
    """An array of `rows` values of a random type, from random bytes where the type allows it."""
    nested = depth < 3
    kind = random.randrange(9 if nested else 6)
    if kind == 0:
        return pa.array([random.choice(("", "text", "é" * 9, "\x00", None)) for _ in range(rows)], pa.string())
    if kind == 1:  # strings that are no UTF-8: neither Arrow nor Parquet checks
        values = pa.array([random.randbytes(random.randrange(4)) for _ in range(rows)], random.choice((pa.binary(), pa.large_binary())))
        return values.view(pa.string() if pa.types.is_binary(values.type) else pa.large_string()) if random.random() < 0.5 else values
    if kind == 2:
        return _numbers(random, rows, random.choice([pa.timestamp(unit, random.choice(ZONES)) for unit in UNITS]))
    if kind == 3:
        return _numbers(
            random, rows, random.choice([pa.date64(), pa.time64("us"), pa.time64("ns"), *(pa.duration(unit) for unit in UNITS)])
        )
    if kind == 4:
        return _numbers(random, rows, random.choice([pa.int64(), pa.uint64(), pa.float64()]))
    if kind == 5:
        return random.choice((_decimals, _small, _fixed, _nulls))(random, rows)
    inner = random_column(random, rows, depth + 1)
    if kind == 6:
        fields = random.choice((["x"], ["x", "y"], ["x", "x"]))
        return pa.StructArray.from_arrays([inner] * len(fields), fields)
    offsets = pa.array(range(rows + 1), pa.int32())
    if kind == 7:
        return pa.ListArray.from_arrays(offsets, inner)
    return inner.dictionary_encode() if random.random() < 0.5 else pa.MapArray.from_arrays(offsets, pa.array(["k"] * rows), inner)


def _numbers(random: Random, rows: int, type_: pa.DataType) -> pa.Array:
    edges = (0, 1, -1, 10**9, 10**12, 10**15, 10**18, -(10**15), 2**63 - 1, -(2**63), 253402300800000000, -62135596800000001)
    values = [random.choice(edges) if random.random() < 0.7 else random.randrange(-(2**63), 2**63) for _ in range(rows)]
    return pa.Array.from_buffers(type_, rows, [None, pa.py_buffer(struct.pack(f"<{rows}q", *values))])


def _decimals(random: Random, rows: int) -> pa.Array:
    type_ = pa.decimal128(random.randrange(1, 39), random.randrange(-5, 20))
    return pa.Array.from_buffers(type_, rows, [None, pa.py_buffer(random.randbytes(16 * rows))])


def _small(random: Random, rows: int) -> pa.Array:
    type_ = random.choice((pa.int8(), pa.float16(), pa.float32(), pa.date32(), pa.time32("s"), pa.bool_()))
    return pa.Array.from_buffers(type_, rows, [None, pa.py_buffer(random.randbytes(8 * rows + 8))])


def _fixed(random: Random, rows: int) -> pa.Array:
    return pa.array([random.randbytes(16) for _ in range(rows)], pa.binary(16))


def _nulls(random: Random, rows: int) -> pa.Array:
    values: list[Any] = [None] * rows
    return pa.array(values, random.choice((pa.null(), pa.string(), pa.float64(), pa.timestamp("us"))))
