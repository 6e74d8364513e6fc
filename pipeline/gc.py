"""`make gc`: what lies in the store and nothing needs any longer; `make gc REMOVE=1` removes it.

Needed is what a built mix rests on (`mixes/<mix>.build.json`), what a lock-file reads (of mixes, and of runs under `models/`, which go
on with the lock they began with), and what a build that has not ended asked for (unfinished.py). A download is needed as long as a
recipe names its package or its source, a built mix read it, or a build has not ended, which may still want it; a tokenizer as
long as a lock names it. The rest is garbage: outputs of older rules and versions, of mixes given up by deleting their two files,
attributes that only a preview wanted. `models/`, `runs/` and whatever this program did not make are never touched.

In: the store. Out: a Survey; `collect` also removes its garbage, under the store's lock, so that no build runs meanwhile. Cost: a listing
of the store and its manifests; no data is read. A manifest that cannot be read stops it before anything is removed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from pipeline import catalog
from pipeline.config import Value, read_yaml
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.recipe import MIXES
from pipeline.store import Store
from pipeline.terminal import titled
from pipeline.unfinished import SUFFIX
from pipeline.unit import Json, unsealed

STAGES = tuple(dict.fromkeys(stage.output for stage in catalog.STAGES))


@dataclass(frozen=True)
class Item:
    """What is kept or removed as one: the folder of a unit, a download, a tokenizer. place: relative to the store. kind: its
    stage, `downloads` or `tokenizers`. cpu_seconds: what computing it cost, as far as a journal tells."""

    place: str
    kind: str
    bytes: int
    cpu_seconds: float


@dataclass(frozen=True)
class Survey:
    needed: list[Item]
    garbage: list[Item]
    unfinished: list[str]  # the builds that have not ended, by the names of their claims


def collect(store: Store, recipes: Path, progress: Progress) -> Survey:
    """Remove what is needed no longer; returns what that was. Waits for a run that holds the store. Raises as `survey`."""
    survey(store, recipes)  # refuse before waiting
    with store.lock(progress.say):
        found = survey(store, recipes)
        if found.garbage:
            with progress.stage("remove", len(found.garbage), sum(item.bytes for item in found.garbage)) as bar:
                for item in found.garbage:
                    store.remove(item.place)
                    bar.advance(item.bytes)
    return found


def survey(store: Store, recipes: Path = MIXES) -> Survey:
    """What is needed and what is not. Raises ConfigError where nothing was built, PipelineError for a manifest that is damaged."""
    needs = _needs(store)
    costs = _costs(store)
    found = Survey([], [], sorted(needs.unfinished))

    def add(kind: str, place: str, size: int, needed: bool) -> None:
        (found.needed if needed else found.garbage).append(Item(place, kind, size, costs.get(place, 0.0)))

    for stage in STAGES:
        for place, size in _sizes(store, stage, depth=3).items():
            add(stage, place, size, place in needs.folders or needs.reads(store.path(place)))
    named = _named(MIXES) | _named(recipes)
    for place, size in _sizes(store, "downloads", depth=3).items():
        read = any(raw == place or raw.startswith(f"{place}/") for raw in needs.raw)
        add("downloads", place, size, bool(needs.unfinished) or read or not named.isdisjoint(_names_of(place)))
    for place, size in _sizes(store, "tokenizers", depth=2).items():
        add("tokenizers", place, size, bool(needs.unfinished) or Path(place).stem in needs.tokenizers)
    return found


def show(found: Survey, console: Console, removed: bool) -> None:
    """A row per stage, and what to do next."""
    table = titled(
        "Removed" if removed else "What the store holds and needs",
        "", "needed", "MB", "removed" if removed else "not needed", "MB", "CPU-s to make again",
    )  # fmt: skip
    for kind in (*STAGES, "downloads", "tokenizers", "all"):
        kept, gone = ([item for item in items if kind in (item.kind, "all")] for items in (found.needed, found.garbage))
        if kept or gone:
            cost = sum(item.cpu_seconds for item in gone)
            table.add_row(kind, *(text for items in (kept, gone) for text in (f"{len(items):,}", _megabytes(items))), f"{cost:,.1f}")
    console.print(table)
    if found.unfinished:
        console.print(
            f"not ended: {', '.join(found.unfinished)}; all that these builds asked for is kept, and every download, until they end "
            f"(or mixes/*{SUFFIX} is deleted)"
        )
    if found.garbage and not removed:
        console.print("Next: make gc REMOVE=1")


def _megabytes(items: list[Item]) -> str:
    return f"{sum(item.bytes for item in items) / 1e6:,.1f}"


@dataclass
class _Needs:
    """folders: of units. tokenizers: their sha256. raw: the files that built mixes read, relative to the store where they lie in
    it. patterns: the token files of runs that read files instead of a mix."""

    folders: set[str] = field(default_factory=set)
    tokenizers: set[str] = field(default_factory=set)
    raw: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)

    def reads(self, folder: Path) -> bool:
        return any(fnmatch(str(folder), str(Path(pattern).absolute().parent)) for pattern in self.patterns)


def _needs(store: Store) -> _Needs:
    needs = _Needs()
    mixes = store.files("mixes")
    if not mixes:
        raise ConfigError(f"nothing has been built under {store.place}; give another STORE")
    for place in mixes:
        if place.endswith(".build.json"):
            for source in _json(store, place)["sources"].values():
                needs.folders.update(folder for folders in source["units"].values() for folder in folders)
                needs.raw.update(_relative(store, path) for path, *_ in source["raw"])
        elif place.endswith(".lock.json"):
            _read_lock(_json(store, place), needs)
        elif place.count("/") == 2 and place.split("/")[1].endswith(SUFFIX):
            needs.folders.update(_json(store, place))
            needs.unfinished.add(place.split("/")[1].removesuffix(SUFFIX))
    for place in store.files("models"):
        if place.count("/") == 2 and place.endswith("/mix.lock.json"):
            _read_lock(_json(store, place), needs)
        elif place.count("/") == 2 and place.endswith("/run.json"):
            mix = _json(store, place)["mix"]
            if set(mix) & set("/*?["):
                needs.patterns.add(mix)
    return needs


def _read_lock(lock: Json, needs: _Needs) -> None:
    needs.tokenizers.add(lock["tokenizer"]["sha256"])
    for source in lock["sources"]:
        needs.folders.update(shard["path"].rsplit("/", 1)[0] for shard in [*source["shards"], *source["validation"]])


def _json(store: Store, place: str) -> Json:
    try:
        content = store.read(place)
        return unsealed(content) if place.endswith(".build.json") else json.loads(content)
    except ValueError as error:
        raise PipelineError(
            f"{place} under {store.place} cannot be read ({error}), so what it needs is not known, and nothing is removed; "
            "run the make mix again that wrote it, or delete it to give up what it needs"
        ) from error


def _relative(store: Store, path: str) -> str:
    return path.removeprefix(f"{store.root}/")


def _sizes(store: Store, folder: str, depth: int) -> dict[str, int]:
    """Bytes below a folder, by the first `depth` parts of the path: of a unit, stage/source/key."""
    sizes: dict[str, int] = {}
    for file, size in store.files(folder).items():
        place = "/".join(file.split("/")[:depth])
        sizes[place] = sizes.get(place, 0) + size
    return sizes


def _costs(store: Store) -> dict[str, float]:
    """CPU seconds per unit's folder, as the journals tell; a task's are divided among its units."""
    costs: dict[str, float] = {}
    for journal in store.files("runs"):
        for text in store.read(journal).splitlines():
            try:
                line = json.loads(text)
                costs |= {f"{line['stage']}/{line['source']}/{key}": line["cpu_seconds"] / len(line["units"]) for key in line["units"]}
            except (ValueError, KeyError, TypeError):
                continue  # the driver was killed while it wrote this line
    return costs


def _names_of(download: str) -> set[str]:
    """What a recipe would call it: downloads/packages/<file>, /hub/<source>, /folder/<source>.json, /attributes/<attribute>-<role>.json."""
    name = download.split("/")[2]
    stem = name.removesuffix(".json")
    return {name, stem, stem.rpartition("-")[0]}


def _named(recipes: Path) -> set[str]:
    """What the recipes of a folder declare: sources, tokenizers and attributes by name, archives of packages by file name."""
    return {name for path in recipes.rglob("*.yaml") for name in _declared(read_yaml(path).value)}


def _declared(value: Value) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _declared(item)
    elif isinstance(value, dict):
        yield from value.get("attributes") or ()
        for key, item in value.items():
            if key in ("name", "file") and isinstance(item, str):
                yield item
            else:
                yield from _declared(item)
