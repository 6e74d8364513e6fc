"""Filters, edits, every way of deduplication and decontamination in one build: what is in the shards, and whether the books balance."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipeline import catalog, edits
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.preview import preview, rules_for
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.verify import verify
from tests.pipeline.corpus import EOS
from tests.pipeline.curated import FOOTER, MAIL, made, records, write_all


def rows(store: Store, query: str) -> list[tuple]:
    with duckdb.connect(str(catalog.path(store)), read_only=True) as connection:
        return connection.execute(query).fetchall()


def shard_texts(store: Store, recipes: Path) -> dict[str, str]:
    """What the shards hold of each document, decoded."""
    tokenizer = Tokenizer.from_file(str(recipes / "tiny.json"))
    found = {}
    for source in Lock.read(store.path("mixes/curated.lock.json")).sources:
        for shard in source.shards:
            ids = np.memmap(store.path(shard.path), "<u2", "r")
            for row in pq.read_table(store.path(shard.path).with_suffix(".parquet")).to_pylist():
                found[row["id"]] = tokenizer.decode(ids[row["start"] : row["start"] + row["length"]].tolist(), skip_special_tokens=False)
    return found


def test_each_document_is_dropped_by_the_rule_that_was_meant_for_it(curated: Store) -> None:
    dropped = dict(rows(curated, "SELECT id, dropped_by FROM documents WHERE NOT kept"))
    assert dropped == {
        "web-011": "url_duplicate",
        "web-021": "exact_duplicate",
        "web-031": "near_duplicate",
        "web-060": "own/contaminated",
        "web-061": "own/short",
    }


def test_the_shards_hold_the_edited_texts(curated: Store, curated_home: Path) -> None:
    found = shard_texts(curated, curated_home / "recipes")
    for source in records().values():
        for record in source:
            if record["id"] not in found:
                continue
            expected = record["text"].replace(MAIL, "|||EMAIL_ADDRESS|||")
            expected = re.sub(r"\n{3,}", "\n\n", re.sub(r"\s*http://192\S+", "", expected))
            if record["id"] in ("web-050", "web-090"):
                expected = expected.replace(FOOTER + "\n", "")
            assert found[record["id"]] == expected.strip() + EOS, record["id"]


def test_the_catalog_says_what_stands_where_and_why(curated: Store) -> None:
    spans = rows(curated, 'SELECT source, id, "by", replacement FROM edits ORDER BY id, start')
    assert Counter((id, by) for _, id, by, _ in spans) == {
        ("web-040", "email"): 1, ("web-045", "ip_address"): 1, ("web-045", "newlines"): 1, ("web-050", "paragraphs"): 1,
        ("web-090", "paragraphs"): 1,
    }  # fmt: skip
    assert ("web", "web-040", "email", "|||EMAIL_ADDRESS|||") in spans
    assert rows(curated, "SELECT source, id, evaluation, item FROM matches") == [("web", "web-060", "astronomy", "planets")]
    twins = rows(curated, "SELECT id, keeps, size FROM clusters ORDER BY id")
    assert twins == [("web-030", True, 2), ("web-031", False, 2)]
    assert rows(curated, "SELECT id, step, duplicate_of FROM duplicates ORDER BY id") == [
        ("web-011", "url", "web-010"), ("web-021", "exact", "web-020"), ("web-031", "near", "web-030"),
    ]  # fmt: skip
    [(characters,)] = rows(curated, "SELECT characters FROM attributes_web WHERE id = 'web-061'")
    assert characters == len("few words")


def test_a_document_with_its_edits_applied_is_what_was_tokenized(curated: Store, curated_home: Path) -> None:
    found = shard_texts(curated, curated_home / "recipes")
    for source in ("web", "forum"):
        units = catalog.sources(curated)[source]["units"]
        documents = [part for folder in units["documents"] for part in curated.record(folder).named("part-", ".parquet")]
        for part, folder in zip(documents, units["edited"], strict=True):
            for group in edits.groups(curated.path(part.path), ["id", "text"], curated.path(folder) / "spans.parquet"):
                for identity, edited in zip(group.documents["id"].to_pylist(), group.documents["text"].to_pylist(), strict=True):
                    assert identity not in found or found[identity] == edited.strip() + EOS


def test_the_books_balance_with_text_removed(curated: Store) -> None:
    assert verify(curated, "curated", 1, Progress()) == []
    for name, found in records().items():
        lines = {(stage, reason): (documents, size, tokens) for stage, reason, documents, size, tokens in rows(
            curated, f"SELECT stage, reason, documents, bytes, tokens FROM funnel WHERE source = '{name}'")}  # fmt: skip
        total = lines.pop(("read", "read"))
        assert total[:2] == (len(found), sum(len(record["text"].encode()) for record in found))
        assert total == tuple(map(sum, zip(*lines.values(), strict=True)))
    assert rows(curated, "SELECT bytes FROM funnel WHERE stage = 'prepare'") == [(len(" http://192.168.0.1:80/x") + 3,)]
    [(size, tokens)] = rows(curated, "SELECT sum(bytes), sum(tokens) FROM funnel WHERE stage = 'edit'")
    assert size == 2 * len(FOOTER + "\n") + len(MAIL) - len("|||EMAIL_ADDRESS|||") and tokens > 0


def test_a_preview_says_what_a_build_with_the_rule_drops(curated: Store, curated_home: Path) -> None:
    rules = rules_for("web", "words < 10 OR words > 190 OR fineweb_short_line_share > 0.9", [], curated_home / "recipes")
    before = set(curated.root.rglob("*.parquet"))
    found = preview(curated, "web", rules, 1, Progress(), examples=2)
    assert {path.parts[len(curated.root.parts)] for path in curated.root.rglob("*.parquet") if path not in before} == {"attributes"}
    lengths = {record["id"]: len(record["text"].split()) for record in records()["web"]}
    assert found.total[0] == 120 and found.kept[0] == 115
    assert [line.holds[0] for line in found.lines[:2]] == [sum(n < 10 for n in lengths.values()), sum(n > 190 for n in lengths.values())]
    assert [(line.holds[0], line.now[0]) for line in found.lines[:1]] == [(1, 0)]
    for example in found.examples:
        if "190" in example.reason:
            assert (lengths[example.id] > 190) == example.dropped
    nearest = sorted(lengths.values(), key=lambda n: (n <= 190, abs(n - 190)))
    dropped = [example.values["words"] for example in found.examples if "190" in example.reason and example.dropped]
    assert sorted(dropped) == sorted(nearest[: len(dropped)])


def test_a_preview_of_what_cannot_be_decided_is_refused(curated_home: Path, curated: Store) -> None:
    with pytest.raises(ConfigError, match="unknown column wrods.*did you mean words"):
        rules_for("web", "wrods < 3", [], curated_home / "recipes")
    with pytest.raises(ConfigError, match="nothing to preview"):
        rules_for("web", "", [], curated_home / "recipes")


def test_any_number_of_workers_writes_the_same_bytes(
    curated_home: Path, curated: Store, ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    monkeypatch.setattr("pipeline.engine.INLINE_BYTES", 0)
    other = made(curated_home, "other", workers=4)

    def contents(store: Store) -> dict[str, str]:
        files = (path for path in store.root.rglob("*") if path.is_file())
        names = {path: str(path.relative_to(store.root)) for path in files}
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path, name in names.items()
            if not name.startswith(("runs/", "catalog.duckdb", ".lock"))
        }

    theirs, ours = contents(other), contents(curated)
    assert theirs == {name: ours[name] for name in theirs} and len(theirs) > 50


def test_sources_deduplicated_together_lose_to_the_lower_one(tmp_path: Path) -> None:
    store = made(write_all(tmp_path, across=True))
    assert rows(store, "SELECT id, dropped_by FROM documents WHERE NOT kept AND source = 'forum'") == [
        ("forum-007", "repeated_paragraphs"), ("forum-008", "exact_duplicate"),
    ]  # fmt: skip
    assert rows(store, "SELECT source, id, duplicate_of_source, duplicate_of FROM duplicates WHERE id = 'forum-008'") == [
        ("forum", "forum-008", "web", "web-033")
    ]
    assert verify(store, "curated", 1, Progress()) == []


def test_what_is_already_deduplicated_loses_nothing_more(curated: Store, curated_home: Path, tmp_path: Path) -> None:
    again = write_all(tmp_path)
    found = shard_texts(curated, curated_home / "recipes")
    for name, source in records().items():
        for path in (again / "data" / name).glob("*.jsonl"):
            path.unlink()
        left = [{**record, "text": found[record["id"]].removesuffix(EOS)} for record in source if record["id"] in found]
        (again / "data" / name / "0.jsonl").write_text("".join(json.dumps(record) + "\n" for record in left))
    assert rows(made(again), "SELECT count(*), sum(kept::int) FROM documents") == [(len(found), len(found))]


def test_sources_deduplicated_together_must_take_the_same_steps(tmp_path: Path) -> None:
    home = write_all(tmp_path, across=True)
    recipe = home / "recipes" / "sources" / "forum.yaml"
    recipe.write_text(recipe.read_text().replace("[url, exact, near, paragraphs]", "exact"))
    with pytest.raises(ConfigError, match="web and forum are deduplicated together and state different steps"):
        made(home)


def test_bff_in_shards_that_know_nothing_of_one_another(tmp_path: Path) -> None:
    store = made(write_all(tmp_path, across=True, steps="[{method: bff, shards: 2}]"))
    folders = catalog.sources(store)["web"]["units"]["paragraphs"]
    assert len(folders) == 2
    for folder in folders:
        report = store.record(folder).counts["filter"]
        assert 0 < report["occupancy"] < 0.6 and report["expected_false_positive_rate"] <= 0.011
    # forum-008 is web-033, which lies in another shard.
    assert rows(store, "SELECT id FROM documents WHERE dropped_by = 'repeated_ngrams'") == [("web-031",)]
    found = {(row[0], row[1]) for row in rows(store, 'SELECT id, "by" FROM edits')}
    assert ("web-050", "bff") in found and ("web-005", "bff") not in found


def test_a_tagger_that_fails_is_named_with_source_file_and_row(tmp_path: Path) -> None:
    home = write_all(tmp_path)
    path = home / "data" / "web" / "1.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = json.dumps({**json.loads(lines[3]), "max_stars_count": "many"})
    path.write_text("\n".join(lines) + "\n")
    own = home / "recipes" / "filters" / "own.yaml"
    own.write_text(own.read_text().replace("short: words < 10", "short: words < 10, unpopular: stars < 0"))
    with pytest.raises(
        PipelineError, match="tagger stars failed on web, 1.jsonl row 3: ValueError: could not convert string to float: 'many'"
    ):
        made(home)


def test_attributes_are_typed_columns_of_a_view(curated: Store) -> None:
    with duckdb.connect(str(catalog.path(curated)), read_only=True) as connection:
        types = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE attributes_forum)").fetchall())
    assert (types["contamination_overlap"], types["words"], types["pii_emails"]) == ("DOUBLE", "BIGINT", "BIGINT")
