"""Reading finished shards: token ids instance by instance, document tables row by row.

In: the store, and what each shard must be. Out: an instance's ids, read straight into the caller's array; where
documents start; chosen rows of a document table. A shard is checked when it is first read from: its header's format,
dtype, tokenizer, counts and sha256 against the lock's, and the size of the file (0.1 ms; the bytes themselves are
verify.py's work). An instance costs one system call, 4 µs for 8 KB that are in the page cache. Open files and tables are
kept and the least recently used given up, so a mix may have more shards than a process may have open files; mapped
memory would cost 28 µs whenever a shard is opened again, and end the process if a file were cut while in use.

Of a store at a URL, a shard that lies in this machine's cache is such a file; others are read by range (remote_shards.py),
and from the cache as soon as they lie there. A copy that is evicted meanwhile does no harm: what is open stays readable.
"""

import os
import resource
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.errors import PipelineError
from pipeline.lock import LockTokenizer, ShardSummary
from pipeline.store import Store

if TYPE_CHECKING:  # it brings fsspec, which a folder does not need
    from pipeline.remote_shards import RemoteShards

FORMAT = 1
TABLES_KEPT = 64  # of documents' starts: 8 bytes per document of a shard
V = TypeVar("V")


class ShardReader:
    """The shards of one store that were written with one tokenizer. `shards`: what each must be, by path."""

    def __init__(self, store: Store, shards: Mapping[str, ShardSummary], tokenizer: LockTokenizer, sequence_length: int) -> None:
        self.store, self.shards, self.tokenizer, self.sequence_length = store, shards, tokenizer, sequence_length
        self.dtype = np.dtype(tokenizer.dtype).newbyteorder("<")
        self._checked: set[str] = set()
        self._files = _Recent[_File](_files_kept())
        self._starts = _Recent[npt.NDArray[np.int64]](TABLES_KEPT)
        self._remote = _remote(store, self._check)

    @property
    def is_remote(self) -> bool:
        """Whether reading takes requests, so that it is worth saying what comes next."""
        return self._remote is not None

    def expect(self, path: str, instance: int) -> None:
        """Begin to read an instance that `read` will be asked for, if it takes a request."""
        if self._remote and not self._copy(path):
            size = self.sequence_length * self.dtype.itemsize
            self._remote.expect(path, instance * size, size)

    def read(self, path: str, instance: int, into: npt.NDArray[np.unsignedinteger]) -> None:
        """Fill `into` ([sequence_length], `dtype`, contiguous) with an instance of the shard at `path`.

        Raises PipelineError naming the file if it is missing, cut, or not what it must be.
        """
        size = into.nbytes
        start = instance * size
        if self._remote is None:
            file = self._files.get(path, self._open)
        elif self._remote.expects(path, start) or not (copy := self._copy(path)):
            into[:] = np.frombuffer(self._remote.read(path, start, size), self.dtype)
            return
        else:
            file = copy
        if os.preadv(file.descriptor, [into.data], start) != size:
            raise PipelineError(
                f"{self.store.path(path)}: ends within its instance {instance}; something cut it after it was opened, build the mix again"
            )

    def overlapping(self, path: str, start: int) -> tuple[int, int]:
        """The rows [first, last) of a shard's document table whose tokens the instance at token `start` holds."""
        starts = self._starts.get(path, self._document_starts)
        first = int(np.searchsorted(starts, start, side="right")) - 1
        return first, int(np.searchsorted(starts, start + self.sequence_length, side="left"))

    def boundaries(self, path: str, start: int) -> npt.NDArray[np.int64]:
        """Where, within the instance at token `start`, each document's tokens begin; the first is 0."""
        first, last = self.overlapping(path, start)
        return np.maximum(self._starts.get(path, self._document_starts)[first:last] - start, 0)

    def rows(self, path: str, first: int, last: int) -> list[dict[str, Any]]:
        """Rows [first, last) of a shard's document table; only the row groups that they lie in are read."""
        import pyarrow.parquet as pq

        with self._whole_table(path), pq.ParquetFile(self._table(path), pre_buffer=self.is_remote) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = list(accumulate(sizes))
            low, high = bisect_right(ends, first), bisect_right(ends, last - 1)
            table = file.read_row_groups(list(range(low, high + 1)))
        return table.slice(first - (ends[low] - sizes[low]), last - first).to_pylist()

    def _copy(self, path: str) -> "_File | None":
        """The copy of a checked shard on this machine; None when it is not, or no longer, there."""
        if path not in self._checked:
            return None
        try:
            return self._files.get(path, self._open)
        except PipelineError:
            return None

    def _open(self, path: str) -> "_File":
        try:
            file = _File(self.store.path(path))
        except OSError as error:
            raise self._missing(path, error) from error
        size = os.fstat(file.descriptor).st_size
        (self._check_size if path in self._checked else self._check)(path, size)
        return file

    def _check(self, path: str, size: int) -> None:
        listed, beside = self.shards[path], _beside(path, ".json")
        header_path = self.store.url(beside)
        try:
            header = orjson.loads(self.store.read(beside))
            tokenizer = dict(header["tokenizer"])
        except OSError as error:
            raise self._missing(beside, error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise PipelineError(f"{header_path}: no header of a shard ({error!r}); build the mix again") from error
        must_be: dict[str, tuple[Any, Any]] = {
            "format": (header.get("format"), FORMAT),
            "dtype": (header.get("dtype"), self.tokenizer.dtype),
            "eos": (header.get("eos"), self.tokenizer.eos),
            "the tokenizer's sha256": (tokenizer.get("sha256"), self.tokenizer.sha256),
            "tokens": (header.get("tokens"), listed.tokens),
            "sha256": (header.get("sha256"), listed.sha256),
        }
        for what, (found, expected) in must_be.items():
            if found != expected:
                raise PipelineError(f"{header_path}: {what} is {found}, the mix was made of {expected}; build the mix again")
        self._check_size(path, size)
        self._checked.add(path)

    def _check_size(self, path: str, size: int) -> None:
        expected = self.shards[path].tokens * self.dtype.itemsize
        if size != expected:
            raise PipelineError(
                f"{self.store.url(path)}: {size} bytes, and {self.shards[path].tokens} {self.dtype.name} tokens are {expected}; it was cut "
                "or overwritten: remove its folder and build the mix again"
            )

    def _missing(self, name: str, error: OSError) -> PipelineError:
        why = error.strerror or "cannot be read"
        return PipelineError(f"{self.store.url(name)}: {why}; the mix needs this shard: build it again, or say where its store is")

    def _document_starts(self, path: str) -> npt.NDArray[np.int64]:
        import pyarrow.parquet as pq

        with self._whole_table(path):
            return pq.read_table(self._table(path), columns=["start"])["start"].to_numpy()

    @contextmanager
    def _whole_table(self, path: str) -> Iterator[None]:
        """Say of a document table that cannot be read which it is."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            table = self.store.url(_beside(path, ".parquet"))
            raise PipelineError(f"{table}: no table of documents can be read from it ({error}); build the mix again") from error

    def _table(self, path: str) -> Path | BinaryIO:
        """A shard's document table, for PyArrow."""
        name = _beside(path, ".parquet")
        here = self.store.path(name)
        return here if self._remote is None or here.is_file() else cast(BinaryIO, self._remote.file(name))


def _beside(path: str, suffix: str) -> str:
    return path.removesuffix(".bin") + suffix


def _remote(store: Store, check: Callable[[str, int], None]) -> "RemoteShards | None":
    if "://" not in store.place:
        return None
    from pipeline.object_store import ObjectStore
    from pipeline.remote_shards import RemoteShards

    assert isinstance(store, ObjectStore)
    return RemoteShards(store.objects, check)


class _File:
    """A file open for reading, closed when it is no longer held."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class _Recent(Generic[V]):
    """At most `size` values, those used last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[str, V] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def get(self, key: str, load: Callable[[str], V]) -> V:
        value = self._kept.pop(key) if key in self._kept else load(key)
        self._kept[key] = value
        if len(self._kept) > self._size:
            del self._kept[next(iter(self._kept))]
        return value


def _files_kept() -> int:
    """Half of the files that this process may have open, the other half being the caller's."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if allowed == resource.RLIM_INFINITY else max(16, allowed // 2)
