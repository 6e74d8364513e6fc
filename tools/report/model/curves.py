"""Curves as Vega-Lite specifications: one measure with its spread, or several named at their ends.

In: names of columns, and the ranges that their axes span. Out: specifications without data. Axes are fixed here, not left to Vega, so
that axes.py can give two charts the same ones. Where a browser knows no colours, a curve still has its name beside its end.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.report.blocks import Cell, Json

BLUE, PALETTE = "#4c78a8", 10  # report.js's first colour, and how many it has
GREY = "#8a8f98"
LAYERS = ((76, 120, 168), (178, 121, 162), (245, 133, 24))  # red, green, blue of the first layer, the middle one, the last
DASHES = ([1, 0], [6, 3], [2, 2])  # when the colours come again, with another one
LINE = 13  # px between the names of two curves
NAMED = 16  # curves that are named where they end, at most
EXTENT = 36  # px left of a chart for its axis, at least, so that charts stand below each other
TOKENS = "tokens of training"

Values = Iterable[Cell]
Range = tuple[float, float]
End = tuple[Any, Any]  # tokens, and the value there


def span(*columns: Values, zero: bool = False, room: float = 0.04) -> Range:
    """What an axis shows of the columns' numbers: all of them, with some room around."""
    numbers = [float(value) for column in columns for value in column if isinstance(value, int | float)] or [0.0]
    low, high = min(numbers), max(numbers)
    low = min(low, 0.0) if zero else low
    margin = (high - low or abs(high) or 1.0) * room
    return (low if zero else low - margin), high + margin


def tokens(last: Any, title: str = TOKENS, field: str = "tokens", ticks: int = 8) -> Json:
    """The horizontal axis, from 0 to `last`."""
    label = "replace(format(datum.value, '~s'), 'G', 'B')"
    axis = {"labelExpr": label, "grid": False, "tickCount": ticks, "labelOverlap": True}
    return {"field": field, "type": "quantitative", "title": title, "axis": axis, "scale": {"domain": [0, last], "nice": False}}


def vertical(field: str, title: str, domain: Range, form: str = ".4~r", ticks: int = 5) -> Json:
    """form: of its numbers, as d3-format says it."""
    axis = {"labelExpr": f"format(datum.value, '{form}')", "tickCount": ticks, "minExtent": EXTENT}
    scale = {"domain": list(domain), "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "title": title, "axis": axis, "scale": scale}


def told(field: str, form: str = "") -> Json:
    """A line of a tooltip: a number of that form, or a name."""
    return {"field": field, "type": "quantitative", "format": form} if form else {"field": field, "type": "nominal"}


def measure(
    field: str,
    title: str,
    x: Json,
    domain: Range,
    height: int,
    form: str = ".4~r",
    digits: str = ".4~r",
    spread: tuple[str, str] | None = None,
    more: Sequence[Json] = (),
    besides: Sequence[str] = (),
) -> Json:
    """One curve. form, digits: of the axis's numbers and of the tooltip's. spread: the columns of a band around it. more: layers above
    it. besides: further columns of the tooltip."""
    y = vertical(field, title, domain, form)
    line = {"mark": {"type": "line", "color": BLUE, "strokeWidth": 2, "clip": True}, "encoding": {"y": y}}
    point = {"mark": {"color": BLUE}, "encoding": {"y": y, "tooltip": [told(name, digits) for name in (field, *(spread or ()), *besides)]}}
    layers = [*([_band(y, *spread)] if spread else []), line, *more, _following(point)]
    return {"height": height, "encoding": {"x": x}, "layer": layers, "usermeta": {"overlay": field}}


def several(
    series: str,
    names: Sequence[Cell],
    ends: Mapping[Cell, End],
    field: str,
    title: str,
    x: Json,
    domain: Range,
    height: int,
    form: str = ".4~r",
    digits: str = ".4~r",
    ordered: bool = False,
    more: Sequence[Json] = (),
) -> Json:
    """A curve for each of `names` in the column `series`, with its name where it ends, in `ends`. ordered: their colours go from one to the
    other, as layers do; else they are told apart as well as may be."""
    y, kind = vertical(field, title, domain, form), "ordinal" if ordered else "nominal"
    colours = {"range": shades(len(names))} if ordered else {}
    dashes = [DASHES[0 if ordered else place // PALETTE % len(DASHES)] for place in range(len(names))]
    colour = {"field": series, "type": kind, "scale": {"domain": list(names), **colours}, "legend": None}
    dash = {"field": series, "type": kind, "scale": {"domain": list(names), "range": dashes}, "legend": None}
    line = {"mark": {"type": "line", "strokeWidth": 2, "clip": True}, "encoding": {"y": y, "color": colour, "strokeDash": dash}}
    point = {"mark": {}, "encoding": {"y": y, "color": colour, "tooltip": [told(series), told(field, digits)]}}
    layers = [line, *more, _names(series, ends, x, y, colour, domain, height), _following(point)]
    return {"height": height, "encoding": {"x": x}, "layer": layers, "usermeta": {"overlay": field, "series": series}}


def last(tokens: Values, series: Values, values: Values) -> dict[Cell, End]:
    """Where each curve ends: of columns in the order of their tokens."""
    return {name: (at, value) for at, name, value in zip(tokens, series, values, strict=True) if value is not None}


def rule(at: float, label: str, domain: Range) -> list[Json]:
    """A dashed line across, with what it is; nothing where the axis does not reach it."""
    if not domain[0] <= at <= domain[1]:
        return []
    once: Json = {"values": [{}]}  # and not once for each row of the chart
    y = {"datum": at}
    line = {"type": "rule", "strokeDash": [4, 4], "opacity": 0.6}
    text = {"type": "text", "align": "right", "baseline": "bottom", "dx": -4, "dy": -2, "fontSize": 11}
    return [
        {"data": once, "mark": line, "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": y}},
        {"data": once, "mark": text, "encoding": {"x": {"value": "width"}, "y": y, "text": {"value": label}}},
    ]


def shades(count: int) -> list[str]:
    """Colours that go from the first layer's to the last one's, each to be seen on light and on dark paper."""
    return [_between(place / max(count - 1, 1)) for place in range(count)]


def apart(values: Sequence[float], domain: Range, height: int) -> list[float]:
    """Where names are written, in the axis's numbers, so that none lies on another and all are beside the panel while it has the room.
    values: where they would be, ascending. height: the panel's, px."""
    from trainer.plot import spread

    low, high = domain
    gap = LINE / height
    places = spread([min(max((value - low) / (high - low), 0.0), 1.0) for value in values], gap)
    places = [max(place, number * gap) for number, place in enumerate(places)]
    places = [min(place, 1 - number * gap) for number, place in enumerate(reversed(places))][::-1]
    return [low + place * (high - low) for place in places]


def _band(y: Json, low: str, high: str) -> Json:
    mark = {"type": "area", "color": GREY, "opacity": 0.3, "clip": True}
    return {"mark": mark, "encoding": {"y": {**y, "field": low}, "y2": {"field": high}}}


def _names(series: str, ends: Mapping[Cell, End], x: Json, y: Json, colour: Json, domain: Range, height: int) -> Json:
    """The curves' names right of where they end, each beside a sign of its curve. Of many curves only some."""
    known = sorted((value, at, name) for name, (at, value) in ends.items())
    known = known[:: -(-len(known) // NAMED)] if known else []
    places = apart([value for value, _, _ in known], domain, height)
    rows = [
        {series: name, "at": at, "end": value, "place": place, "name": f"{series} {name}" if isinstance(name, int) else str(name)}
        for (value, at, name), place in zip(known, places, strict=True)
    ]
    where = {"x": {**x, "field": "at"}, "y": {**y, "field": "place"}}
    sign = {"type": "point", "shape": "square", "filled": True, "size": 50, "opacity": 1, "xOffset": 8}
    text = {"type": "text", "align": "left", "baseline": "middle", "dx": 15, "fontSize": 11}
    layers = [{"mark": sign, "encoding": {**where, "color": colour}}, {"mark": text, "encoding": {**where, "text": {"field": "name"}}}]
    return {"name": "names", "data": {"values": rows}, "layer": layers}


def _following(point: Json) -> Json:
    """A point that follows the pointer along the curves, and says its numbers."""
    near = {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout", "toggle": False}
    shown = {"condition": {"param": "near", "value": 1, "empty": False}, "value": 0}
    tooltip = [told("tokens", ","), *point["encoding"]["tooltip"]]
    return {
        "mark": {"type": "point", "filled": True, "size": 60, "clip": True, **point["mark"]},
        "encoding": {**point["encoding"], "opacity": shown, "tooltip": tooltip},
        "params": [{"name": "near", "select": near}],
    }


def _between(place: float) -> str:
    step = min(int(place * (len(LAYERS) - 1)), len(LAYERS) - 2)
    part = place * (len(LAYERS) - 1) - step
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(LAYERS[step], LAYERS[step + 1], strict=True))
