"""The plain files of an archive that nobody vouches for: zip and wheel, tar plain or packed by gzip, bzip2 or zstd.

In: an archive on this machine. Out: names and contents of its files, in the archive's order; nothing is written to the disk here.
A name that is given, joined to any folder, leads to a place below that folder. Left out are links, devices and folders, and names
that lead elsewhere on some system or cannot be written on one (absolute, `..`, drives, backslashes, control characters, too long).

Cost: one pass over the bytes; memory of a block, and of a zip's directory. Bounded are the number of entries, the directory of a
zip, and what a tar unpacks to altogether, passed over or not; what one file unpacks to is bounded by whoever reads it.
"""

import io
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.errors import PipelineError
from pipeline.files import BLOCK
from pipeline.readers import tar
from pipeline.readers.streams import Stream, codec_of

ENTRIES = 200_000
DIRECTORY_BYTES = 16 << 20  # of a zip: it is read whole, and takes ten times as much in memory
TAR_BYTES = 64 << 30  # two minutes of unpacking
NAME_BYTES, PART_BYTES = 1024, 255  # of a name, and between two of its slashes: what file systems take
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # wheels have no others, and others take memory as they please
REGULAR = (0, 0o10)  # a zip's entry without a Unix type, and with that of a plain file


class ArchiveError(Exception):
    """The archive is damaged, or larger than any sample: what was found."""


def files(path: Path, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each file's name and the blocks of its contents, to be taken before the next file is asked for, or not at all.

    `name`, the archive's own, tells its format. Raises ArchiveError, also from the blocks.
    """
    with _explained():
        found = _of_zip(path) if name.lower().endswith((".zip", ".whl")) else _of_tar(path, name)
        for count, (entry, blocks) in enumerate(found):
            if count == ENTRIES:
                raise ArchiveError(f"it has more than {ENTRIES:,} entries")
            if plain := plain_name(entry):
                yield plain, blocks


def plain_name(name: str) -> str | None:
    """The name without empty parts and `.`; None if it may not be used for a file below a folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or ":" in name:
        return None
    try:
        sizes = [len(part.encode()) for part in path.parts]
    except UnicodeEncodeError:
        return None
    if max(sizes) > PART_BYTES or sum(sizes) + len(sizes) > NAME_BYTES or any(unicodedata.category(c) == "Cc" for c in name):
        return None
    return path.as_posix()


def clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Two of the names that cannot both be files below a folder: on some disks they are one, or one is the other's folder."""
    taken: dict[str, str] = {}
    for name in sorted(names):
        key = _folded(name)
        if key in taken:
            return taken[key], name
        taken[key] = name
    for key, name in taken.items():
        for parent in PurePosixPath(key).parents:
            if str(parent) in taken:
                return taken[str(parent)], name
    return None


def _folded(name: str) -> str:
    """Equal for names that some file systems take for one: whatever the case, and however accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _of_zip(path: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    with _ZipBytes(path) as raw, zipfile.ZipFile(raw) as bundle:
        for entry in bundle.infolist():
            # The upper half of external_attr is a Unix mode, its top four bits the type.
            if not entry.filename.endswith("/") and entry.external_attr >> 28 in REGULAR:
                yield entry.filename, _of_entry(bundle, entry)


class _ZipBytes(io.FileIO):
    """A zip's bytes; zipfile asks for more than a few blocks at once only when it reads the directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise ArchiveError(f"its directory has {size:,} bytes")
        return super().read(size)


def _of_entry(bundle: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    if entry.compress_type not in METHODS:
        raise ArchiveError(f"{entry.filename} is neither stored nor deflated")
    with _explained(), bundle.open(entry) as source:
        while block := source.read(BLOCK):
            yield block


def _of_tar(path: Path, name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    with open(path, "rb") as raw, Stream(raw, codec_of(name), name) as stream:
        bounded = _Bounded(stream, TAR_BYTES)
        for member in tar.members(bounded):
            yield member.name, _of_member(member)
        while bounded.read(BLOCK):  # a compressed file's checksum follows the tar's end
            pass


def _of_member(member: tar.Member) -> Iterator[bytes]:
    with _explained():
        while block := member.content.read(BLOCK):
            yield block


class _Bounded:
    """A stream that is not read beyond a limit."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise ArchiveError(f"it unpacks to more than {self._limit:,} bytes")
        return piece


@contextmanager
def _explained() -> Iterator[None]:
    """What zipfile, tar.py and the decompressors raise for bytes that are no archive, as ArchiveError."""
    try:
        yield
    except (tar.DamagedError, PipelineError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise ArchiveError(str(error)) from error
    except OSError as error:
        if error.errno is not None and error.filename is not None:
            raise  # the file itself cannot be opened
        raise ArchiveError(str(error)) from error
