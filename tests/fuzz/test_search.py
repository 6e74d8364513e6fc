"""The search itself: it finds what is planted (broken.py), makes it small, and is the same each time."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import broken
from tools import fuzz
from tools.fuzzing.mutation import mutated
from tools.fuzzing.search import Fault, Search, examined
from tools.fuzzing.shrink import shrunk
from tools.fuzzing.target import Parts

ENOUGH = 400


def first_fault(name: str, seed: int = 1) -> tuple[Parts, Fault, Search]:
    """The first fault that a search finds, within `ENOUGH` inputs."""
    search = Search(broken.target(name), Random(seed))
    assert list(search.begin()) == []
    while search.inputs < ENOUGH:
        for parts, fault in search.step():
            return parts, fault, search
    raise AssertionError(f"nothing found in {ENOUGH} inputs")


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [
        ("raises", "exception", 'KeyError at broken.py:raises: return [{}["missing"]]'),
        ("promise", "promise", "no magic comes out"),
        ("unequal", "unequal", "unequal"),
    ],
)
def test_a_broken_promise_is_found_and_named(name: str, kind: str, place: str) -> None:
    parts, fault, _ = first_fault(name)
    assert (fault.kind, fault.place) == (kind, place)
    assert b"MAGIC" in parts[0]


def test_coverage_leads_through_one_condition_to_the_next() -> None:
    _, _, search = first_fault("raises")
    assert any(b"MAGIC" in parts[0] for parts in search.kept)  # the first condition's input was kept to go on from


def test_what_is_refused_or_well_is_no_fault() -> None:
    search = Search(broken.target("sound"), Random(1))
    assert [*search.begin(), *(fault for _ in range(200) for fault in search.step())] == []
    assert search.inputs == 201
    assert {examined(search.target, parts).lines[0].split()[0] for parts in search.kept} >= {"refused:"}


def test_a_faults_input_is_made_small() -> None:
    target = broken.target("raises")
    large = (b"x" * 3000 + b"MAGIC" + b"y" * 2000 + b"deep" + b"z" * 500,)
    small = shrunk(large, lambda parts: (found := examined(target, parts).fault) is not None and found.kind == "exception")
    assert small == (b"MAGICdeep",)


def test_the_same_seed_gives_the_same_inputs() -> None:
    def inputs(seed: int) -> list[Parts]:
        random = Random(seed)
        return [mutated(broken.SEED, broken.target("sound"), [broken.SEED], random) for _ in range(50)]

    assert inputs(3) == inputs(3) != inputs(4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "said"), [("hangs", "slow", "SIGPROF"), ("dies", "signal", "SIGABRT"), ("hoards", "memory", "MB more")]
)
def test_an_input_that_ends_the_process_is_kept(tmp_path: Path, name: str, kind: str, said: str) -> None:
    outcome = fuzz.search(name, tmp_path / name, 20, seed=1, module="tests.fuzz.broken")
    (fault,) = outcome.faults.values()
    assert (fault.kind, said in fault.message) == (kind, True)
    assert b"MAGIC" in (tmp_path / name / "faults" / fault.name / "0").read_bytes()
    assert outcome.inputs > 0


@pytest.mark.slow
def test_the_program_says_what_it_tried(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.fuzz", "--minutes", "0.1", "--targets", "record,lock", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("record", "lock"))]
    assert [row[0] for row in rows] == ["record", "lock"]
    assert all(int(row[1].replace(",", "")) > 10 and row[-1] == "0" for row in rows)
    assert list((tmp_path / "lock" / "kept").iterdir())
