"""Files of a data set at a commit of the hub → the same files on this disk, several at a time.

In: files by path, sha256 and size. Out: each, whole and compared, as a file of its own in the store's `downloads/parts/`, where it outlives
the process until somebody takes it. Cost: transfer.py's. An error in one ends the others within a block.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import TypeVar

from pipeline.download import hub_file, transfer
from pipeline.errors import PipelineError
from pipeline.stages.download import part_of
from pipeline.store import Store
from pipeline.unit import Artifact

AT_ONCE = 8
T = TypeVar("T")
V = TypeVar("V")


class ReleaseFiles:
    """The files of `repository` at `commit`, on their way into `store`."""

    def __init__(self, store: Store, repository: str, commit: str) -> None:
        self.store, self.repository, self.commit = store, repository, commit
        self._stopped = Event()

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit}"

    def fetched(self, file: Artifact) -> Path:
        """The file on this disk, the caller's to move. Raises PipelineError where it cannot be had or is another."""
        part = self._part(file)
        transfer.fetch(self._place(file), file, part, self._stream)
        return part

    def content(self, file: Artifact) -> bytes:
        """A small file's bytes: the store's own, if it has these."""
        with suppress(FileNotFoundError):
            content = self.store.read(file.path)
            if sha256(content).hexdigest() == file.sha256:
                return content
        part = self.fetched(file)
        content = part.read_bytes()
        part.unlink()
        return content

    def arrived(self, files: Iterable[Artifact]) -> int:
        """The bytes of these files that lie in `downloads/parts/`."""
        size = 0
        for file in files:
            with suppress(FileNotFoundError):  # nothing of it yet, or it was taken
                size += self._part(file).stat().st_size
        return size

    def each(self, function: Callable[[T], V], items: Sequence[T]) -> Iterator[V]:
        """function(item) of all items, as they are done, AT_ONCE at a time in threads. The first error ends all of them."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(function, item) for item in items]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _stream(self, place: str, offset: int) -> Generator[tuple[int, bytes]]:
        with closing(hub_file.stream(place, offset)) as blocks:
            for block in blocks:
                if self._stopped.is_set():
                    raise PipelineError("stopped")  # for a thread whose result nobody waits for
                yield block

    def _part(self, file: Artifact) -> Path:
        return part_of(self.store, "release", file, self._place(file))

    def _place(self, file: Artifact) -> str:
        return hub_file.place_of(self.repository, self.commit, file.path)
