"""One file from a faulty hub: whole and right in the end, or refused with a reason."""

import hashlib
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.download import hub_file, transfer
from pipeline.errors import PipelineError
from pipeline.unit import Artifact
from tests.pipeline.hub_server import COMMIT, Hub, serve

CONTENT = random.Random(5).randbytes(500_000)
SMALL = b"not worth an LFS pointer\n"
PLACE = f"hf://datasets/some/set@{COMMIT}/data/a b.bin"
WANTED = Artifact("data/a b.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "hub" / "some" / "set"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a b.bin").write_bytes(CONTENT)
    (folder / "small.txt").write_bytes(SMALL)
    with serve(tmp_path / "hub") as hub:
        point_at(hub, monkeypatch)
        monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.001)
        yield hub


def point_at(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads HF_ENDPOINT when it is imported, so its constants are what counts here."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")


def fetched(folder: Path, place: str = PLACE, wanted: Artifact = WANTED) -> bytes:
    part = folder / "x.part"
    transfer.fetch(place, wanted, part, hub_file.stream)
    return part.read_bytes()


def ranges(hub: Hub) -> list[str | None]:
    return [seen.range for seen in hub.log]


def test_a_file_arrives_in_one_request(hub: Hub, tmp_path: Path) -> None:
    assert fetched(tmp_path) == CONTENT
    assert ranges(hub) == [None]


def test_a_file_that_is_no_lfs_file_is_compared_with_its_git_blob_id(hub: Hub, tmp_path: Path) -> None:
    told = subprocess.run(["git", "hash-object", "--stdin"], input=SMALL, capture_output=True, check=True).stdout.decode().strip()
    place = f"hf://datasets/some/set@{COMMIT}/small.txt"
    assert fetched(tmp_path, place, Artifact("small.txt", f"git:{told}", len(SMALL))) == SMALL
    (tmp_path / "x.part").unlink()
    with pytest.raises(PipelineError, match="arrived damaged, twice"):
        fetched(tmp_path, place, Artifact("small.txt", f"git:{'0' * 40}", len(SMALL)))


@pytest.mark.parametrize("kind", ["truncate", "reset"])
def test_a_connection_that_ends_is_gone_on_with_from_the_byte_reached(hub: Hub, tmp_path: Path, kind: str) -> None:
    hub.inject(kind, after=300_000)
    assert fetched(tmp_path) == CONTENT
    first, second = ranges(hub)
    assert first is None and second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 300_000


def test_a_storm_of_refusals_is_waited_out_ever_longer_and_not_in_step_with_others(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 1.0)
    hub.inject("status", code=503, times=4)
    hub.inject("status", code=500)
    hub.inject("status", code=429, headers={"Retry-After": "77"})
    assert fetched(tmp_path) == CONTENT
    assert len(pauses) == 6
    assert all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(pauses[:5])) and pauses[5] == 77
    assert pauses[:5] != [2.0**n for n in range(5)]


def test_the_hubs_own_limits_and_dates_are_heard(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    hub.inject("status", code=429, headers={"RateLimit": '"resolvers";r=0;t=55'})
    hub.inject("status", code=503, headers={"Retry-After": "Wed, 21 Oct 2115 07:28:00 GMT"})
    hub.inject("status", code=503, headers={"Retry-After": "soon"})
    assert fetched(tmp_path) == CONTENT
    assert pauses[0] == 55 and pauses[1] == transfer.LONGEST_ASKED_S and pauses[2] < 1


def test_a_dead_hub_is_given_up_and_what_came_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.inject("truncate", after=100_000)
    hub.inject("status", code=502, times=100)
    with pytest.raises(PipelineError, match=r"a b\.bin could not be downloaded: 127\.0\.0\.1 answered 502 .* after 8 attempts.*goes on"):
        fetched(tmp_path)
    assert len(hub.log) == transfer.ATTEMPTS
    hub.faults.clear()
    assert fetched(tmp_path) == CONTENT and ranges(hub)[-1] == "bytes=100000-"


def test_a_poor_line_finishes_however_often_it_ends(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PROGRESS_BYTES", 100_000)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    hub.inject("truncate", after=150_000, times=3)
    assert fetched(tmp_path) == CONTENT and len(hub.log) == 4


def test_a_server_that_ignores_ranges_gives_the_same_file(hub: Hub, tmp_path: Path) -> None:
    hub.inject("truncate", after=300_000)
    hub.inject("ranges")
    assert fetched(tmp_path) == CONTENT


def test_a_connection_that_drips_is_given_up_for_another(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    hub.inject("slow", delay=0.15)
    begin = time.monotonic()
    assert fetched(tmp_path) == CONTENT and len(hub.log) == 2
    assert time.monotonic() - begin < 5, "at that pace the whole file takes nine seconds"


@pytest.mark.parametrize("kind", ["corrupt", "long"])
def test_wrong_bytes_are_fetched_once_more_and_then_refused(hub: Hub, tmp_path: Path, kind: str) -> None:
    hub.inject(kind)
    assert fetched(tmp_path) == CONTENT
    assert ranges(hub) == [None, None]
    (tmp_path / "x.part").unlink()
    hub.inject("corrupt", times=2)
    with pytest.raises(PipelineError, match=rf"arrived damaged, twice: its hash should be {WANTED.sha256}"):
        fetched(tmp_path)
    assert not (tmp_path / "x.part").exists()


def test_a_damaged_part_of_an_earlier_run_costs_one_more_transfer(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "x.part").write_bytes(bytes(250_000))
    assert fetched(tmp_path) == CONTENT
    assert ranges(hub) == ["bytes=250000-", None]


def test_a_redirect_to_storage_does_not_carry_the_token_there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.gated.add("some/set")
    hub.cdn = True
    hub.inject("truncate", match="/signed/", after=300_000)
    assert fetched(tmp_path) == CONTENT
    seen = {seen.path.split("/")[1]: seen.authorization for seen in hub.log}
    assert seen == {"datasets": f"Bearer {hub.token}", "signed": None}
    assert [seen.range for seen in hub.log if seen.path.startswith("/signed/")] == [None, f"bytes={300_000}-"]


def test_an_expired_address_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.cdn = True
    hub.inject("status", match="/signed/", code=403)
    assert fetched(tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("code", "headers", "message"),
    [
        (401, {}, "it needs a token that may read it: set HF_TOKEN"),
        (403, {}, "your token may not read it"),
        (
            403,
            {"X-Error-Code": "GatedRepo"},
            "some/set is gated; accept its terms at https://huggingface.co/datasets/some/set and set HF_TOKEN",
        ),
        (404, {}, "that commit is gone"),
        (400, {}, "answered 400"),
    ],
)
def test_a_refusal_is_said_in_one_line_at_once_and_without_the_token(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    headers: dict[str, str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.inject("status", code=code, headers=headers, times=9)
    with pytest.raises(PipelineError, match=message) as error:
        fetched(tmp_path)
    assert len(hub.log) == 1 and "\n" not in str(error.value)
    assert "hf_secret" not in "".join(traceback.format_exception(error.value)) + caplog.text


def test_a_killed_process_is_gone_on_with_by_the_next(hub: Hub, tmp_path: Path) -> None:
    hub.inject("slow", delay=0.02)  # 1.2 s
    program = (
        "import sys; from pathlib import Path; from pipeline.download import hub_file, transfer; from pipeline.unit import Artifact\n"
        f"transfer.fetch({PLACE!r}, Artifact('a', {WANTED.sha256!r}, {WANTED.bytes}), Path(sys.argv[1]), hub_file.stream)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "x.part")])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not (tmp_path / "x.part").exists() or (tmp_path / "x.part").stat().st_size < 200_000):
        time.sleep(0.01)
    process.kill()
    process.wait()
    left = (tmp_path / "x.part").stat().st_size
    assert 200_000 <= left < len(CONTENT)
    assert fetched(tmp_path) == CONTENT
    assert ranges(hub)[-1] == f"bytes={left}-"
