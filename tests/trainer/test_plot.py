"""The loss plot: what is in the picture, and what it stands."""

import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.errors import PipelineError
from tests.trainer.test_view import held_out, step_row
from trainer.metrics import Recorder
from trainer.plot import TEXT_GAP, plot_loss, running_mean, spread


def record(folder: Path, steps: int, sources: int = 2, **more: float) -> None:
    recorder = Recorder(folder, "try")
    for step in range(steps + 1):
        if step:
            recorder.step(step_row(step, loss=5 + 4 / step, **more), [], [])
        if step % 10 == 0:
            recorder.evaluation(held_out(step, **{f"source-{number}": 5 + number + 5 / (step + 1) for number in range(sources)}))
    recorder.close()


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (saved.append(figure), save(figure, *a, **k))[1])
    return saved


def test_the_picture_is_whole_readable_and_made_in_seconds(tmp_path: Path) -> None:
    record(tmp_path, 40)
    began = time.perf_counter()
    path = plot_loss(tmp_path, "try")
    assert time.perf_counter() - began < 10
    assert path == tmp_path / "loss.png"
    pixels = imread(path)
    assert pixels.shape[:2] == (900, 1200)
    assert (pixels[..., :3] < 0.9).any(axis=2).mean() > 0.01  # something is drawn
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".tmp")] == []


def test_losses_lie_at_the_tokens_of_their_steps_and_curves_are_named_at_their_ends(tmp_path: Path, figures: list[Figure]) -> None:
    record(tmp_path, 40)
    plot_loss(tmp_path, "try")
    above, below = figures[0].axes
    raw, _, first, second = (line.get_xydata() for line in above.lines)
    assert np.allclose(raw, [(step * 4096, 5 + 4 / step) for step in range(1, 41)])
    assert np.allclose(first, [(step * 4096, 5 + 5 / (step + 1)) for step in range(0, 41, 10)])
    assert np.allclose(second[-1], (40 * 4096, 6 + 5 / 41))
    names = {text.get_text(): text.get_color() for text in above.texts}
    assert set(names) == {"training 5.10", "source-0 5.12", "source-1 6.12"}
    assert names["source-1 6.12"] == above.lines[3].get_color() != names["source-0 5.12"] == above.lines[2].get_color()
    assert np.allclose(below.lines[0].get_ydata(), 1.5e-3)
    assert [below.get_xlabel(), above.get_ylabel()] == ["tokens", "loss, nats per token"]


def test_names_do_not_overlap_and_stay_in_the_picture(tmp_path: Path, figures: list[Figure]) -> None:
    record(tmp_path, 40, sources=12)
    plot_loss(tmp_path, "try")
    boxes = sorted((text.get_window_extent() for text in figures[0].axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 13
    for lower, upper in pairwise(boxes):
        assert lower.y1 <= upper.y0 + 1
    assert max(box.x1 for box in boxes) <= 1200


def test_more_sources_than_colours_are_told_apart_by_their_lines(tmp_path: Path, figures: list[Figure]) -> None:
    record(tmp_path, 20, sources=15)
    plot_loss(tmp_path, "try")
    looks = [(line.get_color(), line.get_linestyle()) for line in figures[0].axes[0].lines[2:]]
    assert len(set(looks)) == 15


def test_a_long_run_is_averaged_and_its_beginning_does_not_take_the_room(tmp_path: Path, figures: list[Figure]) -> None:
    record(tmp_path, 4000)
    plot_loss(tmp_path, "try")
    above = figures[0].axes[0]
    assert len(above.lines[0].get_xdata()) == 2000
    assert np.allclose(above.lines[0].get_xydata()[0], (2 * 4096, 5 + 4 * (1 + 1 / 2) / 2))
    assert above.get_ylim()[1] < 7  # the loss began at 9


@pytest.mark.parametrize("losses", [[math.nan], [3.0, math.inf, 2.0]])
def test_losses_that_are_not_finite_leave_gaps(tmp_path: Path, losses: list[float]) -> None:
    recorder = Recorder(tmp_path, "try")
    for step, loss in enumerate(losses, 1):
        recorder.step(step_row(step, loss=loss), [], [])
    recorder.close()
    assert plot_loss(tmp_path, "try").stat().st_size > 1000


def test_a_run_without_steps_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"try has not taken a step.*make pretrain RUN=try"):
        plot_loss(tmp_path, "try")


def test_the_running_mean_looks_back_only_and_passes_over_gaps() -> None:
    values = np.array([math.nan, 1.0, 3.0, math.inf, 5.0, 7.0])
    assert np.array_equal(running_mean(values, 2), [math.nan, 1.0, 2.0, 3.0, 5.0, 6.0], equal_nan=True)


def test_crowded_names_move_apart_around_their_middle_and_others_stay() -> None:
    assert spread([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert np.allclose(spread([0.5, 0.5, 0.9], 0.1), [0.45, 0.55, 0.9])
    assert np.allclose(spread([0.5, 0.51, 0.52, 0.53], 0.1), [0.365, 0.465, 0.565, 0.665])
    moved = spread(sorted(np.random.default_rng(1).random(20) * 0.3), TEXT_GAP)
    assert np.diff(moved).min() >= TEXT_GAP - 1e-9
