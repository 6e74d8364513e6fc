"""An adapted model: what it learnt from, and how its training went.

In: `adapt.json` and the table `adaptation` of a run that `make sft`, `make dpo` or `make kto` left (trainer/adapt/record.py). Out: sections
that have the ids of a pretrained run's where they are about the same. Losses and rewards are TRL's.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.config import human
from tools.report.blocks import Block, Cell, Chart, Section, Table, Text
from tools.report.model import curves
from tools.report.model.trained import Columns, Trained, rounded

POINTS = 120
METHODS = {"sft": "supervised fine-tuning", "dpo": "direct preference optimisation", "kto": "Kahneman-Tversky optimisation"}
REWARDS = {"chosen_reward": "preferred answers", "rejected_reward": "others", "margin": "margin"}

Record = dict[str, Any]


def intro(trained: Trained) -> str:
    record = trained.adaptation
    method = METHODS.get(record["method"], record["method"])
    return f"{record['name']} is {record['parent']['name']} after {method}. {record['recipe']['description']}."


def sections(trained: Trained) -> list[Section]:
    record = trained.adaptation
    taken = trained.values("SELECT max(step) AS step FROM adaptation")["step"] or 0
    blocks: list[Block] = [Table("What it is", ["property", "value"], list(_identity(record))), _sources(record)]
    if 0 < taken < record["steps"]:
        blocks.insert(0, Text(f"It is not finished: it has taken {taken:,} of {record['steps']:,} steps.", warning=True))
    settings = Table("Settings", ["setting", "value"], [[name, str(value)] for name, value in record["recipe"]["training"].items()])
    unbegun = [Section("model-loss", "Loss", [Text(f"{trained.name} has not taken a step yet.", warning=True)])]
    return [
        Section("model-about", "At a glance", blocks),
        Section("model-settings", "Settings", [settings], "The recipe's training.", folded=True),
        *(_training(trained, taken) if taken else unbegun),
    ]


def _identity(record: Record) -> Iterator[tuple[str, Cell]]:
    yield "method", METHODS.get(record["method"], record["method"])
    yield "recipe", record["recipe"]["name"]
    yield "began from", f"{record['parent']['name']}, {record['parent']['folder']}"
    yield "planned", f"{record['steps']:,} steps"
    yield "tokens in its data", human(sum(source["tokens"] for source in record["data"].values()))
    yield "code", record["code"]
    yield "libraries", ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _sources(record: Record) -> Table:
    recipe = record["recipe"]["sources"]
    rows: list[list[Cell]] = []
    for name, found in record["data"].items():
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in found["dropped"].items()) or "none"
        counts = [found["rows"], found["kept"], found["tokens"], found["learned"]]
        rows.append([name, recipe[name]["title"], recipe[name]["licence"], *counts, dropped])
    headings = ["source", "title", "licence", "rows", "kept", "tokens", "of them learnt", "left out"]
    return Table("What it learnt from", headings, rows)


def _training(trained: Trained, last: int) -> Iterator[Section]:
    names = ("loss", "loss_per_token", "learning_rate", "gradient_norm", "token_accuracy", "accuracy", "kl", *REWARDS)
    means = ", ".join(f"avg({name}) FILTER (isfinite({name})) AS {name}" for name in names)
    rows = trained.columns(f"""
        SELECT max(tokens) AS tokens, {means} FROM adaptation GROUP BY (step - 1) * {min(POINTS, last)} // {last} ORDER BY 1
    """)
    per_token = any(value is not None for value in rows["loss_per_token"])
    of, axis = ("loss_per_token", "nats per learned token") if per_token else ("loss", "loss")
    loss: list[Block] = [
        *_curve(rows, "Training loss", of, "loss", axis, "The mean over equal parts of the training."),
        *_curve(
            rows, "Tokens that it would have written", "token_accuracy", "share", "", "Of the learned tokens, thought most probable.", ".0%"
        ),
    ]
    rewards: list[Block] = [
        *_rewards(rows),
        *_curve(rows, "Preferences it agrees with", "accuracy", "share", "", "Of the pairs whose preferred answer it rewards more.", ".0%"),
        *_curve(rows, "Distance from its beginning", "kl", "divergence", "nats", "The Kullback-Leibler divergence, as KTO estimates it."),
    ]
    optimiser: list[Block] = [
        *_curve(rows, "Learning rate", "learning_rate", "learning rate", "", "As the schedule had it.", "~g"),
        *_curve(rows, "Gradient norm", "gradient_norm", "gradient norm", "", "Before clipping, the mean of each part.", ".3~r"),
    ]
    yield Section("model-loss", "Loss", loss)
    if rewards:
        yield Section("model-rewards", "Rewards", rewards)
    yield Section("model-optimiser", "Learning rate and gradients", optimiser)


def _curve(rows: Columns, title: str, column: str, name: str, axis: str, caption: str, form: str = ".3~f") -> Iterator[Chart]:
    """Nothing where the method does not measure it."""
    values = rounded(rows[column])
    if any(value is not None for value in values):
        spec = curves.measure(name, axis, curves.tokens(rows["tokens"][-1]), curves.span(values), 150, form)
        yield Chart(title, {"tokens": rows["tokens"], name: values}, spec, caption)


def _rewards(rows: Columns) -> Iterator[Chart]:
    columns: dict[str, list[Cell]] = {"tokens": [], "of the": [], "reward": []}
    for column, name in REWARDS.items():
        for tokens, value in zip(rows["tokens"], rounded(rows[column]), strict=True):
            if value is not None:
                for field, cell in zip(columns, (tokens, name, value), strict=True):
                    columns[field].append(cell)
    if columns["reward"]:
        ends = curves.last(columns["tokens"], columns["of the"], columns["reward"])
        x, domain = curves.tokens(rows["tokens"][-1]), curves.span(columns["reward"], [0.0])
        axis = "β × log-probability over the reference's"
        spec = curves.several("of the", list(REWARDS.values()), ends, "reward", axis, x, domain, 240, more=curves.rule(0.0, "", domain))
        caption = "How much more probable than to the model it began with. Margin: by how much the preferred answer is ahead."
        yield Chart("Rewards of answers", columns, spec, caption)
