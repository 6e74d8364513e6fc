"""What the model scores: tasks beside what guessing gives, over training where they were asked more than once, and perplexity.

In: the run's tables `tasks` (of training and of `make eval`) and `perplexity`. Out: one section. Whether a score means anything is
trainer/tasks/report.py's verdict. Not: nothing is measured here.
"""

from collections.abc import Iterator

from pipeline.training_tables import TABLES
from tools.report.blocks import Block, Cell, Chart, Json, Section, Table, Text
from tools.report.model import curves
from tools.report.model.curves import told
from tools.report.model.trained import Trained, rounded
from trainer.metrics import TaskRow
from trainer.tasks.report import standing

SURE = 1.96  # standard errors on either side of a score: 95 in 100 such spans hold the model's true one
STANDINGS = ["above chance", "at chance", "below chance", "one question"]
ACROSS = 4  # panels in a row


def sections(trained: Trained) -> list[Section]:
    blocks = [*_tasks(trained), *_perplexity(trained)]
    return [Section("model-evaluations", "Evaluations", blocks or [Text(f"No task was scored yet: make eval RUN={trained.name}")])]


def _tasks(trained: Trained) -> Iterator[Block]:
    """Each task at the last step at which it was scored."""
    names = [name for name in TABLES["tasks"].names if name != "run"]
    rows = trained.columns(f"SELECT {', '.join(names)} FROM tasks ORDER BY step, task")
    found = [TaskRow(*row) for row in zip(*rows.values(), strict=True)]
    if not found:
        return
    latest = list({row.task: row for row in found}.values())
    yield _beside_chance(latest)
    headings = ["task", "after step", "questions", "score", "standard error", "chance", "which is", "bits per byte"]
    lines = [
        [row.task, row.step, row.questions, row.accuracy, row.standard_error, _guessing(row), standing(row), row.bits_per_byte]
        for row in latest
    ]
    caption = "Chance: what drawing an answer gives, or the best same answer throughout. Bits per byte: of the right answers."
    yield Table("Tasks", headings, lines, caption, frozenset({"score", "standard error", "chance"}), decimals=3)
    if len({row.step for row in found}) > 1 and trained.plan is not None:
        yield _over_time(found, trained.batch_tokens)


def _beside_chance(rows: list[TaskRow]) -> Chart:
    errors = [SURE * (row.standard_error or 0.0) for row in rows]
    columns: dict[str, list[Cell]] = {
        "task": [row.task for row in rows], "score": rounded(row.accuracy for row in rows),
        "from": rounded(max(0.0, row.accuracy - error) for row, error in zip(rows, errors, strict=True)),
        "to": rounded(min(1.0, row.accuracy + error) for row, error in zip(rows, errors, strict=True)),
        "chance": rounded(_guessing(row) for row in rows), "which is": [standing(row) for row in rows],
    }  # fmt: skip
    x: Json = {"type": "quantitative", "scale": {"domain": [0, 1], "padding": 8}, "title": "score", "axis": {"format": ".0%"}}
    y: Json = {"field": "task", "type": "nominal", "sort": None, "title": None, "axis": {"grid": True, "ticks": False, "domain": False}}
    legend = {"title": None, "orient": "top", "symbolOpacity": 1}
    verdict = {"field": "which is", "type": "nominal", "scale": {"domain": STANDINGS}, "legend": legend}
    sure = {"x": {**x, "field": "from"}, "x2": {"field": "to"}, "color": verdict}
    tooltip = [told("task"), *(told(name, ".1%") for name in ("score", "from", "to", "chance")), told("which is")]
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6}, "encoding": sure},
        {"mark": {"type": "tick", "thickness": 2, "color": curves.GREY, "size": 16}, "encoding": {"x": {**x, "field": "chance"}}},
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": {"x": {**x, "field": "score"}, "color": verdict, "shape": verdict, "tooltip": tooltip},
        },
    ]
    caption = "A dot is the score, its line the span that holds the true one 95 times in 100, a grey stroke what guessing gives."
    return Chart("Scores beside chance", columns, {"height": {"step": 22}, "encoding": {"y": y}, "layer": layers}, caption)


def _over_time(found: list[TaskRow], batch_tokens: int) -> Chart:
    columns: dict[str, list[Cell]] = {
        "task": [row.task for row in found], "tokens": [row.step * batch_tokens for row in found],
        "score": rounded(row.accuracy for row in found), "chance": rounded(_guessing(row) for row in found),
    }  # fmt: skip
    x = curves.tokens(max(row.step for row in found) * batch_tokens, ticks=3)
    y = curves.vertical("score", "score", curves.span(columns["score"], columns["chance"]), ".0%", ticks=3)
    line = {"type": "line", "color": curves.BLUE, "point": {"size": 35, "filled": True, "color": curves.BLUE}}
    layers = [
        {"mark": {"type": "line", "strokeDash": [4, 4], "color": curves.GREY}, "encoding": {"y": {**y, "field": "chance"}}},
        {"mark": line, "encoding": {"y": y, "tooltip": [told("tokens", ","), told("score", ".1%"), told("chance", ".1%")]}},
    ]
    facet = {"field": "task", "type": "nominal", "sort": list(dict.fromkeys(columns["task"])), "title": None}
    inner = {"width": 128, "height": 90, "encoding": {"x": x}, "layer": layers}
    spec = {"facet": facet, "columns": ACROSS, "spacing": 18, "spec": inner}
    return Chart("Scores over training", columns, spec, "Dashed: what guessing gives.")


def _perplexity(trained: Trained) -> Iterator[Block]:
    """Of the last step at which each mix was evaluated."""
    rows = trained.columns("""
        SELECT mix, source, step, tokens, loss, perplexity, bits_per_byte FROM perplexity
        QUALIFY step = max(step) OVER (PARTITION BY mix, source) ORDER BY mix, source
    """)
    if rows["mix"]:
        headings = ["mix", "source", "after step", "tokens", "loss", "perplexity", "bits per byte"]
        caption = "As make eval reads it: nats per token, e to that, and bits per byte of text."
        yield Table("Held-out text of mixes", headings, list(zip(*rows.values(), strict=True)), caption, decimals=3)


def _guessing(row: TaskRow) -> float:
    return max(row.chance, row.constant or 0.0)
