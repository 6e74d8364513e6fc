"""`make plan`: what a mix from the hub would take, before anything of it is downloaded.

In: a recipe, a length of training, a number of machines like this one. Out: per source the files that would be downloaded, their bytes,
the tokens to expect of them; hours by stage on this machine and on all of them; disk by what lies on it, and whether that is free. The
hub is asked for lists of files, nothing else; the store keeps them for the download to come.

Times are those measured in the store, for a source of which it has read enough, else those of the benchmark (rates.py says when). Text,
documents and tokens are those that a source's publisher states, in proportion to the listed bytes. The network's speed is measured where
the store has downloaded from the hub, else assumed. It is said which.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from rich.console import Console

from pipeline.config import human, parse_count
from pipeline.download import hub
from pipeline.errors import ConfigError, PipelineError
from pipeline.mix import plan as resolve
from pipeline.recipe import MIXES, Mix, load_mix
from pipeline.rules import load_rules
from pipeline.stages import dedupe
from pipeline.store import Store
from pipeline.terminal import console as make_console
from pipeline.terminal import messages, titled
from tools import rates
from tools.estimate import Load, Work, hours, work

ASSUMED_MB_PER_SECOND = 100.0  # of a machine's network: a little less than 1 Gbit/s
DISK = {
    "raw files": None, "documents": ("read",), "token ids and their tables": ("tokenize",),
    "attributes and decisions": ("prepare", "tag", "filter", "hold out", "dedupe", "bands", "cluster", "paragraphs", "edit", "decide"),
    "shards": ("gather",),
}  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A source's files on the hub: how many there are, and of these the bytes of each that the mix takes."""

    files: int
    chosen: Sequence[int]
    share: float  # of the listed bytes


@dataclass(frozen=True)
class Plan:
    """listed, works: by source. measured: the sources whose rates are the store's own. stream: MB/s of one download, if measured."""

    mix: Mix
    tokens: int | None
    listed: Mapping[str, Listed]
    works: Mapping[str, Work]
    measured: frozenset[str]
    bench: rates.Bench
    wall_per_cpu: float
    stream: float | None

    @property
    def raw_bytes(self) -> int:
        return sum(sum(listed.chosen) for listed in self.listed.values())

    def hours(self, nodes: int, cores: int) -> dict[str, float]:
        """By stage, on so many machines of so many cores."""
        download = self.raw_bytes / 1e6 / self.network(cores) / nodes / 3600
        return {"download": download, **hours(list(self.works.values()), nodes * cores, self.wall_per_cpu)}

    def network(self, cores: int) -> float:
        """MB/s of a machine, each of whose cores downloads a file."""
        return ASSUMED_MB_PER_SECOND if self.stream is None else self.stream * cores

    def disk(self) -> dict[str, float]:
        """Bytes, by what they are."""
        parts = {name: sum(w.disk.get(s, 0) for w in self.works.values() for s in stages or ()) for name, stages in DISK.items()}
        return {**parts, "raw files": float(self.raw_bytes)}


def plan(name: str, tokens: int | None, store: Store, recipes: Path = MIXES) -> Plan:
    """Lists the hub. Raises PipelineError when it cannot be listed, ConfigError when a source has no place on it."""
    mix = load_mix(name, recipes)
    bench, own = rates.newest(), rates.of_store(store, name)
    per_document = {dedupe.STAGE.name: bench.large["dedupe"]["cpu_seconds"] / bench.large["dedupe"]["documents"]}
    listed, works = {}, {}
    for source_name, share in mix.shares.items():
        source, rules = load_rules(source_name, recipes)
        _, published = hub.declared(source)
        listing = hub.listing(source, store)
        chosen = [file.size for file in listing.select(None if tokens is None else ceil(tokens * share), published)]
        part = sum(chosen) / max(listing.bytes, 1)
        listed[source_name] = Listed(len(listing.files), chosen, part)
        load = Load(source, rules, chosen, published.bytes * part, published.documents * part, published.tokens * part)
        works[source_name] = work(load, own.get(source_name) or bench.of(source_name), per_document)
    used = [own.get(source) or bench.of(source) for source in works]
    measured, wall_per_cpu = frozenset(own.keys() & works.keys()), max(each.wall_per_cpu for each in used)
    return Plan(mix, tokens, listed, works, measured, bench, wall_per_cpu, rates.download_speed(store))


def show(found: Plan, store: Store, nodes: int, cores: int, out: Console) -> None:
    """The tables of a plan."""
    _show_sources(found, out)
    _show_hours(found, nodes, cores, out)
    _show_disk(found, store, out)
    _show_supply(found, out)
    own = ", ".join(sorted(found.measured))
    others = [name for name in found.works if name not in found.measured]
    machine, path = found.bench.machine, _shown(found.bench.path)
    if own:
        out.print(f"rates: of {own} what this store's runs took", markup=False)
    if others:
        out.print(f"rates: of {', '.join(others)} the benchmark's, {path}, taken on {machine['cores']} cores of {machine['system']}")
    known = "assumed, for nothing was downloaded here yet" if found.stream is None else "as this store's downloads had"
    out.print(f"network: {found.network(cores):.0f} MB/s a machine, {known}")
    if missing := sorted({stage for one in found.works.values() for stage in one.unmeasured}):
        out.print(f"not in it, for nobody has measured them here: {', '.join(missing)}", style="yellow")


def _show_sources(found: Plan, out: Console) -> None:
    wanted = "the whole recipe" if found.tokens is None else f"{human(found.tokens)} tokens of training"
    table = titled(
        f"{found.mix.name}: what {wanted} would download",
        "source",
        "files",
        "of",
        "GB",
        "text GB",
        "documents",
        "tokens to expect",
        "units",
    )
    for name, one in found.works.items():
        listed, load = found.listed[name], one.load
        table.add_row(
            name, f"{len(listed.chosen):,}", f"{listed.files:,}", f"{sum(listed.chosen) / 1e9:,.1f}", f"{load.bytes / 1e9:,.1f}",
            f"{load.documents:,.0f}", _count(load.tokens), f"{sum(one.units.values()):,}",
        )  # fmt: skip
    works = found.works.values()
    table.add_row(
        "together", f"{sum(len(one.chosen) for one in found.listed.values()):,}", f"{sum(one.files for one in found.listed.values()):,}",
        f"{found.raw_bytes / 1e9:,.1f}", f"{sum(w.load.bytes for w in works) / 1e9:,.1f}", f"{sum(w.load.documents for w in works):,.0f}",
        _count(sum(w.load.tokens for w in works)), f"{sum(sum(w.units.values()) for w in works):,}",
    )  # fmt: skip
    out.print(table)
    out.print()


def _show_hours(found: Plan, nodes: int, cores: int, out: Console) -> None:
    here, there = found.hours(1, cores), found.hours(nodes, cores)
    several = [f"{nodes} nodes of {cores} cores"] if nodes > 1 else []
    table = titled("Hours", "stage", "CPU hours", f"here, {cores} cores", *several)
    for stage in here:
        cpu = sum(one.cpu_seconds.get(stage, 0) for one in found.works.values()) / 3600
        table.add_row(stage, _hours(cpu) if cpu else "–", _hours(here[stage]), *([_hours(there[stage])] if several else []))
    cpu = sum(sum(one.cpu_seconds.values()) for one in found.works.values()) / 3600
    table.add_row("together", _hours(cpu), _hours(sum(here.values())), *([_hours(sum(there.values()))] if several else []))
    out.print(table)
    out.print()


def _show_disk(found: Plan, store: Store, out: Console) -> None:
    disk = found.disk()
    table = titled("Disk of the store", "", "GB")
    for name, size in [*disk.items(), ("together", sum(disk.values()))]:
        table.add_row(name, f"{size / 1e9:,.2f}")
    out.print(table)
    if "://" not in store.place:
        free = shutil.disk_usage(_existing(store.root)).free
        enough = free > sum(disk.values())
        verdict = "enough" if enough else "too little; take another STORE, lower TOKENS, or say STREAM=1 to keep no raw files"
        out.print(f"free under {store.root}: {free / 1e9:,.1f} GB, {verdict}", style="" if enough else "yellow", markup=False)
    out.print()


def _show_supply(found: Plan, out: Console) -> None:
    """Whether the tokens to expect are enough for the training that was asked for, before filters take theirs."""
    supply = {name: int(one.load.tokens) // found.mix.sequence_length for name, one in found.works.items()}
    try:
        resolved = resolve(found.mix, supply, found.tokens)
    except ConfigError as error:
        out.print(f"as published, before this recipe's filters and duplicates: {error}", style="yellow", markup=False)
        return
    most = max(resolved.sources, key=lambda source: source.repeats)
    repeats = f"at most {float(most.repeats):.2f} times ({most.name})" if most.repeats > Fraction(1) else "once at most"
    length = human(resolved.instances * found.mix.sequence_length)
    out.print(f"that supplies a run of {length} tokens, each instance read {repeats}, before this recipe's filters and duplicates")


def _count(number: float) -> str:
    return human(round(number)) if number >= 1e6 else f"{number:,.0f}"


def _hours(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.2f}"


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _shown(path: Path) -> str:
    return str(path.relative_to(rates.ROOT)) if path.is_relative_to(rates.ROOT) else str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mix", default="olmoe-mix")
    parser.add_argument("--tokens", default="", help="length of the training run, such as 10B; default: all files of the recipe's sources")
    parser.add_argument("--nodes", type=int, default=1, help="machines like this one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cores of each")
    parser.add_argument("--store", default="data")
    parser.add_argument("--recipes", type=Path, default=MIXES)
    options = parser.parse_args()
    store = Store(options.store)
    tokens = parse_count(options.tokens, "TOKENS") if options.tokens else None
    show(plan(options.mix, tokens, store, options.recipes), store, options.nodes, options.workers, make_console())


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        messages().print(f"error: {error}", markup=False, style="red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
