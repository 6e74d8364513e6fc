"""Heat maps as Vega-Lite specifications: something about every expert or layer, against time or against each other.

In: names of columns. Out: specifications without data. The middle of a scale is nearly transparent, so that what is as it should be has
the paper's colour, light or dark, and what is not stands out; each cell says its numbers when it is pointed at.
"""

from collections.abc import Sequence
from typing import Any

from tools.report.blocks import Json
from tools.report.model.curves import EXTENT, tokens, told

BLUE, FAINT, RED = "rgb(33, 92, 189)", "rgba(138, 143, 152, 0.14)", "rgb(205, 66, 32)"
MOST = 8  # times what is even: with 8 of 64 experts for a token, as OLMoE has, or 4 of 32, no expert can have more
TICKS = 16  # numbers on an axis of experts or layers, at most
LEGEND = {"orient": "top", "direction": "horizontal", "gradientLength": 320, "titleLimit": 400}


def times(field: str, title: str) -> Json:
    """A colour for a multiple of what is even or due: blue below, red above, by its logarithm."""
    scale = {"type": "log", "domain": [1 / MOST, 1, MOST], "range": [BLUE, FAINT, RED], "clamp": True, "interpolate": "rgb"}
    bound = f"(datum.value <= {1 / MOST} ? '≤ ' : datum.value >= {MOST} ? '≥ ' : '')"
    label = f"{bound} + (datum.value < 1 ? '1/' + format(1 / datum.value, '~r') : format(datum.value, '~r'))"
    legend = {**LEGEND, "values": [1 / MOST, 0.25, 0.5, 1, 2, 4, MOST], "labelExpr": label}
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "legend": legend}


def shares(field: str, title: str, most: float, colour: str = RED, power: float = 1.0) -> Json:
    """A colour for a share, from none to `most` and more. power: below 1, small shares show more."""
    scale = {"type": "pow", "exponent": power, "domain": [0, most], "range": [FAINT, colour], "clamp": True, "interpolate": "rgb"}
    legend = {**LEGEND, "format": ".0%"} | ({"values": [most * part for part in (0, 0.02, 0.1, 0.2, 0.5, 1)]} if power < 1 else {})
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "legend": legend}


def over_time(row: Json, colour: Json, last: int, seen: Sequence[Json], ticks: int = 8) -> dict[str, Any]:
    """Cells from the column `tokens from` to `tokens to`. row: the vertical axis. seen: further lines of the tooltip."""
    tooltip = [told("tokens from", ","), told("tokens to", ","), told(row["field"]), *seen]
    x = tokens(last, field="tokens from", ticks=ticks)
    return {"mark": "rect", "encoding": {"x": x, "x2": {"field": "tokens to"}, "y": row, "color": colour, "tooltip": tooltip}}


def places(field: str, count: int = 0) -> Json:
    """An axis of experts or layers, numbered from 0; `count`: how many, where not each can have its number."""
    axis: dict[str, Any] = {"ticks": False, "domain": False, "labelPadding": 4, "labelOverlap": True, "labelAngle": 0}
    if count > TICKS:
        axis["values"] = list(range(0, count, stride(count)))
    return {"field": field, "type": "ordinal", "title": field, "axis": axis}


def rows(field: str, count: int = 0) -> Json:
    """The same on the left, where charts stand below each other."""
    found = places(field, count)
    return {**found, "axis": {**found["axis"], "minExtent": EXTENT}}


def stride(count: int) -> int:
    """Between the numbers on an axis: a power of two that leaves at most TICKS."""
    return 1 << max(0, (max(count, 1) - 1) // TICKS).bit_length()


def by_layer(inner: Json, columns: int, **more: Json) -> Json:
    """A panel for each number in the column `layer`."""
    header = {"title": None, "labelExpr": "'layer ' + datum.value", "labelFontWeight": 500, "labelFontSize": 12}
    return {"facet": {"field": "layer", "type": "ordinal", "header": header}, "columns": columns, "spacing": 22, "spec": inner, **more}


def step(rows: int) -> Json:
    """The height of a map with so many lines."""
    return {"step": 22 if rows <= 8 else 14}
