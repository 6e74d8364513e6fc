"""Ray: starts one on this machine or joins a cluster's, hands it tasks, and says in plain words what went wrong with it.

In: lists of units. Out: their records, in the order in which they get done. Ray holds no state that matters: a task of which the
worker or the node dies is run again elsewhere; when the head, the driver or the whole cluster dies, the next run finds what is done.

A node joins a run only with the driver's own code and libraries, and only if it sees the driver's store. Both are checked by the
first task in every worker process, on nodes that come later too.

Cost: some 0.9 ms of CPU per task in the driver, so that small units share one; memory for `IN_FLIGHT_PER_CORE` tasks' descriptions
and results. Nothing goes through Ray's object store, unless a description or a record is larger than 100 kB.
Not: for deciding what is to be done (engine.py).
"""

import hashlib
import importlib.metadata
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.engine import Measured, execute
from pipeline.errors import ConfigError, PipelineError
from pipeline.store import Store
from pipeline.unit import Artifact, Json, Record, Unit

IN_FLIGHT_PER_CORE = 4  # tasks that Ray knows of: enough that a core never waits for the driver
TASK_BYTES = 1_000_000  # of input: up to so much, and
TASK_UNITS = 32  # so many units, small units share a task
DEATHS_PER_TASK = 4  # a task whose worker or node dies is run again this often
OBJECT_STORE_BYTES = 100 << 20  # of an embedded Ray; the least that it accepts is 75 MiB
LOOK_SECONDS = 5.0
ALIVE = 0  # GcsNodeInfo.GcsNodeState of Ray's gcs.proto
SILENT_SECONDS = 40.0  # Ray would end this process, without a word of ours, after 60

Results = list[tuple[list[tuple[tuple[Artifact, ...], Mapping[str, Json]]], Measured]]


@dataclass(frozen=True)
class Driver:
    """What a worker must have in common with the driver: its code, its libraries, and the store, where `file` is new."""

    place: str
    file: str
    code: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, store: Store, file: str) -> "Driver":
        try:
            required = importlib.metadata.requires("tokenmill") or []
        except importlib.metadata.PackageNotFoundError:
            required = []
        names = [line.split(";")[0].rstrip("<>=!~.,0123456789") for line in required if "extra ==" not in line]
        return cls(store.place, file, code(), {name: version(name) for name in names})


class Workers:
    """Ray's workers, for one run. Raises PipelineError or ConfigError when they cannot be had."""

    def __init__(self, cores: int, driver: Driver, say: Callable[[str], None]) -> None:
        """Starts an embedded Ray of `cores`, about 10 s and 17 CPU-seconds, or joins the one that RAY_ADDRESS names."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        address = os.environ.get("RAY_ADDRESS")
        say(f"connecting to Ray at {address}" if address else "starting Ray (about 10 s, once)")
        if address and ":" in address and "://" not in address:
            _await_head(address)
        import ray

        if address:
            where: dict[str, Any] = {"address": address}
        else:
            # "local": without it Ray would join another Ray that happens to run on this machine.
            where = {"address": "local", "num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.AuthenticationError) as error:
            if "AuthToken" in f"{error} {error.__cause__}" or isinstance(error, ray.exceptions.AuthenticationError):
                raise ConfigError(
                    f"RAY_ADDRESS={address}: this Ray asks for a token; set RAY_AUTH_MODE=token, and have the cluster's token in "
                    "RAY_AUTH_TOKEN or ~/.ray/auth_token, here and on every node (docs/cluster.md)"
                ) from error
            raise ConfigError(
                f"RAY_ADDRESS={address}: {str(error).strip().splitlines()[0]}; it must be the host:port of a running Ray, and this "
                "machine one of its nodes (docs/cluster.md)"
            ) from error
        # What Ray's daemons have to say it would print among our output, their state included; what a person needs of it we say.
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
        self._ray, self._driver, self._say, self._joined = ray, driver, say, bool(address)
        self._compute = ray.remote(num_cpus=1, max_retries=DEATHS_PER_TASK)(compute)
        self._head = ray.get_runtime_context().gcs_address
        joined: Any = ray._private.worker.global_worker
        self._directory = joined.gcs_client
        self._cores = cores
        self._nodes = -1
        self._answered, self._looked = time.monotonic(), float("-inf")

    def close(self) -> None:
        self._ray.shutdown()

    def run(self, stage: str, function: str, tasks: Sequence[list[Unit]]) -> Iterator[tuple[list[Record], Measured]]:
        """Compute each task's units together; yields their records and what they cost."""
        waiting = sorted(tasks, key=_size)  # popped largest first: no straggler at the end
        flying: dict[Any, list[list[Unit]]] = {}
        while waiting or flying:
            self._look(stage)
            limit = IN_FLIGHT_PER_CORE * self._cores
            while waiting and len(flying) < limit:
                batch = popped(waiting, at_most=1 + len(waiting) // limit)
                flying[self._compute.remote(self._driver, function, batch)] = batch
            for reference in self._ready(list(flying)):
                batch = flying.pop(reference)
                for units, (results, measured) in zip(batch, self._result(stage, reference), strict=True):
                    yield [Record(unit, *result) for unit, result in zip(units, results, strict=True)], measured

    def _ready(self, references: list[Any]) -> list[Any]:
        """Those that are done: all of them, or none after some seconds."""
        first, others = self._ray.wait(references, num_returns=1, timeout=LOOK_SECONDS)
        if not first or not others:
            return first
        return [*first, *self._ray.wait(others, num_returns=len(others), timeout=0)[0]]

    def _result(self, stage: str, reference: Any) -> Results:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, PipelineError):
                raise error.cause from None
            if missing := re.search(r"ip=([^,)]+).*No module named ('.*?')", str(error), re.DOTALL):
                raise PipelineError(f"{stage}: node {missing[1]} has no {missing[2]}: {_SAME_CODE}") from None
            raise error from None
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            raise PipelineError(
                f"{stage}: the worker or the node died {DEATHS_PER_TASK + 1} times on the same unit, most likely for want of memory; "
                f"{'give nodes fewer cores (ray start --num-cpus)' if self._joined else 'lower WORKERS'} and run the same command "
                "again, finished work is kept"
            ) from error
        except errors.RayError as error:
            raise PipelineError(
                f"{stage}: Ray failed ({type(error).__name__}); run the same command again, finished work is kept"
            ) from error

    def _look(self, stage: str) -> None:
        """Every few seconds: is the head alive, how many nodes and cores are there?"""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if not _answers(self._head):
            if now - self._answered > SILENT_SECONDS:
                raise PipelineError(
                    f"{stage}: the head of Ray, {self._head}, has not answered for {now - self._answered:.0f} s; when it is up again "
                    "run the same command again, finished work is kept"
                )
            return
        # ray.nodes() would end this process, with a stack trace, if another head answers.
        try:
            nodes = self._directory.get_all_node_info(timeout=LOOK_SECONDS)
        except self._ray.exceptions.RayError as error:
            if "WrongClusterID" not in str(error):
                return
            raise PipelineError(
                f"{stage}: at {self._head} answers another head of Ray than the one that this run began with; run the same command "
                "again, finished work is kept"
            ) from error
        self._answered = now
        cores = [int(node.resources_total.get("CPU", 0)) for node in nodes.values() if node.state == ALIVE]
        self._cores = max(1, sum(cores))
        working = sum(core > 0 for core in cores)
        if self._joined and working != self._nodes:
            self._nodes = working
            self._say(f"Ray has {sum(cores)} cores on {working} nodes" + ("" if working else "; waiting for one to join"))


def compute(driver: Driver, function: str, batch: list[list[Unit]]) -> Results:
    """What runs on a node: each task of the batch, after this process was found fit to."""
    try:
        check(driver.place, driver.file, driver.code, tuple(driver.versions.items()))
        done = [execute(driver.place, function, units) for units in batch]
    except PipelineError as error:
        raise type(error)(f"{error} (on node {node()})") from error
    return [([(record.outputs, record.counts) for record in records], measured) for records, measured in done]


@cache
def check(place: str, file: str, driver_code: str, versions: tuple[tuple[str, str], ...]) -> None:
    """Raise PipelineError unless this process has the driver's code, libraries and store."""
    if code() != driver_code:
        raise PipelineError(f"the code of tokenmill is another than the driver's: {_SAME_CODE}")
    others = [f"{name} is {version(name)}, the driver's {theirs}" for name, theirs in versions if version(name) != theirs]
    if others:
        raise PipelineError(f"{', '.join(others)}: {_SAME_CODE}")
    try:
        Store(place).open(file).close()
    except OSError as error:
        raise PipelineError(
            f"{file}, which the driver wrote into {place}, is not there: STORE must be a folder that all nodes share at the same path, "
            "or a URL such as s3://bucket/prefix"
        ) from error


_SAME_CODE = "install the same tokenmill with the same constraints on every node (docs/cluster.md), and run the same command again"


@cache
def code() -> str:
    """sha256 over the files of this package."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def node() -> str:
    import ray

    return f"{socket.gethostname()}, {ray.util.get_node_ip_address()}"


def _size(task: list[Unit]) -> int:
    return task[0].input_bytes


def popped(waiting: list[list[Unit]], at_most: int) -> list[list[Unit]]:
    """The next task, or several if they are small."""
    batch = [waiting.pop()]
    size, units = _size(batch[0]), len(batch[0])
    while waiting and len(batch) < at_most and size + _size(waiting[-1]) <= TASK_BYTES and units + len(waiting[-1]) <= TASK_UNITS:
        batch.append(waiting.pop())
        size, units = size + _size(batch[-1]), units + len(batch[-1])
    return batch


def _await_head(address: str) -> None:
    """Ray itself would try for minutes, and say so in its own words."""
    until = time.monotonic() + SILENT_SECONDS
    while not _answers(address):
        if time.monotonic() > until:
            raise ConfigError(f"RAY_ADDRESS={address}: nothing answers there; start the head, ray start --head (docs/cluster.md)")
        time.sleep(1)


def _answers(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True
