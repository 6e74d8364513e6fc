"""Who takes part in `make bench-train`: one training step each, in a process of its own.

In: a Contender, in JSON, on the command line (`main`; bench_train.py starts it). It builds its model from the same initial
weights and answers each line of its standard input with one of JSON: to `step`, a step's wall and CPU seconds, its
cross-entropy, and the process's peak of resident memory so far; to `parts`, where a step's time goes (ours, eager, alone).
All get the same random tokens; reading data is not measured.

A step is what training does: micro-batches forward and backward, load-balancing loss included, the statistics read, gradients
clipped, a fused AdamW update. transformers has its own loss function, whose load-balancing term and mean are defined otherwise.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tools import where_time_goes
from trainer.config import Config, apply, load_config
from trainer.data import MicroBatch
from trainer.hf import export_folder
from trainer.model import Transformer
from trainer.optim import adamw, clip_gradients, parameter_groups
from trainer.parallel import initialise
from trainer.step import forward_backward

CPU = torch.device("cpu")
STEP, PARTS = "step\n", "parts\n"  # what may be asked


@dataclass(frozen=True)
class Contender:
    """experts: of transformers, which implementation of theirs; None for ours."""

    name: str
    config: str
    overrides: dict[str, str]
    threads: int
    experts: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Step:
    """`run` takes one step and returns its cross-entropy, a mean over all positions."""

    run: Callable[[], float]
    model: torch.nn.Module
    optimizer: Optimizer
    config: Config


def build(contender: Contender) -> Step:
    config = apply(load_config(contender.config), contender.overrides)
    model = Transformer(config.model)
    initialise(model, config.train.seed)
    return _ours(model, config) if contender.experts is None else _transformers(model, config, contender.experts)


def batch(config: Config) -> list[MicroBatch]:
    """The step's micro-batches, of random tokens, the same for everyone."""
    generator = torch.Generator().manual_seed(config.train.seed)
    shape = config.batch_instances, config.train.sequence_length
    tokens = torch.randint(0, config.model.vocab_size, shape, generator=generator).split(config.loss.micro_batch)
    return [
        MicroBatch(0, part, part, torch.zeros_like(part, dtype=torch.int32), torch.zeros(len(part), dtype=torch.int64)) for part in tokens
    ]


def _ours(model: Transformer, config: Config) -> Step:
    if config.train.compile:
        for block in model.blocks:
            block.compile()  # as parallel.prepare does
    optimizer, batches = _optimizer(model, config), batch(config)

    def run() -> float:
        statistics = forward_backward(model, batches, config, CPU)
        statistics.reduce()
        _update(model, optimizer, config)
        return statistics.mean[1]

    return Step(run, model, optimizer, config)


def _transformers(ours: Transformer, config: Config, experts: str) -> Step:
    import transformers  # takes seconds and 100 MB, which are no one else's

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "export"
        length = config.train.sequence_length
        export_folder(export, config.model, ours.state_dict(), sequence_length=length, eos=config.model.vocab_size - 1)
        # Theirs is k when balanced, so that this coefficient weighs as much as ours.
        weight: dict[str, Any] = {"output_router_logits": True, "router_aux_loss_coef": config.loss.load_balancing / config.model.top_k}
        model: Any = transformers.OlmoeForCausalLM.from_pretrained(
            export, dtype=torch.float32, experts_implementation=experts, attn_implementation="sdpa", **weight
        )
    model.train()
    optimizer, batches = _optimizer(model, config), [part.input_ids for part in batch(config)]

    def forward_backward_(tokens: Tensor) -> float:
        output = model(tokens, labels=tokens, use_cache=False)
        (output.loss / len(batches)).backward()
        labelled = (length - 1) / length  # they divide by the labelled positions, we by all
        return float((output.loss - model.config.router_aux_loss_coef * output.aux_loss).detach()) * labelled

    def run() -> float:
        losses = [forward_backward_(tokens) for tokens in batches]
        _update(model, optimizer, config)
        return sum(losses) / len(losses)

    return Step(run, model, optimizer, config)


def _optimizer(model: torch.nn.Module, config: Config) -> Optimizer:
    optim = config.optim
    return adamw(parameter_groups(model, optim.weight_decay), optim.lr, (optim.beta1, optim.beta2), optim.eps)


def _update(model: torch.nn.Module, optimizer: Optimizer, config: Config) -> None:
    float(clip_gradients(model.parameters(), config.optim.clip))
    optimizer.step()
    optimizer.zero_grad()


def parts_of(step: Step) -> dict[str, float]:
    """Where the time of an eager step of ours goes."""
    assert isinstance(step.model, Transformer)
    return where_time_goes.parts(step.run, step.model, (sys.modules[__name__], "_update"))


def serve(contender: Contender) -> None:
    torch.set_num_threads(contender.threads)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print
    step = build(contender)
    for line in sys.stdin:
        if line == PARTS:
            print(json.dumps(parts_of(step)), file=answers)
            continue
        began, cpu = time.perf_counter(), time.process_time()
        loss = step.run()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB
        print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "loss": loss, "peak_mb": peak}), file=answers)


def main() -> None:
    serve(Contender(**json.loads(sys.argv[1])))
