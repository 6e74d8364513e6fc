import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.measure import CommandFailed, run

pytestmark = pytest.mark.slow  # of what measures, and measured with a second each

SPIN = "import time\nwhile time.process_time() < {seconds}: pass\n"
# Leaves its parent, as a daemon does, and works on after the command has ended.
DAEMON = "import os, subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {code!r}], start_new_session=True)\n"


def test_work_of_a_daemon_that_outlives_the_command_is_counted(tmp_path: Path) -> None:
    cost = run([sys.executable, "-c", DAEMON.format(code=SPIN.format(seconds=0.6)) + SPIN.format(seconds=0.3)], tmp_path / "log")
    assert 0.85 <= cost.cpu_seconds < 2.0
    assert cost.processes == 2


def test_work_of_the_grandchildren_is_counted(tmp_path: Path) -> None:
    child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {SPIN.format(seconds=0.6)!r}])\n"
    cost = run([sys.executable, "-c", f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"], tmp_path / "log")
    assert 0.45 <= cost.cpu_seconds < 2.0  # up to a tenth of a second may be missed
    assert cost.processes == 3


def test_other_children_of_this_process_are_not_counted(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SPIN.format(seconds=30)]) as other:
        time.sleep(0.2)
        cost = run([sys.executable, "-c", SPIN.format(seconds=0.2)], tmp_path / "log")
        other.kill()
    assert cost.processes == 1 and cost.cpu_seconds < 1.0


def test_peaks_of_memory_are_seen_though_they_are_over(tmp_path: Path) -> None:
    code = "import time; held = bytearray(200 << 20); held[::4096] = b'1' * len(held[::4096]); time.sleep(0.3); del held; time.sleep(0.3)"
    cost = run([sys.executable, "-c", code], tmp_path / "log")
    assert 200 < cost.largest_mb < 300
    assert 200 < cost.together_mb < 300


def test_failing_command_is_quoted_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"status 3(.|\n)*out of luck"):
        run([sys.executable, "-c", "print('out of luck'); raise SystemExit(3)"], tmp_path / "log")
