"""A mix goes to the hub on loopback and comes back as it was, whatever fails on the way."""

import io
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from pipeline import catalog, stats
from pipeline.build import Request, build
from pipeline.download.release import address
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.preview import preview, rules_for
from pipeline.progress import Progress
from pipeline.reader import MixReader
from pipeline.release import MANIFEST, Books, Release
from pipeline.store import Store
from pipeline.unit import Artifact, sealed, unsealed
from pipeline.verify import verify
from tests.pipeline.hub_server import COMMIT, Hub, serve
from tests.pipeline.test_transfer import point_at
from tools.push.contents import contents
from tools.push.repository import Repository
from tools.push.upload import Outcome, upload

HOME = "us/small"
CARD = {"README.md": b"---\nlicense: cc0-1.0\n---\n# small\n", "recipes/small.yaml": b"name: small\n"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty one."""
    with serve(tmp_path / "hub") as hub:
        point_at(hub, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr("tools.push.upload.COMMIT_FILES", 12)
        yield hub


@pytest.fixture(scope="module")
def pushed_once(built: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch, serve(tmp_path_factory.mktemp("release") / "hub") as hub:
        point_at(hub, patch)
        patch.setenv("HF_TOKEN", hub.token)
        push(built)
        yield hub


@pytest.fixture
def home(hub: Hub, pushed_once: Hub) -> Hub:
    """A hub that the mix was pushed to."""
    hub.commits |= pushed_once.commits
    hub.heads |= pushed_once.heads
    hub.private |= pushed_once.private
    hub.objects |= pushed_once.objects
    return hub


def push(store: Store, papers: dict[str, bytes] = CARD, to: str = HOME) -> Outcome:
    repository = Repository(to)
    made = contents(store, "small", to, papers)
    repository.create()
    return upload(store, made, repository, Progress())


def read(folder: Path, data: str = HOME, **fields: object) -> Lock:
    return build(Request("small", folder, data, **fields), Progress())  # type: ignore[arg-type]


def released(hub: Hub, to: str = HOME) -> dict[str, bytes]:
    """What the data set holds now."""
    folder = hub.commits[hub.heads[to]] / to
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sent(hub: Hub) -> int:
    """How many bodies of large files were sent."""
    return sum(seen.method == "PUT" for seen in hub.log)


def shards(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.files("shards")}


def asked(store: Store, query: str) -> list[tuple]:
    with stats.open_catalog(store) as connection:
        return sorted(connection.execute(query).fetchall(), key=repr)


def test_a_released_mix_comes_back_as_it_was_and_then_asks_nothing(hub: Hub, built: Store, tmp_path: Path) -> None:
    push(built)
    lock, store = read(tmp_path / "store"), Store(tmp_path / "store")
    assert lock.to_json() == store.read("mixes/small.lock.json") == built.read("mixes/small.lock.json")
    assert shards(store) == shards(built)
    assert verify(store, "small", 1, Progress()) == []
    mixes = [MixReader(each.path("mixes/small.lock.json")) for each in (store, built)]
    assert (mixes[0].batch(range(40)) == mixes[1].batch(range(40))).all() and mixes[0].documents(7) == mixes[1].documents(7)
    before = written(store)
    hub.log.clear()
    read(store.root)
    assert hub.log == [] and before == written(store)


def written(store: Store) -> dict[Path, int]:
    """When each file was, but the lock and the catalog."""
    return {path: path.stat().st_mtime_ns for path in store.root.glob("*/**/*") if path.is_file()}


@pytest.mark.slow
def test_the_books_come_along_and_what_does_not_says_so(home: Hub, built: Store, recipes: Path, tmp_path: Path) -> None:
    read(tmp_path / "store")
    store = Store(tmp_path / "store")
    for query in (
        "SELECT * FROM documents", "SELECT * FROM funnel", "SELECT * FROM shards", "SELECT * FROM mixes",
        "SELECT * EXCLUDE reused FROM runs", "SELECT * EXCLUDE origin FROM sources",
    ):  # fmt: skip
        assert asked(store, query) == asked(built, query) != [], query
    out = io.StringIO()
    stats.show(store, "small", Console(file=out, width=200))
    assert "few_stars" in out.getvalue() and "MB per CPU-s" in out.getvalue()
    place = f"{HOME}@{home.heads[HOME]}"
    for view in ("duplicates", "edits WHERE start > 3", "clusters", "matches", "failures", "attributes_web"):
        with pytest.raises(
            duckdb.Error, match=rf"web.* came in the release {place}, which holds .* but no {view.split('_')[0].split()[0]}"
        ):
            asked(store, f"SELECT count(*) FROM {view}")
    with pytest.raises(ConfigError, match=f"wiki came in the release {place}, .* no documents"):
        preview(store, "wiki", rules_for("wiki", "words < 5", [], recipes), 1, Progress())


@pytest.mark.slow
def test_sources_that_were_built_here_keep_their_views_beside_a_release(hub: Hub, built: Store, tmp_path: Path) -> None:
    """A store with a mix of its own, all of whose sources but `web` came in a release afterwards."""
    store = copy_of(built, tmp_path / "store")
    manifest = catalog.read_manifest(store, "small")
    for name, source in manifest["sources"].items():
        if name != "web":
            source |= {"release": f"{HOME}@{COMMIT}", "costs": [], "units": {"shards": source["units"]["shards"]}}
    store.write("mixes/small.build.json", sealed(manifest))
    catalog.write(store, "small", ())
    query = "SELECT * FROM duplicates WHERE source = 'web'"
    assert asked(store, query) == asked(built, query) != []
    assert asked(store, "SELECT DISTINCT source FROM failures") == asked(built, "SELECT DISTINCT source FROM failures WHERE source = 'web'")


@pytest.mark.slow
def test_pushed_twice_it_sends_nothing_and_a_new_card_sends_the_card(hub: Hub, built: Store) -> None:
    first = push(built)
    assert first.sent == first.files and hub.messages[-1] == "small: release" and len(hub.messages) > 2
    hub.log.clear()
    assert push(built) == Outcome(first.commit, first.files, first.bytes, 0, 0)
    assert sent(hub) == 0 and {seen.method for seen in hub.log} == {"GET"}
    card = {"README.md": b"---\nlicense: mit\n---\n"}
    second = push(built, card)
    assert (second.sent, second.sent_bytes) == (1, len(card["README.md"]))
    assert released(hub)["README.md"] == card["README.md"] and "recipes/small.yaml" not in released(hub)


@pytest.mark.slow
def test_what_only_an_older_release_needed_is_taken_away_with_the_last_commit(hub: Hub, built: Store) -> None:
    push(built)
    old = f"shards/web/{'0' * 32}/train-00000.bin"
    hub.add_commit(HOME, {old: b"\0\0", MANIFEST: b"{}"}, ())
    assert push(built).sent == 1
    assert old not in released(hub)
    listed = {file.path: file.sha256 for file in Release.from_json(released(hub)[MANIFEST]).files}
    found = {path: sha256(content).hexdigest() for path, content in released(hub).items()}
    assert found.items() >= listed.items() and found.keys() - listed.keys() == {*CARD, MANIFEST, ".gitattributes"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset", "method": "PUT", "match": "/lfs/", "after": 3_000, "times": 2},
        {"kind": "status", "method": "PUT", "match": "/lfs/", "code": 503, "times": 9},
        {"kind": "status", "method": "POST", "match": "/commit/", "code": 429, "headers": {"Retry-After": "1"}, "times": 2},
        {"kind": "status", "method": "POST", "match": "/preupload/", "code": 500, "times": 2},
        {"kind": "lost", "method": "POST", "match": "/commit/", "times": 2},
        {"kind": "slow", "method": "POST", "match": "/commit/", "delay": 1.0},
        {"kind": "status", "method": "GET", "match": "/tree/", "code": 502, "times": 2},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault['match'].strip('/')}",
)
def test_a_hub_that_fails_for_a_while_gets_all_of_it(
    hub: Hub,
    built: Store,
    fault: dict,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [caplog.handler])  # it hands nothing on to the root
    if fault["kind"] == "slow":
        monkeypatch.setattr("tools.push.repository.SILENCE_S", 0.3)
    hub.inject(**fault)
    push(built)
    assert all(fault.times == 0 for fault in hub.faults)
    assert shards(built).items() <= released(hub).items()
    told = capsys.readouterr().err
    assert "Signature" not in told + caplog.text, "addresses of the storage are secrets"
    assert ("ReadTimeout" in told) == (fault["kind"] == "slow"), "nothing was given up"


@pytest.mark.slow
def test_a_hub_that_stays_away_is_given_up_and_what_arrived_is_kept(hub: Hub, built: Store) -> None:
    hub.inject("status", method="PUT", match="/lfs/", code=503, times=10**6)
    hub.faults.insert(0, type(hub.faults[0])("none", method="PUT", match="/lfs/", times=4))
    with pytest.raises(PipelineError, match="could not be written to: the hub answered 503.* after 6 attempts.* goes on from there"):
        push(built)
    assert MANIFEST not in released(hub)
    arrived = len(hub.objects)
    hub.faults.clear()
    hub.log.clear()
    push(built)
    assert arrived >= 4 and sent(hub) == len(hub.objects) - arrived


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda hub: hub.inject("refuse", method="POST", match="/batch", times=9), "Storage limit reached"),
        (
            lambda hub: hub.writable.clear(),
            "403: You don't have the rights .* must be one that may write to us, whose storage must have room",
        ),
        (lambda hub: setattr(hub, "token", "hf_other"), "401: .*; set HF_TOKEN to a token that may write there"),
        (
            lambda hub: hub.add_commit(HOME, {"data/train.csv": b"a\n"}, ()),
            "holds data/train.csv, which is no part of a release; remove it there",
        ),
        (lambda hub: hub.add_commit(HOME, {"mixes/other.lock.json": b"{}"}, ()), "holds mixes/other.lock.json, of another mix than small"),
    ],
    ids=["quota", "rights", "token", "data", "mix"],
)
def test_a_refusal_is_said_in_one_line_without_the_token(
    hub: Hub, built: Store, spoil: Callable[[Hub], object], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(hub)
    with pytest.raises(PipelineError, match=message) as error:
        push(built)
    assert "\n" not in str(error.value) and "hf_" not in str(error.value).replace("HF_TOKEN", "") + caplog.text


@pytest.mark.slow
def test_bytes_that_changed_on_their_way_are_found_and_the_release_never_appears(hub: Hub, built: Store, tmp_path: Path) -> None:
    hub.inject("corrupt", method="PUT", match="/lfs/")
    with pytest.raises(PipelineError, match=r"the hub has [0-9a-f]{64} for (shards|tokenizers)/.*, ours is [0-9a-f]{64}") as error:
        push(built)
    wrong = str(error.value).split(" for ")[1].split(",")[0]
    assert MANIFEST not in released(hub)
    with pytest.raises(PipelineError, match=f"holds no {MANIFEST}: it is no release, or its push has not ended"):
        read(tmp_path / "store")
    push(built)
    assert released(hub)[wrong] == built.read(wrong) and MANIFEST in released(hub)


def test_a_damaged_store_releases_nothing(hub: Hub, built: Store, tmp_path: Path) -> None:
    store = copy_of(built, tmp_path / "store")
    victim = next(path for path in sorted(store.root.glob("shards/web/*/train-*.bin")))
    content = bytearray(victim.read_bytes())
    content[100] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"{victim.name}: its bytes have changed since it was written; make verify"):
        push(store)
    assert not any(path.endswith(victim.name) for path in released(hub))


def test_no_name_of_a_folder_here_goes_out(home: Hub, built: Store, corpus: Path) -> None:
    """The mix was built of DATA=<corpus>."""
    assert str(corpus) in built.read("mixes/small.build.json").decode()
    places = [str(place).encode() for place in (corpus, built.root, Path.home())]
    assert not [path for path, content in released(home).items() if any(place in content for place in places)]
    web = Books.from_json(released(home)["mixes/small.build.json"]).sources["web"]
    assert web.origin == ("a folder",) and all(name.startswith("web/") for name, *_ in web.raw)
    assert HOME in home.private, "it is for people to say who may see it"


@pytest.mark.slow
def test_a_download_that_fails_on_the_way_is_whole_in_the_end(
    home: Hub, built: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.download.transfer.FIRST_PAUSE_S", 0.001)
    home.cdn = True
    home.inject("truncate", match=".bin", after=5_000, times=3)
    home.inject("corrupt", match=".parquet")
    home.inject("status", match="record.json", code=503, times=3)
    read(tmp_path / "store")
    assert shards(Store(tmp_path / "store")) == shards(built)
    assert Store(tmp_path / "store").files("downloads/parts") == {}


@pytest.mark.slow
def test_what_is_missing_or_damaged_is_fetched_again(home: Hub, built: Store, tmp_path: Path) -> None:
    read(tmp_path / "store")
    store = Store(tmp_path / "store")
    victim = next(path for path in store.files("shards") if path.endswith(".bin"))
    store.path(victim).write_bytes(store.read(victim)[:-2])
    home.log.clear()
    read(tmp_path / "store")
    assert shards(store) == shards(built)
    assert {name for name in fetched(home) if name.endswith((".bin", ".parquet"))} == {
        name for name in store.files(victim.rpartition("/")[0]) if name.endswith((".bin", ".parquet"))
    }


def fetched(hub: Hub) -> list[str]:
    """The files whose bytes were asked for."""
    return [seen.path.split("/resolve/")[1].partition("/")[2] for seen in hub.log if "/resolve/" in seen.path]


@pytest.mark.slow
def test_a_store_stays_with_the_commit_that_it_read(hub: Hub, built: Store, tmp_path: Path) -> None:
    old = push(built).commit
    read(tmp_path / "store")
    new = push(built, {"README.md": b"# new\n"}).commit
    hub.log.clear()
    read(tmp_path / "store")
    assert hub.log == []
    read(tmp_path / "store", f"{HOME}@{new}")
    assert catalog.read_manifest(Store(tmp_path / "store"), "small")["data"] == f"{HOME}@{new}" != f"{HOME}@{old}"
    assert not [seen for seen in hub.log if seen.path.endswith((".bin", ".parquet"))]


def test_a_folder_of_that_name_is_a_folder_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [str(address(data, Progress())) for data in (HOME, f"{HOME}@v1")] == [HOME, f"{HOME}@v1"]
    assert [address(data, Progress()) for data in ("sample", "hub", "corpus", "/a/b", "a/b/c", "s3://a/b", "../b", "a/b@")] == [None] * 8
    Path(HOME).mkdir(parents=True)
    assert address(HOME, Progress()) is None
    assert f"DATA={HOME} is a folder here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": ("web",)}, "us/small is a release, which is read as it is: leave out SOURCES"),
        ({"scale": True, "stream": True}, "leave out SCALE and STREAM"),
        ({"tokens": 10**9}, "us/small holds .* tokens of small, TOKENS asks for 1B; a release is read as it is"),
        ({"mix": "other"}, "us/small is a release of the mix small, not of other; say MIX=small"),
        ({"data": "us/nothing"}, "DATA=us/nothing, which is no folder here: no us/nothing on the hub, or it needs HF_TOKEN"),
        ({"data": "us/small@v9"}, "us/small has no revision v9; give another"),
    ],
)
def test_a_release_is_read_as_it_is_or_not_at_all(home: Hub, built: Store, tmp_path: Path, fields: dict, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        build(Request(**{"mix": "small", "store": tmp_path / "store", "data": HOME, **fields}), Progress())
    assert not Store(tmp_path / "store").files("shards") and not Store(tmp_path / "store").files("mixes")


def test_what_contradicts_itself_is_refused_before_a_shard_is_fetched(home: Hub, built: Store, tmp_path: Path) -> None:
    whole = released(home)
    release = Release.from_json(whole[MANIFEST])
    lock, books = json.loads(whole["mixes/small.lock.json"]), unsealed(whole["mixes/small.build.json"])
    record = next(path for path in whole if path.endswith("record.json"))
    other = next(path for path in whole if path.endswith("record.json") and path != record)
    shard = next(path for path in whole if path.endswith("train-00000.bin"))
    recorded = unsealed(whole[record])
    recorded["outputs"][0]["sha256"] = "0" * 64
    books["sources"]["web"]["funnel"][0]["documents"] = "many"
    cases: dict[str, dict[str, bytes]] = {
        "is damaged .it has changed": {MANIFEST: whole[MANIFEST].replace(b"small", b"smell")},
        "'../evil/x.bin' is no file of a release": listing(release, {**whole, "../evil/x.bin": b""}),
        r"its list has not the shards/.*/train-00000.bin that its lock reads": listing(release, {**whole, shard: b"\0\0"}),
        "fingerprint": listing(release, {**whole, "mixes/small.lock.json": json.dumps({**lock, "seed": 8}).encode()}),
        "sources.web.funnel.0..documents: Input should be": listing(release, {**whole, "mixes/small.build.json": sealed(books)}),
        "the record of .* is not of the files": listing(release, {**whole, record: whole[other]}),
        "the record of .* is not of the files that": listing(release, {**whole, record: sealed(recorded)}),
        "its list, its lock and its books name different units": listing(release, {**whole, f"shards/x/{'1' * 32}/record.json": b"{}"}),
    }
    for number, (message, changed) in enumerate(cases.items()):
        home.add_commit(HOME, changed, ())
        home.log.clear()
        with pytest.raises(PipelineError, match=f"^{HOME}@.*{message}.*whoever released it must push it again"):
            read(tmp_path / str(number))
        assert not [path for path in fetched(home) if path.endswith((".bin", ".parquet"))] and not (tmp_path / "evil").exists()
        home.add_commit(HOME, whole, ())


def listing(release: Release, files: dict[str, bytes]) -> dict[str, bytes]:
    """What changes where the release's list is made of these files."""
    made = {path: Artifact(path, sha256(content).hexdigest(), len(content)) for path, content in files.items()}
    listed = [made[file.path] for file in release.files]
    listed += [made[path] for path in files if path.startswith(("shards/", "../")) and made[path] not in listed]
    content = Release(release.mix, release.fingerprint, tuple(listed)).to_json()
    return {**{path: content for path, content in files.items() if not path.startswith("..")}, MANIFEST: content}


def copy_of(store: Store, folder: Path) -> Store:
    shutil.copytree(store.root, folder, copy_function=lambda source, target: Path(target).hardlink_to(source))
    return Store(folder)


def test_groups_hold_neighbours_within_both_bounds() -> None:
    from tools.push.upload import _groups

    rng = random.Random(4)
    files = [Artifact(str(number), "", rng.randrange(100)) for number in range(200)]
    groups = list(_groups(files, 7, 250))
    assert [file for group in groups for file in group] == files
    assert all(len(group) <= 7 and (len(group) == 1 or sum(file.bytes for file in group) <= 250) for group in groups)
    for group, following in pairwise(groups):
        assert len(group) == 7 or sum(file.bytes for file in group) + following[0].bytes > 250
