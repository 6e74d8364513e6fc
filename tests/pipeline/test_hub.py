"""`DATA=hub` with the real client against a hub on loopback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.download import hub
from pipeline.errors import PipelineError
from pipeline.recipe import Hub, Published, Source
from tests.pipeline.hub_server import Hub as Server
from tests.pipeline.hub_server import serve

FILES = {f"data/part-{i:02d}.jsonl": f'{{"text": "document {i}"}}\n'.encode() * (100 + i) for i in range(20)}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name, content in {**FILES, "README.md": b"card", "data/test/held-out.jsonl": b"{}\n"}.items():
        path = tmp_path / "hub" / "some" / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with serve(tmp_path / "hub") as server:
        # The client reads HF_ENDPOINT when it is imported, so the constant is what counts here.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def source(**changes: object) -> Source:
    fields = {"repo": "some/set", "revision": "main", "files": ("data/**",), "exclude": ("data/test/*",), **changes}
    published = Published(documents=2000, bytes=50_000, tokens=20_000)
    return Source(name="web", title="web", licence="CC0", hub=Hub(**fields), published=published)


def ignore(size: int) -> None:
    pass


def test_the_files_that_the_globs_name_arrive_whole(server: Server, tmp_path: Path) -> None:
    files = hub.fetch(source(), hub.select(source(), None), tmp_path / "raw", ignore)
    assert {file.name: Path(file.path).read_bytes() for file in files} == FILES
    assert [file.name for file in files] == sorted(FILES) and files[0].origin == "hf:some/set@main"


def test_a_budget_takes_some_files_from_the_whole_listing_always_the_same(server: Server) -> None:
    chosen = [entry.path for entry in hub.select(source(), 5_000)]
    assert chosen == [entry.path for entry in hub.select(source(), 5_000)]
    size = sum(len(FILES[path]) for path in chosen) / sum(map(len, FILES.values())) * 20_000
    assert 5_000 * hub.SPARE <= size < 5_000 * hub.SPARE + 1_500
    assert chosen != sorted(FILES)[: len(chosen)], "the first files of a listing are often of one kind"


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    entries = hub.select(source(), None)
    hub.fetch(source(), entries, tmp_path / "raw", ignore)
    server.served.clear()
    hub.fetch(source(), entries, tmp_path / "raw", ignore)
    assert server.served == []


def test_changed_bytes_of_the_right_length_are_noticed_and_the_rest_is_kept(server: Server, tmp_path: Path) -> None:
    server.corrupt.add("data/part-07.jsonl")
    with pytest.raises(PipelineError, match=r"part-07\.jsonl arrived damaged.*run the same command again"):
        hub.fetch(source(), hub.select(source(), None), tmp_path / "raw", ignore)
    assert not (tmp_path / "raw" / "data" / "part-07.jsonl").exists()
    server.corrupt.clear()
    server.served.clear()
    assert len(hub.fetch(source(), hub.select(source(), None), tmp_path / "raw", ignore)) == len(FILES)
    assert "data/part-06.jsonl" not in server.served and "data/part-07.jsonl" in server.served


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repo": "some/other"}, r"no data set some/other"),
        ({"revision": "v9"}, r"no revision v9"),
        ({"files": ("nothing/**",)}, r"no file of some/set@main matches nothing"),
    ],
)
def test_what_the_hub_does_not_have_is_said(server: Server, changes: dict, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        hub.select(source(**changes), None)


def test_a_gated_data_set_says_where_to_accept_its_terms(server: Server) -> None:
    server.gated.add("some/set")
    with pytest.raises(PipelineError, match=r"accept its terms at https://hub/terms and set HF_TOKEN"):
        hub.select(source(gated=True, terms="https://hub/terms"), None)


def test_a_hub_that_does_not_answer_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", ignore)  # the client tries several times, ever later
    server.shutdown()
    server.server_close()
    with pytest.raises(PipelineError, match="the hub did not list some/set"):
        hub.select(source(), None)
