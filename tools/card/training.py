"""How a run was trained, and the command that trains it again: the configuration as it differs from a file that others have.

In: a run's plan, or an adaptation's record. Out: settings by dotted name, and shell commands whose configuration is the run's own; where
none gives it, why. Cost: reads YAML files. Not: equal configuration, mix and number of processes give equal bytes on one machine with one
set of libraries; elsewhere losses agree within rounding.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.card.model_facts import ModelFacts
from tools.card.rebuild import place
from trainer.adapt.recipe import Recipe, load_recipe, recipe_names
from trainer.config import Config, annealing, config_names, load_config
from trainer.run import Parent, Plan, Run
from trainer.upcycle import with_experts

UNSET = ("name", "description")


def settings(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """A configuration flat, by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= settings(value, f"{under}{name}.") if isinstance(value, dict) else {f"{under}{name}": value}
    return flat


def word(value: Any) -> str:
    """A value as SET takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def changes(config: Config, base: Config) -> dict[str, str]:
    """What SET must say to make `config` of `base`."""
    now, before = settings(config.model_dump(mode="json")), settings(base.model_dump(mode="json"))
    return {name: word(value) for name, value in now.items() if name not in UNSET and value != before.get(name)}


def again(facts: ModelFacts) -> tuple[str, list[str]]:
    """Commands, and what they do not tell."""
    if facts.adapted:
        return _adapt(facts.adapted, facts)
    assert facts.plan is not None
    plan, parent = facts.plan, facts.plan.parent
    given = [f"NPROC={facts.processes}"] if (facts.processes or 1) > 1 else []
    if facts.step < facts.steps:
        given.append(f"STEPS={facts.step}")
    if parent is None:
        return _pretrain(plan, given)
    before = Run(facts.run.store, parent.run)
    if not before.is_planned:
        return "", [f"the run it began from, {parent.run}, is not in this store any longer"]
    if parent.upcycling:
        return _upcycle(plan, parent, before, given)
    return _anneal(plan, parent, before, given)


def _pretrain(plan: Plan, given: Sequence[str]) -> tuple[str, list[str]]:
    base, doubts = _base(plan.config)
    return f"make pretrain {' '.join([f'MODEL={base.name}', *_words(plan, changes(plan.config, base)), *given])}", doubts


def _anneal(plan: Plan, parent: Parent, before: Run, given: Sequence[str]) -> tuple[str, list[str]]:
    """It is named after its parent and its mix, so RUN is the parent."""
    begun = before.plan.config.model_copy(update={"anneal": plan.config.anneal})
    anneal = {name: value for name, value in changes(plan.config, before.plan.config).items() if name.startswith("anneal.")}
    other = {**anneal, **changes(plan.config, annealing(begun, parent.learning_rate))}
    words = [f"RUN={shlex.quote(parent.run)}", f"MIX={shlex.quote(plan.mix)}", *_set(other), *given]
    return f"make anneal {' '.join(words)}", [f"it begins from step {parent.step} of {parent.run}, whose card says how to train it"]


def _upcycle(plan: Plan, parent: Parent, before: Run, given: Sequence[str]) -> tuple[str, list[str]]:
    assert parent.upcycling is not None
    base = with_experts(before.plan.config)
    doubts: list[str] = []
    words = [f"RUN={shlex.quote(parent.run)}"]
    if plan.config.name != base.name:
        base, doubts = _base(plan.config)
        words.append(f"MODEL={base.name}")
    words += [f"NOISE={parent.upcycling.noise:g}", f"SEED={parent.upcycling.seed}", f"MIX={shlex.quote(plan.mix)}"]
    words += _set(changes(plan.config, base))
    lines = [f"make upcycle {' '.join(words)}", f"make pretrain {' '.join([f'RUN={shlex.quote(plan.name)}', 'RESUME=1', *given])}"]
    return "\n".join(lines), [*doubts, f"it begins from step {parent.step} of {parent.run}, whose card says how to train it"]


def _adapt(adapted: Mapping[str, Any], facts: ModelFacts) -> tuple[str, list[str]]:
    recipe = Recipe.model_validate(adapted["recipe"])
    doubts = [f"it begins from {adapted['parent']['folder']} of {adapted['parent']['name']}"]
    other: dict[str, str] = {}
    if recipe.name in recipe_names():
        base = load_recipe(recipe.name, recipe.method, {})
        now, before = recipe.training.model_dump(mode="json"), base.training.model_dump(mode="json")
        other = {name: word(value) for name, value in now.items() if value != before[name]}
        if base.model_dump(exclude={"training", "description"}) != recipe.model_dump(exclude={"training", "description"}):
            doubts.append(f"mixes/adaptation/{recipe.name}.yaml has other sources now")
    else:
        doubts.append(f"its recipe, {recipe.name}, is none of mixes/adaptation")
    origins = [place for source in adapted["data"].values() for place in source["from"]]
    elsewhere = [origin for origin in origins if not origin.startswith(("pypi:", "npm:"))]
    own = [origin for origin in elsewhere if "@" not in origin]
    data = place(str(Path(own[0]).parent)) if own else "hub" if elsewhere else ""
    words = [f"RUN={shlex.quote(adapted['parent']['name'])}", f"MIX={recipe.name}", *_set(other)]
    words += [f"DATA={shlex.quote(data)}"] if data else []
    words += [f"STEPS={facts.step}"] if facts.step < facts.steps else []
    return f"make {recipe.method} {' '.join(words)}", doubts


def _base(config: Config) -> tuple[Config, list[str]]:
    """The file that comes nearest: its own, or that of the published model."""
    if config.name in config_names():
        return load_config(config.name), []
    return load_config("olmoe-1b-7b"), [f"its configuration, {config.name}, is none of trainer/configs: it is stated by what differs"]


def _words(plan: Plan, other: Mapping[str, str]) -> list[str]:
    mix = plan.mix if "/" not in plan.mix else Path(plan.mix).name
    return [f"MIX={shlex.quote(mix)}", f"RUN={shlex.quote(plan.name)}", *_set(other)]


def _set(other: Mapping[str, str]) -> list[str]:
    return [f'SET="{" ".join(f"{name}={value}" for name, value in other.items())}"'] if other else []
