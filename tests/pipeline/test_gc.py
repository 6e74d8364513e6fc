"""Garbage collection takes what nothing needs any longer, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.build import Request, build
from pipeline.engine import execute
from pipeline.errors import ConfigError, PipelineError
from pipeline.gc import collect, survey
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.unfinished import Unfinished
from pipeline.unit import sealed, unsealed
from pipeline.verify import verify
from tests.pipeline.corpus import write_recipes
from tests.pipeline.test_build import contents

OLDER = {"filtered", "holdout", "duplicates", "decisions", "shards"}  # what another threshold makes anew


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory, recipes: Path) -> Path:
    """The recipes with one rule more."""
    folder = tmp_path_factory.mktemp("shorter")
    shutil.copy(recipes / "tiny.json", folder)
    return write_recipes(folder, drop={"long": "words > 250"})


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, built: Store, corpus: Path, shorter: Path) -> Store:
    """The small mix, built, and then built with that rule. Tests must not change this store."""
    store = Store(tmp_path_factory.mktemp("changed") / "store")
    shutil.copytree(built.root, store.root)
    rebuild(store, corpus, shorter)
    return store


@pytest.fixture
def store(tmp_path: Path, changed: Store) -> Store:
    shutil.copytree(changed.root, tmp_path / "store")
    return Store(tmp_path / "store")


def rebuild(store: Store, corpus: Path, recipes: Path) -> None:
    build(Request("small", store.root, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())


def garbage(store: Store, recipes: Path) -> set[str]:
    return {item.place for item in survey(store, recipes).garbage}


def test_a_fresh_store_holds_no_garbage(built: Store, recipes: Path) -> None:
    found = survey(built, recipes)
    assert not found.garbage and not found.unfinished
    folders = {path.parent.relative_to(built.root).as_posix() for path in built.root.glob("*/*/*/record.json")}
    assert folders <= {item.place for item in found.needed}
    shards = sum(path.stat().st_size for path in built.root.glob("shards/*/*/*"))
    assert sum(item.bytes for item in found.needed if item.kind == "shards") == shards


def test_what_an_older_rule_left_goes_and_nothing_else(store: Store, built: Store, corpus: Path, shorter: Path, tmp_path: Path) -> None:
    fresh = Store(tmp_path / "fresh")
    rebuild(fresh, corpus, shorter)
    removed = collect(store, shorter, Progress()).garbage
    assert {item.kind for item in removed} == OLDER
    assert all(item.bytes > 0 and item.cpu_seconds > 0 for item in removed)
    assert all(any(file.startswith(f"{item.place}/") for file in contents(built.root)) for item in removed)
    ours, theirs = ({file: sha for file, sha in contents(s.root).items() if "record" not in file} for s in (store, fresh))
    assert ours == theirs  # records may name an equal input by the unit that had it first
    assert verify(store, "small", 1, Progress()) == []


def test_looking_changes_nothing(store: Store, shorter: Path) -> None:
    before = contents(store.root)
    assert garbage(store, shorter)
    assert contents(store.root) == before


def test_units_that_another_mix_rests_on_stay(store: Store, built: Store, shorter: Path) -> None:
    assert {place.split("/")[0] for place in garbage(store, shorter)} == OLDER
    for kind in ("build", "lock"):
        store.write(f"mixes/other.{kind}.json", built.read(f"mixes/small.{kind}.json"))
    assert not garbage(store, shorter)
    store.remove("mixes/other.build.json")
    assert {place.split("/")[0] for place in garbage(store, shorter)} == OLDER - {"shards"}
    store.remove("mixes/other.lock.json")  # the mix is given up
    assert {place.split("/")[0] for place in garbage(store, shorter)} == OLDER


@pytest.mark.parametrize("how", ["lock", "pattern"])
def test_shards_that_a_training_run_reads_stay(store: Store, built: Store, shorter: Path, how: str) -> None:
    before = garbage(store, shorter)
    if how == "lock":
        store.write("models/first/mix.lock.json", built.read("mixes/small.lock.json"))
    else:
        store.write("models/first/run.json", json.dumps({"mix": f"{store.root}/shards/web/*/train-*.bin"}).encode())
    spared = before - garbage(store, shorter)
    assert spared and spared == {place for place in before if place.startswith("shards/")}


def test_what_a_killed_build_made_stays_until_a_build_ends(
    tmp_path: Path, built: Store, corpus: Path, shorter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built.root, tmp_path / "store")
    store = Store(tmp_path / "store")

    def killed(root: str, function: str, units: list) -> object:
        if "gather" in function:
            raise KeyboardInterrupt
        return execute(root, function, units)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pipeline.engine.execute", killed)
        rebuild(store, corpus, shorter)
    before = contents(store.root)
    found = survey(store, shorter)
    assert not found.garbage and [name.split("-")[0] for name in found.unfinished] == ["small"]
    collect(store, shorter, Progress())
    assert contents(store.root) == before
    computed = []
    monkeypatch.setattr(
        "pipeline.engine.execute", lambda root, function, units: computed.append(function) or execute(root, function, units)
    )
    rebuild(store, corpus, shorter)
    assert set(computed) == {"pipeline.stages.gather:gather"}, "what was done was done again"
    assert garbage(store, shorter) and not survey(store, shorter).unfinished


def test_a_build_that_finds_all_done_claims_nothing(store: Store, corpus: Path, shorter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(Store, "write", lambda self, place, content: written.append(place))
    rebuild(store, corpus, shorter)
    assert set(written) == {"mixes/small.lock.json", "mixes/small.build.json"}


def test_builds_of_one_mix_that_differ_in_what_was_asked_keep_each_others_claims(store: Store, shorter: Path) -> None:
    place = next(place for place in garbage(store, shorter) if place.startswith("shards/"))
    claims = [Unfinished(store, "small", {"sources": sources}) for sources in ([], ["web"])]
    for each in claims:
        each.claim("shards", [store.record(place).unit], missing=True)
    claims[0].end()
    assert place not in garbage(store, shorter)
    claims[1].end()
    assert place in garbage(store, shorter)


def test_downloads_and_tokenizers_stay_as_long_as_something_names_them(store: Store, recipes: Path) -> None:
    collect(store, recipes, Progress())
    named = ["hub/web/shard.jsonl", "hub/dclm/a/b.jsonl.zst", "folder/web.json"]  # by these recipes, by ours
    gone = ["hub/gone/a.jsonl", "packages/old-1.0.tar.gz/old/x.txt", "packages/old-1.0.tar.gz.json", "url/0123456789abcdef/web/a.jsonl"]
    for name in named + gone:
        store.write(f"downloads/{name}", b"text")
    store.write(f"tokenizers/{'0' * 64}.json", b"{}")
    removed = {item.place for item in collect(store, recipes, Progress()).garbage}
    assert removed == {
        "downloads/hub/gone", "downloads/packages/old-1.0.tar.gz", "downloads/packages/old-1.0.tar.gz.json",
        "downloads/url/0123456789abcdef", f"tokenizers/{'0' * 64}.json",
    }  # fmt: skip
    assert all(store.path(f"downloads/{name}").exists() for name in named)
    assert not any(store.path(f"downloads/{name}").exists() for name in gone)


def test_a_download_that_a_built_mix_read_stays(store: Store, recipes: Path) -> None:
    before = garbage(store, recipes)
    manifest = unsealed(store.read("mixes/small.build.json"))
    manifest["sources"]["web"]["raw"] = [
        ["downloads/hub/renamed/a.jsonl", "0" * 64, 4],
        [f"{store.root}/downloads/url/x/b.jsonl", "0" * 64, 4],
    ]
    store.write("mixes/small.build.json", sealed(manifest))
    for name in ("hub/renamed/a.jsonl", "url/x/b.jsonl"):
        store.write(f"downloads/{name}", b"text")
    assert garbage(store, recipes) == before


def test_what_is_not_the_pipelines_is_left_alone(store: Store, recipes: Path) -> None:
    for name in ("notes/mine/a/b.txt", "models/run/checkpoints/step-1/.metadata", "runs/1-1.jsonl"):
        store.write(name, b"mine")
    collect(store, recipes, Progress())
    assert all(store.path(name).exists() for name in ("notes/mine/a/b.txt", "models/run/checkpoints/step-1/.metadata", "runs/1-1.jsonl"))


@pytest.mark.parametrize("file", ["mixes/small.build.json", "mixes/small.lock.json"])
def test_a_damaged_manifest_stops_before_anything_is_removed(store: Store, recipes: Path, file: str) -> None:
    content = store.read(file)
    store.write(file, content[: len(content) // 2])
    before = contents(store.root)
    with pytest.raises(PipelineError, match=f"{file} .*nothing is removed"):
        collect(store, recipes, Progress())
    assert contents(store.root) == before


def test_a_place_without_a_store_is_refused_and_not_made(tmp_path: Path, recipes: Path) -> None:
    with pytest.raises(ConfigError, match="nothing has been built"):
        collect(Store(tmp_path / "nowhere"), recipes, Progress())
    assert not (tmp_path / "nowhere").exists()
