"""What the routers do over training: the load of every expert, and the routers' entropy and logits.

In: the run's table `routers`, a row per step and layer; a dense model has none. Out: two sections. Loads are summed over parts of the
training (trainer/analysis/load.py, as `make analyze` does) and shown as multiples of the even load, 1/E of a layer's rows. A heat map
has at most CELLS cells, for each is an element of the page that a browser draws: of a large model it shows some layers, besides how
the most loaded and the unused experts of all of them fared. Cost: one pass over the loads, 27 million of them in a second of a core.
Axes: N parts of the training, L layers, E experts.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from tools.report.blocks import Block, Cell, Chart, Json, Section, Text
from tools.report.model import curves, heat
from tools.report.model.curves import told
from tools.report.model.trained import Trained, rounded
from trainer.analysis.load import Load, load
from trainer.summary import LAST
from trainer.view import SHADES

CELLS = 4000
PANELS = 4  # layers whose experts are shown over time
PARTS, STEPS = 60, 5  # of the training, at most, and steps in each, at least, in all but the shortest runs
POINTS = 60  # of a layer's curve
LITTLE = SHADES[1][0]  # of the even load: what is below it is next to nothing
TIMES, UNUSED = "times the even load", "share of the experts"

Values = npt.NDArray[np.float64]


def sections(trained: Trained) -> list[Section]:
    times_LE = last_times(trained)
    if times_LE is None:
        return []
    load_intro = "How many tokens the routers gave each expert, as a multiple of an even load."
    return [
        Section("model-experts", "Expert load", list(_load(trained, times_LE)), load_intro),
        Section("model-routers", "Routers", list(_routers(trained))),
    ]


def last_times(trained: Trained) -> Values | None:
    """times_LE: each expert's load in the last steps as a multiple of the even one; None for a model without routers."""
    rows = trained.columns(f"""
        SELECT layer, expert, sum(load)::BIGINT AS routed FROM (
            SELECT layer, unnest(loads) AS load, generate_subscripts(loads, 1) - 1 AS expert FROM routers
            WHERE step > {trained.last_step - LAST}
        ) GROUP BY ALL ORDER BY ALL
    """)
    if not rows["routed"]:
        return None
    return _times(np.array(rows["routed"], np.int64).reshape(max(rows["layer"]) + 1, max(rows["expert"]) + 1))


def chosen(layers: int, count: int, besides: Sequence[int] = ()) -> list[int]:
    """So many of the layers: the first, the last, those `besides`, and some between."""
    found = dict.fromkeys([0, layers - 1, *besides, *(round(place) for place in np.linspace(0, layers - 1, min(count, layers)))])
    return sorted(list(found)[:count])


def _times(routed: npt.NDArray[np.int64]) -> Values:
    """Multiples of the even load, along the last axis."""
    return np.asarray(routed / np.maximum(routed.mean(axis=-1, keepdims=True), 1e-9))


def _load(trained: Trained, times_LE: Values) -> Iterator[Block]:
    last, batch = trained.last_step, trained.batch_tokens
    if unused := int((times_LE < LITTLE).sum()):
        text = f"{unused:,} of {times_LE.size:,} experts got less than {LITTLE:g} of the even load in the last {min(LAST, last)} steps."
        yield Text(text, warning=unused > times_LE.size / 4)
    found = load(trained.folder, last)
    assert found is not None  # there are rows
    most = min(PARTS, max(4, last // STEPS))
    yield from _by_layer(_summed(found, most), batch)
    yield _at_the_end(times_LE, min(LAST, last))
    extremes = [int(times_LE.max(axis=1).argmax()), int(times_LE.min(axis=1).argmin())]
    shown = chosen(len(times_LE), PANELS, extremes)
    yield _over_time(_summed(found, min(most, max(4, CELLS // times_LE[shown].size))), batch, shown)


def _summed(found: Load, most: int) -> Load:
    """Neighbouring parts of the training summed until there are at most so many."""
    starts = np.unique(np.linspace(0, len(found.first_N), min(most, len(found.first_N)), endpoint=False).astype(int))
    last_N = np.append(found.first_N[starts[1:]] - 1, found.last_N[-1])
    return Load(found.first_N[starts], last_N, np.add.reduceat(found.routed_NLE, starts, axis=0))


def _by_layer(found: Load, batch: int) -> Iterator[Chart]:
    """Each layer over time, by its most loaded expert and by how many get next to nothing."""
    times_NLE = _times(found.routed_NLE)
    parts, layers, _ = times_NLE.shape
    begin_N, end_N = (found.first_N - 1) * batch, found.last_N * batch

    def chart(title: str, field: str, values_NL: Values, colour: Json, form: str, caption: str) -> Chart:
        columns: dict[str, Sequence[Cell]] = {
            "tokens from": np.repeat(begin_N, layers).tolist(), "tokens to": np.repeat(end_N, layers).tolist(),
            "layer": list(range(layers)) * parts, field: rounded(values_NL.ravel(), 3),
        }  # fmt: skip
        spec = heat.over_time(heat.rows("layer", layers), colour, int(end_N[-1]), [told(field, form)])
        return Chart(title, columns, {**spec, "height": heat.step(layers)}, caption)

    yield chart(
        "The most loaded expert of each layer", TIMES, times_NLE.max(axis=-1), heat.times(TIMES, TIMES), ".3~r",
        "Red: one expert gets much more than its part. Where each token has an eighth of the experts, 8 times the even load is the most.",
    )  # fmt: skip
    yield chart(
        "Experts that get next to nothing", UNUSED, (times_NLE < LITTLE).mean(axis=-1),
        heat.shares(UNUSED, f"{UNUSED} of a layer", 0.5, heat.BLUE, power=0.5), ".1%",
        f"The share of each layer's experts with less than {LITTLE:g} of the even load: they cost memory and learn nothing.",
    )  # fmt: skip


def _at_the_end(times_LE: Values, steps: int) -> Chart:
    layers, experts = times_LE.shape
    shown = chosen(layers, max(1, CELLS // experts))
    columns: dict[str, Sequence[Cell]] = {
        "layer": np.repeat(shown, experts).tolist(), "expert": list(range(experts)) * len(shown),
        TIMES: rounded(times_LE[shown].ravel(), 3),
    }  # fmt: skip
    encoding = {
        "x": heat.places("expert", experts), "y": heat.rows("layer", len(shown)), "color": heat.times(TIMES, TIMES),
        "tooltip": [told("layer"), told("expert"), told(TIMES, ".3~r")],
    }  # fmt: skip
    spec = {"height": heat.step(len(shown)), "mark": "rect", "encoding": encoding}
    caption = f"Every expert in the last {steps} steps; a cell that is hardly seen has an even load.{_some(shown, layers)}"
    return Chart("Load of every expert at the end", columns, spec, caption)


def _over_time(found: Load, batch: int, shown: list[int]) -> Chart:
    times_NLE = _times(found.routed_NLE)[:, shown]
    parts, _, experts = times_NLE.shape
    place, part, expert = (axis.ravel() for axis in np.indices((len(shown), parts, experts)))
    columns: dict[str, Sequence[Cell]] = {
        "layer": np.array(shown)[place].tolist(), "tokens from": ((found.first_N - 1) * batch)[part].tolist(),
        "tokens to": (found.last_N * batch)[part].tolist(), "expert": expert.tolist(), TIMES: rounded(times_NLE[part, place, expert], 2),
    }  # fmt: skip
    last = int(found.last_N[-1]) * batch
    inner = heat.over_time(heat.rows("expert", experts), heat.times(TIMES, TIMES), last, [told(TIMES, ".2~r")], ticks=4)
    spec = heat.by_layer({**inner, "width": 282, "height": max(128, 4 * experts)}, columns=2)
    caption = "Each line of a map is an expert. A line that stays blue is an expert that has died, red lines beside it took its tokens."
    return Chart("Load of every expert over time", columns, spec, caption + _some(shown, found.routed_NLE.shape[1]))


def _some(shown: list[int], layers: int) -> str:
    return f" Shown are {len(shown)} of {layers} layers, the least even ones among them." if len(shown) < layers else ""


def _routers(trained: Trained) -> Iterator[Block]:
    last = trained.last_step
    rows = trained.columns(f"""
        SELECT max(step) * {trained.batch_tokens} AS tokens, layer, avg(router_entropy) FILTER (isfinite(router_entropy)) AS entropy,
            avg(logit_rms) FILTER (isfinite(logit_rms)) AS size, max(abs(logit_max)) FILTER (isfinite(logit_max)) AS largest,
            max(len(loads)) AS experts
        FROM routers GROUP BY layer, (step - 1) * {min(POINTS, max(4, last // STEPS))} // {last} ORDER BY layer, 1
    """)
    layers, even = sorted(set(rows["layer"])), math.log(max(rows["experts"]))

    def chart(title: str, column: str, field: str, axis: str, caption: str, line: float | None = None) -> Chart:
        values = rounded(rows[column], 4)
        x, domain = curves.tokens(last * trained.batch_tokens), curves.span(values)
        ends = curves.last(rows["tokens"], rows["layer"], values)
        above = curves.rule(line, "knows nothing of its token", domain) if line else []
        spec = curves.several("layer", layers, ends, field, axis, x, domain, 220, ordered=True, more=above)
        return Chart(title, {"tokens": rows["tokens"], "layer": rows["layer"], field: values}, spec, caption)

    entropy = (
        f"Of the routers' probabilities, mean over tokens: from 0, sure of one expert, to {even:.2f}, where a token makes no difference."
    )
    yield chart("Router entropy", "entropy", "entropy", "nats", entropy, even)
    size = "How large they are, as their root mean square. Logits that keep growing are what the z-loss is against."
    yield chart("Router logits", "size", "root mean square", "", size)
    largest = "By magnitude, of any token and expert in each part of the run."
    yield chart("The largest router logit", "largest", "largest logit", "", largest)
