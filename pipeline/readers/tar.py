"""Tar archives as a stream: each file's name, time and contents, one after the other; nothing touches the disk.

In: a readable stream of an archive (old, ustar, GNU or pax). Out: `Member`s. Links, folders and devices are passed over; sparse files
are refused. Why not `tarfile`: it takes damage for the archive's end, recurses once for each chained header, reads headers of any length
into memory, and what it makes of odd ones differs between Python's releases. Cost: a few µs a member; memory of one header,
at most `HEADER_BYTES`.

`DamagedError` says what is wrong: a header without its checksum, numbers that are none, a file that ends inside a member or without an
end mark (a block of zeros).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512
HEADER_BYTES = 1 << 20  # of the names and fields that stand before a member
ZEROS = bytes(BLOCK)
YEAR_10000 = 253_402_300_800  # seconds since 1970
FILES, LONG_NAME, LONG_LINK, FIELDS, COMMON_FIELDS, SPARSE = b"0\0" + b"7", b"L", b"K", b"x", b"g", b"S"
KNOWN = ("path", "size", "mtime")
WITHOUT_CONTENT = b"123456"  # links, devices and folders, whatever size they state
FIELD = re.compile(rb"(\d{1,7}) ([^=]+)=")


class DamagedError(Exception):
    """Not the bytes of a whole tar: what was found."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive. modified: seconds since 1970, None where that is no time before the year 10000. content: once."""

    name: str
    size: int
    modified: float | None
    content: Content


class Content:
    """What is left of a member's bytes."""

    def __init__(self, stream: _Counted, size: int) -> None:
        self._stream, self._left = stream, size
        self._padding = -size % BLOCK

    def read(self, size: int, /) -> bytes:
        """1 to `size` bytes, and b"" at the end. Raises DamagedError if the archive ends first."""
        if not self._left:
            return b""
        piece = self._stream.read(min(size, self._left))
        if not piece:
            raise DamagedError(f"it ends {self._left} bytes before the end of a member")
        self._left -= len(piece)
        return piece

    def skip(self) -> None:
        while self.read(1 << 20):
            pass
        self._stream.exactly(self._padding)
        self._padding = 0


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so, with at least 512 bytes, is a tar: whether its first header has the right checksum."""
    return len(head) >= BLOCK and _checksum_holds(head[:BLOCK])


def members(stream: Readable) -> Iterator[Member]:
    """The files of a tar, each to be read before the next is asked for. Raises DamagedError."""
    counted = _Counted(stream)
    common: dict[str, str] = {}
    own: dict[str, str] = {}
    while (block := counted.header()) is not None:
        kind = block[156:157]
        size = _number(block[124:136], "size")
        if kind in (FIELDS, COMMON_FIELDS, LONG_NAME, LONG_LINK):
            found = counted.long_header(size)
            if kind == COMMON_FIELDS:
                common |= _fields(found)
            elif kind == FIELDS:
                own |= _fields(found)
            elif kind == LONG_NAME:
                own["path"] = _text(found)
            continue
        if kind == SPARSE:
            raise DamagedError("it holds a sparse file, of which nothing is known here")
        stated = {**common, **own}
        own = {}
        size = _size(stated, size)
        content = Content(counted, 0 if kind in WITHOUT_CONTENT else size)
        name = stated.get("path") or _name(block)
        if kind in FILES and not name.endswith("/"):
            yield Member(name, size, _modified(stated, block), content)
        content.skip()


class _Counted:
    """A stream that knows how far it was read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._place = 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._place += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        pieces, left = [], size
        while left:
            piece = self.read(left)
            if not piece:
                raise DamagedError(f"it ends at byte {self._place:,} of the tar, {left} bytes too early")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def header(self) -> bytes | None:
        """The next block; None if it is the end mark."""
        place = self._place
        try:
            block = self.exactly(BLOCK)
        except DamagedError:
            block = b""
        if block == ZEROS:
            return None
        if not block or not _checksum_holds(block):
            raise DamagedError(f"no member and no end mark at byte {place:,} of the tar")
        return block

    def long_header(self, size: int) -> bytes:
        """The contents of a header that states fields of the next member."""
        if size > HEADER_BYTES:
            raise DamagedError(f"a member's header of {size:,} bytes, at byte {self._place:,} of the tar")
        found = self.exactly(size)
        self.exactly(-size % BLOCK)
        return found


def _checksum_holds(block: bytes) -> bool:
    """The sum of the header's bytes, its own field taken for blanks; old programs added them as signed."""
    try:
        stated = _number(block[148:156], "checksum")
    except DamagedError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return stated in (unsigned, unsigned - 256 * sum(byte > 127 for byte in rest))


def _number(field: bytes, what: str) -> int:
    """Octal digits, or binary after a byte of 0x80 (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    digits = field.split(b"\0", 1)[0].strip()
    if digits.translate(None, b"01234567"):
        raise DamagedError(f"a member's {what} is {field!r}")
    return int(digits or b"0", 8)


def _size(stated: Mapping[str, str], size: int) -> int:
    if "size" not in stated:
        return size
    if not re.fullmatch(r"\d{1,18}", stated["size"], re.ASCII):
        raise DamagedError(f"a member's size is {stated['size'][:40]!r}")
    return int(stated["size"])


def _modified(stated: Mapping[str, str], block: bytes) -> float | None:
    try:
        modified = float(stated["mtime"]) if "mtime" in stated else float(_number(block[136:148], "time"))
    except (ValueError, OverflowError, DamagedError):
        return None
    return modified if 0 <= modified < YEAR_10000 - 1 else None


def _fields(found: bytes) -> dict[str, str]:
    """pax: "<length> <key>=<value>\\n", the length counting all of it."""
    fields: dict[str, str] = {}
    place = 0
    while place < len(found) and found[place] != 0:
        head = FIELD.match(found, place)
        end = place + int(head[1]) if head else 0
        if head is None or not head.end() < end <= len(found):
            raise DamagedError(f"a member's extended header has {found[place : place + 40]!r}")
        if (key := _text(head[2])) in KNOWN:  # the common ones are kept to the end, and may be many
            fields[key] = _text(found[head.end() : end - 1])
        place = end
    return fields


def _name(block: bytes) -> str:
    name, prefix = _text(block[:100]), _text(block[345:500])
    return f"{prefix}/{name}" if prefix and block[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    """Up to the first zero; what is no UTF-8 shows as \\xff."""
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
