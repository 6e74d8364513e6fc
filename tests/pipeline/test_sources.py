"""Every source reads both its upstream schema and the Dolma document schema, to the same document."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.engine import execute
from pipeline.files import sha256_of
from pipeline.readers import RawFile
from pipeline.recipe import load_source
from pipeline.stages import read
from pipeline.store import Store
from pipeline.taggers import TAGGERS, Batch

DOLMA = {"id": "d1", "text": "Words.", "source": "x", "added": "2024-05-01T00:00:00.000Z", "created": "2023-02-01T00:00:00.000Z"}

# source: an upstream row (facts: the data sets' own cards), then what its document must have.
UPSTREAM: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dclm": (
        {"text": "Words.", "url": "https://a.org", "metadata": {"WARC-Record-ID": "<urn:uuid:1>", "WARC-Date": "2022-01-01T00:00:00Z"},
         "language_id_whole_page_fasttext": {"en": 0.9}, "previous_word_count": 7},
        {"id": "<urn:uuid:1>", "created": "2022-01-01T00:00:00Z", "metadata": {"url": "https://a.org", "previous_word_count": 7}},
    ),
    "starcoder": (
        {"id": "77", "content": "Words.", "max_stars_repo_path": "a/b.py", "max_stars_repo_name": "o/r", "max_stars_count": None},
        {"id": "77", "metadata": {"max_stars_repo_path": "a/b.py", "max_stars_count": None}},
    ),
    "pes2o": (
        {"id": "12", "text": "Words.", "source": "s2orc/train", "version": "v2", "added": "2023-01-03", "created": "2001-01-01"},
        {"id": "12", "added": "2023-01-03", "created": "2001-01-01", "metadata": {"version": "v2"}},
    ),
    "arxiv": (
        {"text": "Words.", "meta": {"timestamp": "2014-01-01T00:00:00", "yymm": "1401", "arxiv_id": "1401.0001", "language": "en"}},
        {"id": "1401.0001", "created": "2014-01-01T00:00:00", "metadata": {"yymm": "1401"}},
    ),
    "open-web-math": (
        {"url": "https://m.org", "text": "Words.", "date": "2020-01-01T00:00:00Z",
         "metadata": '{"extraction_info": {"found_math": true}, "config": {}}'},
        {"created": "2020-01-01T00:00:00Z", "metadata": {"url": "https://m.org", "extraction_info": {"found_math": True}}},
    ),
    "algebraic-stack": (
        {"text": "Words.", "meta": {"hexsha": "ab12", "lang": "Lean", "ext": "lean", "size": 6}},
        {"metadata": {"lang": "Lean", "ext": "lean"}},
    ),
    "wiki": (
        {"id": "5", "url": "https://en.wikipedia.org/wiki/W", "title": "W", "text": "Words."},
        {"id": "5", "metadata": {"title": "W"}},
    ),
}  # fmt: skip


def documents(tmp_path: Path, name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`records` through the source's own declaration."""
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    file = RawFile("in.jsonl", str(path), path.stat().st_size, sha256_of(path))
    (unit,) = read.units(name, [file], load_source(name).fields)
    ((record,), _) = execute(str(tmp_path / "store"), read.STAGE.function, [unit])
    assert record.counts["failed"] == {}
    return pq.read_table(Store(tmp_path / "store").path(record.output("part-00000.parquet").path)).to_pylist()


@pytest.mark.parametrize("name", UPSTREAM)
def test_an_upstream_row_becomes_a_document(tmp_path: Path, name: str) -> None:
    row, expected = UPSTREAM[name]
    (document,) = documents(tmp_path, name, [row])
    metadata = json.loads(document.pop("metadata"))
    assert document["text"] == "Words." and document["source"] == name and document["id"]
    for field, value in expected.pop("metadata").items():
        assert metadata[field] == value
    for field, value in expected.items():
        assert document[field] == value


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("mixes/sources").glob("*.yaml")) or ["missing"])
def test_a_dolma_document_keeps_its_fields(tmp_path: Path, name: str) -> None:
    row = {**DOLMA, "version": "v0", "attributes": {}, "metadata": {"title": "T"}}
    (document,) = documents(tmp_path, name, [row])
    for field in ("id", "text", "added", "created"):
        assert document[field] == DOLMA[field]
    assert json.loads(document["metadata"])["title"] == "T"


def test_a_record_without_an_id_gets_one_from_its_place(tmp_path: Path) -> None:
    found = documents(tmp_path, "dclm", [{"text": "a"}, {"text": "b"}, {"text": "c", "id": 7}])
    assert [document["id"] for document in found] == ["in.jsonl#0", "in.jsonl#1", "7"]


@pytest.mark.parametrize(("stars", "expected"), [(24, 24), ("24", 24), (None, 0), ("None", 0), (24.0, 24), (0, 0)])
@pytest.mark.parametrize("dolma", [True, False])
def test_star_counts_are_read_in_every_form(tmp_path: Path, stars: Any, expected: int, dolma: bool) -> None:
    row = {**DOLMA, "metadata": {"max_stars_count": stars}} if dolma else {"content": "Words.", "max_stars_count": stars}
    path = tmp_path / "store"
    documents(tmp_path, "starcoder", [row])
    table = pq.read_table(next(path.glob("documents/starcoder/*/part-00000.parquet")))
    assert TAGGERS["stars"].function(Batch(table))["stars"].tolist() == [expected]
