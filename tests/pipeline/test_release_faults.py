"""Releases where processes are killed, stores lie at URLs, and through the commands that people use."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.build import Request, build
from pipeline.progress import Progress
from pipeline.release import MANIFEST, Release
from pipeline.store import Store
from pipeline.verify import verify
from tests.pipeline.hub_server import Hub, serve
from tests.pipeline.test_release import CARD, HOME, released, shards
from tests.pipeline.test_transfer import point_at
from tools.push.contents import contents
from tools.push.repository import Repository
from tools.push.upload import upload
from tools.s3_server import S3

# The card is another test's: it takes seconds.
PROGRAM = f"import tools.card.command as card; card.card_of_mix = lambda *a, **k: {CARD!r}; from tools.cli import main; main()"
pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(tmp_path / "hub") as hub:
        point_at(hub, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def push(store: Store, to: str = HOME) -> None:
    repository = Repository(to)
    made = contents(store, "small", to, CARD)
    repository.create()
    upload(store, made, repository, Progress())


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "HF_HOME": "/nonexistent"}
    )


def ended(process: subprocess.Popen[str]) -> str:
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "hf_" not in told + errors and "secret" not in told + errors
    return told


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_push_that_was_killed_goes_on_and_sends_no_file_again(hub: Hub, built: Store) -> None:
    hub.inject("slow", method="PUT", match="/lfs/", delay=0.3, times=10**6)
    process = start("push", "--mix", "small", "--to", HOME, "--store", built.root)
    wait_for(lambda: len(hub.objects) >= 5)
    process.kill()
    process.wait()
    time.sleep(1)  # what was on its way arrives, or does not
    arrived = set(hub.objects)
    assert MANIFEST not in released(hub)
    hub.faults.clear()
    hub.log.clear()
    assert "were sent now" in ended(start("push", "--mix", "small", "--to", HOME, "--store", built.root))
    sent = [seen.path.removeprefix("/lfs/") for seen in hub.log if seen.method == "PUT"]
    assert arrived.isdisjoint(sent) and len(sent) == len(set(sent)) == len(hub.objects) - len(arrived)
    assert shards(built).items() <= released(hub).items() and Release.from_json(released(hub)[MANIFEST]).mix == "small"


def test_a_download_that_was_killed_goes_on_where_it_was(hub: Hub, built: Store, tmp_path: Path) -> None:
    push(built)
    store = Store(tmp_path / "store")
    hub.inject("slow", match="train-00000.bin", delay=0.5, times=10**6)
    process = start("mix", "--mix", "small", "--data", HOME, "--store", store.root)
    wait_for(lambda: any(size > 16_000 for size in store.files("downloads/parts").values()))
    process.kill()
    process.wait()
    left = store.files("downloads/parts")
    assert left and not store.files("mixes").keys() & {"mixes/small.lock.json"}
    hub.faults.clear()
    hub.log.clear()
    assert f"{store.root}/mixes/small.lock.json" in ended(start("mix", "--mix", "small", "--data", HOME, "--store", store.root))
    assert [seen for seen in hub.log if seen.range and seen.path.endswith(".bin")]
    assert shards(store) == shards(built) and store.files("downloads/parts") == {}


def test_stores_at_urls_read_releases_and_make_them(hub: Hub, built: Store, s3: S3, machine: Callable[[str], None]) -> None:
    push(built)
    place = f"{s3.bucket()}/stores/one"
    build(Request("small", place, HOME), Progress())
    store = Store(place)
    assert shards(store) == shards(built) and verify(store, "small", 2, Progress()) == []
    machine("second")
    push(Store(place), "us/again")
    assert {path: content for path, content in released(hub, "us/again").items() if path.startswith(("shards/", "tokenizers/"))} == {
        path: content for path, content in released(hub).items() if path.startswith(("shards/", "tokenizers/"))
    }
    machine("third")
    hub.log.clear()
    build(Request("small", place, HOME), Progress())
    assert hub.log == []


def test_pushed_with_its_card_and_read_by_the_commands(
    hub: Hub, built: Store, corpus: Path, recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools.card.command import card_of_mix
    from tools.push.command import push as command

    command(HOME, "small", str(built.root), recipes)
    told = capsys.readouterr().out
    assert f"{hub.url}/datasets/{HOME} with our hashes" in told and "It is private" in told
    card = card_of_mix(built, "small", repo=HOME, recipes=recipes)
    assert card["README.md"].startswith(b"---\n") and card.items() <= released(hub).items()
    assert all(
        file.path in card["croissant.json"].decode()
        for file in Release.from_json(released(hub)[MANIFEST]).files
        if file.path.endswith(".bin")
    )
    assert not [
        path for path, content in released(hub).items() if any(str(place).encode() in content for place in (corpus, recipes, built.root))
    ]
    arguments = told.split("Next: make mix ")[1].split("   ")[0].split()
    assert arguments == ["MIX=small", f"DATA={HOME}"]
    assert "requested beside obtained" in ended(start("mix", "--mix", "small", "--data", HOME, "--store", tmp_path / "store"))


def test_a_model_trains_on_it_as_on_the_mix_itself(hub: Hub, built: Store, tmp_path: Path) -> None:
    from tests.trainer.tiny import losses, pretrain, store_of
    from trainer.trace import trace

    push(built)
    build(Request("small", tmp_path / "released", HOME), Progress())
    whole = store_of(built, tmp_path / "whole")
    (tmp_path / "released" / "tiny.yaml").write_bytes((whole / "tiny.yaml").read_bytes())
    runs = [pretrain(store, "tiny", steps=3) for store in (whole, tmp_path / "released")]
    assert losses(runs[0]) == losses(runs[1])
    assert trace(whole, "tiny", 2) == trace(tmp_path / "released", "tiny", 2) != []
