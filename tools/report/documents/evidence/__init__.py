"""Why a document was dropped, passed or edited, as places in its text: what a page marks.

In: a sample and its document. Out: Evidence. A rule is shown by the columns that it names: a column's function in words.py, lines.py or
patterns.py finds what its tagger counted; a tagger that gives spans shows these; tokens.py, listed.py and twins.py find repeated tokens,
items of evaluations, and what a duplicate has in common with its twin. A column that nothing is known of, such as a score, marks nothing:
its value is the evidence. Cost: about a second per MB of text, of which no more than `text.LOOKED` bytes a document are looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tokenizers import Tokenizer

from pipeline.scopes import REASONS
from pipeline.store import Store
from pipeline.taggers import SPANS, TAGGERS, owner_of, run
from pipeline.taggers.url import urls
from pipeline.tokenizer import kept
from tools.report.documents import texts
from tools.report.documents.evidence import lines, listed, patterns, words  # noqa: F401  # they register what they show
from tools.report.documents.evidence.text import LOOKED, SHOWN, Mark, Text
from tools.report.documents.evidence.tokens import repeated_tokens
from tools.report.documents.evidence.twins import RUN, common
from tools.report.documents.samples import EDITED, Sample, Value
from tools.report.documents.sources import Source
from tools.report.documents.texts import Document

PARAGRAPHS = (REASONS["paragraphs"], REASONS["bff"])


@dataclass(frozen=True)
class Evidence:
    """text: UTF-8, and the places in it. notes: what else there is to say. twin: what stays in its place, and the places in its `text`."""

    text: bytes
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    twin: Document | None = None
    twin_marks: list[Mark] = field(default_factory=list)


class Witness:
    """Finds evidence in the documents of a mix. twins: the documents that stay in the place of duplicates, by source and id."""

    def __init__(self, store: Store, sources: Mapping[str, Source], twins: Mapping[tuple[str, str], Document]) -> None:
        self._store, self._sources, self._twins = store, sources, twins

    def of(self, sample: Sample, text: Text) -> Evidence:
        document = text.document
        if sample.side == EDITED:
            return Evidence(document.read, _edits(document))
        if sample.reason in PARAGRAPHS:
            spans = texts.removed(self._store, self._sources[sample.place.source], sample.place).to_pylist()
            return Evidence(document.read, [Mark(each["start"], each["end"], "came before in this source or mix") for each in spans])
        if sample.twin:
            return self._beside_twin(sample, text)
        found = [self._of_value(sample, text, value) for value in sample.values]
        notes = [note for _, more in found for note in more]
        if not text.is_whole:
            notes.append(f"evidence was looked for in the first {LOOKED // 1_000_000} MB of the text")
        return Evidence(document.text, [mark for marks, _ in found for mark in marks], notes)

    def _of_value(self, sample: Sample, text: Text, value: Value) -> tuple[list[Mark], list[str]]:
        source = self._sources[sample.place.source]
        if value.column == "token_repeats":
            ids = texts.tokens(self._store, source, sample.place, sample.start, sample.tokens)
            return repeated_tokens(self._tokenizer, ids, text.data), []
        name = value.column.removesuffix("_items")
        params = source.kinds.get(name, {})
        if params.get("kind") == "decontaminate" and name != value.column:
            return listed.evaluation_item(self._store, source, sample.place, params, text)
        if params.get("kind") == "listed_words":
            return listed.listed_words(self._store, params, text), []
        limit = next((limit for _, limit in value.limits if isinstance(limit, int | float)), None)
        return list(marks(text, value.column, limit)), []

    def _beside_twin(self, sample: Sample, text: Text) -> Evidence:
        assert sample.twin
        document, twin = text.document, self._twins.get((sample.twin.source, sample.twin.id))
        if twin is None:
            note = f"its twin, {sample.twin.id} of {sample.twin.source}, lies in a part that was not read for this page"
            return Evidence(document.text, notes=[note])
        mine, theirs, alike = common(text.data, Text(twin).data, "both have this")
        notes = {
            REASONS["exact"]: ["the two texts are equal, but for case and white space"],
            REASONS["url"]: [f"both are from {urls(text.batch)[0]}"],
        }.get(sample.reason, [])
        notes.append(f"{alike:.0%} of the two texts' runs of {RUN} words stand in both (Jaccard index)")
        if sample.twin.together > 2:
            notes.append(f"one of {sample.twin.together:,} documents of which only this twin stays")
        return Evidence(document.text, mine, notes, twin, theirs)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """All sources of a mix have the same."""
        part = next(part for source in self._sources.values() for part in source.parts)
        return Tokenizer.from_str(self._store.read(kept(part.tokens.unit.params["tokenizer"])).decode())


def marks(text: Text, column: str, limit: float | None) -> Iterator[Mark]:
    """The places that made a column's value what it is."""
    for pattern, show in SHOWN:
        if found := pattern.fullmatch(column):
            yield from show(text, found, limit)
            return
    owner = TAGGERS.get(owner_of(column) or "")
    if owner and owner.tables.get("spans") == SPANS:
        for span in run(owner, text.batch)[1]["spans"].to_pylist():
            yield Mark(span["start"], span["end"], span["by"].replace("_", " "))


def _edits(document: Document) -> list[Mark]:
    return [Mark(each["start"], each["end"], each["by"], each["replacement"]) for each in document.edits.to_pylist()]
