"""Deduplication beside the packages that published it: CPU seconds, memory, and what is found.

Each from a file of documents in its own form, theirs JSON lines and ours Parquet, to what it writes about them. MinHash beside datatrove's
four stages, on documents with near-duplicates planted among them (near_recall.py); recall is against exact Jaccard similarity. Bloom
filters over paragraphs beside `dolma dedupe`; what Dolma's start costs is the intercept of two sizes and is left out, as ours is.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.unit import Json
from tools import measure, near_recall
from tools.curation.side_by_side import Bench, typical


def minhash(bench: Bench, texts: Sequence[str], rounds: int) -> dict[str, Json]:
    planted = near_recall.plant(texts)
    documents = [*texts, *(copy.text for copy in planted)]
    path = bench.documents("planted", documents)
    megabytes = sum(len(text.encode()) for text in documents) / 1e6
    sides: dict[str, list[dict[str, Json]]] = {"ours": [], "datatrove": []}
    for _ in range(rounds):
        sides["ours"].append(bench.run("ours", "our_dedupe", "minhash", path, bench.folder / "near"))
        scratch = bench.folder / "near-datatrove"
        shutil.rmtree(scratch, ignore_errors=True)
        sides["datatrove"].append(bench.run("datatrove", "datatrove_minhash", path.parent, scratch))
    results: dict[str, Json] = {"megabytes": megabytes, "documents": len(documents), "planted": len(planted)}
    alike = near_recall.similarities(texts, planted)
    hits = {}
    for side, runs in sides.items():
        clusters = {int(document): cluster for document, cluster in runs[0]["clusters"].items()}
        hits[side] = near_recall.found(planted, clusters, len(texts))
        results[side] = _speed(megabytes, runs) | near_recall.recall(alike, hits[side]) | near_recall.precision(documents, clusters)
        results[side]["clustered"] = len(clusters)
    results["times"] = results["ours"]["mb_per_cpu_second"] / results["datatrove"]["mb_per_cpu_second"]
    return results | near_recall.advantage(alike, hits["ours"], hits["datatrove"])


def paragraphs(bench: Bench, texts: Sequence[str], interpreter: Path, rounds: int) -> dict[str, Json]:
    """Of all `texts`, and for Dolma's start of their first quarter."""
    quarter = texts[: len(texts) // 4]
    path = bench.documents("paragraphs", texts)
    sizes = {name: sum(len(text.encode()) for text in part) / 1e6 for name, part in (("all", texts), ("quarter", quarter))}
    lines = sum(text.count("\n") + 1 for text in texts)
    ours, dolma, starts = [], [], []
    for _ in range(rounds):
        ours.append(bench.run("ours", "our_dedupe", "paragraphs", path, bench.folder / "paragraphs"))
        large, small = (_dolma(bench, name, part, interpreter, lines) for name, part in (("all", texts), ("quarter", quarter)))
        per_megabyte = (large.cpu_seconds - small.cpu_seconds) / (sizes["all"] - sizes["quarter"])
        starts.append(large.cpu_seconds - per_megabyte * sizes["all"])
        dolma.append(large)
    seconds = typical([cost.cpu_seconds for cost in dolma]) - max(0.0, typical(starts))
    removed = list(_dolma_removed(bench, texts))
    theirs = {
        "cpu_seconds": seconds,
        "mb_per_cpu_second": sizes["all"] / seconds,
        "start_cpu_seconds": typical(starts),
        "peak_mb": max(cost.largest_mb for cost in dolma),
        "spans": sum(count for count, _ in removed),
        "bytes": sum(size for _, size in removed),
    }
    mine = _speed(sizes["all"], ours) | {name: ours[0][name] for name in ("spans", "bytes", "filter")}
    times = mine["mb_per_cpu_second"] / theirs["mb_per_cpu_second"]
    return {"megabytes": sizes["all"], "documents": len(texts), "ours": mine, "dolma": theirs, "times": times}


def _speed(megabytes: float, runs: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    seconds = typical([sum(run["cpu_seconds"].values()) for run in runs])
    return {
        "cpu_seconds": seconds,
        "steps": runs[0]["cpu_seconds"],
        "mb_per_cpu_second": megabytes / seconds,
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def _dolma(bench: Bench, name: str, texts: Sequence[str], interpreter: Path, lines: int) -> measure.Cost:
    """With a filter for `lines` paragraphs, at the rate of false positives that Dolma's configurations have."""
    folder = bench.folder / f"dolma-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    bench.documents(f"dolma-{name}/documents", texts)
    command: list[str | Path] = [
        interpreter, "-m", "dolma.cli", "dedupe", "--documents", folder / "documents" / "*.jsonl", "--dedupe.name", "seen",
        "--dedupe.skip_empty", "--dedupe.paragraphs.attribute_name", "seen", "--bloom_filter.file", folder / "filter.bin",
        "--no-bloom_filter.read_only", "--bloom_filter.estimated_doc_count", str(lines),
        "--bloom_filter.desired_false_positive_rate", "1e-6", "--processes", "1",
    ]  # fmt: skip
    cost = measure.run(command, bench.folder / "logs" / f"dolma-dedupe-{name}.log")
    if not _attributes(bench, name).exists():  # it ends with status 0 whatever happens
        raise measure.CommandFailed(f"dolma dedupe wrote no attributes; see {bench.folder / 'logs' / f'dolma-dedupe-{name}.log'}")
    return cost


def _attributes(bench: Bench, name: str) -> Path:
    return bench.folder / f"dolma-{name}" / "attributes" / "seen" / "documents.jsonl"


def _dolma_removed(bench: Bench, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Per document, how many paragraphs it marks, and their bytes with the newlines that end them."""
    removed = []
    for text, line in zip(texts, _attributes(bench, "all").open(encoding="utf-8"), strict=True):
        spans = json.loads(line)["attributes"]["seen"]
        removed.append((len(spans), sum(len(text[start:end].encode()) for start, end, _ in spans)))
    return removed
