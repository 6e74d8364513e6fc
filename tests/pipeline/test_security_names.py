"""Names that come from data, or from a store that others write to, as paths: none of them leads out, and none costs without end."""

import os
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import checks, findings
from pipeline.download import Remote, hub
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.recipe import Hub, Published, SamplePackage, Source
from pipeline.sql import quoted, quoted_list
from pipeline.stages.download import _plain
from pipeline.store import Store
from pipeline.unit import Artifact, Record, Unit, canonical
from trainer.run import Run

OUTSIDE = ["../up", "/etc/passwd", "shards/../../up", "..", "a/.."]
COMMIT = "a" * 40


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("verb", ["path", "local", "read", "open", "files", "remove", "url", "record"])
def test_no_verb_of_a_store_leaves_it(name: str, verb: str, tmp_path: Path) -> None:
    (tmp_path / "up").write_text("precious")
    with pytest.raises(PipelineError):
        getattr(Store(tmp_path / "store"), verb)(name)
    with pytest.raises(PipelineError):
        Store(tmp_path / "store").write(name, b"")
    assert (tmp_path / "up").read_text() == "precious"


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_copy_of_a_remote_store_stays_in_its_cache(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMILL_CACHE", str(tmp_path / "cache"))
    store = Store("memory://names")
    for wanted in (name, Artifact(name, "0" * 64, 1)):
        with pytest.raises(PipelineError, match="is no name in"):
            store.local(wanted)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300))
def test_what_a_hub_or_a_bucket_calls_a_file_becomes_a_plain_name(name: str) -> None:
    plain = _plain(name)
    assert Path(plain).name == plain and plain not in ("", ".", "..", "record.json")
    assert len(plain.encode()) <= 101 and plain.isascii() and plain.isprintable()


@pytest.mark.parametrize("name", ["..", ".hidden", "-", "a/b", "A", "a\\b", "a\0", "a\n", "", "é", "a b", "a'b", "a" * 101])
def test_a_source_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not|validation error"):
        Source(name=name, title="t", licence="l")


@pytest.mark.parametrize("name", ["..", "a/b", "*", "", ".tmp-x", "a[b"])
def test_a_run_has_a_plain_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run is a folder's name"):
        Run(tmp_path, name)


def test_a_kept_listing_cannot_say_where_files_lie(tmp_path: Path) -> None:
    """Whoever may write to the store could otherwise have any file of this machine, or of its network, read as a raw file."""
    declared = Hub(repo="owner/name", revision=COMMIT, files=("data/*",))
    source = Source(name="web", title="t", licence="l", hub=declared, published=Published(documents=1, bytes=1, tokens=1))
    store = Store(tmp_path)
    asked = {"repo": "owner/name", "revision": COMMIT, "files": ["data/*"], "exclude": []}
    stated = {"path": "data/x.jsonl", "size": 3, "stated": "0" * 64, "place": "file:///etc/passwd"}
    store.write("downloads/hub/web.json", canonical({**asked, "commit": COMMIT, "listing": [stated]}))
    place = f"hf://datasets/owner/name@{COMMIT}/data/x.jsonl"
    assert hub.listing(source, store).files == (Remote("data/x.jsonl", 3, "0" * 64, place),)
    for damaged in ({"commit": "../../x"}, {"listing": [{"path": "data/x.jsonl"}]}, {"listing": 3}, {"commit": 3}):
        kept = {**asked, "commit": COMMIT, "listing": [stated], **damaged}
        assert hub._kept(Store(tmp_path), "downloads/hub/web.json", asked) is not None
        store.write("downloads/hub/other.json", canonical(kept))
        assert hub._kept(store, "downloads/hub/other.json", asked) is None


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "shards/../../x.bin", "a\\b.bin", "a\0.bin", ""])
def test_a_lock_whose_shards_lie_elsewhere_is_refused(path: str, built: Store, tmp_path: Path) -> None:
    lock = Lock.read(built.path("mixes/small.lock.json"))
    source = lock.sources[0]
    moved = source.model_copy(update={"shards": (replace(source.shards[0], path=path), *source.shards[1:])})
    place = tmp_path / "mix.lock.json"
    place.write_bytes(lock.model_copy(update={"sources": (moved, *lock.sources[1:])}).to_json())
    with pytest.raises(PipelineError, match="lies outside the store"):
        Lock.read(place)


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "tokens/web/other/x.parquet", "{folder}/../x", "{folder}/a/b", "{folder}/a\0"]
)
def test_a_record_that_names_files_of_others_is_not_taken(path: str, tmp_path: Path) -> None:
    unit = Unit("tokens", 1, "web", ())
    path = path.format(folder=unit.folder)
    content = Record(unit, (Artifact(path, "0" * 64, 1),), {}).to_json()  # with a seal that holds
    store = Store(tmp_path)
    store.write(f"{unit.folder}/record.json", content)
    assert store.find(unit) is None
    with pytest.raises(PipelineError, match="none of the unit's files"):
        store.record(unit.folder)


@pytest.mark.parametrize("special", ["pipe", "/dev/zero"])
def test_a_raw_file_that_a_manifest_names_is_a_file_or_not_looked_at(special: str, tmp_path: Path) -> None:
    path = special
    if special == "pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(path)
    assert list(checks.raw_file(Store(tmp_path), Artifact(path, "0" * 64, 1 << 60))) == []


def test_text_in_sql_is_text() -> None:
    with duckdb.connect() as connection:
        for text in ["'", "''", "a'; DROP TABLE x; --", "\\'", '"', "%", "\n", "\u2019", "$$'$$", "E'\\''"]:
            assert connection.execute(f"SELECT {quoted(text)}, {quoted_list([text, text])}").fetchall() == [(text, [text, text])]


@settings(deadline=None, max_examples=30)
@given(st.text(max_size=20))
def test_a_view_of_attributes_is_called_by_letters_digits_and_underlines(source: str) -> None:
    name = findings.attributes_view(source)
    assert all(character.isalnum() or character == "_" for character in name)


@pytest.mark.parametrize("file", ["a/b.tar.gz", "a\\b.zip", "", "..", ".hidden", "a\0.zip", "a\n.zip"])
def test_an_archive_has_a_plain_name(file: str) -> None:
    with pytest.raises(ValueError):
        SamplePackage(package="pypi:a==1", file=file, sha256="0" * 64, licence="l", members=("*",))
