"""A file from elsewhere → the same file on this disk, whole, with the hash it was said to have.

In: a place, what must be there, and a `Stream` that reads the place from any byte on. Out: a part file that holds all of it.
Cost: one hash while it passes; of a part that an earlier process left, one read to hash what is there. Memory of one block.

A connection that breaks, is refused for a while (429, 5xx) or crawls is opened again where the part ends, after a pause that
doubles and is spread by a jitter (seeded by the file, so that tasks do not come back together), or as long as the server
asks. Attempts are counted from the last megabyte that came: a poor line finishes, a dead server is given up. What arrived is
kept, and the next run goes on from there.

Not: If-Range. The hub sends readers to changing storage hosts, whose ETags are not the file's. A part is named after its
place and stated hash instead, files of a commit never change, and the hash is what counts in the end: bytes that do not match it
are fetched once more from the first, and then refused.
"""

import hashlib
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PipelineError
from pipeline.files import BLOCK
from pipeline.unit import Artifact

ATTEMPTS = 8  # without a megabyte of progress between them
PROGRESS_BYTES = 1 << 20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LONGEST_ASKED_S = 600.0  # a server that asks for a longer pause is asked again before
STALL_S, STALL_BYTES = 60.0, 60_000  # a connection that brings less than this in that time is given up
GIT = "git:"

# `stream(place, offset)`: the bytes of a place from an offset on, in blocks, each with where it begins; a server that knows no
# ranges begins at 0. Raises Broken where another try is worth it, PipelineError where it is not.
Stream = Callable[[str, int], Generator[tuple[int, bytes]]]


class Broken(Exception):
    """An attempt that failed and may succeed later; `pause`: the seconds that the server asks to wait."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def fetch(place: str, wanted: Artifact, part: Path, stream: Stream) -> None:
    """Make `part` the file at `place`. `wanted.sha256` is one, or `git:` and a blob's id. Raises PipelineError where the file
    cannot be had or is another."""
    part.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        found = _complete(place, wanted, part, stream)
        if found == wanted.sha256:
            return
        part.unlink()
    raise PipelineError(
        f"{place} arrived damaged, twice: its hash should be {wanted.sha256} and is {found}; a proxy or a mirror may have changed it "
        "(HTTPS_PROXY, HF_ENDPOINT); run the same command again"
    )


def _complete(place: str, wanted: Artifact, part: Path, stream: Stream) -> str:
    """Append to `part` until it has the wanted size; its hash."""
    with open(part, "a+b") as sink:
        if sink.tell() > wanted.bytes:
            sink.truncate(0)
        hashed = _Hash(wanted)
        sink.seek(0)
        while block := sink.read(BLOCK):
            hashed.update(block)
        failures, mark = 0, hashed.bytes
        while hashed.bytes < wanted.bytes:
            try:
                with closing(stream(place, hashed.bytes)) as blocks:
                    _append(_steady(blocks), sink, hashed, wanted.bytes)
                if hashed.bytes < wanted.bytes:
                    raise Broken(f"the connection ended after {hashed.bytes} of {wanted.bytes} bytes")
            except Broken as error:
                sink.flush()
                if hashed.bytes >= mark + PROGRESS_BYTES:
                    failures, mark = 0, hashed.bytes
                failures += 1
                if failures == ATTEMPTS:
                    raise PipelineError(
                        f"{place} could not be downloaded: {error}, after {ATTEMPTS} attempts; check the network and the proxy "
                        "(HTTPS_PROXY); what arrived is kept, the same command goes on from there"
                    ) from None
                time.sleep(_pause(place, failures, error.pause))
        return hashed.stated


def _append(blocks: Iterator[tuple[int, bytes]], sink: BinaryIO, hashed: "_Hash", size: int) -> None:
    """Write blocks to the end of the part, or from its beginning if the server gives the whole file."""
    for start, block in blocks:
        if start != hashed.bytes:
            sink.truncate(0)
            hashed.reset()
            if start:
                raise Broken(f"the server began at byte {start}")
        if start + len(block) > size:
            sink.truncate(0)
            hashed.reset()
            raise Broken(f"more than the listed {size} bytes came")
        sink.write(block)
        hashed.update(block)


def _steady(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The blocks, as long as they come at more than a crawl: a server that drips lets no time-out fire."""
    since, came = time.monotonic(), 0
    for start, block in blocks:
        yield start, block
        came += len(block)
        passed = time.monotonic() - since
        if passed > STALL_S:
            if came < STALL_BYTES:
                raise Broken(f"only {came} bytes came in {passed:.0f} s")
            since, came = time.monotonic(), 0


def _pause(place: str, failures: int, asked: float) -> float:
    """Seconds: doubled each time and spread by half, or what the server asks for if that is longer."""
    spread = random.Random(f"{place} {failures}").uniform(0.5, 1.5)
    return max(min(asked, LONGEST_ASKED_S), min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S) * spread)


class _Hash:
    """The hash of a file whose size is known beforehand, in the form that it was stated in."""

    def __init__(self, wanted: Artifact) -> None:
        self._size, self._git = wanted.bytes, wanted.sha256.startswith(GIT)
        self.reset()

    def reset(self) -> None:
        self._digest = hashlib.sha1(b"blob %d\0" % self._size) if self._git else hashlib.sha256()
        self.bytes = 0

    def update(self, block: bytes) -> None:
        self._digest.update(block)
        self.bytes += len(block)

    @property
    def stated(self) -> str:
        return (GIT if self._git else "") + self._digest.hexdigest()
