"""A document's text as evidence is looked for in it, and the register of who looks for what.

A function that shows why a column has its value is registered under a regular expression of columns:

    @shows(r"(gopher_dolma|gopher_datatrove)_stop_words")
    def stop_words(text: Text, column: re.Match[str], limit: float | None) -> Iterable[Mark]: ...

and gives the places that made the value what it is. `limit` is what the rule compares the column with, where that is a number. Places are
bytes of the text; what is counted as a word or a line is what the column's tagger counts.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.taggers import Batch
from tools.report.documents.texts import Document

LOOKED = 1_000_000  # bytes of a text in which evidence is looked for


class Mark(NamedTuple):
    """Bytes start … end - 1 of a text, and what they are. replacement: what stands there now, where it was edited."""

    start: int
    end: int
    label: str
    replacement: str | None = None


class Word(NamedTuple):
    start: int
    end: int
    text: str


class Text:
    """The beginning of a document's text, `LOOKED` bytes at most, with what taggers see of it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        end = min(len(document.text), LOOKED)
        while end < len(document.text) and document.text[end] & 0xC0 == 0x80:
            end -= 1
        self.data = document.text[:end]

    @property
    def is_whole(self) -> bool:
        return len(self.data) == len(self.document.text)

    @cached_property
    def string(self) -> str:
        return self.data.decode()

    @cached_property
    def batch(self) -> Batch:
        fields = {"text": pa.array([self.string], pa.large_string())}
        fields |= {name: pa.array([getattr(self.document, name)], pa.string()) for name in ("metadata", "created", "file", "id")}
        return Batch(pa.table({**fields, "source": [self.document.place.source], "row": [self.document.row]}))

    @cached_property
    def _bytes_before(self) -> npt.NDArray[np.int64]:
        """[characters + 1] the byte at which each character begins."""
        data = np.frombuffer(self.data, np.uint8)
        return np.append(np.flatnonzero(data & 0xC0 != 0x80), len(data))

    def find(self, pattern: str | re.Pattern[str], label: str, group: int = 0) -> Iterator[Mark]:
        """The places of a regular expression."""
        for found in re.finditer(pattern, self.string):
            start, end = found.span(group)
            if start < end:
                yield Mark(int(self._bytes_before[start]), int(self._bytes_before[end]), label)

    def words(self, kind: Literal["whitespace", "spacy", "unicode"]) -> list[Word]:
        """As pipeline/text/words.py has them; those between white space without its tables, which take two seconds to make."""
        if kind == "whitespace":
            return [Word(mark.start, mark.end, self.data[mark.start : mark.end].decode()) for mark in self.find(r"\S+", "")]
        words = self.batch.words(kind)
        sizes = words.byte_lengths[words.ids]
        places = zip(words.starts.tolist(), (words.starts + sizes).tolist(), strict=True)
        return [Word(start, end, self.data[start:end].decode()) for start, end in places]


Shows = Callable[[Text, re.Match[str], float | None], Iterable[Mark]]
SHOWN: list[tuple[re.Pattern[str], Shows]] = []


def shows(columns: str) -> Callable[[Shows], Shows]:
    """Register the decorated function for the columns that the regular expression matches whole."""

    def register(function: Shows) -> Shows:
        SHOWN.append((re.compile(columns), function))
        return function

    return register
