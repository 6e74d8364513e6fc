"""Targets: what a store holds and a reader of it must not believe: lock-files, shards, records of units.

What must hold beside the common promises (target.py): a lock that loads can be read from: every instance has a place, within a shard
that it lists, and no path leads out of the store; what a shard gives are as many ids as asked for.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.lock import Lock, LockSource, LockTokenizer, ShardSummary
from pipeline.reader import MixReader
from pipeline.shards import ShardWriter
from pipeline.store import Store
from pipeline.unit import Artifact, Record, Unit
from tools.fuzzing.layers import RECORD, sealed, sha256
from tools.fuzzing.target import Parts, Target, must

LENGTH = 8
IDS = np.arange(100, dtype=np.uint16)
TOKENIZER = LockTokenizer(name="t", sha256="a" * 64, eos=50, vocab_size=500, dtype="uint16")
SHARD = "shards/web/k/train-00000"


def targets() -> list[Target]:
    watched = ("pipeline.lock", "pipeline.reader", "pipeline.shard_reader", "pipeline.permutation")
    header, ids, table = _shard()
    unit = Unit("documents", 1, "web", (), {})
    record = Record(unit, (Artifact(f"{unit.folder}/part-00000.parquet", sha256(b"x"), 1),), {"documents": 1}).to_json()
    return [
        Target("lock", [(_lock().to_json(),)], _read_lock, watched, layers=((sealed(_refingerprinted),),)),
        Target("shard", [(header, ids, table)], _read_shard, watched),
        Target("record", [(record,)], _read_record, ("pipeline.store", "pipeline.unit"), layers=((RECORD,),)),
    ]


def _lock() -> Lock:
    shard = ShardSummary(f"{SHARD}.bin", len(IDS), 2, sha256(IDS.tobytes()))
    source = LockSource(
        name="web", requested_share=1.0, obtained_share=1.0, supply=len(IDS) // LENGTH, slots=24, instances=30, repeats=2.5,
        tokens=len(IDS), documents=2, shards=(shard,), validation=(),
    )  # fmt: skip
    return Lock.sealed(mix="m", recipe={}, tokenizer=TOKENIZER, sequence_length=LENGTH, seed=7, pool=24, instances=30, sources=(source,))


def _refingerprinted(value: dict[str, Any]) -> dict[str, Any]:
    lock = Lock.model_validate(value)
    return {**value, "fingerprint": lock.order_hash()}


def _read_lock(parts: Parts, folder: Path) -> list[str]:
    path = folder / "store" / "mixes" / "m.lock.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(parts[0])
    mix = MixReader(path)
    lock = mix.lock
    must(Lock.model_validate_json(lock.to_json()) == lock, "a lock that is not what it writes")
    lines = [f"{len(mix).bit_length()} bits of instances, {len(lock.sources)} sources"]
    for index in {0, len(mix) // 2, len(mix) - 1}:
        place = mix.locate(index)
        listed = {shard.path: shard for source in lock.sources for shard in source.shards}
        must(place.shard in listed, "an instance in a shard that is not listed")
        must(0 <= place.start <= listed[place.shard].tokens - lock.sequence_length, "an instance that is not whole")
        inside = (folder / "store" / place.shard).resolve().is_relative_to((folder / "store").resolve())
        must(inside, "a shard outside the store")
        lines.append(f"{place}")
    for length in (1, lock.sequence_length // 2 or 1):
        if lock.sequence_length % length == 0:
            lock.with_sequence_length(length)
    return lines


def _shard() -> Parts:
    """A shard's header, ids and document table, as the pipeline writes them."""
    with tempfile.TemporaryDirectory() as folder:
        header = {"tokenizer": {"name": "t", "sha256": TOKENIZER.sha256}, "eos": TOKENIZER.eos, "source": "web"}
        writer = ShardWriter(Path(folder), "train", IDS.dtype, 1000, header)
        rows = pa.table({"id": ["a", "b"], "file": ["f", "f"], "row": pa.array([0, 1], pa.int64())})
        writer.add(IDS, rows, np.array([0, 51]), np.array([51, 49]))
        writer.close()
        return tuple((Path(folder) / f"train-00000{suffix}").read_bytes() for suffix in (".json", ".bin", ".parquet"))


def _read_shard(parts: Parts, folder: Path) -> list[str]:
    store = folder / "store"
    path = store / "mixes" / "m.lock.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(_lock().to_json())
    (store / SHARD).parent.mkdir(parents=True)
    for suffix, part in zip((".json", ".bin", ".parquet"), parts, strict=True):
        (store / f"{SHARD}{suffix}").write_bytes(part)
    mix = MixReader(path)
    batch = mix.batch(range(4))
    must(batch.shape == (4, LENGTH) and batch.dtype == np.uint16, "other instances than asked for")
    lines = [f"ids {sha256(batch.tobytes())}"]
    for index in range(3):
        boundaries = mix[index].boundaries
        must(len(boundaries) > 0 and boundaries[0] >= 0 and boundaries[-1] < LENGTH, "boundaries outside the instance")
        lines += [str(span) for span in mix.documents(index)]
    return lines


def _read_record(parts: Parts, folder: Path) -> list[str]:
    unit = Unit("documents", 1, "web", (), {})
    place = folder / unit.folder
    place.mkdir(parents=True)
    (place / "record.json").write_bytes(parts[0])
    (place / "part-00000.parquet").write_bytes(b"x")
    store = Store(folder)
    found = store.find(unit)
    return [f"found {found is not None}", sha256(store.record(unit.folder).to_json())]
