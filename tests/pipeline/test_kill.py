"""Kill -9 of a worker, of Ray or of the driver, at random moments; the same command again gives the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.build import Request, build
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.verify import verify
from tests.pipeline.corpus import text, write_corpus, write_recipes
from tests.pipeline.test_build import contents

# The corpus is small, so that Ray would not be started for it; these runs are about Ray.
PROGRAM = "import pipeline.engine; pipeline.engine.INLINE_BYTES = 0; from pipeline.cli import main; main()"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual ones, with every kind of stage: texts are prepared, edited, and deduplicated in every way."""
    folder = write_recipes(tmp_path_factory.mktemp("recipes"))
    for source in (folder / "sources").glob("*.yaml"):
        rules = "prepare: [refinedweb_newlines]\nedit: [pii]\ndedupe: [url, exact, near, {method: paragraphs, shards: 2}]\n"
        source.write_text(source.read_text() + rules)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus with 24 more files of web text, some 12 MB: a few seconds of work for two workers."""
    folder = write_corpus(tmp_path_factory.mktemp("large"))
    for number in range(24):
        rng = random.Random(number)
        lines = [json.dumps({"text": f"{text(rng, 400)}\n\n\nBy somebody@example.org, {number}\nAll rights reserved."}) for _ in range(250)]
        (folder / "web" / f"more-{number:02d}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, large: Path, recipes: Path) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed")
    build(Request("small", root, str(large), workers=1, recipes=recipes, scale=True), Progress())
    return contents(root)


def start(store: Path, large: Path, recipes: Path, workers: int = 2) -> subprocess.Popen[bytes]:
    arguments = ["mix", "--mix", "small", "--data", large, "--store", store, "--recipes", recipes, "--scale", "--workers", workers]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, arguments)], env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str], workers: int
) -> None:
    assert start(tmp_path, large, recipes, workers).wait(timeout=300) == 0
    assert contents(tmp_path) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["ray::", "raylet", "driver"])
def test_killed_at_random_moments_and_run_again_gives_the_same_bytes(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str], victim: str
) -> None:
    rng = random.Random(victim)
    killed = 0
    for _ in range(3):
        process = start(tmp_path, large, recipes)
        # Wait until a first unit was finished under this run, then a random moment more.
        units = len(list(tmp_path.glob("*/*/*/record.json")))
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and len(list(tmp_path.glob("*/*/*/record.json"))) <= units:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        killed += _kill(process, victim)
        if victim == "driver":
            process.wait(timeout=60)
        else:
            try:
                process.wait(timeout=240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert killed, "nothing was killed: the run was over too soon to test anything"
    assert start(tmp_path, large, recipes).wait(timeout=300) == 0
    assert contents(tmp_path) == undisturbed
    assert not list(tmp_path.rglob(".tmp-*"))
    assert verify(Store(tmp_path), "small", 2, Progress()) == []


def _kill(process: subprocess.Popen[bytes], victim: str) -> int:
    """SIGKILL the driver, or the first of its descendants of that name; how many were killed."""
    if process.poll() is not None:
        return 0
    if victim == "driver":
        process.send_signal(signal.SIGKILL)
        return 1
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if victim in " ".join(child.cmdline()[:1]):
                child.send_signal(signal.SIGKILL)
                return 1
        except psutil.NoSuchProcess:
            continue
    return 0
