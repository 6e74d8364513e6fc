"""Survivors → near-duplicates: one unit per band of MinHash, then one that joins what they found.

`bands` — in: the survivors of all parts of a scope with their band hashes, and what the scope's earlier steps removed. Out:
`pairs.parquet`, the documents that share a hash in this band. `clusters` — in: the same, and the pairs of all bands. Out:
`clusters.parquet` (near.CLUSTERS), every document that has a near-duplicate, and `duplicates.parquet` (dedupe.LOSERS).
"""

from collections.abc import Iterator, Sequence

from pipeline.engine import Stage, Work
from pipeline.stages.dedupe import Placed, Scope
from pipeline.unit import Json, Record, Unit

BANDS = Stage("bands", "bands", 1, "pipeline.stages.near:compare")
CLUSTERS = Stage("cluster", "clusters", 1, "pipeline.stages.near:cluster")


def bands(scope: Scope, column: str, count: int) -> list[Unit]:
    """`column`: of the survivors, the band hashes, `count` of them."""
    params = {**scope.params, "column": column}
    return [BANDS.unit(scope.name, inputs=scope.inputs, params={**params, "band": band}) for band in range(count)]


def clusters(scope: Scope, pairs: Sequence[Record]) -> Unit:
    inputs = scope.inputs + tuple(record.output("pairs.parquet") for record in pairs)
    return CLUSTERS.unit(scope.name, inputs=inputs, params=scope.params)


def compare(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    from pipeline.dedupe import near

    for item in work:
        placed, params = Placed.of(item), item.unit.params
        pairs = near.band_pairs(placed.parts, params["column"], params["band"], item.folder / "pairs.parquet", without=placed.without)
        yield {"pairs": pairs}


def cluster(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    from pipeline.dedupe import near

    for item in work:
        placed = Placed.of(item)
        pairs = [item.store.local(a) for a in item.unit.inputs if a.path.endswith("/pairs.parquet")]
        yield dict(near.clusters(pairs, placed.parts, placed.sources, item.folder / "clusters.parquet", item.folder / "duplicates.parquet"))
