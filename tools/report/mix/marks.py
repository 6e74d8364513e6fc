"""What the charts about a mix have in common: columns out of rows, colours, and small parts of Vega-Lite specifications."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.report.blocks import Cell

Spec = dict[str, Any]
BLUE, ORANGE, GREEN, RED, TEAL, PURPLE, YELLOW, GREY = (
    "#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#eeca3b", "#8a8f98",
)  # fmt: skip
LONGEST = 40  # characters of a name in a chart
NUMBER = "abs(datum.value) >= 1000 ? format(datum.value, '~s') : format(datum.value, '.3~g')"  # an axis's label: 20k, 0.25


def columns(names: Sequence[str], rows: Iterable[Sequence[Cell]]) -> dict[str, list[Cell]]:
    """Rows as equally long columns by name."""
    found: dict[str, list[Cell]] = {name: [] for name in names}
    for row in rows:
        for column, value in zip(found.values(), row, strict=True):
            column.append(value)
    return found


def named(value: Any, longest: int = LONGEST) -> str:
    """A value of whatever documents hold as one short line, of so many characters at most."""
    text = "(none)" if value is None or value == "" else str(value).lower() if isinstance(value, bool) else str(value)
    line = "".join(character if character.isprintable() else "\ufffd" for character in text[: longest + 1])
    return line if len(line) <= longest else line[: longest - 1] + "…"


def each(field: str, **more: Any) -> Spec:
    """A row or column of the chart for each value, in the order of the data, without a title."""
    return {"field": field, "type": "nominal", "sort": None, "title": None, **more}


def quantity(field: str, form: str = "", **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **({"format": form} if form else {}), **more}


def coloured(field: str, colours: Mapping[str, str], present: Iterable[Any], **legend: Any) -> Spec:
    """A colour for each of `present`, and a legend over the chart."""
    names = [name for name in colours if name in set(present)]
    scale = {"domain": names, "range": [colours[name] for name in names]}
    return {"field": field, "type": "nominal", "scale": scale, "legend": {"title": None, "orient": "top", **legend}}


def at_right(field: str) -> Spec:
    """A layer of words to the right of the plot."""
    mark = {"type": "text", "fontSize": 10.5, "align": "left"}
    return {"mark": mark, "encoding": {"x": {"value": {"expr": "width + 10"}}, "text": {"field": field}}}


def of_source(source: str) -> Spec:
    """What makes a view one of a source's: its name on top, and its rows of the data."""
    title = {"text": source, "anchor": "start", "frame": "group", "fontSize": 11, "offset": 2}
    return {"title": title, "transform": [{"filter": {"field": "source", "equal": source}}]}
