"""Web archives (.warc, .warc.gz) in DCLM's upstream schema, their pages as main text (html.py).

Goes in: WARC 1.x (ISO 28500), plain or gzip. Comes out: a record for each HTTP response, `{"text", "url", "metadata"}` with the WARC
header fields under `metadata` as DCLM has them (`WARC-Record-ID`, `WARC-Date`, `WARC-Target-URI` …), and `Content-Type` and `status`
of the HTTP answer (answer.py). `row` is the record's number in the archive, of all types. A response that is no HTML has an empty
`text`, which the read stage counts; requests and other records are not documents.

Failures: `page_too_large`, `nested_too_deeply`, and those of answer.py. Damage raises `PipelineError`: a broken gzip (streams.py),
something else than WARC, a record without its length, a file that ends inside a record, bytes between two records that are no line ends.
Cost: that of html.py; memory of one response, at most `PAGE_BYTES` of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.answer import Answer, UnreadableError, answer_of
from pipeline.readers.html import DEPTH, PAGE_BYTES, decoded, main_text, too_deep
from pipeline.readers.streams import Stream, open_stream

HTML_TYPES = ("text/html", "application/xhtml+xml")
HEADER_BYTES = 1 << 20  # of a record, at most
BODY_BYTES = PAGE_BYTES + (1 << 20)  # with the answer's own headers
BLOCK_BYTES = 64 << 10  # read at a time: what is left of it is copied for each record
VERSION = re.compile(rb"WARC/1\.\d+[ \t]*")
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
LENGTH = re.compile(r"\d{1,18}", re.ASCII)


class DamagedError(Exception):
    """Not the bytes of an archive: what was found."""


@dataclass(frozen=True, slots=True)
class Header:
    """A record's header fields as they are spelt, the last of each name."""

    fields: dict[str, str]

    def __getitem__(self, name: str) -> str | None:
        """The field of that name, whatever its case."""
        return next((value for key, value in self.fields.items() if key.lower() == name), None)


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the archive's HTTP responses. Raises `PipelineError` for a damaged archive."""
    row = 0
    with open_stream(file) as stream:
        archive = _Archive(stream)
        try:
            while (header := archive.header()) is not None:
                body = archive.body(header, keep=header["warc-type"] == "response")
                if body is not None:
                    yield _response(row, header, body)
                row += 1
        except DamagedError as error:
            raise PipelineError(f"{file.name}: damaged after {row} whole WARC records ({error}); download it again") from error
    if not row:
        raise PipelineError(f"{file.name}: no WARC record in it; download it again, or leave it out")


class _Archive:
    """A stream of records, read one after the other: `header`, then `body`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""

    def header(self) -> Header | None:
        """The next record's header; None at the end."""
        lines = self._lines()
        if lines is None:
            return None
        if not VERSION.fullmatch(lines[0]):
            raise DamagedError(f"a record begins with {lines[0][:40]!r}, not with WARC/1.x")
        return Header(fields_of(lines[1:]))

    def body(self, header: Header, keep: bool) -> bytes | None:
        """What follows the header, if it is to be kept: all of it, or its first `BODY_BYTES`."""
        length = header["content-length"] or ""
        if not LENGTH.fullmatch(length):
            raise DamagedError(f"a record's Content-Length is {length[:40]!r}")
        left, kept, room = int(length), [], BODY_BYTES if keep else 0
        while left:
            if not (self._buffer or self._fill()):
                raise DamagedError(f"the next one ends {left} bytes early")
            piece, self._buffer = self._buffer[:left], self._buffer[left:]
            kept.append(piece[:room])
            room -= len(kept[-1])
            left -= len(piece)
        return b"".join(kept) if keep else None

    def _lines(self) -> list[bytes] | None:
        """The lines up to an empty one, empty ones before them passed over; None at the end."""
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")
            if self._buffer:
                break
            if not self._fill():
                return None
        searched = 0
        while (end := self._end_of_header(searched)) is None:
            searched = max(0, len(self._buffer) - 3)
            if len(self._buffer) > HEADER_BYTES:
                raise DamagedError(f"a record's header is longer than {HEADER_BYTES} bytes, or none: {self._buffer[:40]!r}")
            if not self._fill():
                raise DamagedError(f"the file ends inside a record's header, or what follows is none: {self._buffer[:40]!r}")
        head, self._buffer = self._buffer[: end[0]], self._buffer[end[1] :]
        return head.replace(b"\r\n", b"\n").split(b"\n")

    def _end_of_header(self, begin: int) -> tuple[int, int] | None:
        found = BLANK_LINE.search(self._buffer, begin)
        return found.span() if found else None

    def _fill(self) -> bool:
        more = self._stream.read(BLOCK_BYTES)
        self._buffer += more
        return bool(more)


def fields_of(lines: list[bytes]) -> dict[str, str]:
    """`Name: value` lines as a dict, the last of each name; a line that begins with white space goes on with the one before."""
    fields: dict[str, str] = {}
    last = None
    for line in lines:
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t") and last is not None:
            fields[last] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        last = name.strip() if colon else None
        if last is not None:
            fields[last] = value.strip()
    return fields


def _response(row: int, header: Header, body: bytes) -> Record | Failure:
    url = (header["warc-target-uri"] or "").strip("<>") or None
    answer = Answer(None, {}, b"")
    if url is not None and url.lower().startswith(("http:", "https:")) and body:
        answer = answer_of(body)
    kind, _, parameters = (answer["content-type"] or "").partition(";")
    fields: dict[str, Any] = {"text": "", "url": None, "metadata": {}}
    if kind.strip().lower() in HTML_TYPES:
        try:
            page = answer.content(PAGE_BYTES)
        except UnreadableError as error:
            return Failure(row, *error.args)
        if page is None or len(body) >= BODY_BYTES:
            return Failure(row, "page_too_large", f"{url} has more than {PAGE_BYTES} bytes")
        text = decoded(page, _charset(parameters))
        if failure := too_deep(text, DEPTH, row):
            return failure
        fields = main_text(text)
    said = {"Content-Type": kind.strip() or None, "status": answer.status}
    return Record(row, {**fields, "url": url or fields["url"], "metadata": {**header.fields, **said, **fields["metadata"]}})


def _charset(parameters: str) -> str | None:
    """The encoding in `; charset="utf-8"; …`, if there is one."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
