"""The report's part about a model: each number against the run's own tables, worked out in another way; runs that lack what others have."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.store import Store
from tests.browser import opened, screenshot
from tests.tools.made_run import analysed, write_run, write_table
from tools.report import model
from tools.report.blocks import Block, Chart, Part, Section, Table, Text
from tools.report.page import render
from trainer.run import Parent, Upcycling

HOSTILE = "</script><script>alert(1)</script>"


def part_of(folder: Path, run: str = "try") -> Part:
    return model.part(Store(folder), run)


def section(part: Part, name: str) -> Section:
    return next(section for section in part.sections if section.id == name)


def ids(part: Part) -> list[str]:
    return [section.id for section in part.sections]


def block(part: Part, title: str) -> Any:
    return next(block for block in blocks(part) if getattr(block, "title", None) == title)


def blocks(part: Part) -> Iterator[Block]:
    for each in part.sections:
        yield from each.blocks


def warnings(part: Part) -> list[str]:
    return [block.text for block in blocks(part) if isinstance(block, Text) and block.warning]


def lines(table: Table) -> dict[str, Any]:
    return {row[0]: row[1] if len(row) == 2 else row[1:] for row in table.rows}


def test_loss_is_the_mean_of_equal_parts_with_the_lowest_and_highest_step_of_each(tmp_path: Path) -> None:
    losses = np.random.default_rng(0).uniform(2, 9, 1000)
    write_run(tmp_path, "try", steps=1000, loss=lambda step: losses[step - 1], every=500)
    columns = block(part_of(tmp_path), "Training loss").columns
    parts = np.array([step * 160 // 1000 for step in range(1000)])
    for name, of in (("loss", np.mean), ("lowest", np.min), ("highest", np.max)):
        assert np.allclose(columns[name], [of(losses[parts == place]) for place in range(160)], rtol=1e-4), name
    assert columns["tokens"][-1] == 512_000 and len(columns["tokens"]) == 160


def test_steps_without_a_finite_loss_are_told_and_spoil_no_mean(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=20, loss=lambda step: {7: math.nan, 8: math.inf}.get(step, 5.0))
    part = part_of(tmp_path)
    assert warnings(part) == ["The loss was not a finite number in 2 steps; means leave these out."]
    assert set(block(part, "Training loss").columns["loss"]) == {5.0, None}
    assert lines(block(part, "What it came to"))["steps without a finite loss"] == 2


def test_held_out_losses_stand_before_and_after_in_the_order_in_which_curves_end(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=20, sources=("web", HOSTILE))
    part = part_of(tmp_path)
    assert lines(block(part, "Held-out loss")) == {
        "web": pytest.approx([6.0, 5.0, -1.0, 3.0, 2.0]), HOSTILE: pytest.approx([5.0, 4.0, -1.0, 2.5, 1.5]),
        "mean": pytest.approx([5.5, 4.5, -1.0, 2.75, 1.75]),
    }  # fmt: skip
    curve = block(part, "Held-out loss by source").columns
    assert list(zip(curve["tokens"], curve["source"], curve["loss"], strict=True))[-2:] == [(10240, HOSTILE, 4.0), (10240, "web", 5.0)]


def test_load_of_every_expert_is_a_multiple_of_the_even_load(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(1, 100, (40, 2, 8))
    drawn[:, 1, 3] = 0
    write_run(tmp_path, "try", steps=40, loads=lambda step, layer: drawn[step - 1, layer].tolist())
    part = part_of(tmp_path)
    end = block(part, "Load of every expert at the end").columns
    summed = drawn.sum(axis=0)
    expected = summed / summed.mean(axis=1, keepdims=True)
    assert np.allclose(np.reshape(end["times the even load"], (2, 8)), expected, rtol=1e-2)
    over_time = block(part, "Load of every expert over time").columns
    for layer, begin, finish, expert, times in zip(*over_time.values(), strict=True):
        loads = drawn[begin // 512 : finish // 512, layer].sum(axis=0)
        assert times == pytest.approx(loads[expert] / loads.mean(), rel=0.06, abs=0.01)
    most = block(part, "The most loaded expert of each layer").columns
    assert most["tokens from"][0] == 0 and most["tokens to"][-1] == 40 * 512
    unused = block(part, "Experts that get next to nothing").columns
    assert set(zip(unused["layer"], unused["share of the experts"], strict=True)) == {(0, 0.0), (1, 0.125)}
    assert lines(block(part, "What it came to"))["experts with less than 0.1 of the even load at the end"] == 1


def test_a_layer_that_collapses_is_among_those_shown_and_warned_of(tmp_path: Path) -> None:
    write_run(
        tmp_path, "try", steps=12, model__layers=12, model__d_model=32,
        loads=lambda step, layer: [60, 60, 0, 0, 0, 0, 0, 0] if layer == 7 else [0, 0, 0, 24, 24, 24, 24, 24],
    )  # fmt: skip
    part = part_of(tmp_path)
    shown = set(block(part, "Load of every expert over time").columns["layer"])
    assert {0, 7, 11} < shown and len(shown) == 4
    assert warnings(part) == ["39 of 96 experts got less than 0.1 of the even load in the last 12 steps."]


def test_routers_have_a_curve_for_each_layer_and_the_largest_logit_by_magnitude(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=20)
    part = part_of(tmp_path)
    rows = block(part, "The largest router logit").columns
    assert list(zip(rows["tokens"], rows["layer"], rows["largest logit"], strict=True))[-1] == (20 * 512, 1, 22.0)
    entropy = block(part, "Router entropy")
    assert "2.08" in entropy.caption  # ln 8
    assert dict(zip(entropy.columns["layer"], entropy.columns["entropy"], strict=True)) == {0: 2.0, 1: 1.5}


def test_a_dense_model_has_no_sections_about_experts(tmp_path: Path) -> None:
    write_run(tmp_path, "try", model__ffn="dense")
    part = part_of(tmp_path)
    assert not {"model-experts", "model-routers"} & set(ids(part)) and "dense" in part.intro
    assert not [each for each in blocks(part) if getattr(each, "title", "") in ("Load-balancing loss", "Router z-loss")]


def test_a_large_model_makes_a_small_part_of_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=300, every=50, model__layers=16, model__experts=64, model__top_k=8)
    part = part_of(tmp_path)
    sizes = {each.title: len(orjson.dumps(dict(each.columns))) for each in blocks(part) if isinstance(each, Chart)}
    assert max(sizes.values()) < 150_000 and sum(sizes.values()) < 400_000
    rows = {each.title: len(next(iter(each.columns.values()))) for each in blocks(part) if isinstance(each, Chart)}
    assert max(rows.values()) <= 4000


def test_what_happened_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path, "try", steps=8, planned=12, parent=Parent("elder", 5000, 2_560_000, 1e-4))
    steps = {"step": [9], "tokens": 9 * 512, "loss": 7.0, "spike": "gradient norm 9, where 1 is usual", "skipped": True, "seconds": 1.0,
             "data_seconds": 0.0, "tokens_per_second": 1.0, "memory_mb": 1.0, "masked": 3}  # fmt: skip
    write_table(run, "steps", steps, step=9)
    write_table(run, "checkpoints", {"step": [4, 8], "path": "x", "bytes": 2_000_000, "pause_seconds": 0.25, "seconds": 1.5})
    part = part_of(tmp_path)
    assert "annealed from elder after step 5,000" in part.intro
    assert warnings(part) == ["It is not finished: it has taken 9 of 12 steps."]
    assert [list(row) for row in block(part, "Spikes").rows] == [[9, 4608, 7.0, "gradient norm 9, where 1 is usual", True]]
    assert [list(row) for row in block(part, "Checkpoints").rows] == [[4, 2.0, 1.5, 0.25], [8, 2.0, 1.5, 0.25]]
    outcome = lines(block(part, "What it came to"))
    assert (outcome["spikes"], outcome["updates left out"], outcome["instances left out of the loss"]) == (1, 1, 3)
    assert lines(block(part, "What it is"))["began from"] == "elder after step 5,000, 2.56M tokens"
    assert lines(block(part, "Settings"))["optim.lr"] == "0.003"


def test_an_upcycled_run_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=1, parent=Parent("dense", 2, 1024, 1e-3, Upcycling(0.5, 0)))
    assert "upcycled from dense after step 2" in part_of(tmp_path).intro


def test_scores_stand_beside_chance_with_a_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path, "try", steps=20)
    score = {
        "formulation": "completion", "shots": "0", "normalisation": "none", "questions": 400, "all_questions": 400, "cut": 0,
        "chance": 0.25, "constant": 0.3, "acc": 0.5, "acc_per_char": 0.5, "acc_per_token": 0.5, "bits_per_byte": 1.5,
        "cross_entropy": 2.0, "data": "x",
    }  # fmt: skip
    write_table(run, "tasks", {**score, "step": [10, 10], "task": ["arc", "old"], "accuracy": [0.26, 0.31], "standard_error": 0.02})
    write_table(run, "tasks", {**score, "step": [20], "task": ["arc"], "accuracy": 0.5, "standard_error": 0.025}, 20, "evaluation")
    part = part_of(tmp_path)
    assert [list(row) for row in block(part, "Tasks").rows] == [
        ["arc", 20, 400, 0.5, 0.025, 0.3, "above chance", 1.5],
        ["old", 10, 400, 0.31, 0.02, 0.3, "at chance", 1.5],
    ]
    drawn = block(part, "Scores beside chance").columns
    assert (drawn["from"][0], drawn["to"][0]) == pytest.approx((0.451, 0.549))
    assert block(part, "Scores over training").columns["tokens"] == [5120, 5120, 10240]


def test_analyses_are_shown_as_they_were_found(tmp_path: Path) -> None:
    analysed(write_run(tmp_path, "try", steps=20), word=f"a\x1b[31m {HOSTILE}")
    part = part_of(tmp_path)
    assert ids(part)[-5:] == ["model-saturation", "model-coactivation", "model-domains", "model-vocabulary", "model-words"]
    saturation = block(part, "All experts of a token")
    assert set(zip(saturation.columns["layer"], saturation.columns["share"], strict=True)) == {(0, 0.5), (1, 0.75)}
    pairs = block(part, "Which experts a token gets together").columns
    shares = dict(zip(zip(pairs["layer"], pairs["expert"], pairs["also chosen"], strict=True), pairs["share"], strict=True))
    assert shares[1, 2, 5] == 0.4 and len(shares) == 2 * 8 * 7
    domains = block(part, "Experts by source").columns
    assert dict(zip(domains["source"], domains["times chance"], strict=True)) == {"code": 2.0, "web": 1.0}
    assert block(part, "Layer 0").rows[0][1].startswith("a␛[31m␣</script>") and "…" in block(part, "Layer 0").rows[0][1]


def test_what_is_not_there_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    write_run(tmp_path, "try", steps=0, planned=5)
    part = part_of(tmp_path)
    assert warnings(part) == ["try has not taken a step yet."]
    texts = [each.text for each in blocks(part) if isinstance(each, Text)]
    assert any("make eval RUN=try" in text for text in texts) and any("make analyze RUN=try" in text for text in texts)


def test_an_adapted_run_shows_what_it_learnt_from(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "try-dpo"
    record = {
        "name": "try-dpo", "method": "dpo", "parent": {"name": "try", "folder": "final"}, "steps": 30, "code": "0.1.0",
        "versions": {"trl": "1"}, "recipe": {
            "name": "small-dpo", "description": "Pairs", "training": {"beta": 0.1}, "sources": {"p": {"title": "P", "licence": "MIT"}},
        },
        "data": {"p": {"rows": 9, "kept": 5, "tokens": 77, "learned": 33, "dropped": {"too_long": 4}}},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "adapt.json").write_text(json.dumps(record))
    rewards = {"chosen_reward": [0.1, 0.4], "rejected_reward": [0.0, -0.2], "margin": [0.1, 0.6], "accuracy": [0.5, 1.0]}
    columns = {
        "step": [1, 2],
        "method": "dpo",
        "tokens": [40, 80],
        "loss": [0.7, 0.6],
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        **rewards,
    }
    write_table(SimpleNamespace(name="try-dpo", folder=folder), "adaptation", columns, part="adapt")  # type: ignore[arg-type]
    part = part_of(tmp_path, "try-dpo")
    assert part.intro == "try-dpo is try after direct preference optimisation. Pairs."
    assert list(block(part, "What it learnt from").rows[0]) == ["p", "P", "MIT", 9, 5, 77, 33, "too_long 4"]
    drawn = block(part, "Rewards of answers").columns
    assert list(zip(*drawn.values(), strict=True))[-2:] == [(40, "margin", 0.1), (80, "margin", 0.6)]
    assert warnings(part) == ["It is not finished: it has taken 2 of 30 steps."]
    (folder / "adapt.json").write_text("{")
    with pytest.raises(PipelineError, match="adapt.json: is not an adaptation's record"):
        part_of(tmp_path, "try-dpo")


def test_a_run_on_a_store_at_a_url_lies_under_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "data", "try", steps=4)
    part = model.part(SimpleNamespace(place="s3://bucket/prefix"), "try")  # type: ignore[arg-type]
    assert lines(block(part, "What it came to"))["steps"] == 4


def test_a_copied_run_shows_its_own_rows_and_not_those_of_the_run_it_was_copied_from(tmp_path: Path) -> None:
    run = write_run(tmp_path, "try", steps=4)
    shutil.copytree(run.folder, run.folder.with_name("copy"))
    write_run(tmp_path, "try", steps=9)
    assert lines(block(part_of(tmp_path, "copy"), "What it came to"))["steps"] == 4


def test_unknown_and_damaged_runs_are_errors_that_name_them(tmp_path: Path) -> None:
    run = write_run(tmp_path, "olmoe-small", steps=4)
    with pytest.raises(ConfigError, match="did you mean `olmoe-small`"):
        part_of(tmp_path, "olmoe-smal")
    (run.folder / "metrics" / "steps" / "000000001.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(PipelineError, match="models/olmoe-small: the table steps cannot be read"):
        part_of(tmp_path, "olmoe-small")


def test_the_page_of_a_hostile_run_holds_its_names_as_text(tmp_path: Path) -> None:
    run = write_run(tmp_path, "try", steps=20, sources=("web", HOSTILE))
    analysed(run, word=HOSTILE, source=HOSTILE)
    page = render("try", [part_of(tmp_path)], [], "made").decode()
    assert HOSTILE not in page and "&lt;/script&gt;&lt;script&gt;alert(1)" in page


@pytest.mark.slow
def test_every_chart_of_a_run_is_drawn_in_a_browser(tmp_path: Path, browser: Any) -> None:
    from tools.report.vega import scripts

    run = write_run(tmp_path, "try", steps=200, every=40, model__layers=6, sources=("web", "code", HOSTILE), loads=lambda step, layer: [
        1 + (step * (expert + layer)) % 40 * (expert != 3) for expert in range(8)])  # fmt: skip
    analysed(run, word="\x1b]0;owned\x07 \u202eolleh", layers=6)
    part = part_of(tmp_path)
    file = tmp_path / "page.html"
    file.write_bytes(render("try", [part], scripts(Progress()), "made"))
    with opened(browser, file) as page:
        page.locator("html[data-drawn=all]").wait_for(timeout=60_000)
        assert page.locator("figure.chart[data-drawn=done]").count() == sum(isinstance(each, Chart) for each in blocks(part))
        loss = page.locator("#model-loss figure").first.locator("svg")
        loss.scroll_into_view_if_needed()
        loss.hover()
        page.locator("#vg-tooltip-element.visible", has_text="loss").wait_for(timeout=10_000)
        names = page.locator("#model-routers figure").first.locator("svg text").all_text_contents()
        assert {f"layer {layer}" for layer in range(6)} <= set(names)
        screenshot(page, "report-model", whole=True)
