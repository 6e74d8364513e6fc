"""Values that are no numbers, such as a language: how often the most frequent ones occur, and charts of bars for each source."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tools.report.blocks import Cell, Chart
from tools.report.mix.histograms import LOOKS, WIDTH, of_look
from tools.report.mix.marks import NUMBER, Spec, columns, each, named, of_source, quantity

MOST = 12  # values of a source that get a bar each
ROW_HEIGHT = 16  # px
NAMES = 120  # px that the values' names need of the chart's width


def occurrences(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each value stands there, the most frequent first; what is alike when shortened counts together."""
    counted = pc.value_counts(values.combine_chunks())
    found: Counter[str] = Counter()
    for value, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
        found[named(value)] += count
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def top(found: Mapping[str, int]) -> dict[str, int]:
    """The MOST most frequent ones, and all others under one name."""
    first = dict(list(found.items())[:MOST])
    others = sum(found.values()) - sum(first.values())
    return {**first, f"{len(found) - MOST:,} others": others} if others else first


def values_chart(title: str, caption: str, rows: Sequence[tuple[str, pa.ChunkedArray, npt.NDArray[np.bool_]]]) -> Chart:
    """rows: of each source the attribute's values, and for which documents [n] a rule on it holds."""
    found: list[list[Cell]] = []
    for source, values, dropped in rows:
        gone = occurrences(values.filter(pa.array(dropped)))
        left = int(dropped.sum())
        for value, count in top(occurrences(values)).items():
            here = gone.get(value, 0) if not value.endswith(" others") else left
            left -= here
            found.append([source, value, count, here])
    most = max((len(values) for _, values, _ in rows), default=1)
    views = [_view(source, most) for source, _, _ in rows]
    spec = {"vconcat": views, "spacing": 10}
    return Chart(title, columns(["source", "value", "documents", "dropped"], found), spec, caption)


def _view(source: str, most: int) -> Spec:
    powers = {"values": [10**power for power in range(13)], "labelExpr": NUMBER}
    layers = [
        {
            "mark": {"type": "bar", "opacity": look.opacity},
            "encoding": {
                "y": each("value"),
                "x": quantity(field, title="documents", scale={"type": "symlog", "domain": [0, most]}, axis=powers),
                "color": of_look(field),
                "tooltip": [{"field": "source"}, {"field": "value"}, quantity("documents", ",d"), quantity("dropped", ",d")],
            },
        }
        for field, look in LOOKS.items()
    ]
    return {**of_source(source), "width": WIDTH - NAMES, "height": {"step": ROW_HEIGHT}, "layer": layers}
