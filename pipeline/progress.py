"""The one progress display: a live bar per stage on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.terminal import messages

PLAIN_INTERVAL_S = 5.0


class Bar:
    """One stage's bar.

    It fills by input bytes, whose total is known beforehand, and tells its speed in the bytes that people compare: of
    document text, where a stage sees documents.
    """

    def __init__(self, console: Console, bars: Bars | None, name: str, units: int, total_bytes: int) -> None:
        self.console, self.bars, self.name, self.units, self.total_bytes = console, bars, name, units, total_bytes
        self.done_units = self.done_bytes = self.text_bytes = 0
        self.start = self.shown = time.monotonic()
        if bars:
            self.task = bars.add_task(name, total=max(total_bytes, 1), units=f"0/{units}", speed="")

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.start, 1e-9)

    @property
    def speed(self) -> str:
        return f"{self.text_bytes / 1e6 / self.seconds:.1f} MB/s"

    def advance(self, size: int, units: int = 1, text_bytes: int | None = None) -> None:
        """`units` more are done, of `size` bytes of input and `text_bytes` of text (as many if not given)."""
        self.done_units += units
        self.done_bytes += size
        self.text_bytes += size if text_bytes is None else text_bytes
        if self.bars:
            state = f"{self.done_units}/{self.units}"
            self.bars.update(self.task, completed=self.done_bytes, units=state, speed=self.speed)
        elif time.monotonic() - self.shown > PLAIN_INTERVAL_S and self.done_units < self.units:
            self.shown = time.monotonic()
            left = (self.total_bytes - self.done_bytes) * self.seconds / max(self.done_bytes, 1)
            self.console.print(f"{self.name}: {self.done_units}/{self.units} units, {self.speed}, about {left:.0f} s left")


class Progress:
    """Shows stages on stderr. `say` prints a line above the bars."""

    def __init__(self) -> None:
        self.console = messages()

    def say(self, message: str) -> None:
        self.console.print(message, markup=False)

    @contextmanager
    def stage(self, name: str, units: int, total_bytes: int) -> Iterator[Bar]:
        """A stage of `units` pieces over `total_bytes` of input; prints one line when it ends well."""
        live = self.console.is_terminal and sys.stderr.isatty()
        columns = [
            SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[units]} units"),
            TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
        ]  # fmt: skip
        if live:
            with Bars(*columns, console=self.console, transient=True) as bars:
                bar = Bar(self.console, bars, name, units, total_bytes)
                yield bar
        else:
            bar = Bar(self.console, None, name, units, total_bytes)
            yield bar
        self.console.print(
            f"{name:<10}{bar.done_units:>6} units {bar.text_bytes / 1e6:>10.1f} MB {bar.seconds:>8.1f} s   {bar.speed:>12}", markup=False
        )
