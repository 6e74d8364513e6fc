"""Survivors' texts → paragraphs that came before, by a Bloom filter.

In: some parts of a scope, their survivors, the spans that prepare and edit their texts, and what the scope's earlier steps removed;
all parts, or as many as fall to one shard. Out: of each part `removed-<its number>.parquet` (taggers.SPANS), bytes of the documents as
read; `duplicates.parquet`, the part and row of documents dropped as a whole and why; `paragraphs.parquet` (paragraphs.DECISIONS), what was
looked up in each document and how much of it had been seen. The record has the filter's size, occupancy and false-positive rate.

One unit reads its texts twice, in order, in one process: each decision rests on all before it. That is what shards are for.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import edits
from pipeline.dedupe import removed_before
from pipeline.dedupe.methods import Bff, Paragraphs
from pipeline.engine import Stage, Work
from pipeline.stages.dedupe import Scope
from pipeline.taggers import SPANS
from pipeline.unit import Artifact, Json, Unit

if TYPE_CHECKING:
    from pipeline.dedupe.paragraphs import Texts

_PLACE = [pa.field("part", pa.int64(), nullable=False), pa.field("row", pa.int64(), nullable=False)]
DROPPED = pa.schema([*_PLACE, pa.field("reason", pa.string(), nullable=False)])
STAGE = Stage("paragraphs", "paragraphs", 1, "pipeline.stages.paragraphs:remove_paragraphs")


@dataclass(frozen=True)
class Part:
    """A part of a scope. `spans`: what prepares and edits its texts."""

    number: int
    documents: Artifact
    survivors: Artifact
    spans: tuple[Artifact, ...]


def units(scope: Scope, parts: Sequence[Part], settings: Paragraphs | Bff) -> list[Unit]:
    """One per shard: part n of the scope falls to shard n modulo `settings.shards`."""
    found = []
    for shard in range(settings.shards):
        mine = parts[shard :: settings.shards]
        inputs = [artifact for part in mine for artifact in (part.documents, part.survivors, *part.spans)]
        params = {
            "parts": [[part.number, len(part.spans)] for part in mine],
            "settings": settings.model_dump(mode="json", exclude={"shards"}),
        }
        if mine:
            found.append(STAGE.unit(scope.name, inputs=(*inputs, *scope.without), params=params))
    return found


def part_of(spans: Artifact) -> int:
    """The number in its scope of the part that a `removed-<number>.parquet` is about."""
    return int(spans.path.rsplit("-", 1)[1].removesuffix(".parquet"))


def remove_paragraphs(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _remove(item)


def _remove(item: Work) -> dict[str, Json]:
    from pipeline.dedupe.paragraphs import DECISIONS, bloom_for, remove

    settings = item.unit.params["settings"]
    method = (Bff if settings["method"] == "bff" else Paragraphs).model_validate(settings)
    bloom = bloom_for((texts.batch for texts in _texts(item)), method)
    reasons: Counter[str] = Counter()
    count = keys = seen = 0
    with ExitStack() as stack:
        schemas = {f"removed-{number:06d}": SPANS for number, _ in item.unit.params["parts"]}
        writers = {
            name: stack.enter_context(pq.ParquetWriter(item.folder / f"{name}.parquet", schema, compression="zstd"))
            for name, schema in (schemas | {"paragraphs": DECISIONS, "duplicates": DROPPED}).items()
        }
        for texts in _texts(item):
            [(spans, decided)] = remove([texts.batch], method, bloom)
            spans = edits.original(spans.select(SPANS.names), texts.spans)
            spans = spans.set_column(0, SPANS.field("row"), pa.array(texts.rows[spans["row"].to_numpy()]))
            writers[f"removed-{texts.batch[0]:06d}"].write_table(spans)
            decided = decided.set_column(1, DECISIONS.field("row"), pa.array(texts.rows))
            writers["paragraphs"].write_table(decided)
            gone = decided.filter(pc.not_equal(decided["drop"], ""))
            writers["duplicates"].write_table(gone.select(["part", "row", "drop"]).rename_columns(DROPPED.names))
            reasons.update(gone["drop"].to_pylist())
            count += len(spans)
            keys += int(decided["keys"].to_numpy().sum())
            seen += int(decided["seen"].to_numpy().sum())
    return {"spans": count, "keys": keys, "seen": seen, "dropped": dict(sorted(reasons.items())), "filter": bloom.report()}


@dataclass(frozen=True)
class _Texts:
    """Neighbouring survivors of one part. batch: as paragraphs.py reads it, row 0 being the first of them. rows: theirs in the part.
    spans: what edited their texts."""

    batch: "Texts"
    rows: npt.NDArray[np.int64]
    spans: pa.Table


def _texts(item: Work) -> Iterator[_Texts]:
    paths = iter([item.store.local(artifact) for artifact in item.unit.inputs])
    parts = [[number, [next(paths) for _ in range(2 + width)]] for number, width in item.unit.params["parts"]]
    without = list(paths)
    for number, (documents, survivors, *spans) in parts:
        alive = np.setdiff1d(pq.read_table(survivors, columns=["row"])["row"].to_numpy(), removed_before(without, number))
        for group in edits.groups(documents, ["text"], *spans):
            rows = alive[np.searchsorted(alive, group.first) : np.searchsorted(alive, group.first + len(group.bytes))]
            picked, own = edits.picked(group, rows - group.first)
            yield _Texts((number, 0, *edits.flat(picked["text"])), rows, own)
