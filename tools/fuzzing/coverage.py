"""Which arcs between lines of watched modules were taken, and how often (in powers of two).

Cost: `sys.settrace`, so Python code runs 3 to 10 times slower, native code as fast as ever; it works alike on every Python that the
pipeline runs on. Not: anything inside native code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

Feature = int | str
Trace = Callable[[FrameType, str, Any], Any]


class Coverage:
    """Traces while it is entered; `features()` are the arcs since then, each with the magnitude of its count."""

    def __init__(self, watched: tuple[str, ...]) -> None:
        self.watched = watched
        self._numbers: dict[CodeType, int] = {}
        self._arcs: dict[tuple[int, int, int], int] = {}
        self._before: Any = None

    def __enter__(self) -> Coverage:
        self._arcs.clear()
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def features(self) -> set[Feature]:
        return {hash((*arc, count.bit_length())) for arc, count in self._arcs.items()}

    def _called(self, frame: FrameType, event: str, argument: Any) -> Trace | None:
        number = self._numbers.get(frame.f_code)
        if number is None:
            name = frame.f_globals.get("__name__", "")
            number = len(self._numbers) + 1 if name.startswith(self.watched) else 0
            self._numbers[frame.f_code] = number
        if not number:
            return None
        arcs, last = self._arcs, -1

        def line(frame: FrameType, event: str, argument: Any) -> Trace:
            nonlocal last
            if event == "line":
                arc = (number, last, frame.f_lineno)
                arcs[arc] = arcs.get(arc, 0) + 1
                last = frame.f_lineno
            return line

        return line
