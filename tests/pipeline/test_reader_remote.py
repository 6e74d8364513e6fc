"""Reading a mix at a URL: as in a folder, whatever the object store does meanwhile; from the cache where it holds the shards."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import objects
from pipeline.errors import PipelineError
from pipeline.reader import MixReader
from pipeline.store import Store
from tests.pipeline.test_reader import LENGTH, write_mix
from tools.s3_server import S3

RANGES = r"train.*\.bin"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> MixReader:
    return MixReader(write_mix(tmp_path_factory.mktemp("local")))


def upload(s3: S3, folder: Path) -> str:
    """A folder's files as objects of a new bucket, by boto3; → its URL."""
    place, client = f"{s3.bucket()}/stores/one", s3.client
    for path in folder.rglob("*.*"):
        client.upload_file(str(path), place.split("/")[2], f"stores/one/{path.relative_to(folder).as_posix()}")
    return place


@pytest.fixture(scope="module")
def shared(s3: S3, local: MixReader) -> str:
    """The same store in a bucket; tests must not change it."""
    return upload(s3, local.store.root)


@pytest.fixture
def machine(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One whose cache is empty, and which does not wait long."""
    monkeypatch.setenv("TOKENMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "FIRST_WAIT_S", 0.01)
    s3.log.clear()
    yield
    s3.faults.clear()


@pytest.fixture
def mix(shared: str, machine: None) -> MixReader:
    return MixReader(f"{shared}/mixes/small.lock.json")


@pytest.fixture
def url(s3: S3, local: MixReader, machine: None) -> str:
    """A store of one's own."""
    return upload(s3, local.store.root)


@pytest.fixture
def own(url: str) -> MixReader:
    return MixReader(f"{url}/mixes/small.lock.json")


def test_an_instance_is_one_request_and_a_shard_two_more(s3: S3, mix: MixReader) -> None:
    mix.batch(range(len(mix)))
    shards = len({mix.locate(index).shard for index in range(len(mix))})
    assert s3.requests("HEAD", RANGES) == s3.requests("GET", r"train.*\.json") == shards == 3
    assert s3.requests("GET", RANGES) == len(mix)
    before = len(s3.log)
    mix.batch(range(len(mix)))
    assert len(s3.log) == before + len(mix)
    assert all(each.received == 2 * LENGTH for each in s3.log if each.method == "GET" and each.path.endswith(".bin"))


def test_a_mix_at_a_url_reads_as_in_a_folder(local: MixReader, mix: MixReader) -> None:
    every = range(len(local))
    assert np.array_equal(mix.batch(every), local.batch(every))
    assert mix.batch([]).shape == (0, LENGTH)
    for index in (0, 17, 65, 17):
        ours, theirs = mix[index], local[index]
        assert np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.boundaries, theirs.boundaries)
        assert mix.locate(index) == local.locate(index) and mix.documents(index) == local.documents(index)
    held = [(found.shard, found.start, found.tokens.tolist()) for found in mix.validation("wiki")]
    assert held == [(found.shard, found.start, found.tokens.tolist()) for found in local.validation("wiki")] and len(held) == 3
    for (step, ours), (same, theirs) in zip(mix.steps(10, rank=1, world=2), local.steps(10, rank=1, world=2), strict=True):
        assert step == same and np.array_equal(ours, theirs)


def test_the_order_of_asking_is_free(local: MixReader, mix: MixReader) -> None:
    """What was expected may be read in another order, twice, or never."""
    mix.expect(range(20, 40))
    mix.expect([21, 5])
    assert np.array_equal(mix.batch([39, 5, 5, 0, 21]), local.batch([39, 5, 5, 0, 21]))
    assert np.array_equal(mix[39].tokens, local[39].tokens)


def test_requests_are_answered_side_by_side(s3: S3, mix: MixReader) -> None:
    mix.batch(range(8))  # each shard is open
    s3.fail("slow", path=RANGES, times=16, seconds=0.3)
    began = time.perf_counter()
    mix.batch(range(16))
    assert time.perf_counter() - began < 16 * 0.3 / 3


@pytest.mark.slow
def test_what_is_expected_is_there_when_it_is_asked_for(s3: S3, mix: MixReader) -> None:
    mix.batch(range(len(mix)))
    s3.fail("slow", path=RANGES, times=1000, seconds=0.2)
    steps = mix.steps(8)
    next(steps)
    waited = []
    for _ in range(4):
        time.sleep(0.5)  # the step is computed
        began = time.perf_counter()
        next(steps)
        waited.append(time.perf_counter() - began)
    assert min(waited) < 0.1


@pytest.mark.parametrize("kind", [503, "truncate", *(pytest.param(kind, marks=pytest.mark.slow) for kind in (500, "reset", "short"))])
def test_what_passes_is_waited_for(s3: S3, local: MixReader, mix: MixReader, kind: int | str) -> None:
    fault = s3.fail(kind, method="GET", path=RANGES, times=10)
    assert np.array_equal(mix.batch(range(20)), local.batch(range(20)))
    assert fault.times == 0


@pytest.mark.parametrize(
    ("kind", "said"), [("short", "cannot read"), (403, "credentials"), pytest.param(503, "SlowDown", marks=pytest.mark.slow)]
)
def test_what_stays_is_named(s3: S3, shared: str, mix: MixReader, monkeypatch: pytest.MonkeyPatch, kind: int | str, said: str) -> None:
    monkeypatch.setattr(objects, "CALL_ATTEMPTS", 2)
    monkeypatch.setattr(mix._files._remote._objects.filesystem, "retries", 2)  # type: ignore[union-attr]
    s3.fail(kind, method="GET", path=RANGES, times=1000)
    with pytest.raises(PipelineError, match=said) as error:
        mix.batch(range(4))
    assert shared in str(error.value) and "testing" not in str(error.value)
    s3.faults.clear()
    assert mix.batch(range(4)).shape == (4, LENGTH)


def test_an_object_replaced_while_it_is_read_is_refused(s3: S3, url: str, own: MixReader) -> None:
    place = own.locate(0)
    own.batch([0])
    s3.replace(f"{url}/{place.shard}", bytes(len(s3.content(f"{url}/{place.shard}"))))
    with pytest.raises(PipelineError, match=rf"{place.shard}: changed or was removed while it was read"):
        own.batch([0])
    s3.delete(f"{url}/{place.shard}")
    with pytest.raises(PipelineError, match=rf"{place.shard}: changed or was removed while it was read"):
        own.batch([0])


@pytest.mark.parametrize(
    ("suffix", "change", "said"),
    [
        (".bin", lambda content: content[:-2], r"318 bytes, and 160 uint16 tokens are 320"),
        (".bin", None, r"\.bin: is not there; the mix needs it"),
        (".json", None, r"\.json: .*the mix needs this shard"),
        (".json", lambda content: content.replace(b'"tokens": 160', b'"tokens": 161'), r"tokens is 161, the mix was made of 160"),
        (".json", lambda content: b"{", r"no header of a shard"),
    ],
)
def test_a_shard_that_is_not_the_mixs_is_refused(
    s3: S3, url: str, own: MixReader, suffix: str, change: Callable[[bytes], bytes] | None, said: str
) -> None:
    name = f"shards/code/k/train-00000{suffix}"
    if change:
        s3.replace(f"{url}/{name}", change(s3.content(f"{url}/{name}")))
    else:
        s3.delete(f"{url}/{name}")
    with pytest.raises(PipelineError, match=said) as error:
        own.batch(range(len(own)))
    assert f"{url}/shards/code/k/" in str(error.value)


def test_a_lock_that_is_not_there_is_named(shared: str, machine: None) -> None:
    with pytest.raises(PipelineError, match=rf"{shared}/mixes/other.lock.json: is not there"):
        MixReader(f"{shared}/mixes/other.lock.json")


def fetched(mix: MixReader, reads: int = 10**6) -> list[str]:
    """Copy the shards here, and wait for that; → what was announced."""
    said: list[str] = []
    assert mix.fetch(reads, said.append) == sum(2 * shard.tokens for source in mix.lock.sources for shard in source.shards)
    paths = [mix.store.path(shard.path) for source in mix.lock.sources for shard in source.shards]
    deadline = time.monotonic() + 20
    while not said and not all(path.exists() for path in paths) and time.monotonic() < deadline:
        time.sleep(0.02)
    return said


def test_shards_that_are_here_are_read_here(s3: S3, local: MixReader, mix: MixReader) -> None:
    assert fetched(mix) == []
    mix.batch(range(len(mix)))  # looks at each shard once
    before = len(s3.log)
    assert np.array_equal(mix.batch(range(len(mix))), local.batch(range(len(mix))))
    assert len(s3.log) == before
    os.utime(mix.store.path(mix.locate(0).shard))
    for path in mix.store.root.rglob("*.bin"):
        path.unlink()  # evicted
    other = pickle.loads(pickle.dumps(mix))
    for reader in (mix, other):
        assert np.array_equal(reader.batch(range(len(mix))), local.batch(range(len(mix))))


def test_shards_that_arrive_while_a_mix_is_read_are_read_here_from_then_on(s3: S3, local: MixReader, mix: MixReader) -> None:
    assert np.array_equal(mix.batch(range(30)), local.batch(range(30)))
    assert fetched(mix) == []
    before = s3.requests("GET", RANGES)
    assert np.array_equal(mix.batch(range(30)), local.batch(range(30)))
    assert s3.requests("GET", RANGES) == before


def test_a_copy_that_is_not_the_shard_is_not_read(s3: S3, local: MixReader, url: str, own: MixReader) -> None:
    shard = own.locate(0).shard
    s3.replace(f"{url}/{shard}", bytes(len(s3.content(f"{url}/{shard}"))))
    assert any("its bytes are not the recorded ones" in message for message in fetched(own))
    assert not own.store.path(shard).exists()


def test_shards_are_copied_if_that_is_worth_it_and_there_is_room(s3: S3, mix: MixReader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mix.fetch(0, print) == 0
    monkeypatch.setenv("TOKENMILL_CACHE_GB", "0")
    assert mix.fetch(10**6, print) == 0
    assert s3.requests("GET", RANGES) == 0
    folder = MixReader(write_mix(mix.store.root.parent / "folder"))
    assert folder.fetch(10**6, print) == 0 and not folder.is_remote


def test_a_reader_goes_to_another_process(local: MixReader, mix: MixReader) -> None:
    mix.batch(range(9))
    copy = pickle.loads(pickle.dumps(mix))
    assert isinstance(copy.store, Store) and copy.store.place == mix.store.place
    assert np.array_equal(copy.batch(range(9)), local.batch(range(9)))
