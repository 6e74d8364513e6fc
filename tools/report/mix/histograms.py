"""Histograms, a row for each source over one axis, with the lines that rules draw.

In: counts per bin. Out: a Chart. Bins end at round numbers, the same ones for every mix, so that two mixes can be laid side by side; and
exactly where a rule draws its line, so that every bar is on one side of it. The axis is linear, or logarithmic where the largest value is
many times the typical one; there the bin of 0 stands at the left end.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tools.report.blocks import Cell, Chart
from tools.report.mix.limits import Limit
from tools.report.mix.marks import BLUE, NUMBER, RED, Spec, columns, of_source, quantity

WIDTH, ROW_HEIGHT = 560, 54  # px
NAMED_HEIGHT = 1.35  # times the highest bar, where there are lines with names over the bars
FAR = 0.6  # of the axis: beyond it a line's name stands to its left
STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of a decade
LINEAR_BINS = 30
UNIT_BINS = 40  # integers that get a bin each
LOGARITHMIC = 50.0  # times the typical value that the largest has on a logarithmic axis
Numbers = npt.NDArray[Any]


class Look(NamedTuple):
    name: str
    colour: str
    opacity: float


LOOKS = {"documents": Look("all documents", BLUE, 0.65), "dropped": Look("dropped by these rules", RED, 0.95)}


@dataclass(frozen=True)
class Bins:
    """edges [n + 1], ascending: bin i holds the values from edges[i] up to, and without, edges[i + 1], and the outermost ones whatever lies
    beyond, which is from `least` to `most`. whole: all values are integers. logarithmic: the first edge is 0."""

    edges: npt.NDArray[np.float64]
    least: float
    most: float
    whole: bool
    logarithmic: bool = False

    def counts(self, values: Numbers) -> npt.NDArray[np.int64]:
        """[n]: how many values each bin holds."""
        places = np.searchsorted(self.edges, values, side="right") - 1
        return np.bincount(np.clip(places, 0, len(self.edges) - 2), minlength=len(self.edges) - 1)

    @property
    def first(self) -> float:
        """Where the axis begins: on a logarithmic one, on which there is no 0, so far left that its bin can be seen."""
        if not self.logarithmic:
            return float(self.edges[0])
        least, most = self.edges[[1, -1]].tolist()
        return least / max(1.6, (most / least) ** 0.08)

    def place(self, limit: Limit) -> float:
        """Where on the axis the limit's line stands: at the edge of the bars that it parts."""
        edge = limit.edge(self.whole)
        return edge if not self.logarithmic else self.first if edge <= 0 else max(edge, float(self.edges[1]))


def bins(samples: Sequence[Numbers], limits: Sequence[Limit]) -> Bins:
    """For all of these values together, and lines at all of these limits. samples: integers or real numbers."""
    whole = all(np.issubdtype(values.dtype, np.integer) for values in samples)
    lines = [limit.value for limit in limits]
    values = np.concatenate([values[np.isfinite(values)] for values in samples])
    values = values if len(values) else np.zeros(1, np.int64)
    low, high = float(values.min()), float(values.max())
    least, most = min(low, *lines, high), max(high, *lines, low)
    if whole and most - least < UNIT_BINS:
        return Bins(np.arange(floor(least), ceil(most) + 2, dtype=np.float64), low, high, whole)
    above_zero = values[values > 0]
    usual = [float(np.median(above_zero))] if len(above_zero) else []
    typical = min([*usual, *(line for line in lines if line > 0)], default=1.0)
    if least >= 0 and most >= LOGARITHMIC * typical:
        # With a line at 0 its bin has nothing else (within 15 decades).
        begin = max(float(above_zero.min()), most / 1e15) if 0 in lines and usual else max(typical / 30, most / 1e9)
        begin = min(begin, *(line for line in lines if line > 0), most)
        return Bins(_snapped(decades(begin, most, whole), limits, whole, 1), low, high, whole, logarithmic=True)
    first, last = (float(quantile) for quantile in np.quantile(values, (0.001, 0.999)))
    return Bins(_snapped(_round(min(first, *lines, last), max(last, *lines, first), whole), limits, whole, 0), low, high, whole)


def decades(least: float, most: float, whole: bool) -> list[float]:
    """0, and six round numbers per decade, from below `least`, or of integers from 1, up to beyond `most`."""
    powers = range(0 if whole else floor(log10(least)), ceil(log10(most)) + 2)
    numbers = sorted({float(ceil(step * 10.0**power)) if whole else step * 10.0**power for power in powers for step in STEPS})
    return [0.0, *numbers[: bisect_right(numbers, most) + 1]]


def _round(first: float, last: float, whole: bool) -> list[float]:
    """About LINEAR_BINS bins of a round width, one of them below `first` and one above `last`."""
    rough = max((last - first) / LINEAR_BINS, abs(last) / 1e6, 1e-9)
    power = 10.0 ** floor(log10(rough))
    width = next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= rough)
    width = max(ceil(width), 1) if whole else width
    return [round(number * width, 12) for number in range(ceil(first / width) - 1, floor(last / width) + 2)]


def _snapped(edges: list[float], limits: Sequence[Limit], whole: bool, fixed: int) -> npt.NDArray[np.float64]:
    """The edges with those of the limits among them, each in place of the nearer end of the bin that it falls into. The first edges up to
    number `fixed`, and the last one, stay; a limit below them has no edge."""
    kept = {*edges[: fixed + 1], edges[-1]}
    for edge in (limit.edge(whole) for limit in limits):
        if edge > edges[fixed] and edge not in edges:
            place = bisect_right(edges, edge)
            nearest = min(edges[place - 1 : place + 1], key=lambda end: abs(end - edge))
            if nearest not in kept:
                edges.remove(nearest)
            insort(edges, edge)
        kept.add(edge)
    return np.array(edges)


@dataclass(frozen=True)
class Row:
    """counts, dropped [bins]: documents, and those of them that rules on this attribute drop. lines: places on the axis, and names."""

    source: str
    counts: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64] | None = None
    lines: Sequence[tuple[float, str]] = ()


def chart(title: str, caption: str, axis: str, scale: Bins, rows: Sequence[Row], heights: str) -> Chart:
    """axis: what it says beside its numbers. heights: `symlog`, by which single documents can be seen beside millions, or `linear`. Empty
    bins are left out. All rows or none have `dropped`."""
    looks = [name for name in LOOKS if name == "documents" or rows[0].dropped is not None]
    found: list[list[Cell]] = []
    for row in rows:
        for place in np.flatnonzero(row.counts).tolist():
            dropped = [] if row.dropped is None else [int(row.dropped[place])]
            found.append([row.source, *_ends(scale, place), int(row.counts[place]), *dropped])
    domain = _domain(scale, rows)
    views = [_view(row, scale, domain, heights, looks, axis if row is rows[-1] else None) for row in rows]
    spec = {"vconcat": views, "spacing": 6}
    return Chart(title, columns(["source", "from", "to", *looks], found), spec, caption)


def of_look(field: str) -> Spec:
    """The colour of all documents or of those dropped, with a legend."""
    scale = {"domain": [look.name for look in LOOKS.values()], "range": [look.colour for look in LOOKS.values()]}
    legend = {"title": None, "orient": "top", "direction": "horizontal", "labelLimit": 400, "symbolOpacity": 0.8}
    return {"datum": LOOKS[field].name, "scale": scale, "legend": legend}


def _ends(scale: Bins, place: int) -> list[float]:
    """Where a bin begins and ends, without the last bits of what is just above a round number; the outermost ones with what is beyond."""
    first, last = scale.edges[place : place + 2].tolist()
    first = min(first, scale.least) if place == 0 else first
    last = max(last, scale.most) if place == len(scale.edges) - 2 else last
    rounded = [float(f"{number:.12g}") for number in (first, last)]
    return [int(number) if number.is_integer() else number for number in rounded]


def _domain(scale: Bins, rows: Sequence[Row]) -> list[float]:
    """Of the axis: all bars, and on both sides of each line a bin at least."""
    filled = [place for row in rows for place in np.flatnonzero(row.counts).tolist()]
    lines = [int(np.searchsorted(scale.edges, place)) for row in rows for place, _ in row.lines]
    first = max(min([*filled, *(line - 1 for line in lines)]), 0)
    last = min(max([*(place + 1 for place in filled), *(line + 1 for line in lines)]), len(scale.edges) - 1)
    return [float(scale.edges[first]) if first else scale.first, float(scale.edges[last])]


def _view(row: Row, scale: Bins, domain: list[float], heights: str, looks: Sequence[str], axis: str | None) -> Spec:
    """A source's row. axis: None for all but the last, under which the numbers stand."""
    x = _x_axis(scale, domain, axis)
    y = _y_axis(heights, int(row.counts.max(initial=1)), NAMED_HEIGHT if any(name for _, name in row.lines) else 1.0)
    tooltip = [{"field": "source"}, *(quantity(name, ",~r") for name in ("from", "to", *looks))]
    layers: list[Spec] = [
        {
            "mark": {"type": "rect", "opacity": LOOKS[field].opacity},
            "encoding": {
                "x": x,
                "x2": {"field": "right"},
                "y": quantity(field, **y),
                "y2": {"datum": 0},
                "tooltip": tooltip,
                "color": of_look(field) if len(looks) > 1 else {"value": LOOKS[field].colour},
            },
        }
        for field in looks
    ]
    for number, (place, name) in enumerate(row.lines):
        layers += _line(place, name, number, scale, domain)
    source = of_source(row.source)
    source["transform"] += [
        {"calculate": f"max(datum.from, {scale.first!r})", "as": "left"},
        {"calculate": f"min(datum.to, {float(scale.edges[-1])!r})", "as": "right"},
    ]
    return {**source, "width": WIDTH, "height": ROW_HEIGHT, "layer": layers}


def _x_axis(scale: Bins, domain: list[float], axis: str | None) -> Spec:
    label: str = NUMBER
    ticks: Spec = {"tickCount": 8}
    if scale.logarithmic:
        label = f"datum.value < {float(scale.edges[1])!r} ? '0' : {NUMBER}"
        least, most = scale.edges[[1, -1]].tolist()
        steps = (1, 2, 5) if most / least < 10**4 else (1,)
        numbers = [step * 10.0**power for power in range(floor(log10(least)), ceil(log10(most)) + 1) for step in steps]
        ticks = {"values": [scale.first, *(number for number in numbers if least <= number <= most)]}
    shown = {"labels": axis is not None, "ticks": axis is not None, "labelExpr": label, "labelOverlap": True, **ticks}
    kind = "log" if scale.logarithmic else "linear"
    return quantity("left", title=axis or None, scale={"type": kind, "nice": False, "domain": domain}, axis=shown)


def _y_axis(heights: str, most: int, room: float) -> Spec:
    if heights == "linear":
        return {"title": None, "scale": {"domain": [0, most * room]}, "axis": {"labelExpr": NUMBER, "grid": False, "tickCount": 2}}
    powers = [1, *[10**power for power in range(1, 16) if 10**power <= most][-3:]]
    return {
        "title": None,
        "scale": {"type": heights, "domain": [0, max(most, 2) ** room]},
        "axis": {"labelExpr": NUMBER, "grid": False, "values": powers},
    }


def _line(place: float, name: str, number: int, scale: Bins, domain: list[float]) -> list[Spec]:
    """A rule's line and its name. A mark is drawn for every row of the data, hence the aggregate, which leaves one."""
    one = [{"aggregate": [{"op": "count", "as": "documents"}]}]
    first, here, last = (np.log if scale.logarithmic else np.array)([domain[0], place, domain[1]]).tolist()
    beside = {"align": "right", "dx": -4} if (here - first) / (last - first) > FAR else {"align": "left", "dx": 4}
    x = {"x": {"datum": place, "type": "quantitative"}}
    text = {"type": "text", "text": name, "fontSize": 10, "baseline": "top", "dy": 12 * number, "limit": 300, **beside}
    return [
        {"transform": one, "mark": {"type": "rule", "strokeDash": [5, 3], "strokeWidth": 1.5, "tooltip": name}, "encoding": x},
        {"transform": one, "mark": text, "encoding": {**x, "y": {"value": 0}}},
    ]
