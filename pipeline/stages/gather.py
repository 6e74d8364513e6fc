"""Kept documents → shards and the ledger.

In: for each of a group of neighbouring parts its tokens.bin, rows.parquet and decisions.parquet, and where texts were edited
the new tokens.bin and edited.parquet. Out: shards of the `train` and `validation` splits (shards.py) and `ledger.parquet`, one
row for every document of these parts, dropped ones too: id, file, row, bytes (as read), tokens (of a kept document, those that
are in the shard), kept, split, dropped_by, shard, start. No text is read; token spans are copied.

Parts are grouped by the tokens they hold before anything is dropped, so that a changed rule rewrites just the shards
in which it changes something.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.documents import write_table
from pipeline.engine import Stage, Work
from pipeline.shards import ShardWriter
from pipeline.tokenizer import dtype_for
from pipeline.unit import Json, Record, Unit

STAGE = Stage("gather", "shards", 1, "pipeline.stages.gather:gather")
SHARD_TOKENS = 1 << 28  # 0.5 GB as uint16; OLMoE's own files hold up to 2^31 tokens
SPLITS = ("train", "validation")


def units(
    source: str,
    tokens: Sequence[Record],
    decisions: Sequence[Record],
    edited: Sequence[Record],
    tokenizer: dict[str, Json],
    shard_tokens: int,
) -> list[Unit]:
    """`tokens`, `decisions`, `edited`: the records of the source's parts, in order; none of `edited` where nothing edits."""
    groups: list[list[int]] = []
    size = shard_tokens
    for index, record in enumerate(tokens):
        if size + record.counts["tokens"] > shard_tokens:
            groups.append([])
            size = 0
        groups[-1].append(index)
        size += record.counts["tokens"]
    return [
        STAGE.unit(
            source,
            inputs=tuple(
                artifact
                for index in group
                for artifact in (
                    tokens[index].output("tokens.bin"),
                    tokens[index].output("rows.parquet"),
                    decisions[index].output("decisions.parquet"),
                    *([edited[index].output("tokens.bin"), edited[index].output("edited.parquet")] if edited else []),
                )
            ),
            params={"source": source, "tokenizer": tokenizer, "shard_tokens": shard_tokens, "edited": bool(edited)},
        )
        for group in groups
    ]


def gather(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        yield _gather_unit(item)


def _gather_unit(item: Work) -> dict[str, Json]:
    params = item.unit.params
    tokenizer = params["tokenizer"]
    dtype = dtype_for(tokenizer["vocab_size"])
    header = {
        "source": params["source"],
        "eos": tokenizer["eos"],
        "tokenizer": {name: tokenizer[name] for name in ("name", "sha256", "vocab_size")},
    }
    writers = {split: ShardWriter(item.folder, split, dtype, params["shard_tokens"], header) for split in SPLITS}
    ledgers = []
    inputs = [item.store.local(artifact) for artifact in item.unit.inputs]
    width = 5 if params["edited"] else 3
    for first in range(0, len(inputs), width):
        tokens_path, rows_path, decisions_path, *edited = inputs[first : first + width]
        rows, decisions = pq.read_table(rows_path), pq.read_table(decisions_path)
        tokens = _mapped(tokens_path, dtype)
        if edited:
            tokens, rows = _with_edits(tokens, rows, _mapped(edited[0], dtype), pq.read_table(edited[1]), decisions["kept"])
        shard = np.full(rows.num_rows, "", dtype=object)
        start = np.zeros(rows.num_rows, dtype=np.int64)
        splits = decisions["split"].to_numpy(zero_copy_only=False)
        for split, writer in writers.items():
            chosen = np.flatnonzero(splits == split)
            picked = rows.take(chosen)
            places = writer.add(tokens, picked, picked["start"].to_numpy(), picked["tokens"].to_numpy())
            for position, (number, begin) in zip(chosen, places, strict=True):
                shard[position], start[position] = f"{split}-{number:05d}.bin", begin
        placed = shard != ""
        ledgers.append(
            pa.table(
                {
                    **{name: rows[name] for name in ("id", "file", "row", "bytes", "tokens")},
                    **{name: decisions[name] for name in ("kept", "split", "stage", "dropped_by", "reasons")},
                    "shard": pa.array(shard, pa.string(), mask=~placed),
                    "start": pa.array(start, pa.int64(), mask=~placed),
                }
            )
        )
    for writer in writers.values():
        writer.close()
    ledger = pa.concat_tables(ledgers)
    write_table(ledger, item.folder / "ledger.parquet")
    return {
        "documents": ledger.num_rows,
        "bytes": int(np.sum(ledger["bytes"].to_numpy())),
        **{split: writer.shards for split, writer in writers.items()},
    }


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)


def _with_edits(
    tokens: np.ndarray, rows: pa.Table, more: np.ndarray, edited: pa.Table, kept: pa.ChunkedArray
) -> tuple[np.ndarray, pa.Table]:
    """Tokens and rows as if kept documents had been read as they are after editing."""
    starts, lengths = rows["start"].to_numpy().copy(), rows["tokens"].to_numpy().copy()
    edited = edited.filter(kept.take(edited["row"]))
    at = edited["row"].to_numpy()
    starts[at], lengths[at] = edited["start"].to_numpy() + len(tokens), edited["tokens"].to_numpy()
    for name, values in (("start", starts), ("tokens", lengths)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return np.concatenate([tokens, more]), rows
