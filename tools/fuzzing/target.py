"""A target: one reader of foreign bytes, how to run it on one input, and what must hold.

An input is a tuple of parts, the files that the target reads; most targets read one. What must hold for every input:
`run` returns, or raises one of `refusals` with a message; it takes at most `SECONDS` of CPU and `MEGABYTES` of memory; the same input
gives the same lines again. Whatever else must hold, `run` checks itself, and says with `Broken`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.errors import PipelineError

Parts = tuple[bytes, ...]

SECONDS = 3.0  # of CPU, for one input of at most PART_BYTES
MEGABYTES = 700  # by which one input may raise the process's memory: zstd's window alone may be 128 MiB
PART_BYTES = 64 << 10  # of an input's part, as it lies on the disk


class Broken(Exception):
    """A promise that does not hold: said by a target of what came out."""


@dataclass(frozen=True)
class Layer:
    """A wrapping that hides content from mutation: compression, a checksum. `open` may raise anything where it cannot be opened."""

    open: Callable[[bytes], bytes]
    close: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Target:
    """run: one input, in an empty folder → a line of text for each thing that came out, equal for equal inputs.

    watched: the modules whose lines count as coverage, by the beginnings of their names. tokens: what its format is made of. layers: one
    for each part, or none. invent: an input made from nothing. refusals: the exceptions that `run` may raise.
    """

    name: str
    seeds: Sequence[Parts]
    run: Callable[[Parts, Path], list[str]]
    watched: tuple[str, ...]
    tokens: tuple[bytes, ...] = ()
    layers: tuple[tuple[Layer, ...], ...] = ()
    invent: Callable[[Random], Parts] | None = None
    refusals: tuple[type[Exception], ...] = (PipelineError,)
    seconds: float = SECONDS
    limit: int = PART_BYTES  # of a part's bytes, less where reading is slow


def must(holds: bool, promise: str) -> None:
    """Raise `Broken` unless it holds."""
    if not holds:
        raise Broken(promise)


def saved(parts: Parts, folder: Path) -> None:
    """Write an input's parts to a folder, one file each: 0, 1, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        (folder / str(number)).write_bytes(part)


def loaded(folder: Path) -> Parts:
    """What `saved` wrote."""
    return tuple((folder / str(number)).read_bytes() for number in range(len(list(folder.iterdir()))))
