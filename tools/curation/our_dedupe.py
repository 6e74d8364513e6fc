"""Our near-duplicates and repeated paragraphs of documents in one file, called as the stages call them, in one process.

    python -m tools.curation.our_dedupe minhash|paragraphs <documents.jsonl> <scratch folder> <out.json>

Out: CPU seconds by step, from a part of documents as the read stage writes it; start, imports and the loading of compiled code are left
out (it all runs on the first documents before). minhash: of each document in a cluster of two or more, by its place in the file, the
cluster's number. paragraphs: spans that are removed, bytes in them, and the filter's report.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import edits
from pipeline.dedupe import near, paragraphs
from pipeline.dedupe.methods import Paragraphs
from pipeline.documents import GROUP_BYTES, SCHEMA, row_groups
from pipeline.taggers import Batch, run
from pipeline.taggers.kinds import KINDS, Attribute
from pipeline.taggers.minhash import Near
from pipeline.unit import Json

WARM = 20
SETTINGS = Near()
COLUMN = "near"

Result = dict[str, Json]


def main() -> None:
    verb, source, scratch, target = sys.argv[1:]
    step: Callable[[Path, Path], Result] = {"minhash": _minhash, "paragraphs": _paragraphs}[verb]
    for name, count in (("warm", WARM), ("all", None)):
        folder = Path(scratch) / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        result = step(_part(islice(_texts(source), count), folder), folder)
    Path(target).write_text(json.dumps(result))


def _part(texts: Iterator[str], folder: Path) -> Path:
    path = folder / "part.parquet"
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", compression_level=1) as writer:
        for group in groups(texts):
            writer.write_table(batch(group).table)
    return path


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def _minhash(part: Path, folder: Path) -> Result:
    clock = _Clock()
    tagger = Attribute(COLUMN, KINDS["minhash"], SETTINGS, Path()).tagger({})
    survivors, pairs = folder / "survivors.parquet", [folder / f"pairs-{band:02d}.parquet" for band in range(SETTINGS.bands)]
    schema = pa.schema([("id", pa.string()), ("row", pa.int64()), *tagger.columns.items()])
    first = 0
    with pq.ParquetWriter(survivors, schema, compression="zstd") as writer:
        for group in row_groups(part, ["text"]):
            rows = pa.array(range(first, first + group.num_rows), pa.int64())
            values = run(tagger, Batch(group))[0]
            writer.write_table(pa.table([rows.cast(pa.string()), rows, values[COLUMN]], schema=schema))
            first += group.num_rows
    clock.lap("signatures")
    for band, out in enumerate(pairs):
        near.band_pairs([(survivors, 0)], COLUMN, band, out)
    clock.lap("bands")
    near.clusters(pairs, [(survivors, 0)], ["bench"], folder / "clusters.parquet", folder / "duplicates.parquet")
    clock.lap("clusters")
    clusters = pq.read_table(folder / "clusters.parquet", columns=["row", "cluster"])
    return {"cpu_seconds": clock.seconds, "clusters": dict(zip(*(column.to_pylist() for column in clusters.columns), strict=True))}


def _paragraphs(part: Path, folder: Path) -> Result:
    clock = _Clock()
    method = Paragraphs()
    bloom = paragraphs.bloom_for(_batches(part), method)
    clock.lap("counting")
    count = size = 0
    with pq.ParquetWriter(folder / "removed.parquet", paragraphs.REMOVED, compression="zstd") as writer:
        for spans, _ in paragraphs.remove(_batches(part), method, bloom):
            writer.write_table(spans)
            count += len(spans)
            size += int((spans["end"].to_numpy() - spans["start"].to_numpy()).sum())
    clock.lap("looking up")
    return {"cpu_seconds": clock.seconds, "spans": count, "bytes": size, "filter": bloom.report()}


def _batches(part: Path) -> Iterator[paragraphs.Texts]:
    first = 0
    for group in row_groups(part, ["text"]):
        yield (0, first, *edits.flat(group["text"]))
        first += group.num_rows


def groups(texts: Iterator[str]) -> Iterator[pa.Array]:
    """The texts in batches of the size that a part's row groups have."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= GROUP_BYTES:
            yield pa.array(group, pa.large_string())
            group, size = [], 0
    if group:
        yield pa.array(group, pa.large_string())


def batch(texts: pa.Array) -> Batch:
    """Documents with nothing but a text."""
    count = len(texts)
    names = pa.array(["bench"] * count)
    columns = {"id": names, "text": texts, "source": names, "file": names, "row": pa.array(range(count), pa.int64())}
    return Batch(pa.table({field.name: columns.get(field.name, pa.nulls(count, field.type)) for field in SCHEMA}, schema=SCHEMA))


def _texts(source: str) -> Iterator[str]:
    with open(source, "rb") as lines:
        for line in lines:
            yield orjson.loads(line)["text"]


if __name__ == "__main__":
    main()
