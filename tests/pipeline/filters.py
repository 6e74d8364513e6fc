"""Decisions of a filter of mixes/filters on documents made up in a test."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.rules import load_filter
from pipeline.taggers import TAGGERS, Batch, tag
from pipeline.taggers.predicates import columns_of, decide


def documents(
    texts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None, file: str = "a.jsonl.zst", created: str = ""
) -> Batch:
    count = len(texts)
    return Batch(
        pa.table(
            {
                "text": pa.array(texts, pa.large_string()),
                "metadata": pa.array([json.dumps(each) for each in metadata or [{}] * count], pa.string()),
                "created": pa.array([created] * count, pa.string()),
                "source": pa.array(["code"] * count, pa.string()),
                "file": pa.array([file] * count, pa.string()),
                "row": pa.array(range(count), pa.int64()),
            }
        )
    )


def columns(name: str, batch: Batch) -> dict[str, list[Any]]:
    return tag([TAGGERS[name]], batch).to_pydict()


def dropped_by(name: str, batch: Batch) -> list[str | None]:
    """By which predicate of the filter each document goes; None if it stays. `prepare` is not run."""
    rules = load_filter(name)
    wanted = {column for sql in rules.drop.values() for column in columns_of(sql)}
    taggers = [each for each in rules.taggers if wanted & set(each.columns)]
    table = tag(taggers, batch).append_column("bytes", pa.array([len(text.encode()) for text in batch.texts], pa.int64()))
    found = decide(table, rules.drop)["dropped_by"].to_pylist()
    return [reason and reason.removeprefix(f"{name}/") for reason in found]
