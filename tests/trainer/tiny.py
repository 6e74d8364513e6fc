"""A tiny model and its runs, for the tests of the loop: twelve steps of 512 tokens take half a second.

Runs go through the command line's functions, in this process and on one thread, in a copy of the built store. What is drawn
at their end is left out: test_training_cli.py has it.
"""

import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from torch import Tensor
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from pipeline.store import Store
from trainer import cli
from trainer.checkpoint import Progress
from trainer.config import Config, apply
from trainer.corpus import open_corpus
from trainer.metrics import StepRow, read
from trainer.parallel import World, join_world, leave_world
from trainer.run import Run
from trainer.train import Trainer
from trainer.view import View

VALUES: dict[str, Any] = {
    "name": "tiny",
    "model": {"d_model": 32, "layers": 2, "heads": 2, "vocab_size": 500, "padded_vocab": 512, "experts": 8, "top_k": 2, "expert_width": 16},
    "loss": {"micro_batch": 2, "chunk": 64},
    "optim": {"lr": 3e-3, "schedule": {"warmup_tokens": 2048, "end_tokens": None}},
    "train": {
        "sequence_length": 64, "batch_tokens": 512, "tokens": 6144, "precision": "float32", "checkpoint_every": 4, "checkpoints_kept": 3,
        "evaluate_every": 6, "evaluate_instances": 4,
    },
    "anneal": {"tokens": 2560},
}  # fmt: skip
CONFIG = Config.model_validate(VALUES)
STEPS = 12
# Several processes on few cores: threads that wait must not keep the cores from those that work.
logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)  # or a failed test would be lost among its messages
ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1",
               "PYTHONPATH": os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))}  # fmt: skip


def changed(**values: object) -> Config:
    """CONFIG with values changed: `changed(train__tokens=1024)`."""
    return apply(CONFIG, {key.replace("__", "."): str(value) for key, value in values.items()})


def store_of(built: Store, folder: Path) -> Path:
    """A store of one's own with the mix `small`, and the model as tiny.yaml."""
    for part in ("mixes", "shards", "tokenizers"):
        shutil.copytree(built.root / part, folder / part)
    values = {**VALUES, "optim": {**VALUES["optim"], "schedule": {**VALUES["optim"]["schedule"], "end_tokens": "none"}}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return folder


def pretrain(store: Path, run: str, mix: str = "small", steps: int = 0, tokens: str = "", resume: str = "", set: str = "") -> Run:
    """make pretrain, in this process."""
    return pretrain_at(str(store), "" if resume else str(store / "tiny.yaml"), run, mix, steps, tokens, resume, set)


def pretrain_at(
    place: str, model: str, run: str, mix: str = "small", steps: int = 0, tokens: str = "", resume: str = "", set: str = ""
) -> Run:
    """The same of a store anywhere."""
    with _alone():
        cli.pretrain(model, mix, run, place, steps, tokens, resume, set)
    return Run(place, run)


def anneal(store: Path, run: str, mix: str = "small", steps: int = 0, tokens: str = "", resume: str = "", set: str = "") -> Run:
    """make anneal, in this process; → the new run."""
    with _alone():
        cli.anneal(run, mix, str(store), steps, tokens, resume, set)
    return Run(store, f"{run}-{mix}")


def go_on(run: Run, config: Config, begin: Progress, last: int) -> Progress:
    """Train from the checkpoint of `begin.step`, whatever progress its record says."""
    with _alone(), alone_in_the_world() as world:
        weights = run.checkpoints / f"step-{begin.step}"
        return Trainer(run, open_corpus(run.mixes.place, run.plan.mix, config), config, world, begin, weights).train(last)


@contextmanager
def alone_in_the_world() -> Iterator[World]:
    try:
        yield join_world()
    finally:
        leave_world()


@contextmanager
def _alone() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with patch("trainer.launch.plot_loss", return_value=Path("loss.png")), patch("trainer.launch.summary"):
            yield
    finally:
        torch.set_num_threads(threads)


def after_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Do something when a step has been taken, before it is looked at whether to stop."""
    take = View.step

    def taken(self: View, row: StepRow, routers: Sequence[Any]) -> None:
        take(self, row, routers)
        if row.step == step:
            act()

    monkeypatch.setattr(View, "step", taken)


def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """A list of all Trainers that are made from now on."""
    made: list[Trainer] = []
    make = Trainer.__init__

    def making(self: Trainer, *arguments: Any) -> None:
        make(self, *arguments)
        made.append(self)

    monkeypatch.setattr(Trainer, "__init__", making)
    return made


def rows(run: Run, table: str = "steps") -> list[dict[str, Any]]:
    return read(run.folder, table).to_pylist()


def losses(run: Run) -> dict[int, float]:
    """Step → loss; each step must be there once."""
    found = rows(run)
    assert len({row["step"] for row in found}) == len(found)
    return {row["step"]: row["loss"] for row in found}


def latest(run: Run) -> str:
    return (run.checkpoints / "latest").read_text().strip()


def kept(run: Run) -> list[str]:
    """What lies in the folder of checkpoints."""
    return sorted(path.name for path in run.checkpoints.iterdir())


def tensors(checkpoint: Path) -> dict[str, Any]:
    """Everything in a checkpoint, whole, by name: read with torch's own converter, without a model."""
    buffer = checkpoint.parent / f"read-{os.getpid()}.pt"
    dcp_to_torch_save(checkpoint, buffer)
    content = io.BytesIO(buffer.read_bytes())
    buffer.unlink()
    return dict(_flat(torch.load(content, weights_only=False)))


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return {name: value for name, value in tensors(checkpoint).items() if name.startswith("model.")}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def assert_same(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Equal to the bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        same = torch.equal(value, right[name]) if isinstance(value, Tensor) else value == right[name]
        assert same, f"{name} differs"
