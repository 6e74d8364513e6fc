"""Every target by name."""

from __future__ import annotations

from functools import cache

from tools.fuzzing import models, readers, recipes, stored
from tools.fuzzing.target import Target


@cache
def all_targets() -> dict[str, Target]:
    return {found.name: found for found in (*readers.targets(), *recipes.targets(), *stored.targets(), *models.targets())}


def target(name: str) -> Target:
    """The target of that name; KeyError if there is none."""
    return all_targets()[name]
