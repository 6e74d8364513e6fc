"""A store of a million documents, built by `make mix` itself but for the slow part: its documents are drawn from a few real ones.

In: how many documents per raw file. Out: a store with a finished mix of three sources, `web` (rules of Gopher's, FineWeb's and English,
URLs and exact duplicates), `code` (near-duplicates) and `notes`. The few real documents are read, tokenized and tagged as ever; every unit
of those stages then takes rows of their tables, under new ids, and all that comes after them (filter, holdout, dedupe, decide, gather) is
computed. What duplicates go by is drawn anew, with some planted.

Cost: 16 s of CPU and 475 MB of disk for a million documents. Not: for `make mix` to go on from, whose units would be others.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import build as building
from pipeline.build import Request, build
from pipeline.catalog import read_manifest
from pipeline.documents import write_table
from pipeline.engine import Engine, Stage
from pipeline.files import write_atomically
from pipeline.progress import Progress
from pipeline.stages import read, tag, tokenize
from pipeline.store import Store
from pipeline.tokenizer import dtype_for
from pipeline.unit import Json, Record, Unit, sealed
from tests.pipeline.corpus import text, train_tokenizer

MIX = "million"
FILES = {"web": 20, "code": 4, "notes": 1}
DOCUMENTS = 40_000  # of a raw file
POOL = 1_500  # documents of each source that are real
RAW_BYTES = 20_000_000  # of a raw file, which is sparse: more than what shares a unit
RULES = {
    "web": "filters: [english, gopher-dolma, fineweb]\ndedupe: [url, exact]\n",
    "code": "drop: {few_stars: stars < 2, repetition: token_repeats >= 32}\ndedupe: [exact, near]\n",
    "notes": "drop: {too_short: unicode_words < 25}\n",
}
FOREIGN = (
    "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach".split()
)


def make(folder: Path, documents: int = DOCUMENTS) -> Store:
    """The store, below `folder`; `documents` of each of the 25 raw files."""
    write_pool(folder)
    pool = Store(folder / "pool-store")
    build(Request(MIX, pool.root, str(folder / "pool"), workers=1, recipes=folder / "recipes", scale=True), Progress())
    store = Store(folder / "store")
    _write_raw(folder / "data", store)
    request = Request(MIX, store.root, str(folder / "data"), workers=1, recipes=folder / "recipes", scale=True)
    with patch.object(building, "Engine", lambda *arguments: _Engine(_Pool(pool), documents, *arguments)):
        build(request, Progress())
    return store


def write_pool(folder: Path) -> None:
    """The recipes, and the few real documents under `pool`."""
    _write_recipes(folder / "recipes")
    for source in FILES:
        (folder / "pool" / source).mkdir(parents=True)
        (folder / "pool" / source / "pool.jsonl").write_text("".join(json.dumps(record) + "\n" for record in _records(source)))


def _write_recipes(folder: Path) -> None:
    (folder / "sources").mkdir(parents=True)
    train_tokenizer(folder / "tiny.json")
    for name, rules in RULES.items():
        (folder / "sources" / f"{name}.yaml").write_text(f"name: {name}\ntitle: drawn {name}\nlicence: CC0\n{rules}")
    (folder / f"{MIX}.yaml").write_text(
        f"name: {MIX}\ndescription: drawn from a few documents\ntokenizer: {{file: tiny.json, eos_token: '<|endoftext|>'}}\n"
        "sequence_length: 256\nseed: 7\nsources: {web: {weight: 80}, code: {weight: 15}, notes: {weight: 5}}\n"
    )


def _records(source: str) -> list[dict[str, Any]]:
    """Documents of all lengths, some for every rule."""
    rng = random.Random(source)
    found = []
    for number in range(POOL):
        body = text(rng, min(600, int(rng.lognormvariate(3.6, 0.9)) + 2))
        if number % 11 == 0:
            body = " ".join(rng.choices(FOREIGN, k=60)).capitalize() + "."
        if number % 13 == 0:
            body = "\n".join([text(rng, 8)] * rng.randrange(2, 20))
        if number % 17 == 0:
            body += " abc" * rng.randrange(8, 64)
        found.append({"id": str(number), "text": body, "url": f"https://example.org/{number}", "max_stars_count": rng.randrange(12)})
    return found


def _write_raw(folder: Path, store: Store) -> None:
    for source, count in FILES.items():
        inventory = {}
        (folder / source).mkdir(parents=True)
        for number in range(count):
            path = folder / source / f"{number:04d}.jsonl"
            with open(path, "wb") as stream:
                stream.truncate(RAW_BYTES)
            stamp = [RAW_BYTES, path.stat().st_mtime_ns]
            inventory[str(path)] = {"stamp": stamp, "sha256": hashlib.sha256(f"{source}/{path.name}".encode()).hexdigest()}
        listed = store.path(f"downloads/folder/{source}.json")
        listed.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(listed, sealed(inventory))


class _Pool:
    """The real documents' tables, by source."""

    def __init__(self, store: Store) -> None:
        self.store, self.sources = store, read_manifest(store, MIX)["sources"]

    def table(self, source: str, stage: str, name: str, place: int = 0) -> pa.Table:
        return pq.read_table(self.store.path(f"{self.sources[source]['units'][stage][place]}/{name}"))

    def attributes(self, source: str, tagger: str) -> pa.Table:
        return self.table(source, tag.STAGE.output, "attributes.parquet", self.sources[source]["taggers"].index(tagger))

    def tokens(self, source: str) -> np.ndarray:
        return np.fromfile(self.store.path(f"{self.sources[source]['units'][tokenize.STAGE.output][0]}/tokens.bin"), dtype_for(500))


class _Engine(Engine):
    """Computes all units but those that read, tokenize and tag, which take what the pool has."""

    def __init__(self, pool: _Pool, documents: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pool, self.documents = pool, documents
        self.drawn: dict[str, np.ndarray] = {}  # a part of documents → which of the pool it has

    def run(self, stage: Stage, units: Sequence[Unit], *others: Any) -> list[Record]:
        draw = {read.STAGE.output: self._read, tokenize.STAGE.output: self._tokenize, tag.STAGE.output: self._tag}.get(stage.output)
        if draw:
            for unit in units:
                with self.store.work_folder(unit) as folder:
                    self.store.publish(unit, folder, draw(unit, folder))
        return super().run(stage, units, *others)

    def _read(self, unit: Unit, folder: Path) -> dict[str, Json]:
        file = unit.inputs[0].path
        rows = _rng(unit).integers(0, POOL, self.documents)
        self.drawn[f"{unit.folder}/part-00000.parquet"] = rows
        table = self.pool.table(unit.source, read.STAGE.output, "part-00000.parquet").take(rows)
        table = _with(table, id=_ids(unit.source, file, self.documents), file=[file] * self.documents, row=np.arange(self.documents))
        pq.write_table(table, folder / "part-00000.parquet", compression="zstd", compression_level=1, row_group_size=20_000)
        write_table(read.FAILURES.empty_table(), folder / "failures.parquet")
        part = {"documents": self.documents, "bytes": sum(map(len, map(str.encode, table["text"].to_pylist())))}
        return {**part, "failed": {}, "parts": [part]}

    def _tokenize(self, unit: Unit, folder: Path) -> dict[str, Json]:
        rows = self.drawn[unit.inputs[0].path]
        taken = self.pool.table(unit.source, tokenize.STAGE.output, "rows.parquet").take(rows)
        lengths, begins = taken["tokens"].to_numpy(), taken["start"].to_numpy()
        starts = np.cumsum(lengths) - lengths
        places = np.repeat(begins - starts, lengths) + np.arange(int(lengths.sum()))
        self.pool.tokens(unit.source)[places].tofile(folder / "tokens.bin")
        documents = pq.read_table(self.store.path(unit.inputs[0].path), columns=["id", "file", "row"])
        write_table(_with(taken, start=starts, **{name: documents[name] for name in documents.column_names}), folder / "rows.parquet")
        counts = {"tokens": int(lengths.sum()), "empty": 0, "inner_eos": 0, "spot_checked": 0}
        return {"documents": len(rows), "bytes": int(taken["bytes"].to_numpy().sum()), **counts}

    def _tag(self, unit: Unit, folder: Path) -> dict[str, Json]:
        rows = self.drawn[unit.inputs[0].path]
        table = self.pool.attributes(unit.source, unit.params["tagger"]).take(rows)
        for place, field in enumerate(table.schema):
            if pa.types.is_fixed_size_binary(field.type):
                table = table.set_column(place, field, _keys(_rng(unit), len(rows), field.type.byte_width, field.type))
        write_table(table, folder / "attributes.parquet")
        return {"documents": len(rows), "bytes": 0}


def _rng(unit: Unit) -> np.random.Generator:
    return np.random.default_rng(int(unit.key[:16], 16))


def _ids(source: str, file: str, count: int) -> list[str]:
    return [f"{source}-{file[:4]}-{number:06d}" for number in range(count)]


def _keys(rng: np.random.Generator, count: int, width: int, kind: pa.DataType) -> pa.Array:
    """What duplicates go by: random, and of one document in fifty that of another."""
    keys = rng.integers(1, 256, (count, width), dtype=np.uint8)
    copies = rng.choice(count, count // 50, replace=False)
    keys[copies] = keys[(rng.pareto(1.0, len(copies)) * 3).astype(np.int64) % count]
    return pa.FixedSizeBinaryArray.from_buffers(kind, count, [None, pa.py_buffer(keys.tobytes())])


def _with(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), values if isinstance(values, pa.ChunkedArray) else pa.array(values))
    return table
