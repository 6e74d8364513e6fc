"""How the programs speak: where tables go and how they look, and what becomes of an error."""

import sys

import typer
from rich.console import Console
from rich.table import Table

from pipeline.errors import ConfigError, PipelineError

PLAIN_WIDTH = 200  # into a file or a pipe, where tables may be as wide as they need to be


def console() -> Console:
    """Standard output, for tables."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def messages() -> Console:
    """Standard error, for progress and errors; lines are not broken."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def titled(title: str, *columns: str) -> Table:
    """A table without lines. All columns but the first are numbers, to the right; without columns there is no header."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False, show_header=bool(columns)
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=bool(place))
    return table


def run(app: typer.Typer) -> None:
    """Run a program. What a person can act on is printed without a traceback; exit status 2 for a wrong request, else 1."""
    try:
        app()
    except PipelineError as error:
        messages().print(f"error: {error}", markup=False, style="red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
