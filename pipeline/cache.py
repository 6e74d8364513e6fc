"""The copies on this machine of what an object store holds: a bounded folder that all processes of the machine share.

In: whole, checked files. Out: their paths, readable and mappable until the process that asked is through with its store. A copy is a
file without write permission; what else lies in the folder (a unit being written, a download not uploaded yet) is never evicted.

A file that was handed out is not evicted while it may still be opened: whoever asks for one writes its name into a file of its own
under `.held/` first, and keeps that file locked (flock) for as long as its Cache lives. Locks end with their process, however that
ends. The bound is on everything else: what running work holds at one time may exceed it.

Cost: a lock, a line and an utime per file handed out; when the bound is reached, one walk over the folder, and the least recently used
copies go until a tenth is free.
"""

import fcntl
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pipeline.errors import ConfigError
from pipeline.files import fsync

HELD = ".held"
ROOM = ".room"  # bytes that may still be added before the folder is looked through
ASIDE = ".tmp-"
DEFAULT_GB = 50.0


def folder() -> Path:
    """Where the caches of all stores lie: TOKENMILL_CACHE, or ~/.cache/tokenmill/stores."""
    return Path(os.environ.get("TOKENMILL_CACHE") or Path.home() / ".cache/tokenmill/stores").absolute()


def bound() -> int:
    """Bytes of the cache of one store: TOKENMILL_CACHE_GB, or 50 GB. Raises ConfigError."""
    given = os.environ.get("TOKENMILL_CACHE_GB", "")
    try:
        return int(float(given or DEFAULT_GB) * 1e9)
    except ValueError:
        raise ConfigError(f"TOKENMILL_CACHE_GB={given}: not a number of gigabytes") from None


class Cache:
    """One process's hold on the shared folder."""

    def __init__(self, root: Path, bound: int) -> None:
        self.root, self.bound = root, bound
        self.session = secrets.token_hex(4)
        self._held: TextIO | None = None

    def held(self, relative: str, size: int | None = None) -> Path | None:
        """The copy of a file, which now stays; None when there is none (of that size)."""
        path = self.root / relative
        with self._locked(fcntl.LOCK_SH):
            self._note(relative)
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            if size is not None and found.st_size != size:
                return None
        os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
        return path

    @contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """A path for a file or folder being made, which is gone at the end if it still lies there."""
        with self._locked(fcntl.LOCK_SH):
            self._note("")
        path = self.root / f"{ASIDE}{self.session}-{secrets.token_hex(4)}-{name}"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def add(self, aside: Path, relative: str) -> Path:
        """Make a whole file the copy of `relative`, in one step; it stays while this Cache lives."""
        size = aside.stat().st_size
        aside.chmod(0o444)
        fsync(aside)
        with self._locked(fcntl.LOCK_EX) as room:
            self._note(relative)
            left = int(room.read() or self.bound) - size
            if left < 0:
                left = max(self.bound - size - self._evict(self.bound * 9 // 10 - size), self.bound // 16)
            room.seek(0)
            room.truncate()
            room.write(str(left))
        path = self.root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, path)
        return path

    def forget(self, relative: str) -> None:
        """Remove the copies of a file or of all in a folder."""
        path = self.root / relative
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what processes that have ended left half made."""
        if not self.root.exists():
            return
        with self._locked(fcntl.LOCK_EX):
            alive = {self.session, *(session for session, _ in self._sessions())}
        for orphan in self.root.glob(f"{ASIDE}????????-*"):
            if orphan.name[len(ASIDE) :].split("-")[0] not in alive:
                shutil.rmtree(orphan, ignore_errors=True) if orphan.is_dir() else orphan.unlink(missing_ok=True)

    def _evict(self, target: int) -> int:
        """Remove the least recently used copies that nobody holds, down to `target` bytes; the bytes that stay."""
        held = {name for _, names in self._sessions() for name in names}
        copies = sorted(self._copies())
        total = sum(size for _, size, _ in copies)
        for _, size, path in copies:
            if total <= target:
                break
            if path.relative_to(self.root).as_posix() not in held:
                path.unlink(missing_ok=True)
                total -= size
        return total

    def _copies(self) -> Iterator[tuple[int, int, Path]]:
        """When each copy was last used, and its bytes."""
        for folder, inner, names in os.walk(self.root):  # goes on where a folder vanishes meanwhile
            if Path(folder) == self.root:
                inner[:] = [name for name in inner if not name.startswith(ASIDE)]
                continue
            for path in (Path(folder, name) for name in names):
                with suppress(FileNotFoundError):
                    found = path.lstat()
                    if not found.st_mode & 0o222:
                        yield found.st_atime_ns, found.st_size, path

    def _sessions(self) -> Iterator[tuple[str, list[str]]]:
        """The Caches that live, each with the names it holds; the files of ended ones are removed."""
        for path in (self.root / HELD).glob("*"):
            with suppress(FileNotFoundError), open(path, encoding="utf-8") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield path.name, stream.read().split("\n")
                else:
                    path.unlink(missing_ok=True)

    def _note(self, relative: str) -> None:
        """Only under the lock: else the new file would seem to be an ended session's."""
        if self._held is None:
            (self.root / HELD).mkdir(parents=True, exist_ok=True)
            path = self.root / HELD / self.session
            self._held = open(path, "a", encoding="utf-8")
            fcntl.flock(self._held, fcntl.LOCK_SH)
            weakref.finalize(self, _release, self._held, path)
        self._held.write(relative + "\n")
        self._held.flush()

    @contextmanager
    def _locked(self, kind: int) -> Iterator[TextIO]:
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / ROOM, "a+", encoding="utf-8") as stream:
            fcntl.flock(stream, kind)
            stream.seek(0)
            yield stream


def _release(held: TextIO, path: Path) -> None:
    held.close()
    path.unlink(missing_ok=True)
