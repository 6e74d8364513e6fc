"""What a person sees of a run: plain lines in a log, a panel on a terminal. And what drawing may cost."""

import io
import math
import re
import time

import pytest
from rich.console import Console

from trainer.metrics import EvalRow, RouterRow, StepRow
from trainer.view import REFRESH_S, View, curve, duration, load_strip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step_row(step: int, **more: object) -> StepRow:
    row = StepRow(step, step * 4096, 6.25, 6.2, 1.03, 4.0, 0.81, 1.5e-3, 2.0, 0.004, 2048.0, None, 812.0, 0, None, False, 1e9 + 2 * step)
    return row._replace(**more)


def router_row(step: int, layer: int, loads: list[int]) -> RouterRow:
    shares = [load / sum(loads) for load in loads]
    entropy = -sum(share * math.log(share) for share in shares if share) / math.log(len(loads))
    return RouterRow(step, layer, loads, entropy, 2.0, max(shares), min(shares), 1.0, 3.0)


def held_out(step: int, **losses: float) -> list[EvalRow]:
    return [EvalRow(step, source, 8, 4088, 16_000, loss, loss / 2.7) for source, loss in losses.items()]


def plain_lines(view: View) -> list[str]:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue().splitlines()


def plain_view(first_step: int = 1, last_step: int = 100) -> View:
    return View("try", first_step, last_step, 4096, Console(file=io.StringIO(), highlight=False, soft_wrap=True))


def drawn(view: View, colours: bool = False) -> str:
    """The last frame that a terminal shows."""
    assert isinstance(view.console.file, io.StringIO)
    text = view.console.file.getvalue()
    frame = text[text.rindex("╭") :]
    return frame if colours else re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame)


def terminal_view(width: int = 100, height: int = 40, last_step: int = 100, no_color: bool = False) -> View:
    console = Console(file=Terminal(), width=width, height=height, force_terminal=True, color_system="truecolor", no_color=no_color)
    return View("try", 1, last_step, 4096, console)


def test_a_log_gets_the_first_steps_then_one_line_per_interval_and_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with plain_view(first_step=11, last_step=50) as view:
        for step in range(11, 51):
            clock[0] += 2.0
            view.step(step_row(step), [])
    shown = [int(re.match(r"step (\d+)/50 ", line)[1]) for line in plain_lines(view)]  # type: ignore[index]
    assert shown == [11, 12, 13, 18, 23, 28, 33, 38, 43, 48, 50]


def test_a_plain_line_says_loss_gradient_rate_speed_load_and_time_left() -> None:
    with plain_view() as view:
        for step in (1, 2):
            view.step(step_row(step), [router_row(step, 0, [3, 1, 2, 2]), router_row(step, 1, [2, 2, 2, 2])])
    assert plain_lines(view)[-1] == ("step 2/100  loss 6.250  grad 0.81  lr 1.50e-03  2.04K tok/s  load 12.5-37.5%  3:16 left")


def test_plain_lines_have_no_control_codes_and_fit_120_characters() -> None:
    routers = [router_row(1_200_000, 0, [1, 999_999_999])]
    sources = {f"source-number-{number}": 3.5 for number in range(20)}
    with plain_view(last_step=1_200_000) as view:
        view.step(step_row(1, tokens_per_second=12_345_678.0, mfu=0.3123, loss=123.4, gradient_norm=123_456.7, seconds=1.7), routers)
        view.evaluation(held_out(1, **sources))
    lines = plain_lines(view)
    assert max(map(len, lines)) <= 120
    assert "\x1b" not in "".join(lines)
    assert re.findall(r"source-number-\d+ 3\.500", " ".join(lines)) == [f"{source} 3.500" for source in sources]


def test_time_left_is_the_median_of_recent_steps_so_one_slow_step_does_not_count() -> None:
    with plain_view(last_step=110) as view:
        for step in range(1, 10):
            view.step(step_row(step, seconds=500.0 if step == 5 else 2.0), [])
        view.step(step_row(110, seconds=2.0), [])
        assert view._seconds_left(step_row(10)) == 200.0


def test_a_spike_is_said_at_once_and_that_its_update_was_skipped() -> None:
    with plain_view() as view:
        for step in range(1, 9):
            view.step(step_row(step), [])
        view.step(step_row(9, spike="the loss 9.1 is 7.0 deviations above 6.2", skipped=True), [])
    assert plain_lines(view)[-1] == "step 9: the loss 9.1 is 7.0 deviations above 6.2; its update was skipped"


def test_brackets_in_a_message_are_no_markup() -> None:
    view = plain_view()
    view.say("[bold]saved[/bold] checkpoints/step-5")
    assert plain_lines(view) == ["[bold]saved[/bold] checkpoints/step-5"]


def test_forced_colours_do_not_make_a_log_file_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with plain_view() as view:
        view.step(step_row(1), [])
    assert len(plain_lines(view)) == 1
    assert "╭" not in plain_lines(view)[0]


def test_a_terminal_shows_loss_speed_held_out_losses_and_a_strip_per_layer() -> None:
    with terminal_view() as view:
        view.step(step_row(1, loss=10.8), [])
        view.evaluation(held_out(1, wiki=7.5, dclm=8.0))
        view.evaluation(held_out(2, wiki=7.25, dclm=8.125))
        view.step(step_row(100, mfu=0.343), [router_row(100, 0, [5, 5, 5, 5]), router_row(100, 1, [20, 0, 0, 0])])
    frame = drawn(view)
    for text in (
        "try",
        "step 100 of 100  409K of 409K tokens",
        "6.2500",
        "2,048",
        "MFU 34.3%",
        "1.50e-03",
        "load balancing 1.030",
        "wiki 7.250 -0.250",
    ):
        assert text in frame
    assert "dclm 8.000 +0.125" not in frame and "dclm 8.125 +0.125" in frame
    assert re.search(r"layer 0 +▒{8}  25\.0% to 25\.0%", frame)
    assert re.search(r"layer 1 +██·{6}  0\.0% to 100\.0%", frame)


def test_before_the_first_step_the_panel_says_what_it_waits_for() -> None:
    with terminal_view() as view:
        assert "after the first step" in drawn(view)


def test_a_dense_model_has_no_expert_load_and_no_router_losses() -> None:
    with terminal_view() as view:
        view.step(step_row(100, load_balancing=0.0, z=0.0), [])
    assert "expert" not in drawn(view) and "load balancing" not in drawn(view)


@pytest.mark.parametrize(("width", "height"), [(60, 24), (80, 24), (80, 10), (200, 60)])
def test_the_panel_fits_the_terminal(width: int, height: int) -> None:
    with terminal_view(width, height) as view:
        view.evaluation(held_out(0, wiki=7.5, dclm=8.0))
        view.step(step_row(100), [router_row(100, layer, [1] * 64) for layer in range(16)])
    lines = drawn(view).rstrip("\n").split("\n")
    assert {len(line.rstrip("\r")) for line in lines} == {min(width, 110)}
    assert len(lines) <= max(height, 16)


def test_when_layers_do_not_fit_the_collapsed_one_is_shown() -> None:
    routers = [router_row(100, layer, [9] * 63 + [8] if layer != 13 else [576] + [0] * 63) for layer in range(16)]
    with terminal_view(80, 20) as view:
        view.step(step_row(100), routers)
    assert "layer 13" in drawn(view)
    shown = re.findall(r"layer (\d+)", drawn(view))
    assert 1 < len(shown) < 16
    assert f"{16 - len(shown)} layers that are more even" in drawn(view)


def test_no_color_switches_colours_off_and_leaves_the_shades() -> None:
    coloured, plain = [], []
    for no_color, frames in ((False, coloured), (True, plain)):
        with terminal_view(no_color=no_color) as view:
            view.step(step_row(100), [router_row(100, 0, [20, 0, 4, 0])])
        frames.append(drawn(view, colours=True))
    assert re.search(r"\x1b\[[0-9;]*3[1-6]m", coloured[0])
    assert not re.search(r"\x1b\[[0-9;]*3[1-6]m", plain[0])
    assert "█" in plain[0] and "·" in plain[0]


def test_drawing_is_bounded_by_the_clock_not_by_the_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_view(last_step=2000) as view:
        frames = []
        monkeypatch.setattr(view._live, "refresh", lambda: frames.append(time.monotonic()))
        began = time.monotonic()
        for step in range(1, 1001):
            view.step(step_row(step), [])
        passed = time.monotonic() - began
    assert 1 <= len(frames) - 1 <= 1 + passed / REFRESH_S  # one more when it is left


def test_a_slow_terminal_is_drawn_on_for_at_most_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    drawings = []
    with terminal_view(last_step=2000) as view:
        monkeypatch.setattr(view._live, "refresh", lambda: drawings.append(clock.__setitem__(0, clock[0] + 0.02)))
        for step in range(1, 1001):
            clock[0] += 0.1
            view.step(step_row(step), [])
        assert 45 <= len(drawings) <= 52  # 0.02 s each of 100 s


def test_the_panel_stays_when_training_fails_and_the_error_is_not_hidden() -> None:
    view = terminal_view()
    with pytest.raises(ZeroDivisionError), view:
        view.step(step_row(7), [])
        raise ZeroDivisionError
    assert "step 7 of 100" in drawn(view)


def test_a_curve_goes_from_full_to_low_and_leaves_gaps_for_what_is_not_finite() -> None:
    lines, low, high = curve([3.0, math.nan, 1.0, 2.0], 10, 2)
    assert lines == ["█  █", "█ ▁█"]
    assert (low, high) == (1.0, 2.0)


def test_more_values_than_columns_are_averaged() -> None:
    lines, low, high = curve([1.0, 3.0, 5.0, 7.0], 2, 1)
    assert (lines, low, high) == (["▁█"], 2.0, 6.0)


def test_the_fall_at_a_run_s_beginning_does_not_flatten_what_comes_after() -> None:
    values = [100.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    lines, low, high = curve(values, 8, 1)
    assert (lines, low, high) == (["██▁█▁█▁█"], 1.0, 2.0)


def test_values_that_are_never_finite_draw_nothing() -> None:
    lines, low, high = curve([math.inf, math.nan], 5, 3)
    assert lines == ["", "", ""] and math.isnan(low) and math.isnan(high)


def test_a_strip_shades_by_the_multiple_of_the_even_load() -> None:
    # even is 100: 0.05, 0.3, 1, 2 and 4.65 times it
    assert load_strip([5, 30, 100, 200, 465, 0, 0, 0]).plain == "·░▒▓█···"
    assert load_strip([7, 7], width=3).plain == "▒▒▒▒▒▒"
    assert load_strip([0, 0]).plain == "··"


def test_durations_read_as_people_write_them() -> None:
    seconds = (0, 7.4, 192, 59.6, 3729, 2 * 86400 + 4 * 3600, math.inf, math.nan)
    assert [duration(value) for value in seconds] == ["0:00", "0:07", "3:12", "1:00", "1:02:09", "2 d 04 h", "?", "?"]


def test_no_held_out_loss_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With losses of two digits, as at the start of a run, and the longest of the sources' names."""
    names = ["dclm", "starcoder", "pes2o", "arxiv", "open-web-math", "algebraic-stack", "wiki"]
    for width in range(70, 121):
        view = View("a-run", 1, 50, 1000, Console(file=io.StringIO(), width=width))
        for loss in (10.861, 10.123):
            for place, name in enumerate(names):
                row = EvalRow(1, name, 8, 504, 2000, loss + place / 100, 1.5)
                view._held_out[name] = (row, 10.861 + place / 100 if loss < 10.5 else None)
        lines = [line.plain.rstrip() for line in view._held_out_losses(width - 4)]
        assert max(map(len, lines)) <= width - 4
        assert sum(line.count("-0.738") for line in lines) == len(names)
