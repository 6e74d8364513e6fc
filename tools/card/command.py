"""`make card` and `make model-card`: the papers of a mix and of a run, as files beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.store import Store
    from tools.card.model_facts import ModelFacts

Mix = Annotated[str, typer.Option("--mix", help="A mix that is built.")]
StoreOption = Annotated[str, typer.Option("--store", help="Where it was built: a folder, or a URL such as s3://bucket/prefix.")]


def card(
    mix: Mix = "olmoe-mix",
    store: StoreOption = "data",
    recipes: Annotated[Path | None, typer.Option(help="The folder of recipes it was built from, instead of mixes/.")] = None,
) -> None:
    """Write the data card of a mix, its Croissant metadata, its licences and its recipes."""
    from pipeline.recipe import MIXES
    from pipeline.store import Store

    opened = Store(store)
    files = card_of_mix(opened, mix, recipes=recipes or MIXES)
    write_card(opened, mix, files)
    print(f"{store}/{folder_of(mix)}/: {', '.join(name for name in files if '/' not in name)}, and recipes/ to build it again")


def model_card(
    run: Annotated[str, typer.Option("--run", help="A run, an adapted one too: a folder under <store>/models.")] = "olmoe-small",
    licence: Annotated[
        str, typer.Option(help="Of the weights, as the hub names it: apache-2.0. Without it the card says that none is chosen.")
    ] = "",
    store: StoreOption = "data",
) -> None:
    """Write the model card of a run, beside it and beside its export."""
    from pipeline.config import shown
    from pipeline.files import write_atomically
    from tools.card.model_facts import gather
    from trainer.run import Run

    facts = gather(Run(store, run))
    for path, content in card_of_run(facts, licence).items():
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)
        print(shown(path))
    if not licence:
        print("Its licence is not chosen: make model-card LICENCE=apache-2.0, or another of the hub's names")


def card_of_run(facts: "ModelFacts", licence: str = "") -> dict[Path, bytes]:
    """Path → contents: the card, and beside an export the pictures that it shows too. Nothing is written.

    Raises ConfigError for a licence that the hub has no name for.
    """
    from tools.card import licences, model_card

    content = model_card.write(facts, licences.check(licence) if licence else "unknown")
    files = {facts.run.folder / "README.md": content}
    if facts.export:
        files[facts.export / "README.md"] = content
        pictures = [facts.run.folder / name for name in model_card.PICTURES]
        files |= {facts.export / picture.name: picture.read_bytes() for picture in pictures if picture.exists()}
    return files


def card_of_mix(store: "Store", mix: str, repo: str | None = None, recipes: Path | None = None) -> dict[str, bytes]:
    """Name → contents: README.md, croissant.json, LICENSE.md, recipes/….yaml. Nothing is written.

    repo: the hub repository that they are for, `owner/name`. recipes: the folder of recipes, if not mixes/. Raises ConfigError when the
    mix has not been built, PipelineError when a file of it is missing or damaged.
    """
    try:
        from tools.card import croissant
    except ModuleNotFoundError as error:
        if error.name != "mlcroissant":
            raise
        raise ConfigError("a card needs mlcroissant, which is not installed; make card installs it") from None
    from pipeline.recipe import MIXES
    from tools.card import data_card
    from tools.card.mix_facts import gather
    from tools.card.rebuild import FOLDER, rebuild

    facts = gather(store, mix, recipes or MIXES)
    again = rebuild(facts, store)
    return {
        "README.md": data_card.write(facts, again, store, repo),
        "croissant.json": croissant.write(facts, f"https://huggingface.co/datasets/{repo}" if repo else None),
        "LICENSE.md": data_card.licence_file(facts),
        **{f"{FOLDER}/{name}": content for name, content in again.recipes.items()},
    }


def folder_of(mix: str) -> str:
    """Where a mix's card lies in its store."""
    return f"mixes/{mix}.card"


def write_card(store: "Store", mix: str, files: dict[str, bytes]) -> None:
    """Write them into the store, and remove what an earlier card had besides."""
    wanted = {f"{folder_of(mix)}/{name}": content for name, content in files.items()}
    for path, content in wanted.items():
        store.write(path, content)
    for path in store.files(folder_of(mix)):
        if path not in wanted:
            store.remove(path)
