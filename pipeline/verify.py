"""`make verify`: reread everything that a mix rests on and name each thing that does not hold.

Checked: the sha256 and size of every output of every unit and of every raw file that is still there; each shard's
header against its bytes, its dtype, its document table (documents lie back to back from 0 to the shard's end), ids
within the vocabulary, the end-of-document token at every document's end; each ledger against its shards; the books of
every source; and that the mix's lock-file names exactly these shards. One read of every byte, memory of one shard's table
per worker.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import catalog
from pipeline.files import sha256_of
from pipeline.progress import Progress
from pipeline.store import RECORD, Store
from pipeline.unit import Json

WINDOW = 1 << 24  # tokens looked at together
Check = tuple[int, Callable[[], Iterable[str]]]  # bytes to read, and what names the things that do not hold


def verify(store: Store, mix: str, workers: int, progress: Progress) -> list[str]:
    """What does not hold, one line each; empty when all is well. Raises ConfigError if the mix was never built."""
    manifest = catalog.read_manifest(store, mix)
    checks: list[Check] = []
    for name, source in manifest["sources"].items():
        for path, digest, size in source["raw"]:
            checks.append((size, partial(_raw_file, Path(path), digest, size)))
        for stage, folders in source["units"].items():
            for folder in folders:
                checks += _unit_checks(store, stage, folder)
        checks.append((0, partial(_books, store, name, source)))
    checks.append((0, partial(_lock, store, mix, manifest)))
    problems: list[str] = []
    with progress.stage("verify", len(checks), sum(size for size, _ in checks)) as bar, ThreadPoolExecutor(workers) as pool:
        futures = [(size, pool.submit(_named, check)) for size, check in checks]
        for size, future in futures:
            problems += future.result()
            bar.advance(size)
    return problems


def _named(check: Callable[[], Iterable[str]]) -> list[str]:
    """A check that cannot even be made is a thing that does not hold."""
    try:
        return list(check())
    except (OSError, ValueError, KeyError) as error:
        return [f"{type(error).__name__}: {error}"]


def _raw_file(path: Path, digest: str, size: int) -> list[str]:
    """A raw file may be gone, since nothing reads it again, but it may not have changed."""
    if not path.exists():
        return []
    if path.stat().st_size != size or sha256_of(path) != digest:
        return [f"{path}: the raw file has changed since it was read; run make mix again"]
    return []


def _unit_checks(store: Store, stage: str, folder: str) -> list[Check]:
    try:
        outputs = json.loads((store.path(folder) / RECORD).read_bytes())["outputs"]
    except (OSError, ValueError, KeyError) as error:
        return [(0, partial(list, [f"{folder}/{RECORD}: {error}; run make mix again"]))]
    checks: list[Check] = [(o["bytes"], partial(_output, store, o["path"], o["sha256"], o["bytes"])) for o in outputs]
    if stage == "shards":
        names = [o["path"] for o in outputs]
        checks += [(o["bytes"], partial(_shard, store, o["path"])) for o in outputs if o["path"].endswith(".bin")]
        checks.append((0, partial(_ledger, store, folder, [name for name in names if name.endswith(".bin")])))
    return checks


def _output(store: Store, path: str, digest: str, size: int) -> list[str]:
    file = store.path(path)
    if not file.exists():
        return [f"{path}: missing; run make mix again"]
    if file.stat().st_size != size:
        return [f"{path}: {file.stat().st_size} bytes, recorded are {size}; delete {file.parent} and run make mix again"]
    if sha256_of(file) != digest:
        return [f"{path}: its bytes have changed since it was written; delete {file.parent} and run make mix again"]
    return []


def _shard(store: Store, path: str) -> Iterator[str]:
    file = store.path(path)
    header = json.loads(file.with_suffix(".json").read_bytes())
    dtype = np.dtype(header["dtype"]).newbyteorder("<")
    if file.stat().st_size != header["tokens"] * dtype.itemsize:
        yield f"{path}: {file.stat().st_size} bytes are not {header['tokens']} tokens of {header['dtype']}"
        return
    table = pq.read_table(file.with_suffix(".parquet"), columns=["start", "length", "offset", "id"])
    starts, lengths, offsets = (table[name].to_numpy() for name in ("start", "length", "offset"))
    if table.num_rows != header["documents"]:
        yield f"{path}: the document table has {table.num_rows} rows, the header says {header['documents']}"
    ends = starts + lengths
    if len(starts) and (starts[0] != 0 or ends[-1] != header["tokens"] or (starts[1:] != ends[:-1]).any()):
        yield f"{path}: the document table does not cover the shard from token 0 to {header['tokens']} without gaps"
        return
    tokens = np.memmap(file, dtype, "r")
    for begin in range(0, len(tokens), WINDOW):
        top = int(tokens[begin : begin + WINDOW].max())
        if top >= header["tokenizer"]["vocab_size"]:
            yield f"{path}: token id {top} is beyond the vocabulary of {header['tokenizer']['vocab_size']}"
            break
    open_end = np.flatnonzero(tokens[ends - 1] != header["eos"])
    # A document longer than a shard goes on in the next one; only then may the last document lack its closing token.
    continues = _continued(file, table["id"][-1].as_py(), int(offsets[-1] + lengths[-1])) if len(starts) else False
    for index in open_end.tolist():
        if not (continues and index == len(starts) - 1):
            yield f"{path}: document {table['id'][index]} does not end with token {header['eos']}"


def _continued(file: Path, identity: str, tokens: int) -> bool:
    split, number = file.stem.rsplit("-", 1)
    following = file.with_name(f"{split}-{int(number) + 1:05d}.parquet")
    if not following.exists():
        return False
    first = pq.read_table(following, columns=["id", "offset"]).slice(0, 1).to_pylist()
    return first == [{"id": identity, "offset": tokens}]


def _ledger(store: Store, folder: str, shards: list[str]) -> Iterator[str]:
    """Each kept document stands in a shard under the place that the ledger says, and no other document does."""
    path = f"{folder}/ledger.parquet"
    ledger = pq.read_table(store.path(path), columns=["id", "tokens", "kept", "shard", "start"])
    if pc.any(pc.not_equal(ledger["kept"], pc.is_valid(ledger["shard"]))).as_py():
        yield f"{path}: a kept document is in no shard, or a dropped one is in a shard"
    placed = {(row["shard"], row["start"]): (row["id"], row["tokens"]) for row in ledger.filter(ledger["kept"]).to_pylist()}
    found: dict[tuple[str, int], tuple[str, int]] = {}
    last: tuple[str, int] | None = None
    for shard in sorted(shards):
        table = pq.read_table(store.path(shard).with_suffix(".parquet"), columns=["id", "start", "length", "offset"])
        for row in table.to_pylist():
            if row["offset"] and last:
                found[last] = (row["id"], found[last][1] + row["length"])
            else:
                last = (shard.rsplit("/", 1)[1], row["start"])
                found[last] = (row["id"], row["length"])
    for place in sorted(placed.items() ^ found.items())[:5]:
        yield f"{path}: document {place[1][0]} at {place[0][0]} token {place[0][1]} is not the same in ledger and shard"


def _books(store: Store, name: str, source: dict[str, Json]) -> Iterator[str]:
    """Documents read = kept + dropped, by the records and by the ledgers."""
    read = sum(json.loads((store.path(folder) / RECORD).read_bytes())["counts"]["documents"] for folder in source["units"]["documents"])
    accounted = sum(line["documents"] for line in source["funnel"])
    if read != accounted:
        yield f"{name}: {read} documents were read and {accounted} are accounted for"
    listed: dict[tuple[str, str], int] = {}
    for folder in source["units"]["shards"]:
        ledger = pq.read_table(store.path(folder) / "ledger.parquet", columns=["kept", "split", "stage", "dropped_by"])
        for row in ledger.group_by(["split", "stage", "dropped_by"]).aggregate([([], "count_all")]).to_pylist():
            place = ("kept", row["split"]) if row["split"] else (row["stage"], row["dropped_by"])
            listed[place] = listed.get(place, 0) + row["count_all"]
    if listed != {(line["stage"], line["reason"]): line["documents"] for line in source["funnel"] if line["documents"]}:
        yield f"{name}: the ledgers count {listed}, the funnel says otherwise"


def _lock(store: Store, mix: str, manifest: dict[str, Json]) -> Iterator[str]:
    lock = json.loads(store.path(f"mixes/{mix}.lock.json").read_bytes())
    for source in lock["sources"]:
        for shard in [*source["shards"], *source["validation"]]:
            folder = shard["path"].rsplit("/", 1)[0]
            if folder not in manifest["sources"][source["name"]]["units"]["shards"]:
                yield f"mixes/{mix}.lock.json: {shard['path']} is not among the shards that the build made"
                continue
            header = json.loads(store.path(shard["path"]).with_suffix(".json").read_bytes())
            for field in ("sha256", "tokens", "documents"):
                if header[field] != shard[field]:
                    yield f"mixes/{mix}.lock.json: {shard['path']} has {field} {header[field]}, the lock says {shard[field]}"
            if header["dtype"] != lock["tokenizer"]["dtype"] or header["tokenizer"]["sha256"] != lock["tokenizer"]["sha256"]:
                yield f"mixes/{mix}.lock.json: {shard['path']} was written with another tokenizer or dtype"
