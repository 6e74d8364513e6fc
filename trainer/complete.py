"""What a shell offers for the trainer's options: names of runs, checkpoints, models, experiments, tasks, keys of the configuration.

As pipeline/complete.py: plain words, from folders alone, and nothing where anything goes wrong. torch is not imported.
"""

from collections.abc import Iterable, Iterator

import typer

from pipeline.complete import completer, several, store_folder, yaml_names
from pipeline.config import Model


@completer
def runs(ctx: typer.Context) -> Iterable[str]:
    """Runs of the store."""
    models = store_folder(ctx) / "models"
    return {path.parent.name for name in ("run.json", "adapt.json") for path in models.glob(f"*/{name}")}


@completer
def checkpoints(ctx: typer.Context) -> Iterable[str]:
    """Checkpoints of the run that was named."""
    folder = store_folder(ctx) / "models" / str(ctx.params["run"]) / "checkpoints"
    return ["latest", *(path.name for path in folder.glob("step-*"))]


@completer
def models(ctx: typer.Context) -> Iterable[str]:
    """Configurations."""
    from trainer.config import CONFIGS

    return yaml_names(CONFIGS)


@completer
def experiments(ctx: typer.Context) -> Iterable[str]:
    """What the paper tried."""
    from trainer.config import CONFIGS

    return ["all", "mix", *yaml_names(CONFIGS / "ablations")]


@completer
def adaptations(ctx: typer.Context) -> Iterable[str]:
    """Recipes of adaptation."""
    from pipeline.recipe import MIXES

    return yaml_names(MIXES / "adaptation")


@several
def tasks(ctx: typer.Context) -> Iterable[str]:
    """Tasks and sets of them."""
    from trainer.tasks.catalogue import SETS, TASKS

    return ["none", *SETS, *TASKS]


@completer
def settings(ctx: typer.Context) -> Iterable[str]:
    """Keys of the configuration."""
    from trainer.config import Config

    return _keys(Config, "")


def _keys(model: type[Model], before: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Model):
            yield from _keys(field.annotation, f"{before}{name}.")
        elif before:
            yield f"{before}{name}"
