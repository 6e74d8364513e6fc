"""Training on headerless token files: what the Dolma toolkit and OLMo call shards, in the order OLMo trains on them.

In: paths of flat little-endian token files (`.npy` by name, without NumPy's header), and their dtype, which nothing in
them says. Out: the instances of a run, for data.py. Each file gives its whole instances, its tail is left out, and
instances cross documents. An epoch's order is OLMo's: NumPy's PCG64, seeded with seed + epoch, shuffles the instances
of all files in the order given. OLMo's ranks then take every world-th instance of a step, ours equal runs of it: a step
holds the same instances, in other micro-batches.
Cost: in each process, 4 bytes per instance for the order of the epoch being read (5 GB at 5 trillion tokens; a mix needs
none), and a second per 20 million instances to make it. Not: no header, no checksum, no document table; prefer a mix.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError

NUMPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True, eq=False)
class FlatInstance:
    """tokens: [sequence_length]. path and start: its file, and its first token there. eos: ends a document."""

    tokens: npt.NDArray[np.unsignedinteger]
    source: str
    path: Path
    start: int
    eos: int

    @cached_property
    def boundaries(self) -> npt.NDArray[np.int64]:
        """Where documents begin: 0, and after each end-of-document token but one that is last."""
        return np.concatenate([[0], np.flatnonzero(self.tokens[:-1] == self.eos) + 1])


class FlatShards(Sequence[FlatInstance]):
    """The instances of `epochs` epochs over `paths`, in OLMo's order.

    dtype: "uint16" or "uint32". global_batch: instances per step; an epoch's last instances that fill no step are left
    out, as OLMo leaves them. names: each path's source, for the sources of a MicroBatch; by default one for all, "shards".
    vocab_size: refuse an instance with a greater id, which a wrong dtype is betrayed by.
    Raises PipelineError for a file that is missing, of another layout, or cut; ValueError for too few instances.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        dtype: str,
        sequence_length: int,
        seed: int,
        eos: int,
        epochs: int = 1,
        global_batch: int = 1,
        names: Sequence[str] | None = None,
        vocab_size: int | None = None,
    ) -> None:
        if dtype not in ("uint16", "uint32"):
            raise ValueError(f"dtype {dtype}: token files hold uint16 or uint32")
        self.paths = [Path(path) for path in paths]
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.sequence_length, self.seed, self.eos, self.epochs, self.vocab_size = sequence_length, seed, eos, epochs, vocab_size
        self.names = list(names) if names is not None else ["shards"] * len(self.paths)
        if len(self.names) != len(self.paths):
            raise ValueError(f"{len(self.names)} names for {len(self.paths)} paths: give one for each")
        self._before = [0, *accumulate(self._instances_of(path) for path in self.paths)]
        self.instances = self._before[-1]
        self.epoch_length = self.instances // global_batch * global_batch
        if not self.epoch_length:
            raise ValueError(
                f"{len(self.paths)} files hold {self.instances} instances of {sequence_length} tokens, a step needs {global_batch}"
            )
        self._order: tuple[int, npt.NDArray[np.uint32]] | None = None

    def __len__(self) -> int:
        return self.epochs * self.epoch_length

    def __getitem__(self, index: int) -> FlatInstance:  # type: ignore[override]  # no slices
        number, start = self._place(index)
        return FlatInstance(self._read(self.paths[number], start), self.names[number], self.paths[number], start, self.eos)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_order": None}  # a process makes its own, sooner than it is sent

    def places(self, first: int, stop: int) -> list[tuple[str, str, int]]:
        """(source, path, first token) of instances [first, stop) of the run."""
        found = []
        for index in range(first, stop):
            number, start = self._place(index)
            found.append((self.names[number], str(self.paths[number]), start))
        return found

    is_remote = False

    def expect(self, indices: range) -> None:
        """What lies in a folder is not asked for ahead."""

    def order(self, epoch: int) -> npt.NDArray[np.uint32]:
        """All instances of the files, in the order of an epoch; its first `epoch_length` are trained on."""
        if self._order is None or self._order[0] != epoch:
            order = np.arange(self.instances, dtype=np.uint32)
            np.random.Generator(np.random.PCG64(self.seed + epoch)).shuffle(order)
            self._order = epoch, order
        return self._order[1]

    def _place(self, index: int) -> tuple[int, int]:
        """(number of the file, first token in it) of an instance of the run."""
        if not 0 <= index < len(self):
            raise IndexError(f"instance {index} of a run of {len(self)}")
        epoch, place = divmod(index, self.epoch_length)
        instance = int(self.order(epoch)[place])
        number = bisect_right(self._before, instance) - 1
        return number, (instance - self._before[number]) * self.sequence_length

    def _instances_of(self, path: Path) -> int:
        try:
            with open(path, "rb") as file:
                size, start = os.fstat(file.fileno()).st_size, file.read(len(NUMPY_MAGIC))
        except OSError as error:
            raise PipelineError(f"{path}: {error.strerror}; list the token files that there are") from error
        if start == NUMPY_MAGIC:
            raise PipelineError(f"{path}: has NumPy's header, and token files have none; write its array with tofile()")
        if size % self.dtype.itemsize:
            raise PipelineError(
                f"{path}: {size} bytes are no whole number of {self.dtype.name} tokens; say its true dtype, or fetch it again"
            )
        return size // self.dtype.itemsize // self.sequence_length

    def _read(self, path: Path, start: int) -> npt.NDArray[np.unsignedinteger]:
        tokens = np.fromfile(path, self.dtype, self.sequence_length, offset=start * self.dtype.itemsize)
        if len(tokens) < self.sequence_length:
            raise PipelineError(f"{path}: ends within its instance at token {start}; it was cut after it was opened, fetch it again")
        if self.vocab_size is not None and tokens.max() >= self.vocab_size:
            raise PipelineError(
                f"{path}: token {tokens.max()} after token {start}, of a vocabulary of {self.vocab_size}; is its dtype {self.dtype.name}?"
            )
        return tokens
