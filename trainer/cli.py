"""The trainer's command line: `python -m trainer`, or `torchrun … -m trainer` for several processes. make calls it.

pretrain and anneal hand what was asked for to launch.py; export, generate and trace look at a run. torch is imported when it is needed.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import parse_count, shown
from pipeline.errors import ConfigError
from pipeline.terminal import console
from pipeline.terminal import run as run_app
from trainer.config import apply, load_config, parse_overrides

app = typer.Typer(help="Training tokens in, a mixture-of-experts language model out.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False)  # fmt: skip
Store = Annotated[str, typer.Option(help="Where mixes are, and runs go; of a URL, such as s3://bucket/prefix, into data.")]
RunName = Annotated[str, typer.Option("--run", help="A run: a folder under <store>/models.")]
Mix = Annotated[str, typer.Option(help="A mix that is built, or a folder of headerless token files.")]
Steps = Annotated[int, typer.Option(min=0, help="Stop after this step. 0: at the end of the run.")]
Tokens = Annotated[str, typer.Option(help="Length of the run, such as 50M or 5T. Default: the configuration's.")]
Resume = Annotated[str, typer.Option(help="1: go on from the last checkpoint; step-200: from that one.")]
Set = Annotated[str, typer.Option(help='Values of the configuration to change: "optim.lr=1e-3 model.experts=16".')]


@app.command()
def pretrain(
    model: Annotated[str, typer.Option(help="A file of trainer/configs, or a path that ends in .yaml. Default: olmoe-small.")] = "",
    mix: Mix = "",
    run: RunName = "",
    store: Store = "data",
    steps: Steps = 0,
    tokens: Tokens = "",
    resume: Resume = "",
    set: Set = "",
) -> None:
    """Train a model on a mix from its initial values."""
    from trainer.launch import LATEST, begin, go_on
    from trainer.run import Run

    overrides, base = _overrides(tokens, set), load_config(model or "olmoe-small")
    opened = Run(store, run or base.name)
    if resume and (opened.has_checkpoints or resume not in LATEST):
        go_on(opened, "pretrain", base.name if model else None, mix, resume, overrides, steps)
    else:
        if resume and opened.is_planned and not model:  # it was stopped before its first checkpoint
            base, mix = opened.plan.config, mix or opened.plan.mix
        begin(opened, mix or "olmoe-mix", apply(base, overrides), steps)


@app.command()
def anneal(
    run: RunName = "olmoe-small",
    mix: Mix = "",
    store: Store = "data",
    steps: Steps = 0,
    tokens: Tokens = "",
    resume: Resume = "",
    set: Set = "",
) -> None:
    """Take a run's last checkpoint and decay its learning rate to zero over the annealing mix."""
    from trainer.launch import LATEST, begin_annealing, go_on
    from trainer.run import Run

    overrides, mix = _overrides(tokens, set), mix or "olmoe-anneal"
    annealed = Run(store, f"{run}-{Path(mix).name}")
    if resume and (annealed.has_checkpoints or resume not in LATEST):
        go_on(annealed, "anneal", None, mix, resume, overrides, steps)
    else:
        begin_annealing(annealed, Run(store, run), mix, overrides, steps)


@app.command()
def export(run: RunName = "olmoe-small", store: Store = "data") -> None:
    """Write the run's last checkpoint as a folder that transformers' OlmoeForCausalLM loads."""
    from trainer.hf import export_folder
    from trainer.launch import whole_model
    from trainer.run import Run

    opened = Run(store, run)
    with whole_model(opened) as (model, checkpoint):
        folder = opened.folder / "hf" / checkpoint.name
        length, eos = opened.plan.config.train.sequence_length, int(opened.plan.identity["eos"])
        if not folder.exists():  # it is whole, and of the same checkpoint
            export_folder(folder, model.config, model.state_dict(), sequence_length=length, eos=eos, tokenizer=opened.tokenizer)
    print(f'{shown(folder)}: transformers.OlmoeForCausalLM.from_pretrained("{shown(folder)}") loads it')


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")] = "",
    run: RunName = "olmoe-small",
    store: Store = "data",
    tokens: Annotated[int, typer.Option(min=1, help="How many to generate at most.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the most probable token.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Continue a text with the run's last checkpoint."""
    from tokenizers import Tokenizer

    from trainer.generate import generate as continued
    from trainer.generate import stream_text
    from trainer.launch import whole_model
    from trainer.run import Run

    opened = Run(store, run)
    eos, tokenizer = int(opened.plan.identity["eos"]), opened.tokenizer
    if tokenizer is None:
        raise ConfigError(f"run {run} was trained on token files that name no tokenizer: text cannot be made of its ids")
    with whole_model(opened) as (model, _):
        ids = Tokenizer.from_file(str(tokenizer)).encode(prompt, add_special_tokens=False).ids or [eos]
        new = continued(model, ids, tokens, eos, model.config.vocab_size, temperature, seed)
        print(prompt, end="", flush=True)
        for piece in stream_text(tokenizer, new):
            print(piece, end="", flush=True)
    print()


@app.command()
def trace(
    step: Annotated[int, typer.Argument(help="A step of the run, from 1.")], run: RunName = "olmoe-small", store: Store = "data"
) -> None:
    """List the documents that a step trained on."""
    from trainer.trace import show
    from trainer.trace import trace as documents

    show(documents(store, run, step), console())


def _overrides(tokens: str, words: str) -> dict[str, str]:
    overrides = parse_overrides(words.split())
    return overrides | {"train.tokens": str(parse_count(tokens, "TOKENS"))} if tokens else overrides


def main() -> None:
    run_app(app)
