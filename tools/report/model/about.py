"""What a run is and what it came to: its record, its sizes, and one figure for each thing that went well or badly.

In: run.json and the tables `steps`, `evals`, `routers`, `checkpoints`. Out: two sections, of which the second, every setting of the run,
is folded. What is a number stays one, so that two runs can be compared. Not: no curves (training.py).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config import human
from tools.report.blocks import Block, Cell, Section, Table, Text
from tools.report.model.experts import LITTLE, last_times
from tools.report.model.trained import Trained
from trainer.config import ModelConfig
from trainer.model import size
from trainer.run import Plan
from trainer.summary import LAST

Lines = Iterator[tuple[str, Cell]]


def intro(trained: Trained) -> str:
    """What it is, in a sentence or two."""
    plan = trained.plan
    assert plan is not None
    model, sizes = plan.config.model, size(plan.config.model)
    kind = f"a mixture of {model.experts} experts, {_routing(model)}," if model.ffn == "moe" else "a dense model"
    active = f" {human(sizes.active)} of them active for a token" if sizes.active < sizes.total else ""
    began = ""
    if plan.parent is not None:
        how = "upcycled" if plan.parent.upcycling else "annealed" if plan.kind == "anneal" else "begun"
        began = f" It was {how} from {plan.parent.run} after step {plan.parent.step:,}."
    what = f"{plan.name} is {kind} in {model.layers} layers of width {model.d_model:,}, of {human(sizes.total)} parameters,{active}"
    return f"{what.rstrip(',')}, trained on {plan.mix}.{began}"


def sections(trained: Trained) -> list[Section]:
    assert trained.plan is not None
    plan, taken = trained.plan, trained.last_step
    blocks: list[Block] = []
    if 0 < taken < plan.config.steps:
        blocks.append(Text(f"It is not finished: it has taken {taken:,} of {plan.config.steps:,} steps.", warning=True))
    if taken:
        caption = f"At the end: over the last {LAST} steps."
        blocks.append(Table("What it came to", ["measure", "value"], list(_outcome(trained)), caption, decimals=3))
    blocks.append(Table("What it is", ["property", "value"], list(_identity(plan))))
    settings = Table("Settings", ["setting", "value"], list(_dotted(plan.config.model_dump(mode="json"))))
    return [
        Section("model-about", "At a glance", blocks),
        Section("model-settings", "Settings", [settings], "The whole configuration.", folded=True),
    ]


def _outcome(trained: Trained) -> Lines:
    steps = trained.values(f"""
        SELECT max(step) AS step, max(tokens) AS tokens, first(loss ORDER BY step) AS first,
            avg(loss) FILTER (isfinite(loss) AND step > {trained.last_step - LAST}) AS last, sum(seconds) AS seconds,
            sum(data_seconds) / sum(seconds) AS waited, median(tokens_per_second) AS speed, median(mfu) AS mfu, max(memory_mb) AS memory,
            count(spike) AS spikes, count(*) FILTER (skipped) AS skipped, sum(masked) AS masked,
            count(*) FILTER (NOT isfinite(loss)) AS lost
        FROM steps
    """)
    held_out = trained.values("SELECT avg(loss) AS loss, avg(bits_per_byte) AS bits FROM evals WHERE step = (SELECT max(step) FROM evals)")
    saved = trained.values("SELECT count(*) AS count, max_by(bytes, step) / 1e6 AS mb, sum(pause_seconds) AS pause FROM checkpoints")
    yield "steps", steps["step"]
    yield "tokens trained on", steps["tokens"]
    yield "training loss of the first step", steps["first"]
    yield "training loss at the end", steps["last"]
    yield "held-out loss, mean over the sources", held_out["loss"]
    yield "held-out bits per byte, mean over the sources", held_out["bits"]
    yield "tokens per second (median)", round(steps["speed"])
    if steps["mfu"] is not None:
        yield "MFU, % (median)", 100 * steps["mfu"]
    yield "minutes of training steps", steps["seconds"] / 60
    yield "of them waiting for data, %", 100 * steps["waited"]
    yield "peak memory of the first rank, MB", round(steps["memory"])
    yield "spikes", steps["spikes"]
    if steps["skipped"]:
        yield "updates left out", steps["skipped"]
    if steps["masked"]:
        yield "instances left out of the loss", steps["masked"]
    if steps["lost"]:
        yield "steps without a finite loss", steps["lost"]
    times_LE = last_times(trained)
    if times_LE is not None:
        yield "the most loaded expert at the end, times the even load", float(times_LE.max())
        yield f"experts with less than {LITTLE:g} of the even load at the end", int((times_LE < LITTLE).sum())
    yield "checkpoints", saved["count"]
    if saved["count"]:
        yield "size of the last checkpoint, MB", saved["mb"]
        yield "seconds that training stood still for them", saved["pause"]


def _identity(plan: Plan) -> Lines:
    config = plan.config
    sizes, model, train = size(config.model), config.model, config.train
    yield "kind", plan.kind
    yield "configuration", config.name
    yield "mix", plan.mix
    if plan.parent is not None:
        yield "began from", f"{plan.parent.run} after step {plan.parent.step:,}, {human(plan.parent.tokens)} tokens"
        if plan.parent.upcycling is not None:
            yield "upcycled with noise", str(plan.parent.upcycling.noise)
    yield "parameters", f"{sizes.total:,}"
    yield "active for a token", f"{sizes.active:,}"
    yield "layers, width, heads", f"{model.layers}, {model.d_model:,}, {model.heads}"
    dense = f"dense, width {model.ffn_width:,}"
    yield "feed-forward", f"{model.experts} experts of width {model.expert_width:,}, {_routing(model)}" if model.ffn == "moe" else dense
    yield "step", f"{config.batch_instances:,} instances of {train.sequence_length:,} tokens, {train.batch_tokens:,} tokens"
    yield "planned", f"{config.steps:,} steps, {config.steps * train.batch_tokens:,} tokens"
    yield "learning rate", f"{config.optim.lr:g} at its peak, {config.optim.schedule.kind}"
    yield "precision", train.precision
    yield "tokenizer", str(plan.identity.get("tokenizer", "not named by the token files"))
    yield "fingerprint of the mix", str(plan.identity.get("fingerprint", "none: token files"))
    yield "code", plan.code


def _routing(model: ModelConfig) -> str:
    by_experts = f"which choose their tokens, {model.top_k} for one on average"
    chosen = f"{model.top_k} for every token" if model.routing == "token_choice" else by_experts
    return chosen + (", and one that all tokens pass" if model.shared_expert else "")


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Lines:
    """Keys as `make pretrain SET=` takes them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _text(value)


def _text(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
