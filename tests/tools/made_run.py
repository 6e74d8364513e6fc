"""A training run as it lies in a store, made without training: its record and tables of any size, with numbers that a test knows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.files import write_atomically
from pipeline.training_tables import ALL, parquet_bytes, table_folder
from tests.trainer.tiny import VALUES
from trainer.config import Config, apply
from trainer.run import Parent, Plan, Run, write_json

Columns = Mapping[str, Sequence[Any]]


def write_run(
    store: Path,
    name: str,
    steps: int = 40,
    planned: int = 0,
    sources: Sequence[str] = ("web", "code"),
    parent: Parent | None = None,
    loads: Callable[[int, int], Sequence[int]] | None = None,
    loss: Callable[[int], float] | None = None,
    every: int = 10,
    **settings: object,
) -> Run:
    """The configuration is tiny.yaml's, with `model__layers=16` and the like changed. loads: of a layer's experts in a step; even unless
    given. loss: of a step. Held-out text is evaluated before the first step and after each `every`."""
    planned = planned or steps
    settings = {"train__tokens": 512 * planned, "optim__schedule__warmup_tokens": 0, **settings}
    values = apply(Config.model_validate(VALUES), {key.replace("__", "."): str(value) for key, value in settings.items()})
    run = Run(store, name)
    identity = {"mix": "small", "fingerprint": "f" * 64, "tokenizer": "tiny", "sequence_length": 64, "eos": 499}
    plan = Plan(name, "anneal" if parent else "pretrain", "small", values, identity, parent, "0.1.0", None)
    write_json(run.folder / "run.json", asdict(plan) | {"config": values.model_dump(mode="json")})
    if steps:
        write_table(run, "steps", step_columns(steps, loss or (lambda step: 9.0 - step / steps), values.model.ffn == "moe"))
        at = [0, *range(every, steps + 1, every)]
        write_table(run, "evals", {
            "step": np.repeat(at, len(sources)), "source": list(sources) * len(at), "instances": 4, "tokens": 252, "bytes": 1000,
            "loss": [6.0 - step / steps - place for step in at for place in range(len(sources))],
            "bits_per_byte": [3.0 - step / steps - place / 2 for step in at for place in range(len(sources))],
        })  # fmt: skip
    if steps and values.model.ffn == "moe":
        write_table(run, "routers", router_columns(steps, values.model.layers, values.model.experts, loads))
    return run


def step_columns(steps: int, loss: Callable[[int], float], moe: bool) -> dict[str, Any]:
    at = np.arange(1, steps + 1)
    losses = np.array([loss(int(step)) for step in at])
    return {
        "step": at, "tokens": at * 512, "loss": losses, "cross_entropy": losses, "load_balancing": 1.2 * moe, "z": 3.0 * moe,
        "gradient_norm": 0.5 + (at % 4 == 0), "learning_rate": 0.003 * np.minimum(at / 10, 1.0), "seconds": 2.0, "data_seconds": 0.5,
        "tokens_per_second": 256.0, "memory_mb": 800.0 + at, "masked": 0, "skipped": False, "time": 1e9 + 2.0 * at,
    }  # fmt: skip


def router_columns(steps: int, layers: int, experts: int, loads: Callable[[int, int], Sequence[int]] | None) -> dict[str, Any]:
    step, layer = (axis.ravel() for axis in np.indices((steps, layers)))
    even = pa.array([[16] * experts] * (steps * layers), pa.list_(pa.int64()))
    return {
        "step": step + 1, "layer": layer, "load_entropy": 1.0, "router_entropy": 2.0 - layer / layers, "most_loaded": 0.2,
        "least_loaded": 0.1,
        "loads": [list(loads(int(at) + 1, int(of))) for at, of in zip(step, layer, strict=True)] if loads else even,
        "logit_rms": 1.0 + layer, "logit_max": -(3.0 + step),
    }  # fmt: skip


def write_table(run: Run, table: str, columns: Columns, step: int = 1, part: str = "metrics") -> None:
    """Columns of which those that are one value hold it in every row; those left out hold null."""
    rows = max(len(values) for values in columns.values() if not np.isscalar(values))
    given: dict[str, Any] = dict.fromkeys(ALL[table].names) | {"run": run.name, **columns}
    whole = {name: [value] * rows if value is None or np.isscalar(value) else value for name, value in given.items()}
    arrays = [pa.array(whole[field.name], field.type) for field in ALL[table]]
    path = table_folder(run.folder, table, part) / f"{step:09d}.parquet"
    write_atomically(path, parquet_bytes(pa.Table.from_arrays(arrays, schema=ALL[table])))


def analysed(run: Run, word: str = "the", source: str = "web", layers: int = 2) -> None:
    """As `make analyze` would have left it after the last step of `run`, which has 8 experts, 2 for each token."""
    step, experts = 20, 8
    layer, expert = (axis.ravel() for axis in np.indices((layers, experts)))
    of, one, other = (axis.ravel() for axis in np.indices((layers, experts, experts)))
    two = one != other
    write_table(run, "router_saturation", {
        "step": step, "early_step": 10, "early_tokens": 5120, "layer": list(range(layers)) * 2, "k": [1] * layers + [2] * layers,
        "share": [0.2] * layers + [0.5 + 0.25 * (place % 2) for place in range(layers)],
    }, step, "analysis")  # fmt: skip
    write_table(run, "expert_coactivation", {
        "step": step, "layer": of[two], "expert": one[two], "other": other[two], "together": 40, "tokens": 100, "share": 0.4,
        "adjacent": False,
    }, step, "analysis")  # fmt: skip
    write_table(run, "domain_specialization", {
        "step": step, "layer": np.tile(layer, 2), "source": [source] * len(layer) + ["code"] * len(layer), "k": 2,
        "expert": np.tile(expert, 2), "routed": 10, "tokens": 40, "share": [0.25] * len(layer) + [0.5] * len(layer), "uniform": 0.25,
    }, step, "analysis")  # fmt: skip
    write_table(run, "vocabulary_specialization", {
        "step": step, "layer": [0, 1] * 3, "kind": ["input", "input", "predicted", "predicted", "next", "next"], "k": 2, "ids": 9,
        "share": 0.6, "all_ids": 20, "all_share": 0.7,
    }, step, "analysis")  # fmt: skip
    write_table(run, "expert_words", {
        "step": step, "layer": layer, "expert": expert, "kind": "input", "place": 1, "id": 5, "word": word, "occurrences": 12, "share": 0.9,
    }, step, "analysis")  # fmt: skip
