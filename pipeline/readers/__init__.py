"""Readers: one raw file in, its records out, one after the other.

A reader is a function ``read(file) -> Iterator[Record | Failure]`` in a module of this folder. It yields each
record with its fields as upstream has them (mapping them to documents is the read stage's work), in the
file's order, and a named `Failure` for each record that cannot be read. A damaged *container* (a truncated
download, a wrong magic number, a broken Parquet footer) is no record: it raises `PipelineError` with file,
byte place and remedy.

Cost: one pass over the file; memory is bounded by the largest record, not by the file. Modules are imported
when their reader is first called, so that nothing but the formats in use is loaded.

Adding a reader: a module here with ``read``, its name in `NAMES` and, if a suffix tells it, a line in
`PATTERNS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pipeline.errors import PipelineError

DETAIL_LIMIT = 200


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file as a source delivers it.

    `name` is POSIX, relative and stable: tables show it as `file`. `path` is where it lies: a path, a path relative to the store, or
    `hf://…` for one that is downloaded when it is read (stages/download.py); a reader is handed one on this machine.
    """

    name: str
    path: str
    bytes: int
    sha256: str
    reader: str | None = None
    licence: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One upstream record; `row` is its 0-based place in the file (line, page, member), failures counted."""

    row: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that cannot be read: a snake_case `reason`, and in ≤ 200 characters what was found."""

    row: int
    reason: str
    detail: str

    def __post_init__(self) -> None:
        if len(self.detail) > DETAIL_LIMIT:
            object.__setattr__(self, "detail", self.detail[: DETAIL_LIMIT - 1] + "…")


Reader = Callable[[RawFile], Iterator[Record | Failure]]

NAMES = ("jsonl", "parquet", "wikipedia", "latex", "html", "math_html", "warc", "jats", "text", "code", "faq", "qa")
# What a file's name says about its format; the first pattern that fits wins. `jats`, `code` and `qa` are chosen
# by a source's declaration alone: their suffixes (.xml, .py, .json …) mean other things elsewhere.
PATTERNS: tuple[tuple[str, str], ...] = (
    *((f"*.{kind}{packing}", "jsonl") for kind in ("json", "jsonl") for packing in ("", ".gz", ".zst", ".zstd")),
    ("*.parquet", "parquet"),
    *((f"*.xml{packing}", "wikipedia") for packing in ("", ".bz2", ".gz")),
    (
        "*.xml-p*.bz2",
        "wikipedia",
    ),  # multistream dumps carry their range of page ids: …articles1.xml-p1p41242.bz2
    *((f"*{suffix}", "latex") for suffix in (".tex", ".tex.gz", ".tar", ".tar.gz", ".tgz")),
    ("*.html", "html"),
    ("*.htm", "html"),
    ("*.warc", "warc"),
    ("*.warc.gz", "warc"),
)


def _lazy(name: str) -> Reader:
    def read(file: RawFile) -> Iterator[Record | Failure]:
        yield from importlib.import_module(f"pipeline.readers.{name}").read(file)

    return read


READERS: dict[str, Reader] = {name: _lazy(name) for name in NAMES}


def reader_for(file: RawFile) -> Reader:
    """The reader that `file` names or, if it names none, that its suffix tells (letter case does not matter).

    Raises `PipelineError` for an unknown reader or suffix, naming the file and what is known.
    """
    if file.reader is not None:
        if file.reader not in READERS:
            raise PipelineError(f"{file.name}: there is no reader {file.reader!r}; known are {', '.join(NAMES)}")
        return READERS[file.reader]
    lowered = file.name.lower()
    for pattern, name in PATTERNS:
        if fnmatchcase(lowered, pattern):
            return READERS[name]
    raise PipelineError(
        f"{file.name}: its suffix tells no format; read are {' '.join(pattern for pattern, _ in PATTERNS)}. "
        f"Leave the file out of the source's files, or name its `reader:` (one of {', '.join(NAMES)})"
    )
