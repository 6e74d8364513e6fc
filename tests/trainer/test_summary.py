"""The end tables, against numbers worked out by hand."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.errors import PipelineError
from tests.trainer.test_view import held_out, router_row, step_row
from trainer.metrics import CheckpointRow, EvalRow, Recorder
from trainer.summary import summary


def printed(folder: Path, run: str = "try", width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    summary(folder, run, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line(text: str, start: str) -> list[str]:
    """The cells of the line that begins with `start`."""
    (found,) = [found for found in text.splitlines() if found.startswith(start)]
    return found[len(start) :].split()


def test_held_out_losses_are_shown_before_and_after_with_their_mean(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "try")
    recorder.evaluation([EvalRow(0, "wiki", 8, 99, 400, 10.5, 4.25), EvalRow(0, "dclm", 8, 99, 400, 11.5, 4.75)])
    for step in (1, 2):
        recorder.step(step_row(step), [], [])
        recorder.evaluation([EvalRow(step, "wiki", 8, 99, 400, 6.0, 2.5), EvalRow(step, "dclm", 8, 99, 400, 7.5 - step, 3.0)])
    recorder.close()
    text = printed(tmp_path)
    assert "Held-out loss of try before the first step and after step 2" in text
    assert line(text, "wiki") == ["10.500", "6.000", "-4.500", "4.250", "2.500"]
    assert line(text, "dclm") == ["11.500", "5.500", "-6.000", "4.750", "3.000"]
    assert line(text, "mean") == ["11.000", "5.750", "-5.250", "4.500", "2.750"]


def test_text_of_unknown_size_leaves_bits_per_byte_open(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "try")
    recorder.step(step_row(1), [], [])
    recorder.evaluation([row._replace(bytes=None, bits_per_byte=None) for row in held_out(1, a=3.0, b=4.0)])
    recorder.close()
    assert line(printed(tmp_path), "mean") == ["3.500", "3.500", "+0.000", "–", "–"]


def test_what_the_run_came_to(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "try")
    for step in range(1, 5):
        skipped = step == 3
        row = step_row(
            step, loss=9.0 - step, memory_mb=800.0 + (step == 2), masked=step % 2, spike="high" if skipped else None, skipped=skipped
        )  # fmt: skip
        recorder.step(row, [router_row(step, 0, [30, 30, 20, 20]), router_row(step, 1, [96, 3, 1, 0])], [])
        recorder.checkpoint(CheckpointRow(step, f"checkpoints/step-{step}", 172_400_000, 0.5, 1.0))
    recorder.close()
    text = printed(tmp_path)
    expected = {
        "steps": "4, 16,384 tokens",
        "training loss": "8.000 → 5.000; mean of the last 4 steps 6.500",
        "time": "0:08 in steps, 0.2% of it waiting for data; 0:08 in all",
        "speed": "2,048 tokens/s (median)",
        "peak memory": "801 MB on the first rank",
        "spikes": "1; updates skipped: 1",
        "masked": "2 instances were left out of the loss",
        "expert load": "0.0% (layer 1) to 96.0% (layer 1) in the last 4 steps; even would be 25.0%",
        "unused experts": "2 of 8, with less than 0.1 of the even load",  # 1% and 0% of 25%; 3% is 0.12 of it
        "checkpoints": "4 of 172 MB each; training stood still for 2.0 s, 20.0% of the time",
    }
    for name, value in expected.items():
        assert " ".join(line(text, name)) == value


def test_expert_loads_are_summed_over_the_last_steps_only(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "try")
    for step in range(1, 201):
        recorder.step(step_row(step), [router_row(step, 0, [100, 0] if step <= 100 else [60, 40])], [])
    recorder.close()
    assert " ".join(line(printed(tmp_path), "expert load")).startswith("40.0% (layer 0) to 60.0% (layer 0) in the last 100 steps")


def test_a_dense_model_has_no_line_on_experts_and_a_known_peak_gives_utilisation(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "try")
    recorder.step(step_row(1, mfu=0.25), [], [])
    recorder.close()
    text = printed(tmp_path)
    assert "expert" not in text
    assert "MFU 25.0%" in text


def test_seven_sources_fit_eighty_columns(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "olmoe-small")
    recorder.step(step_row(1), [], [])
    recorder.evaluation(held_out(1, **{"algebraic-stack": 10.85, "open-web-math": 10.9}))
    recorder.close()
    assert "…" not in printed(tmp_path, "olmoe-small", width=80)


def test_a_run_without_steps_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"try has not taken a step.*make pretrain RUN=try"):
        printed(tmp_path)
