"""How long each stage took, on how many cores.

In: the journals' lines about the mix's units, whenever these were computed: each task's seconds and when it ended. Out: per stage the time
in which any task of it ran, how many ran at once, on average and at most, CPU seconds, memory; and the CPU seconds of each source.
Not: the wall time of one `make mix`, since a build finds what earlier ones computed. Journals that do not say when a task ended give the
tasks' seconds and CPU seconds alone.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline.catalog import STAGES
from pipeline.journal import Task, tasks
from pipeline.release import is_released
from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.mix.marks import BLUE, GREY, Spec, at_right, coloured, columns, each, quantity
from tools.report.mix.sources import BuiltMix

WIDTH = 400  # px of the bars; what they say in words stands to their right
BARS = {"time": BLUE, "CPU time": GREY}


class Span(NamedTuple):
    """seconds in which any task ran; cores: tasks at once, on average and at most."""

    seconds: float
    cores: float
    most: int


def span(done: Sequence[Task]) -> Span | None:
    """None when it is not known when a task ended."""
    moments: list[tuple[float, int]] = []
    for task in done:
        if task.ended is None:
            return None
        moments += [(task.ended - task.seconds, 1), (task.ended, -1)]
    seconds, running, most, last = 0.0, 0, 0, 0.0
    for time, change in sorted(moments):
        seconds += time - last if running else 0.0
        running, last = running + change, time
        most = max(most, running)
    return Span(seconds, sum(task.seconds for task in done) / seconds if seconds else float(len(done)), most)


def section(mix: BuiltMix) -> Section:
    by_stage: dict[str, list[Task]] = defaultdict(list)
    for task in _tasks(mix):
        by_stage[task.stage].append(task)
    named = {stage.name: by_stage[stage.output] for stage in STAGES if by_stage[stage.output]}
    if not named:
        return Section("mix-times", "How long it took", [Text("No journal of this store says what the mix's units cost.")])
    blocks: list[Block] = [_chart(named), _table(named), _by_source(named, [source.name for source in mix.sources])]
    return Section("mix-times", "How long it took", blocks)


def _tasks(mix: BuiltMix) -> Iterator[Task]:
    """Those of the mix's units; of a source that came in a release, whose books have sums, one for each stage."""
    built = [source for source in mix.sources if not is_released(source.entry)]
    yield from tasks(mix.store, {folder for source in built for units in source.entry.get("units", {}).values() for folder in units})
    for source in mix.sources:
        for cost in source.entry.get("costs", []) if is_released(source.entry) else []:
            if cost["units"]:
                spent, used = float(cost["seconds"]), float(cost["cpu_seconds"])
                yield Task(cost["output"], source.name, spent, used, float(cost["peak_rss_mb"] or 0), int(cost["bytes"]), ended=None)


def _chart(named: dict[str, list[Task]]) -> Chart:
    rows: list[list[Cell]] = []
    for stage, done in named.items():
        used, spent, together = sum(task.cpu_seconds for task in done), sum(task.seconds for task in done), span(done)
        words = f"{_time(together.seconds)} on {_cores(together)}" if together else f"{_time(spent)} of workers"
        rows += [[stage, "time", together.seconds if together else spent, words], [stage, "CPU time", used, f"{_time(used)} of CPU"]]
    spec: Spec = {
        "width": WIDTH,
        "height": {"step": 14},
        "encoding": {
            "y": each("stage", scale={"paddingInner": 0.3}),
            "yOffset": {"field": "what", "sort": list(BARS)},
            "tooltip": [{"field": name} for name in ("stage", "what", "in words")],
        },
        "layer": [
            {
                "mark": "bar",
                "encoding": {"x": quantity("seconds", title="seconds", axis={"tickCount": 6}), "color": coloured("what", BARS, BARS)},
            },
            at_right("in words"),
        ],
    }
    caption = (
        "time: while any task of the stage ran, and on how many cores at once, on average and at most. CPU time: of all tasks together. "
        "Whenever a part was computed, it counts once."
        if any(span(done) for done in named.values())
        else "time: of all workers together, since the journals do not say when tasks ran. CPU time: of all tasks together."
    )
    return Chart("Time per stage", columns(["stage", "what", "seconds", "in words"], rows), spec, caption)


def _table(named: dict[str, list[Task]]) -> Table:
    rows: list[list[Cell]] = []
    for stage, done in named.items():
        together, used, size = span(done), sum(task.cpu_seconds for task in done), sum(task.bytes for task in done) / 1e6
        whole: list[Cell] = [together.seconds, together.cores, together.most] if together else [None, None, None]
        spent, peak = sum(task.seconds for task in done), max(task.peak_rss_mb for task in done)
        rows.append([stage, size, *whole, spent, used, size / used if used else None, peak])
    headings = ["stage", "MB", "seconds", "cores", "at most", "worker s", "CPU s", "MB per CPU s", "peak MiB"]
    caption = (
        "seconds: in which any task of the stage ran. cores, at most: tasks at once, on average and at most. worker s, CPU s: of all tasks "
        "together. MB: of the text that the stage was about. peak MiB: of the largest worker."
    )
    return Table("Stages", headings, rows, caption)


def _by_source(named: dict[str, list[Task]], sources: list[str]) -> Chart:
    cost: dict[tuple[str, str], float] = defaultdict(float)
    for stage, done in named.items():
        for task in done:
            cost[stage, task.source] += task.cpu_seconds
    used = "CPU seconds"
    shade = quantity(used, scale={"type": "sqrt", "range": [0.03, 0.6]}, legend=None)
    spec: Spec = {
        "height": {"step": 20},
        "encoding": {
            "y": each("stage"),
            "x": {**each("source"), "sort": sources, "axis": {"orient": "top", "labelAngle": 0, "labelLimit": 90}},
            "tooltip": [{"field": "stage"}, {"field": "source"}, quantity(used, ",.3f")],
        },
        "layer": [
            {"mark": {"type": "rect", "color": BLUE}, "encoding": {"opacity": shade}},
            {"mark": {"type": "text", "fontSize": 10}, "encoding": {"text": quantity(used, ",.2~f")}},
        ],
    }
    rows: list[list[Cell]] = [[stage, source, seconds] for (stage, source), seconds in cost.items()]
    caption = "The stronger the colour of a cell, the more CPU time the stage took for the source."
    return Chart("CPU seconds per stage and source", columns(["stage", "source", used], rows), spec, caption)


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def _cores(together: Span) -> str:
    return "one core" if together.most == 1 else f"{together.cores:.1f} cores, {together.most} at most"
