"""What must hold of the files that a mix rests on, and what to say and do where it does not.

Each check reads through the store, forwards and once, wherever the store is, and yields Problems. Memory: 16 MiB of tokens and the tables
of one unit of shards. A table or header is parsed only if its bytes are the recorded ones; where they are not, `output` says so.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import tokenizer
from pipeline.files import BLOCK
from pipeline.lock import Lock
from pipeline.release import is_released
from pipeline.store import Store
from pipeline.unit import Artifact, Json

WINDOW = 1 << 24  # bytes of a shard looked at together
REBUILD = "run make mix again"
REMOVE = "make verify REMOVE=1 removes it with what read it, then run make mix again"


@dataclass(frozen=True)
class Problem:
    """A thing that does not hold, in words, with the remedy. damaged: the file that must go for the next build to make it again, as it
    should be; None where the next build writes it anyway, or where it is none of the store's."""

    text: str
    damaged: Artifact | None = None

    def __str__(self) -> str:
        return self.text


class Damaged(Exception):
    """A file is not what was recorded; its own check names it, and other checks do not look into it."""


def raw_file(store: Store, file: Artifact) -> Iterator[Problem]:
    """A raw file may be gone, since nothing reads it again, but it may not have changed."""
    if "://" in file.path:
        return  # it was read where it is, and not kept
    foreign = Path(file.path).is_absolute()
    if foreign and not Path(file.path).is_file():
        return  # gone; or what a manifest from elsewhere calls a file is a device or a pipe, which may have no end
    try:
        with open(file.path, "rb") if foreign else store.open(file.path) as stream:
            same = _digest(stream) == (file.sha256, file.bytes)
    except FileNotFoundError:
        return
    if not same and foreign:
        yield Problem(f"{file.path}: the raw file has changed since it was read; {REBUILD}")
    elif not same:
        yield Problem(f"{file.path}: the download has changed since it was read; {REMOVE}", file)


def output(store: Store, file: Artifact) -> Iterator[Problem]:
    try:
        with store.open(file.path) as stream:
            digest, size = _digest(stream)
    except FileNotFoundError:
        yield Problem(f"{file.path}: missing; {REBUILD}", file)
        return
    yield from _compared(file, digest, size)


def _compared(file: Artifact, digest: str, size: int) -> Iterator[Problem]:
    if size != file.bytes:
        yield Problem(f"{file.path}: {size} bytes, recorded are {file.bytes}; {REMOVE}", file)
    elif digest != file.sha256:
        yield Problem(f"{file.path}: its bytes have changed since it was written; {REMOVE}", file)


def _digest(stream: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def shard(store: Store, file: Artifact, files: Mapping[str, Artifact]) -> Iterator[Problem]:
    """The token file as `output`, and in the same read against its header and its document table. files: of its unit, by path."""
    path, stem = file.path, file.path.removesuffix(".bin")
    try:
        header = json.loads(_content(store, files[f"{stem}.json"]))
        table = _table(store, files[f"{stem}.parquet"], ["start", "length", "offset", "id"])
    except Damaged:
        yield from output(store, file)
        return
    starts, lengths, offsets = (table[name].to_numpy() for name in ("start", "length", "offset"))
    ends = starts + lengths
    if table.num_rows != header["documents"]:
        yield Problem(f"{path}: the document table has {table.num_rows} rows, the header says {header['documents']}")
    if len(starts) and (starts[0] != 0 or ends[-1] != header["tokens"] or (starts[1:] != ends[:-1]).any()):
        yield Problem(f"{path}: the document table does not cover the shard from token 0 to {header['tokens']} without gaps")
    digest, size, first, top, open_end = hashlib.sha256(), 0, 0, 0, []
    dtype = np.dtype(header["dtype"]).newbyteorder("<")
    try:
        with store.open(path) as stream:
            while window := _exactly(stream, WINDOW):
                digest.update(window)
                size += len(window)
                tokens: npt.NDArray = np.frombuffer(window, dtype, len(window) // dtype.itemsize)
                top = max(top, int(tokens.max(initial=0)))
                inside = slice(*np.searchsorted(ends, [first, first + len(tokens)], side="right"))
                open_end += (np.flatnonzero(tokens[ends[inside] - 1 - first] != header["eos"]) + inside.start).tolist()
                first += len(tokens)
    except FileNotFoundError:
        yield Problem(f"{path}: missing; {REBUILD}", file)
        return
    yield from _compared(file, digest.hexdigest(), size)
    if size != header["tokens"] * dtype.itemsize:
        yield Problem(f"{path}: {size} bytes are not {header['tokens']} tokens of {header['dtype']}")
    if top >= header["tokenizer"]["vocab_size"]:
        yield Problem(f"{path}: token id {top} is beyond the vocabulary of {header['tokenizer']['vocab_size']}")
    # A document longer than a shard goes on in the next one; only then may the last document lack its closing token.
    if len(ends) and len(ends) - 1 in open_end and _continued(store, path, files, table["id"][-1].as_py(), int(offsets[-1] + lengths[-1])):
        open_end.remove(len(ends) - 1)
    for index in open_end:
        yield Problem(f"{path}: document {table['id'][index]} does not end with token {header['eos']}")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, or what is left: a stream from elsewhere may give fewer at a time."""
    pieces, wanted = [], size
    while wanted and (piece := stream.read(wanted)):
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


def _continued(store: Store, path: str, files: Mapping[str, Artifact], identity: str, tokens: int) -> bool:
    split, number = path.removesuffix(".bin").rsplit("-", 1)
    following = files.get(f"{split}-{int(number) + 1:05d}.parquet")
    return following is not None and _table(store, following, ["id", "offset"]).slice(0, 1).to_pylist() == [
        {"id": identity, "offset": tokens}
    ]


def ledger(store: Store, folder: str, files: Mapping[str, Artifact]) -> Iterator[Problem]:
    """Each kept document stands in a shard under the place that the ledger says, and no other document does."""
    path = f"{folder}/ledger.parquet"
    ledger = _table(store, files[path], ["id", "tokens", "kept", "shard", "start"])
    if pc.any(pc.not_equal(ledger["kept"], pc.is_valid(ledger["shard"]))).as_py():
        yield Problem(f"{path}: a kept document is in no shard, or a dropped one is in a shard")
    placed = {(row["shard"], row["start"]): (row["id"], row["tokens"]) for row in ledger.filter(ledger["kept"]).to_pylist()}
    found: dict[tuple[str, int], tuple[str, int]] = {}
    last: tuple[str, int] | None = None
    for shard in sorted(path for path in files if path.endswith(".bin")):
        table = _table(store, files[f"{shard.removesuffix('.bin')}.parquet"], ["id", "start", "length", "offset"])
        for row in table.to_pylist():
            if row["offset"] and last:
                found[last] = (row["id"], found[last][1] + row["length"])
            else:
                last = (shard.rsplit("/", 1)[1], row["start"])
                found[last] = (row["id"], row["length"])
    for place in sorted(placed.items() ^ found.items())[:5]:
        yield Problem(f"{path}: document {place[1][0]} at {place[0][0]} token {place[0][1]} is not the same in ledger and shard")


def books(store: Store, name: str, source: dict[str, Json]) -> Iterator[Problem]:
    """Documents read = kept + dropped, by the records (which a release leaves out) and by the ledgers."""
    accounted = sum(line["documents"] for line in source["funnel"])
    read = None if is_released(source) else sum(store.record(folder).counts["documents"] for folder in source["units"]["documents"])
    if read not in (None, accounted):
        yield Problem(f"{name}: {read} documents were read and {accounted} are accounted for")
    listed: dict[tuple[str, str], int] = {}
    for folder in source["units"]["shards"]:
        ledger = _table(store, store.record(folder).output("ledger.parquet"), ["kept", "split", "stage", "dropped_by"])
        for row in ledger.group_by(["split", "stage", "dropped_by"]).aggregate([([], "count_all")]).to_pylist():
            place = ("kept", row["split"]) if row["split"] else (row["stage"], row["dropped_by"])
            listed[place] = listed.get(place, 0) + row["count_all"]
    if listed != {(line["stage"], line["reason"]): line["documents"] for line in source["funnel"] if line["documents"]}:
        yield Problem(f"{name}: the ledgers count {listed}, the funnel says otherwise")


def mix_lock(store: Store, mix: str, manifest: dict[str, Json]) -> Iterator[Problem]:
    place = f"mixes/{mix}.lock.json"
    lock = Lock.read(store.local(place))
    for source in lock.sources:
        for shard in [*source.shards, *source.validation]:
            folder, name = shard.path.rsplit("/", 1)
            if folder not in manifest["sources"][source.name]["units"]["shards"]:
                yield Problem(f"{place}: {shard.path} is not among the shards that the build made; {REBUILD}")
                continue
            header = json.loads(_content(store, store.record(folder).output(f"{name.removesuffix('.bin')}.json")))
            for field in ("sha256", "tokens", "documents"):
                if header[field] != getattr(shard, field):
                    yield Problem(f"{place}: {shard.path} has {field} {header[field]}, the lock says {getattr(shard, field)}; {REBUILD}")
            if header["dtype"] != lock.tokenizer.dtype or header["tokenizer"]["sha256"] != lock.tokenizer.sha256:
                yield Problem(f"{place}: {shard.path} was written with another tokenizer or dtype")
    yield from _tokenizer(store, lock.tokenizer.sha256)


def _tokenizer(store: Store, sha256: str) -> Iterator[Problem]:
    """The next build writes it, whatever is the matter with it."""
    place = tokenizer.kept(sha256)
    try:
        if hashlib.sha256(store.read(place)).hexdigest() != sha256:
            yield Problem(f"{place}: its bytes have changed since it was written; {REBUILD}")
    except FileNotFoundError:
        yield Problem(f"{place}: missing; {REBUILD}")


def _table(store: Store, file: Artifact, columns: list[str]) -> pa.Table:
    return pq.read_table(io.BytesIO(_content(store, file)), columns=columns)


def _content(store: Store, file: Artifact) -> bytes:
    """The recorded bytes. Raises Damaged: a parser is not given anything else."""
    try:
        content = store.read(file.path)
    except FileNotFoundError:
        raise Damaged from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise Damaged
    return content
