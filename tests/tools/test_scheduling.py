"""What the engine and Ray add to a unit, in short: `python -m tools.scheduling` does it with 100,000."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_scheduling_a_unit_costs_less_than_is_promised(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.scheduling", "--units", "4000", "--folder", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reached") == 5 and "falls short" not in done.stdout, done.stdout
    found = json.loads((tmp_path / "scheduling.json").read_text())
    assert (found["small"]["units"], found["large"]["units"]) == (4000, 400)
    assert 0 < found["small"]["driver"] < found["large"]["driver"], "small units share no tasks"
    assert [path.name for path in tmp_path.iterdir()] == ["scheduling.json"], "it has left its store"
