"""The journals, `<store>/runs/*.jsonl`: what each task cost when it was computed, whenever that was.

In: the folders of units. Out: the tasks that computed them as they are now: of all lines that name a unit the last one.
Cost: one pass over the journals, newest first. Not: an account of all work ever done; what was computed anew counts once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.store import Store


@dataclass(frozen=True)
class Task:
    """One or several units of a stage and source that a worker computed together. seconds, cpu_seconds: of the worker. bytes: of text.
    ended: Unix time; None in journals of versions that did not note it."""

    stage: str
    source: str
    seconds: float
    cpu_seconds: float
    peak_rss_mb: float
    bytes: int
    ended: float | None


def tasks(store: Store, folders: Iterable[str]) -> Iterator[Task]:
    """The tasks that computed the units in these folders, each once, the last one first."""
    waiting = set(folders)
    for journal in sorted(store.files("runs"), reverse=True):
        for text in reversed(store.read(journal).splitlines()):
            try:
                line = orjson.loads(text)
                named = {f"{line['stage']}/{line['source']}/{key}" for key in line["units"]} & waiting
                task = _task(line)
            except (ValueError, KeyError, TypeError):
                continue  # the driver was killed while it wrote this line, or it is damaged; the unit's record stands all the same
            if named:
                waiting -= named
                yield task


def _task(line: dict[str, Any]) -> Task:
    seconds, cpu_seconds, peak_rss_mb = (float(line[name]) for name in ("seconds", "cpu_seconds", "peak_rss_mb"))
    ended = None if line.get("ended") is None else float(line["ended"])
    return Task(line["stage"], line["source"], seconds, cpu_seconds, peak_rss_mb, int(line["bytes"]), ended)
