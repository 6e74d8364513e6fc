"""JSON lines (.json, .jsonl; plain, gzip or zstd): one object a line, yielded as it stands.

Lines end at `\\n` alone: real texts hold U+2028 and other characters that `str.splitlines` takes for ends of
lines. A last line without `\\n` counts, a `\\r` before it is JSON's own white space, and blank lines are
skipped while they keep their row number, so that `row + 1` is the line that an editor shows.

Failures: `invalid_utf8`, `broken_json` (NaN and lone surrogates are none of JSON), `not_an_object`.
Cost: one pass; memory is one block of 4 MiB and its objects, or a few copies of a longer line. A line beyond
1 GiB raises `PipelineError`: no document is that long, such a file is not in JSON lines.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.streams import BLOCK_BYTES, open_stream

LINE_LIMIT = 1 << 30
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
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if line.strip():
                    yield _failure(row, line, error)
            else:
                if type(value) is dict:
                    yield Record(row, value)
                else:
                    yield Failure(row, "not_an_object", f"the line is {KINDS[type(value)]}, not an object")
            row += 1


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
