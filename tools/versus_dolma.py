"""The tokenize stage beside `dolma tokens`, on the same documents: CPU seconds, and every id.

In: a slice of the corpus (corpus.py) in two sizes. Out: what both cost, and a comparison of the ids document by document.

The two are not the same kind of program, so the ratio comes in several ways. `dolma tokens` is measured as a whole
process tree; what a start costs is the intercept of two sizes, and "marginal" speeds leave it out. Ours is the CPU time of the stages
`tokenize` and `gather` as the engine notes it, documents in and shards out, encoder loading and hashing included and
Python's start left out; "whole program" counts against us the whole `tokenmill mix`, which also reads the raw files,
tags, filters, deduplicates and writes the catalog. Both strip a document's text, and skip it if nothing is left.
"""

import csv
import gzip
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from pipeline.lock import Lock
from pipeline.recipe import load_tokenizer
from pipeline.stages import gather, tokenize
from pipeline.unit import Json
from tools import measure

STAGES = (tokenize.STAGE.name, gather.STAGE.name)


def compare(folder: Path, sizes: dict[int, int], dolma: Path, workers: int) -> dict[str, Json]:
    """`sizes`: bytes of text of each slice, by its name in MB, the large one first. `dolma`: its interpreter."""
    large = max(sizes)
    megabytes = sizes[large] / 1e6
    dolma_costs = {size: _run_dolma(folder, size, dolma, workers) for size in sizes}
    theirs = _speeds(sizes, {size: cost.cpu_seconds for size, cost in dolma_costs.items()})
    our_costs = {size: _run_ours(folder, size) for size in sizes}
    ours = _speeds(sizes, {size: stages for size, (_, stages) in our_costs.items()})
    program, _ = our_costs[large]
    return {
        "megabytes": megabytes,
        "dolma": theirs | {"processes": {size: cost.to_json() for size, cost in dolma_costs.items()}},
        "ours": ours | {"processes": {size: cost.to_json() for size, (cost, _) in our_costs.items()}},
        "ratio": ours["mb_per_cpu_second"] / theirs["mb_per_cpu_second"],
        "ratio_to_marginal": ours["mb_per_cpu_second"] / theirs["marginal_mb_per_cpu_second"],
        "ratio_of_marginals": ours["marginal_mb_per_cpu_second"] / theirs["marginal_mb_per_cpu_second"],
        "ratio_whole_program": megabytes / program.cpu_seconds / theirs["mb_per_cpu_second"],
        "ids": _compare_ids(folder, large),
    }


def _speeds(sizes: dict[int, int], cpu_seconds: dict[int, float]) -> dict[str, float]:
    """Of the larger size; and the line through both sizes."""
    large, small = sizes
    per_byte = (cpu_seconds[large] - cpu_seconds[small]) / (sizes[large] - sizes[small])
    return {
        "cpu_seconds": cpu_seconds[large],
        "start_cpu_seconds": cpu_seconds[large] - per_byte * sizes[large],
        "mb_per_cpu_second": sizes[large] / 1e6 / cpu_seconds[large],
        "marginal_mb_per_cpu_second": 1e-6 / per_byte,
    }


def _run_dolma(folder: Path, size: int, dolma: Path, workers: int) -> measure.Cost:
    out = folder / "dolma" / str(size)
    shutil.rmtree(out, ignore_errors=True)
    spec = load_tokenizer("gpt-neox-olmo-dolma-v1_5", folder / "recipes")
    command: list[str | Path] = [
        dolma, "-m", "dolma.cli", "tokens", "--documents", folder / "slices" / str(size) / "slice" / "*.jsonl.zst", "--destination", out,
        "--tokenizer.name_or_path", str(spec.file), "--tokenizer.eos_token_id", str(spec.eos), "--tokenizer.pad_token_id", "1",
        "--dtype", "uint16", "--processes", str(workers),
    ]  # fmt: skip
    log = folder / "logs" / f"dolma-{size}.log"
    cost = measure.run(command, log)
    if not any(True for _ in their_documents(out)):  # it ends with status 0 whatever happens
        raise measure.CommandFailed(f"dolma tokens wrote no document; see {log}")
    return cost


def _run_ours(folder: Path, size: int) -> tuple[measure.Cost, float]:
    """What the whole program cost, and the CPU seconds of its stages. In one process: Ray would not start for so little."""
    store = folder / "stores" / f"slice-{size}"
    shutil.rmtree(store, ignore_errors=True)
    command: list[str | Path] = [
        sys.executable, "-m", "pipeline", "mix", "--mix", "slice", "--data", folder / "slices" / str(size), "--store", store,
        "--recipes", folder / "recipes", "--workers", "1", "--scale",
    ]  # fmt: skip
    cost = measure.run(command, folder / "logs" / f"slice-{size}.log")
    with duckdb.connect(str(store / "catalog.duckdb"), read_only=True) as catalog:
        rows = catalog.execute("SELECT stage, cpu_seconds FROM runs").fetchall()
    return cost, sum(seconds for stage, seconds in rows if stage in STAGES)


def _compare_ids(folder: Path, size: int) -> dict[str, int]:
    """How many documents both have, how many only one, how many differ."""
    ours = dict(_our_documents(folder / "stores" / f"slice-{size}"))
    theirs = dict(their_documents(folder / "dolma" / str(size)))
    both = ours.keys() & theirs.keys()
    return {
        "documents": len(both),
        "tokens": sum(len(ours[name]) for name in both),
        "only_ours": len(ours.keys() - both),
        "only_theirs": len(theirs.keys() - both),
        "different": sum(not np.array_equal(ours[name], theirs[name]) for name in both),
    }


def _our_documents(store: Path) -> Iterator[tuple[str, np.ndarray]]:
    for shard in Lock.read(store / "mixes" / "slice.lock.json").sources[0].shards:
        tokens = np.memmap(store / shard.path, "<u2", "r")
        for row in pq.read_table((store / shard.path).with_suffix(".parquet")).to_pylist():
            yield row["id"], tokens[row["start"] : row["start"] + row["length"]]


def their_documents(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """dolma's .npy are raw ids too; beside each a table of start, end, id, path and line."""
    for path in sorted(folder.glob("*.npy")):
        tokens = np.memmap(path, "<u2", "r")
        with gzip.open(path.with_suffix(".csv.gz"), "rt", encoding="utf-8", newline="") as table:
            for start, end, name, *_ in csv.reader(table):
                yield name, tokens[int(start) : int(end)]
