"""A store on object storage: `Store("s3://bucket/prefix")`, or any URL that fsspec opens.

Units are written on this machine, then uploaded: the outputs, each of which appears whole, and last of all `record.json`. A unit is
done if its record is there and the list of its folder shows every output with the recorded size; so nothing half uploaded counts.
What stages read is a copy in this machine's cache (cache.py), fetched once and checked against the recorded sha256. Units that this
machine computed are in its cache from the start.

Cost in requests: a unit published, one per output and one for the record (and one per 16 MiB of an output above 32 MiB); a unit
fetched, one per file; `find_all`, one per 1000 objects of the folders concerned, and one per record that this machine has not seen.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import duckdb

from pipeline import cache, lease
from pipeline.cache import Cache
from pipeline.errors import PipelineError
from pipeline.files import sha256_of, write_atomically
from pipeline.lease import Lease
from pipeline.objects import Entry, Objects
from pipeline.record_log import RecordLog
from pipeline.store import RECORD, UNIT_FILE, Store
from pipeline.unit import Artifact, Json, Record, Unit

SEEN = ".records"
TAGS = ".tags"  # of copies asked for by name: the tag of the object they are copies of
UPLOADS = 4  # files of one unit at a time


class ObjectStore(Store):
    """The verbs of Store on the objects below a URL. `root` is this machine's cache of it."""

    def __init__(self, place: Path | str) -> None:
        self.objects = Objects(str(place))
        digest = hashlib.sha256(self.objects.url.encode()).hexdigest()[:16]
        self.root = cache.folder() / digest
        self.cache = Cache(self.root, cache.bound())
        self._current_records: dict[str, dict[str, bytes]] = {}  # by name, of the groups of units that were asked for
        self._known_records: dict[str, dict[str, bytes]] = {}  # the same as this machine has seen them at any time

    @property
    def place(self) -> str:
        return self.objects.url

    @property
    def room(self) -> str:
        return f"free some space under {self.root}, or name a folder on a larger disk by TOKENMILL_CACHE, or lower TOKENMILL_CACHE_GB"

    def local(self, file: Artifact | str) -> Path:
        """A copy on this machine. A name of a unit's file stands for its Artifact; any other for the object as it is now."""
        if isinstance(file, str):
            if not (unit_file := UNIT_FILE.fullmatch(file)):
                return self._current(file)
            file = self._output(unit_file[1], unit_file[2])
        self.path(file.path)
        return self.cache.held(file.path, file.bytes) or self._fetched(file.path, file)

    def share(self, file: Path, sha256: str, name: str) -> str:
        shared = f"downloads/shared/{sha256}/{name.lstrip('/')}"
        if shared not in self.objects.listing(f"downloads/shared/{sha256}"):
            self.objects.upload(file, shared)
        return shared

    def url(self, relative: str) -> str:
        return f"{self.objects.url}/{relative}"

    def open(self, relative: str) -> BinaryIO:
        return self.objects.open(relative)

    def read(self, relative: str) -> bytes:
        return self.objects.read(relative)

    def write(self, relative: str, content: bytes) -> None:
        self.objects.write(relative, content)

    def mount(self, connection: duckdb.DuckDBPyConnection) -> None:
        from pipeline.copies import Copies

        connection.register_filesystem(Copies(self))

    def put(self, relative: str) -> None:
        self.objects.upload(self.path(relative), relative)

    def files(self, folder: str) -> dict[str, int]:
        return {name: entry.bytes for name, entry in sorted(self.objects.listing(folder).items())}

    def remove(self, folder: str) -> None:
        self.objects.remove([f"{folder}/{RECORD}"])
        self.objects.remove(self.objects.listing(folder))
        self.cache.forget(folder)
        self._current_records.pop(_group(folder), None)

    def _recorded(self, folder: str) -> bytes:
        """As the store has it; all records of the stage and source are looked at together, once."""
        name, group = f"{folder}/{RECORD}", _group(folder)
        if group not in self._current_records:
            listed = self.objects.listing(group).items()
            self._current_records[group] = self._records({name: entry for name, entry in listed if name.endswith(f"/{RECORD}")})
        records = self._current_records[group]
        if name not in records:
            records[name] = self.read(name)
        return records[name]

    def _output(self, folder: str, name: str) -> Artifact:
        """By the record as it was at any time, since a unit's does not change, and the file's bytes are held against it."""
        place, group = f"{folder}/{RECORD}", _group(folder)
        if group not in self._known_records:
            self._known_records[group] = {name: content for name, _, content in self._log(group)}
        known = self._known_records[group]
        if place not in known:
            known[place] = self.read(place)
        try:
            return Record.with_unit(known[place]).output(name)
        except KeyError as error:
            raise FileNotFoundError(self.url(f"{folder}/{name}")) from error
        except ValueError as error:
            raise PipelineError(f"{self.url(place)}: {error}; run make mix again") from error

    def find(self, unit: Unit) -> Record | None:
        return self._found([unit], self.objects.listing(unit.folder))[0]

    def find_all(self, units: Sequence[Unit]) -> list[Record | None]:
        listed: dict[str, Entry] = {}
        for folder in sorted({f"{unit.stage}/{unit.source}" for unit in units}):
            listed |= self.objects.listing(folder)
        return self._found(units, listed)

    def _found(self, units: Sequence[Unit], listed: dict[str, Entry]) -> list[Record | None]:
        """The units whose record is among the listed objects, with all outputs of the recorded sizes."""
        texts = self._records({name: listed[name] for unit in units if (name := f"{unit.folder}/{RECORD}") in listed})
        found: list[Record | None] = []
        for unit in units:
            try:
                record = Record.from_json(unit, texts[f"{unit.folder}/{RECORD}"])
            except (KeyError, ValueError):
                found.append(None)
                continue
            sizes = ((listed.get(artifact.path), artifact.bytes) for artifact in record.outputs)
            found.append(record if all(entry and entry.bytes == size for entry, size in sizes) else None)
        return found

    def _records(self, listed: dict[str, Entry]) -> dict[str, bytes]:
        """The contents of the listed records, from the log where it has the same object."""
        texts: dict[str, bytes] = {}
        for log, names in self._by_log(listed).items():
            known = {name: content for name, tag, content in log if name in names and listed[name].tag == tag}
            fetched = self.objects.read_all(names - known.keys())
            log.add((name, listed[name].tag, content) for name, content in fetched.items())
            texts |= known | fetched
        return texts

    def _by_log(self, names: Iterable[str]) -> dict[RecordLog, set[str]]:
        groups: dict[str, set[str]] = {}
        for name in names:
            groups.setdefault(_group(name), set()).add(name)
        return {self._log(group): found for group, found in groups.items()}

    def _log(self, group: str) -> RecordLog:
        return RecordLog(self.path(f"{SEEN}/{group}.jsonl"))

    @contextmanager
    def work_folder(self, unit: Unit) -> Iterator[Path]:
        """A folder on this machine, removed at the end."""
        with self.cache.aside(unit.key[:8]) as folder:
            folder.mkdir(parents=True)
            yield folder

    def publish(self, unit: Unit, folder: Path, counts: dict[str, Json]) -> Record:
        """Upload a work folder: hash, upload the outputs, then the record; the folder's files go into the cache."""
        paths = sorted(folder.iterdir())
        outputs = tuple(Artifact(f"{unit.folder}/{path.name}", sha256_of(path), path.stat().st_size) for path in paths)
        record = Record(unit, outputs, counts)
        with ThreadPoolExecutor(UPLOADS) as pool:
            list(pool.map(self.objects.upload, paths, (output.path for output in outputs)))
        self.objects.write(f"{unit.folder}/{RECORD}", record.to_json())
        self._current_records.pop(_group(unit.folder), None)
        for path, output in zip(paths, outputs, strict=True):
            self.cache.add(path, output.path)
        return record

    @contextmanager
    def lock(self, announce: Callable[[str], None]) -> Iterator[None]:
        with Lease(self.objects, announce, lease.SECONDS):
            self.cache.sweep()
            self.objects.abort_uploads(lease.NAME, lease.SECONDS)
            yield

    def _current(self, relative: str) -> Path:
        """A copy of the object as it is now."""
        self.path(relative)
        entry = self.objects.entry(relative)
        tag = self.path(f"{TAGS}/{relative}")
        path = self.cache.held(relative, entry.bytes)
        if path and tag.exists() and tag.read_text() == entry.tag:
            return path
        path = self._fetched(relative, None)
        write_atomically(tag, entry.tag.encode())
        return path

    def _fetched(self, relative: str, artifact: Artifact | None) -> Path:
        with self.cache.aside("fetched") as aside:
            for _ in range(2):
                aside.parent.mkdir(parents=True, exist_ok=True)
                self.objects.download(relative, aside)
                if artifact is None or (aside.stat().st_size == artifact.bytes and sha256_of(aside) == artifact.sha256):
                    return self.cache.add(aside, relative)
        folder = relative.rsplit("/", 1)[0]
        raise PipelineError(
            f"{self.url(relative)}: its bytes are not the recorded ones, twice; the object has changed since it was written: remove "
            f"{self.url(folder)} and run make mix again"
        )


def _group(name: str) -> str:
    """Stage and source, the folder that holds the unit's folder."""
    return "/".join(name.split("/")[:2])
