"""`make mix DATA=hub` against a hub that fails and a machine that dies; and the hub of these tests against other clients of it."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline.corpus import WORDS
from tests.pipeline.hub_server import COMMIT, Hub, serve

# The files are small, so that Ray would not be started for them.
PROGRAM = "import pipeline.engine; pipeline.engine.INLINE_BYTES = 0; from pipeline.cli import main; main()"
CHECK = """
import os
from datasets import load_dataset
from huggingface_hub import hf_hub_download, snapshot_download
rows = list(load_dataset("some/web", split="train", streaming=True))
whole = open(hf_hub_download("some/web", "part-00.jsonl", repo_type="dataset"), "rb").read()
print(len(rows), len(whole), *sorted(os.listdir(snapshot_download("some/web", repo_type="dataset"))))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Eight files of 1 MB of one source."""
    rng = random.Random(3)
    (tmp_path / "hub" / "some" / "web").mkdir(parents=True)
    for number in range(8):
        rows = (json.dumps({"id": f"{number}-{row}", "text": " ".join(rng.choices(WORDS, k=5_000))}) for row in range(45))
        (tmp_path / "hub" / "some" / "web" / f"part-{number:02d}.jsonl").write_text("\n".join(rows) + "\n")
    with serve(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def hub_recipes(recipes: Path, tmp_path: Path) -> Path:
    shutil.copytree(recipes, tmp_path / "recipes")
    path = tmp_path / "recipes" / "sources" / "web.yaml"
    declared = f'hub: {{repo: some/web, revision: {COMMIT}, files: ["*.jsonl"]}}\npublished: {{documents: 20K, bytes: 8MB, tokens: 4M}}\n'
    path.write_text(path.read_text() + declared)
    return tmp_path / "recipes"


def start(hub: Hub, recipes: Path, store: Path, workers: int, home: Path) -> subprocess.Popen[bytes]:
    options = {"mix": "small", "sources": "web", "data": "hub", "store": store, "recipes": recipes, "workers": workers}
    arguments = ["mix", "--scale", *(f"--{name}={value}" for name, value in options.items())]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], env=environment(hub, home), stderr=subprocess.PIPE)


def environment(hub: Hub, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "HF_TOKEN")}
    return {**kept, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "hf_never_shown"}


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "victim"), [(1, "driver"), (2, "driver"), (2, "ray::compute")])
def test_killed_while_files_come_the_same_command_goes_on_with_their_parts(
    hub: Hub, hub_recipes: Path, tmp_path: Path, workers: int, victim: str
) -> None:
    hub.inject("slow", times=8, delay=0.04)  # 2.5 s a file
    process = start(hub, hub_recipes, tmp_path / "store", workers, tmp_path)
    parts = tmp_path / "store" / "downloads" / "parts"
    wait_for(lambda: parts.is_dir() and sum(path.stat().st_size for path in parts.iterdir()) > 300_000)
    kill(process, victim)
    if victim == "driver":
        left = {path.stat().st_size for path in parts.iterdir()}
        assert process.wait(60) != 0 and left
        process = start(hub, hub_recipes, tmp_path / "store", workers, tmp_path)
    told = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, told
    assert any(seen.range for seen in hub.log), "nothing was gone on with"
    raw = {hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "store" / "raw").glob("web/*/part-*.jsonl")}
    assert raw == {hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "hub" / "some" / "web").iterdir()}
    assert not list(parts.iterdir())
    assert "hf_never_shown" not in told


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process: subprocess.Popen[bytes], victim: str) -> None:
    if victim == "driver":
        return process.send_signal(signal.SIGKILL)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "".join(child.cmdline()[:1]).startswith(victim):
            return child.send_signal(signal.SIGKILL)
    raise AssertionError(f"no {victim} was at work")


@pytest.mark.slow
def test_other_clients_read_the_same_from_the_hub_of_these_tests(hub: Hub, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment(hub, tmp_path) | {"HF_TOKEN": ""}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr[-2000:]
    size = (tmp_path / "hub" / "some" / "web" / "part-00.jsonl").stat().st_size
    assert told.stdout.startswith(f"360 {size} part-00.jsonl part-01.jsonl")
