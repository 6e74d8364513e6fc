"""What a large mix costs beside its computing: finding 100,000 finished units, the catalog over a billion documents, 30,000 raw files.

In: how large. Out: seconds and memory of each program, as a person would run it, and of each step of resolving a recipe. The store is
one that `make mix` built without computing (pretend.py), so nothing is extrapolated but the contents of the units.

`python -m tools.large` takes about 3 minutes, 1 GB below `.bench/` and 2 GB of memory; `--units 10000` a tenth of it.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.dedupe.exact import INPUT, find_duplicates
from pipeline.documents import write_table
from pipeline.download import folder as raw_folder
from pipeline.lock import Lock, ShardSummary
from pipeline.mix import resolve
from pipeline.recipe import load_mix
from pipeline.rules import load_rules
from pipeline.stages import read
from pipeline.store import Store
from pipeline.terminal import console, titled
from pipeline.unit import Json
from tools import measure, pretend

BENCH = Path(__file__).resolve().parents[1] / ".bench"
UNITS, DOCUMENTS, FILES, DEDUPED = 100_000, 1_000_000_000, 30_000, 2_000_000
PARTS = 9  # of a raw file
PER_PART = 6.55  # units: tokens, attributes of three taggers, filtered, decisions; some of a raw file and of a shard
QUERIES = {
    "count": "SELECT count(*) FROM documents",
    "group": "SELECT source, kept, count(*), sum(tokens) FROM documents GROUP BY ALL",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--keep", action="store_true", help="leave the store of pretended units where it is")
    options = parser.parse_args()
    found = everything(BENCH / "large", options.units, options.documents, options.files, keep=options.keep)
    show(found)
    (BENCH / "large.json").write_text(json.dumps(found, indent=1))


def everything(folder: Path, units: int, documents: int, files: int, deduped: int = DEDUPED, keep: bool = False) -> dict[str, Json]:
    """What the arithmetic of scale.py rests on: `catalog`, `recipe` and `dedupe` as below, measured below `folder`."""
    try:
        return {
            "catalog": catalog(folder / "units", units, documents),
            "tenth": catalog(folder / "tenth", units // 10, documents // 10),  # so that what grows is told from what does not
            "recipe": recipe(folder / "files", files),
            "dedupe": dedupe(folder, deduped),
        }
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def catalog(folder: Path, units: int, documents: int) -> dict[str, Json]:
    """Of a finished mix of about so many units and documents: what running it again costs, and asking it."""
    files = max(2, round(units / PER_PART / PARTS))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request, lock = pretend.make(folder, pretend.Shape(files, PARTS, round(documents / files / PARTS)))
    store = Store(request.store)
    manifest = json.loads(store.read(f"mixes/{lock.mix}.build.json"))
    folders = [path for source in manifest["sources"].values() for listed in source["units"].values() for path in listed]
    sampled = folders[:: max(1, len(folders) // 1000)]
    program = [sys.executable, "-m", "pipeline"]
    where = ["--mix", lock.mix, "--store", str(request.store)]
    built = ["--data", request.data, "--recipes", str(request.recipes), "--workers", "1", "--scale"]
    commands = {"mix": ["mix", *where, *built], "stats": ["stats", *where]}
    commands |= {name: ["sql", *where, "--format", "csv", query] for name, query in QUERIES.items()}
    costs = {name: measure.run([*program, *command], folder / "logs" / f"{name}.log").to_json() for name, command in commands.items()}
    return {
        "units": len(folders),
        "documents": sum(line["documents"] for source in manifest["sources"].values() for line in source["funnel"]),
        "shards": sum(len(source.shards) for source in lock.sources),
        "catalog_bytes": store.path("catalog.duckdb").stat().st_size,
        "manifest_bytes": store.path(f"mixes/{lock.mix}.build.json").stat().st_size,
        "lock_bytes": store.path(f"mixes/{lock.mix}.lock.json").stat().st_size,
        "journal_bytes": sum(store.files("runs").values()),
        "record_bytes": sum(store.path(f"{path}/record.json").stat().st_size for path in sampled) // len(sampled),
        **costs,
    }  # fmt: skip


def recipe(folder: Path, files: int) -> dict[str, Json]:
    """Seconds of each step from a recipe over so many raw files, each large enough for a unit of its own, to its lock-file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pretend.write_recipes(folder / "recipes", "pretended")
    pretend.write_raw(folder, pretend.Shape(files))
    store, seconds = Store(folder / "store"), {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - began

    with timed("load the recipe"):
        mix = load_mix("pretended", folder / "recipes")
        sources = {name: load_rules(name, folder / "recipes")[0] for name in mix.sources}
    with timed("list the folders"):
        raw = {name: raw_folder.files(folder / "data", name, store.path(f"downloads/folder/{name}.json")) for name in sources}
    with timed("make the units of reading"):
        units = [unit for name, source in sources.items() for unit in read.units(name, raw[name], source.fields)]
        for unit in units:
            _ = unit.key
    with timed("look for finished ones"):
        found = store.find_all(units)
    shards = {
        name: [ShardSummary(f"{unit.folder}/train-00000.bin", 1 << 28, 200_000, "0" * 64) for unit in units if unit.source == name]
        for name in sources
    }
    tokenizer = {"name": "words", "sha256": "0" * 64, "eos": 50_279, "vocab_size": 50_280, "dtype": "uint16"}
    with timed("resolve the mix"):
        lock = resolve(mix, shards, {name: [] for name in sources}, tokenizer, scale=True)
    path = folder / "lock.json"
    with timed("write the lock-file"):
        path.write_bytes(lock.to_json())
    with timed("read the lock-file"):
        assert Lock.read(path) == lock
    assert len(units) == files and not any(found)
    return {"files": files, "steps": seconds, "seconds": sum(seconds.values()), "lock_bytes": path.stat().st_size}


def dedupe(folder: Path, documents: int) -> dict[str, Json]:
    """What looking for equal hashes among so many documents costs; one in fifty has one."""
    folder.mkdir(parents=True, exist_ok=True)
    random, parts, count = np.random.default_rng(0), [], 50_000
    for number in range(max(1, documents // count)):
        hashes = random.bytes(16 * count)
        twice = hashes[: 16 * (count // 50)] + hashes[: 16 * (count - count // 50)]
        ids = [f"<urn:uuid:{number:08d}-{row:08d}-0000-000000000000>" for row in range(count)]
        table = pa.table(
            {
                "hash": pa.array([twice[16 * row : 16 * row + 16] for row in range(count)], pa.binary(16)),
                "id": ids,
                "row": np.arange(count),
            },
            INPUT,
        )
        path = folder / f"survivors-{number}.parquet"
        write_table(table, path)
        parts.append((path, 0))
    began, wall = time.process_time(), time.perf_counter()
    lost = find_duplicates(parts, ["pages"], folder / "duplicates.parquet")
    spent = {"cpu_seconds": time.process_time() - began, "seconds": time.perf_counter() - wall}
    return {"documents": len(parts) * count, "duplicates": lost, **spent}


def show(found: dict[str, Json]) -> None:
    """Tables of what `everything` found."""
    out, catalog = console(), found["catalog"]
    title = f"A finished mix of {catalog['units']:,} units, {catalog['documents']:,} documents, {catalog['shards']:,} shards"
    table = titled(title, "", "wall s", "CPU-s", "largest process MiB")
    asked = {"mix": "make mix, nothing to do", "stats": "make stats"} | {key: f"make sql: {query}" for key, query in QUERIES.items()}
    for key, name in asked.items():
        cost = catalog[key]
        table.add_row(name, f"{cost['seconds']:.1f}", f"{cost['cpu_seconds']:.1f}", f"{cost['largest_mb']:,.0f}")
    out.print(table)
    kinds = {"catalog": "catalog", "manifest": "build manifest", "lock": "lock-file", "journal": "journals"}
    sizes = ", ".join(f"{name} {catalog[f'{kind}_bytes'] / 1e6:.1f} MB" for kind, name in kinds.items())
    out.print(f"{sizes}, a record {catalog['record_bytes']:,} bytes\n")
    recipe, deduped = found["recipe"], found["dedupe"]
    table = titled(f"A recipe over {recipe['files']:,} raw files", "", "s")
    for name, seconds in [*recipe["steps"].items(), ("together", recipe["seconds"])]:
        table.add_row(name, f"{seconds:.2f}")
    out.print(table)
    each = deduped["cpu_seconds"] / deduped["documents"]
    out.print(f"exact dedupe of {deduped['documents']:,} documents: {each * 1e6:.2f} µs of CPU each")


if __name__ == "__main__":
    main()
