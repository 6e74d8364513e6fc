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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from pipeline.errors import PipelineError
from pipeline.readers import Failure, RawFile, Record, tar
from pipeline.readers.streams import BLOCK_BYTES, GZIP, REMEDY, Stream, open_stream

PAPER_BYTES = 64 << 20

GROWTH, LITTLE = 8, 1 << 20  # times longer, or so many characters, that macros may make a text: they can double each other
EXPANSION_WORK = 1 << 31  # characters that macros are looked for in, at most: some five seconds
SEARCHED_ANEW = 20  # times slower it is to find all control words than to find one

MACROS = (
    re.compile(r"\\\bnewcommand\b\*?\{(\\[a-zA-Z0-9]+?)\}\{"),
    re.compile(r"\\def\s*(\\[a-zA-Z0-9]+?)\s*\{"),
)
CONTROL_WORD = re.compile(r"\\[a-zA-Z0-9]+")
SECTION = re.compile(r"\\(?:chapter|part|section|subsection|subsubsection)\b\*?")
COMMENT_LINE = re.compile(r"^%.*\n?", re.MULTILINE)
COMMENT = re.compile(r"[^\\]%.+$", re.MULTILINE)
BACK_MATTER = re.compile(r"\\appendix|\\begin\{(?:references|REFERENCES|thebibliography)\}|\\bibliography\{")

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

    Empty if no file has a sectioning command. Raises NoLatexError where macros make it too large.
    """
    sources = list(sources)
    macros = _macros(sources)
    text = "\n".join(_cleaned_file(source, macros) for source in sources)
    return text if text.strip() else ""


def _cleaned_file(source: str, macros: dict[str, str]) -> str:
    first = _first_section(source)
    if first is None:
        return ""
    text = COMMENT.sub("", COMMENT_LINE.sub("", source[first:]))
    return _expanded(text[: _back_matter(text)], macros)


def _first_section(source: str) -> int | None:
    r"""Where the first sectioning command begins: `\\section`, perhaps a star and a short title in brackets, a title in braces.

    In time linear in the source, where upstream's expression is quadratic: a bracket or a brace that is missing after one command is
    missing after every later one too.
    """
    last_brace = source.rfind("}")
    last_title = source.rfind("]{", 0, max(0, last_brace))
    for command in SECTION.finditer(source):
        if source.startswith("[", command.end()):
            if command.end() < last_title:
                return command.start()
        elif source.startswith("{", command.end()) and command.end() < last_brace:
            return command.start()
    return None


def _back_matter(text: str) -> int | None:
    """Where the appendix or the references begin."""
    last_brace = text.rfind("}")
    for found in BACK_MATTER.finditer(text):
        if not found[0].endswith("{") or found.end() <= last_brace:
            return found.start()
    return None


def _macros(sources: list[str]) -> dict[str, str]:
    """Macros without arguments, defined on one line; a later definition wins, in the earlier one's place."""
    return {name: value for source in sources for kind in MACROS for name, value in _definitions(kind, source)}


def _definitions(kind: re.Pattern[str], source: str) -> Iterator[tuple[str, str]]:
    """Names and values: a value goes on to the brace at the end of its line. In time linear in the source."""
    place, end = 0, -1  # end: of the line last looked at
    while found := kind.search(source, place):
        if end < found.end():
            end = source.find("\n", found.end())
            end = len(source) if end < 0 else end
        if found.end() < end and source[end - 1] == "}":
            yield found[1], source[found.end() : end - 1]
            place = end
        else:
            place = found.end()


def _expanded(text: str, macros: dict[str, str]) -> str:
    """The text with each macro expanded once, one after the other."""
    used = set(CONTROL_WORD.findall(text))
    work, room = 0, max(GROWTH * len(text), LITTLE)
    for name, value in macros.items():
        if name not in used:
            continue
        again = value[:1].isalnum()  # then it may lengthen a control word that stands before it
        work += len(text) * (SEARCHED_ANEW if again else 1)
        if len(text) + text.count(name) * len(value) > room or work > EXPANSION_WORK:
            raise NoLatexError("paper_too_large", f"its {len(macros):,} macros expand a text of {len(text):,} characters too far")
        text = re.sub(rf"{re.escape(name)}([^a-zA-Z0-9])", lambda match, value=value: value + match[1], text)  # type: ignore[misc]
        used.update(CONTROL_WORD.findall(text if again else value))
    return text


def _bulk(file: RawFile, stream: Stream) -> Iterator[Record | Failure]:
    with _whole_tar(file.name, stream):
        for row, member in enumerate(tar.members(stream)):
            name = f"{file.name}/{member.name}"
            if not member.name.lower().endswith(".gz"):
                yield Failure(row, "no_latex_source", f"{member.name} is no .gz of LaTeX")
                continue
            try:
                yield _paper(row, name, Stream(cast("BinaryIO", member.content), GZIP, name), member.modified)
            except PipelineError as error:
                yield Failure(row, "broken_archive", str(error))


@contextmanager
def _whole_tar(place: str, stream: Stream) -> Iterator[None]:
    """Turns what is wrong with a tar, here or in reading a member, into `PipelineError`."""
    try:
        yield
    except tar.DamagedError as error:
        raise PipelineError(f"{place}: is no whole tar ({error}), at byte {stream.position:,}; {REMEDY}") from error


def _paper(row: int, name: str, content: Stream, modified: float | None) -> Record | Failure:
    try:
        paper = _sources(name, content)
        return _document(row, name, paper, modified if modified is not None else paper.modified)
    except NoLatexError as nothing:
        return Failure(row, *nothing.args)


def _sources(name: str, content: Stream) -> Paper:
    """The `.tex` files of a paper that is a tar, or the single file that it is."""
    head = b""
    while len(head) < tar.BLOCK and (more := content.read(tar.BLOCK - len(head))):
        head += more
    if not tar.is_tar(head):
        if head.startswith((b"%PDF", b"%!PS")):
            raise NoLatexError("no_latex_source", f"the file begins with {head[:8]!r}")
        return Paper([head + _limited(content, PAPER_BYTES - len(head))], None)
    sources: list[bytes] = []
    times: list[float] = []
    room = PAPER_BYTES
    with _whole_tar(name, content):
        for member in tar.members(_Rejoined(head, content)):
            if member.name.endswith(".tex"):
                if member.size > room:
                    raise NoLatexError("paper_too_large", f"its .tex files exceed {PAPER_BYTES:,} bytes")
                sources.append(_limited(member.content, room))
                room -= member.size
                times += [] if member.modified is None else [member.modified]
    while content.read(BLOCK_BYTES):  # gzip's checksum follows the tar's end
        pass
    if not sources:
        raise NoLatexError("no_latex_source", "the archive holds no .tex file")
    return Paper(sources, max(times, default=None))


class _Rejoined:
    """A stream with its head put back."""

    def __init__(self, head: bytes, rest: Stream) -> None:
        self._head, self._rest = BytesIO(head), rest

    def read(self, size: int, /) -> bytes:
        return self._head.read(size) or self._rest.read(size)


def _limited(content: tar.Readable, limit: int) -> bytes:
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
    timestamp = None if modified is None else datetime.fromtimestamp(modified, UTC).isoformat()
    arxiv_id, yymm = arxiv_identifier(name)
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
