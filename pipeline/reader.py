"""Reading a mix: instance i of a run, wherever it lies, in O(1) time and memory.

In: a lock-file (lock.py) and the store its shards are in. Out: token arrays, and for each of them its source, its
documents and its place. Opening costs one JSON file and no shard: those are opened when first read from, and refused
if they are not what the lock says (shard_reader.py). There is no state but the index, so resuming at a step is
starting there, on any number of ranks. PyArrow is imported only when documents are asked for. One reader per thread.

Shards of a store at a URL are read by range, a request of 5 to 50 ms per instance, 32 at a time, until this machine's
cache holds them. Whoever knows what comes next says so (`expect`) and does not wait; `batch`, `steps` and `validation` do.

Where instance n of a run lies:

    epoch, place = divmod(n, pool);   slot = Permutation(seed, "epoch/<epoch>", pool)(place)
    the source is the one whose slots, laid side by side in the lock's order, hold `slot`; j = slot - its first slot
    copy, k = divmod(j, supply);      instance = Permutation(seed, "source/<name>/copy/<copy>", supply)(k)
    its shards' whole instances, laid side by side in the lock's order, hold `instance`
"""

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.lock import Lock, LockSource, ShardSummary
from pipeline.permutation import FEW, Permutation
from pipeline.shard_reader import ShardReader
from pipeline.store import Store
from pipeline.unit import Artifact

AT_ONCE = 1024  # instances of a batch that are asked for together
AHEAD = 32  # held-out instances
WORTH = 100_000  # bytes that arrive in a stream (100 MB/s) while one of 32 requests of 30 ms takes its turn


@dataclass(frozen=True, slots=True)
class Location:
    """Where an instance of a run comes from: `start` is its first token in `shard`, a path relative to the store."""

    index: int
    epoch: int
    source: str
    copy: int
    shard: str
    start: int


@dataclass(frozen=True, slots=True)
class DocumentSpan:
    """The part of a document that lies in an instance: tokens [start, start + length) of the instance, which follow the
    document's first `offset` tokens. id, file and row are the document's own."""

    id: str
    file: str
    row: int
    start: int
    length: int
    offset: int


@dataclass(frozen=True, eq=False)
class Instance:
    """tokens: [sequence_length], uint16 or uint32, the caller's own copy. shard and start: as in Location."""

    tokens: npt.NDArray[np.unsignedinteger]
    source: str
    shard: str
    start: int
    files: ShardReader

    @cached_property
    def boundaries(self) -> npt.NDArray[np.int64]:
        """Where each document's tokens begin in the instance, ascending; the first is 0, whether or not the document
        begins there. Taken from the shard's document table, for text may hold an end-of-document token too."""
        return self.files.boundaries(self.shard, self.start)


class MixReader(Sequence[Instance]):
    """The instances of a run, in training order: `len(mix)`, `mix[i]`, `mix.batch(indices)`, `mix.steps(…)`.

    `lock` is a path or a URL. `store` is where shard paths lead from, a folder or a URL: by default the folder above the
    lock-file's. `sequence_length`: read the mix as instances of so many tokens (Lock.with_sequence_length); by default as
    long as the lock says. Raises PipelineError for a lock-file or a shard that is missing, damaged, not what the lock says
    or not to be reached, ConfigError for a length that does not divide the lock's.
    """

    def __init__(self, lock: Path | str, store: Path | str | None = None, sequence_length: int | None = None) -> None:
        self.lock_path, home = _lock_file(lock)
        self.store = Store(home if store is None else store)
        self.lock = Lock.read(self.lock_path)
        if sequence_length is not None:
            self.lock = self.lock.with_sequence_length(sequence_length)
        self.sequence_length = self.lock.sequence_length
        sources = self.lock.sources
        self._bounds = [0, *accumulate(source.slots for source in sources)]
        self._before = [self._running_count(source.shards) for source in sources]
        self._before_arrays = [np.array(before) for before in self._before]
        self._first_shard = [0, *accumulate(len(source.shards) for source in sources)]
        self._shards = [shard for source in sources for shard in source.shards]
        self._source_of_shard = [source.name for source in sources for _ in source.shards]
        self._permutations: dict[str, Permutation] = {}
        listed = {shard.path: shard for source in sources for shard in (*source.shards, *source.validation)}
        self._files = ShardReader(self.store, listed, self.lock.tokenizer, self.sequence_length)

    def __len__(self) -> int:
        return self.lock.instances

    def __getitem__(self, index: int) -> Instance:  # type: ignore[override]  # no slices: see batch
        _, source, _, shard, within = self._place(index)
        return self._instance(self.lock.sources[source].name, self._shards[shard], within)

    def __reduce__(self) -> tuple[type["MixReader"], tuple[Path, str, int]]:
        return MixReader, (self.lock_path, self.store.place, self.sequence_length)  # a worker process opens the shards anew

    def batch(self, indices: npt.ArrayLike | range) -> npt.NDArray[np.unsignedinteger]:
        """Instances `indices` of the run (integers [n]) → tokens [n, sequence_length], uint16 or uint32.

        Raises IndexError outside [0, len(self)).
        """
        wanted = np.asarray(indices, dtype=np.int64)
        tokens = np.empty((len(wanted), self.sequence_length), dtype=self._files.dtype)
        step = AT_ONCE if self.is_remote else max(1, len(wanted))
        for first in range(0, len(wanted), step):
            part = slice(first, first + step)
            shards, within = self._places(wanted[part])
            self._expect(shards, within)
            for row, shard, instance in zip(tokens[part], shards.tolist(), within.tolist(), strict=True):
                self._files.read(self._shards[shard].path, instance, into=row)
        return tokens

    @property
    def is_remote(self) -> bool:
        """Whether the shards lie at a URL, so that it pays to `expect`."""
        return self._files.is_remote

    def expect(self, indices: npt.ArrayLike | range) -> None:
        """Say which instances will be read soon, in order: at a URL, they are asked for now. Does nothing in a folder."""
        if self.is_remote:
            self._expect(*self._places(np.asarray(indices, dtype=np.int64)))

    def _expect(self, shards: npt.NDArray[np.int64], within: npt.NDArray[np.int64]) -> None:
        if self.is_remote:
            for shard, instance in zip(shards.tolist(), within.tolist(), strict=True):
                self._files.expect(self._shards[shard].path, instance)

    def fetch(self, reads: int, announce: Callable[[str], None]) -> int:
        """Begin to copy the shards to this machine, in the background; they are read there as they arrive. → their bytes.

        Does nothing (→ 0) if they are here, if `reads` instances are fewer requests than that is worth, or if the machine's
        cache has no room for all of them.
        """
        if not self.is_remote:
            return 0
        from pipeline import cache
        from pipeline.remote_shards import fetch

        size = self._files.dtype.itemsize
        shards = [Artifact(shard.path, shard.sha256, shard.tokens * size) for shard in self._shards]
        whole = sum(shard.bytes for shard in shards)
        if whole > min(cache.bound(), reads * WORTH):
            return 0
        fetch(self.store.place, shards, announce)
        return whole

    def steps(
        self, global_batch: int, start_step: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, npt.NDArray[np.unsignedinteger]]]:
        """(step, tokens [global_batch / world, sequence_length]) from `start_step` to the last whole step, for a rank.

        Step s trains on instances [s·global_batch, (s+1)·global_batch), whatever `world` is; the ranks take equal
        parts in order. Raises ValueError if they cannot.
        """
        if not 0 <= rank < world or global_batch < 1 or global_batch % world or start_step < 0:
            raise ValueError(f"batch {global_batch} from step {start_step} for rank {rank} of {world}: each must have an equal part")
        part = global_batch // world
        for step in range(start_step, len(self) // global_batch):
            first = step * global_batch + rank * part
            tokens = self.batch(range(first, first + part))
            following = first + global_batch
            if following + part <= len(self):
                self.expect(range(following, following + min(part, AT_ONCE)))
            yield step, tokens

    def validation(self, source: str) -> Iterator[Instance]:
        """The whole instances of a source's validation shards, in order. They are in no mix."""
        for shard in self._source(source).validation:
            instances = range(shard.tokens // self.sequence_length)
            for coming in instances[:AHEAD]:
                self._files.expect(shard.path, coming)
            for within in instances:
                for coming in instances[within + AHEAD : within + AHEAD + 1]:
                    self._files.expect(shard.path, coming)
                yield self._instance(source, shard, within)

    def locate(self, index: int) -> Location:
        """Where instance `index` of the run lies. Raises IndexError outside [0, len(self))."""
        epoch, source, copy, shard, within = self._place(index)
        start = within * self.sequence_length
        return Location(index, epoch, self.lock.sources[source].name, copy, self._shards[shard].path, start)

    def places(self, first: int, stop: int) -> list[tuple[str, str, int]]:
        """(source, shard, start) of instances [first, stop) of the run, as in Location; 2 µs each where there are many.

        Raises IndexError outside [0, len(self)].
        """
        shards, within = self._places(np.arange(first, stop, dtype=np.int64))
        pairs = zip(shards.tolist(), (within * self.sequence_length).tolist(), strict=True)
        return [(self._source_of_shard[shard], self._shards[shard].path, start) for shard, start in pairs]

    def documents(self, index: int) -> list[DocumentSpan]:
        """The documents whose tokens instance `index` holds, in order; their lengths sum to sequence_length."""
        place = self.locate(index)
        begin, end = place.start, place.start + self.sequence_length
        spans = []
        for row in self._files.rows(place.shard, *self._files.overlapping(place.shard, begin)):
            cut = max(0, begin - row["start"])  # tokens of the document before this instance
            length = min(end, row["start"] + row["length"]) - row["start"] - cut
            start = row["start"] + cut - begin
            spans.append(DocumentSpan(row["id"], row["file"], row["row"], start, length, row["offset"] + cut))
        return spans

    def occurrences(self, source: str, shard: str, start: int, length: int = 1) -> list[int]:
        """The instances of the run that hold any of tokens [start, start + length) of a training shard, ascending.

        With a document's shard, start and length (its row of the document table): every place it is trained on.
        Costs two inverse permutations per instance, epoch and copy. Raises KeyError for an unknown source or shard.
        """
        entry = self._source(source)
        number = self.lock.sources.index(entry)
        position = {listed.path: place for place, listed in enumerate(entry.shards)}[shard]
        before, whole = self._before[number][position : position + 2]
        last = min((start + length - 1) // self.sequence_length, whole - before - 1)
        found = []
        for instance in range(before + start // self.sequence_length, before + last + 1):
            for copy in range(-(-entry.slots // entry.supply)):
                slot = copy * entry.supply + self._of_copy(entry, copy).inverse(instance)
                if slot < entry.slots:
                    found += self._times_of_slot(self._bounds[number] + slot)
        return sorted(found)

    def _times_of_slot(self, slot: int) -> list[int]:
        epochs = range(-(-len(self) // self.lock.pool))
        times = (epoch * self.lock.pool + self._of_epoch(epoch).inverse(slot) for epoch in epochs)
        return [time for time in times if time < len(self)]

    def _place(self, index: int) -> tuple[int, int, int, int, int]:
        """(epoch, source number, copy, shard number, instance within the shard)."""
        index = operator.index(index)  # a NumPy integer would overflow in the permutation
        if not 0 <= index < len(self):
            raise IndexError(f"instance {index} of a run of {len(self)}")
        epoch, place = divmod(index, self.lock.pool)
        slot = self._of_epoch(epoch)(place)
        number = bisect_right(self._bounds, slot) - 1
        source = self.lock.sources[number]
        copy, k = divmod(slot - self._bounds[number], source.supply)
        instance = self._of_copy(source, copy)(k)
        before = self._before[number]
        shard = bisect_right(before, instance) - 1
        return epoch, number, copy, self._first_shard[number] + shard, instance - before[shard]

    def _places(self, indices: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """_place for many: (shard numbers, instances within them)."""
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"instances {indices.min()} to {indices.max()} of a run of {len(self)}")
        if len(indices) < FEW:
            few = np.array([self._place(index)[3:] for index in indices], dtype=np.int64).reshape(-1, 2)
            return few[:, 0], few[:, 1]
        epochs, places = np.divmod(indices, self.lock.pool)
        slots = _by_group(epochs, places, self._of_epoch)
        numbers = np.searchsorted(self._bounds, slots, side="right") - 1
        shards, within = np.empty_like(slots), np.empty_like(slots)
        for number in np.unique(numbers).tolist():
            source, chosen = self.lock.sources[number], np.flatnonzero(numbers == number)
            copies, k = np.divmod(slots[chosen] - self._bounds[number], source.supply)
            instances = _by_group(copies, k, partial(self._of_copy, source))
            before = self._before_arrays[number]
            shard = np.searchsorted(before, instances, side="right") - 1
            shards[chosen], within[chosen] = self._first_shard[number] + shard, instances - before[shard]
        return shards, within

    def _of_epoch(self, epoch: int) -> Permutation:
        return self._permutation(f"epoch/{epoch}", self.lock.pool)

    def _of_copy(self, source: LockSource, copy: int) -> Permutation:
        return self._permutation(f"source/{source.name}/copy/{copy}", source.supply)

    def _permutation(self, label: str, n: int) -> Permutation:
        if label not in self._permutations:
            self._permutations[label] = Permutation(self.lock.seed, label, n)
        return self._permutations[label]

    def _source(self, name: str) -> LockSource:
        for source in self.lock.sources:
            if source.name == name:
                return source
        raise KeyError(f"{name}: the mix {self.lock.mix} has {', '.join(source.name for source in self.lock.sources)}")

    def _running_count(self, shards: Sequence[ShardSummary]) -> list[int]:
        return [0, *accumulate(shard.tokens // self.sequence_length for shard in shards)]

    def _instance(self, source: str, shard: ShardSummary, within: int) -> Instance:
        tokens = np.empty(self.sequence_length, dtype=self._files.dtype)
        self._files.read(shard.path, within, into=tokens)
        return Instance(tokens, source, shard.path, within * self.sequence_length, self._files)


def _by_group(
    groups: npt.NDArray[np.int64], values: npt.NDArray[np.int64], permutation: Callable[[int], Permutation]
) -> npt.NDArray[np.int64]:
    """Each value through the permutation of its group."""
    result = np.empty_like(values)
    for group in np.unique(groups).tolist():
        chosen = np.flatnonzero(groups == group)
        result[chosen] = permutation(group).array(values[chosen])
    return result


def _lock_file(lock: Path | str) -> tuple[Path, Path | str]:
    """A lock-file as one on this machine, and the store it is in."""
    if "://" not in str(lock):
        return Path(lock), Path(lock).absolute().parents[1]
    home, folder, name = str(lock).rsplit("/", 2)
    try:
        return Store(home).local(f"{folder}/{name}"), home
    except FileNotFoundError as error:
        raise PipelineError(f"{lock}: is not there; build the mix with STORE={home}, or correct the URL") from error
