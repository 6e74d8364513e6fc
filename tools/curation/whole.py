"""The whole program with many filters and all deduplication on: `tokenmill mix` of real prose into an empty store.

In: the benchmark's corpus (corpus.py), its source `prose`. Out: CPU seconds by stage, as the engine notes them (a worker's start and
the loading of compiled code count in the stage that needs it first), and the whole process tree's.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb

from pipeline.recipe import load_tokenizer
from pipeline.stages import filter, prepare, tag
from pipeline.unit import Json
from tools import corpus, measure
from tools.curation.side_by_side import Bench

SOURCE, MIX = "prose", "curation"
FILTERING = tuple(module.STAGE.name for module in (prepare, tag, filter))


def run(bench: Bench, folder: Path, megabytes: float, filters: Sequence[str]) -> dict[str, Json]:
    """`folder`: of the corpus, as corpus.build leaves it. `megabytes`: how much of it is prose."""
    recipes, store = bench.folder / "recipes", bench.folder / "store-whole"
    for old in (recipes, *(each for each in store.glob("*") if each.is_dir() and each.name != "downloads")):
        shutil.rmtree(old, ignore_errors=True)
    _write_recipes(recipes, folder / "recipes", filters)
    command: list[str | Path] = [
        sys.executable, "-m", "pipeline", "mix", "--mix", MIX, "--data", folder / "corpus", "--recipes", recipes, "--store", store,
        "--workers", "1", "--scale",
    ]  # fmt: skip
    cost = measure.run(command, bench.folder / "logs" / "whole.log", env=bench.environment)
    with duckdb.connect(str(store / "catalog.duckdb"), read_only=True) as catalog:
        rows = catalog.execute("SELECT stage, sum(cpu_seconds), max(peak_rss_mb) FROM runs GROUP BY stage").fetchall()
    seconds: dict[str, float] = {stage: cpu for stage, cpu, _ in rows}
    filtering = sum(seconds.get(stage, 0.0) for stage in FILTERING)
    return {
        "megabytes": megabytes,
        "filters": list(filters),
        "stages": seconds,
        "peak_mb": max(peak for _, _, peak in rows),
        "filtering_mb_per_cpu_second": megabytes / filtering,
        "whole": cost.to_json() | {"mb_per_cpu_second": megabytes / cost.cpu_seconds},
    }


def _write_recipes(folder: Path, bench: Path, filters: Sequence[str]) -> None:
    shutil.copytree(bench / "tokenizers", folder / "tokenizers")
    (folder / "sources").mkdir()
    source = {"title": "for the benchmark", "licence": "each file's own", "filters": list(filters)}
    steps = [{"method": "exact"}, {"method": "near"}, {"method": "paragraphs"}]
    _declare(folder / "sources", SOURCE, {**source, "dedupe": steps, "validation": {"share": 0, "documents": 0}})
    spec = load_tokenizer(corpus.TOKENIZER, bench)
    mix = {
        "description": "for the benchmark",
        "tokenizer": spec.name,
        "sequence_length": 1024,
        "seed": 1,
        "sources": {SOURCE: {"weight": 1}},
    }
    _declare(folder, MIX, mix)


def _declare(folder: Path, name: str, fields: dict[str, Json]) -> None:
    (folder / f"{name}.yaml").write_text(json.dumps({"name": name, **fields}, indent=1))  # JSON is YAML
