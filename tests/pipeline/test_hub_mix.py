"""A whole mix with `DATA=hub`, from the hub on loopback: kept or streamed, the same mix as from a folder."""

import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from pipeline import fetch, published
from pipeline.build import Request, build
from pipeline.catalog import read_manifest
from pipeline.download.hub import listing
from pipeline.engine import Engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import load_mix, load_source, load_tokenizer
from pipeline.stages import download, read
from pipeline.store import Store
from pipeline.unit import Record
from tests.pipeline.hub_server import COMMIT, Hub, serve
from tests.pipeline.test_build import contents
from tests.pipeline.test_transfer import point_at

COUNTS = {
    "web": "{documents: 239, bytes: 255KB, tokens: 100K}",
    "code": "{documents: 24, bytes: 17KB, tokens: 7K}",
    "wiki": "{documents: 100, bytes: 1, tokens: 10K}",
}


@pytest.fixture(scope="module")
def hub_recipes(recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual recipes; each source is also in the data set `some/<source>`."""
    folder = tmp_path_factory.mktemp("hub") / "recipes"
    shutil.copytree(recipes, folder)
    for name, counts in COUNTS.items():
        path = folder / "sources" / f"{name}.yaml"
        declared = f'repo: some/{name}, revision: {COMMIT}, files: ["**"], notes: ["the {name} of this release is a test"]'
        path.write_text(f"{path.read_text()}hub: {{{declared}}}\npublished: {counts}\n")
    return folder


@pytest.fixture
def hub(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    shutil.copytree(corpus, tmp_path / "hub" / "some")
    with serve(tmp_path / "hub") as hub:
        point_at(hub, monkeypatch)
        monkeypatch.setattr("pipeline.download.transfer.FIRST_PAUSE_S", 0.001)
        yield hub


def raw_and_read(
    recipes: Path, store: Store, stream: bool = False, tokens: int | None = None
) -> tuple[dict[str, list[RawFile]], list[Record]]:
    """The raw files of the mix, and the records of the units that read them."""
    mix = load_mix("small", recipes)
    sources = {name: load_source(name, recipes) for name in mix.sources}
    with Engine(store, 1, Progress()) as engine:
        raw, _ = fetch.raw_files(mix, sources, load_tokenizer(mix.tokenizer, recipes), "hub", tokens, engine, stream)
        units = [unit for name, files in raw.items() for unit in read.units(name, files, sources[name].fields)]
        return raw, engine.run(read.STAGE, units)


def test_a_mix_from_the_hub_is_the_one_from_the_folder_and_then_asks_nothing(
    hub: Hub, built: Store, hub_recipes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.inject("truncate", after=5_000, times=2)
    hub.inject("status", code=503, times=3)
    hub.inject("corrupt", match="web")
    request = Request("small", tmp_path / "store", "hub", workers=1, recipes=hub_recipes, shard_tokens=20_000, scale=True)
    lock = build(request, Progress())
    assert lock.to_json() == built.path("mixes/small.lock.json").read_bytes()
    told = capsys.readouterr().err
    assert told.count("the web of this release is a test") == 1 and "files" in told
    manifest = read_manifest(Store(tmp_path / "store"), "small")
    assert manifest["sources"]["web"]["origin"] == [f"hf:some/web@{COMMIT}"]
    hub.log.clear()
    before = contents(tmp_path / "store")
    build(request, Progress())
    assert hub.log == [] and contents(tmp_path / "store") == before


def test_streamed_files_give_the_same_units_and_are_not_kept(hub: Hub, hub_recipes: Path, tmp_path: Path) -> None:
    # Too small for LFS: its sha256 is not known before it is here, so it is kept.
    (tmp_path / "hub" / "some" / "wiki" / "small.jsonl").write_text('{"id": "a", "text": "b"}\n')
    kept, records = raw_and_read(hub_recipes, Store(tmp_path / "kept"))
    store = Store(tmp_path / "streamed")
    hub.log.clear()
    hub.inject("truncate", match="shard_0", after=10_000)
    streamed, again = raw_and_read(hub_recipes, store, stream=True)
    assert [record.to_json() for record in records] == [record.to_json() for record in again]
    assert [(f.name, f.sha256) for files in kept.values() for f in files] == [
        (f.name, f.sha256) for files in streamed.values() for f in files
    ]
    assert len([name for name in store.files("raw") if not name.endswith("record.json")]) == 1 and store.files("downloads/parts") == {}
    assert sorted(hub.served) == sorted([*(f.name for files in streamed.values() for f in files), "shard_0.jsonl.zst"])
    hub.log.clear()
    raw_and_read(hub_recipes, store, stream=True)
    assert hub.log == []


def test_streaming_is_refused_where_hashes_are_not_known_beforehand(hub_recipes: Path, corpus: Path, tmp_path: Path) -> None:
    mix = load_mix("small", hub_recipes)
    with Engine(Store(tmp_path), 1, Progress()) as engine, pytest.raises(ConfigError, match="STREAM=1 is for DATA=hub"):
        fetch.raw_files(mix, {}, load_tokenizer(mix.tokenizer, hub_recipes), str(corpus), None, engine, True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_disk_too_small_for_all_sources_is_said_before_the_first_byte(
    hub: Hub, hub_recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Each source alone would fit."""
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    free = max(sizes.values()) - 1 if stream else sum(sizes.values()) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - free, free))  # type: ignore[attr-defined]
    with pytest.raises(PipelineError, match=r"to download and .* GB free under .*STREAM=1"):
        raw_and_read(hub_recipes, Store(tmp_path / "store"), stream)
    assert hub.served == []


def test_a_budget_is_shared_out_and_half_a_download_counts(hub: Hub, hub_recipes: Path, tmp_path: Path) -> None:
    """shard_0 and shard_1 of web; 80 % of 1,000 tokens is less than one of them is said to hold."""
    raw, _ = raw_and_read(hub_recipes, Store(tmp_path / "store"), tokens=1_000)
    assert [len(files) for files in raw.values()] == [1, 1, 1]


def test_published_counts_are_held_against_what_was_found(hub: Hub, hub_recipes: Path, built: Store, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    raw, _ = raw_and_read(hub_recipes, store)
    manifest = read_manifest(built, "small")
    found = {
        name: published.outcome(load_source(name, hub_recipes), files, manifest["sources"][name]["funnel"], store)
        for name, files in raw.items()
    }
    assert found["web"].share == 1 and found["web"].found["documents"] == 238  # of 240, less one repetition and one empty text
    assert found["code"].found["documents"] == 24  # of 60, less the 36 of fewer than two stars
    [line] = [line for line in published.warnings(list(found.values())) if line.startswith("wiki")]
    assert "documents -50%" in line and "more than 5%" in line  # 50 of 60 are long enough; 100 are published
    rows = printed(published.table(list(found.values())))
    assert rows["web"][:4] == ["web", "100.0%", "239", "238"] and rows["code"][4] == "+0.0%"
    half = published.outcome(load_source("web", hub_recipes), raw["web"][:1], manifest["sources"]["web"]["funnel"], store)
    assert 0.5 < half.share < 0.7 and half.tolerance == published.TOLERANCE_OF_A_PART
    assert half.off("documents") == pytest.approx(238 / (239 * half.share) - 1)


def printed(table: Table) -> dict[str, list[str]]:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    return {line[0]: line for line in lines if line}


def test_what_is_underway_is_seen_and_needs_no_room_again(hub: Hub, hub_recipes: Path, tmp_path: Path) -> None:
    store, source = Store(tmp_path / "store"), load_source("web", hub_recipes)
    files = listing(source, store).files
    units = download.units("web", files)
    part = download.part_of(store, "web", units[0].inputs[0], units[0].where[download.PLACE])
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(5_000))
    part.with_name("another.part").write_bytes(bytes(70))
    assert download.underway(store, units)() == 5_000
    with Engine(store, 1, Progress()) as engine:
        assert fetch._missing(units, engine) == sum(file.size for file in files) - 5_000
