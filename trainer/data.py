"""From a mix to micro-batches: which instances a step trains on, on which rank, and which of them count in the loss.

In: the instances of a run in training order: a mix (pipeline/reader.py), or headerless shards (flat_shards.py). Out:
micro-batches of a fixed number of consecutive instances, as tensors, through torch's DataLoader. Step s has the
micro-batches of instances [s·global_batch, (s+1)·global_batch); each rank takes an equal run of them, whole. So what a
micro-batch holds depends on its number alone: not on world size, workers or restarts, and the state to save is the step.
Cost: measured on one core, 90 µs per instance of 4,096 tokens (44 million tokens/s), of which the search for repeats
takes 20; document ids take 50 more. Nothing is held but the next micro-batches.
Not: no packing, padding or shuffling, those are the mix's; no copy to the device.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.reader import MixReader
from trainer.losses import IGNORED

AHEAD = 2048  # instances expected at most: 16 MB of 4,096 tokens
MICRO_BATCH = 4  # instances: what OLMoE trained on per device, over which its load-balancing loss was computed


class InstanceLike(Protocol):
    """tokens: [sequence_length] uint16 or uint32. boundaries: where its documents begin, ascending from 0."""

    @property
    def tokens(self) -> npt.NDArray[np.unsignedinteger]: ...
    @property
    def boundaries(self) -> npt.NDArray[np.int64]: ...
    @property
    def source(self) -> str: ...


class Instances(Protocol):
    """The instances of a run in training order. A MixReader is one."""

    @property
    def is_remote(self) -> bool: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> InstanceLike: ...
    def expect(self, indices: range, /) -> None: ...


class MicroBatch(NamedTuple):
    """b consecutive instances of t tokens.

    first: the run's index of the first instance (of a validation batch: of its source's). input_ids: int64 [b, t].
    labels: int64 [b, t], the input ids themselves (losses.shift_labels shifts them), or IGNORED throughout an instance that the
    filter masks. document_ids: int32 [b, t], numbered from 0 in each instance, or None without document masking.
    sources: int64 [b], places in the list of source names.
    """

    first: int
    input_ids: Tensor
    labels: Tensor
    document_ids: Tensor | None
    sources: Tensor

    def to(self, device: torch.device | str) -> "MicroBatch":
        """The same on `device`; from pinned memory the copy does not wait."""
        moved = (None if tensor is None else tensor.to(device, non_blocking=True) for tensor in self[1:])
        return MicroBatch(self.first, *moved)  # type: ignore[arg-type]


class MicroBatches(Dataset[MicroBatch]):
    """Micro-batch n is instances [n·size, (n+1)·size) of the run.

    names: the sources that `sources` numbers. instance_filter: mask the labels of instances in which an n-gram of 1 to
    13 tokens stands 32 times or more in a row; they stay in the batch, as OLMoE trained.
    document_ids: give these; they are only read from the shards' document tables if wanted.
    """

    def __init__(
        self, instances: Instances, names: Sequence[str], size: int = MICRO_BATCH, instance_filter: bool = True, document_ids: bool = False
    ) -> None:
        self.instances, self.size, self.instance_filter, self.document_ids = instances, size, instance_filter, document_ids
        self._number = {name: number for number, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self.instances) // self.size

    def __getitem__(self, number: int) -> MicroBatch:
        if not 0 <= number < len(self):
            raise IndexError(f"micro-batch {number} of {len(self)}")
        self.expect(number)
        first = number * self.size
        found = [self.instances[index] for index in range(first, first + self.size)]
        return collate(first, found, self._number, self.instance_filter, self.document_ids)

    def expect(self, number: int) -> None:
        """Say that micro-batch `number` will be read soon."""
        if self.instances.is_remote:
            self.instances.expect(range(number * self.size, (number + 1) * self.size))


def loader(
    batches: MicroBatches,
    global_batch: int,
    start_step: int = 0,
    stop_step: int | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[MicroBatch]:
    """A rank's micro-batches of steps [start_step, stop_step), in order: global_batch / world / size of them per step.

    workers: processes that read ahead, two micro-batches each; with 0 the caller reads, and what lies at a URL is requested
    a step ahead. Handing over costs the caller 240 µs per instance, more than reading what is in the page cache: for slow
    folders. Nothing is drawn from torch's global random state. The other arguments, and what is raised: as in Order.
    """
    order = Order(len(batches.instances), global_batch, batches.size, start_step, stop_step, rank, world)
    remote = batches.instances.is_remote
    return DataLoader(
        batches,
        batch_size=None,
        sampler=Announced(order, batches) if remote and not workers else order,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_the_group if workers else None,
        multiprocessing_context="spawn" if remote and workers else None,  # the client's threads do not survive a fork
        generator=torch.Generator(),
    )


class Order(Sampler[int]):
    """The numbers of the micro-batches that a rank trains on in steps [start_step, stop_step); `per_step` of them each.

    Of the M micro-batches of a step (global_batch instances), rank r has the r-th of `world` equal runs. stop_step: by
    default after the last whole step that a run of `instances` has.
    Raises ValueError if ranks cannot share a step in whole micro-batches, or if the run has too few instances.
    """

    def __init__(
        self,
        instances: int,
        global_batch: int,
        size: int = MICRO_BATCH,
        start_step: int = 0,
        stop_step: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if size < 1 or global_batch < 1 or not 0 <= rank < world or global_batch % (size * world):
            raise ValueError(
                f"a batch of {global_batch} instances, rank {rank} of {world}: each rank needs the same number of whole "
                f"micro-batches of {size}; make the batch a multiple of {size * world}"
            )
        steps = instances // global_batch
        stop_step = steps if stop_step is None else stop_step
        if not 0 <= start_step <= stop_step <= steps:
            raise ValueError(
                f"steps {start_step} to {stop_step}: the run has {steps} ({instances} instances in batches of {global_batch}); "
                "ask for fewer steps, or build the mix with more tokens or epochs"
            )
        self.steps = range(start_step, stop_step)
        self.per_step = global_batch // size // world
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return len(self.steps) * self.per_step

    def __iter__(self) -> Iterator[int]:
        for step in self.steps:
            first = (step * self._world + self._rank) * self.per_step
            yield from range(first, first + self.per_step)


class Announced(Sampler[int]):
    """An Order whose micro-batches are expected a step before their turn, so that requests are answered while a step computes."""

    def __init__(self, order: Order, batches: MicroBatches) -> None:
        self._order, self._batches = order, batches

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[int]:
        ahead = min(self._order.per_step, max(1, AHEAD // self._batches.size))
        coming = iter(self._order)
        for number in islice(coming, ahead):
            self._batches.expect(number)
        for number, later in zip_longest(self._order, coming):
            if later is not None:
                self._batches.expect(later)
            yield number


def validation(
    mix: MixReader, source: str, size: int = MICRO_BATCH, rank: int = 0, world: int = 1, document_ids: bool = False, most: int | None = None
) -> Iterator[MicroBatch]:
    """The held-out instances of a source (at most the first `most`) in micro-batches, dealt to ranks in turn; none masked.

    Every rank has equally many, for sharded models run in step: what is missing at the end is filled up with copies of
    the last instance whose labels are all IGNORED, so sums over labels that count are those of the instances, once each.
    """
    numbers = {entry.name: number for number, entry in enumerate(mix.lock.sources)}
    held = islice(mix.validation(source), most)
    first = 0
    while found := list(islice(held, size * world)):
        mine = found[rank * size : (rank + 1) * size]
        padded = mine + found[-1:] * (size - len(mine))
        batch = collate(first + rank * size, padded, numbers, False, document_ids)
        batch.labels[len(mine) :] = IGNORED
        yield batch
        first += len(found)


def source_names(mix: MixReader) -> list[str]:
    """The sources of a mix as MicroBatches numbers them: in the lock's order."""
    return [source.name for source in mix.lock.sources]


def collate(first: int, found: Sequence[InstanceLike], numbers: dict[str, int], instance_filter: bool, document_ids: bool) -> MicroBatch:
    """Instances as one MicroBatch."""
    tokens = np.stack([instance.tokens for instance in found])
    input_ids = torch.from_numpy(tokens.astype(np.int64))
    labels = input_ids.clone()
    if instance_filter:
        from pipeline.repetition import instance_mask  # brings numba: half a second

        labels[torch.from_numpy(~instance_mask(tokens))] = IGNORED
    documents = None
    if document_ids:
        documents = torch.from_numpy(np.stack([_document_ids(instance) for instance in found]))
    return MicroBatch(first, input_ids, labels, documents, torch.tensor([numbers[instance.source] for instance in found]))


def _document_ids(instance: InstanceLike) -> npt.NDArray[np.int32]:
    starts = instance.boundaries
    return np.repeat(np.arange(len(starts), dtype=np.int32), np.diff(starts, append=len(instance.tokens)))


def _leave_the_group(worker: int) -> None:
    """Ctrl-C or a SIGTERM to all processes of a job is the trainer's to handle: it still needs its workers to finish the step."""
    os.setpgrp()
    for number in (signal.SIGINT, signal.SIGTERM):  # some schedulers signal every process
        signal.signal(number, signal.SIG_IGN)
