"""Deduplication of a build: runs the steps of every scope, each on what the earlier ones left.

In: per source its steps (`dedupe:`), survivors, and for the steps that look into texts its parts and their spans. Out: per source
what was removed from each of its parts: tables of dropped documents by reason, and spans. A scope is a source, or with
`dedupe_across` all sources of the mix, lowest first. All scopes take their n-th step at once, so that workers have work.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipeline.dedupe.methods import Bff, Exact, Near, Paragraphs, Step, Url
from pipeline.engine import Engine, Stage
from pipeline.errors import ConfigError
from pipeline.stages import dedupe, near, paragraphs
from pipeline.stages.dedupe import Scope
from pipeline.unit import Artifact, Record, Unit

KEYS = {"exact": "text_hash", "url": "url_hash", "near": "minhash"}
REASONS = {
    "exact": "exact_duplicate",
    "url": "url_duplicate",
    "near": "near_duplicate",
    "paragraphs": "repeated_paragraphs",
    "bff": "repeated_ngrams",
}


@dataclass(frozen=True)
class Source:
    """A source to deduplicate. texts: of each part, its documents and the spans that prepare and edit it."""

    name: str
    steps: tuple[Step, ...]
    filtered: Sequence[Record]
    texts: Sequence[tuple[Artifact, tuple[Artifact, ...]]]


@dataclass
class Removed:
    """What a scope's steps took away. tables: per step its reason and its tables, the n-th of w being about the scope's parts n, n + w, ….
    spans: per part, what was taken from its texts. records: of the units, by the folder of their stage, for the build manifest."""

    tables: list[tuple[str, list[Artifact]]] = field(default_factory=list)
    spans: dict[int, list[Artifact]] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)

    def of_part(self, number: int) -> tuple[list[tuple[str, Artifact]], list[Artifact]]:
        """The tables, with their reasons, and the spans that concern a part."""
        return [(reason, found[number % len(found)]) for reason, found in self.tables], self.spans.get(number, [])

    def note(self, step: Step, stage: Stage, records: Sequence[Record]) -> None:
        self.tables.append((REASONS[step.method], [record.output("duplicates.parquet") for record in records]))
        self.records.setdefault(stage.output, []).extend(records)


def keys(steps: Sequence[Step]) -> list[str]:
    """The columns of survivors that these steps compare."""
    return [KEYS[step.method] for step in steps if step.method in KEYS]


def remove_duplicates(engine: Engine, sources: Sequence[Source], across: bool) -> dict[str, tuple[int, Removed]]:
    """Per source the number of its first part in its scope, and what was removed there. Raises ConfigError when sources that are
    deduplicated together do not take the same steps."""
    deduped = [source for source in sources if source.steps]
    groups = [deduped] if across and deduped else [[source] for source in deduped]
    for first, *others in groups:
        for other in others:
            if other.steps != first.steps:
                raise ConfigError(
                    f"dedupe_across: {first.name} and {other.name} are deduplicated together and state different steps under "
                    "`dedupe`; give them the same ones, or `none`"
                )
    scopes = [dedupe.scope("across" if across else group[0].name, {s.name: s.filtered for s in group}) for group in groups]
    removed = [Removed() for _ in groups]
    for index in range(max((len(group[0].steps) for group in groups), default=0)):
        turns = [
            Turn(scope, group, group[0].steps[index], found)
            for scope, group, found in zip(scopes, groups, removed, strict=True)
            if index < len(group[0].steps)
        ]
        _by_key(engine, [turn for turn in turns if isinstance(turn.step, Exact | Url)])
        _near(engine, [turn for turn in turns if isinstance(turn.step, Near)])
        _paragraphs(engine, [turn for turn in turns if isinstance(turn.step, Paragraphs | Bff)])
        scopes = [
            replace(scope, without=tuple(table for _, tables in found.tables for table in tables))
            for scope, found in zip(scopes, removed, strict=True)
        ]
    numbers = {}
    for group, found in zip(groups, removed, strict=True):
        number = 0
        for source in group:
            numbers[source.name] = (number, found)
            number += len(source.filtered)
    return numbers


@dataclass(frozen=True)
class Turn:
    """A scope's next step."""

    scope: Scope
    sources: Sequence[Source]
    step: Any
    removed: Removed


def _by_key(engine: Engine, turns: Sequence[Turn]) -> None:
    units = [[dedupe.unit(turn.scope, KEYS[turn.step.method])] for turn in turns]
    for turn, records in zip(turns, _run(engine, dedupe.STAGE, units), strict=True):
        turn.removed.note(turn.step, dedupe.STAGE, records)


def _near(engine: Engine, turns: Sequence[Turn]) -> None:
    pairs = _run(engine, near.BANDS, [near.bands(turn.scope, KEYS["near"], turn.step.bands) for turn in turns])
    units = [[near.clusters(turn.scope, records)] for turn, records in zip(turns, pairs, strict=True)]
    for turn, compared, records in zip(turns, pairs, _run(engine, near.CLUSTERS, units), strict=True):
        turn.removed.note(turn.step, near.CLUSTERS, records)
        turn.removed.records.setdefault(near.BANDS.output, []).extend(compared)


def _paragraphs(engine: Engine, turns: Sequence[Turn]) -> None:
    units = []
    for turn in turns:
        texts = [text for source in turn.sources for text in source.texts]
        parts = [
            paragraphs.Part(number, documents, survivors, (*spans, *turn.removed.spans.get(number, ())))
            for number, ((documents, spans), survivors) in enumerate(zip(texts, turn.scope.survivors, strict=True))
        ]
        units.append(paragraphs.units(turn.scope, parts, turn.step))
    for turn, records in zip(turns, _run(engine, paragraphs.STAGE, units), strict=True):
        turn.removed.note(turn.step, paragraphs.STAGE, records)
        for record in records:
            for spans in record.named("removed-", ".parquet"):
                turn.removed.spans.setdefault(paragraphs.part_of(spans), []).append(spans)


def _run(engine: Engine, stage: Stage, units: Sequence[Sequence[Unit]]) -> list[list[Record]]:
    """The records of these groups of units."""
    records = iter(engine.run(stage, [unit for group in units for unit in group]))
    return [list(islice(records, len(group))) for group in units]
