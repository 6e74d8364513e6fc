"""The trainer's command line: `python -m trainer`, or `torchrun … -m trainer` for several processes. make calls it.

pretrain and anneal hand what was asked for to launch.py; export, generate and trace look at a run. torch is imported when it is needed.
"""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.complete import mixes, recipes
from pipeline.config import parse_count, shown
from pipeline.errors import ConfigError
from pipeline.terminal import console, exact, program, visible
from pipeline.terminal import run as run_app
from trainer import complete
from trainer.config import apply, load_config, parse_overrides

app = program("Training tokens in, a mixture-of-experts language model out.")
Store = Annotated[str, typer.Option(help="Where mixes are, and runs go; of a URL, such as s3://bucket/prefix, into data.")]
RunName = Annotated[str, typer.Option("--run", help="A run: a folder under <store>/models.", autocompletion=complete.runs)]
Mix = Annotated[str, typer.Option(help="A mix that is built, or a folder of headerless token files.", autocompletion=mixes)]
Steps = Annotated[int, typer.Option(min=0, help="Stop after this step. 0: at the end of the run.")]
Tokens = Annotated[str, typer.Option(help="Length of the run, such as 50M or 5T. Default: the configuration's.")]
Resume = Annotated[str, typer.Option(help="1: go on from the last checkpoint; step-200: from that one.")]
Model = Annotated[
    str, typer.Option(help="A file of trainer/configs, or a path that ends in .yaml. Default: olmoe-small.", autocompletion=complete.models)
]
Set = Annotated[
    str, typer.Option(help='Values of the configuration to change: "optim.lr=1e-3 model.experts=16".', autocompletion=complete.settings)
]


@app.command()
def pretrain(
    model: Model = "",
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
def upcycle(
    run: RunName = "dense-small",
    model: Annotated[
        str, typer.Option(help="What it becomes. Default: the run's, with 8 experts of which 2 are chosen.", autocompletion=complete.models)
    ] = "",
    noise: Annotated[float, typer.Option(help="The share of the experts' weights to draw anew; the paper tried 0.5.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the router and of the noise.")] = 0,
    mix: Mix = "",
    store: Store = "data",
    tokens: Tokens = "",
    set: Set = "",
) -> None:
    """Make a dense run's last checkpoint the beginning of a mixture of experts."""
    from trainer.run import Run
    from trainer.upcycle import upcycle as prepare
    from trainer.upcycle import with_experts

    dense, begun = Run(store, run), Run(store, f"{run}-upcycled" + (f"-noise-{noise:g}" if noise else ""))
    config = apply(load_config(model) if model else with_experts(dense.plan.config), _overrides(tokens, set))
    prepare(dense, begun, config, noise, seed, mix)
    print(f"{shown(begun.folder)}: its step-0 is run {run} with {config.model.experts} experts")
    print(f"Next: make pretrain RUN={begun.name} RESUME=1")


@app.command("eval")
def evaluate(
    run: Annotated[
        str, typer.Option("--run", help="A run, or with a / in it a Hugging Face folder.", autocompletion=complete.runs)
    ] = "olmoe-small",
    tasks: Annotated[
        str, typer.Option(help="Tasks and sets, apart by commas: in_loop (default), olmes, none, piqa, …", autocompletion=complete.tasks)
    ] = "",
    items: Annotated[int, typer.Option(min=0, help="Questions of each task, the first ones. 0: all.")] = 0,
    mix: Annotated[
        str, typer.Option(help="The mix whose held-out text is scored. Default: the run's. none: no text.", autocompletion=mixes)
    ] = "",
    data: Annotated[str, typer.Option(help="Where tasks come from: sample (a package), hub, or a folder.")] = "sample",
    checkpoint: Annotated[str, typer.Option(help="latest, or such as step-200.", autocompletion=complete.checkpoints)] = "latest",
    store: Store = "data",
) -> None:
    """Score a model on tasks and on held-out text."""
    from trainer.tasks.command import evaluate

    evaluate(run, store, tasks, items or None, mix, data, checkpoint or "latest", console())


@app.command()
def ablation(
    name: Annotated[
        str, typer.Option(help="One of trainer/configs/ablations, all, or mix. Default: list them.", autocompletion=complete.experiments)
    ] = "",
    a: Annotated[str, typer.Option(help="With mix: one mix.", autocompletion=recipes)] = "",
    b: Annotated[str, typer.Option(help="With mix: the other.", autocompletion=recipes)] = "",
    seeds: Annotated[int, typer.Option(min=0, help="How many. 0: the experiment's.")] = 0,
    tokens: Annotated[str, typer.Option(help="Of each arm. Default: the experiment's.")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="How many to train at a time.")] = 1,
    tasks: Annotated[str, typer.Option(help="Tasks to score the trained models on, apart by commas.", autocompletion=complete.tasks)] = "",
    items: Annotated[int, typer.Option(min=0, help="Questions of each task. 0: all.")] = 0,
    data: Annotated[str, typer.Option(help="Where a mix that is missing is built from.")] = "sample",
    store: Annotated[str, typer.Option(help="Where mixes, runs and results are: a folder.")] = "data",
) -> None:
    """Train the arms of an experiment on the same instances, with several seeds, and compare them."""
    from trainer.ablation.command import ablate

    if "://" in store:
        raise ConfigError(f"STORE={store}: ablations are trained in a folder; those who share it see the results")
    length = parse_count(tokens, "TOKENS") if tokens else None
    ablate(name, a, b, Path(store), data, seeds or None, length, jobs, tasks, items or None)


@app.command()
def export(run: RunName = "olmoe-small", store: Store = "data") -> None:
    """Write the run's last checkpoint as a folder that transformers' OlmoeForCausalLM loads."""
    from trainer.models import export as exported
    from trainer.run import Run

    folder = exported(Run(store, run))
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
    from trainer.models import open_model

    with open_model(run, store) as found:
        if found.tokenizer is None:
            raise ConfigError(f"{run} was trained on token files that name no tokenizer: text cannot be made of its ids")
        ids = Tokenizer.from_file(str(found.tokenizer)).encode(prompt, add_special_tokens=False).ids or [found.eos]
        new = continued(found.model, ids, tokens, found.eos, found.model.config.vocab_size, temperature, seed)
        print(exact(prompt), end="", flush=True)
        for piece in stream_text(found.tokenizer, new):
            print(exact(piece), end="", flush=True)
    print()


@app.command()
def trace(
    step: Annotated[int, typer.Argument(help="A step of the run, from 1.")], run: RunName = "olmoe-small", store: Store = "data"
) -> None:
    """List the documents that a step trained on."""
    from trainer.trace import show
    from trainer.trace import trace as documents

    found = documents(store, run, step)
    show(found, console())
    place = f"RUN={run}" + ("" if store == "data" else f" STORE={store}")
    print(f"Next: make inspect {place} INSTANCE={found[0].instance}   make inspect {place} DOC={shlex.quote(visible(found[0].id))}")


@app.command()
def analyze(
    run: Annotated[
        str, typer.Option("--run", help="A run, or with a / in it a Hugging Face folder.", autocompletion=complete.runs)
    ] = "olmoe-small",
    mix: Annotated[str, typer.Option(help="The mix whose held-out text is taken. Default: the run's.", autocompletion=mixes)] = "",
    texts: Annotated[str, typer.Option(help="Instead of it: a folder with a .txt, .jsonl or .npy file per domain.")] = "",
    tokens: Annotated[str, typer.Option(help="Of each source at most. Default: 208,896, as in the paper.")] = "",
    checkpoint: Annotated[str, typer.Option(help="latest, or such as step-200.", autocompletion=complete.checkpoints)] = "latest",
    adjacent: Annotated[bool, typer.Option(help="Co-activation also as the released script counts it.")] = False,
    store: Store = "data",
) -> None:
    """Show what a model's routers do: saturation, co-activation, specialization, load; tables, figures and a page."""
    from trainer.analysis.command import TOKENS, analyze

    wanted = parse_count(tokens, "TOKENS") if tokens else TOKENS
    page = analyze(run, store, mix, texts, wanted, checkpoint or "latest", adjacent)
    print(f"{shown(page)}: figures and how to read them; the tables are views of: make sql")


Recipe = Annotated[
    str,
    typer.Option(
        "--mix",
        help="A recipe of mixes/adaptation, or a path ending in .yaml. Default: small-…, olmoe-….",
        autocompletion=complete.adaptations,
    ),
]
Data = Annotated[str, typer.Option(help="sample, hub, or a folder that holds <source>/ folders.")]
Adapted = Annotated[
    str, typer.Option("--run", help="A run, an adapted one too, or the path of a Hugging Face folder.", autocompletion=complete.runs)
]


@app.command()
def sft(
    run: Adapted = "olmoe-small",
    mix: Recipe = "",
    data: Data = "sample",
    store: Store = "data",
    steps: Steps = 0,
    resume: Resume = "",
    set: Set = "",
) -> None:
    """Teach a model to answer, with conversations."""
    _adapt("sft", run, mix, data, store, steps, resume, set)


@app.command()
def dpo(
    run: Adapted = "olmoe-small-sft",
    mix: Recipe = "",
    data: Data = "sample",
    store: Store = "data",
    steps: Steps = 0,
    resume: Resume = "",
    set: Set = "",
) -> None:
    """Teach a model which of two answers is preferred (direct preference optimization)."""
    _adapt("dpo", run, mix, data, store, steps, resume, set)


@app.command()
def kto(
    run: Adapted = "olmoe-small-sft",
    mix: Recipe = "",
    data: Data = "sample",
    store: Store = "data",
    steps: Steps = 0,
    resume: Resume = "",
    set: Set = "",
) -> None:
    """Teach a model which answers are good and which are bad (Kahneman-Tversky optimization)."""
    _adapt("kto", run, mix, data, store, steps, resume, set)


def _adapt(method: Literal["sft", "dpo", "kto"], run: str, mix: str, data: str, store: str, steps: int, resume: str, set: str) -> None:
    try:
        from trainer.adapt.command import adapt
    except ModuleNotFoundError as error:
        if error.name not in ("trl", "transformers", "accelerate", "datasets"):
            raise
        raise ConfigError(f"adaptation needs {error.name}, which is not installed; make {method} installs it") from None
    adapt(method, run, mix, data, store, steps, resume, parse_overrides(set.split()))


def _overrides(tokens: str, words: str) -> dict[str, str]:
    overrides = parse_overrides(words.split())
    return overrides | {"train.tokens": str(parse_count(tokens, "TOKENS"))} if tokens else overrides


def main() -> None:
    run_app(app)
