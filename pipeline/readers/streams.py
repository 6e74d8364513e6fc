"""Bytes of a raw file, decompressed as they are read: plain, gzip, zstd or bzip2, chosen by the name's
suffix.

Goes in: a file or an open binary file. Comes out: `Stream`, a readable binary file whose every `read` is
bounded, so a decompression bomb costs time but no memory. Files of many gzip members, zstd frames or bzip2
streams are read to their end. Cost on one core of a 2-core machine: zstd 0.8 GB/s, gzip 0.6 GB/s of
decompressed bytes.

Damage is never silent: zero bytes, a wrong magic number, a failed checksum, bytes that follow the last member
and a file that ends inside a member raise `PipelineError` with the file, the byte place and the remedy. What
cannot be seen from here is a file cut exactly between two members; the sha256 in its source's list is there
for that.

The three decompressors share the interface that Python's `bz2` set (`decompress(data, max_length)`,
`needs_input`, `eof`, `unused_data`): it bounds the output *and* tells the end of a member from the end of the
file. zstandard's stream reader does the first only (it takes a truncated file for a whole one), hence
`backports.zstd`, which is Python 3.14's own `compression.zstd`.
"""

from __future__ import annotations

import bz2
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from backports import zstd
from isal import igzip_lib

from pipeline.errors import PipelineError
from pipeline.readers import RawFile

INPUT_BYTES = 256 << 10
BLOCK_BYTES = 4 << 20


class Decompressor(Protocol):
    """What `bz2.BZ2Decompressor` offers, and its siblings of zstd and igzip."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression format: how its files are named and begin, and what decompresses one member of it."""

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    member: Callable[[], Decompressor]


GZIP = Codec("gzip", (".gz", ".tgz"), b"\x1f\x8b", lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))
ZSTD = Codec("zstd", (".zst", ".zstd"), b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor)
BZIP2 = Codec("bzip2", (".bz2",), b"BZh", bz2.BZ2Decompressor)
CODECS = (GZIP, ZSTD, BZIP2)
DAMAGE: tuple[type[Exception], ...] = (
    cast("type[Exception]", igzip_lib.IsalError),
    zstd.ZstdError,
    OSError,
    EOFError,
    ValueError,
)
REMEDY = "fetch the file again and compare its sha256"


def open_stream(file: RawFile) -> Stream:
    """The decompressed bytes of `file`; close it, or use it in a `with` block.

    Raises `PipelineError` where the file is absent, and, from here and from every read, where it is damaged.
    """
    codec = codec_of(file.name)
    try:
        raw = open(file.path, "rb")  # the stream closes it
    except OSError as error:
        raise PipelineError(f"{file.name}: cannot be opened ({error}); fetch the file again") from error
    return Stream(raw, codec, file.name)


def codec_of(name: str) -> Codec | None:
    """The compression that a file's name tells; None for a plain file."""
    lowered = name.lower()
    return next((codec for codec in CODECS if lowered.endswith(codec.suffixes)), None)


class Stream(io.RawIOBase):
    """Decompressed bytes of `raw`, read forwards only. `read(n)` gives 1 to n bytes, and b"" at the end.

    `place` names the file in errors; `position` is the number of bytes of `raw` that were used up.
    """

    def __init__(self, raw: BinaryIO, codec: Codec | None, place: str) -> None:
        self._raw, self._codec, self._place = raw, codec, place
        self._member = codec.member() if codec else None
        self._member_start = 0
        self._pending = b""  # read from `raw`, not yet given to the decompressor
        self._fetched = 0

    @property
    def position(self) -> int:
        return self._fetched - len(self._pending)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.close()
        super().close()

    def read(self, size: int = BLOCK_BYTES, /) -> bytes:
        if size < 0:
            return self.readall()
        return self._read_plain(size) if self._member is None else self._read_member(size)

    def _read_plain(self, size: int) -> bytes:
        first = self._fetched == 0
        data = self._fetch(size)
        if first and not data:
            raise self._damage("holds zero bytes", "remove it, or fetch it again")
        if first and data.startswith((GZIP.magic, ZSTD.magic)):
            codec = GZIP if data.startswith(GZIP.magic) else ZSTD
            raise self._damage(
                f"begins like a {codec.name} file, but its name does not say so",
                f"give it the suffix {codec.suffixes[0]}",
            )
        return data

    def _read_member(self, size: int) -> bytes:
        assert self._codec is not None and self._member is not None
        while True:
            if self._member.eof:
                data = self._pending or self._fetch(INPUT_BYTES)
                if not data:
                    return b""
                self._pending = data
                self._member_start = self.position
                self._member = self._codec.member()
            elif self._member.needs_input and not self._pending:
                self._pending = self._fetch(INPUT_BYTES)
                if not self._pending:
                    raise self._truncated()
            out = self._advance(size)
            if out:
                return out

    def _advance(self, size: int) -> bytes:
        assert self._codec is not None and self._member is not None
        data = self._pending if self._member.needs_input else b""
        try:
            out = self._member.decompress(data, size)
        except DAMAGE as error:
            raise self._damage(
                f"holds damaged or foreign bytes in the {self._codec.name} member that begins at byte {self._member_start:,} ({error})"
            ) from error
        if data:
            self._pending = b""
        if self._member.eof:
            self._pending = self._member.unused_data
        return out

    def _fetch(self, size: int) -> bytes:
        try:
            data = self._raw.read(size)
        except OSError as error:
            raise self._damage(f"cannot be read on ({error})") from error
        self._fetched += len(data)
        return data

    def _truncated(self) -> PipelineError:
        assert self._codec is not None
        if self._fetched == 0:
            return self._damage(f"holds zero bytes where a {self._codec.name} file should begin")
        return self._damage(f"ends inside the {self._codec.name} member that begins at byte {self._member_start:,}")

    def _damage(self, found: str, remedy: str = REMEDY) -> PipelineError:
        return PipelineError(f"{self._place}: {found}, at byte {self.position:,}; {remedy}")
