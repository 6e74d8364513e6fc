"""Reasons, duplicates and the validation set → one decision per document.

In: a part's rows.parquet and filtered.parquet, the duplicates of its dedupe scope, its source's validation threshold.
Out: `decisions.parquet`, row-aligned with the part: kept, split (train | validation, null if dropped), stage and
dropped_by (the first that dropped it), reasons (every rule that holds). The record counts documents, bytes and tokens
by stage and reason and the books are balanced here: read = kept + dropped.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.errors import PipelineError
from pipeline.holdout import held_out, id_hash
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("decide", "decisions", 1, "pipeline.stages.decide:decide")


def unit(source: str, part: int, rows: Record, filtered: Record, holdout: Record, duplicates: Artifact | None) -> Unit:
    """`part` is the part's number in the dedupe scope; `duplicates` is None for a source that is not deduplicated."""
    inputs = [rows.output("rows.parquet"), filtered.output("filtered.parquet"), holdout.output("holdout.json")]
    return STAGE.unit(source, inputs=tuple([*inputs, duplicates] if duplicates else inputs), params={"part": part if duplicates else None})


def decide(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _decide_part(item)


def _decide_part(item: Work) -> dict[str, Json]:
    rows_path, filtered_path, holdout_path, *duplicates = (item.store.path(a.path) for a in item.unit.inputs)
    rows = pq.read_table(rows_path, columns=["id", "bytes", "tokens"])
    filtered = pq.read_table(filtered_path)
    if filtered.num_rows != rows.num_rows:
        raise PipelineError(f"{filtered_path} has {filtered.num_rows} rows, {rows_path} has {rows.num_rows}")
    stage = np.full(rows.num_rows, None, dtype=object)
    reason = np.array(filtered["dropped_by"].to_pylist(), dtype=object)
    stage[reason != None] = "filter"  # noqa: E711  # elementwise
    empty = rows["tokens"].to_numpy() == 0
    stage[empty], reason[empty] = "tokenize", "empty"
    for path in duplicates:
        losers = pq.read_table(path, columns=["row"], filters=[("part", "=", item.unit.params["part"])])["row"].to_numpy()
        stage[losers], reason[losers] = "dedupe", "exact_duplicate"
    kept = reason == None  # noqa: E711
    validation = kept & held_out(id_hash(rows["id"]), json.loads(holdout_path.read_bytes())["below"])
    split = np.full(rows.num_rows, None, dtype=object)
    split[kept], split[validation] = "train", "validation"
    decisions = pa.table(
        {
            "kept": pa.array(kept, pa.bool_()),
            "split": pa.array(split, pa.string()),
            "stage": pa.array(stage, pa.string()),
            "dropped_by": pa.array(reason, pa.string()),
            "reasons": filtered["reasons"],
        }
    )
    write_table(decisions, item.folder / "decisions.parquet")
    funnel = _funnel(rows, np.where(kept, "kept", stage), np.where(kept, split, reason))
    if sum(line["documents"] for line in funnel) != rows.num_rows:
        raise PipelineError(f"the books of {item.unit.source} do not balance: {funnel} against {rows.num_rows} documents")
    return {"documents": rows.num_rows, "bytes": pc.sum(rows["bytes"]).as_py() or 0, "funnel": funnel}


def _funnel(rows: pa.Table, stage: np.ndarray, reason: np.ndarray) -> list[dict[str, Json]]:
    table = pa.table({"stage": pa.array(stage, pa.string()), "reason": pa.array(reason, pa.string()),
                      "bytes": rows["bytes"], "tokens": rows["tokens"]})  # fmt: skip
    sums = table.group_by(["stage", "reason"], use_threads=False).aggregate([([], "count_all"), ("bytes", "sum"), ("tokens", "sum")])
    lines = sums.select(["stage", "reason", "count_all", "bytes_sum", "tokens_sum"]).to_pylist()
    return sorted(
        (
            {"stage": line["stage"], "reason": line["reason"], "documents": line["count_all"],
             "bytes": line["bytes_sum"], "tokens": line["tokens_sum"]}
            for line in lines
        ),
        key=lambda line: (line["stage"], line["reason"]),
    )  # fmt: skip
