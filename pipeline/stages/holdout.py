"""Survivors → the source's validation threshold.

In: the survivors of all parts of a source. Out: `holdout.json`: {"below": n}. A kept document whose id's hash is below
n is validation text and never enters a mix. It depends on the source's files and filters alone, not on a mix, so that
what one mix holds out no other trains on.
"""

from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from pipeline.engine import Stage, Work
from pipeline.holdout import Threshold, id_hash
from pipeline.recipe import Validation
from pipeline.unit import Json, Record, Unit, canonical

STAGE = Stage("hold out", "holdout", 1, "pipeline.stages.holdout:hold_out")


def unit(source: str, validation: Validation, filtered: Sequence[Record]) -> Unit:
    return STAGE.unit(
        source,
        inputs=tuple(record.output("survivors.parquet") for record in filtered),
        params={"share": validation.share, "documents": validation.documents},
    )


def hold_out(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        threshold = Threshold(item.unit.params["share"], item.unit.params["documents"])
        for artifact in item.unit.inputs:
            for batch in pq.ParquetFile(item.store.local(artifact)).iter_batches(columns=["id"]):
                threshold.add(id_hash(batch.column(0)))
        (item.folder / "holdout.json").write_bytes(canonical({"below": threshold.value()}))
        yield {}
