"""`make plan` against a hub on loopback: what it says is what the hub lists, and what a build would take of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.download import hub
from pipeline.errors import PipelineError
from pipeline.recipe import load_source
from pipeline.store import Store
from pipeline.terminal import console
from tests.pipeline.hub_server import COMMIT, Hub, serve
from tests.pipeline.test_transfer import point_at
from tools import rates
from tools.estimate import hours
from tools.plan import plan, show

FILES = {f"data/part-{i:02d}.jsonl": 2_000 + 137 * i for i in range(20)}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for owner in ("web/set", "code/set"):
        for name, size in FILES.items():
            (tmp_path / "hub" / owner / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "hub" / owner / name).write_bytes(bytes(size))
    with serve(tmp_path / "hub") as server:
        point_at(server, monkeypatch)
        yield server


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """Two sources, each of 2 GB of text as published."""
    folder = tmp_path / "recipes"
    (folder / "sources").mkdir(parents=True)
    for name in ("web", "code"):
        (folder / "sources" / f"{name}.yaml").write_text(
            f"name: {name}\ntitle: {name}\nlicence: CC0\nhub: {{repo: {name}/set, revision: {COMMIT}, files: ['data/*']}}\n"
            "published: {documents: 1M, bytes: 2GB, tokens: 500M}\ndrop: {repetition: token_repeats >= 32}\n"
        )
    (folder / "two.yaml").write_text(
        "name: two\ndescription: for tests\ntokenizer: {file: none.json, eos_token: x}\nsequence_length: 2048\nseed: 1\n"
        "sources: {web: {weight: 3}, code: {weight: 1}}\n"
    )
    return folder


def test_it_names_what_a_build_would_download_and_downloads_nothing(server: Hub, recipes: Path, tmp_path: Path) -> None:
    found = plan("two", 200_000_000, Store(tmp_path / "store"), recipes)
    assert not server.served
    for name, share in (("web", 0.75), ("code", 0.25)):
        taken = hub.select(load_source(name, recipes), int(200_000_000 * share))
        assert list(found.listed[name].chosen) == [file.size for file in taken]
        part = sum(file.size for file in taken) / sum(FILES.values())
        load = found.works[name].load
        assert (load.tokens, load.bytes, load.documents) == pytest.approx((part * 500e6, part * 2e9, part * 1e6))
        assert load.tokens >= hub.SPARE * 200_000_000 * share
    assert sum(len(listed.chosen) for listed in found.listed.values()) < 2 * len(FILES)


def test_without_a_budget_all_files_are_meant(server: Hub, recipes: Path, tmp_path: Path) -> None:
    found = plan("two", None, Store(tmp_path / "store"), recipes)
    assert found.raw_bytes == 2 * sum(FILES.values())
    # All are smaller than a unit of reading together, and their 2 GB of text are parts of 64 MB.
    assert (found.works["web"].units["read"], found.works["web"].units["tokenize"]) == (1, 32)
    assert sum(load.load.tokens for load in found.works.values()) == pytest.approx(1e9)


def test_hours_follow_the_rates_and_the_cores(server: Hub, recipes: Path, tmp_path: Path) -> None:
    found = plan("two", None, Store(tmp_path / "store"), recipes)
    prose = found.bench.kinds["prose"]
    reading = prose.stages["read"]
    assert found.works["web"].cpu_seconds["read"] == pytest.approx(2e9 * reading.cpu_seconds / prose.bytes)
    one, four = found.hours(1, 1), found.hours(4, 1)
    assert one["tag"] == pytest.approx(4 * four["tag"])
    assert one["dedupe"] == pytest.approx(2 * four["dedupe"]), "one unit a source: no more than two can work"
    assert one["download"] == pytest.approx(4 * four["download"])
    assert hours(list(found.works.values()), 1, 2.0)["read"] == pytest.approx(2 / found.wall_per_cpu * one["read"])


def test_disk_holds_two_bytes_a_token_twice(server: Hub, recipes: Path, tmp_path: Path) -> None:
    found = plan("two", None, Store(tmp_path / "store"), recipes)
    disk = found.disk()
    assert disk["raw files"] == 2 * sum(FILES.values())
    assert 2e9 < disk["token ids and their tables"] < 2.3e9  # a billion tokens, uint16
    assert 1e9 < disk["shards"] < 2.3e9


def test_a_store_that_has_done_it_is_believed_more_than_the_benchmark(
    server: Hub, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benched = rates.newest().kinds["prose"]
    stages = {
        name: replace(stage, seconds=30 * stage.seconds, cpu_seconds=10 * stage.cpu_seconds) for name, stage in benched.stages.items()
    }
    before = plan("two", None, Store(tmp_path / "store"), recipes)
    monkeypatch.setattr(rates, "of_store", lambda store, mix: {"web": replace(benched, stages=stages)})
    after = plan("two", None, Store(tmp_path / "store"), recipes)
    assert after.measured == {"web"} and not before.measured
    assert after.works["web"].cpu_seconds["read"] == pytest.approx(10 * before.works["web"].cpu_seconds["read"])
    assert after.works["code"].cpu_seconds == before.works["code"].cpu_seconds
    assert after.wall_per_cpu == pytest.approx(3 * before.wall_per_cpu)


def test_what_is_printed_says_where_its_numbers_are_from(
    server: Hub, recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    show(plan("two", 200_000_000, store, recipes), store, 4, 8, console())
    printed = capsys.readouterr().out
    for words in (
        "4 nodes of 8 cores",
        "here, 8 cores",
        "rates: of web, code the benchmark's",
        "assumed, for nothing was downloaded",
        "free under",
    ):
        assert words in printed, printed


def test_no_hub_is_one_clear_error(recipes: Path, tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.shutdown()
    server.server_close()
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries it several times, ever later
    with pytest.raises(PipelineError, match="web: the hub did not list web/set"):
        plan("two", None, Store(tmp_path / "store"), recipes)


def test_downloads_of_the_store_tell_the_speed_of_the_network(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert rates.download_speed(store) is None
    line = {"stage": "raw", "source": "web", "units": ["0"], "seconds": 4.0, "cpu_seconds": 1.0, "peak_rss_mb": 1.0, "bytes": 60_000_000}
    store.write("runs/1.jsonl", "".join(json.dumps(line) + "\n" for _ in range(2)).encode() + b'{"stage": "raw", "by')
    assert rates.download_speed(store) == pytest.approx(15.0)
