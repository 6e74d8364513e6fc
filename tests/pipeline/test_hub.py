"""What `DATA=hub` takes of a data set: listed by the real client from a hub on loopback."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.download import Remote, hub
from pipeline.errors import PipelineError
from pipeline.recipe import Hub, Published, Source, TokenizerHub, TokenizerSpec, load_source
from pipeline.store import Store
from tests.pipeline.hub_server import COMMIT, serve
from tests.pipeline.hub_server import Hub as Server
from tests.pipeline.test_transfer import point_at

FILES = {f"data/part-{i:02d}.jsonl": f'{{"text": "document {i}"}}\n'.encode() * (100 + i) for i in range(20)}
OTHERS = {"README.md": b"card", "data/test/held-out.jsonl": b"{}\n", "data/tiny.jsonl": b"{}\n", "more/x.jsonl": b"{}\n"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    write(tmp_path / "hub" / "some" / "set", {**FILES, **OTHERS})
    with serve(tmp_path / "hub") as server:
        point_at(server, monkeypatch)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client tries a busy hub several times, ever later
        yield server


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def source(**changes: object) -> Source:
    fields = {"repo": "some/set", "revision": COMMIT, "files": ("data/part-*",), **changes}
    published = Published(documents=2000, bytes=50_000, tokens=20_000)
    return Source(name="web", title="web", licence="CC0", hub=Hub(**fields), published=published)


def requests(server: Server) -> list[str]:
    return [seen.path for seen in server.log]


def test_the_globs_choose_files_with_the_hashes_that_the_hub_states(server: Server) -> None:
    found = hub.select(source(files=("data/**",), exclude=("data/test/*", "data/tiny*")), None)
    assert [(file.path, file.size, file.sha256) for file in found] == [
        (path, len(content), hashlib.sha256(content).hexdigest()) for path, content in sorted(FILES.items())
    ]
    assert found[0].place == f"hf://datasets/some/set@{COMMIT}/data/part-00.jsonl"
    [small] = hub.select(source(files=("data/tiny.jsonl",)), None)
    assert small.stated == "git:0967ef424bce6791893e9a57bb952f80fd536e93" and small.sha256 is None  # `echo "{}" | git hash-object --stdin`


def test_only_the_folders_that_the_globs_name_are_listed_page_by_page(server: Server) -> None:
    server.page = 7
    assert len(hub.select(source(), None)) == len(FILES)
    assert requests(server) == [f"/api/datasets/some/set/tree/{COMMIT}/data"] * 4
    assert hub._folders(["data/a/*.gz", "data/a/b/*.gz", "data/c*/x.gz", "other/**"]) == ["data", "other"]
    assert hub._folders(["*/train-*.parquet", "data/x"]) == [""]


def test_a_budget_takes_some_files_always_the_same(server: Server) -> None:
    chosen = [file.path for file in hub.select(source(), 5_000)]
    assert chosen == [file.path for file in hub.select(source(), 5_000)]
    size = sum(len(FILES[path]) for path in chosen) / sum(map(len, FILES.values())) * 20_000
    assert 5_000 * hub.SPARE <= size < 5_000 * hub.SPARE + 1_500
    assert set(chosen) < {file.path for file in hub.select(source(), 10_000)}, "a larger budget keeps what a smaller one downloaded"


def test_a_budget_is_spread_over_the_whole_listing() -> None:
    """DCLM's layout: a hundredth of its files comes from all of its hundred folders alike."""
    names = [
        f"global-shard_{g:02d}_of_10/local-shard_{s}_of_10/shard_{n:08d}_processed.jsonl.zst"
        for g in range(1, 11)
        for s in range(10)
        for n in range(279)
    ]
    listing = hub.Listing(COMMIT, tuple(Remote(name, 200, "0" * 64, "") for name in names))
    chosen = [file.path for file in listing.select(10_000, Published(documents=1, bytes=1, tokens=1_000_000))]
    assert len(chosen) == 349  # SPARE of a hundredth
    by_shard, by_number = Counter(path.split("/")[0] for path in chosen), Counter(int(path[-25:-20]) // 28 for path in chosen)
    # Ten cells of 34.9 each: the sum of squares over the expectation is chi-squared with 9 degrees of freedom, below 27.9 in 999 of 1000.
    for counts in (by_shard, by_number):
        assert sum((counts[cell] - 34.9) ** 2 / 34.9 for cell in sorted(counts)[:10]) < 27.9 and len(counts) >= 10


def test_a_listing_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    before = hub.listing(source(), store)
    server.log.clear()
    assert hub.listing(source(), store) == before and requests(server) == []
    assert len(hub.listing(source(files=("data/**",)), store).files) > len(before.files), "other globs are another question"


def test_a_branch_stays_the_commit_it_was_when_it_was_listed(server: Server, tmp_path: Path) -> None:
    store, later = Store(tmp_path / "store"), "f" * 40
    before = hub.listing(source(revision="main"), store)
    assert before.commit == COMMIT
    write(tmp_path / "later" / "some" / "set", {"data/part-00.jsonl": b"{}\n"})
    server.commits[later], server.main = tmp_path / "later", later
    assert hub.listing(source(revision="main"), store) == before
    assert hub.listing(source(revision="main")).commit == later
    with pytest.raises(PipelineError, match="no revision"):
        del server.commits[COMMIT]
        hub.listing(source())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repo": "some/other"}, "web: no some/other on the hub, or it needs HF_TOKEN"),
        ({"revision": "v9"}, "some/set has no revision v9"),
        ({"revision": "9" * 40}, "some/set has no revision 999"),
        ({"files": ("nothing/**",)}, f"no file of some/set@{COMMIT} matches nothing"),
        ({"files": ("data/nothing*",)}, f"no file of some/set@{COMMIT} matches data/nothing"),
    ],
)
def test_what_the_hub_does_not_have_is_said(server: Server, changes: dict, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        hub.select(source(**changes), None)


def test_a_gated_data_set_says_where_to_accept_its_terms_before_anything_is_listed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.gated.add("some/set")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(PipelineError, match=r"^web: some/set is gated; accept its terms at https://hub/terms and set HF_TOKEN") as error:
        hub.select(source(gated=True, terms="https://hub/terms"), None)
    assert "hf_another" not in str(error.value) and "\n" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", server.token)
    assert hub.select(source(gated=True), None)


def test_a_busy_hub_is_asked_again_and_a_dead_one_is_said(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.inject("status", match="/tree/", code=503, times=3)
    server.inject("status", match="/tree/", code=429, headers={"Retry-After": "1"})
    assert len(hub.select(source(), None)) == len(FILES)
    server.inject("status", match="/tree/", code=500, times=99)
    with pytest.raises(PipelineError, match="the hub did not list some/set: it answered 500; run the same command again"):
        hub.select(source(), None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(PipelineError, match="the hub did not list some/set: ConnectError.*check the network"):
        hub.select(source(), None)
    assert "hf_secret" not in caplog.text


def test_without_the_hub_nothing_new_is_promised(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PipelineError, match="HF_HUB_OFFLINE"):
        hub.select(source(), None)


def test_the_tokenizer_comes_from_the_hub_once(server: Server, tmp_path: Path) -> None:
    content = b'{"model": {}}' * 200
    write(tmp_path / "hub" / "some" / "tokenizer", {"tokenizer.json": content})
    where = TokenizerHub(repo="some/tokenizer", file="tokenizer.json", revision="main")
    fields = {"name": "t", "hub": where, "sha256": hashlib.sha256(content).hexdigest(), "vocab_size": 2, "eos": 1, "eos_token": "x"}
    assert hub.fetch_tokenizer(TokenizerSpec(**fields), tmp_path / "t").read_bytes() == content
    server.log.clear()
    hub.fetch_tokenizer(TokenizerSpec(**fields), tmp_path / "t")
    assert requests(server) == []
    with pytest.raises(PipelineError, match="arrived damaged"):
        hub.fetch_tokenizer(TokenizerSpec(**{**fields, "sha256": "0" * 64}), tmp_path / "t")
    with pytest.raises(PipelineError, match="has no other.json"):
        hub.fetch_tokenizer(
            TokenizerSpec(**{**fields, "hub": where.model_copy(update={"file": "other.json"}), "sha256": "1" * 64}), tmp_path / "t"
        )


def test_gsm8ks_test_set_is_left_out_of_dolminos_mathematics() -> None:
    """It lies in the release beside the training set (data/math/gsm8k/socratic/test)."""
    declared = load_source("dolmino-math").hub
    assert declared
    paths = [
        "data/math/gsm8k/main/train/0.jsonl.zst",
        "data/math/gsm8k/socratic/train/0.jsonl.zst",
        "data/math/gsm8k/socratic/test/0.jsonl.zst",
    ]
    taken = [path for path in paths if hub._matches(path, declared.files) and not hub._matches(path, declared.exclude)]
    assert taken == paths[:2]
    assert any("GSM8K" in note for note in declared.notes)
