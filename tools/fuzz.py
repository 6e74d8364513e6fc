"""`make fuzz`: search for inputs that break a reader's promises, for so many minutes, and say what was found.

In: names of targets (tools/fuzzing; all, unless told), minutes, a seed. Out: a table, and under the folder for every target what it
kept (the next run begins there) and each fault's input, made smaller. Exit status 1 if there is a fault. Cost: the minutes, on as many
cores as `--workers` says; each target in a process of its own, which may take 6 GB of address space.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from pipeline import terminal
from pipeline.config import suggestion
from pipeline.errors import ConfigError
from tools.fuzzing.search import Fault
from tools.fuzzing.shrink import shrunk
from tools.fuzzing.target import Parts, loaded, saved

MODULE = "tools.fuzzing.targets"
REPLAYS = 40  # to shrink what ends the process: each is a process of its own
DEATHS = 5  # of one target's process, until the target is left
app = typer.Typer(add_completion=False)


@dataclass
class Outcome:
    """What a target's search came to. cpu: seconds."""

    target: str
    inputs: int = 0
    features: int = 0
    kept: int = 0
    cpu: float = 0.0
    faults: dict[str, Fault] = field(default_factory=dict)

    @property
    def row(self) -> tuple[str, ...]:
        return self.target, f"{self.inputs:,}", f"{self.cpu:,.0f}", f"{self.features:,}", f"{self.kept:,}", f"{len(self.faults)}"


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="in all, on all workers")] = 10.0,
    targets: Annotated[str, typer.Option(help="a,b: these alone")] = "",
    folder: Annotated[Path, typer.Option(help="what is kept and found")] = Path(".fuzz"),
    seed: Annotated[int, typer.Option(help="of the mutations")] = 0,
    workers: Annotated[int, typer.Option(help="processes")] = 1,
) -> None:
    from tools.fuzzing.targets import all_targets

    names = [name for name in targets.split(",") if name] or list(all_targets())
    for name in names:
        if name not in all_targets():
            raise ConfigError(f"targets: there is no {name}{suggestion(name, all_targets())}; there are {', '.join(all_targets())}")
    seconds = 60 * minutes * workers / len(names)
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(lambda name: search(name, folder / name, seconds, seed), names))
    show(outcomes, folder)
    if any(outcome.faults for outcome in outcomes):
        sys.exit(1)


def search(name: str, folder: Path, seconds: float, seed: int, module: str = MODULE) -> Outcome:
    """Search one target for so long, in processes that may die. What is found is under `folder`."""
    outcome, until, deaths = Outcome(name), time.monotonic() + seconds, 0
    shutil.rmtree(folder / "faults", ignore_errors=True)
    while deaths < DEATHS and (left := until - time.monotonic()) > 0:
        before = outcome.inputs, outcome.cpu
        arguments = [module, name, str(folder), "--seconds", str(left), "--seed", str(seed + deaths)]
        with subprocess.Popen(_worker(*arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event.pop("event") == "fault":
                    fault = Fault(**event)
                    outcome.faults[fault.name] = fault
                else:
                    outcome.inputs, outcome.cpu = before[0] + event["inputs"], before[1] + event["cpu"]
                    outcome.features, outcome.kept = event["features"], event["kept"]
        if process.returncode == 0:
            break
        deaths += 1
        _died(outcome, folder, process.returncode, module)
    return outcome


def _died(outcome: Outcome, folder: Path, status: int, module: str) -> None:
    """Keep the input that ended the process."""
    if status > 0:
        raise ConfigError(
            f"the search of {outcome.target} ended with status {status}; run it by hand: {' '.join(_worker(module, outcome.target))}"
        )
    name = signal.Signals(-status).name
    fault = Fault("slow" if name == "SIGPROF" else "signal", f"{outcome.target} {name}", f"the process was ended by {name}")
    parts = loaded(folder / "now")
    if fault.name not in outcome.faults:
        outcome.faults[fault.name] = fault
        saved(parts, folder / "faults" / fault.name)
        if fault.kind == "signal":
            smaller = shrunk(parts, lambda less: _ends(less, outcome.target, folder, status, module), REPLAYS)
            saved(smaller, folder / "faults" / fault.name)


def _ends(parts: Parts, target: str, folder: Path, status: int, module: str) -> bool:
    saved(parts, folder / "replayed")
    worker = _worker(module, target, str(folder), "--replay", str(folder / "replayed"))
    return subprocess.run(worker, capture_output=True, check=False).returncode == status


def _worker(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.fuzzing.worker", *arguments]


def show(outcomes: list[Outcome], folder: Path) -> None:
    """The table, and where each fault's input is."""
    console = terminal.console()
    table = terminal.titled("Inputs tried", "target", "inputs", "CPU-s", "features", "kept", "faults")
    for outcome in outcomes:
        table.add_row(*outcome.row)
    total = sum(outcome.inputs for outcome in outcomes), sum(outcome.cpu for outcome in outcomes)
    table.add_row("all", f"{total[0]:,}", f"{total[1]:,.0f}", "", "", f"{sum(len(outcome.faults) for outcome in outcomes)}")
    console.print(table)
    for outcome in outcomes:
        for name, fault in outcome.faults.items():
            console.print(
                f"{folder / outcome.target / 'faults' / name}: {fault.kind}: {fault.place}: {fault.message.strip().splitlines()[-1][:300]}",
                markup=False,
                style="red",
            )


if __name__ == "__main__":
    terminal.run(app)
