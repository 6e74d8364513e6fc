"""Lists of frequently asked questions in reStructuredText, each question with its answer a record.

Goes in: a UTF-8 file whose section titles are questions. Comes out: `{"text": "<question>\\n\\n<answer>", "metadata":
{"question", "path"}}` for each section that has text of its own, the answer as it stands in the source; `row` is the
section's number. The text before the first title is skipped, as are titles that only group questions.

A section title is a line of text with a line of one repeated punctuation character below it, at least as long, and
perhaps the same line above (the reStructuredText specification, "Sections"). Failure: `invalid_utf8`.
Cost: one pass; memory of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.readers import Failure, RawFile, Record
from pipeline.readers.text import path_in_package, text_of

RULE = re.compile(r"([!-/:-@\[-`{-~])\1*")


def read(file: RawFile) -> Iterator[Record | Failure]:
    """Yield the file's questions with their answers."""
    text = text_of(file)
    if isinstance(text, Failure):
        yield text
        return
    for row, (question, answer) in enumerate(sections(text)):
        if answer:
            yield Record(row, {"text": f"{question}\n\n{answer}", "metadata": {"question": question, "path": path_in_package(file)}})


def sections(text: str) -> list[tuple[str, str]]:
    """Titles and the texts that follow them, up to the next title."""
    lines = text.split("\n")
    titles = [number for number in range(len(lines) - 1) if _is_title(lines, number)]
    begins = [number - (_rule(lines, number - 1) == _rule(lines, number + 1)) for number in titles]  # of the line above, if any
    ends = [*begins[1:], len(lines)]
    return [(lines[title].strip(), _body(lines[title + 2 : end])) for title, end in zip(titles, ends, strict=False)]


def _is_title(lines: list[str], number: int) -> bool:
    title = lines[number].rstrip()
    rule = _rule(lines, number + 1)
    if not title or rule is None or RULE.fullmatch(title) or len(rule) < len(title):
        return False
    overlined = number > 0 and _rule(lines, number - 1) == rule
    blank_before = number == 0 or not lines[number - 1].strip()
    return overlined or (blank_before and not title[0].isspace())


def _rule(lines: list[str], number: int) -> str | None:
    """The line, if it is one punctuation character repeated."""
    line = lines[number].rstrip() if 0 <= number < len(lines) else ""
    return line if RULE.fullmatch(line) else None


def _body(lines: list[str]) -> str:
    """The lines without explicit targets (`.. _name:`), which only link, and without blank ends."""
    return "\n".join(line for line in lines if not re.fullmatch(r"\.\. _[^:]+:\s*", line)).strip()
