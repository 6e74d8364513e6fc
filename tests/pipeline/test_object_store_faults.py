"""Object storage that throttles, fails, cuts connections and corrupts; credentials, buckets and networks that are not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import lease, objects
from pipeline.build import Request, build
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.unit import Artifact, Record, Unit
from tools.s3_server import S3

CONTENT = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture
def place(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(objects, "FIRST_WAIT_S", 0.01)
    yield f"{s3.bucket()}/prefix"
    s3.faults.clear()


UNIT = Unit("documents", 1, "web", (Artifact("raw", "0", 3),))


def publish(store: Store) -> Record:
    with store.work_folder(UNIT) as folder:
        (folder / "a.bin").write_bytes(CONTENT)
        (folder / "b.bin").write_bytes(b"b")
        return store.publish(UNIT, folder, {"documents": 7})


def work(place: str, machine: Callable[[str], None]) -> None:
    """Everything a run does with a store, on two machines."""
    store = Store(place)
    with store.lock(print):
        record = publish(store)
    machine("second")
    store = Store(place)
    assert store.find_all([UNIT]) == [record] == [store.find(UNIT)]
    assert store.local(record.output("a.bin")).read_bytes() == CONTENT
    store.write("mixes/a.json", b"{}")
    assert store.read("mixes/a.json") == store.local("mixes/a.json").read_bytes() == store.open("mixes/a.json").read() == b"{}"


@pytest.mark.parametrize(
    "kind", [503, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (500, 429)), "reset", "reset upload", "truncate"]
)
def test_what_passes_is_outlasted(s3: S3, place: str, machine: Callable[[str], None], kind: int | str) -> None:
    method = {"reset upload": "PUT", "truncate": "GET"}.get(str(kind), ".*")
    # Every object and every list meets the fault twice.
    faults = [s3.fail(kind, method=method, path=path, times=2) for path in ("a.bin", "record.json", "a.json", r"\.lock", "list-type")]
    work(place, machine)
    assert sum(fault.times for fault in faults) <= (4 if kind == "reset upload" else 0), "a fault was not met"


def test_a_storm_of_refusals_is_outlasted_with_growing_waits(s3: S3, place: str, machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(objects, "REQUEST_ATTEMPTS", 1)
    store = Store(f"{place}/storm")
    s3.fail(503, times=6)
    store.objects.filesystem.retries = 1
    store.write("a", b"x")
    assert len(waits) == 6 and waits[0] < 0.011 and 0.15 < waits[5] < 0.33


def test_what_does_not_pass_is_named_once_and_soon(s3: S3, place: str, machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "CALL_ATTEMPTS", 2)
    store = Store(place)
    store.objects.filesystem.retries = 2
    s3.fail(503, times=1000)
    with pytest.raises(PipelineError, match=r"cannot write a: the server answers SlowDown; check the network") as error:
        store.write("a", b"x")
    assert place in str(error.value)


def test_bytes_that_changed_on_the_way_are_fetched_again(s3: S3, place: str, machine: Callable[[str], None]) -> None:
    record = publish(Store(place))
    for kind in ("corrupt", "short"):
        machine(kind)
        s3.fail(kind, method="GET", path="a.bin")
        assert Store(place).local(record.output("a.bin")).read_bytes() == CONTENT


def test_bytes_that_changed_in_the_store_are_never_handed_out(s3: S3, place: str, machine: Callable[[str], None], tmp_path: Path) -> None:
    record = publish(Store(place))
    s3.replace(f"{place}/{UNIT.folder}/a.bin", CONTENT[:-1] + b"?")
    machine("second")
    store = Store(place)
    with pytest.raises(PipelineError, match=r"a\.bin: its bytes are not the recorded ones, twice.*remove s3://.*make mix again"):
        store.local(record.output("a.bin"))
    assert [path.name for path in (tmp_path / "second").rglob("*") if path.is_file() and path.parent.name != ".held"] == [".room"]


def test_wrong_credentials_buckets_and_addresses_are_named(s3: S3, place: str, machine: object, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(place)
    s3.fail(403, times=1)
    with pytest.raises(PipelineError, match=r"the server answers AccessDenied; give this machine credentials") as denied:
        store.write("a", b"x")
    assert "testing" not in str(denied.value), "a key was printed"
    for act in (lambda store: store.write("a", b"x"), lambda store: store.files("documents"), lambda store: store.lock(print).__enter__()):
        with pytest.raises(PipelineError, match=r"s3://no-such-bucket/x: there is no such bucket; create it"):
            act(Store("s3://no-such-bucket/x"))
    with pytest.raises(ConfigError, match=r"s3://…@bucket: no passwords in a URL") as refused:
        Store("s3://me:hunter2@bucket/x")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match="nosuch://x"):
        Store("nosuch://x")
    with pytest.raises(ConfigError, match=r"s3://: names no bucket; write s3://<bucket>"):
        Store("s3://")
    with pytest.raises(PipelineError, match=r"ftp://127\.0\.0\.1:9/x: cannot be reached"):
        Store("ftp://127.0.0.1:9/x")


@pytest.mark.slow
def test_a_process_without_credentials_or_network_says_so(place: str, machine: object) -> None:
    program = f"from pipeline.store import Store; Store({place!r}).write('a', b'')"
    for changed, message in (
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "EndpointConnectionError; check the network and the address"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nowhere"}, "NoCredentialsError; give this machine credentials"),
    ):
        result = subprocess.run([sys.executable, "-c", program], env={**os.environ, **changed}, capture_output=True, text=True, check=False)
        assert message in result.stderr.splitlines()[-1], result.stderr


@pytest.mark.slow
def test_an_upload_killed_in_the_middle_counts_for_nothing_and_is_swept(
    s3: S3, place: str, machine: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"""
from tests.pipeline.test_object_store_faults import UNIT, Store
with Store({place!r}).work_folder(UNIT) as folder:
    (folder / "a.bin").write_bytes(bytes(50 << 20))
    Store({place!r}).publish(UNIT, folder, {{}})
"""
    s3.fail("slow", method="PUT", path="partNumber=3", seconds=60)
    child = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while s3.requests("PUT", "partNumber=2") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert s3.uploads(place) == 1 and s3.keys(place) == {}
    monkeypatch.setattr(lease, "SECONDS", 3600.0)
    with Store(place).lock(print):
        assert s3.uploads(place) == 1, "the upload of a run that may live was aborted"
    monkeypatch.setattr(lease, "SECONDS", 0.0)
    time.sleep(1)
    with Store(place).lock(print):
        assert s3.uploads(place) == 0
        publish(Store(place))
    assert Store(place).find(UNIT)
    assert not [path for path in Store(place).root.iterdir() if path.name.startswith(".tmp-")], "the killed run's files are still here"


@pytest.mark.slow
def test_a_mix_built_in_bad_weather_is_the_same(s3: S3, place: str, machine: object, built: Store, corpus: Path, recipes: Path) -> None:
    for kind in (503, 500, "reset", "truncate", "corrupt", "short", "reset upload"):
        s3.fail(kind, method="PUT|GET" if isinstance(kind, int) else "PUT" if kind == "reset upload" else "GET", times=12, share=0.1)
    build(Request("small", place, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    assert s3.content(f"{place}/mixes/small.lock.json") == built.read("mixes/small.lock.json")
    for name in built.files("shards"):
        assert s3.content(f"{place}/{name}") == built.read(name)
