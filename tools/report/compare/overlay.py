"""Two runs' curves in one chart.

In: the parts of both. Out: for the charts of TITLES, which say which of their columns is the curve (`usermeta` of curves.py), a chart of
both: one panel, or one for each curve that the two have in common. What is drawn are the same numbers.
"""

from collections.abc import Iterator, Sequence

from tools.report.blocks import Block, Cell, Chart, Json, Part
from tools.report.model import curves
from tools.report.model.curves import Range, told

TITLES = ("Training loss", "Held-out loss by source", "Throughput")
ACROSS = 3  # panels in a row


def overlays(a: str, b: str, left: Sequence[Part], right: Sequence[Part]) -> list[Block]:
    mine, others = _charts(left), _charts(right)
    return [chart for title in TITLES if title in mine and title in others for chart in _both(a, b, mine[title], others[title])]


def _charts(parts: Sequence[Part]) -> dict[str, Chart]:
    blocks = [block for part in parts for section in part.sections for block in section.blocks]
    return {block.title: block for block in blocks if isinstance(block, Chart) and "overlay" in block.spec.get("usermeta", {})}


def _both(a: str, b: str, left: Chart, right: Chart) -> Iterator[Chart]:
    field, series = left.spec["usermeta"]["overlay"], left.spec["usermeta"].get("series")
    names = ["tokens", field, *([series] if series else [])]
    common = [name for name in dict.fromkeys(left.columns[series]) if name in right.columns[series]] if series else []
    columns: dict[str, list[Cell]] = {name: [] for name in ("run", *names)}
    for run, chart in ((a, left), (b, right)):
        for row in zip(*(chart.columns[name] for name in names), strict=True):
            if not series or row[2] in common:
                for name, cell in zip(columns, (run, *row), strict=True):
                    columns[name].append(cell)
    if not columns["run"]:
        return
    domains = [_domain(chart, field) for chart in (left, right)]
    domain = min(low for low, _ in domains), max(high for _, high in domains)
    inner = _lines(a, b, field, _title(left, field), columns, domain, ticks=3 if series else 8)
    caption = f"{a} and, dashed, {b}."
    if series:
        facet = {"field": series, "type": "nominal", "sort": common, "header": {"title": None, "labelFontSize": 12}}
        spec: Json = {"facet": facet, "columns": ACROSS, "spacing": 20, "spec": {**inner, "width": 190, "height": 130}}
        yield Chart(f"{left.title}, both", columns, spec, f"{caption} What both have.")
    else:
        yield Chart(f"{left.title}, both", columns, {**inner, "height": 280}, caption)


def _lines(a: str, b: str, field: str, title: str, columns: dict[str, list[Cell]], domain: Range, ticks: int) -> Json:
    legend = {"title": None, "orient": "top", "symbolType": "stroke", "symbolStrokeWidth": 3}
    run = {"field": "run", "type": "nominal", "scale": {"domain": [a, b]}, "legend": legend}
    last = max(value for value in columns["tokens"] if isinstance(value, int))
    encoding = {
        "x": curves.tokens(last, ticks=ticks), "y": curves.vertical(field, title, domain, ".3~s", ticks=4), "color": run,
        "strokeDash": {**run, "scale": {"domain": [a, b], "range": [[1, 0], [6, 3]]}},
        "tooltip": [told("run"), told("tokens", ","), told(field, ".4~r")],
    }  # fmt: skip
    return {"mark": {"type": "line", "strokeWidth": 2, "clip": True, "point": {"opacity": 0, "size": 80}}, "encoding": encoding}


def _domain(chart: Chart, field: str) -> Range:
    """Of the vertical axis, as the chart has it."""
    low, high = _axis(chart, field)["scale"]["domain"]
    return low, high


def _title(chart: Chart, field: str) -> str:
    return str(_axis(chart, field)["title"])


def _axis(chart: Chart, field: str) -> Json:
    found = (layer["encoding"]["y"] for layer in chart.spec["layer"] if "data" not in layer)
    return next(axis for axis in found if axis["field"] == field)
