"""HTTP answers as crawlers keep them: status, header fields, and the page behind its transfer and content encodings.

In: the bytes of an answer, perhaps cut off (crawlers stop at a limit). Out: `Answer`. Like browsers, and like warcio, this takes what
there is: a cut-off page, and a body that is plain although its header says that it is chunked or compressed (Common Crawl stores it so).
Not: brotli, for which nothing is installed. `UnreadableError` has the reason and detail of a failure: `unknown_encoding`,
`broken_encoding`. Cost: memory of the page, never more than the limit that the caller gives.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from backports import zstd

BLANK_LINE = re.compile(rb"\r?\n\r?\n")
STATUS = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})(?!\d)")
CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]{0,200})?\r?\n")


class UnreadableError(Exception):
    """This answer's page cannot be decoded: (reason, detail)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """status: three digits, None if the bytes are no answer. fields: names in lower case, the first of each. body: as it was sent."""

    status: str | None
    fields: dict[str, str]
    body: bytes

    def __getitem__(self, name: str) -> str | None:
        return self.fields.get(name)

    def content(self, limit: int) -> bytes | None:
        """The page without its encodings; None if it has more than `limit` bytes. Raises UnreadableError."""
        content = self.body
        if "chunked" in (self["transfer-encoding"] or "").lower():
            content = _dechunked(content)
        # What was applied last stands last.
        for encoding in reversed([name.strip().lower() for name in (self["content-encoding"] or "").split(",")]):
            content = _decoded(encoding, content, limit)
            if len(content) > limit:
                return None
        return content if len(content) <= limit else None


def answer_of(content: bytes) -> Answer:
    """An answer from its bytes. What does not begin like one has no status, no fields and all bytes as its body."""
    status = STATUS.match(content)
    if status is None:
        return Answer(None, {}, content)
    end = BLANK_LINE.search(content)
    head, body = (content[: end.start()], content[end.end() :]) if end else (content, b"")
    fields: dict[str, str] = {}
    for line in head.split(b"\n")[1:]:
        name, colon, value = line.decode("utf-8", "replace").partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return Answer(status[1].decode(), fields, body)


def _dechunked(body: bytes) -> bytes:
    """The chunks' contents, up to the last one or the end of the bytes; the body itself if it does not begin with a chunk."""
    chunks: list[bytes] = []
    place = 0
    while head := CHUNK.match(body, place):
        size = int(head[1], 16)
        if not size:
            return b"".join(chunks)
        chunks.append(body[head.end() : head.end() + size])
        place = head.end() + size
        if body[place : place + 2] == b"\r\n":
            place += 2
        elif place < len(body):
            return b"".join(chunks) if len(chunks) > 1 else body
    return b"".join(chunks) if chunks else body


def _decoded(encoding: str, content: bytes, limit: int) -> bytes:
    """The content without one encoding, cut off after limit + 1 bytes."""
    if encoding in ("", "identity", "none", "utf-8"):
        return content
    if encoding in ("gzip", "x-gzip"):
        return _inflated(lambda: zlib.decompressobj(31), content, limit) if content.startswith(b"\x1f\x8b") else content
    if encoding == "deflate":  # with zlib's header or, as some servers do, without
        plain = (
            content[:1] in (b"\x08", b"\x18", b"\x28", b"\x38", b"\x48", b"\x58", b"\x68", b"\x78")
            and int.from_bytes(content[:2]) % 31 == 0
        )
        return _inflated(lambda: zlib.decompressobj(15 if plain else -15), content, limit)
    if encoding == "zstd":
        return _unpacked_zstd(content, limit)
    raise UnreadableError("unknown_encoding", f"Content-Encoding {encoding!r}")


def _inflated(member: Callable[[], zlib._Decompress], content: bytes, limit: int) -> bytes:
    try:
        return member().decompress(content, limit + 1)
    except zlib.error as error:
        raise UnreadableError("broken_encoding", str(error)) from error


def _unpacked_zstd(content: bytes, limit: int) -> bytes:
    try:
        return bytes(zstd.ZstdDecompressor().decompress(content, limit + 1))
    except zstd.ZstdError as error:
        raise UnreadableError("broken_encoding", str(error)) from error
