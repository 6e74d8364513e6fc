"""Every reader of foreign bytes keeps its promises (tools/fuzzing/target.py) on inputs that once broke them, and on some that are new."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tools.fuzzing.search import Fault, Search, examined
from tools.fuzzing.target import PART_BYTES, Parts, loaded
from tools.fuzzing.targets import all_targets, target

FAULTS = Path(__file__).parent / "faults"
MENDED = sorted(path for path in FAULTS.glob("*/*") if path.is_dir())
INPUTS = 12
SMALL = 1000  # bytes


@pytest.mark.parametrize("path", MENDED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_broke_it_once_breaks_it_no_more(path: Path) -> None:
    found = examined(target(path.parent.name), loaded(path))
    assert found.fault is None, found.fault


COSTLY = {"fasttext", "checkpoint.tensors"}  # ten seconds of compiling, two of importing torch


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in all_targets()])
def test_new_inputs_break_nothing(name: str) -> None:
    assert _search(name, INPUTS, SMALL) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", all_targets())
def test_many_new_inputs_break_nothing(name: str) -> None:
    assert _search(name, 80 * INPUTS, PART_BYTES) == []


def _search(name: str, inputs: int, limit: int) -> list[tuple[Parts, Fault]]:
    """The same inputs in every run: whoever breaks a promise sees it, and nobody else does."""
    search = Search(replace(target(name), limit=limit), Random(f"bounded {name}"))
    faults = list(search.begin())
    while search.inputs < inputs and not faults:
        faults += search.step()
    return faults
