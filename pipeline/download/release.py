"""`DATA=<owner>/<name>[@<revision>]`: a mix that others built and released on the hub, as if it had been built here.

In: the data set at a commit; a revision that is none (by default `main`) is resolved when the mix is first read and stays that commit in
this store. Out: the same lock-file, the same units of shards and the tokenizer, each compared with the sha256 that the release lists;
the build manifest, in which every source says which release it came in; the catalog. An existing folder of that name is a folder.

Cost: one transfer of every file, hashed while it passes, and a second hash when its unit is published. Files that have come stay in
`downloads/parts/` until their unit is whole, so a killed process is gone on with. A mix that is whole asks no hub.

The release may be anyone's: names lead nowhere else (pipeline/release.py), its lock, books and records must agree with its list, and a
unit's folder must be the one that its record says. That its tokens are what its card says is for whoever takes it to believe.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline import catalog, disk
from pipeline.config import human
from pipeline.download import hub
from pipeline.download.release_files import AT_ONCE, ReleaseFiles
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.progress import Progress
from pipeline.release import MANIFEST, Books, Release
from pipeline.store import RECORD, Store
from pipeline.tokenizer import kept as kept_tokenizer
from pipeline.unfinished import Unfinished
from pipeline.unit import Artifact, Json, Record, sealed

ADDRESS = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96})(?:@([A-Za-z0-9_./-]{1,200}))?")
MAIN = "main"
MANIFEST_BYTES = 256 << 20  # of a release of a million files
T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """A data set on the hub, and the revision of it that was asked for."""

    repository: str
    revision: str

    def __str__(self) -> str:
        return self.repository if self.revision == MAIN else f"{self.repository}@{self.revision}"


def address(data: str, progress: Progress) -> Address | None:
    """Where on the hub `DATA` is, if that is what it says. That a folder of this name is here and taken instead is said."""
    match = ADDRESS.fullmatch(data)
    if not match:
        return None
    if Path(data).exists():
        progress.say(f"DATA={data} is a folder here; the data set of that name on the hub is not asked for")
        return None
    return Address(match[1], match[2] or MAIN)


def read(store: Store, mix: str, asked: Address, tokens: int | None, progress: Progress) -> Lock:
    """Make the store hold the mix as it was released; its lock. tokens: so many it must hold at least.

    Raises ConfigError for a release of another mix or of a shorter one, PipelineError where the hub refuses or a file is not what it
    must be.
    """
    with store.lock(progress.say), disk.explained(store.place, mix):
        before = _read_before(store, mix, asked)
        commit = str(before["release"]["commit"]) if before else None
        lock = _whole(store, mix, before) if before else None
        if not lock:
            return _Reading(store, asked, commit, progress).read(mix, tokens)
        catalog.write(store, mix, ())
    _check_length(lock, asked, tokens)
    progress.say(f"{mix} is here as {asked.repository}@{commit} has it; another commit: DATA={asked.repository}@<commit>")
    return lock


def _check_length(lock: Lock, asked: Address, tokens: int | None) -> None:
    held = lock.instances * lock.sequence_length
    if tokens and held < tokens:
        raise ConfigError(
            f"{asked} holds {human(held)} tokens of {lock.mix}, TOKENS asks for {human(tokens)}; a release is read as it is: leave TOKENS "
            "out, or build the mix from raw files"
        )


def _read_before(store: Store, mix: str, asked: Address) -> dict[str, Json] | None:
    """The build manifest of the store's mix, if it was read by the same address."""
    with suppress(PipelineError):
        manifest = catalog.read_manifest(store, mix)
        found = manifest.get("release", {})
        if (found.get("repository"), found.get("revision")) == (asked.repository, asked.revision):
            return manifest
    return None


def _whole(store: Store, mix: str, manifest: Mapping[str, Json]) -> Lock | None:
    """The mix's lock, if all that the release brought is in the store."""
    folders = {folder for source in manifest["sources"].values() for folder in source["units"]["shards"]}
    try:
        lock = Lock.read(store.local(f"mixes/{mix}.lock.json"))
        units = [store.record(folder).unit for folder in sorted(folders | set(_folders(lock)))]
        here = all(store.find_all(units)) and kept_tokenizer(lock.tokenizer.sha256) in store.files("tokenizers")
    except (PipelineError, FileNotFoundError):
        return None
    return lock if here else None


def _shards(lock: Lock) -> dict[str, str]:
    """The sha256 of every shard that a lock names."""
    return {shard.path: shard.sha256 for source in lock.sources for shard in (*source.shards, *source.validation)}


def _folders(lock: Lock) -> list[str]:
    return sorted({path.rpartition("/")[0] for path in _shards(lock)})


class _Reading:
    """A release on its way into a store that is locked. commit: None for the one that the address is now."""

    def __init__(self, store: Store, asked: Address, commit: str | None, progress: Progress) -> None:
        self.store, self.asked, self.progress = store, asked, progress
        if not commit:
            with self._asking(asked.revision):
                commit = hub.commit_of(asked.repository, asked.revision)
        self.files = ReleaseFiles(store, asked.repository, commit)

    def read(self, mix: str, tokens: int | None) -> Lock:
        release = self._accepted(Release.from_json, self._list())
        if release.mix != mix:
            raise ConfigError(f"{self.asked} is a release of the mix {release.mix}, not of {mix}; say MIX={release.mix}")
        content = self.files.content(release.lock)
        lock = self._accepted(partial(Lock.from_json, where=release.lock.path), content)
        books = self._accepted(Books.from_json, self.files.content(release.build))
        self._check(release, lock, books)
        _check_length(lock, self.asked, tokens)
        commit = self.files.commit
        given = "" if self.asked.revision == commit else f"; its {self.asked.revision} is commit {commit} from now on"
        self.progress.say(f"{mix}: {len(release.files)} files, {release.size / 1e9:.3g} GB, of {self.asked.repository}{given}")
        claims = Unfinished(self.store, mix, {"release": str(self.files)})
        self._take_units(release, claims)
        tokenizer = release.file(kept_tokenizer(lock.tokenizer.sha256))
        self.store.write(tokenizer.path, self.files.content(tokenizer))
        self.store.write(release.lock.path, content)
        self.store.write(release.build.path, sealed(self._manifest(books)))
        claims.end()
        catalog.write(self.store, mix, ())
        return lock

    def _list(self) -> bytes:
        """The release.json."""
        from huggingface_hub import HfApi

        with self._asking(self.files.commit):
            found = HfApi().get_paths_info(self.files.repository, MANIFEST, repo_type="dataset", revision=self.files.commit)
        if not found:
            raise PipelineError(
                f"{self.files} holds no {MANIFEST}: it is no release, or its push has not ended; to build a mix from raw files, give "
                "DATA=<folder> or DATA=hub"
            )
        file = Artifact(MANIFEST, hub.stated(found[0]), int(found[0].size))  # type: ignore[union-attr]
        if file.bytes > MANIFEST_BYTES:
            raise self._error(f"its {MANIFEST} has {file.bytes:,} bytes, this program reads {MANIFEST_BYTES:,}")
        return self.files.content(file)

    def _check(self, release: Release, lock: Lock, books: Books) -> None:
        """List, lock and books must be about the same mix, and nothing that the lock reads may be missing from the list."""
        listed = {file.path: file.sha256 for file in release.files}
        if unlisted := [path for path, digest in _shards(lock).items() if listed.get(path) != digest]:
            raise self._error(f"its list has not the {unlisted[0]} that its lock reads")
        if not (lock.mix == release.mix == books.mix and lock.fingerprint == release.fingerprint):
            raise self._error("its list, its lock and its books are about different mixes")
        if {source.name for source in lock.sources} != books.sources.keys():
            raise self._error("its lock and its books name different sources")
        known = {folder for source in books.sources.values() for folder in source.units["shards"]}
        if not set(_folders(lock)) <= known or known != release.units().keys():
            raise self._error("its list, its lock and its books name different units")

    def _take_units(self, release: Release, claims: Unfinished) -> None:
        """Fetch the units that the store has not, or not whole."""
        records = sorted(self.files.each(self._record, list(release.units().items())), key=lambda record: record.unit.folder)
        found = self.store.find_all([record.unit for record in records])
        missing = [record for record, here in zip(records, found, strict=True) if here != record]
        claims.claim("shards", [record.unit for record in records], missing=bool(missing))
        if not missing:
            return
        files = [file for record in missing for file in record.outputs]
        self._check_room([sum(file.bytes for file in record.outputs) for record in missing], self.files.arrived(files))
        with self.progress.stage("download", len(files), sum(file.bytes for file in files), lambda: self.files.arrived(files)) as bar:
            for record in self.files.each(self._publish, missing):
                bar.advance(sum(file.bytes for file in record.outputs), len(record.outputs))

    def _record(self, unit: tuple[str, dict[str, Artifact]]) -> Record:
        """The record of a unit, given its folder and the files that are listed there."""
        folder, files = unit
        if RECORD not in files:
            raise self._error(f"its list has no record of {folder}")
        record = self._accepted(Record.with_unit, self.files.content(files[RECORD]))
        outputs = {file for name, file in files.items() if name != RECORD}
        if record.unit.folder != folder or set(record.outputs) != outputs:
            raise self._error(f"the record of {folder} is not of the files that are listed there")
        return record

    def _publish(self, record: Record) -> Record:
        parts = [self.files.fetched(file) for file in record.outputs]
        with self.store.work_folder(record.unit) as folder:
            for part, file in zip(parts, record.outputs, strict=True):
                os.replace(part, folder / file.path.rpartition("/")[2])
            if self.store.publish(record.unit, folder, dict(record.counts)) != record:
                raise self._error(f"the record of {record.unit.folder} is not of its files")
        return record

    def _check_room(self, sizes: list[int], arrived: int) -> None:
        """For all that is missing; with a store elsewhere, for what is on its way at a time."""
        size = sum(sorted(sizes)[-AT_ONCE:]) if "://" in self.store.place else sum(sizes) - arrived
        self.store.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.store.root).free
        if size > free:
            raise PipelineError(f"{size / 1e9:.1f} GB to download and {free / 1e9:.1f} GB free under {self.store.root}; {self.store.room}")

    def _manifest(self, books: Books) -> dict[str, Json]:
        """The build manifest of the mix in this store."""
        fields = books.model_dump(mode="json")
        for source in fields["sources"].values():
            source["release"] = str(self.files)
        order = catalog.next_order(self.store, books.mix)
        origin = {"repository": self.asked.repository, "revision": self.asked.revision, "commit": self.files.commit}
        return {**fields, "order": order, "data": str(self.files), "release": origin}

    def _asking(self, revision: str) -> AbstractContextManager[None]:
        name = f"DATA={self.asked}, which is no folder here"
        return hub.explained(name, self.asked.repository, revision, remedy="give another")

    def _accepted(self, parse: Callable[[bytes], T], content: bytes) -> T:
        """What a file of the release says; what is wrong with it is an error of the release."""
        try:
            return parse(content)
        except (ValueError, PipelineError) as error:
            raise self._error(str(error)) from error

    def _error(self, what: str) -> PipelineError:
        return PipelineError(f"{self.files}: {what}; whoever released it must push it again")
