"""Reasons, duplicates and the validation set → one decision per document.

In: a part's rows.parquet and filtered.parquet, its source's validation threshold, what each step of its dedupe scope removed, and
what editing left of its documents. Out: `decisions.parquet`, row-aligned with the part: kept, split (train | validation, null if
dropped), stage and dropped_by (the first that dropped it), reasons (every rule that holds). The record counts documents, bytes and
tokens by stage and reason and the books are balanced here: read = kept + dropped + removed from texts. Lines of `removed_text`
count no documents: what `prepare` took from all texts, and `edit` from those that are kept.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.errors import PipelineError
from pipeline.holdout import held_out, id_hash
from pipeline.unit import Artifact, Json, Record, Unit

STAGE = Stage("decide", "decisions", 1, "pipeline.stages.decide:decide")
REMOVED = "removed_text"


def unit(
    source: str, rows: Record, filtered: Record, holdout: Record, part: int, steps: Sequence[tuple[str, Artifact]], edited: Record | None
) -> Unit:
    """`part`: the part's number in the dedupe scope. `steps`: each one's reason, such as exact_duplicate, and its table."""
    inputs = [rows.output("rows.parquet"), filtered.output("filtered.parquet"), holdout.output("holdout.json")]
    inputs += [table for _, table in steps] + ([edited.output("edited.parquet")] if edited else [])
    params = {"part": part if steps else None, "steps": [reason for reason, _ in steps], "edited": edited is not None}
    return STAGE.unit(source, inputs=tuple(inputs), params=params)


def decide(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _decide_part(item)


def _decide_part(item: Work) -> dict[str, Json]:
    params = item.unit.params
    rows_path, filtered_path, holdout_path, *tables = (item.store.local(a) for a in item.unit.inputs)
    rows, filtered = pq.read_table(rows_path), pq.read_table(filtered_path)
    if filtered.num_rows != rows.num_rows:
        raise PipelineError(f"{filtered_path} has {filtered.num_rows} rows, {rows_path} has {rows.num_rows}")
    stage = np.full(rows.num_rows, None, dtype=object)
    reason = np.array(filtered["dropped_by"].to_pylist(), dtype=object)
    stage[reason != None] = "filter"  # noqa: E711  # elementwise
    empty = rows["tokens"].to_numpy() == 0
    stage[empty], reason[empty] = "tokenize", "empty"
    for name, path in zip(params["steps"], tables, strict=False):
        losers = pq.read_table(path, columns=["row"], filters=[("part", "=", params["part"])])["row"].to_numpy()
        stage[losers], reason[losers] = "dedupe", name
    prepared = rows["prepared" if "prepared" in rows.column_names else "bytes"].to_numpy()
    left_bytes, left_tokens = prepared.copy(), rows["tokens"].to_numpy().copy()
    if params["edited"]:
        _take_edits(tables[-1], left_bytes, left_tokens)
        emptied = (reason == None) & (left_tokens == 0)  # noqa: E711
        stage[emptied], reason[emptied] = "edit", "nothing_left"
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
    read_bytes, read_tokens = rows["bytes"].to_numpy(), rows["tokens"].to_numpy()
    final_bytes, final_tokens = np.where(kept, left_bytes, prepared), np.where(kept, left_tokens, read_tokens)
    funnel = _funnel(np.where(kept, "kept", stage), np.where(kept, split, reason), final_bytes, final_tokens)
    funnel += _removed("prepare", int((read_bytes - prepared).sum()), 0)
    funnel += _removed("edit", int((prepared - final_bytes).sum()), int((read_tokens - final_tokens).sum()))
    size = int(read_bytes.sum())
    if sum(line["documents"] for line in funnel) != rows.num_rows or sum(line["bytes"] for line in funnel) != size:
        raise PipelineError(f"the books of {item.unit.source} do not balance: {funnel} against {rows.num_rows} documents of {size} bytes")
    return {"documents": rows.num_rows, "bytes": size, "funnel": funnel}


def _take_edits(path: Path, sizes: np.ndarray, tokens: np.ndarray) -> None:
    edited = pq.read_table(path)
    rows = edited["row"].to_numpy()
    sizes[rows], tokens[rows] = edited["bytes"].to_numpy(), edited["tokens"].to_numpy()


def _removed(stage: str, size: int, tokens: int) -> list[dict[str, Json]]:
    return [{"stage": stage, "reason": REMOVED, "documents": 0, "bytes": size, "tokens": tokens}] if size or tokens else []


def _funnel(stage: np.ndarray, reason: np.ndarray, sizes: np.ndarray, tokens: np.ndarray) -> list[dict[str, Json]]:
    table = pa.table({"stage": pa.array(stage, pa.string()), "reason": pa.array(reason, pa.string()), "bytes": sizes, "tokens": tokens})
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
