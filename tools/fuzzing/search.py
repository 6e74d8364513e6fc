"""The loop: mutate an input that did something new, run it, keep it if it does something new again.

In: a target, its seeds and what earlier searches kept. Out: counts, inputs worth keeping, and faults: an exception that is no
refusal, a promise broken, too much CPU, too much memory, or other lines for the same input. Cost: each input once under trace;
inputs that are kept run a second time without it, for the comparison.
"""

from __future__ import annotations

import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from tools.fuzzing.coverage import Coverage, Feature
from tools.fuzzing.mutation import mutated
from tools.fuzzing.target import MEGABYTES, Broken, Parts, Target

SHAPES = 64  # of one input's lines, at most
NUMBERS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{32,}\b|\d+")
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|b'.*")
MEMORY = "/dev/shm"  # where Linux keeps files in memory: making folders elsewhere takes longer than most inputs
MAXRSS_PER_MEGABYTE = 1 << 20 if sys.platform == "darwin" else 1 << 10  # getrusage counts bytes there, KiB elsewhere


@dataclass(frozen=True)
class Fault:
    """A promise that an input broke. Two faults are the same if kind and place are."""

    kind: str  # exception, promise, slow, memory, unequal; and of a process that died: signal
    place: str
    message: str

    @property
    def name(self) -> str:
        """A file name for it."""
        return f"{self.kind}-{sha256(self.place.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """What one input did. lines: what came of it, or the refusal."""

    lines: tuple[str, ...]
    fault: Fault | None
    features: frozenset[Feature]
    seconds: float  # of CPU


@dataclass
class Search:
    """One target's search. `kept`: the inputs that did something new, seeds first."""

    target: Target
    random: Random
    kept: list[Parts] = field(default_factory=list)
    features: set[Feature] = field(default_factory=set)
    inputs: int = 0

    def __post_init__(self) -> None:
        self._coverage = Coverage(self.target.watched)

    def begin(self, found: Sequence[Parts] = ()) -> Iterator[tuple[Parts, Fault]]:
        """Run the seeds and what was found earlier; of the latter only what does something new is kept. Yields faults."""
        seeds = self.target.seeds
        self.kept += seeds
        examined(self.target, seeds[0])  # whatever it imports and compiles is not to be traced
        for parts in (*seeds, *found):
            yield from self._step(parts)

    def step(self) -> Iterator[tuple[Parts, Fault]]:
        """Run one new input. Yields its faults."""
        # Of three the shortest: it is the quickest to run, and most of it matters.
        chosen = min(self.random.choices(self.kept, k=3), key=lambda parts: sum(map(len, parts)))
        yield from self._step(mutated(chosen, self.target, self.kept, self.random))

    def _step(self, parts: Parts) -> Iterator[tuple[Parts, Fault]]:
        self.inputs += 1
        ran = examined(self.target, parts, self._coverage)
        if ran.fault is not None:
            yield parts, ran.fault
        elif not ran.features <= self.features:
            self.features |= ran.features
            if parts not in self.kept:
                self.kept.append(parts)
            again = examined(self.target, parts)
            if again.fault is None and again.lines != ran.lines:
                yield parts, Fault("unequal", self.target.name, f"first {_first_difference(ran.lines, again.lines)}")


def examined(target: Target, parts: Parts, coverage: Coverage | None = None) -> Run:
    """Run one input; traced if a coverage is given."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY if Path(MEMORY).is_dir() else None))
    highest, began = _megabytes(), time.process_time()
    fault: Fault | None = None
    try:
        with coverage or _Untraced():
            lines = tuple(target.run(parts, folder))
    except target.refusals as error:
        lines = (f"refused: {error}".replace(str(folder), ""),)
        if not str(error).strip():
            fault = Fault("promise", f"{type(error).__name__} without a message", "")
    except Broken as error:
        lines, fault = (), Fault("promise", _shape(str(error)), str(error))
    except BaseException as error:  # natives raise what is no Exception: pyo3's PanicException
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        lines, fault = (), Fault("exception", _place(error), "".join(traceback.format_exception(error)[-6:]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds, grown = time.process_time() - began, _megabytes() - highest
    if fault is None and grown > MEGABYTES:
        fault = Fault("memory", target.name, f"{grown:.0f} MB more for {sum(map(len, parts))} bytes")
    if fault is None and seconds > target.seconds:
        if coverage is not None:  # tracing may be what took so long
            return examined(target, parts)
        fault = Fault("slow", target.name, f"{seconds:.1f} s of CPU for {sum(map(len, parts))} bytes")
    features = coverage.features() if coverage else set()
    features |= {_shape(line) for line in lines[:SHAPES]}
    return Run(lines, fault, frozenset(features), seconds)


class _Untraced:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def _shape(line: str) -> str:
    """A line without its numbers and quotations: what kind of thing was said."""
    return NUMBERS.sub("0", QUOTED.sub("_", line[:300]))


def _place(error: BaseException) -> str:
    """The exception's type and the last line of our own code that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename]
    own = [frame for frame in frames if "/pipeline/" in frame.filename or "/trainer/" in frame.filename] or frames
    last = own[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.name}: {last.line}"


def _first_difference(first: Sequence[str], second: Sequence[str]) -> str:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"{one[:200]!r}, then {other[:200]!r}"
    return f"{len(first)} lines, then {len(second)}"


def _megabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MAXRSS_PER_MEGABYTE
