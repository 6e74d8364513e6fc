"""What a release of a mix consists of.

In: the store that the mix was built in, or read into. Out: Contents: the files of the units of shards, by the sha256 that their records
state, and the small ones: lock-file and tokenizer as they lie there, books and list made for the release, its papers. Equal mixes give
equal releases, but for what stages cost and the papers. Cost: a small read per unit; no shard is opened.

The books go out without the names of this machine's folders: of a folder's raw files what follows it, of the folder nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePath

from pipeline import catalog
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.release import MANIFEST, Books, Cost, Release, SourceBooks
from pipeline.store import RECORD, Store
from pipeline.tokenizer import kept as kept_tokenizer
from pipeline.unit import Artifact, Json

FOLDER = "a folder"


@dataclass(frozen=True)
class Contents:
    """release: its list. small: the contents of all that is no file of a unit, the list and the papers among them, by path."""

    release: Release
    small: Mapping[str, bytes]

    @property
    def files(self) -> list[Artifact]:
        """All that the data set must hold: what the release lists, then the list and the papers."""
        listed = {file.path for file in self.release.files}
        return [*self.release.files, *(_file(path, content) for path, content in self.small.items() if path not in listed)]

    def content(self, store: Store, file: Artifact) -> bytes:
        return self.small[file.path] if file.path in self.small else store.read(file.path)


def contents(store: Store, mix: str, repository: str, papers: Mapping[str, bytes]) -> Contents:
    """papers: the card and what goes with it, by path. Raises ConfigError for a mix that is not built in the store, PipelineError where
    its files are not what they should be."""
    manifest = catalog.read_manifest(store, mix)
    places = {"lock": f"mixes/{mix}.lock.json", "build": f"mixes/{mix}.build.json"}
    small = {places["lock"]: _read(store, places["lock"], mix)}
    lock = Lock.from_json(small[places["lock"]], places["lock"])
    units = [file for source in manifest["sources"].values() for folder in source["units"]["shards"] for file in _unit(store, folder)]
    _check(lock, units)
    tokenizer = kept_tokenizer(lock.tokenizer.sha256)
    small[tokenizer] = _read(store, tokenizer, mix)
    if sha256(small[tokenizer]).hexdigest() != lock.tokenizer.sha256:
        raise PipelineError(f"{tokenizer}: its bytes have changed since it was written; run make mix MIX={mix} again")
    small[places["build"]] = _books(store, manifest, repository).to_json()
    listed = [*units, *(_file(path, content) for path, content in small.items())]
    release = Release(mix, lock.fingerprint, tuple(sorted(listed, key=lambda file: file.path)))
    return Contents(release, {**small, **papers, MANIFEST: release.to_json()})


def _unit(store: Store, folder: str) -> list[Artifact]:
    record = store.record(folder)
    return [*record.outputs, _file(f"{folder}/{RECORD}", record.to_json())]


def _check(lock: Lock, files: list[Artifact]) -> None:
    known = {file.path: file.sha256 for file in files}
    for source in lock.sources:
        for shard in (*source.shards, *source.validation):
            if known.get(shard.path) != shard.sha256:
                raise PipelineError(
                    f"{shard.path}: the lock-file of {lock.mix} reads other bytes than its unit's record has, or none; "
                    f"run make verify MIX={lock.mix}"
                )


def _books(store: Store, manifest: dict[str, Json], repository: str) -> Books:
    """The build manifest without what does not go along, and with what stages cost."""
    costs = catalog.costs(store, manifest["sources"])
    data = str(manifest["data"])
    is_folder = data not in ("sample", "hub") and "://" not in data and "release" not in manifest
    sources = {}
    for name, source in manifest["sources"].items():
        fields = {key: source[key] for key in SourceBooks.model_fields.keys() - {"units", "release", "costs", "taggers", "first_part"}}
        if is_folder:
            fields["origin"] = [FOLDER]
            fields["raw"] = [[_within(path, data), *facts] for path, *facts in source["raw"]]
        sources[name] = SourceBooks(
            **fields,
            units={"shards": source["units"]["shards"]},
            taggers=source.get("taggers", ()),
            first_part=source.get("first_part", 0),
            release=repository,
            costs=tuple(Cost(**cost) for cost in costs[name]),
        )
    return Books(mix=manifest["mix"], order=0, data=FOLDER if is_folder else data, sources=sources)


def _within(path: str, folder: str) -> str:
    place = PurePath(path)
    return str(place.relative_to(folder)) if place.is_relative_to(folder) else place.name


def _read(store: Store, place: str, mix: str) -> bytes:
    try:
        return store.read(place)
    except FileNotFoundError:
        raise ConfigError(f"{place} is not in {store.place}; run make mix MIX={mix}") from None


def _file(path: str, content: bytes) -> Artifact:
    return Artifact(path, sha256(content).hexdigest(), len(content))
