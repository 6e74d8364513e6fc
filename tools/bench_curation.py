"""`make bench-curation`: what curation costs, beside datatrove and Dolma on the same documents, and whether both decide the same.

In: nothing but this installation (corpus.py) and the peers' own environments (peers.py). Out: tables, and all numbers in
`.bench/curation.json`. Documents are the first 4 MB of two parts of the corpus, since the peers are slow: `mixed`, a cross-section,
which is mostly code, and `prose`, which is what these filters are for. Peers and ours take turns; numbers are medians, in CPU-seconds of
the work itself, with programs started and their models and compiled code loaded (curation/side_by_side.py).

With `--dclm <checkout of mlfoundations/dclm>` DCLM's mappers are measured too. Takes some 15 minutes, nearly all of it the peers'.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard
from rich.console import Console

from pipeline.errors import PipelineError
from pipeline.recipe import filter_names
from pipeline.rules import load_filter
from pipeline.terminal import console as make_console
from pipeline.terminal import titled
from pipeline.unit import Json
from tools import corpus, goals, golden, measure, near_recall, peers
from tools.bench import BENCH, DOWNLOADS
from tools.curation import versus_dedupe, versus_filters, whole
from tools.curation.side_by_side import Bench

MB = 1_000_000
SMALL, LARGE = 4 * MB, 32 * MB

# Filters for other texts than a web page's, which drop nearly all prose together.
OF_OTHER_TEXTS = {"algebraic-stack", "arxiv", "open-web-math", "pes2o", "stack-code", "starcoder"}

# What is to be reached, and whether it is a least or a most.
TIMES_FILTER = 10.0
ALL_MB_PER_CPU_SECOND = 5.0
TIMES_MINHASH = 20.0
CHANCE = -2.0  # standard errors: near_recall.advantage
TIMES_BLOOM = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--dclm", type=Path, help="a checkout of mlfoundations/dclm")
    options = parser.parse_args()
    console = make_console()
    interpreters = {"datatrove": peers.python(peers.DATATROVE), "dolma": peers.python(peers.DOLMA)}
    described = corpus.build(BENCH, DOWNLOADS, peers.site_packages(interpreters["dolma"]))
    if options.dclm:
        interpreters["dclm"] = peers.python(golden.DCLM)
    bench = Bench(BENCH / "curation", interpreters, options.dclm)
    parts = {"mixed": BENCH / "slices" / str(max(corpus.SLICES)), "prose": BENCH / "corpus" / "prose"}
    large = {name: list(texts(folder, LARGE)) for name, folder in parts.items()}
    small = {name: list(first(found, SMALL)) for name, found in large.items()}

    results: dict[str, Json] = {"machine": goals.machine(1), "corpus": described, "filters": {}, "all": {}}
    console.print("load before: {:.2f} {:.2f} {:.2f}".format(*results["machine"]["load"]))
    for name, found in small.items():
        results["filters"][name] = compared = versus_filters.compare(bench, found, name, options.rounds)
        _show_filters(console, name, compared)
    every = "+".join(all_filters())
    for name, found in large.items():
        results["all"][name] = versus_filters.alone(bench, found, f"{name}-large", every, options.rounds)
    _show_all(console, results["all"])
    results["minhash"] = versus_dedupe.minhash(bench, small["prose"], options.rounds)
    _show_minhash(console, results["minhash"])
    results["paragraphs"] = versus_dedupe.paragraphs(bench, large["mixed"], interpreters["dolma"], options.rounds)
    _show_paragraphs(console, results["paragraphs"])
    of_web = [name for name in all_filters() if name not in OF_OTHER_TEXTS]
    results["whole"] = whole.run(bench, BENCH, described["kinds"]["prose"]["bytes"] / MB, of_web)
    _show_whole(console, results["whole"])
    results["reached"] = goals.judged(_goals(results))
    goals.show(console, results["reached"])
    (BENCH / "curation.json").write_text(json.dumps(results, indent=1))
    console.print(f"all numbers: {BENCH / 'curation.json'}; load after: {os.getloadavg()[0]:.2f}")


def all_filters() -> list[str]:
    """Those that read no files of the user's, such as a model, and no evaluation texts; of those that only ask for a language none,
    since refinedweb does."""
    return [name for name in sorted(filter_names()) if not name.startswith(("decontaminate", "english")) and _files_are_there(name)]


def _files_are_there(name: str) -> bool:
    attributes = load_filter(name).attributes.values()
    places = [(attribute.folder, place) for attribute in attributes for role in attribute.places.values() for place in role]
    return all(any(folder.glob(place)) for folder, place in places if isinstance(place, str))


def texts(folder: Path, limit: int) -> Iterator[str]:
    """The documents of all files below, in order, until there are `limit` bytes of text."""
    return first((json.loads(line)["text"] for path in sorted(folder.rglob("*.jsonl.zst")) for line in _lines(path)), limit)


def first(found: Sequence[str] | Iterator[str], limit: int) -> Iterator[str]:
    size = 0
    for text in found:
        if size >= limit:
            return
        size += len(text.encode())
        yield text


def _lines(path: Path) -> Iterator[str]:
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        yield from file


def _show_filters(console: Console, name: str, compared: dict[str, Json]) -> None:
    title = f"Filters on {compared['megabytes']:.1f} MB, {compared['documents']:,} documents: {name}"
    table = titled(
        title, "filters", "peer", "its MB per CPU-s", "with every rule", "ours", "times", "times, every rule", "its peak MiB", "ours",
        "kept", "different", "other reason",
    )  # fmt: skip
    for filters, found in compared["sets"].items():
        decisions = found["decisions"]
        table.add_row(
            filters, found["peer"], *(f"{found[side]['mb_per_cpu_second']:.2f}" for side in ("theirs", "theirs_every_rule", "ours")),
            f"{found['times']:.1f}", f"{found['times_every_rule']:.1f}", *(f"{found[side]['peak_mb']:,.0f}" for side in ("theirs", "ours")),
            f"{decisions['kept']:,}", f"{decisions['different']:,}", f"{decisions.get('other_reason', '')}",
        )  # fmt: skip
    console.print(table)


def _show_all(console: Console, found: dict[str, Json]) -> None:
    table = titled("All filters at once", "documents", "MB", "CPU-s", "MB per CPU-s", "peak MiB")
    for name, each in found.items():
        table.add_row(
            name, f"{each['megabytes']:.1f}", f"{each['cpu_seconds']:.1f}", f"{each['mb_per_cpu_second']:.2f}", f"{each['peak_mb']:,.0f}"
        )
    console.print(table)
    for name, each in found.items():
        costly = sorted(each["by_tagger"].items(), key=lambda entry: -entry[1])[:12]
        listed = ", ".join(f"{tagger} {seconds / each['megabytes'] * 1000:.0f}" for tagger, seconds in costly)
        console.print(f"  {name}, ms per MB by tagger: {listed}", markup=False)
    console.print(f"  {', '.join(next(iter(found.values()))['filters'])}", markup=False)


def _show_minhash(console: Console, found: dict[str, Json]) -> None:
    title = (
        f"MinHash on {found['megabytes']:.1f} MB: {found['documents']:,} documents, {found['ours']['pairs']:,} planted pairs at least "
        f"{near_recall.ALIKE} alike"
    )
    table = titled(title, "", "CPU-s", "MB per CPU-s", "peak MiB", "recall", "by the formula", "precision", "in clusters")
    for side in ("datatrove", "ours"):
        each = found[side]
        table.add_row(
            side, f"{each['cpu_seconds']:.2f}", f"{each['mb_per_cpu_second']:.2f}", f"{each['peak_mb']:,.0f}", f"{each['recall']:.4f}",
            f"{each['expected']:.4f}", f"{each['precision']:.4f}", f"{each['clustered']:,}",
        )  # fmt: skip
    console.print(table)


def _show_paragraphs(console: Console, found: dict[str, Json]) -> None:
    title = f"Repeated paragraphs by Bloom filter, {found['megabytes']:.1f} MB, {found['documents']:,} documents"
    table = titled(title, "", "CPU-s", "MB per CPU-s", "peak MiB", "paragraphs removed", "bytes")
    for side in ("dolma", "ours"):
        each = found[side]
        table.add_row(
            side, f"{each['cpu_seconds']:.2f}", f"{each['mb_per_cpu_second']:.1f}", f"{each['peak_mb']:,.0f}", f"{each['spans']:,}",
            f"{each['bytes']:,}",
        )  # fmt: skip
    console.print(table)


def _show_whole(console: Console, found: dict[str, Json]) -> None:
    title = f"The whole program, {len(found['filters'])} filters and all deduplication: {found['megabytes']:.1f} MB of prose, one process"
    table = titled(title, "stage", "CPU-s", "MB per CPU-s")
    for stage, seconds in sorted(found["stages"].items(), key=lambda entry: -entry[1]):
        table.add_row(stage, f"{seconds:.2f}", f"{found['megabytes'] / max(seconds, 1e-3):,.1f}")
    table.add_row("prepare, tag and filter", "", f"{found['filtering_mb_per_cpu_second']:.2f}")
    table.add_row("the process tree", f"{found['whole']['cpu_seconds']:.1f}", f"{found['whole']['mb_per_cpu_second']:.2f}")
    console.print(table)
    console.print(f"  peak {found['whole']['largest_mb']:,.0f} MiB")


def _goals(results: dict[str, Json]) -> list[goals.Goal]:
    lines: list[goals.Goal] = []
    for name, compared in results["filters"].items():
        for filters, found in compared["sets"].items():
            lines.append((f"{filters}, {name}: times {found['peer']} as it comes", found["times"], TIMES_FILTER, True))
            lines.append((f"{filters}, {name}: times {found['peer']} with every rule", found["times_every_rule"], TIMES_FILTER, True))
            lines.append((f"{filters}, {name}: documents decided differently", found["decisions"]["different"], 0, False))
    for name, found in results["all"].items():
        lines.append((f"all filters, {name}: MB per CPU-second", found["mb_per_cpu_second"], ALL_MB_PER_CPU_SECOND, True))
    filtering = results["whole"]["filtering_mb_per_cpu_second"]
    lines.append(("filters of web pages, whole program: MB per CPU-second", filtering, ALL_MB_PER_CPU_SECOND, True))
    minhash = results["minhash"]
    lines.append(("MinHash, times datatrove", minhash["times"], TIMES_MINHASH, True))
    lines.append(("MinHash, recall beside datatrove's in standard errors (-2: chance)", minhash["standard_errors_ahead"], CHANCE, True))
    lines.append(("Bloom filter over paragraphs, times dolma", results["paragraphs"]["times"], TIMES_BLOOM, True))
    return lines


if __name__ == "__main__":
    try:
        main()
    except (PipelineError, peers.PeerUnavailable, peers.InstallFailed, measure.CommandFailed) as error:
        sys.exit(f"error: {error}")
