"""A store of any size, built by `make mix` itself with the computing left out.

In: how many raw files, parts and documents. Out: a store with all units of a finished mix. `pipeline.build` makes it, so keys,
records, journals, lock-file, manifest and catalog are those of a real build of that size; what a unit would have computed is made up:
the counts of its record, and its tables, which are links to a few files with made-up rows. Two sources: `pages` is tagged, filtered and
deduplicated as `dclm` is; `letters`, a twentieth of it, is edited besides.

Cost: some 0.3 ms and 5 kB of disk per unit. Not: for stages to go on from, or for `verify`: nothing has the sha256 it claims.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from pipeline import build as building
from pipeline.build import Request, build
from pipeline.dedupe import LOSERS
from pipeline.documents import write_table
from pipeline.engine import Engine, Measured, Stage
from pipeline.lock import Lock
from pipeline.progress import Progress
from pipeline.shards import TABLE
from pipeline.stages import decide, dedupe, edit, filter, gather, holdout, read, tag, tokenize
from pipeline.store import RECORD
from pipeline.taggers import SPANS
from pipeline.unit import Artifact, Json, Record, Unit, canonical, sealed

RAW_BYTES = 200_000_000  # of a raw file: DCLM's have as many; they are sparse
DROPPED = 20  # of the documents, one in so many
LINKS = 30_000  # to one file; ext4 allows 65,000
WORD = "<|endoftext|>"
SOURCE = """name: {name}
title: made up
licence: none
fields: {{id: [id], text: [text]}}
{filters}drop: {{repetition: token_repeats >= 32}}
dedupe: exact
"""
MIX = """name: {name}
description: made up
tokenizer: {{file: words.json, eos_token: "{word}"}}
sequence_length: 4096
seed: 1
sources: {{pages: {{weight: 19}}, letters: {{weight: 1, max_repeats: 20}}}}
"""


@dataclass(frozen=True)
class Shape:
    """files: raw files. parts: of each file, of `part_bytes` of text; documents: of each part; tokens: of each document."""

    files: int
    parts: int = 9
    documents: int = 11_300  # DCLM's 5.66 kB and 1,308 tokens per document
    tokens: int = 1_308
    part_bytes: int = 64_000_000


def make(folder: Path, shape: Shape, mix: str = "pretended") -> tuple[Request, Lock]:
    """Write data, recipes and the store below `folder`; returns what builds the same mix again, and its lock."""
    write_recipes(folder / "recipes", mix)
    write_raw(folder, shape)
    request = Request(mix, folder / "store", str(folder / "data"), workers=1, recipes=folder / "recipes", scale=True)
    made = folder / "made"
    made.mkdir(exist_ok=True)

    with patch.object(building, "Engine", partial(_Engine, _Made(made, shape))):
        lock = build(request, Progress())
    return request, lock


def write_recipes(folder: Path, mix: str) -> None:
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    (folder / "filters").mkdir(exist_ok=True)
    (folder / "filters" / "masks.yaml").write_text("name: masks\ntitle: made up\norigin: none\nedit: [pii]\n")
    for name, filters in (("pages", ""), ("letters", "filters: [masks]\n")):
        (folder / "sources" / f"{name}.yaml").write_text(SOURCE.format(name=name, filters=filters))
    (folder / f"{mix}.yaml").write_text(MIX.format(name=mix, word=WORD))
    (folder / "words.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 50_279, "content": WORD}]}))


def write_raw(folder: Path, shape: Shape) -> None:
    """Sparse raw files, and the inventories that say what they hash to."""
    letters = max(1, shape.files // 20)
    for source, count in (("pages", shape.files - letters), ("letters", letters)):
        inventory = {}
        (folder / "data" / source).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = folder / "data" / source / f"shard_{number:08d}_processed.jsonl.zst"
            with open(path, "wb") as stream:
                stream.truncate(RAW_BYTES)
            stamp = [RAW_BYTES, path.stat().st_mtime_ns]
            inventory[str(path)] = {"stamp": stamp, "sha256": hashlib.sha256(path.name.encode() + source.encode()).hexdigest()}
        listed = folder / "store" / "downloads" / "folder" / f"{source}.json"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_bytes(sealed(inventory))


class _Engine(Engine):
    """Runs a stage after making up what is missing of it; that all of it is there is then found as ever."""

    def __init__(self, made: "_Made", *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made = made

    def run(self, stage: Stage, units: Sequence[Unit], underway: Callable[[], int] | None = None) -> list[Record]:
        journal = self.store.path(f"runs/{time.time_ns()}.jsonl")
        journal.parent.mkdir(exist_ok=True)
        with open(journal, "w", encoding="utf-8") as lines:
            for unit in units:
                folder = self.store.path(unit.folder)
                if not folder.exists():
                    self._publish(unit, folder)
                    measured = asdict(Measured(0.25, 0.2, 300.0, self.made.shape.part_bytes, time.time()))
                    lines.write(json.dumps({"stage": unit.stage, "source": unit.source, "units": [unit.key], **measured}) + "\n")
        return super().run(stage, units, underway)

    def _publish(self, unit: Unit, folder: Path) -> None:
        """As Store.publish does, without waiting for the disk."""
        folder.mkdir(parents=True)
        files, counts = _STAGES[unit.stage](self.made, unit)
        outputs = []
        for name, path in sorted(files.items()):
            os.link(path, folder / name)
            digest = hashlib.sha256(f"{unit.key}/{name}".encode()).hexdigest()
            outputs.append(Artifact(f"{unit.folder}/{name}", digest, path.stat().st_size))
        (folder / RECORD).write_bytes(Record(unit, tuple(outputs), counts).to_json())


class _Made:
    """The files that units link to; a new copy of each after `LINKS` links."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape
        self._used: dict[str, int] = {}

    def file(self, name: str, write: Callable[[Path], None]) -> Path:
        used = self._used[name] = self._used.get(name, -1) + 1
        path = self.folder / f"{used // LINKS}-{name}"
        if not path.exists():
            write(path)
        return path

    def table(self, name: str, columns: Callable[[], pa.Table]) -> Path:
        return self.file(name, lambda path: write_table(columns(), path))

    def documents(self, count: int) -> pa.Table:
        """Identifiers as DCLM has them: random, and so as large as identifiers get."""
        random = np.random.default_rng(count).bytes(16 * count)
        texts = (random[16 * i : 16 * i + 16].hex() for i in range(count))
        ids = [f"<urn:uuid:{t[:8]}-{t[8:12]}-{t[12:16]}-{t[16:20]}-{t[20:]}>" for t in texts]
        file = pa.array(["shard_00000000_processed.jsonl.zst"] * count)
        return pa.table({"id": ids, "file": file, "row": np.arange(count)})

    def rows(self, count: int) -> pa.Table:
        tokens = np.random.default_rng(0).integers(1, 2 * self.shape.tokens, count)
        sizes = {"bytes": 4 * tokens, "start": np.cumsum(tokens) - tokens, "tokens": tokens, "inner_eos": np.zeros(count, np.int64)}
        return _joined(self.documents(count), sizes)


def _joined(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    return table


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


Files = tuple[dict[str, Path], dict[str, Json]]


def _read(made: _Made, unit: Unit) -> Files:
    shape = made.shape
    parts = [{"documents": shape.documents, "bytes": shape.part_bytes} for _ in range(shape.parts)]
    files = {f"part-{number:05d}.parquet": made.file(f"part-{number:05d}.parquet", partial(_write, b"")) for number in range(shape.parts)}
    files["failures.parquet"] = made.table("failures.parquet", read.FAILURES.empty_table)
    counts = {"documents": shape.parts * shape.documents, "bytes": shape.parts * shape.part_bytes, "failed": {}, "parts": parts}
    return files, counts


def _tokenize(made: _Made, unit: Unit) -> Files:
    shape = made.shape
    files = {
        "tokens.bin": made.file("tokens.bin", partial(_write, b"")),
        "rows.parquet": made.table("rows.parquet", lambda: made.rows(shape.documents)),
    }
    counts = {"tokens": shape.documents * shape.tokens, "empty": 0, "inner_eos": 0, "spot_checked": 50}
    return files, {"documents": shape.documents, "bytes": shape.part_bytes, **counts}


def _tag(made: _Made, unit: Unit) -> Files:
    name = unit.params["tagger"]
    values = np.zeros(made.shape.documents, np.int64)
    files = {"attributes.parquet": made.table(f"{name}.parquet", lambda: pa.table({name: values}))}
    if name == "pii":
        files["spans.parquet"] = made.table("spans.parquet", SPANS.empty_table)
    return files, {"documents": made.shape.documents, "bytes": made.shape.part_bytes}


def _filter(made: _Made, unit: Unit) -> Files:
    count = made.shape.documents
    reasons = pa.table({"reasons": pa.array([[]] * count, pa.list_(pa.string())), "dropped_by": pa.array([None] * count, pa.string())})
    survivors = {"text_hash": pa.array([b"0123456789abcdef"] * count, pa.binary(16))}
    files = {
        "filtered.parquet": made.table("filtered.parquet", lambda: reasons),
        "survivors.parquet": made.table("survivors.parquet", lambda: _joined(made.documents(count).select(["id", "row"]), survivors)),
    }
    return files, {"documents": count, "bytes": made.shape.part_bytes}


def _hold_out(made: _Made, unit: Unit) -> Files:
    return {"holdout.json": made.file("holdout.json", partial(_write, canonical({"below": 1})))}, {}


def _dedupe(made: _Made, unit: Unit) -> Files:
    return {"duplicates.parquet": made.table("duplicates.parquet", LOSERS.empty_table)}, {"duplicates": 0}


def _edit(made: _Made, unit: Unit) -> Files:
    spans = [
        {"row": row, "start": 1, "end": 9, "replacement": "|||EMAIL_ADDRESS|||", "by": "pii"} for row in range(0, made.shape.documents, 100)
    ]
    changed = ("row", "bytes", "start", "tokens", "inner_eos")
    files = {
        "spans.parquet": made.table("edited-spans.parquet", lambda: pa.Table.from_pylist(spans, SPANS)),
        "edited.parquet": made.table("edited.parquet", lambda: pa.table({name: np.zeros(len(spans), np.int64) for name in changed})),
        "tokens.bin": made.file("tokens.bin", partial(_write, b"")),
    }
    return files, {"documents": len(spans), "bytes": 0, "tokens": 0, "spans": len(spans)}


def _decide(made: _Made, unit: Unit) -> Files:
    shape = made.shape
    lost, size = shape.documents // DROPPED, shape.part_bytes // shape.documents
    funnel = [
        {"stage": stage, "reason": reason, "documents": count, "bytes": count * size, "tokens": count * shape.tokens}
        for stage, reason, count in (("filter", "repetition", lost), ("kept", "train", shape.documents - lost))
    ]
    files = {"decisions.parquet": made.table("decisions.parquet", lambda: pa.table({"kept": pa.array([True] * shape.documents)}))}
    return files, {"documents": shape.documents, "bytes": shape.part_bytes, "funnel": funnel}


def _gather(made: _Made, unit: Unit) -> Files:
    shape = made.shape
    parts = sum(artifact.path.endswith("rows.parquet") for artifact in unit.inputs)
    documents = parts * shape.documents
    tokens = documents * shape.tokens * (DROPPED - 1) // DROPPED
    header = {"dtype": "uint16", "tokens": tokens, "documents": documents, "sha256": "0" * 64, "split": "train"}
    shard = {"name": "train-00000.bin", "tokens": tokens, "documents": documents * (DROPPED - 1) // DROPPED}
    files = {
        "train-00000.bin": made.file("tokens.bin", partial(_write, b"")),
        "train-00000.parquet": made.table("train-00000.parquet", TABLE.empty_table),
        "train-00000.json": made.file(f"{parts}.json", partial(_write, canonical(header))),
        "ledger.parquet": made.table(f"ledger-{parts}.parquet", lambda: _ledger(made, documents)),
    }
    return files, {"documents": documents, "bytes": parts * shape.part_bytes, "train": [shard], "validation": []}


def _ledger(made: _Made, count: int) -> pa.Table:
    rows = made.rows(count)
    kept = np.arange(count) % DROPPED > 0
    outcome = {
        "kept": kept,
        "split": pa.array(np.where(kept, "train", ""), mask=~kept),
        "stage": pa.array(np.where(kept, "", "filter"), mask=kept),
        "dropped_by": pa.array(np.where(kept, "", "repetition"), mask=kept),
        "reasons": pa.array([[]] * count, pa.list_(pa.string())),
        "shard": pa.array(np.where(kept, "train-00000.bin", ""), mask=~kept),
    }
    return _joined(rows.drop_columns(["start", "inner_eos"]), {**outcome, "start": rows["start"].combine_chunks()})


_STAGES: dict[str, Callable[[_Made, Unit], Files]] = {
    read.STAGE.output: _read, tokenize.STAGE.output: _tokenize, tag.STAGE.output: _tag, filter.STAGE.output: _filter,
    holdout.STAGE.output: _hold_out, dedupe.STAGE.output: _dedupe, edit.STAGE.output: _edit, decide.STAGE.output: _decide,
    gather.STAGE.output: _gather,
}  # fmt: skip
