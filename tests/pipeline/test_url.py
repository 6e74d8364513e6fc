"""`DATA=<url>` through fsspec's in-memory and file systems."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline import fetch
from pipeline.build import Request, build
from pipeline.download import url
from pipeline.engine import Engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.readers import RawFile
from pipeline.recipe import Source
from pipeline.store import Store


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/corpus/web/a.jsonl": b'{"text": "one"}\n', "/corpus/web/deep/b.jsonl": b'{"text": "two"}\n', "/corpus/x/c": b"x"})
    yield filesystem
    filesystem.rm("/corpus", recursive=True)


def raw(store: Store, place: str = "memory://corpus", name: str = "web") -> dict[str, RawFile]:
    """The files of one source, in the store."""
    with Engine(store, 1, Progress()) as engine:
        found = fetch._from_url(place, {name: Source(name=name, title="t", licence="CC0")}, engine)
    return {file.name: file for file in found[name]}


def test_what_the_url_holds_is_copied_once_and_followed(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = raw(store)
    assert {name: store.local(file.path).read_bytes() for name, file in first.items()} == {
        "a.jsonl": b'{"text": "one"}\n',
        "deep/b.jsonl": b'{"text": "two"}\n',
    }
    assert first["a.jsonl"].sha256 == hashlib.sha256(b'{"text": "one"}\n').hexdigest()
    before = store.local(first["a.jsonl"].path).stat().st_mtime_ns
    memory.rm("/corpus/web/deep/b.jsonl")
    memory.pipe("/corpus/web/c.jsonl", b"{}\n")
    memory.pipe("/corpus/web/.hidden", b"{}\n")
    second = raw(store, "memory://corpus/")
    assert set(second) == {"a.jsonl", "c.jsonl"}
    assert second["a.jsonl"] == first["a.jsonl"] and store.local(second["a.jsonl"].path).stat().st_mtime_ns == before
    memory.pipe("/corpus/web/a.jsonl", b'{"text": "new"}\n')
    assert store.local(raw(store)["a.jsonl"].path).read_bytes() == b'{"text": "new"}\n', "the same size at another time is another file"


def test_a_source_that_is_not_there_is_empty_and_a_url_of_no_kind_is_refused(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    assert raw(Store(tmp_path), name="wiki") == {}
    with pytest.raises(ConfigError, match="nosuch://x"):
        raw(Store(tmp_path), "nosuch://x")


def test_a_file_that_changes_while_it_is_copied_is_never_taken_for_whole(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = url.files("memory://corpus", "web")
    monkeypatch.setattr(url, "files", lambda place, name: listed)
    memory.pipe("/corpus/web/a.jsonl", b"{}")
    with pytest.raises(PipelineError, match=r"memory://corpus/web/a\.jsonl was changed or removed while it was copied"):
        raw(Store(tmp_path))
    memory.rm("/corpus/web/a.jsonl")
    with pytest.raises(PipelineError, match="was changed or removed"):
        raw(Store(tmp_path))
    assert list(Store(tmp_path).files("raw")) == []


def test_a_mix_builds_from_a_url_to_the_same_shards_as_from_the_folder(built: Store, corpus: Path, recipes: Path, tmp_path: Path) -> None:
    request = Request("small", tmp_path, corpus.as_uri(), workers=1, recipes=recipes, shard_tokens=20_000, scale=True)
    lock = build(request, Progress())
    assert lock.to_json() == built.path("mixes/small.lock.json").read_bytes()
