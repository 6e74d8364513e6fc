"""A bounded part of a text around what is marked in it, safe to look at: segments that a page shows one after another.

In: UTF-8 and marks. Out: segments and the marks' legend. A segment is a text, `[kind, text]` of a marked one, `[kind, text, replacement]`
of one that was edited, or the number of characters left out there. Characters that do not show themselves are spelled out: controls and
escapes, and those that turn the direction of writing or take no room, so that nothing hides and nothing acts. Cost: a few passes over
the marks; of the text only what is shown is decoded.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tools.report.documents.evidence.text import Mark

Segment = str | int | list[str | int]
HEAD = 0.12  # of an excerpt, the text's beginning
FEWEST, MOST = 60, 400  # bytes on either side of a mark
LONG = 400  # bytes: of a longer mark its two ends
SHORT_GAP = 40  # bytes that are rather shown than left out
KINDS = 6  # different marks in one text; more are one

_INVISIBLE = [
    *range(0x80, 0xA0), 0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF,
    *range(0xFFF9, 0xFFFD), *range(0xE0000, 0xE0080),
]  # fmt: skip
_CONTROLS = "NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split()
_SHOWN = {code: f"⟨{name}⟩" for code, name in [*enumerate(_CONTROLS), (0x7F, "DEL")] if name not in ("HT", "LF")}
_SHOWN |= {code: f"⟨U+{code:04X}⟩" for code in _INVISIBLE}


class Excerpt(NamedTuple):
    """legend: of each kind what it is and how often the whole text has it, whatever is shown."""

    segments: list[Segment]
    legend: list[list[str | int]]


def visible(text: str) -> str:
    """The text with a name for each character that does not show itself, but for line feeds and tabs."""
    return text.translate(_SHOWN)


def excerpt(text: bytes, marks: Iterable[Mark], limit: int, about: str = "") -> Excerpt:
    """About `limit` bytes of the text, with marks of every label, those of the label `about` first. Marks that overlap an earlier one lose
    what it has."""
    apart = _apart(marks)
    labels = list(dict.fromkeys(mark.label for mark in apart))
    kinds = {label: min(place, KINDS - 1) for place, label in enumerate(labels)}
    legend: list[list[str | int]] = [[visible(label), 0] for label in labels[:KINDS]]
    for mark in apart:
        legend[kinds[mark.label]][1] += 1  # type: ignore[operator]
    segments: list[Segment] = []
    shown = at = 0
    for start, end in _windows(text, _ranked(apart, about), limit):
        if start > shown:
            segments.append(_characters(text[shown:start]))
        while at < len(apart) and apart[at].end <= start:
            at += 1
        place = start
        for mark in apart[at:]:
            if mark.start >= end:
                break
            first, last = max(mark.start, start), min(mark.end, end)
            _add(segments, text[place:first])
            added: list[str | int] = [kinds[mark.label], _decoded(text[first:last])]
            if mark.replacement is not None:
                added.append(visible(mark.replacement) if last == mark.end else "")
            segments.append(added)
            place = last
        _add(segments, text[place:end])
        shown = end
    if shown < len(text):
        segments.append(_characters(text[shown:]))
    return Excerpt(segments, legend)


def _apart(marks: Iterable[Mark]) -> list[Mark]:
    """In order and without overlaps; neighbours of one label that touch are one."""
    found: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.end)):
        if found and found[-1].label == mark.label and mark.start <= found[-1].end and mark.replacement is None:
            found[-1] = found[-1]._replace(end=max(found[-1].end, mark.end))
        elif mark.end > (reached := found[-1].end if found else 0):
            found.append(mark._replace(start=max(mark.start, reached)))
    return found


def _ranked(marks: Sequence[Mark], about: str) -> list[Mark]:
    """Those of `about`, then of every label the first, of every label the second …"""
    times: Counter[str] = Counter()
    ranks = []
    for mark in marks:
        ranks.append((mark.label != about, times[mark.label], mark.start))
        times[mark.label] += 1
    return [mark for _, mark in sorted(zip(ranks, marks, strict=True))]


def _windows(text: bytes, marks: Sequence[Mark], limit: int) -> list[tuple[int, int]]:
    """What to show, in order: the beginning, and what is around marks, as many as there is room for, those that come first in `marks`; each
    begins and ends with a whole character."""
    if len(text) <= limit + SHORT_GAP:
        return [(0, len(text))] if text else []
    if not marks:
        wanted = [(0, limit - limit // 4), (len(text) - limit // 4, len(text))]
    else:
        wanted, left = [(0, int(HEAD * limit))], limit - int(HEAD * limit)
        around = min(max(left // (2 * min(len(marks), 6)) - 40, FEWEST), MOST)
        for mark in marks:
            ends = [(mark.start, mark.end)]
            if mark.end - mark.start > 2 * LONG:
                ends = [(mark.start, mark.start + LONG), (mark.end - LONG // 4, mark.end)]
            for start, end in ends:
                wanted.append((max(start - around, 0), min(end + around, len(text))))
                left -= end - start + 2 * around
            if left <= 0:
                break
    windows: list[tuple[int, int]] = []
    for start, end in sorted((_whole(text, start), _whole(text, end)) for start, end in wanted):
        if windows and start <= windows[-1][1] + SHORT_GAP:
            windows[-1] = (windows[-1][0], max(windows[-1][1], end))
        else:
            windows.append((start, end))
    return windows


def _whole(text: bytes, at: int) -> int:
    """`at`, or the beginning of the character that it is within."""
    while 0 < at < len(text) and text[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _add(segments: list[Segment], text: bytes) -> None:
    if text:
        segments.append(_decoded(text))


def _decoded(text: bytes) -> str:
    return visible(text.decode(errors="replace"))


def _characters(text: bytes) -> int:
    return len(text) - sum(text.count(bytes([byte])) for byte in range(0x80, 0xC0))
