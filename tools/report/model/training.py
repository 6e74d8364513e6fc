"""How training went: loss, held-out loss per source, learning rate, gradients, throughput and memory, against tokens.

In: the run's tables `steps`, `evals` and `checkpoints`. Out: three sections. Steps are averaged to at most POINTS points of equally many
steps; what varied within one is shown as a band. Of a run of more than SETTLED steps the axis of the loss leaves out its beginning.
"""

from collections.abc import Iterator

from tools.report.blocks import Block, Cell, Chart, Json, Section, Table, Text
from tools.report.model import curves
from tools.report.model.curves import told
from tools.report.model.trained import Columns, Trained, rounded

POINTS, STEPS = 160, 5  # of a curve, at most, and steps in each, at least, in all but the shortest runs
SETTLED, BEGINNING = 2000, 0.05  # steps, and the share of them that is left out then
SPIKES, CHECKPOINTS = 20, 12  # that are listed

Losses = dict[str, tuple[float | None, float | None]]  # of each source: nats per token, bits per byte


def sections(trained: Trained) -> list[Section]:
    steps = _steps(trained)
    loss: list[Block] = [_loss(steps, trained.last_step), *_auxiliary(steps), *_spikes(trained), *_held_out(trained)]
    speed: list[Block] = [_throughput(steps), *_utilisation(steps), _memory(steps), *_checkpoints(trained)]
    return [
        Section("model-loss", "Loss", loss),
        Section("model-optimiser", "Learning rate and gradients", [_learning_rate(steps), _gradient(steps, trained)]),
        Section("model-speed", "Throughput and memory", speed),
    ]


def _steps(trained: Trained) -> Columns:
    """A row for each part of the run. Means leave out what is not finite."""
    last = trained.last_step
    parts = max(min(last, 20), min(POINTS, last // STEPS))
    return trained.columns(f"""
        SELECT max(tokens) AS tokens, avg(loss) FILTER (isfinite(loss)) AS loss, min(loss) FILTER (isfinite(loss)) AS lowest,
            max(loss) FILTER (isfinite(loss)) AS highest, count(spike) AS spikes, avg(z) FILTER (isfinite(z)) AS z,
            avg(load_balancing) FILTER (isfinite(load_balancing)) AS load_balancing, avg(learning_rate) AS learning_rate,
            median(gradient_norm) FILTER (isfinite(gradient_norm)) AS norm,
            quantile_cont(gradient_norm, 0.05) FILTER (isfinite(gradient_norm)) AS norm_low,
            quantile_cont(gradient_norm, 0.95) FILTER (isfinite(gradient_norm)) AS norm_high,
            median(tokens_per_second) AS speed, quantile_cont(tokens_per_second, 0.05) AS slow,
            quantile_cont(tokens_per_second, 0.95) AS fast, avg(mfu) AS mfu, max(memory_mb) AS memory,
            sum(data_seconds) / sum(seconds) AS waited
        FROM steps GROUP BY (step - 1) * {parts} // {last} ORDER BY 1
    """)


def _loss(steps: Columns, last: int) -> Chart:
    columns = {"tokens": steps["tokens"], "loss": rounded(steps["loss"])}
    columns |= {"lowest": rounded(steps["lowest"]), "highest": rounded(steps["highest"])}
    caption = (
        "The mean over equal parts of the run and, as a band, its lowest and highest step in each. With what is added to the cross-entropy."
    )
    domain, spikes = curves.span(columns["lowest"], columns["highest"]), list[Json]()
    if last > SETTLED:
        begin = round(len(columns["loss"]) * BEGINNING)
        domain = curves.span(columns["loss"][begin:], columns["lowest"][begin:], columns["highest"][begin:])
        caption += " Its first fall is above what is shown."
    if any(steps["spikes"]):
        columns["spikes"] = steps["spikes"]
        mark = {"type": "point", "shape": "triangle-down", "filled": True, "size": 70, "color": "#e45756", "opacity": 1, "yOffset": -9}
        y = {"field": "loss", "type": "quantitative"}
        tooltip = [told("tokens", ","), told("spikes", ",")]
        spikes = [{"transform": [{"filter": "datum.spikes > 0"}], "mark": {**mark, "clip": True}, "encoding": {"y": y, "tooltip": tooltip}}]
        caption += " A triangle: the run reported a spike there."
    x = curves.tokens(steps["tokens"][-1])
    spec = curves.measure("loss", "nats per token", x, domain, 280, ".3~f", ".3f", spread=("lowest", "highest"), more=spikes)
    return Chart("Training loss", columns, spec, caption)


def _auxiliary(steps: Columns) -> Iterator[Chart]:
    """What a mixture of experts is trained on besides; nothing of a dense model, which has none of it."""
    balance = "Before its weight. 1 would be an even load of all experts; it grows as fewer experts get more."
    z = "Before its weight: the mean square of the logarithm of the routers' summed exponentials. It grows with the logits."
    for column, title, caption in (("load_balancing", "Load-balancing loss", balance), ("z", "Router z-loss", z)):
        if any(steps[column]):
            name, values = column.replace("_", " "), rounded(steps[column])
            spec = curves.measure(name, "", curves.tokens(steps["tokens"][-1]), curves.span(values), 110, ".4~r")
            yield Chart(title, {"tokens": steps["tokens"], name: values}, spec, caption)


def _spikes(trained: Trained) -> Iterator[Block]:
    count = trained.values("SELECT count(spike) AS spikes, count(*) FILTER (NOT isfinite(loss)) AS lost FROM steps")
    if count["lost"]:
        yield Text(f"The loss was not a finite number in {count['lost']:,} steps; means leave these out.", warning=True)
    if count["spikes"]:
        rows = trained.columns(f"SELECT step, tokens, loss, spike, skipped FROM steps WHERE spike IS NOT NULL ORDER BY step LIMIT {SPIKES}")
        caption = "Loss or gradient norm far above its recent mean." + (f" The first {SPIKES}." if count["spikes"] > SPIKES else "")
        headings = ["step", "tokens", "loss", "what was beyond bounds", "update left out"]
        yield Table("Spikes", headings, list(zip(*rows.values(), strict=True)), caption, decimals=3)


def _held_out(trained: Trained) -> Iterator[Block]:
    rows = trained.columns("SELECT step, source, loss, bits_per_byte FROM evals ORDER BY step, source")
    if not rows["step"]:
        yield Text("No held-out text was evaluated while it trained.")
        return
    first, last = rows["step"][0], rows["step"][-1]
    before, after = _of_step(rows, first), _of_step(rows, last)
    # As the curves end, from above: the table reads in the same order.
    names = sorted(dict.fromkeys(rows["source"]), key=lambda source: -(after.get(source, (None,))[0] or 0.0))
    columns: dict[str, list[Cell]] = {
        "tokens": [step * trained.batch_tokens for step in rows["step"]], "source": rows["source"], "loss": rounded(rows["loss"]),
        "bits per byte": rounded(rows["bits_per_byte"]),
    }  # fmt: skip
    x, domain = curves.tokens(last * trained.batch_tokens), curves.span(columns["loss"])
    ends = curves.last(columns["tokens"], columns["source"], columns["loss"])
    spec = curves.several("source", names, ends, "loss", "nats per token", x, domain, 320, ".3~f", ".3f")
    caption = (
        "On text of each source that is not trained on. Where a curve rises while the training loss falls, the run learns text by heart."
    )
    yield Chart("Held-out loss by source", columns, spec, caption)
    begin = f"after step {first:,}" if first else "before the first step"
    headings = ["source", "loss before", "loss after", "change", "bits per byte before", "bits per byte after"]
    lines = _before_and_after(before, after, names)
    yield Table("Held-out loss", headings, lines, f"Nats per token, {begin} and after step {last:,}.", decimals=3)


def _of_step(rows: Columns, at: int) -> Losses:
    found = zip(rows["step"], rows["source"], rows["loss"], rows["bits_per_byte"], strict=True)
    return {source: (loss, bits) for step, source, loss, bits in found if step == at}


def _before_and_after(before: Losses, after: Losses, names: list[str]) -> list[list[Cell]]:
    """The mean gives every source the same weight, as trainer/summary.py does."""
    numbers: list[list[float | None]] = []
    for source in names:
        (was, was_bits), (loss, bits) = before.get(source, (None, None)), after.get(source, (None, None))
        numbers.append([was, loss, None if was is None or loss is None else loss - was, was_bits, bits])
    rows: list[list[Cell]] = [[source, *line] for source, line in zip(names, numbers, strict=True)]
    return [*rows, ["mean", *(_mean(column) for column in zip(*numbers, strict=True))]] if len(names) > 1 else rows


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _learning_rate(steps: Columns) -> Chart:
    values = rounded(steps["learning_rate"])
    x, domain = curves.tokens(steps["tokens"][-1]), curves.span(values, zero=True)
    spec = curves.measure("learning rate", "", x, domain, 110, "~g", ".4~g")
    return Chart("Learning rate", {"tokens": steps["tokens"], "learning rate": values}, spec, "As the schedule had it.")


def _gradient(steps: Columns, trained: Trained) -> Chart:
    assert trained.plan is not None
    clip = trained.plan.config.optim.clip
    columns = {"tokens": steps["tokens"], "median": rounded(steps["norm"])}
    columns |= {"lower": rounded(steps["norm_low"]), "upper": rounded(steps["norm_high"])}
    x, domain = curves.tokens(steps["tokens"][-1]), curves.span(columns["upper"], zero=True)
    line = curves.rule(clip, f"clipped above {clip:g}", domain)
    spec = curves.measure("median", "gradient norm", x, domain, 170, spread=("lower", "upper"), more=line)
    clipped = trained.values(f"SELECT count(*) FILTER (gradient_norm > {clip}) / count(*) AS share FROM steps")["share"]
    caption = "Before clipping: the median of each part of the run and, as a band, nine tenths of its steps."
    return Chart("Gradient norm", columns, spec, f"{caption} {clipped:.1%} of all steps were clipped.")


def _throughput(steps: Columns) -> Chart:
    field, waited = "tokens per second", "share of the time waiting for data"
    columns = {"tokens": steps["tokens"], field: rounded(steps["speed"]), "lower": rounded(steps["slow"]), "upper": rounded(steps["fast"])}
    columns[waited] = rounded(steps["waited"], 3)
    x, domain = curves.tokens(steps["tokens"][-1]), curves.span(columns["upper"], zero=True)
    spec = curves.measure(field, field, x, domain, 170, "~s", spread=("lower", "upper"), besides=[waited])
    caption = "All ranks together: the median of each part of the run and, as a band, nine tenths of its steps."
    return Chart("Throughput", columns, spec, caption)


def _utilisation(steps: Columns) -> Iterator[Chart]:
    if any(value is not None for value in steps["mfu"]):
        values = rounded(steps["mfu"])
        spec = curves.measure("MFU", "", curves.tokens(steps["tokens"][-1]), curves.span(values, zero=True), 110, ".0%", ".1%")
        caption = "Model FLOPs utilisation: the share of the device's peak that the model's arithmetic reached."
        yield Chart("Utilisation", {"tokens": steps["tokens"], "MFU": values}, spec, caption)


def _memory(steps: Columns) -> Chart:
    values = rounded(steps["memory"])
    spec = curves.measure("peak memory", "MB", curves.tokens(steps["tokens"][-1]), curves.span(values, zero=True), 110, ",.0f", ",.0f")
    return Chart("Memory", {"tokens": steps["tokens"], "peak memory": values}, spec, "The peak of the first rank in each part of the run.")


def _checkpoints(trained: Trained) -> Iterator[Block]:
    rows = trained.columns(f"SELECT step, bytes / 1e6, seconds, pause_seconds FROM checkpoints ORDER BY step DESC LIMIT {CHECKPOINTS}")
    count = trained.values("SELECT count(*) AS count FROM checkpoints")["count"]
    if not count:
        yield Text("It has left no checkpoint yet.")
        return
    caption = "How long each took to be whole on the disk, and how long training stood still for it."
    caption += f" The last {CHECKPOINTS} of {count:,}." if count > CHECKPOINTS else ""
    headings = ["after step", "MB", "seconds", "of them standing still"]
    yield Table("Checkpoints", headings, list(zip(*rows.values(), strict=True))[::-1], caption)
