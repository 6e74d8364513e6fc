"""A run's loss as a picture: training and held-out loss and the learning rate against tokens.

In: the run's Parquet tables (metrics.py), of all its attempts. Out: `loss.png` in the run's folder, 1,200 × 900 pixels, made to be
read at 800. Cost: about a second, most of it importing matplotlib; a long run's steps are averaged to POINTS groups.
Colours are Okabe and Ito's, told apart with any colour vision; curves are named where they end.
Not: nothing interactive, that is TensorBoard's, whose files lie beside it.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import human, shown
from pipeline.errors import PipelineError
from pipeline.files import write_atomically
from trainer.metrics import read

POINTS = 2000
WINDOWS = 60  # the running mean is over 1/60 of the run
MARKED = 30  # evaluations that get a dot each
INCHES, DOTS = (12.0, 9.0), 100
TEXT_GAP = 0.038  # of the panel's height, between the names of two curves
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":")  # from the eighth source on the colours come again, with another one
GREY = "#666666"

Values = npt.NDArray[np.float64]


class End(NamedTuple):
    """Where a curve ends, and what it is called."""

    tokens: float
    loss: float
    name: str
    colour: str


def plot_loss(folder: Path, run: str) -> Path:
    """Draw the run in `folder`, `<store>/models/<run>` → the picture's path. Raises PipelineError if it has not taken a step."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no screen is needed, and nothing stays in the process

    steps = read(folder, "steps")
    if not len(steps):
        raise PipelineError(f"{run} has not taken a step: no metrics are in {shown(folder)}; start it with: make pretrain RUN={run}")
    tokens, loss, rate = (_numbers(steps, name) for name in ("tokens", "loss", "learning_rate"))
    with rc_context({"font.size": 15, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        training = _draw_training(above, tokens, loss)
        ends = [training, *_draw_held_out(above, read(folder, "evals"), tokens[-1] / steps["step"][-1].as_py())]
        above.set_title(run, loc="left", fontweight="bold")
        above.set_ylabel("loss, nats per token")
        above.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        if len(loss) > POINTS:
            above.set_ylim(top=_settled(loss))
        _name_ends(above, ends)
        below.plot(*_averaged(tokens, rate), color=GREY, linewidth=2)
        below.set_ylabel("learning rate")
        below.set_ylim(bottom=0)
        below.set_xlabel("tokens")
        below.set_xlim(0, tokens[-1] * 1.006)  # room for the last dot
        below.xaxis.set_major_formatter(lambda value, _: human(round(value)))
        below.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    path = folder / "loss.png"
    write_atomically(path, picture.getvalue())
    return path


def _numbers(table: pa.Table, name: str) -> Values:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _draw_training(axes: Any, tokens: Values, loss: Values) -> End:
    axes.plot(*_averaged(tokens, loss), color="#c4c4c4", linewidth=1)
    smooth = running_mean(loss, max(len(loss) // WINDOWS, 1))
    axes.plot(*_averaged(tokens, smooth), color=GREY, linewidth=2.5)
    known = smooth[np.isfinite(smooth)]
    return End(tokens[-1], known[-1] if len(known) else np.nan, "training", GREY)


def _draw_held_out(axes: Any, evaluations: pa.Table, batch_tokens: float) -> list[End]:
    ends = []
    for number, source in enumerate(pc.unique(evaluations["source"]).to_pylist()):
        rows = evaluations.filter(pc.equal(evaluations["source"], source))
        tokens, loss = _numbers(rows, "step") * batch_tokens, _numbers(rows, "loss")
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
        axes.plot(tokens, loss, color=colour, linestyle=style, linewidth=1.8, marker="o" if len(rows) <= MARKED else None, markersize=5)
        ends.append(End(tokens[-1], loss[-1], source, colour))
    return ends


def _settled(loss: Values) -> float | None:
    """Where the panel of a long run ends: its first hundredth, and single spikes, would take the room of everything else."""
    later = running_mean(loss, len(loss) // WINDOWS)[len(loss) // 100 :]
    return float(np.nanmax(later)) * 1.02 if np.isfinite(later).any() else None


def _name_ends(axes: Any, ends: list[End]) -> None:
    """Name each curve right of the panel at the height where it ends, or as near to that as the names leave room."""
    low, high = axes.get_ylim()
    ends = sorted((end for end in ends if np.isfinite(end.loss)), key=lambda end: end.loss)
    heights = spread([(end.loss - low) / (high - low) for end in ends], TEXT_GAP)
    for end, height in zip(ends, heights, strict=True):
        axes.annotate(
            f"{end.name} {end.loss:.2f}", (1.015, height), xycoords="axes fraction", color=end.colour, va="center", annotation_clip=False
        )  # fmt: skip


def spread(heights: list[float], gap: float) -> list[float]:
    """Ascending heights moved apart until each is at least `gap` above the one before; a crowd stays centred where it was."""
    crowds: list[tuple[float, int]] = []  # the lowest place of each, and how many are in it
    for height in heights:
        low, size = height, 1
        while crowds and low - (crowds[-1][0] + gap * (crowds[-1][1] - 1)) < gap:
            below, count = crowds.pop()
            low = (below * count + (low - gap * count) * size) / (count + size)
            size += count
        crowds.append((low, size))
    return [low + gap * i for low, size in crowds for i in range(size)]


def running_mean(values: Values, window: int) -> Values:
    """The mean of the last `window` finite values up to each one: a step sees nothing after it. nan where there is none."""
    known = np.isfinite(values)
    total, count = (np.cumsum(np.concatenate(([0.0], part))) for part in (np.where(known, values, 0.0), known))
    start = np.maximum(np.arange(len(values)) + 1 - window, 0)
    counts = count[1:] - count[start]
    return np.where(counts > 0, (total[1:] - total[start]) / np.maximum(counts, 1), np.nan)


def _averaged(tokens: Values, values: Values) -> tuple[Values, Values]:
    """At most POINTS points, each the mean of its group of steps at the group's last."""
    groups = np.array_split(np.arange(len(values)), min(POINTS, len(values)))
    return np.array([tokens[group[-1]] for group in groups]), np.array([values[group].mean() for group in groups])
