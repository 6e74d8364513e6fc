"""Two runs on one store: the second waits and says so; nothing is corrupted if they do not wait; a killed one is followed at once."""

import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.build import Request, build
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.verify import verify
from tests.pipeline.test_build import contents

# `tokenmill`, but it stands still in the middle of a stage, its work half done, until a file is there.
PAUSED = """
import sys, time
from pathlib import Path
import pipeline.engine as engine
store, stage = Path(sys.argv[1]), sys.argv[2]
publish = engine.Store.publish
def paused(self, unit, folder, counts):
    if unit.stage == stage:
        (store / "paused").touch()
        while not (store / "go").exists():
            time.sleep(0.01)
    return publish(self, unit, folder, counts)
engine.Store.publish = paused
sys.argv[1:3] = []
from pipeline.cli import main
main()
"""
# `tokenmill` on a store whose lock is none: both runs take their work for theirs alone.
UNLOCKED = """
from contextlib import nullcontext
import pipeline.store
pipeline.store.Store.lock = lambda self, announce: nullcontext()
from pipeline.cli import main
main()
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, corpus: Path, recipes: Path) -> dict[str, str]:
    """What one run leaves that nothing disturbs."""
    store = tmp_path_factory.mktemp("alone")
    build(Request("small", store, str(corpus), workers=1, recipes=recipes, scale=True), Progress())
    return contents(store)


def arguments(store: Path, corpus: Path, recipes: Path) -> list[str]:
    words = ["mix", "--mix", "small", "--data", corpus, "--store", store, "--recipes", recipes, "--scale", "--workers", 1]
    return [str(word) for word in words]


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.01)


def line_with(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr
    return next(line for line in process.stderr if text in line)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", "finished"])
def test_a_second_build_waits_and_goes_on_when_the_first_is(
    tmp_path: Path, alone: dict[str, str], corpus: Path, recipes: Path, end: str
) -> None:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    with started("-c", PAUSED, store.root, "decisions", *arguments(store.root, corpus, recipes)) as first:
        wait_for(store.path("paused"))
        assert list(store.root.glob("*/*/.tmp-*"))
        with started("-m", "pipeline", *arguments(store.root, corpus, recipes)) as second:
            holder = f"process {first.pid} on {socket.gethostname()}"
            assert f"another run ({holder}) is writing to {store.root}; waiting for it" in line_with(second, "another run")
            assert second.poll() is None
            first.send_signal(signal.SIGKILL) if end == "killed" else store.path("go").touch()
            _, said = second.communicate(timeout=60)
            assert second.returncode == 0, said
            assert first.wait(60) == (-signal.SIGKILL if end == "killed" else 0)
            assert ("decide " in said, "read " in said) == (end == "killed", False), "it did again what was done, or not what was not"
    store.path("paused").unlink()
    store.path("go").unlink(missing_ok=True)
    assert contents(store.root) == alone
    assert not list(store.root.rglob(".tmp-*"))
    assert verify(store, "small", 1, Progress()) == []


@pytest.mark.slow
def test_two_builds_that_do_not_wait_for_each_other_leave_what_one_leaves(
    tmp_path: Path, alone: dict[str, str], corpus: Path, recipes: Path
) -> None:
    """As on object storage when a lease is lost."""
    for attempt in range(3):
        store = tmp_path / f"store-{attempt}"
        with started("-c", UNLOCKED, *arguments(store, corpus, recipes)) as first:
            time.sleep(0.1 * attempt)
            with started("-c", UNLOCKED, *arguments(store, corpus, recipes)) as second:
                said = [process.communicate(timeout=120)[1] for process in (first, second)]
                assert [first.returncode, second.returncode] == [0, 0], said
        assert contents(store) == alone
        assert not list(store.rglob(".tmp-*"))


def test_a_store_is_listed_while_a_run_writes_to_it(tmp_path: Path) -> None:
    store, over = Store(tmp_path), threading.Event()
    store.write("tokens/web/done/rows.parquet", b"12")

    def work() -> None:
        while not over.is_set():
            for number in range(20):
                folder = tmp_path / "tokens" / "web" / f"{'.tmp-' * (number % 2)}{number}"
                folder.mkdir()
                (folder / "part").write_bytes(b"x")
            for folder in sorted(tmp_path.glob("tokens/web/*[0-9]")):
                shutil.rmtree(folder)

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        try:
            listings = [store.files("tokens") for _ in range(300)]
        finally:
            over.set()
        worker.result()
    assert all(listing["tokens/web/done/rows.parquet"] == 2 for listing in listings)
    assert not any(".tmp-" in name for listing in listings for name in listing)
