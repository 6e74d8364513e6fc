"""Files that lie elsewhere → raw files in the store.

In: one file on the hub or at a URL, and what is known of it beforehand. Out: the file, under the last part of its name. Cost: the
network's; a hash while it passes (transfer.py) and the one that publishes it. An unfinished file lies in the store's
`downloads/parts/` on the machine that fetches it, outlives the process, and is gone on with by the next one.

`at_hand` gives the read stage a file of any place: it also fetches, reads and forgets the files of a build that keeps none.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.download import HUB, Remote, hub_file, transfer, url
from pipeline.engine import Stage, Work
from pipeline.store import RECORD, Store
from pipeline.unit import Artifact, Json, Unit

STAGE = Stage("download", "raw", 1, "pipeline.stages.download:download")
PARTS = "downloads/parts"
PLACE = "file"


def units(source: str, files: Sequence[Remote]) -> list[Unit]:
    return [STAGE.unit(source, inputs=(file.artifact,), params={PLACE: file.path}, where={PLACE: file.place}) for file in files]


def download(work: Sequence[Work]) -> Iterator[dict[str, Json]]:
    for item in work:
        wanted, place = item.unit.inputs[0], item.unit.where[PLACE]
        target = item.folder / _plain(wanted.path)
        if place.startswith(HUB):
            os.replace(_fetched(item, wanted, place), target)
        else:
            url.copy(place, wanted, target)
        yield {"bytes": wanted.bytes}


@contextmanager
def at_hand(item: Work, wanted: Artifact, place: str) -> Iterator[str]:
    """The path on this machine of a raw file whose place is a path, a path within the store, or on the hub; from there it is
    fetched, and removed when it was read."""
    if place.startswith(HUB):
        part = _fetched(item, wanted, place)
        yield str(part)
        part.unlink()
    elif Path(place).is_absolute():
        yield place
    else:
        yield str(item.store.local(Artifact(place, wanted.sha256, wanted.bytes)))


def underway(store: Store, units: Sequence[Unit]) -> Callable[[], int]:
    """A function that tells how many bytes of these files have come that are not finished yet, as far as this machine sees."""
    parts = {part_of(store, unit.source, unit.inputs[0], unit.where[PLACE]) for unit in units}
    folder = store.path(PARTS)

    def count() -> int:
        size = 0
        for part in parts.intersection(folder.iterdir()) if folder.is_dir() else ():
            with suppress(FileNotFoundError):  # it has just been finished
                size += part.stat().st_size
        return size

    return count


def part_of(store: Store, source: str, wanted: Artifact, place: str) -> Path:
    """Where a file lies until all of it has come: a name for it alone, so that no two tasks write to one."""
    name = hashlib.sha256(f"{source}\n{place}\n{wanted.sha256}".encode()).hexdigest()[:32]
    return store.path(f"{PARTS}/{name}.part")


def _fetched(item: Work, wanted: Artifact, place: str) -> Path:
    part = part_of(item.store, item.unit.source, wanted, place)
    transfer.fetch(place, wanted, part, hub_file.stream)
    return part


def _plain(name: str) -> str:
    """The last part of a file's name, as a name for it in a folder: what a hub calls a file leads nowhere else."""
    last = re.sub(r"[^A-Za-z0-9._-]", "_", name.rsplit("/", 1)[-1])[-100:]
    return f"_{last}" if last.startswith(".") or last in ("", RECORD) else last
