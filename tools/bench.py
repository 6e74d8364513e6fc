"""`make bench`: what the pipeline costs on 250 MB of real text, beside `dolma tokens` and beside what it has to reach.

In: nothing but this installation (corpus.py). Out: tables, all numbers in `.bench/results.json`, and of them those that estimates
rest on (plan.py, scale.py) in `.bench/rates.json`; `--save` makes these the committed ones. It runs the program
as a person would, `tokenmill mix` from .jsonl.zst files into an empty store, `tokenmill verify`, and `mix` once more on
the finished store, and measures each as a whole process tree (measure.py). What each stage cost is what the engine noted
(the catalog's view `runs`), Ray's own work left out. Ray's start is measured apart, by starting the same Ray for nothing. What a mix
of 100,000 units costs beside its computing is measured on one whose computing is left out (large.py).

Takes some 15 minutes the first time, when corpus and peers are fetched, and 8 after that, of which dolma takes 2 and the large mix 4, and
2 GB under `.bench/`, which can be deleted at any time. CPU seconds depend on what else the machine does: the load is
printed, and numbers of a busy machine are not to be compared.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import duckdb
from rich.console import Console

from pipeline import catalog
from pipeline.errors import PipelineError
from pipeline.store import Store
from pipeline.terminal import console as make_console
from pipeline.terminal import titled
from pipeline.unit import Json
from tools import corpus, goals, large, measure, peers, rates, reading, versus_dolma

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / ".bench"
DOWNLOADS = ROOT / "data" / "downloads" / "packages"  # the default store's, so that the samples are fetched once
STAGES = [stage.name for stage in catalog.STAGES]

# What is to be reached, and whether it is a least or a most.
WHOLE_MB_PER_CPU_SECOND = 5.0
TOKENIZE_MB_PER_CPU_SECOND = 15.0
TIMES_DOLMA = 25.0
WORKER_MB = 1500e6 / (1 << 20)
OPEN_SECONDS = 1.0
READ_TOKENS_PER_CPU_SECOND = 100e6

# As the engine starts it, with one task so that its workers run.
START_RAY = """
import os, sys
os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
import ray
quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
ray.init("local", num_cpus=int(sys.argv[1]), object_store_memory=100 << 20, **quiet)
ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())
ray.shutdown()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--without-dolma", action="store_true", help="leave dolma out, where it cannot be installed")
    parser.add_argument("--units", type=int, default=large.UNITS, help="units of the large mix; documents and files in proportion")
    parser.add_argument("--save", action="store_true", help="make the rates the committed ones, which docs/scale.md rests on")
    options = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)  # a cluster's work is not in this machine's process tree
    console = make_console()
    dolma = None if options.without_dolma else _dolma(console)
    described = corpus.build(BENCH, DOWNLOADS, dolma and peers.site_packages(dolma))
    _show_corpus(console, described)

    results: dict[str, Json] = {"machine": goals.machine(options.workers), "corpus": described}
    console.print("load before: {:.2f} {:.2f} {:.2f}".format(*results["machine"]["load"]))
    results["pipeline"] = _run_pipeline(described, options.workers)
    _show_pipeline(console, results["pipeline"])
    if dolma:
        sizes = {int(megabytes): counts["bytes"] for megabytes, counts in described["slices"].items()}
        results["tokenize"] = versus_dolma.compare(BENCH, sizes, dolma, options.workers)
        _show_comparison(console, results["tokenize"])
    results["reader"] = {
        "billion": reading.first_batch(BENCH),
        "random": reading.random_reads(BENCH / "stores" / "bench" / "mixes" / "bench.lock.json"),
    }
    scale = options.units / large.UNITS
    results["large"] = large.everything(BENCH / "large", options.units, int(large.DOCUMENTS * scale), int(large.FILES * scale))
    large.show(results["large"])
    kinds = rates.of_store(Store(BENCH / "stores" / "bench"), "bench", enough=0)
    for path in [rates.BENCHED, *([rates.COMMITTED] if options.save else [])]:
        rates.save(path, kinds, results["large"], results["machine"])
    results["reached"] = goals.judged(_goals(results))
    goals.show(console, results["reached"])
    (BENCH / "results.json").write_text(json.dumps(results, indent=1))
    console.print(f"all numbers: {BENCH / 'results.json'}; what estimates rest on: {path}")


def _dolma(console: Console) -> Path | None:
    try:
        return peers.python(peers.DOLMA)
    except peers.PeerUnavailable as error:
        console.print(f"without dolma: {error}", style="yellow")
        return None


def _run_pipeline(described: dict[str, Json], workers: int) -> dict[str, Json]:
    store = BENCH / "stores" / "bench"
    shutil.rmtree(store, ignore_errors=True)
    program = [sys.executable, "-m", "pipeline"]
    where = ["--mix", "bench", "--store", str(store), "--workers", str(workers)]
    build = [*program, "mix", *where, "--data", str(BENCH / "corpus"), "--recipes", str(BENCH / "recipes"), "--scale"]
    ray = measure.run([sys.executable, "-c", START_RAY, str(workers)], BENCH / "logs" / "ray.log") if workers > 1 else None
    built = measure.run(build, BENCH / "logs" / "mix.log")
    verified = measure.run([*program, "verify", *where], BENCH / "logs" / "verify.log")
    again = measure.run(build, BENCH / "logs" / "mix-again.log")
    with duckdb.connect(str(store / "catalog.duckdb"), read_only=True) as connection:
        [tokens, documents] = connection.execute("SELECT sum(tokens), count(*) FROM documents").fetchone() or (0, 0)
        rows = connection.execute(
            "SELECT stage, sum(seconds), sum(cpu_seconds), max(peak_rss_mb) FROM runs WHERE units > 0 GROUP BY stage"
        ).fetchall()
    whole = {"mix": built, "verify": verified, "mix and verify": built + verified, "mix again": again}
    if ray:
        whole["starting Ray"] = ray
    return {
        "bytes": described["bytes"],
        "tokens": tokens,
        "documents": documents,
        "stages": {
            stage: {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}
            for stage, seconds, cpu, peak in sorted(rows, key=lambda row: STAGES.index(row[0]))
        },
        "whole": {name: cost.to_json() for name, cost in whole.items()},
    }


def _show_corpus(console: Console, described: dict[str, Json]) -> None:
    console.print(f"Corpus: {described['bytes'] / 1e6:.1f} MB of text, {described['documents']:,} documents")
    for kind, families in described["families"].items():
        largest = sorted(families.items(), key=lambda entry: -entry[1]["bytes"])
        counts = described["kinds"][kind]
        listed = ", ".join(f"{name} {family['bytes'] / 1e6:.1f}" for name, family in largest)
        console.print(f"  {kind} {counts['bytes'] / 1e6:.1f} MB, {counts['documents']:,} documents: {listed}", markup=False)


def _show_pipeline(console: Console, pipeline: dict[str, Json]) -> None:
    megabytes, tokens = pipeline["bytes"] / 1e6, pipeline["tokens"]
    title = "Stages (MB of the corpus's text; seconds of all workers)"
    table = titled(title, "stage", "seconds", "CPU-s", "MB/s", "tokens/s", "MB per CPU-s", "peak MiB")
    stages = pipeline["stages"]
    sums = {key: sum(stage[key] for stage in stages.values()) for key in ("seconds", "cpu_seconds")}
    total = sums | {"peak_mb": max(stage["peak_mb"] for stage in stages.values())}
    for name, stage in [*stages.items(), ("all stages", total)]:
        seconds, cpu = stage["seconds"], stage["cpu_seconds"]
        table.add_row(
            name, f"{seconds:.2f}", f"{cpu:.2f}", f"{megabytes / seconds:,.1f}", f"{tokens / seconds:,.0f}", f"{megabytes / cpu:,.1f}",
            f"{stage['peak_mb']:,.0f}",
        )  # fmt: skip
    console.print(table)
    table = titled(
        "Whole runs (process trees)", "", "wall s", "CPU-s", "MB/s", "tokens/s", "MB per CPU-s", "largest process MiB", "together MiB"
    )
    whole = dict(pipeline["whole"])
    if ray := whole.get("starting Ray"):
        both = whole["mix and verify"]
        without = {key: both[key] - ray[key] for key in ("seconds", "cpu_seconds")}
        whole["without Ray's start"] = both | without
    for name, cost in whole.items():
        table.add_row(
            name, f"{cost['seconds']:.1f}", f"{cost['cpu_seconds']:.1f}", f"{megabytes / cost['seconds']:.1f}",
            f"{tokens / cost['seconds']:,.0f}", f"{megabytes / cost['cpu_seconds']:.2f}", f"{cost['largest_mb']:,.0f}",
            f"{cost['together_mb']:,.0f}",
        )  # fmt: skip
    console.print(table)


def _show_comparison(console: Console, compared: dict[str, Json]) -> None:
    dolma, ours, ids = compared["dolma"], compared["ours"], compared["ids"]
    megabytes, program = compared["megabytes"], ours["processes"][max(ours["processes"])]["cpu_seconds"]
    table = titled(
        f"Tokenizing {megabytes:.1f} MB: documents in, shards out", "", "CPU-s", "MB per CPU-s", "times dolma", "times, start left out"
    )
    rows = {
        f"ours, {' and '.join(versus_dolma.STAGES)}": (ours["cpu_seconds"], compared["ratio"], compared["ratio_to_marginal"]),
        "dolma tokens": (dolma["cpu_seconds"], None, None),
        "ours, start left out": (ours["cpu_seconds"] - ours["start_cpu_seconds"], None, compared["ratio_of_marginals"]),
        "dolma tokens, start left out": (dolma["cpu_seconds"] - dolma["start_cpu_seconds"], None, None),
        "our whole program, all stages": (program, compared["ratio_whole_program"], None),
    }
    for name, (seconds, *ratios) in rows.items():
        table.add_row(name, f"{seconds:.2f}", f"{megabytes / seconds:.2f}", *("" if ratio is None else f"{ratio:.1f}" for ratio in ratios))
    console.print(table)
    same = ids["different"] == ids["only_ours"] == ids["only_theirs"] == 0
    console.print(
        f"ids: {ids['documents']:,} documents, {ids['tokens']:,} tokens, {ids['different']} differ, "
        f"{ids['only_ours']} only ours, {ids['only_theirs']} only dolma's",
        style="green" if same else "red",
    )


def _goals(results: dict[str, Json]) -> list[goals.Goal]:
    """Each thing to reach: what, how much is asked, how much there is, whether that is enough."""
    pipeline, reader = results["pipeline"], results["reader"]
    megabytes, stages = pipeline["bytes"] / 1e6, pipeline["stages"]
    whole = megabytes / pipeline["whole"]["mix and verify"]["cpu_seconds"]
    tokenizing = megabytes / sum(stages[name]["cpu_seconds"] for name in versus_dolma.STAGES)
    peak = max(stage["peak_mb"] for stage in stages.values())
    random = reader["random"]["batch_tokens_per_cpu_second"] / 1e6
    lines = [
        ("whole pipeline, MB per CPU-s", whole, WHOLE_MB_PER_CPU_SECOND, True),
        ("tokenize stage, MB per CPU-s", tokenizing, TOKENIZE_MB_PER_CPU_SECOND, True),
        ("peak of a worker, MiB", peak, WORKER_MB, False),
        ("a billion instances: from a new process to the first batch, s", reader["billion"]["process_seconds"], OPEN_SECONDS, False),
        ("random instances, million tokens per CPU-s", random, READ_TOKENS_PER_CPU_SECOND / 1e6, True),
    ]
    if compared := results.get("tokenize"):
        lines.insert(2, ("tokenize stage, times dolma tokens", compared["ratio"], TIMES_DOLMA, True))
        lines.insert(3, ("the same, dolma's start left out", compared["ratio_to_marginal"], TIMES_DOLMA, True))
        ids = compared["ids"]
        lines.insert(4, ("documents whose ids differ from dolma's", ids["different"] + ids["only_ours"] + ids["only_theirs"], 0, False))
    return lines


if __name__ == "__main__":
    try:
        main()
    except (PipelineError, peers.InstallFailed, measure.CommandFailed) as error:
        sys.exit(f"error: {error}")
