"""arXiv's LaTeX sources, cleaned as RedPajama v1 cleaned them (data_prep/arxiv/arxiv_cleaner.py).

Goes in, by the file's name: a `.tex` file (one paper); a paper's archive (`.tar.gz`, `.tgz`, or `.gz` of a
tar or of a single TeX file); arXiv's bulk `.tar` (arXiv_src_YYMM_NNN.tar) of such papers. Any other name is
taken for TeX. Comes out: one record a paper, `{"id", "text", "created", "metadata"}`; `row` = 0 for one
paper, or the member's number among the files of the bulk tar. Archives are read as streams: no member touches
the disk, and of a paper only its `.tex` files are held in memory, at most 64 MiB.

Failures: `invalid_utf8` (one file of a paper, so the whole paper, as upstream), `no_latex_source` (a PDF, or
no `.tex` inside), `broken_archive` (one damaged paper in a whole bulk tar), `paper_too_large`. A paper
without a sectioning command has an empty `text`, which the read stage counts. A damaged bulk tar or archive
of one paper: `PipelineError`.

`cleaned` is the rules in upstream's order, one file at a time, with their quirks: commented-out section
commands count; a bare trailing `%` stays; an in-line comment takes the character before it along; each macro
is expanded once, in order of its first definition, and only before a character that is neither letter nor
digit. Two deviations:
  * upstream lacks a `|` between \\paragraph and \\subparagraph, so that they count as sectioning only when
    the one stands right before the other; here they never count;
  * upstream fails on a macro whose value holds a character beyond ASCII (its escape is no valid replacement);
    here values are put in literally, which for ASCII is the same.
`metadata.language` is null: upstream records fastText's guess and filters on none; here it is a tagger's work.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import PurePosixPath
from typing import IO, BinaryIO, cast

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.streams import BLOCK_BYTES, GZIP, REMEDY, Stream, open_stream

PAPER_BYTES = 64 << 20

MACROS = (
    re.compile(r"\\\bnewcommand\b\*?\{(\\[a-zA-Z0-9]+?)\}\{(.*?)\}$", re.MULTILINE),
    re.compile(r"\\def\s*(\\[a-zA-Z0-9]+?)\s*\{(.*?)\}$", re.MULTILINE),
)
SECTION = re.compile(r"\\(?:chapter|part|section|subsection|subsubsection)\b\*?(?:\[.*?\])?\{.*?\}", re.DOTALL)
COMMENT_LINE = re.compile(r"^%.*\n?", re.MULTILINE)
COMMENT = re.compile(r"[^\\]%.+$", re.MULTILINE)
BACK_MATTER = re.compile(r"\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{[^}]*\}")

# Identifiers until March 2007 name their archive: hep-th/9901001, in file names hep-th9901001.
ARCHIVES = (
    "acc-phys|adap-org|alg-geom|ao-sci|astro-ph|atom-ph|bayes-an|chao-dyn|chem-ph|cmp-lg|comp-gas|cond-mat|cs"
    "|dg-ga|funct-an|gr-qc|hep-ex|hep-lat|hep-ph|hep-th|math-ph|math|mtrl-th|nlin|nucl-ex|nucl-th|patt-sol"
    "|physics|plasm-ph|q-alg|q-bio|quant-ph|solv-int|supr-con"
)
NEW_ID = re.compile(r"(\d\d(?:0[1-9]|1[0-2]))\.\d{4,5}(?:v\d+)?")
OLD_ID = re.compile(rf"({ARCHIVES})(\d\d(?:0[1-9]|1[0-2])\d{{3}}(?:v\d+)?)")


@dataclass(frozen=True, slots=True)
class Paper:
    """A paper's `.tex` files in the archive's order, and when the newest changed (None: unknown)."""

    sources: list[bytes]
    modified: float | None


class NoLatexError(Exception):
    """This file is whole, and is no paper in LaTeX that can be held in memory: (reason, detail)."""


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the paper or papers of `file`. Raises `PipelineError` for a damaged file."""
    with open_stream(file) as stream:
        if file.name.lower().endswith(".tar"):
            yield from _bulk(file, stream)
        else:
            yield _paper(0, file.name, stream, None)


def cleaned(sources: Iterable[str]) -> str:
    """One paper's text from its `.tex` files by RedPajama's rules: each file by itself, joined by newlines.

    Empty if no file has a sectioning command.
    """
    sources = list(sources)
    macros = [(_macro(name), value) for name, value in _macros(sources).items()]
    text = "\n".join(_cleaned_file(source, macros) for source in sources)
    return text if text.strip() else ""


def _macros(sources: list[str]) -> dict[str, str]:
    """Macros without arguments, defined on one line; a later definition wins, in the earlier one's place."""
    return {match[1]: match[2] for source in sources for kind in MACROS for match in kind.finditer(source)}


def _macro(name: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(name)}([^a-zA-Z0-9])")


def _cleaned_file(source: str, macros: list[tuple[re.Pattern[str], str]]) -> str:
    first = SECTION.search(source)
    if first is None:
        return ""
    text = COMMENT.sub("", COMMENT_LINE.sub("", source[first.start() :]))
    end = BACK_MATTER.search(text)
    if end is not None:
        text = text[: end.start()]
    for pattern, value in macros:
        text = pattern.sub(lambda match, value=value: value + match[1], text)  # type: ignore[misc]
    return text


def _bulk(file: RawFile, stream: Stream) -> Iterator[Record | Failure]:
    with _whole_tar(file.name, stream):
        for row, (member, content) in enumerate(_members(stream)):
            name = f"{file.name}/{member.name}"
            if not member.name.lower().endswith(".gz"):
                yield Failure(row, "no_latex_source", f"{member.name} is no .gz of LaTeX")
                continue
            try:
                yield _paper(row, name, Stream(content, GZIP, name), float(member.mtime))
            except PipelineError as error:
                yield Failure(row, "broken_archive", str(error))


def _members(stream: Stream | _Rejoined) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """The files of a tar, each to be read before the next is asked for."""
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            if member.isfile():
                yield member, cast("BinaryIO", archive.extractfile(member))


@contextmanager
def _whole_tar(place: str, stream: Stream) -> Iterator[None]:
    """Turns what `tarfile` finds wrong with `stream`, here or in reading a member, into `PipelineError`."""
    try:
        yield
    except tarfile.TarError as error:
        raise PipelineError(f"{place}: is no whole tar ({error}), at byte {stream.position:,}; {REMEDY}") from error


class _StrictTarInfo(tarfile.TarInfo):
    """`tarfile` takes a damaged or missing header for the archive's end; here only the end mark is."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no member and no end mark at byte {archive.offset:,} of the tar: {error}") from error


def _paper(row: int, name: str, content: Stream, mtime: float | None) -> Record | Failure:
    try:
        paper = _sources(name, content)
    except NoLatexError as nothing:
        return Failure(row, *nothing.args)
    return _document(row, name, paper, mtime if mtime is not None else paper.modified)


def _sources(name: str, content: Stream) -> Paper:
    """The `.tex` files of a paper that is a tar, or the single file that it is."""
    head = b""
    while len(head) < tarfile.BLOCKSIZE and (more := content.read(tarfile.BLOCKSIZE - len(head))):
        head += more
    if not _is_tar(head):
        if head.startswith((b"%PDF", b"%!PS")):
            raise NoLatexError("no_latex_source", f"the file begins with {head[:8]!r}")
        return Paper([head + _limited(content, PAPER_BYTES - len(head))], None)
    sources: list[bytes] = []
    room, modified = PAPER_BYTES, None
    with _whole_tar(name, content):
        for member, source in _members(_Rejoined(head, content)):
            if member.name.endswith(".tex"):
                if member.size > room:
                    raise NoLatexError("paper_too_large", f"its .tex files exceed {PAPER_BYTES:,} bytes")
                sources.append(source.read())
                room -= member.size
                modified = max(modified or 0.0, float(member.mtime))
    while content.read(BLOCK_BYTES):  # gzip's checksum follows the tar's end
        pass
    if not sources:
        raise NoLatexError("no_latex_source", "the archive holds no .tex file")
    return Paper(sources, modified)


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # checks the header's checksum
    except tarfile.HeaderError:
        return False
    return True


class _Rejoined:
    """A stream with its head put back, for `tarfile`."""

    def __init__(self, head: bytes, rest: Stream) -> None:
        self._head, self._rest = BytesIO(head), rest

    def read(self, size: int) -> bytes:
        return self._head.read(size) or self._rest.read(size)


def _limited(content: Stream, limit: int) -> bytes:
    pieces: list[bytes] = []
    while piece := content.read(1 << 20):
        pieces.append(piece)
        limit -= len(piece)
        if limit < 0:
            raise NoLatexError("paper_too_large", f"the file exceeds {PAPER_BYTES:,} bytes")
    return b"".join(pieces)


def _document(row: int, name: str, paper: Paper, modified: float | None) -> Record | Failure:
    try:
        text = cleaned(source.decode("utf-8") for source in paper.sources)
    except UnicodeDecodeError as error:
        near = error.object[max(0, error.start - 20) : error.start + 20]
        return Failure(row, "invalid_utf8", f"byte {error.start:,} of a .tex file of {name}, in {near!r}")
    arxiv_id, yymm = arxiv_identifier(name)
    timestamp = None if modified is None else datetime.fromtimestamp(modified, UTC).isoformat()
    metadata = {
        "arxiv_id": arxiv_id,
        "yymm": yymm,
        "timestamp": timestamp,
        "language": None,
        "url": f"https://arxiv.org/abs/{arxiv_id}" if arxiv_id else None,
    }
    return Record(row, {"id": arxiv_id or name, "text": text, "created": timestamp, "metadata": metadata})


def arxiv_identifier(name: str) -> tuple[str, str] | tuple[None, None]:
    """The arXiv identifier that a file's name tells, and its yymm: `hep-th9901001.gz` is hep-th/9901001."""
    stem = re.sub(r"(?:\.tex|\.tar)?(?:\.tex|\.gz|\.tgz)?$", "", PurePosixPath(name).name)
    if new := NEW_ID.fullmatch(stem):
        return stem, new[1]
    if old := OLD_ID.fullmatch(stem):
        return f"{old[1]}/{old[2]}", old[2][:4]
    return None, None
