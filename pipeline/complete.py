"""What a shell offers for the values of options: names of recipes, mixes, sources, filters, and the reasons by which documents went.

In: the words so far, as typer gives them, and the start of the one being written. Out: names that go on like it. Cost: a listing of
a folder, one manifest for reasons: a few milliseconds beyond Python's start. Not: nothing is offered from a store at a URL, which takes
requests, and nothing that a shell would read as more than a word: names of files may be anyone's, and zsh evaluates what it is offered.
Whatever goes wrong, nothing is offered: a prompt is no place for errors.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import typer

Names = Callable[[typer.Context], Iterable[str]]
Completer = Callable[[typer.Context, str], list[str]]
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/@-]*")


def completer(names: Names) -> Completer:
    """Offer these names."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        return _offered(names, ctx, incomplete)

    return offer


def several(names: Names) -> Completer:
    """Offer these names for each of several that commas part."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        taken = set(before.split(","))
        return [f"{before}{comma}{name}" for name in _offered(names, ctx, last) if name not in taken]

    return offer


def _offered(names: Names, ctx: typer.Context, incomplete: str) -> list[str]:
    """The names that begin so and are plain words, in order; none where they cannot be found."""
    try:
        return sorted(name for name in names(ctx) if name.startswith(incomplete) and WORD.fullmatch(name))
    except Exception:  # whatever is wrong, a prompt is no place to say it: the command itself does
        return []


def store_folder(ctx: typer.Context) -> Path:
    """The store that the words name. Raises ValueError for one at a URL."""
    place = str(ctx.params.get("store") or "data")
    if "://" in place:
        raise ValueError(place)
    return Path(place)


def yaml_names(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.yaml")]


def _recipes(ctx: typer.Context) -> Path:
    from pipeline.recipe import MIXES

    return Path(ctx.params.get("recipes") or MIXES)


def _built(ctx: typer.Context) -> list[str]:
    return [path.name.removesuffix(".lock.json") for path in (store_folder(ctx) / "mixes").glob("*.lock.json")]


def _manifest_sources(ctx: typer.Context) -> dict[str, dict]:
    """The sources of the mix that the words name, as it was built; without one, of all mixes."""
    from pipeline import catalog
    from pipeline.store import Store

    store = Store(store_folder(ctx))
    mix = ctx.params.get("mix")
    return catalog.read_manifest(store, str(mix))["sources"] if mix else catalog.sources(store)


@completer
def recipes(ctx: typer.Context) -> Iterable[str]:
    """Mixes that can be built."""
    return yaml_names(_recipes(ctx))


@completer
def mixes(ctx: typer.Context) -> Iterable[str]:
    """Mixes that are built."""
    return _built(ctx)


@completer
def mix_sources(ctx: typer.Context) -> Iterable[str]:
    """Sources of the mix that was named; without one, of all that are built."""
    return _manifest_sources(ctx)


@several
def recipe_sources(ctx: typer.Context) -> Iterable[str]:
    """Sources of the recipe that was named, without one of any."""
    from pipeline.recipe import load_mix

    mix = ctx.params.get("mix")
    return load_mix(str(mix), _recipes(ctx)).sources if mix else yaml_names(_recipes(ctx) / "sources")


@several
def filters(ctx: typer.Context) -> Iterable[str]:
    """Filters, the shipped ones and one's own."""
    from pipeline.recipe import filter_names

    return {*filter_names(_recipes(ctx)), *filter_names()}


@completer
def reasons(ctx: typer.Context) -> Iterable[str]:
    """What dropped documents of the mix and source that were named."""
    wanted = ctx.params.get("source")
    return {
        line["reason"]
        for name, source in _manifest_sources(ctx).items()
        if wanted in (None, "", name)
        for line in source["funnel"]
        if line["stage"] != "kept" and line["documents"]
    }
