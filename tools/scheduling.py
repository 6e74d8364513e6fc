"""What having a unit computed costs beside computing it: 100,000 units that compute nothing go through the engine and Ray.

In: how many. Out: a table, what is to be reached, and a JSON file: microseconds per unit of the driver, of Ray's own processes, of
the workers beside the unit, and, apart, of publishing (a folder, a record, three fsyncs) and of finding what is finished. The units are
small, so that some share a task of Ray's; a tenth as many are so large that each is a task of its own, as parts of 64 MB are.

`python -m tools.scheduling` takes about 5 minutes, 100,000 folders below `.bench/`, which it removes, and 1 GB of memory. Linux only.
"""

import argparse
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pipeline.engine import Engine, Stage, Work
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.terminal import console, titled
from pipeline.unit import Artifact, Json, Unit
from pipeline.workers import TASK_BYTES, TASK_UNITS
from tools import goals

ROOT = Path(__file__).resolve().parents[1]
UNITS = 100_000
WORKERS = 2
SMALL, LARGE = TASK_BYTES // TASK_UNITS, TASK_BYTES + 1  # bytes of input, of which none are read
STAGE = Stage("nothing", "nothing", 1, "tools.scheduling:nothing")
# What is promised: microseconds of CPU per unit, and bytes of the driver's memory per unit.
DRIVER_US, DRIVER_ALONE_US, ALL_US, DRIVER_BYTES = 300, 2_000, 1_000, 5_000


def nothing(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for _ in work:
        yield {}


@dataclass
class Spent:
    """Seconds of the wall's clock, and CPU seconds by kind of process: `driver`, `ray` (its daemons), `workers`."""

    seconds: float = 0.0
    cpu: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench")
    options = parser.parse_args()
    found = measured(options.folder / "scheduling", options.units)
    show(found)
    (options.folder / "scheduling.json").write_text(json.dumps(found, indent=1))


def measured(folder: Path, units: int) -> dict[str, Json]:
    """What so many small units cost, and a tenth as many large ones, in a fresh store below `folder`, which is removed."""
    os.environ.pop("RAY_ADDRESS", None)
    shutil.rmtree(folder, ignore_errors=True)
    store = Store(folder)
    try:
        with Engine(store, WORKERS, Progress()) as engine:
            engine.run(STAGE, made("first", 100, LARGE))  # Ray and its workers start, and the interpreter's modules are loaded
            return {
                "machine": goals.machine(WORKERS),
                "small": _stage(engine, "small", units, SMALL),
                "large": _stage(engine, "large", max(100, units // 10), LARGE),
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made(source: str, count: int, size: int) -> list[Unit]:
    return [STAGE.unit(source, inputs=(Artifact(f"{source}/{number}", f"{number:064x}", size),)) for number in range(count)]


def _stage(engine: Engine, source: str, count: int, size: int) -> dict[str, Json]:
    """Microseconds per unit, in the whole and in parts, and the driver's memory."""
    resident = psutil.Process().memory_info().rss
    units = made(source, count, size)
    for unit in units:
        _ = unit.key  # once made it is kept, and belongs to making units
    with timed() as absent:
        assert not any(engine.store.find_all(units))
    before = _journaled(engine.store)
    with timed() as run:
        engine.run(STAGE, units)
    published = {name: value - before[name] for name, value in _journaled(engine.store).items()}
    with timed() as present:
        assert all(engine.store.find_all(units))
    each = {
        "seconds": run.seconds,
        "driver": run.cpu["driver"] - absent.cpu["driver"],
        "ray": run.cpu["ray"],
        "workers": run.cpu["workers"] - published["cpu_seconds"],
        "publish": published["cpu_seconds"],
        "publish_seconds": published["seconds"],
        "find_absent": absent.cpu["driver"],
        "find_present": present.cpu["driver"],
    }
    microseconds = {name: 1e6 * value / len(units) for name, value in each.items()}
    peak = _peak()
    return {"units": len(units), **microseconds, "driver_mb": peak / (1 << 20), "driver_bytes": (peak - resident) / len(units)}


@contextmanager
def timed() -> Iterator[Spent]:
    spent, wall, cpu = Spent(), time.perf_counter(), _cpu()
    yield spent
    spent.seconds, spent.cpu = time.perf_counter() - wall, _cpu()
    spent.cpu.subtract(cpu)


def _cpu() -> Counter[str]:
    """CPU seconds so far of this process and of those that it started, by kind."""
    seconds = Counter({"driver": time.process_time()})
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
            seconds["workers" if process.name().startswith("ray::") else "ray"] += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return seconds


def _peak() -> int:
    """Bytes of memory that this process had at most. (getrusage would count what it was forked from.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def _journaled(store: Store) -> Counter[str]:
    """What computing and publishing took in the workers, by their own account."""
    sums: Counter[str] = Counter()
    for name in store.files("runs"):
        for line in map(json.loads, store.read(name).splitlines()):
            sums.update({key: line[key] for key in ("seconds", "cpu_seconds")})
    return sums


def show(found: dict[str, Json]) -> None:
    small, large = found["small"], found["large"]
    title = "Microseconds per unit: small ones, of which some share a task, and large ones, each a task of its own"
    table = titled(title, "", f"{small['units']:,} small", f"{large['units']:,} large")
    for name, what in {
        "driver": "CPU of the driver",
        "ray": "CPU of Ray's daemons",
        "workers": "CPU of the workers, beside the unit",
        "publish": "CPU of the unit: publishing it",
        "publish_seconds": "wall of the unit: publishing it",
        "seconds": f"wall of the stage, {found['machine']['workers']} workers",
        "find_absent": "CPU of finding that it is not done",
        "find_present": "CPU of finding that it is done",
    }.items():
        table.add_row(what, f"{small[name]:,.0f}", f"{large[name]:,.0f}")
    table.add_row("memory of the driver at its peak, MiB", f"{small['driver_mb']:,.0f}", "")
    console().print(table)
    goals.show(
        console(),
        goals.judged(
            [
                ("CPU of the driver, µs per small unit", small["driver"], DRIVER_US, False),
                ("CPU of the driver, µs per large unit", large["driver"], DRIVER_ALONE_US, False),
                (
                    "CPU of all beside publishing, µs per small unit",
                    sum(small[kind] for kind in ("driver", "ray", "workers")),
                    ALL_US,
                    False,
                ),
                ("memory of the driver, bytes per small unit", small["driver_bytes"], DRIVER_BYTES, False),
            ]
        ),
    )


if __name__ == "__main__":
    main()
