"""`make bench-train`: a training step beside transformers' OlmoeForCausalLM and beside a dense model of equal active parameters.

In: nothing but this installation. Out: tables, and all numbers in `.bench/train.json`. Everyone starts from the same weights, takes
the same random tokens in the same micro-batches, clips, and updates by a fused AdamW, in float32 on the CPU; the losses of the
first step are compared. Each contender is a process of its own (train_contenders.py), and they take turns, step by step, so
that a busy machine is busy for all; speeds are medians over the rounds, and the peak of memory is the whole process's,
libraries and compiler included. transformers is measured with each implementation of experts that ends in reasonable time
(its `batched_mm` copies the weights of every token's experts), and compared by its fastest.

Two shapes: the configuration as it is, whose head of 50,304 rows is most of a small model, and the same with 1,024 rows, which
shows the blocks. One more row of the first table runs transformers on memory that malloc keeps: allocating logits afresh,
page by page, is much of what it costs on a CPU, and who sets this variable has a faster transformers than most.

Takes about three minutes on two quiet cores, one of them for compiling, and up to 8 GB of memory. Data loading and checkpoints are not part
of a step here: their shares are in the metrics of any run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.text import Text

from pipeline.errors import PipelineError
from pipeline.terminal import console as make_console
from pipeline.terminal import titled
from pipeline.unit import Json
from tools.train_contenders import PARTS, STEP, Contender
from trainer.config import Config, apply, load_config, parse_overrides
from trainer.model import size

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".bench" / "train.json"
SMALL_HEAD = {"model.vocab_size": "1000", "model.padded_vocab": "1024"}
EXPERTS = ("eager", "grouped_mm")  # transformers' implementations
# glibc: never give memory back, so that no page is faulted in twice.
KEPT = {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}

# What is to be reached.
TIMES_TRANSFORMERS = 1.3
TIMES_TRANSFORMERS_COMPILED = 1.6
OF_THEIR_MEMORY = 0.5
OF_DENSE = 0.5
LOSSES_APART = 1e-4  # relative


class ContenderFailed(Exception):
    """A contender's process ended; its errors are on standard error."""


@dataclass
class Measured:
    """A contender's steps; the first warms up, and compiles."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    def add(self, answer: Mapping[str, float]) -> None:
        self.seconds.append(answer["seconds"])
        self.cpu_seconds.append(answer["cpu_seconds"])
        self.losses.append(answer["loss"])
        self.peak_mb = answer["peak_mb"]

    def to_json(self, tokens: int) -> dict[str, Json]:
        return {
            "tokens_per_second": tokens / median(self.seconds[1:]),
            "tokens_per_cpu_second": tokens / median(self.cpu_seconds[1:]),
            "first_step_seconds": self.seconds[0],
            "peak_mb": self.peak_mb,
            "first_loss": self.losses[0],
            "last_loss": self.losses[-1],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }


class Running:
    """A contender's process, waiting to be asked."""

    def __init__(self, contender: Contender, env: dict[str, str]) -> None:
        self.name = contender.name
        command = [sys.executable, "-c", "from tools.train_contenders import main; main()", contender.to_json()]
        settings = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(contender.threads), "KINETO_LOG_LEVEL": "99"}
        environment = os.environ | settings | env
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, what: str) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(what)
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and so has its output
        answer = self.process.stdout.readline()
        if not answer:
            raise ContenderFailed(f"{self.name} ended with status {self.process.wait()} (what it said is above)")
        found: dict[str, float] = json.loads(answer)
        return found

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="olmoe-small", help="a configuration of trainer/configs")
    parser.add_argument("--set", default="", help='overrides, such as "model.layers=2"')
    parser.add_argument("--rounds", type=int, default=7, help="measured steps of each")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    console = make_console()
    overrides = parse_overrides(options.set.split()) | {"train.precision": "float32"}
    machine = {
        "torch": torch.__version__, "python": platform.python_version(), "system": platform.platform(), "threads": options.threads,
        "load": os.getloadavg(),
    }  # fmt: skip
    console.print("load before: {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))
    results: dict[str, Json] = {"machine": machine, "shapes": {}}
    for shape, change in (("full", {}), ("small head", SMALL_HEAD)):
        config = apply(load_config(options.model), overrides | change)
        named = contenders(options.model, overrides | change, options.threads, kept=shape == "full")
        measured, parts = race(named, options.rounds)
        found = {name: each.to_json(config.train.batch_tokens) for name, each in measured.items()}
        results["shapes"][shape] = {"config": config.model_dump(mode="json"), "contenders": found, "parts": parts}
        _show_contenders(console, config, found)
        _show_parts(console, parts)
    results["reached"] = reached(results["shapes"]["full"]["contenders"])
    _show_reached(console, results["reached"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1))
    console.print(f"all numbers: {RESULTS}")


def contenders(model: str, overrides: Mapping[str, str], threads: int, kept: bool) -> list[tuple[Contender, dict[str, str]]]:
    """Who takes part, with what they find in their environment. `ours` comes first."""
    eager, compiled = ({**overrides, "train.compile": flag} for flag in ("false", "true"))
    dense = eager | {"model.ffn": "dense"}  # as wide as a token's experts together
    theirs = [Contender(f"transformers, {experts}", model, eager, threads, experts) for experts in EXPERTS]
    mine = [Contender("ours", model, eager, threads), Contender("ours, compiled", model, compiled, threads)]
    listed: list[tuple[Contender, dict[str, str]]] = [
        (contender, {}) for contender in (*mine, *theirs, Contender("ours, dense", model, dense, threads))
    ]
    if kept:
        listed.append((Contender(f"transformers, {EXPERTS[-1]}, memory kept", model, eager, threads, EXPERTS[-1]), KEPT))
    return listed


def race(named: Sequence[tuple[Contender, dict[str, str]]], rounds: int) -> tuple[dict[str, Measured], dict[str, float]]:
    """Everyone's steps, in turns, and where the first one's time goes."""
    with ExitStack() as stack:
        running = [stack.enter_context(Running(contender, env)) for contender, env in named]
        measured = {each.name: Measured() for each in running}
        for _ in range(rounds + 1):
            for each in running:
                measured[each.name].add(each.ask(STEP))
        return measured, running[0].ask(PARTS)


def reached(found: Mapping[str, Mapping[str, float]]) -> list[dict[str, Json]]:
    """Each thing to reach: what, how much there is, how much is asked, whether that is enough."""
    ours, compiled, dense = found["ours"], found["ours, compiled"], found["ours, dense"]
    # Memory that malloc keeps is not how transformers comes, so it is shown and not compared with.
    theirs = [found[f"transformers, {experts}"] for experts in EXPERTS]
    fastest = max(theirs, key=lambda each: each["tokens_per_second"])
    speed, loss = fastest["tokens_per_second"], fastest["first_loss"]
    apart = max(abs(each["first_loss"] - loss) / loss for each in (ours, compiled, *theirs))
    lines = [
        ("times transformers' tokens/s, eager", ours["tokens_per_second"] / speed, TIMES_TRANSFORMERS, True),
        ("the same, ours compiled", compiled["tokens_per_second"] / speed, TIMES_TRANSFORMERS_COMPILED, True),
        ("its peak of memory", ours["peak_mb"] / fastest["peak_mb"], OF_THEIR_MEMORY, False),
        ("the dense model's tokens/s", ours["tokens_per_second"] / dense["tokens_per_second"], OF_DENSE, True),
        ("first losses apart, relative", apart, LOSSES_APART, False),
    ]
    return [
        {"what": what, "found": value, "asked": asked, "enough": value >= asked if least else value <= asked}
        for what, value, asked, least in lines
    ]


def _show_contenders(console: Console, config: Config, found: Mapping[str, Mapping[str, float]]) -> None:
    model, counted = config.model, size(config.model)
    parameters = f"{counted.total / 1e6:.1f}M parameters, {counted.active / 1e6:.1f}M active"
    title = f"{config.name}, {model.padded_vocab:,} rows of vocabulary: {parameters}; {config.train.batch_tokens:,} tokens a step"
    fastest = max(found[f"transformers, {experts}"]["tokens_per_second"] for experts in EXPERTS)
    table = titled(title, "", "tokens/s", "per CPU-s", "times transformers", "peak MB", "first step s", "its loss")
    for name, each in found.items():
        table.add_row(
            name, f"{each['tokens_per_second']:,.0f}", f"{each['tokens_per_cpu_second']:,.0f}",
            f"{each['tokens_per_second'] / fastest:.2f}", f"{each['peak_mb']:,.0f}", f"{each['first_step_seconds']:.1f}",
            f"{each['first_loss']:.5f}",
        )  # fmt: skip
    console.print(table)


def _show_parts(console: Console, parts: Mapping[str, float]) -> None:
    total = sum(parts.values())
    table = titled("Where the time of our step goes, eager", "", "ms", "share")
    for part, seconds in parts.items():
        table.add_row(part, f"{1000 * seconds:,.0f}", f"{seconds / total:.1%}")
    console.print(table)


def _show_reached(console: Console, lines: Sequence[Mapping[str, Json]]) -> None:
    table = titled("What is to be reached, at the full vocabulary", "", "found", "asked", "")
    for line in lines:
        found, asked = (f"{line[key]:.2g}" if line["asked"] < 0.01 else f"{line[key]:.2f}" for key in ("found", "asked"))
        table.add_row(line["what"], found, asked, "reached" if line["enough"] else Text("falls short", "red"))
    console.print(table)


if __name__ == "__main__":
    try:
        main()
    except (PipelineError, ContenderFailed) as error:
        sys.exit(f"error: {error}")
