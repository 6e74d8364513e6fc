"""Instances of shards in an object store: read by range, many at a time, before they are needed.

In: a store at a URL, and what the reader will ask for next (`expect`). Out: an instance's bytes, all of them, or a PipelineError
that names the object. An object is opened once per process (two requests: its header, which shard_reader.py checks, and its size and
tag); from then on an instance is one request, on S3 bound to that tag (If-Match), so bytes of another object are never taken for it.
What may pass is repeated (objects.py). Cost: 2 ms of CPU and 5 to 50 ms of waiting per request, CONNECTIONS at a time; in memory, the
instances that are expected, EXPECTED_MOST of them.
Not: shards that this machine's cache holds, those are files (shard_reader.py). One RemoteShards per thread.

`fetch` copies whole shards into the cache in the background.
"""

import errno
import io
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, cast
from weakref import finalize

from pipeline.errors import PipelineError
from pipeline.objects import Objects
from pipeline.store import Store
from pipeline.unit import Artifact

CONNECTIONS = 32  # requests at a time: as many as the client keeps connections
EXPECTED_MOST = 4096  # instances; of those that nobody came for, the oldest are given up
FETCHERS = 4  # whole shards at a time
Task = Callable[[], None]


class RemoteShards:
    """Ranges of the objects of a store. `check(path, bytes)` is called before an object is first read, from any thread."""

    def __init__(self, objects: Objects, check: Callable[[str, int], None]) -> None:
        self._objects, self._check = objects, check
        self._lock = threading.Lock()
        self._opened: dict[str, Future[RemoteObject]] = {}
        self._expected: dict[tuple[str, int], Future[bytes]] = {}
        self._tasks: SimpleQueue[Task | None] | None = None

    def expect(self, path: str, start: int, size: int) -> None:
        """Begin to read bytes [start, start + size) of an object, which `read` will be asked for."""
        if (path, start) in self._expected:
            return
        future: Future[bytes] = Future()
        self._expected[path, start] = future
        if len(self._expected) > EXPECTED_MOST:
            self._expected.pop(next(iter(self._expected))).cancel()
        self._put(lambda: _fulfil(future, lambda: self._range(path, start, size)))

    def expects(self, path: str, start: int) -> bool:
        return (path, start) in self._expected

    def read(self, path: str, start: int, size: int) -> bytes:
        """Bytes [start, start + size) of an object: all of them. Raises PipelineError."""
        future = self._expected.pop((path, start), None)
        if future is None or future.exception():  # what failed while nobody waited may go by now
            return self._range(path, start, size)
        return future.result()

    def file(self, path: str) -> "RangeFile":
        """An object beside the shards, not checked."""
        return RangeFile(RemoteObject(self._objects, path))

    def _open(self, path: str) -> "RemoteObject":
        with self._lock:
            future = self._opened.get(path)
            if is_mine := future is None:
                future = self._opened[path] = Future()
        assert future is not None
        if is_mine:
            _fulfil(future, lambda: self._checked(path))
            if future.exception():
                del self._opened[path]
        return future.result()

    def _checked(self, path: str) -> "RemoteObject":
        opened = RemoteObject(self._objects, path)
        self._check(path, opened.bytes)
        return opened

    def _range(self, path: str, start: int, size: int) -> bytes:
        return self._open(path).read(start, start + size)

    def _put(self, task: Task) -> None:
        if self._tasks is None:
            self._tasks = SimpleQueue()
            for _ in range(CONNECTIONS):  # daemons: a process that ends waits for no answer
                threading.Thread(target=_work, args=(self._tasks,), daemon=True).start()
            finalize(self, _end, self._tasks)
        self._tasks.put(task)


class RemoteObject:
    """One object as it was when it was opened, by a request. Raises PipelineError when it is not there."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects, self._name = objects, name
        try:
            self._stream = cast(Any, objects.open(name))
        except FileNotFoundError as error:
            raise PipelineError(f"{self}: is not there; the mix needs it: build it again, or say where its store is") from error
        self.bytes = int(self._stream.size)

    def __str__(self) -> str:
        return f"{self._objects.url}/{self._name}"

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop). Raises PipelineError if it has fewer, is another one by now, or cannot be reached."""
        try:
            return self._objects._call(f"read {self._name}", lambda: self._read(start, stop))
        except OSError as error:
            raise PipelineError(
                f"{self}: changed or was removed while it was read ({error}); shards never change: build the mix again, then go on"
            ) from error

    def _read(self, start: int, stop: int) -> bytes:
        if hasattr(self._stream, "_fetch_range"):  # clients of object stores; what threads share has no position
            try:
                found = self._stream._fetch_range(start, stop)
            except OSError as error:
                if type(error).__name__ == "FileExpired":  # s3fs's: If-Match did not hold
                    raise FileNotFoundError(errno.ENOENT, "another object has its name") from None
                raise
        else:
            found = self._objects.filesystem.cat_file(self._objects.path(self._name), start=start, end=stop)
        if len(found) != stop - start:
            raise ConnectionError(f"{len(found)} bytes of {stop - start}")
        return found


class RangeFile(io.RawIOBase):
    """A RemoteObject as a file, for PyArrow: every read is a request."""

    def __init__(self, opened: RemoteObject) -> None:
        self._object, self._at = opened, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._object.bytes}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._object.bytes)
        found = self._object.read(self._at, stop) if stop > self._at else b""
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def fetch(place: str, shards: Iterable[Artifact], announce: Callable[[str], None]) -> None:
    """Begin to copy shards into this machine's cache of the store at `place`. What goes wrong is announced; they are read by range then."""
    waiting: SimpleQueue[Artifact | None] = SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    for _ in range(FETCHERS):
        waiting.put(None)
        threading.Thread(target=_fetch, args=(place, waiting, announce), daemon=True).start()


def _fetch(place: str, waiting: "SimpleQueue[Artifact | None]", announce: Callable[[str], None]) -> None:
    store = Store(place)  # of its own: what this one was handed is no longer held when all are there, and may be evicted
    while (shard := waiting.get()) is not None:
        try:
            store.local(shard)
        except (PipelineError, OSError) as error:
            announce(f"{error}; goes on reading by range")
            return


def _fulfil(future: "Future[Any]", action: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(action())
    except BaseException as error:
        future.set_exception(error)


def _work(tasks: "SimpleQueue[Task | None]") -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # it holds the RemoteShards, whose end is this thread's


def _end(tasks: "SimpleQueue[Task | None]") -> None:
    for _ in range(CONNECTIONS):
        tasks.put(None)
