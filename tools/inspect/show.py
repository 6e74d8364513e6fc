"""Instances and documents as a person reads them: what is known on top, the text below, with the ends of tokens marked (words.py).

In: Entries, what parts.py knows of them, ids. Out: lines on a console; on a terminal wrapped, elsewhere one line for each of the text's.
Everything that comes from data is text and nothing else, its control characters shown as symbols. Cost: 50 µs per token, 5 without styles.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from pipeline.reader import DocumentSpan, Location
from pipeline.stats import format_value
from pipeline.terminal import cut, visible
from tools.inspect.books import Entry, Failure
from tools.inspect.parts import Edit, Ids, Part, Parts
from tools.inspect.words import pieces, plain, styled

SHORT = 400  # tokens of a document in a list of many
VALUE = 100  # characters of a score, an id that is named beside another, a replaced text
METADATA = 600
LISTED = 12  # edits, matches, places
Line = tuple[str, str]  # what it says, and that


@dataclass(frozen=True)
class Drawing:
    """Where and how: the console, the mix's tokenizer and type of ids, and `again`, the words of a command that looks at the same mix."""

    screen: Console
    tokenizer: Tokenizer
    dtype: np.dtype
    parts: Parts
    again: str

    @property
    def styled(self) -> bool:
        return self.screen.is_terminal and not self.screen.is_dumb_terminal

    def title(self, text: str) -> None:
        """The beginning of something new."""
        title = f"── {visible(text)} "
        fill = self.screen.width - len(title) if self.styled else 2
        self.screen.print(Text(title + "─" * max(fill, 0), "bold"), soft_wrap=not self.styled)

    def lines(self, found: Iterable[Line]) -> None:
        """What is known, a line for each thing."""
        if self.styled:
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for label, text in found:
                grid.add_row(label, Text(visible(text)))
            self.screen.print(grid)
        else:
            for label, text in found:
                self.screen.print(Text(f"{label:<10}  {visible(text)}"), soft_wrap=True)

    def text(self, ids: Ids | Sequence[int]) -> None:
        self.screen.print()
        found = pieces(self.tokenizer, map(int, ids))
        if self.styled:
            for line in styled(found):
                self.screen.print(line, overflow="fold")
        else:
            self.screen.file.writelines(plain(found))  # nothing to wrap or to style, and ten times as fast
            self.screen.print()
        self.screen.print()

    def command(self, *words: str) -> str:
        """What shows more, to be copied into a shell."""
        return f"make inspect {self.again} " + " ".join(f"{name}={shlex.quote(value)}" for name, value in (w.split("=", 1) for w in words))


def instance(drawing: Drawing, place: Location, of: str, tokens: Ids, spans: Sequence[DocumentSpan], entries: Sequence[Entry]) -> None:
    """An instance of a run, document by document."""
    drawing.title(f"instance {place.index:,} of {of}")
    count = f"{len(spans):,} document{'' if len(spans) == 1 else 's'}"
    drawing.lines(
        [
            ("source", f"{place.source}, epoch {place.epoch + 1}, copy {place.copy + 1}"),
            ("from", f"{place.shard}, tokens {place.start:,} to {place.start + len(tokens):,}"),
            ("holds", f"{len(tokens):,} tokens of {count}"),
        ]
    )
    drawing.screen.print()
    for number, (span, entry) in enumerate(zip(spans, entries, strict=True), 1):
        drawing.title(f"{number} of {len(spans)}: {span.id} of {place.source}")
        after = entry.tokens - span.offset - span.length
        here = f"tokens {span.start:,} to {span.start + span.length:,} of the instance"
        here += f", after {span.offset:,} earlier ones" * bool(span.offset) + f", {after:,} more follow" * (after > 0)
        drawing.lines([("here", here), *_known(drawing, entry, whole=False)])
        drawing.text(tokens[span.start : span.start + span.length])


def heading(drawing: Drawing, count: int, reason: str, of: str) -> None:
    """What a list is of."""
    drawing.screen.print(Text(f"{count:,} dropped by {visible(reason)}, of {visible(of)}", "bold"), soft_wrap=not drawing.styled)
    drawing.screen.print()


def document(drawing: Drawing, entry: Entry, places: Iterable[Line] = (), *, whole: bool) -> None:
    """A document, kept or dropped. whole: all its text and all scores, else the beginning and the scores that rules look at. places: where
    it is trained on."""
    drawing.title(f"{entry.id} of {entry.source}")
    drawing.lines([*_known(drawing, entry, whole=whole), *places])
    ids = drawing.parts.ids(entry, drawing.dtype)
    if ids is None:
        drawing.lines([("text", "not in this store: a release holds the text of kept documents alone, as tokens")])
        drawing.screen.print()
        return
    drawing.text(ids if whole else ids[:SHORT])
    if len(ids) > SHORT and not whole:
        more = drawing.command(f"SOURCE={entry.source}", f"DOC={entry.id}")
        drawing.lines([("more", f"{len(ids) - SHORT:,} tokens: {more}")])
        drawing.screen.print()


def failure(drawing: Drawing, found: Failure) -> None:
    """A record that could not become a document."""
    drawing.title(f"{found.file}#{found.row} of {found.source}")
    drawing.lines([("failed", f"{found.reason}: {cut(found.detail or '', METADATA)}")])
    drawing.screen.print()


def _known(drawing: Drawing, entry: Entry, *, whole: bool) -> Iterator[Line]:
    """Where it came from, what became of it and why, what was measured."""
    yield "from", f"{entry.file}#{entry.row}, {entry.bytes:,} bytes, {entry.tokens:,} tokens"
    found = drawing.parts.of(entry)
    yield from _fate(drawing, entry, found)
    if found is None:
        yield "scores", "not in this store: it came in a release, or they were removed"
        return
    part, row = found
    matches = part.matches(row)
    for match in matches[:LISTED]:
        yield "overlaps", f"{match.item} of {match.evaluation}, in {match.matched:,} of its {match.total:,} n-grams"
    yield from _more("overlaps", len(matches))
    edits = part.edits(row)
    for edit in edits[:LISTED]:
        yield "edited", _edit(edit)
    yield from _more("edited", len(edits))
    values = part.values(row)
    scores = {name: value for name, value in values.items() if whole or name in part.looked_at}
    if scores:
        yield "scores", "  ".join(_value(name, value) for name, value in scores.items())
    beside = part.beside(row) or {}
    said = [f"{name} {beside[name]}" for name in ("created", "added") if beside.get(name)]
    if beside.get("metadata") not in (None, "", "{}"):
        said.append(beside["metadata"])
    if said:
        yield "beside", cut(", ".join(said), METADATA)


def _fate(drawing: Drawing, entry: Entry, found: tuple[Part, int] | None) -> Iterator[Line]:
    if entry.kept:
        what = "for training" if entry.split == "train" else "held out for validation"
        yield "kept", f"{what}: {entry.unit}/{entry.shard}, from token {entry.start:,}"
    else:
        yield "dropped", f"by {entry.dropped_by} ({entry.stage})"
    if found is None:
        others = [reason for reason in entry.reasons if reason != entry.dropped_by]
        if others:
            yield "also", ", ".join(others)
        return
    part, row = found
    for rule in part.rules(entry, row):
        with_values = ", ".join(_value(name, value) for name, value in rule.values.items())
        label = "because" if rule.reason == entry.dropped_by else "also"
        yield label, f"{rule.reason}: {rule.sql}, and it has {with_values}"
    if twin := part.duplicate_of(row):
        source, identity = twin
        yield "twin", f"{cut(identity, VALUE)} of {source} stays: {drawing.command(f'SOURCE={source}', f'DOC={identity}')}"


def _edit(edit: Edit) -> str:
    after = repr(cut(edit.after, VALUE)) if edit.after else "nothing"
    return f"by {edit.by}: {cut(edit.before, VALUE)!r} at byte {edit.start:,} is {after} now"


def _value(name: str, value: Any) -> str:
    if isinstance(value, bytes):  # a key of deduplication
        value = value.hex()
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {cut(format_value(value), VALUE)}"


def _more(label: str, count: int) -> Iterator[Line]:
    if count > LISTED:
        yield label, f"and {count - LISTED:,} more"
