"""Markdown of facts: text that others wrote stands in it as text, whatever it holds.

In: names, titles, licences, predicates, file names. Out: inline Markdown, code spans, tables, fenced blocks, as CommonMark and GitHub's
tables have them. Characters that Markdown or HTML read as more than themselves are escaped; those that one cannot see, or that turn
the direction of a line, are shown as `␛` or `⟨U+202E⟩`; line ends are spaces. Not: nothing is cut but what `limit` says.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=\bwww)\.|^[#+=-]|(?<=^\d)[.)]")
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
LIMIT = 2_000  # characters of any one value


def visible(value: object, limit: int = LIMIT) -> str:
    """One line of characters that can be seen; what is longer than `limit` ends with `…`."""
    text = str(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(character if unicodedata.category(character) not in UNSEEN else _shown(character) for character in text)


def text(value: object, limit: int = LIMIT) -> str:
    """Inline text, in a paragraph or in a table's cell. No link comes of an address in it."""
    escaped = SPECIAL.sub(lambda match: f"\\{match[0]}", visible(value, limit).strip())
    return re.sub("[<>]|&(?=#?\\w+;)", lambda match: ENTITIES[match[0]], escaped)


def code(value: object, limit: int = LIMIT) -> str:
    """A code span in a table's cell, where `|` needs a backslash."""
    content = visible(value, limit).replace("|", "\\|") or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{fence}{pad}{content}{pad}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already; the first `left` columns are words, the others numbers."""
    marks = ["---" if place < left else "---:" for place in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, marks, *rows))


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def fenced(language: str, content: str) -> str:
    """A block of code: its lines as they are, but for what cannot be seen."""
    lines = [visible(line, limit=100_000) for line in content.rstrip("\n").split("\n")]
    fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
    return "\n".join([f"{fence}{language}", *lines, fence])


def number(value: float | None) -> str:
    """Whole numbers with commas, others with four digits that count; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def megabytes(value: int) -> str:
    return f"{value / 1e6:,.1f} MB" if value >= 50_000 else f"{value:,} bytes"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.3%}"


def _shown(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if ord(character) < 0x20:
        return chr(0x2400 + ord(character))
    return "␡" if character == "\x7f" else f"⟨U+{ord(character):04X}⟩"
