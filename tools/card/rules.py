"""A source's rules with the place each comes from: a published filter, or what the recipe says above it.

In: `mixes/sources/<source>.yaml` and the filters it names. Out: per reason its predicate and its provenance: of `<filter>/<predicate>` the
filter's `origin`; of a source's own rule the comment above it, which holds for the rules that follow without one of their own.
Cost: reads the YAML files again for their comments, a few milliseconds. Not: it does not judge whether the comment is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import read_yaml
from pipeline.recipe import MIXES, Filter, Source, filter_names, read, source_names
from pipeline.rules import Rules, load_rules


@dataclass(frozen=True)
class Declared:
    """A source as its YAML has it now. origins: reason → where the rule comes from, "" where nothing is said. files: the YAML files of
    the source and of its filters, relative to the folder of recipes where they lie in it."""

    source: Source
    rules: Rules
    filters: Mapping[str, Filter]
    origins: Mapping[str, str]
    files: tuple[Path, ...]


def declared(name: str, recipes: Path) -> Declared | None:
    """None where the recipes have no such source. Raises ConfigError for a YAML file that is wrong."""
    if name not in source_names(recipes):
        return None
    source, rules = load_rules(name, recipes)
    path = recipes / "sources" / f"{name}.yaml"
    origins, files, filters = _comments(path, inherit=True), [path], {}
    for filter_name in source.filters:
        folder = (recipes if filter_name in filter_names(recipes) else MIXES) / "filters"
        found, _ = read(folder, "filter", filter_name, Filter)
        comments = _comments(folder / f"{filter_name}.yaml", inherit=False)
        for predicate in found.drop:
            note = comments.get(predicate, "")
            origins[f"{filter_name}/{predicate}"] = found.origin + (f". {note}" if note else "")
        filters[filter_name] = found
        files.append(folder / f"{filter_name}.yaml")
    return Declared(source, rules, filters, origins, tuple(files))


def _comments(path: Path, inherit: bool) -> dict[str, str]:
    """Reason → the comment that stands above it. inherit: or above the rules just before it."""
    document = read_yaml(path)
    lines = path.read_text("utf-8-sig").splitlines()
    rules = document.value.get("drop") if isinstance(document.value, dict) else None
    found: dict[str, str] = {}
    before = ""
    for reason in rules if isinstance(rules, dict) else {}:
        above: list[str] = []
        number = document.lines["drop", reason] - 2  # the line before, from 0
        while number >= 0 and lines[number].strip().startswith("#"):
            above.insert(0, lines[number].strip().lstrip("#").strip())
            number -= 1
        before = " ".join(above) or (before if inherit else "")
        found[reason] = before
    return found
