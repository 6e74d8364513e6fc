"""The store: the one place that knows paths.

    <root>/<stage>/<source>/<key>/…          outputs of a unit and, as `record.json`, what they must be
    <root>/downloads/<source>/…              raw files from packages or the hub
    <root>/mixes/<mix>.lock.json             a resolved mix: an index over shards
    <root>/tokenizers/<sha256>.json          the tokenizer.json that a lock names
    <root>/models/<run>/                     what training writes (trainer/run.py)
    <root>/runs/*.jsonl                      one line per unit computed: how long, how much
    <root>/catalog.duckdb                    views over all of it; can be deleted at any time

A unit's folder appears by one rename, whole and with its record; anything under a name that begins with `.tmp-` is
unfinished and is swept away when the next run takes the store's lock.
"""

import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.errors import PipelineError
from pipeline.files import fsync, sha256_of, write_atomically
from pipeline.unit import Artifact, Json, Record, Unit

if TYPE_CHECKING:
    import duckdb

RECORD = "record.json"
UNIT_FILE = re.compile(r"([^/]+/[^/]+/[0-9a-f]{32})/(?!record\.json$)([^/]+)")  # its unit's folder, and its name in it
ASIDE = ".tmp-"


class Store:
    """A folder of finished units. As pathlib.Path does, `Store(place)` gives what the place needs: for a URL an ObjectStore."""

    def __new__(cls, place: Path | str) -> "Store":
        if "://" in str(place) and not str(place).startswith("file://"):
            from pipeline.object_store import ObjectStore

            return super().__new__(ObjectStore)
        return super().__new__(cls)

    def __init__(self, place: Path | str) -> None:
        text = str(place)
        self.root = (Path(url2pathname(urlsplit(text).path)) if text.startswith("file://") else Path(place)).absolute()

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.place,)

    @property
    def place(self) -> str:
        """What opens this store again, in another process or on another machine."""
        return str(self.root)

    @property
    def room(self) -> str:
        """What to do when the disk under `root` is full."""
        return f"free some space under {self.root} or choose another STORE"

    def path(self, relative: str) -> Path:
        """Where a file of the store lies, or would lie, on this machine. Raises PipelineError for a name that leads out of the store."""
        if relative.startswith("/") or ".." in relative.split("/"):
            raise PipelineError(f"{relative!r} is no name in {self.place}")
        return self.root / relative

    def local(self, file: Artifact | str) -> Path:
        """A file of the store as one on this machine that can be read and mapped. An Artifact's bytes are the recorded ones."""
        return self.path(file if isinstance(file, str) else file.path)

    def share(self, file: Path, sha256: str, name: str) -> str:
        """Where every machine that works on the store finds a file of this one: a path that all have, or a name for `local`, which
        ends with `name`, the same one wherever the file lies."""
        return str(file.absolute())

    def url(self, relative: str) -> str:
        """The file as DuckDB names it in a view."""
        return str(self.path(relative))

    def mount(self, connection: "duckdb.DuckDBPyConnection") -> None:
        """Let a connection open what `url` names."""

    def open(self, relative: str) -> BinaryIO:
        """The file's bytes, read forwards. Raises FileNotFoundError."""
        return open(self.path(relative), "rb")

    def read(self, relative: str) -> bytes:
        """The whole of a small file. Raises FileNotFoundError."""
        return self.path(relative).read_bytes()

    def write(self, relative: str, content: bytes) -> None:
        """Replace a small file: whoever reads it sees the old one or the new one."""
        write_atomically(self.path(relative), content)

    def put(self, relative: str) -> None:
        """Make the file at `path(relative)` part of the store, for the workers on other machines."""

    def files(self, folder: str) -> dict[str, int]:
        """The finished files anywhere below a folder, relative to the store, with their bytes; {} when there is no such folder."""
        found = {}
        for place, inner, names in os.walk(self.path(folder)):  # which goes on where a folder vanishes meanwhile
            inner[:] = [name for name in inner if not name.startswith(ASIDE)]
            for path in (Path(place, name) for name in names if not name.startswith(ASIDE)):
                with suppress(FileNotFoundError):
                    found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def remove(self, place: str) -> None:
        """Remove a file, or a folder and all that is in it: its record first, so that a half-removed unit is not taken for done."""
        path = self.path(place)
        if path.is_dir():
            (path / RECORD).unlink(missing_ok=True)
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def find_all(self, units: Sequence[Unit]) -> list[Record | None]:
        """`find` for many units."""
        return [self.find(unit) for unit in units]

    def find(self, unit: Unit) -> Record | None:
        """The unit's record, if it is done: the record is there and every output has the recorded size.

        Sizes, not hashes, so that a finished mix is recognised in a moment; `verify` compares the hashes.
        """
        folder = self.path(unit.folder)
        try:
            record = Record.from_json(unit, (folder / RECORD).read_bytes())
            if all(self.path(artifact.path).stat().st_size == artifact.bytes for artifact in record.outputs):
                return record
        except (FileNotFoundError, ValueError):
            pass
        return None

    def record(self, folder: str) -> Record:
        """The record in a finished unit's folder. Raises PipelineError when there is none, or not as it was written."""
        try:
            return Record.with_unit(self._recorded(folder))
        except FileNotFoundError:
            raise PipelineError(f"{folder}/{RECORD}: missing; run make mix again") from None
        except (OSError, ValueError) as error:
            raise PipelineError(f"{folder}/{RECORD}: {error}; run make mix again") from error

    def _recorded(self, folder: str) -> bytes:
        return self.read(f"{folder}/{RECORD}")

    @contextmanager
    def work_folder(self, unit: Unit) -> Iterator[Path]:
        """A folder beside the unit's own, removed at the end unless it was published."""
        parent = self.path(unit.folder).parent
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{ASIDE}{unit.key[:8]}-", dir=parent))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, unit: Unit, folder: Path, counts: dict[str, Json]) -> Record:
        """Turn a work folder into the unit's finished folder: hash, fsync, write the record, rename."""
        names = sorted(entry.name for entry in folder.iterdir())
        outputs = []
        for name in names:
            path = folder / name
            fsync(path)
            outputs.append(Artifact(f"{unit.folder}/{name}", sha256_of(path), path.stat().st_size))
        record = Record(unit, tuple(outputs), counts)
        with open(folder / RECORD, "wb") as stream:
            stream.write(record.to_json())
            stream.flush()
            os.fsync(stream.fileno())
        fsync(folder)
        final = self.path(unit.folder)
        if final.exists() and self.find(unit) is None:
            shutil.rmtree(final)  # damaged: its record or an output does not match
        try:
            folder.rename(final)
        except OSError:
            # Another process finished the same unit first; its bytes are the same.
            if self.find(unit) is None:
                raise
        fsync(final.parent)
        return record

    @contextmanager
    def lock(self, announce: Callable[[str], None]) -> Iterator[None]:
        """Hold the store for one run at a time; a second run waits, after `announce(message)` told why.

        Taking the lock also removes what a killed run left unfinished, and a run that ends well removes what its own dead workers left.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ".lock", "a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                announce(f"another run (process {stream.read().strip() or '?'}) is writing to {self.root}; waiting for it")
                fcntl.flock(stream, fcntl.LOCK_EX)
            stream.truncate(0)
            stream.write(f"{os.getpid()} on {socket.gethostname()}")
            stream.flush()
            self._sweep()
            yield
            self._sweep()

    def _sweep(self) -> None:
        for orphan in [*self.root.glob(f"{ASIDE}*"), *self.root.glob(f"*/{ASIDE}*"), *self.root.glob(f"*/*/{ASIDE}*")]:
            while os.path.lexists(orphan):
                try:
                    shutil.rmtree(orphan) if orphan.is_dir() else orphan.unlink()
                except FileNotFoundError:
                    continue  # its own process, on its way out, removes it too
                except OSError as error:
                    raise PipelineError(f"cannot remove the unfinished {orphan}: {error}; remove it by hand") from error
