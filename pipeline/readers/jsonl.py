"""JSON lines (.json, .jsonl; plain, gzip or zstd): one object a line, yielded as it stands.

Lines end at `\\n` alone: real texts hold U+2028 and other characters that `str.splitlines` takes for ends of
lines. A last line without `\\n` counts, a `\\r` before it is JSON's own white space, and blank lines are
skipped while they keep their row number, so that `row + 1` is the line that an editor shows.

Failures: `invalid_utf8`, `broken_json` (NaN and lone surrogates are none of JSON), `not_an_object`, and
`too_many_values`: more than 8 million of `{`, `[` and `,` in one line, which as objects would take 35 times its bytes.
Cost: one pass; memory is one block of 4 MiB and its objects, or a few copies of a longer line: at worst 2.7 GB. A line
beyond 256 MiB raises `PipelineError`: no document is that long, such a file is not in JSON lines.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.streams import BLOCK_BYTES, open_stream

LINE_LIMIT = 256 << 20
VALUES_LIMIT = 8 << 20
KINDS = {
    list: "an array",
    str: "a string",
    bool: "a boolean",
    type(None): "null",
    int: "a number",
    float: "a number",
}


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the objects of `file`; row = 0-based line. Raises `PipelineError` for a damaged file."""
    row = 0
    for lines in _blocks_of_lines(file):
        for line in lines:
            if len(line) > VALUES_LIMIT and (values := sum(map(line.count, (b"{", b"[", b",")))) > VALUES_LIMIT:
                yield Failure(row, "too_many_values", f"the line has {values:,} of {{, [ and comma, more than {VALUES_LIMIT:,}")
            elif found := _record(row, line):
                yield found
            row += 1


def _record(row: int, line: bytes) -> Record | Failure | None:
    """None for a blank line."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return _failure(row, line, error) if line.strip() else None
    if type(value) is dict:
        return Record(row, value)
    return Failure(row, "not_an_object", f"the line is {KINDS[type(value)]}, not an object")


def _blocks_of_lines(file: RawFile) -> Iterator[list[bytes]]:
    """Lines without their `\\n`, a block's worth at a time."""
    begun: list[bytes] = []  # pieces of a line whose end has not come yet
    begun_bytes = 0
    with open_stream(file) as stream:
        while block := stream.read(BLOCK_BYTES):
            lines = block.split(b"\n")
            if len(lines) > 1:
                if begun:
                    begun.append(lines[0])
                    lines[0] = b"".join(begun)
                begun, begun_bytes = [], 0
            begun.append(lines.pop())
            begun_bytes += len(begun[-1])
            if begun_bytes > LINE_LIMIT:
                raise PipelineError(
                    f"{file.name}: a line is longer than {LINE_LIMIT:,} bytes, at byte {stream.position:,}; "
                    "this is not a file of JSON lines: name its `reader:` in the source, or leave it out"
                )
            yield lines
    if begun_bytes:
        yield [b"".join(begun)]


def _failure(row: int, line: bytes, error: orjson.JSONDecodeError) -> Failure:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as invalid:
        near = line[max(0, invalid.start - 20) : invalid.start + 20]
        return Failure(
            row,
            "invalid_utf8",
            f"byte {invalid.start} of the line is 0x{line[invalid.start]:02x}, in {near!r}",
        )
    return Failure(row, "broken_json", f"{error.msg}, at character {error.pos} of the line")
