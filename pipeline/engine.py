"""Runs units: finds the finished ones, schedules the rest, writes one journal line per unit computed.

Ray schedules and nothing else. No state lives in it and no bulk data passes through it: a task receives the units'
descriptions (a few hundred bytes), reads and writes the store itself and returns the record. Kill a worker and Ray
runs its task again; kill Ray or the driver and the next run finds every finished unit in the store.

Starting an embedded Ray costs about 10 s and 17 CPU-seconds, so it is started at most once a run, and not at all while
the pending work is small (`INLINE_BYTES`) or there is a single worker: then the units run in this process.
"""

import importlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from pipeline.errors import PipelineError
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.unit import Json, Record, Unit

INLINE_BYTES = 32_000_000
IN_FLIGHT_PER_WORKER = 4
CRASHES_PER_TASK = 4  # a task whose worker dies (killed, out of memory) is run again this often


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
    many bytes of document text the work was about (of input, for stages that see no documents)."""

    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    bytes: int


def execute(root: str, function: str, units: Sequence[Unit]) -> tuple[list[Record], Measured]:
    """Compute units in this process and publish them. Runs inside Ray workers and, for small work, in the driver."""
    store = Store(root)
    module, name = function.split(":")
    compute: Callable[[list[Work]], Iterable[dict[str, Json]]] = getattr(importlib.import_module(module), name)
    wall, cpu = time.perf_counter(), time.process_time()
    with ExitStack() as stack:
        work = [Work(unit, stack.enter_context(store.work_folder(unit)), store) for unit in units]
        try:
            counts = list(compute(work))
            records = [store.publish(w.unit, w.folder, c) for w, c in zip(work, counts, strict=True)]
        except OSError as error:
            raise _explained(error, store, units[0]) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = counts[0].get("bytes", units[0].input_bytes)
    return records, Measured(time.perf_counter() - wall, time.process_time() - cpu, peak, size)


def _explained(error: OSError, store: Store, unit: Unit) -> PipelineError:
    place = f"{unit.stage} of {unit.source}"
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        return PipelineError(
            f"no space left under {store.root} ({place}): free some or choose another STORE, then run the same "
            "command again; finished work is kept"
        )
    return PipelineError(f"{place}: {error}")


class Engine:
    """Use as a context manager; `run` may be called once per stage, in order of dependence."""

    def __init__(self, store: Store, workers: int, progress: Progress) -> None:
        self.store, self.workers, self.progress = store, workers, progress
        self.computed: set[str] = set()  # the folders of the units that this run computed
        self._ray: Any = None  # the module, once it is started
        self._remote: Any = None
        self._journal: TextIO | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._journal:
            self._journal.close()
        if self._ray:
            self._ray.shutdown()

    def run(self, stage: Stage, units: Sequence[Unit]) -> list[Record]:
        """The records of `units`, in their order, computing those that are missing."""
        records: dict[str, Record] = {}
        pending: list[Unit] = []
        distinct = list({unit.folder: unit for unit in units}.values())  # twice the same unit is computed once
        for unit, found in zip(distinct, self.store.find_all(distinct), strict=True):
            if found:
                records[unit.folder] = found
            else:
                pending.append(unit)
        if pending:
            tasks = _grouped(pending) if stage.together else [[unit] for unit in pending]
            with self.progress.stage(stage.name, len(tasks), sum(task[0].input_bytes for task in tasks)) as bar:
                for done, measured in self._completed(stage, tasks):
                    records.update((record.unit.folder, record) for record in done)
                    self.computed.update(record.unit.folder for record in done)
                    self._note(done, measured)
                    bar.advance(done[0].unit.input_bytes, text_bytes=measured.bytes)
        return [records[unit.folder] for unit in units]

    def _completed(self, stage: Stage, tasks: list[list[Unit]]) -> Iterator[tuple[list[Record], Measured]]:
        root = self.store.place
        small = sum(task[0].input_bytes for task in tasks) < INLINE_BYTES or len(tasks) == 1
        if self._ray is None and not os.environ.get("RAY_ADDRESS") and (self.workers == 1 or small):
            for task in tasks:
                yield execute(root, stage.function, task)
            return
        ray = self._start_ray()
        waiting = sorted(tasks, key=lambda task: task[0].input_bytes)  # popped largest first: no straggler at the end
        limit = IN_FLIGHT_PER_WORKER * max(self.workers, int(ray.cluster_resources().get("CPU", 1)))
        flying: set = set()
        while waiting or flying:
            while waiting and len(flying) < limit:
                flying.add(self._remote.remote(root, stage.function, waiting.pop()))
            ready, rest = ray.wait(list(flying), num_returns=1)
            flying = set(rest)
            for reference in ready:
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, PipelineError) else error from None
                except ray.exceptions.WorkerCrashedError as error:
                    raise PipelineError(
                        f"{stage.name}: a worker died {CRASHES_PER_TASK + 1} times on the same unit, most likely for want "
                        "of memory; lower WORKERS and run the same command again, finished work is kept"
                    ) from error
                except ray.exceptions.RayError as error:
                    raise PipelineError(
                        f"{stage.name}: Ray failed ({type(error).__name__}); run the same command again, finished work is kept"
                    ) from error

    def _start_ray(self) -> Any:
        if self._ray is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            import ray

            address = os.environ.get("RAY_ADDRESS")
            self.progress.say(f"connecting to Ray at {address}" if address else "starting Ray (about 10 s, once)")
            arguments: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
            if address:
                arguments["address"] = address
            else:
                # "local": without it Ray would join another Ray that happens to run on this machine.
                arguments |= {"address": "local", "num_cpus": self.workers, "include_dashboard": False, "object_store_memory": 100 << 20}
            ray.init(**arguments)
            self._ray = ray
            self._remote = ray.remote(num_cpus=1, max_retries=CRASHES_PER_TASK)(execute)
        return self._ray

    def _note(self, records: list[Record], measured: Measured) -> None:
        if self._journal is None:
            folder = self.store.path("runs")
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = open(folder / f"{time.time_ns()}-{os.getpid()}.jsonl", "w", encoding="utf-8")
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
