"""What a benchmark is to reach: each goal beside what was found, as a table and as JSON; and the machine that it ran on."""

import os
import platform
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from pipeline.terminal import titled
from pipeline.unit import Json

Goal = tuple[str, float, float, bool]  # what; found; asked; whether that is the least (True) or the most


def judged(goals: Iterable[Goal]) -> list[dict[str, Json]]:
    return [
        {"what": what, "found": found, "asked": asked, "enough": found >= asked if least else found <= asked}
        for what, found, asked, least in goals
    ]


def show(console: Console, reached: Sequence[dict[str, Json]]) -> None:
    table = titled("What is to be reached", "", "found", "asked", "")
    for line in reached:
        verdict = "reached" if line["enough"] else Text("falls short", "red")
        table.add_row(line["what"], f"{line['found']:,.2f}", f"{line['asked']:,.0f}", verdict)
    console.print(table)


def machine(workers: int) -> dict[str, Json]:
    return {
        "python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count(), "workers": workers,
        "load": os.getloadavg(),
    }  # fmt: skip
