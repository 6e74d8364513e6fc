"""Training from a store at a URL: the same run as from a folder, written here; and what looks at the run afterwards."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline import objects
from pipeline.errors import ConfigError
from pipeline.reader import MixReader
from pipeline.store import Store
from tests.pipeline.test_reader_remote import upload
from tests.trainer import tiny
from tests.trainer.test_training_cli import called
from tests.trainer.tiny import assert_same, losses, pretrain, pretrain_at
from tools.s3_server import S3
from trainer.data import MicroBatches, loader, source_names
from trainer.run import Run
from trainer.trace import trace

RANGES = r"train.*\.bin"


@pytest.fixture(scope="module")
def store(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.store_of(built, tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def model(store: Path) -> str:
    return str(store / "tiny.yaml")


@pytest.fixture(scope="module")
def whole(store: Path) -> Run:
    """The run from the folder."""
    return pretrain(store, "whole")


@pytest.fixture(scope="module")
def url(s3: S3, store: Path) -> str:
    return upload(s3, store)


@pytest.fixture(autouse=True)
def machine(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder on a machine whose cache is empty, and which does not wait long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "FIRST_WAIT_S", 0.01)
    s3.log.clear()
    yield
    s3.faults.clear()


def test_a_run_from_a_url_is_that_from_a_folder(
    s3: S3, url: str, whole: Run, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrain_at(url, model, "far")
    said = capsys.readouterr().err
    assert url in said and "the run is written to data/models/far" in said
    assert run.folder.resolve() == tmp_path / "data/models/far"
    assert losses(run) == losses(whole)
    assert_same(tiny.weights(run.checkpoints / "step-12"), tiny.weights(whole.checkpoints / "step-12"))
    assert s3.requests("PUT|POST|DELETE") == 1, "nothing is written to the store but that this run reads it"
    assert [name for name in Store(url).files("models") if name.endswith("/mix.lock.json")]
    assert trace("data", "far", 5) == trace(whole.store, "whole", 5)  # without being told where the mix is


@pytest.mark.slow
def test_a_run_goes_on_where_its_mix_is_whether_or_not_that_is_said(
    s3: S3, url: str, whole: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENMILL_CACHE_GB", "0.00005")  # the mix has 90 KB
    pretrain_at(url, model, "far", steps=4)
    s3.fail(503, method="GET", path=RANGES, times=10)
    pretrain_at(url, "", "far", steps=8, resume="1")
    s3.fail("truncate", method="GET", path=RANGES, times=10)
    run = pretrain_at("data", "", "far", resume="1")
    assert losses(run) == losses(whole)
    assert not list(Store(url).root.rglob("*.bin")) and all(fault.times == 0 for fault in s3.faults)


@pytest.mark.slow
def test_a_run_is_used_without_its_store_being_named(
    url: str, whole: Run, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain_at(url, model, "far")
    words = ["--tokens", "5", "--temperature", "0", "the water"]
    there = called(Path("data"), capsys, monkeypatch, "generate", "--run", "far", *words)
    assert there == called(whole.store, capsys, monkeypatch, "generate", "--run", "whole", *words)
    code, _, _ = called(Path("data"), capsys, monkeypatch, "export", "--run", "far")
    assert code == 0 and (Path("data/models/far/hf/step-12/tokenizer.json")).is_file()


def test_a_mix_that_is_not_at_the_url_is_named(url: str, model: str) -> None:
    with pytest.raises(ConfigError, match=rf"smal: no mix of this name is built in {url}; did you mean `small`\? \(built are: small\)"):
        pretrain_at(url, model, "far", mix="smal")
    assert not Path("data/models/far").exists()


def test_a_step_is_requested_while_the_one_before_computes(s3: S3, url: str) -> None:
    mix = MixReader(f"{url}/mixes/small.lock.json")
    mix.batch(range(24))  # each shard is open
    s3.fail("slow", method="GET", path=RANGES, times=1000, seconds=0.3)
    batches = iter(loader(MicroBatches(mix, source_names(mix)), global_batch=8))
    waited = []
    for _ in range(3):
        began = time.perf_counter()
        _ = [next(batches) for _ in range(2)]
        waited.append(time.perf_counter() - began)
        time.sleep(0.5)  # the step is computed
    assert waited[0] > 0.3 and min(waited[1:]) < 0.1


@pytest.mark.slow
def test_worker_processes_read_at_the_url(url: str, store: Path) -> None:
    read = []
    for place in (url, str(store)):
        mix = MixReader(f"{place}/mixes/small.lock.json")
        read.append(list(loader(MicroBatches(mix, source_names(mix)), global_batch=8, stop_step=3, workers=2)))
    assert all(torch.equal(ours.input_ids, theirs.input_ids) for ours, theirs in zip(*read, strict=True))
