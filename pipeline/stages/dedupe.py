"""Survivors → duplicates, by a key: the hash of the normalised text, or of the URL.

In: the survivors of all parts of a scope, a source or, where the recipe says so, all sources of a mix in its order; and what the
scope's earlier steps removed. Out: `duplicates.parquet` (dedupe.LOSERS): the number of the part in the scope, the row in it, and
who stays instead. Every way of deduplication fills the same table; near.py and paragraphs.py are the other two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dedupe.exact import find_duplicates
from pipeline.engine import Stage, Work
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("dedupe", "duplicates", 1, "pipeline.stages.dedupe:dedupe")


@dataclass(frozen=True)
class Scope:
    """What is deduplicated together: `survivors` of all parts of each source, lowest source first; `without`: what earlier steps
    removed from it."""

    name: str
    sources: tuple[tuple[str, int], ...]  # and how many parts it has
    survivors: tuple[Artifact, ...]
    without: tuple[Artifact, ...] = ()

    @property
    def inputs(self) -> tuple[Artifact, ...]:
        return self.survivors + self.without

    @property
    def params(self) -> dict[str, Json]:
        return {"sources": [list(source) for source in self.sources]}


@dataclass(frozen=True)
class Placed:
    """A scope in a worker: each part's survivors with the order of its source, the sources' names, the earlier steps' tables."""

    parts: list[tuple[Path, int]]
    sources: list[str]
    without: list[Path]

    @classmethod
    def of(cls, item: Work) -> "Placed":
        """The scope is what a unit's inputs begin with."""
        sources = item.unit.params["sources"]
        order = [index for index, (_, parts) in enumerate(sources) for _ in range(parts)]
        paths = [item.store.local(artifact) for artifact in item.unit.inputs]
        without = [path for path in paths[len(order) :] if path.name == "duplicates.parquet"]
        return cls(list(zip(paths, order, strict=False)), [name for name, _ in sources], without)


def scope(name: str, filtered: dict[str, Sequence[Record]]) -> Scope:
    """`filtered`: the filtered parts of each source of the scope, lowest source first."""
    survivors = tuple(record.output("survivors.parquet") for records in filtered.values() for record in records)
    return Scope(name, tuple((source, len(records)) for source, records in filtered.items()), survivors)


def unit(scope: Scope, column: str) -> Unit:
    """`column`: of the survivors, the key; 16 bytes, zeros alone where a document has none."""
    return STAGE.unit(scope.name, inputs=scope.inputs, params={**scope.params, "column": column})


def dedupe(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        placed = Placed.of(item)
        out = item.folder / "duplicates.parquet"
        count = find_duplicates(placed.parts, placed.sources, out, column=item.unit.params["column"], without=placed.without)
        yield {"duplicates": count}
