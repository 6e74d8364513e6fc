"""`DATA=<url>` through fsspec's in-memory and file systems."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.build import Request, build
from pipeline.download.url import mirror
from pipeline.errors import ConfigError, PipelineError
from pipeline.progress import Progress
from pipeline.store import Store


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe({"/corpus/web/a.jsonl": b'{"text": "one"}\n', "/corpus/web/deep/b.jsonl": b'{"text": "two"}\n', "/corpus/x/c": b"x"})
    yield filesystem
    filesystem.rm("/corpus", recursive=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_mirror_holds_what_the_url_holds_and_follows_it(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    mirror("memory://corpus", "web", tmp_path)
    assert contents(tmp_path / "web") == {"a.jsonl": b'{"text": "one"}\n', "deep/b.jsonl": b'{"text": "two"}\n'}
    before = (tmp_path / "web/a.jsonl").stat().st_mtime_ns
    memory.rm("/corpus/web/deep/b.jsonl")
    memory.pipe("/corpus/web/c.jsonl", b"{}\n")
    mirror("memory://corpus/", "web", tmp_path)
    assert set(contents(tmp_path / "web")) == {"a.jsonl", "c.jsonl"}
    assert (tmp_path / "web/a.jsonl").stat().st_mtime_ns == before, "an unchanged file was copied again"


def test_a_source_that_is_not_there_is_empty_and_a_url_of_no_kind_is_refused(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    mirror("memory://corpus", "wiki", tmp_path)
    assert contents(tmp_path) == {}
    with pytest.raises(ConfigError, match="DATA=nosuch://x"):
        mirror("nosuch://x", "web", tmp_path)


def test_a_broken_copy_is_named_and_never_taken_for_whole(memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.copyfileobj", lambda source, sink, length: sink.write(b"{"))
    with pytest.raises(PipelineError, match=r"web/a\.jsonl: 1 bytes arrived, 16 were listed"):
        mirror("memory://corpus", "web", tmp_path)
    assert not (tmp_path / "web/a.jsonl").exists()


def test_a_mix_builds_from_a_url_to_the_same_shards_as_from_the_folder(built: Store, corpus: Path, recipes: Path, tmp_path: Path) -> None:
    request = Request("small", tmp_path, corpus.as_uri(), workers=1, recipes=recipes, shard_tokens=20_000, scale=True)
    lock = build(request, Progress())
    assert lock.to_json() == built.path("mixes/small.lock.json").read_bytes()
