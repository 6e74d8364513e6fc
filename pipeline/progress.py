"""The one progress display: a live bar per stage on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.terminal import messages

PLAIN_INTERVAL_S = 5.0
LOOK_INTERVAL_S = 1.0  # at what is underway


class Bar:
    """One stage's bar.

    It fills by input bytes, whose total is known beforehand, and tells its speed in the bytes that people compare: of
    document text, where a stage sees documents.
    """

    def __init__(self, console: Console, bars: Bars | None, name: str, units: int, total_bytes: int) -> None:
        self.console, self.bars, self.name, self.units, self.total_bytes = console, bars, name, units, total_bytes
        self.done_units = self.done_bytes = self.text_bytes = self.underway = 0
        self.start = self.shown = time.monotonic()
        if bars:
            self.task = bars.add_task(name, total=max(total_bytes, 1), units=f"0/{units}", speed="")

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.start, 1e-9)

    @property
    def speed(self) -> str:
        return f"{(self.text_bytes + self.underway) / 1e6 / self.seconds:.1f} MB/s"

    def advance(self, size: int, units: int = 1, text_bytes: int | None = None) -> None:
        """`units` more are done, of `size` bytes of input and `text_bytes` of text (as many if not given)."""
        self.done_units += units
        self.done_bytes += size
        self.text_bytes += size if text_bytes is None else text_bytes
        self.show()

    def show(self) -> None:
        """What is done now."""
        done = self.done_bytes + self.underway
        if self.bars:
            state = f"{self.done_units}/{self.units}"
            self.bars.update(self.task, completed=done, units=state, speed=self.speed)
        elif time.monotonic() - self.shown > PLAIN_INTERVAL_S and self.done_units < self.units:
            self.shown = time.monotonic()
            left = f", about {timedelta(seconds=round((self.total_bytes - done) * self.seconds / done))} left" if done else ""
            size = f"{done / 1e6:.0f} of {self.total_bytes / 1e6:.0f} MB"
            self.console.print(f"{self.name}: {self.done_units}/{self.units} units, {size}, {self.speed}{left}")


class Progress:
    """Shows stages on stderr. `say` prints a line above the bars."""

    def __init__(self) -> None:
        self.console = messages()

    def say(self, message: str) -> None:
        self.console.print(message, markup=False)

    @contextmanager
    def stage(self, name: str, units: int, total_bytes: int, underway: Callable[[], int] | None = None) -> Iterator[Bar]:
        """A stage of `units` pieces over `total_bytes` of input; prints one line when it ends well.

        `underway` tells how many bytes of unfinished units are done, where units take so long that a person wants to know.
        """
        live = self.console.is_interactive and sys.stderr.isatty()
        columns = [
            SpinnerColumn(), TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[units]} units"),
            TextColumn("{task.fields[speed]}"), TimeRemainingColumn(),
        ]  # fmt: skip
        if live:
            with Bars(*columns, console=self.console, transient=True) as bars:
                bar = Bar(self.console, bars, name, units, total_bytes)
                with _watched(bar, underway):
                    yield bar
        else:
            bar = Bar(self.console, None, name, units, total_bytes)
            with _watched(bar, underway):
                yield bar
        self.console.print(
            f"{name:<10}{bar.done_units:>6} units {bar.text_bytes / 1e6:>10.1f} MB {bar.seconds:>8.1f} s   {bar.speed:>12}", markup=False
        )


@contextmanager
def _watched(bar: Bar, underway: Callable[[], int] | None) -> Iterator[None]:
    """Keep the bar up to date with what is underway."""
    if underway is None:
        yield
        return
    ended = Event()

    def watch() -> None:
        while not ended.wait(LOOK_INTERVAL_S):
            bar.underway = underway()
            bar.show()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        bar.underway = 0
