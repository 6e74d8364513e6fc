"""`make chaos`: for so many minutes, build a small mix while a saboteur does what he can, repair it, and compare.

In: minutes, a seed. Out: a line per round, a table of the faults by kind, and the same as JSON. Exit status 1 if anything was lost: a
fault after which a store did not come back, byte for byte, to what nobody disturbed, or a damaged file that nobody found. Rounds are in
turn on a folder, on object storage (a server of our own, tools/s3_server.py, that also fails), on a disk that is too small, and on Ray;
each comes once at least. Cost: the minutes, two cores, some MB of disk. A seed says what the saboteur tries; at which moment of a run a
blow falls is not the same twice.
"""

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from pipeline import terminal
from tools.s3_server import serve
from tools.saboteur import corpus
from tools.saboteur.faults import DAMAGES, KINDS
from tools.saboteur.rounds import Round, undisturbed

TURNS = ("folder", "s3", "full disk", "ray", "folder", "s3", "folder", "full disk", "s3", "folder", "s3", "full disk")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    minutes: Annotated[float, typer.Option(help="after which no round begins, once each place had one")] = 10.0,
    seed: Annotated[int, typer.Option(help="of what the saboteur does")] = 0,
    out: Annotated[Path, typer.Option(help="where the JSON goes")] = Path(".bench/chaos.json"),
) -> None:
    console, folder = terminal.console(), Path(tempfile.mkdtemp(prefix="chaos-"))
    begun = time.monotonic()
    rounds = []
    with serve() as s3:
        documents = corpus.write(folder / "home")
        peace = undisturbed(folder / "home", documents, folder / "undisturbed")
        for number in count():
            setting = TURNS[number % len(TURNS)]
            if number >= 4 and time.monotonic() - begun > 60 * minutes:
                break
            played = Round(setting, f"{seed}/{number}", folder / "home", folder / f"round-{number}", peace, s3)
            played.play()
            rounds.append(played)
            console.print(f"{number:>3} {setting:<9} {_told(played)}", markup=False)
            if not played.wrong:
                shutil.rmtree(played.work)
    seconds = time.monotonic() - begun
    console.print(table(rounds, seconds))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(_report(rounds, seed, seconds), indent=1))
    if any(played.wrong for played in rounds):
        console.print(f"what is left of the lost rounds is under {folder}", style="red")
        sys.exit(1)
    shutil.rmtree(folder)


def table(rounds: Sequence[Round], seconds: float) -> Table:
    """Faults by kind. All faults of a round that is wrong count as lost, since nobody can say which one it was."""
    shown = terminal.titled(
        f"{len(rounds)} rounds in {seconds / 60:.0f} minutes", "fault", "injected", "survived", "found by the next run", "by verify", "lost"
    )
    for kind, counts in tally(rounds).items():
        found = (f"{counts['next run']:,}", f"{counts['verify']:,}") if kind in DAMAGES or kind == "all" else ("", "")
        shown.add_row(kind, f"{counts['injected']:,}", f"{counts['survived']:,}", *found, f"{counts['lost']:,}")
    return shown


def tally(rounds: Sequence[Round]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in (*KINDS, "all")}
    for played in rounds:
        for fault in played.injected:
            for kind in (fault.kind, "all"):
                counts[kind]["injected"] += fault.times
                counts[kind]["lost" if played.wrong else "survived"] += fault.times
                counts[kind][fault.found_by] += fault.times
    return counts


def _told(played: Round) -> str:
    faults: Counter[str] = Counter()
    for fault in played.injected:
        faults[fault.kind] += fault.times
    told = ", ".join(f"{kind} {times}" for kind, times in faults.items()) or "nothing happened"
    return f"{told}: LOST, {' '.join(played.wrong.split())} (seed {played.seed})" if played.wrong else f"{told}: same bytes"


def _report(rounds: Sequence[Round], seed: int, seconds: float) -> dict[str, object]:
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "kinds": {kind: dict(counts) for kind, counts in tally(rounds).items()},
        "rounds": [
            {"setting": each.setting, "seed": each.seed, "wrong": each.wrong, "injected": [asdict(fault) for fault in each.injected]}
            for each in rounds
        ],
    }


if __name__ == "__main__":
    terminal.run(app)
