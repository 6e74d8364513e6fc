"""What a report is made of: parts of sections of blocks. Data without any HTML; page.py makes the page of them.

A Chart is a Vega-Lite specification and its data in columns: the page draws the one from the other, and shows the columns as a table to
whoever would rather read than look. Text is plain and escaped by the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = Any
Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Chart:
    """columns: equally long, by name; the specification's fields refer to them. spec: Vega-Lite without `data`; `width` (px) may be left
    out. caption: how to read it, and what a screen reader says of it."""

    title: str
    columns: Mapping[str, Sequence[Cell]]
    spec: Mapping[str, Json]
    caption: str

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.title}: columns of different lengths: {lengths}")


@dataclass(frozen=True)
class Table:
    """rows: a value for each heading. Numbers go to the right, with thousands' separators; what has its format elsewhere comes as text.
    shares: headings whose numbers are shares of 1, shown in per cent. decimals: after the point, of numbers that are not below 1."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    shares: frozenset[str] = frozenset()
    decimals: int = 2

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"{self.title}: {len(self.headings)} headings and {len(row)} values: {row}")


@dataclass(frozen=True)
class Text:
    """A paragraph. warning: something is not as it should be."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Documents:
    """Samples of documents, which the page makes searchable. records: JSON, as documents.py makes and documents.js reads it."""

    title: str
    records: Sequence[Mapping[str, Json]]
    caption: str = ""


@dataclass(frozen=True)
class Pair:
    """The same block of two mixes or runs, side by side; None where one has no such block."""

    left: "Block | None"
    right: "Block | None"


Block = Chart | Table | Text | Documents | Pair


@dataclass(frozen=True)
class Section:
    """id: unique in the page, letters, digits and `-`. intro: plain text. folded: shown when it is opened."""

    id: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Part:
    """One of the page's parts: the mix, the documents, the model."""

    id: str
    title: str
    sections: Sequence[Section] = field(default_factory=tuple)
    intro: str = ""
