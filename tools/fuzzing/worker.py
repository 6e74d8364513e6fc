"""One target's search in a process of its own, which may die of what it reads.

In: a target's name and module, a folder (`kept/` has what earlier searches found), seconds, a seed. Out: JSON lines on stdout, `tried`
once a second and `fault` for each new fault; in the folder, `now/` is always the input being run, so that it is known when the process
is killed by it. Each input may take `target.seconds` × 10 of CPU; the timer that then ends the process reaches native code too.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from random import Random

from tools.fuzzing.search import Fault, Search, examined
from tools.fuzzing.shrink import shrunk
from tools.fuzzing.target import Parts, Target, loaded, saved

ADDRESS_SPACE = 6 << 30
PATIENCE = 10  # times a target's seconds, until the process is ended


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--inputs", type=int, default=1 << 62)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=Path, help="run this one saved input and report its fault")
    given = parser.parse_args()
    target: Target = importlib.import_module(given.module).target(given.target)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, hard))
    if given.replay:
        _limit(target)
        if fault := examined(target, loaded(given.replay)).fault:
            _say("fault", **asdict(fault))
        return
    _search(target, given.folder, given.seconds, given.inputs, given.seed)


def _search(target: Target, folder: Path, seconds: float, inputs: int, seed: int) -> None:
    began, said, cpu = time.monotonic(), 0.0, time.process_time()
    kept, now = folder / "kept", folder / "now"
    found = [loaded(path) for path in sorted(kept.iterdir())] if kept.exists() else []
    search = Search(_recorded(target, now), Random(f"{seed} {target.name}"))
    known: set[tuple[str, str]] = set()
    for fault in _faults(search, found, began + seconds, inputs):
        if fault is not None and (fault[1].kind, fault[1].place) not in known:
            known.add((fault[1].kind, fault[1].place))
            _report(target, folder, *fault)
        if time.monotonic() > said + 1:
            said = time.monotonic()
            _say("tried", inputs=search.inputs, features=len(search.features), kept=len(search.kept), cpu=time.process_time() - cpu)
    for parts in search.kept[len(target.seeds) :]:
        saved(parts, kept / sha256(b"\x00".join(parts)).hexdigest()[:16])
    _say("tried", inputs=search.inputs, features=len(search.features), kept=len(search.kept), cpu=time.process_time() - cpu)


def _faults(search: Search, found: list[Parts], until: float, inputs: int) -> Iterator[tuple[Parts, Fault] | None]:
    """Every fault, and None after every input."""
    yield from search.begin(found)
    while time.monotonic() < until and search.inputs < inputs:
        yield from search.step()
        yield None


def _recorded(target: Target, now: Path) -> Target:
    """The target, writing down each input before it is run, and limiting its time."""
    from dataclasses import replace

    def run(parts: Parts, folder: Path) -> list[str]:
        saved(parts, now)
        _limit(target)
        return target.run(parts, folder)

    return replace(target, run=run)


def _limit(target: Target) -> None:
    """End this process if the CPU time until the next call of this is too long (SIGPROF ends what does not handle it)."""
    signal.setitimer(signal.ITIMER_PROF, PATIENCE * target.seconds)


def _report(target: Target, folder: Path, parts: Parts, fault: Fault) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    if fault.kind in ("exception", "promise"):
        parts = shrunk(parts, lambda smaller: _same(examined(target, smaller).fault, fault))
    saved(parts, folder / "faults" / fault.name)
    _say("fault", **asdict(fault))


def _same(found: Fault | None, fault: Fault) -> bool:
    return found is not None and (found.kind, found.place) == (fault.kind, fault.place)


def _say(event: str, **values: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
