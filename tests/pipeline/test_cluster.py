"""Several Ray nodes on one machine: they die, join, differ from the driver; the bytes are those of a build in one process."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline import workers
from pipeline.build import build
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.unit import Artifact, Unit
from pipeline.verify import verify
from pipeline.workers import Driver, Workers, check, popped
from tests.pipeline import test_kill
from tests.pipeline.cluster import drive, running
from tests.pipeline.test_build import contents, request_for
from tools.s3_server import S3, serve

ROOT = Path(__file__).parents[2]
large, undisturbed = test_kill.large, test_kill.undisturbed


def finished(store: Path) -> int:
    return len(list(store.glob("*/*/*/record.json")))


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def journaled(store: Path) -> Counter[str]:
    lines = [json.loads(line) for journal in store.glob("runs/*.jsonl") for line in journal.read_text().splitlines()]
    return Counter(f"{line['stage']}/{line['source']}/{key}" for line in lines for key in line["units"])


@pytest.mark.slow
def test_a_node_joins_another_dies_and_the_same_driver_goes_on(
    tmp_path: Path, built: Store, corpus: Path, recipes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    with running("first") as nodes, ThreadPoolExecutor(1) as thread:
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        lock = thread.submit(build, request_for(store, corpus, recipes), Progress())
        wait_for(lambda: finished(store) or lock.done())
        nodes.start("second")
        nodes.kill("first")  # the only one that has worked so far
        before = finished(store)
        lock.result(timeout=60)
    assert before < finished(store), "the build was over before the node died"
    assert contents(store) == contents(built.root)
    assert set(journaled(store)) == {str(path.parent.relative_to(store)) for path in store.glob("*/*/*/record.json")}
    assert set(journaled(store).values()) == {1}


def test_what_dead_workers_left_is_gone_when_a_run_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan, remove = tmp_path / "documents" / "web" / ".tmp-dead", shutil.rmtree
    with pytest.raises(ValueError), Store(tmp_path).lock(print):
        orphan.mkdir(parents=True)
        raise ValueError
    assert orphan.exists(), "a run that fails leaves it to the next one"

    def at_the_same_time(folder: Path) -> None:
        remove(folder)
        raise FileNotFoundError(folder)

    monkeypatch.setattr(shutil, "rmtree", at_the_same_time)
    with Store(tmp_path).lock(print):
        assert not orphan.exists()
        orphan.mkdir()
    assert not orphan.exists()


def test_a_worker_unlike_the_driver_is_named_and_told_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("runs/1.jsonl", b"")
    driver = Driver.of(store, "runs/1.jsonl")
    assert "pyarrow" in driver.versions and "ray" in driver.versions
    fit(driver)
    with pytest.raises(PipelineError, match="the code of tokenmill is another than the driver's: install the same"):
        fit(replace(driver, code="0"))
    with pytest.raises(PipelineError, match=r"pyarrow is \d.*, the driver's 1.0.0: install the same"):
        fit(replace(driver, versions={**driver.versions, "pyarrow": "1.0.0"}))
    with pytest.raises(PipelineError, match="nothing-like-it is missing, the driver's 2"):
        fit(replace(driver, versions={"nothing-like-it": "2"}))
    with pytest.raises(PipelineError, match=r"runs/2.jsonl, which the driver wrote into .* is not there: STORE must be a folder that all"):
        fit(replace(driver, file="runs/2.jsonl"))


def fit(driver: Driver) -> None:
    check(driver.place, driver.file, driver.code, tuple(driver.versions.items()))


def test_no_ray_at_the_address_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SILENT_SECONDS", 0)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=127.0.0.1:9: nothing answers there; start the head"):
        Workers(1, Driver("", "", "", {}), print)


def test_small_tasks_share_one_and_large_ones_go_first_and_alone() -> None:
    sizes = [5, 300_000, 7_000_000, 600_000, 200_000, *range(100, 140)]
    units = [[Unit("s", 1, "web", (Artifact("x", str(size), size),))] for size in sorted(sizes)]
    batches = []
    while units:
        batches.append([task[0].input_bytes for task in popped(units, at_most=100)])
    assert [size for batch in batches for size in batch] == sorted(sizes, reverse=True)
    assert batches[:2] == [[7_000_000], [600_000, 300_000]]
    assert max(map(len, batches)) == workers.TASK_UNITS and all(sum(batch) <= workers.TASK_BYTES for batch in batches[1:])


def records(s3: S3, place: str) -> int:
    return sum(name.endswith("/record.json") for name in s3.keys(place))


def mix(store: Path | str, large: Path | str, recipes: Path) -> list[object]:
    return ["mix", "--mix", "small", "--data", large, "--store", store, "--recipes", recipes, "--scale"]


@pytest.mark.slow
def test_a_driver_dies_with_its_node_and_goes_on_from_another(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str]
) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    with running("first", "second", "third") as nodes:
        driver = drive(nodes, "first", *mix(store, large, recipes), log=log)
        wait_for(lambda: finished(store) > 10 or driver.poll() is not None)
        driver.kill()
        nodes.kill("first")
        driver.wait()
        before = finished(store)
        # At once, while workers of the dead driver may still be writing.
        assert drive(nodes, "second", *mix(store, large, recipes), log=log).wait(timeout=300) == 0, log.read_text()
    assert before < finished(store)
    assert contents(store) == undisturbed
    assert not list(store.rglob(".tmp-*"))
    assert verify(Store(store), "small", 1, Progress()) == []
    assert set(journaled(store)) <= {str(path.parent.relative_to(store)) for path in store.glob("*/*/*/record.json")}


@pytest.mark.slow
def test_the_head_dies_and_the_same_command_goes_on_under_a_new_one(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str]
) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    with running("first", "second") as nodes:
        driver = drive(nodes, "first", *mix(store, large, recipes), log=log)
        wait_for(lambda: finished(store) > 10 or driver.poll() is not None)
        nodes.kill("head")
        assert driver.wait(timeout=120) == 1
        message = " ".join(log.read_text().split())
        assert "has not answered for" in message and "run the same command again, finished work is kept" in message
        assert "Traceback" not in message
        before = finished(store)
    with running("other") as nodes:
        assert drive(nodes, "other", *mix(store, large, recipes), log=log).wait(timeout=300) == 0, log.read_text()
    assert before < finished(store)
    assert contents(store) == undisturbed
    assert verify(Store(store), "small", 1, Progress()) == []


@pytest.mark.slow
def test_another_head_at_the_same_address_is_not_taken_for_the_one_that_died(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str]
) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    with running("first") as nodes:
        driver = drive(nodes, "first", *mix(store, large, recipes), log=log, PATIENCE="40")
        wait_for(lambda: finished(store) > 10 or driver.poll() is not None)
        port = int(nodes.address.rsplit(":", 1)[1])
        nodes.kill("head")
        nodes.start_head(port)
        nodes.start("second")
        assert driver.wait(timeout=120) == 1, log.read_text()
        message = " ".join(log.read_text().split())
        assert "answers another head of Ray" in message and "run the same command again, finished work is kept" in message
        assert "Traceback" not in message and "StackTrace" not in message
        before = finished(store)
        assert drive(nodes, "second", *mix(store, large, recipes), log=log).wait(timeout=300) == 0, log.read_text()
    assert before < finished(store)
    assert contents(store) == undisturbed


@pytest.mark.slow
def test_nodes_that_share_nothing_but_object_storage_and_one_dies(
    tmp_path: Path, large: Path, recipes: Path, undisturbed: dict[str, str]
) -> None:
    log = tmp_path / "log"
    with serve() as s3, running() as nodes:
        bucket = s3.bucket()
        place = f"{bucket}/store"
        for path in large.glob("*/*"):
            s3.replace(f"{bucket}/raw/{path.relative_to(large)}", path.read_bytes())
        for name in ("first", "second"):
            nodes.start(name, environment={"TOKENMILL_CACHE": str(tmp_path / name)})
        driver = drive(nodes, "head", *mix(place, f"{bucket}/raw", recipes), log=log, TOKENMILL_CACHE=str(tmp_path / "head"))
        wait_for(lambda: records(s3, f"{place}/documents") or driver.poll() is not None)
        nodes.kill("first")
        before = records(s3, place)
        assert driver.wait(timeout=300) == 0, log.read_text()
        assert before < records(s3, place)
        made = {name: hashlib.sha256(s3.content(f"{place}/{name}")).hexdigest() for name in s3.keys(place)}
    others = ("runs/", "catalog", "models/", "downloads/", "raw/", "mixes/small.build")  # times, and where raw files lie
    expected = {name: digest for name, digest in undisturbed.items() if not name.startswith(others)}
    assert {name: digest for name, digest in made.items() if not name.startswith(others)} == expected
    computed = {name: len(list((tmp_path / name).glob("*/*/*/*/*.*"))) for name in ("first", "second", "head")}
    assert computed["first"] and computed["second"], computed


@pytest.mark.slow
def test_a_ray_that_asks_for_a_token_is_told_from_one_that_is_not_there(tmp_path: Path, large: Path, recipes: Path) -> None:
    log, port = tmp_path / "log", free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c0ffee"}
    command = f"start --head --port {port} --num-cpus 1 --object-store-memory {80 << 20} --include-dashboard false --block"
    ray = [sys.executable, "-m", "ray.scripts.scripts", *command.split()]
    head = subprocess.Popen(ray, env=os.environ | token, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    arguments = [sys.executable, "-m", "pipeline", *map(str, mix(tmp_path / "store", large, recipes))]
    try:
        for given, status in (({}, 2), (token | {"RAY_AUTH_TOKEN": "another"}, 2), (token, 0)):
            environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{port}"} | given
            with open(log, "wb") as output:
                assert subprocess.run(arguments, env=environment, stdout=output, stderr=output).returncode == status, log.read_text()
            assert ("this Ray asks for a token; set RAY_AUTH_MODE=token" in log.read_text()) == (status == 2)
            assert "Traceback" not in log.read_text()
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), head]:
            process.kill()
        head.wait()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.slow
def test_a_node_with_other_code_or_none_stops_the_run_with_its_name(tmp_path: Path, large: Path, recipes: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(ROOT / "pipeline", tmp_path / "edited" / "pipeline")
    with open(tmp_path / "edited" / "pipeline" / "unit.py", "a") as file:
        file.write("# a change\n")
    # What a node without the package says; here it is installed.
    (tmp_path / "bare" / "pipeline").mkdir(parents=True)
    (tmp_path / "bare" / "pipeline" / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'pipeline'\")")
    for name, expected in {"edited": "the code of tokenmill is another than the driver's", "bare": "has no 'pipeline'"}.items():
        with running() as nodes:
            nodes.start(name, environment={"PYTHONPATH": str(tmp_path / name)})
            driver = drive(nodes, "head", *mix(tmp_path / "store", large, recipes), log=log, cwd=tmp_path, PYTHONPATH=str(ROOT))
            assert driver.wait(timeout=120) == 1
            message = " ".join(log.read_text().split())
            assert expected in message and "node " in message and "install the same tokenmill" in message and "Traceback" not in message


@pytest.mark.slow
@pytest.mark.skipif(subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0, reason="needs a mount namespace")
def test_a_node_that_does_not_share_the_store_is_named(tmp_path: Path, large: Path, recipes: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    with running() as nodes:
        # A node of its own mounts: where the store is it sees an empty folder.
        command = (
            f"mount -t tmpfs none {store} && exec {sys.executable} -m ray.scripts.scripts start --address {nodes.address} --num-cpus 1"
        )
        lonely = subprocess.Popen(["unshare", "-m", "sh", "-c", f"{command} --object-store-memory {80 << 20} --block"])
        try:
            assert drive(nodes, "head", *mix(store, large, recipes), log=log).wait(timeout=120) == 1
        finally:
            for process in [*psutil.Process(lonely.pid).children(recursive=True), lonely]:
                process.kill()
            lonely.wait()
    message = " ".join(log.read_text().split())
    assert f"which the driver wrote into {store}, is not there: STORE must be a folder that all nodes share" in message
    assert "(on node " in message and "Traceback" not in message
