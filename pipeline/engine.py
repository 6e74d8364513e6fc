"""Runs units: finds the finished ones, has the rest computed, writes one journal line per task.

Ray schedules and nothing else. No state lives in it and no bulk data passes through it: a task receives the units'
descriptions (a few hundred bytes), reads and writes the store itself and returns the record. Kill a worker and Ray
runs its task again; kill Ray or the driver and the next run finds every finished unit in the store.

Starting an embedded Ray costs about 10 s and 17 CPU-seconds, so it is started at most once a run, and not at all while
the pending work is small (`INLINE_BYTES`) or there is a single worker: then the units run in this process. With
RAY_ADDRESS the cluster's nodes do all the work (workers.py).
"""

import importlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from pipeline import disk
from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.store import UNIT_FILE, Store
from pipeline.unfinished import Unfinished
from pipeline.unit import Json, Record, Unit

if TYPE_CHECKING:
    from pipeline.workers import Workers

INLINE_BYTES = 32_000_000


@dataclass(frozen=True)
class Work:
    """A unit to compute and the folder to write it into."""

    unit: Unit
    folder: Path
    store: Store


@dataclass(frozen=True)
class Stage:
    """A kind of work: `name` says what is done, `output` what comes of it and in which folder of the store it lies.

    `function` names a function "module:name" that takes a list of Work and returns the counts of each, in order.
    It gets several at once only if `together`: then units with the same raw or stored first input come in one list, so that
    it is read once for all of them. `version` is raised when the output for the same input changes.
    """

    name: str
    output: str
    version: int
    function: str
    together: bool = False

    def unit(self, source: str, **fields: Json) -> Unit:
        return Unit(self.output, self.version, source, **fields)


@dataclass(frozen=True)
class Measured:
    """What a task cost: seconds of wall and CPU time of the worker process, its peak resident memory in MiB, and how
    many bytes of document text the work was about (of input, for stages that see no documents). ended: Unix time."""

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    bytes: int
    ended: float


def execute(root: str, function: str, units: Sequence[Unit]) -> tuple[list[Record], Measured]:
    """Compute units in this process and publish them. Runs inside Ray workers and, for small work, in the driver."""
    store = Store(root)
    module, name = function.split(":")
    compute: Callable[[list[Work]], Iterable[dict[str, Json]]] = getattr(importlib.import_module(module), name)
    wall, cpu = time.perf_counter(), time.process_time()
    with disk.explained(store.place, f"{units[0].stage} of {units[0].source}"), _blamed(store, units), ExitStack() as stack:
        work = [Work(unit, stack.enter_context(store.work_folder(unit)), store) for unit in units]
        counts = list(compute(work))
        records = [store.publish(w.unit, w.folder, c) for w, c in zip(work, counts, strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = max(count.get("bytes", units[0].input_bytes) for count in counts)
    return records, Measured(time.perf_counter() - wall, time.process_time() - cpu, peak, size, time.time())


@contextmanager
def _blamed(store: Store, units: Sequence[Unit]) -> Iterator[None]:
    """A stage that fails on an input that is not what was written fails for that: raise it as PipelineError, with the remedy."""
    try:
        yield
    except Exception as error:
        from pipeline import checks  # what nobody needs until then

        inputs = {file for unit in units for file in unit.inputs if UNIT_FILE.fullmatch(file.path)}
        problems = [problem for file in inputs for problem in checks.output(store, file)]
        if problems:
            raise PipelineError("\n".join(sorted(map(str, problems)))) from error
        raise


class Engine:
    """Use as a context manager; `run` may be called once per stage, in order of dependence."""

    def __init__(self, store: Store, workers: int, progress: Progress, claims: Unfinished | None = None) -> None:
        self.store, self.workers, self.progress, self.claims = store, workers, progress, claims
        self.computed: set[str] = set()  # the folders of the units that this run computed
        self._ray: Workers | None = None
        self._journal_name = f"runs/{time.time_ns()}-{os.getpid()}.jsonl"
        self._journal: TextIO | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._journal:
            self._journal.close()
        if self._ray:
            self._ray.close()

    def run(self, stage: Stage, units: Sequence[Unit], underway: Callable[[], int] | None = None) -> list[Record]:
        """The records of `units`, in their order, computing those that are missing. `underway`: as in Progress.stage."""
        records: dict[str, Record] = {}
        pending: list[Unit] = []
        distinct = list({unit.folder: unit for unit in units}.values())  # twice the same unit is computed once
        for unit, found in zip(distinct, self.store.find_all(distinct), strict=True):
            if found:
                records[unit.folder] = found
            else:
                pending.append(unit)
        if self.claims:
            self.claims.claim(stage.output, distinct, missing=bool(pending))
        if pending:
            tasks = _grouped(pending) if stage.together else [[unit] for unit in pending]
            size = sum(task[0].input_bytes for task in tasks)
            with self._journaled(), self.progress.stage(stage.name, len(tasks), size, underway) as bar:
                for done, measured in self._completed(stage, tasks):
                    records.update((record.unit.folder, record) for record in done)
                    self.computed.update(record.unit.folder for record in done)
                    self._note(done, measured)
                    bar.advance(done[0].unit.input_bytes, text_bytes=measured.bytes)
        return [records[unit.folder] for unit in units]

    def _completed(self, stage: Stage, tasks: list[list[Unit]]) -> Iterator[tuple[list[Record], Measured]]:
        small = sum(task[0].input_bytes for task in tasks) < INLINE_BYTES or len(tasks) == 1
        if self._ray is None and not os.environ.get("RAY_ADDRESS") and (self.workers == 1 or small):
            for task in tasks:
                yield execute(self.store.place, stage.function, task)
        else:
            yield from self._start_ray().run(stage.name, stage.function, tasks)

    def _start_ray(self) -> "Workers":
        if self._ray is None:
            from pipeline.workers import Driver, Workers  # importing Ray takes a second

            self._ray = Workers(self.workers, Driver.of(self.store, self._journal_name), self.progress.say)
        return self._ray

    @contextmanager
    def _journaled(self) -> Iterator[None]:
        """The journal is in the store before a stage's work begins, by which nodes know the store, and when it ends."""
        if self._journal is None:
            path = self.store.path(self._journal_name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._journal = open(path, "w", encoding="utf-8")
            self.store.put(self._journal_name)
        try:
            yield
        finally:
            self.store.put(self._journal_name)

    def _note(self, records: list[Record], measured: Measured) -> None:
        assert self._journal
        unit = records[0].unit
        line = {"stage": unit.stage, "source": unit.source, "units": [r.unit.key for r in records], **asdict(measured)}
        self._journal.write(json.dumps(line) + "\n")
        self._journal.flush()


def _grouped(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units whose first input is the same, together, in order of first appearance."""
    groups: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        groups.setdefault((unit.source, unit.inputs[0].path), []).append(unit)
    return list(groups.values())
