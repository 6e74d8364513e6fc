"""Survivors → duplicates.

In: the survivors of all parts of a scope, a source or, where the recipe says so, all sources of a mix in its order.
Out: `duplicates.parquet` (dedupe.LOSERS): the number of the part in the scope, the row in it, and who stays instead.
Exact duplicates of the normalised text; near-duplicates will stand beside it as another way to fill the same table.
"""

from collections.abc import Iterator, Sequence

from pipeline.dedupe.exact import find_duplicates
from pipeline.engine import Stage, Work
from pipeline.unit import Json, Record, Unit

STAGE = Stage("dedupe", "duplicates", 1, "pipeline.stages.dedupe:dedupe")


def unit(scope: str, sources: dict[str, Sequence[Record]]) -> Unit:
    """`sources`: the filtered parts of each source of the scope, lowest source first."""
    parts = [record for records in sources.values() for record in records]
    return STAGE.unit(
        scope,
        inputs=tuple(record.output("survivors.parquet") for record in parts),
        params={"sources": [[name, len(records)] for name, records in sources.items()]},
    )


def dedupe(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        sources = item.unit.params["sources"]
        order = [index for index, (_, parts) in enumerate(sources) for _ in range(parts)]
        parts = [(item.store.path(a.path), source) for a, source in zip(item.unit.inputs, order, strict=True)]
        count = find_duplicates(parts, [name for name, _ in sources], item.folder / "duplicates.parquet")
        yield {"duplicates": count}
