"""How the programs speak: where tables go and how they look, what foreign text may do there, and what becomes of an error.

In: what commands print. Out: on a terminal colours (none with NO_COLOR), as wide as it is; into a file or a pipe plain text.
Text that comes from data (a document, an id, a name of a file, a model's words) never reaches a terminal raw: what would steer it, such
as ANSI escapes or characters that turn the direction of writing, is shown as symbols. Screen does so for all that it prints.
Exit status: 0 done, 1 something does not hold or is broken, 2 a wrong request, 130 interrupted, 141 nobody reads the output any
longer; docs/command-line.md.
"""

import io
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from pipeline.disk import is_full
from pipeline.errors import ConfigError, PipelineError

PLAIN_WIDTH = 200  # into a file or a pipe, where tables may be as wide as they need to be
CELL = 2_000  # characters of a value that a table shows
INTERRUPTED, UNREAD = 130, 141  # as a shell says of programs that SIGINT and SIGPIPE end
# Controls (C0 but tab and newline, DEL, C1); of format characters those that reorder, hide or mimic text; line separators that are
# none to a terminal; halves of surrogate pairs, by which Python stands in for bytes that are no UTF-8 in names of files.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def visible(text: str, *, lines: bool = False) -> str:
    """The text with what a terminal would obey, or hide, as symbols: `␛`, `␀`, `<U+202E>`. lines: leave its line ends and tabs, too,
    as they are; else `␊` and `␉`."""
    shown = UNSEEN.sub(_symbol, text)
    return shown if lines else shown.replace("\n", "␊").replace("\t", "␉")


def exact(text: str) -> str:
    """For machines: the text as it is, except on a terminal."""
    return visible(text, lines=True) if sys.stdout.isatty() else text


class Exact:
    """Standard output for machines' formats, as `exact` has it."""

    def write(self, text: str) -> None:
        sys.stdout.write(exact(text))


def cut(text: str, characters: int = CELL) -> str:
    """At most the first so many characters, and then how many there are."""
    return text if len(text) <= characters else f"{text[:characters]}… ({len(text):,} characters)"


def _symbol(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"<U+{code:04X}>"


class Screen(Console):
    """A console that takes text as text: no markup, no :emoji: in it, no control character through, wherever in a table it stands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(visible(text, lines=True), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not UNSEEN.search(segment.text):
                yield segment
            else:
                yield Segment(visible(segment.text, lines=True), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def console() -> Console:
    """Standard output, for tables."""
    return Screen(width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def messages() -> Console:
    """Standard error, for progress and errors; lines are not broken."""
    return Screen(stderr=True, soft_wrap=True)


def titled(title: str, *columns: str) -> Table:
    """A table without lines. All columns but the first are numbers, to the right; without columns there is no header."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False, show_header=bool(columns)
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=bool(place))
    return table


class Program(TyperGroup):
    """The commands of a program. Where the reader of its output has gone, as in `tokenmill sql … | head`, it ends without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())  # or Python tries again, and complains, when it ends
            raise typer.Exit(UNREAD) from None


def program(description: str, *, completion: bool = False) -> typer.Typer:
    """A program without commands as yet. Its help is plain where it is not read on a terminal."""
    return typer.Typer(
        cls=Program,
        help=description,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
    )


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a program and exit. What a person can act on is printed in a line, without a traceback; without arguments, its help."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows less, and ends nothing
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app(given or ["--help"], standalone_mode=False)
    except PipelineError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except typer.TyperException as error:  # what a command does not know: it names the option, and what is allowed
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except OSError as error:  # what the system refuses: a file that may not be read, a folder that may not be written, a full disk
        _complain(f"{error}; free some space and run the same command again" if is_full(error) else str(error))
        sys.exit(1)
    except Exception:  # a fault of ours; its message may quote data
        messages().print(traceback.format_exc(), end="")
        sys.exit(1)
    sys.exit(status or 0)


def _complain(message: str) -> None:
    messages().print(f"error: {message}", style="red")
