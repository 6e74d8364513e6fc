"""Reads a file that a page writes as the program would, whether or not a command uses it: `python -m tests.docs.recipes FILE`.

A recipe with a column, a filter or a source that is not there, or a tagger that cannot be imported, is an error. Other files are none.
"""

import importlib
import sys
from pathlib import Path

import yaml


def read(path: Path) -> None:
    if path.parts[:2] == ("pipeline", "taggers"):
        importlib.import_module(".".join(path.with_suffix("").parts))
    elif path.suffix in (".yaml", ".yml"):
        _read_recipe(path)


def _read_recipe(path: Path) -> None:
    from pipeline import recipe, rules

    match path.parts[:-1]:
        case ("mixes",):
            for source in recipe.load_mix(path.stem).sources:
                rules.load_rules(source)
        case ("mixes", "sources"):
            rules.load_rules(path.stem)
        case ("mixes", "filters"):
            rules.load_filter(path.stem)
        case _:
            list(yaml.safe_load_all(path.read_text()))


if __name__ == "__main__":
    read(Path(sys.argv[1]))
