"""A console that a person pages through: `$PAGER`, or less, or more. What is not looked at is not made.

In: what is printed, as it is made. Out: a pager where both ends are a terminal, over ssh as well, since the pager runs beside the program;
into a file or a pipe everything is written at once. Not: no keys of our own.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from pipeline.errors import ConfigError
from pipeline.terminal import Screen, console


@contextmanager
def paged() -> Iterator[Console]:
    """Standard output, or a pager before it. What is inside ends when the person has seen enough."""
    command = _pager() if sys.stdout.isatty() and sys.stdin.isatty() else []
    if not command:
        yield console()
        return
    # As git has it: a screenful is not paged, colours are let through, and the text stays there at the end.
    environment = {"LESS": "FRX", **os.environ}
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=environment) as process:
        assert process.stdin is not None
        screen = Screen(file=process.stdin, force_terminal=True, width=shutil.get_terminal_size().columns)
        try:
            yield screen
            process.stdin.flush()
        except (BrokenPipeError, KeyboardInterrupt):  # the pager was left; or Ctrl-C, which ends what is being made, and not the pager
            pass
        finally:
            _close(process)


def _close(process: subprocess.Popen[str]) -> None:
    with suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    while True:
        try:
            process.wait()
            return
        except KeyboardInterrupt:
            continue  # is the pager's to answer


def _pager() -> list[str]:
    """The command of the pager; [] for none. Raises ConfigError when the one that was asked for is not there."""
    asked = os.environ.get("PAGER")
    if asked is not None:
        command = shlex.split(asked)
        if command and not shutil.which(command[0]):
            raise ConfigError(f"PAGER={asked}: there is no program {command[0]}; name another one, or PAGER=cat for none")
        return [] if command == ["cat"] else command
    if os.environ.get("TERM", "dumb") == "dumb":
        return []
    return next(([name] for name in ("less", "more") if shutil.which(name)), [])
