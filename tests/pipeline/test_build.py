"""From raw files to a lock-file: the books, the bytes, what is rebuilt and what is not."""

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipeline import catalog, engine
from pipeline.build import Request, build
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import Lock
from pipeline.progress import Progress
from pipeline.reader import MixReader
from pipeline.store import Store
from pipeline.verify import verify
from tests.pipeline.corpus import EOS, documents, write_corpus, write_recipes


def request_for(store: Path, corpus: Path, recipes: Path, **changes) -> Request:
    fields = {"workers": 1, "shard_tokens": 20_000, "scale": True, **changes}
    return Request("small", store, str(corpus), recipes=recipes, **fields)


def contents(store: Path) -> dict[str, str]:
    """Every file that a build leaves, by sha256, but for times (runs/, the catalog's tables of them) and the lock."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] not in ("runs", "catalog.duckdb", ".lock")
    }


def rows(store: Store, query: str) -> list[tuple]:
    with duckdb.connect(str(catalog.path(store)), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_the_catalog_counts_what_a_plain_recount_of_the_raw_records_counts(built: Store) -> None:
    dropped = dict(rows(built, "SELECT (source, dropped_by), count(*) FROM documents WHERE NOT kept GROUP BY ALL"))
    dropped = {tuple(key.values()) if isinstance(key, dict) else tuple(key): count for key, count in dropped.items()}
    expected: Counter[tuple[str, str]] = Counter()
    seen: set[str] = set()
    for source, records in documents().items():
        survivors = []
        for record in records:
            text = record.get("text", record.get("content"))
            stars = record.get("max_stars_count") or 0
            if not text.strip():
                expected[source, "empty"] += 1
            elif source == "code" and stars < 2:
                expected[source, "few_stars"] += 1
            elif source == "wiki" and len(text.replace(".", " . ").split()) < 25:
                expected[source, "too_short"] += 1
            elif " abc" * 64 in text:
                expected[source, "repetition"] += 1
            else:
                survivors.append(" ".join(text.lower().split()))
        for text in survivors:
            if text in seen:
                expected[source, "exact_duplicate"] += 1
            seen.add(text)
    assert dropped == dict(expected)


def test_the_books_of_every_source_balance(built: Store) -> None:
    for source, records in documents().items():
        (read,) = rows(built, f"SELECT documents FROM funnel WHERE source = '{source}' AND stage = 'read' AND reason = 'read'")
        (others,) = rows(built, f"SELECT sum(documents) FROM funnel WHERE source = '{source}' AND stage <> 'read'")
        (listed,) = rows(built, f"SELECT count(*) FROM documents WHERE source = '{source}'")
        assert read == others == listed == (len(records),)


def test_the_token_ids_of_every_kept_document_are_those_of_hugging_face_tokenizers(built: Store, recipes: Path) -> None:
    reference = Tokenizer.from_file(str(recipes / "tiny.json"))
    eos = reference.token_to_id(EOS)
    texts = {
        (source, record.get("id") or f"#{row}"): record.get("text", record.get("content"))
        for source, records in documents().items()
        for row, record in enumerate(records)
    }
    checked = 0
    for source, identity, shard, start, tokens in rows(
        built, "SELECT source, id, shard, start, tokens FROM documents WHERE kept AND tokens < 20000"
    ):
        if source == "web":  # shard_1 holds records 150 onwards
            name, row = identity.split("#")
            key = (source, f"#{int(row) + 150 * name.startswith('shard_1')}")
        else:
            key = (source, identity)
        ids = reference.encode(texts[key].strip(), add_special_tokens=False).ids
        expected = ids if ids[-1] == eos else [*ids, eos]
        found = np.fromfile(built.path(shard), "<u2")[start : start + tokens]
        assert found.tolist() == expected
        checked += 1
    assert checked > 200


def test_the_ids_derived_for_records_without_one_are_unique(built: Store) -> None:
    assert rows(built, "SELECT count(*), count(DISTINCT id) FROM documents WHERE source = 'web'") == [(240, 240)]


def test_upstream_fields_go_where_the_source_says(built: Store) -> None:
    part = next(built.path("documents/code").glob("*/part-00000.parquet"))
    first = pq.read_table(part).slice(4, 1).to_pylist()[0]
    assert first["id"] == "repo-4" and first["row"] == 4 and first["file"] == "train-00000.parquet"
    assert json.loads(first["metadata"]) == {"max_stars_count": 24}
    wiki = pq.read_table(next(built.path("documents/wiki").glob("*/part-00000.parquet"))).slice(7, 1).to_pylist()[0]
    assert json.loads(wiki["metadata"])["revid"] == 7 and wiki["created"].startswith("2023")


def test_validation_documents_never_enter_the_mix(built: Store) -> None:
    held_out = {row[0] for row in rows(built, "SELECT id FROM documents WHERE split = 'validation'")}
    assert len(held_out) >= 3
    reader = MixReader(built.path("mixes/small.lock.json"), built.root)
    for index in range(len(reader)):
        assert not held_out & {document.id for document in reader.documents(index)}


def test_every_instance_of_the_mix_is_a_piece_of_a_shard(built: Store) -> None:
    reader = MixReader(built.path("mixes/small.lock.json"), built.root)
    everything = {
        source: b"".join(np.fromfile(path, "<u2").tobytes() for path in built.path(f"shards/{source}").glob("*/train-*.bin"))
        for source in ("web", "code", "wiki")
    }
    for index in range(len(reader)):
        instance = reader[index]
        assert instance.tokens.astype("<u2").tobytes() in everything[instance.source]


def test_a_second_build_computes_nothing_and_does_not_start_ray(built: Store, corpus: Path, recipes: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a unit was computed again")

    monkeypatch.setattr(engine, "execute", refuse)
    monkeypatch.setattr(engine.Engine, "_start_ray", refuse)
    before = contents(built.root)
    build(request_for(built.root, corpus, recipes), Progress())
    assert contents(built.root) == before
    assert rows(built, "SELECT sum(units), sum(reused) FROM runs")[0] == rows(built, "SELECT sum(reused), sum(units) FROM runs")[0]


def test_one_and_four_workers_write_the_same_bytes(
    tmp_path: Path, built: Store, corpus: Path, recipes: Path, ray_address: str, monkeypatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    monkeypatch.setattr(engine, "INLINE_BYTES", 0)
    build(request_for(tmp_path / "store", corpus, recipes, workers=4), Progress())
    ours, theirs = contents(tmp_path / "store"), contents(built.root)
    assert ours == theirs


def test_a_changed_threshold_reruns_only_what_depends_on_it(tmp_path: Path, built: Store, corpus: Path) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(built.root, store.root)
    before = contents(store.root)
    changed = write_recipes(tmp_path / "recipes", drop={"long": "words > 250"})
    build(request_for(store.root, corpus, changed), Progress())
    fresh = {path.split("/")[0] for path in set(contents(store.root)) - set(before)}
    assert fresh <= {"filtered", "holdout", "duplicates", "decisions", "shards"} and "filtered" in fresh
    assert rows(store, "SELECT count(*) FROM documents WHERE dropped_by = 'long'") > [(0,)]


def test_a_mix_that_shares_sources_with_another_reuses_their_shards(tmp_path: Path, built: Store, corpus: Path) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(built.root, store.root)
    recipes = write_recipes(tmp_path / "recipes")
    small = (recipes / "small.yaml").read_text()
    other = small.replace("name: small", "name: other").replace("seed: 7", "seed: 8").replace("weight: 80", "weight: 20")
    (recipes / "other.yaml").write_text(other)
    before = contents(store.root)
    build(Request("other", store.root, str(corpus), workers=1, recipes=recipes, shard_tokens=20_000, scale=True), Progress())
    assert set(contents(store.root)) - set(before) == {"mixes/other.lock.json", "mixes/other.build.json"}
    assert rows(store, "SELECT count(DISTINCT mix) FROM mixes") == [(2,)]
    assert rows(store, "SELECT count(*) FROM documents WHERE source = 'web'") == [(240,)]


def test_a_literal_end_of_document_token_is_tokenized_as_hugging_face_does_and_said(
    tmp_path: Path, corpus: Path, recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(request_for(tmp_path / "store", corpus, recipes), Progress())
    assert "web: the text of 1 documents spells the end-of-document token" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("victim", ["shards", "tokens", "documents"])
def test_a_truncated_output_is_made_again(tmp_path: Path, built: Store, corpus: Path, recipes: Path, victim: str) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(built.root, store.root)
    before = contents(store.root)
    file = max(store.path(victim).rglob("*.*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-7])
    build(request_for(store.root, corpus, recipes), Progress())
    assert contents(store.root) == before


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_the_store_holds_the_tokenizer_that_a_lock_names(tmp_path: Path, built: Store, corpus: Path, recipes: Path, damage: str) -> None:
    lock = Lock.read(built.path("mixes/small.lock.json"))
    kept = f"tokenizers/{lock.tokenizer.sha256}.json"
    whole = (recipes / "tiny.json").read_bytes()
    assert built.path(kept).read_bytes() == whole
    store = Store(tmp_path / "store")
    shutil.copytree(built.root, store.root)
    if damage == "missing":
        shutil.rmtree(store.path("tokenizers"))  # as a store built before it was kept
    else:
        store.path(kept).write_bytes(whole[:-9])
    build(request_for(store.root, corpus, recipes), Progress())
    assert store.path(kept).read_bytes() == whole
    assert contents(store.root) == contents(built.root)


def test_a_source_without_files_is_named(tmp_path: Path, corpus: Path, recipes: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    shutil.rmtree(tmp_path / "corpus" / "code")
    with pytest.raises(ConfigError, match=r"no files for code.*SOURCES=web,wiki"):
        build(request_for(tmp_path / "store", tmp_path / "corpus", recipes), Progress())
    lock = build(request_for(tmp_path / "store", tmp_path / "corpus", recipes, sources=("web", "wiki")), Progress())
    assert lock.instances > 0


def test_bad_records_stop_the_run_unless_the_source_grants_a_budget(tmp_path: Path, recipes: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "web" / "bad.jsonl").write_bytes(
        b'{"text": "fine"}\n{"text": 7}\nnot json\n{"title": "no text"}\n\xff\xfe{"text": "x"}\n[1]\n'
    )
    with pytest.raises(PipelineError, match=r"web: 5 of 246 records.*allows 0(?s:.*)bad.jsonl row 1: wrong_type(?s:.*)failure_budget"):
        build(request_for(tmp_path / "store", corpus, recipes), Progress())
    granted = write_recipes(tmp_path / "granted", budget="5")
    build(request_for(tmp_path / "store", corpus, granted), Progress())
    store = Store(tmp_path / "store")
    failed = dict(rows(store, "SELECT reason, count(*) FROM failures GROUP BY reason"))
    assert failed == {"wrong_type": 1, "broken_json": 1, "missing_text": 1, "invalid_utf8": 1, "not_an_object": 1}
    assert rows(store, "SELECT sum(documents) FROM funnel WHERE reason LIKE 'failed: %'") == [(5,)]


def test_a_document_longer_than_a_shard_spans_several(tmp_path: Path, corpus: Path, recipes: Path) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    words = " ".join(f"w{i}" for i in range(30_000))
    (tmp_path / "corpus" / "web" / "long.jsonl").write_text(json.dumps({"id": "long", "text": words}) + "\n")
    store = Store(tmp_path / "store")
    build(request_for(store.root, tmp_path / "corpus", recipes), Progress())
    assert verify(store, "small", 1, Progress()) == []
    ((shard, start, tokens),) = rows(store, "SELECT shard, start, tokens FROM documents WHERE id = 'long'")
    pieces, name = [], Path(shard)
    while sum(map(len, pieces)) < tokens:
        pieces.append(np.fromfile(store.path(str(name)), "<u2")[start if not pieces else 0 :])
        assert len(pieces[-1]) <= 20_000
        name = name.with_name(f"train-{int(name.stem.split('-')[1]) + 1:05d}.bin")
    reference = Tokenizer.from_file(str(recipes / "tiny.json"))
    expected = [*reference.encode(words).ids, reference.token_to_id(EOS)]
    assert len(pieces) > 2 and np.concatenate(pieces)[:tokens].tolist() == expected


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path, corpus: Path, recipes: Path, monkeypatch) -> None:
    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.stages.tokenize.write_table", full)
    with pytest.raises(PipelineError, match=r"no space left under .*choose another STORE"):
        build(request_for(tmp_path / "store", corpus, recipes), Progress())
    monkeypatch.undo()
    build(request_for(tmp_path / "store", corpus, recipes), Progress())
    assert not list((tmp_path / "store").rglob(".tmp-*"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage"])
def test_a_damaged_archive_stops_the_run_and_is_named(tmp_path: Path, recipes: Path, damage: str) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    file = corpus / "web" / "shard_1.jsonl.zst"
    whole = file.read_bytes()
    file.write_bytes({"truncated": whole[: len(whole) * 2 // 3], "empty": b"", "garbage": b"not zstd" * 100}[damage])
    with pytest.raises(PipelineError, match=r"shard_1\.jsonl\.zst"):
        build(request_for(tmp_path / "store", corpus, recipes), Progress())
    file.write_bytes(whole)
    build(request_for(tmp_path / "store", corpus, recipes), Progress())
    assert verify(Store(tmp_path / "store"), "small", 1, Progress()) == []


@pytest.mark.slow
def test_one_document_of_50_megabytes_stays_within_a_workers_memory(tmp_path: Path, recipes: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    words = " ".join(f"{i * 7919 % 10**6:x}" for i in range(9_000_000))
    (corpus / "web" / "huge.jsonl").write_text(json.dumps({"id": "huge", "text": words}) + "\n")
    command = ["--mix", "small", "--data", corpus, "--store", tmp_path / "store", "--recipes", recipes, "--scale", "--workers", "1"]
    subprocess.run([sys.executable, "-m", "pipeline", "mix", *map(str, command)], check=True)
    store = Store(tmp_path / "store")
    ((size, kept),) = rows(store, "SELECT bytes, kept FROM documents WHERE id = 'huge'")
    assert size == len(words) > 50_000_000 and kept
    ((peak,),) = rows(store, "SELECT max(peak_rss_mb) FROM runs")
    assert peak < 1500


@pytest.mark.slow
def test_a_really_full_disk(tmp_path: Path, corpus: Path, recipes: Path) -> None:
    """A tmpfs of 300 kB in a mount namespace of its own."""
    store = tmp_path / "store"
    store.mkdir()
    command = [sys.executable, "-m", "pipeline", "mix", "--mix", "small", "--data", str(corpus), "--store", str(store)]
    command += ["--recipes", str(recipes), "--scale", "--workers", "1"]
    inside = f"mount -t tmpfs -o size=300k none {store} && {shlex.join(command)}"
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(store)], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount in a namespace of its own")
    result = subprocess.run(["unshare", "-rm", "sh", "-c", inside], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "no space left under" in result.stderr and "choose another STORE" in result.stderr
    assert "Traceback" not in result.stderr
