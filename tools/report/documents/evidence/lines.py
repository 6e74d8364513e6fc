"""Lines and paragraphs that made a count or share of lines what it is: copies, bullets, ellipses, short and long ones.

What a line is differs by family: the docstrings of pipeline/taggers/{gopher_*,fineweb,code}.py say it. Cost: some 0.2 s per MB of text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from pipeline.taggers import gopher_datatrove, gopher_dclm
from pipeline.text.line_ends import SHORT_LINE, TERMINAL_PUNCTUATION
from tools.report.documents.evidence.text import Mark, Text, shows

Limit = float | None
Piece = tuple[int, int]
BULLETS = {"gopher_dolma": ("*", "-"), "gopher_datatrove": gopher_datatrove.BULLETS, "gopher_dclm": gopher_dclm.BULLETS}
ELLIPSES = {"gopher_dolma": ("…",), "gopher_datatrove": gopher_datatrove.ELLIPSES, "gopher_dclm": gopher_dclm.ELLIPSES}


def pieces(text: Text, newlines: int = 1, stripped: bool = False, within: Piece | None = None) -> Iterator[Piece]:
    """What lies between runs of at least so many "\n" and is not empty, or, stripped, not white space alone. within: of these bytes."""
    start, last = within or (0, len(text.data))
    for end, following in [*(found.span() for found in re.compile(rb"\n{%d,}" % newlines).finditer(text.data, start, last)), (last, last)]:
        begin, stop = _stripped(text, start, end) if stripped else (start, end)
        if begin < stop:
            yield begin, stop
        start = following


def _stripped(text: Text, start: int, end: int) -> Piece:
    """Without Unicode's white space at both ends."""
    piece = text.data[start:end].decode()
    begin = start + len(piece[: len(piece) - len(piece.lstrip())].encode())
    return begin, begin + len(piece.strip().encode())


@shows(r"(gopher_dclm|gopher_dolma|gopher_datatrove|fineweb)_duplicate_(?:(line|paragraph)_)?(?:character_)?share(?:_v1)?")
def copies(text: Text, column: re.Match[str], limit: Limit) -> list[Mark]:
    """To datatrove the first of equal ones is none, and paragraphs are those of the stripped text; to FineWeb blank lines are none."""
    later, newlines = column[1] in ("gopher_datatrove", "fineweb"), 2 if column[2] == "paragraph" else 1
    within = _stripped(text, 0, len(text.data)) if later and newlines == 2 else None
    found = list(pieces(text, newlines, stripped=column[1] == "gopher_dclm", within=within))
    kind = column[2] or "line"
    if column[1] == "fineweb":
        found = [piece for piece in found if not text.data[slice(*piece)].decode().isspace()]
    times: Counter[bytes] = Counter(text.data[start:end] for start, end in found)
    seen: set[bytes] = set()
    marks = []
    for start, end in found:
        piece = text.data[start:end]
        if times[piece] > 1 and (not later or piece in seen):
            marks.append(Mark(start, end, f"{kind}s that came before" if later else f"{kind}s that come more than once"))
        seen.add(piece)
    return marks


@shows(r"(gopher_\w+?)_(bullet|ellipsis)_line_share(?:_v1)?")
def edges(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    for start, end in pieces(text, stripped=column[1] != "gopher_dolma"):
        line = text.data[start:end].decode()
        if column[2] == "bullet":
            found = next((each for each in BULLETS[column[1]] if line.startswith(each)), "")
            place = (start, start + len(found.encode()))
        else:
            found = next((each for each in ELLIPSES[column[1]] if line.endswith(each)), "")
            place = (end - len(found.encode()), end)
        if found:
            yield Mark(*place, "bullets that begin a line" if column[2] == "bullet" else "ellipses that end a line")


@shows("fineweb_short_line_share")
def short_lines(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    for start, end in pieces(text):
        line = text.data[start:end].decode()
        if len(line) <= SHORT_LINE and not line.isspace():
            yield Mark(start, end, f"lines of at most {SHORT_LINE} characters")


@shows("fineweb_punctuated_line_share")
def unpunctuated_lines(text: Text, column: re.Match[str], limit: Limit) -> Iterator[Mark]:
    for start, end in pieces(text):
        last = text.data[start:end].decode()[-1]
        if last in _terminal():
            yield Mark(end - len(last.encode()), end, "punctuation that ends a line")


@cache
def _terminal() -> frozenset[str]:
    spans = [each.partition("-") for each in TERMINAL_PUNCTUATION.split()]
    return frozenset(chr(code) for first, _, last in spans for code in range(int(first, 16), int(last or first, 16) + 1))


@shows("code_longest_line|longest_line")
def longest_line(text: Text, column: re.Match[str], limit: Limit) -> Iterable[Mark]:
    longest = max(_lines(text), key=lambda piece: len(text.data[slice(*piece)].decode()), default=None)
    return [Mark(*longest, f"the longest line, {len(text.data[slice(*longest)].decode()):,} characters")] if longest else []


@shows("code_mean_line_length")
def long_lines(text: Text, column: re.Match[str], limit: Limit) -> Iterable[Mark]:
    if limit is None:
        return []
    found = [(start, end) for start, end in _lines(text) if len(text.data[start:end].decode()) > limit]
    return [Mark(start, end, f"lines of more than {limit:g} characters") for start, end in found]


def _lines(text: Text) -> Iterator[Piece]:
    """Those of `str.splitlines()`."""
    start = 0
    for line in text.string.splitlines(keepends=True):
        inner = line.splitlines()[0]
        yield start, start + len(inner.encode())
        start += len(line.encode())
