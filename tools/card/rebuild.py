"""How to make a mix again, byte for byte: the command, the recipes as files, and the hash by which to tell.

In: Facts. Out: Rebuild. The length of the run in tokens, given as TOKENS, makes the lock-file that is there, whatever was asked for when it
was built: neither SCALE nor the recipe's own length is needed. From the hub TOKENS also says how many files are taken: there the kept
listings tell whether it takes the same ones, or whether none must be given; else that is said. Cost: reads YAML files. Not: nothing is
built or downloaded.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.config import shown
from pipeline.download import hub
from pipeline.mix import plan
from pipeline.recipe import MIXES, LocalTokenizer, Mix, load_mix, load_tokenizer, mix_names
from pipeline.store import Store
from tools.card.mix_facts import Facts, SourceFacts

FOLDER = "recipes"  # beside the card
CARRIED = 4 << 20  # bytes of a file of one's own that goes with the recipes; models do not


@dataclass(frozen=True)
class Rebuild:
    """command: for a shell. recipes: their files, by path in the folder of recipes. doubts: why it may not give the same bytes."""

    command: str
    recipes: dict[str, bytes]
    doubts: tuple[str, ...]


def rebuild(facts: Facts, store: Store) -> Rebuild:
    recipe = load_mix(facts.name, facts.recipes) if facts.name in mix_names(facts.recipes) else None
    files = dict(_files(facts, recipe))
    if release := facts.manifest.get("release"):
        return Rebuild(f"make mix MIX={facts.name} DATA={release['repository']}@{release['commit']}", files, ())
    own = any(not (MIXES / name).exists() or (MIXES / name).read_bytes() != content for name, content in files.items())
    tokens, scale, doubt = _length(facts, store)
    given = {"mix": facts.name, "data": place(facts.manifest["data"]), "tokens": tokens, "sources": _narrowed(facts, recipe)}
    if own:
        words = [f"--{name} {shlex.quote(value)}" for name, value in given.items() if value] + ["--scale"] * scale
        command = f"make setup\n.venv/bin/tokenmill mix {' '.join(words)} --recipes {FOLDER}"
    else:
        variables = {name: value for name, value in given.items() if value and (name, value) != ("data", "sample")}
        words = [f"{name.upper()}={shlex.quote(value)}" for name, value in variables.items()] + ["SCALE=1"] * scale
        command = f"make mix {' '.join(words)}"
    return Rebuild(command, files, (*_changes(facts, recipe), *([doubt] if doubt else [])))


def place(data: str) -> str:
    """`DATA` as others may see it: of a folder its name, of a URL nothing that is secret."""
    if "://" in data:
        parts = urlsplit(data)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return data if data in ("sample", "hub") else Path(data).name or data


def _files(facts: Facts, recipe: Mix | None) -> Iterator[tuple[str, bytes]]:
    """The mix, its tokenizer, its sources and the filters that these name, from wherever they lie."""
    if recipe is None:
        return
    yield f"{facts.name}.yaml", (facts.recipes / f"{facts.name}.yaml").read_bytes()
    if isinstance(recipe.tokenizer, LocalTokenizer):
        if _is_carried(facts.recipes, facts.recipes / recipe.tokenizer.file):
            yield Path(recipe.tokenizer.file).as_posix(), (facts.recipes / recipe.tokenizer.file).read_bytes()
    else:
        spec = load_tokenizer(recipe.tokenizer, facts.recipes)
        for name in (f"{recipe.tokenizer}.yaml", *([spec.file.name] if spec.file else [])):
            yield f"tokenizers/{name}", (facts.recipes / "tokenizers" / name).read_bytes()
    for path in dict.fromkeys(path for source in facts.sources if source.declared for path in source.declared.files):
        yield f"{path.parent.name}/{path.name}", path.read_bytes()
    for path in dict.fromkeys(path for source in facts.sources for path in _own_files(source)):
        if _is_carried(facts.recipes, path):
            yield path.resolve().relative_to(facts.recipes.resolve()).as_posix(), path.read_bytes()


def _narrowed(facts: Facts, recipe: Mix | None) -> str:
    """`SOURCES`, where the mix was built of some of its recipe's."""
    names = [source.name for source in facts.sources]
    return "" if recipe is None or list(recipe.sources) == names else ",".join(names)


def _length(facts: Facts, store: Store) -> tuple[str, bool, str]:
    """`TOKENS`, `SCALE`, and why they may be the wrong ones."""
    exact = str(facts.tokens)
    if facts.manifest["data"] != "hub" or _takes_the_same(facts, store, facts.tokens):
        return exact, False, ""
    mix, supply = Mix.model_validate(facts.lock.recipe), {source.name: source.lock.supply for source in facts.sources}
    if _takes_the_same(facts, store, None) and plan(mix, supply, None, scale=True).instances == facts.lock.instances:
        return "", bool(mix.tokens and mix.tokens // mix.sequence_length > facts.lock.instances), ""
    return exact, False, "which files of the hub were taken depends on the TOKENS that were asked for, which are not recorded"


def _takes_the_same(facts: Facts, store: Store, tokens: int | None) -> bool:
    """Whether a budget takes of each source's listing as many files as the mix was built from."""
    shares = Mix.model_validate(facts.lock.recipe).shares
    for source in facts.sources:
        kept = f"downloads/hub/{source.name}.json"
        if source.declared is None or source.declared.source.hub is None or kept not in store.files("downloads/hub"):
            return False
        budget = None if tokens is None else ceil(tokens * shares[source.name])
        if len(hub.select(source.declared.source, budget, store)) != source.built["files"]:
            return False
    return True


def _changes(facts: Facts, recipe: Mix | None) -> Iterator[str]:
    """What the recipes say otherwise than when the mix was built."""
    if recipe is None:
        yield f"there is no recipe {facts.name}.yaml any longer"
    else:
        if isinstance(recipe.tokenizer, LocalTokenizer) and not _is_carried(facts.recipes, facts.recipes / recipe.tokenizer.file):
            yield f"its tokenizer is {recipe.tokenizer.file}, here as tokenizers/{facts.lock.tokenizer.sha256}.json"
        names = {source.name for source in facts.sources}
        narrowed = recipe.model_copy(update={"sources": {name: part for name, part in recipe.sources.items() if name in names}})
        now = narrowed.model_dump(mode="json")
        for key in sorted(now.keys() | facts.lock.recipe.keys()):
            if now.get(key) != facts.lock.recipe.get(key):
                yield f"{facts.name}.yaml has another `{key}` now"
    for source in facts.sources:
        path = f"sources/{source.name}.yaml"
        if source.declared is None:
            yield f"there is no {path} any longer"
        elif dict(source.declared.rules.drop) != source.rules:
            yield f"{path}, or a filter that it names, has other rules now"
        for attribute_file in _own_files(source):
            if not _is_carried(facts.recipes, attribute_file):
                yield f"{path} reads {shown(attribute_file)}, which the recipes beside this card do not hold"


def _own_files(source: SourceFacts) -> list[Path]:
    """What the attributes of its rules read of one's own: models, lists of words, scores, test sets."""
    attributes = source.declared.rules.used_attributes if source.declared else []
    places = [(attribute.folder, place) for attribute in attributes for places in attribute.places.values() for place in places]
    return sorted({folder / place for folder, place in places if isinstance(place, str)})


def _is_carried(folder: Path, path: Path) -> bool:
    return path.is_file() and path.resolve().is_relative_to(folder.resolve()) and path.stat().st_size <= CARRIED
