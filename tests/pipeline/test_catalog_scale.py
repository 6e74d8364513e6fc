"""The catalog of a large mix: what it says is right, what it costs does not grow with what it need not read."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import catalog, stats
from pipeline.store import Store
from pipeline.unit import sealed, unsealed
from tools import large, pretend

SHAPE = pretend.Shape(files=4, documents=1_000)
PARTS = SHAPE.files * SHAPE.parts
DOCUMENTS = PARTS * SHAPE.documents


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix of 250 units, built with its computing left out."""
    folder = tmp_path_factory.mktemp("made")
    pretend.make(folder, SHAPE)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copytree(made / "store", tmp_path / "store", copy_function=lambda source, target: Path(target).hardlink_to(source))
    yield Store(tmp_path / "store")


def shown(store: Store) -> str:
    out = io.StringIO()
    stats.show(store, "pretended", Console(file=out, width=200))
    return out.getvalue()


def test_every_document_unit_and_shard_is_in_it(store: Store) -> None:
    catalog.write(store, "pretended", ())
    with stats.open_catalog(store) as connection:

        def ask(query: str) -> list[tuple]:
            return connection.execute(query).fetchall()

        assert ask("SELECT count(*), count(DISTINCT source) FROM documents") == [(DOCUMENTS, 2)]
        assert ask("SELECT sum(documents) FROM funnel WHERE reason = 'read'") == [(DOCUMENTS,)]
        kept = "SELECT shard, sum(tokens) FROM documents WHERE kept GROUP BY ALL"
        assert ask(f"SELECT count(*) FROM ({kept}) JOIN shards ON path = shard") == ask("SELECT count(*) FROM shards")
        assert ask("SELECT count(*) FROM edits WHERE source = 'letters'") == [(SHAPE.parts * SHAPE.documents // 100,)]
        units = dict(ask("SELECT stage, sum(units) FROM runs GROUP BY stage"))
        assert (units["read"], units["tokenize"], units["dedupe"]) == (SHAPE.files, PARTS, 2)
        # Each unit of reading was journalled with a quarter of a second.
        assert ask("SELECT sum(seconds) FROM runs WHERE stage = 'read'") == [(SHAPE.files / 4,)]


def test_it_is_written_without_reading_what_it_only_lists(store: Store) -> None:
    """One file of each list has to be there, for the names of its columns."""
    catalog.write(store, "pretended", ())
    before = shown(store)
    for name in ("ledger.parquet", "failures.parquet", "rows.parquet", "attributes.parquet", "train-00000.json", "spans.parquet"):
        for source in ("pages", "letters"):
            files = sorted(store.root.glob(f"*/{source}/*/{name}"))
            listed = json.loads(store.read("mixes/pretended.build.json"))["sources"][source]["units"]
            firsts = {f"{folder}/{name}" for folders in listed.values() for folder in (*folders[:4], *sorted(folders)[:1])}
            for file in files:
                if file.relative_to(store.root).as_posix() not in firsts:
                    file.unlink()  # a link to what others are links to
                    file.write_bytes(b"not Parquet")
    catalog.write(store, "pretended", ())
    assert shown(store) == before


def test_stats_read_no_table_of_a_unit(store: Store) -> None:
    catalog.write(store, "pretended", ())
    before = shown(store)
    for stage in ("documents", "tokens", "attributes", "filtered", "decisions", "shards", "edited", "duplicates"):
        shutil.rmtree(store.root / stage)
    assert shown(store) == before


def test_of_mixes_that_share_a_source_the_last_one_speaks(store: Store) -> None:
    manifest = unsealed(store.read("mixes/pretended.build.json"))
    lock = json.loads(store.read("mixes/pretended.lock.json"))
    for name, order in (("earlier", 1), ("a-later-one", 2)):
        changed = {**manifest, "mix": name, "order": order}
        changed["sources"] = {"pages": {**manifest["sources"]["pages"], "title": name}}
        store.write(f"mixes/{name}.build.json", sealed(changed))
        store.write(f"mixes/{name}.lock.json", json.dumps({**lock, "mix": name}).encode())
    titles = {mix: catalog.sources(store, mix)["pages"]["title"] for mix in (None, "earlier", "pretended")}
    assert titles == {None: "a-later-one", "earlier": "earlier", "pretended": "made up"}
    assert catalog.next_order(store, "new") == 3 and catalog.next_order(store, "a-later-one") == 2


@pytest.mark.slow
def test_a_billion_documents_in_100_000_units_are_asked_about_in_seconds(tmp_path: Path) -> None:
    found = large.catalog(tmp_path / "units", large.UNITS, large.DOCUMENTS)
    assert found["units"] >= 100_000 and found["documents"] >= 1_000_000_000
    for name, cpu_seconds, megabytes in (("stats", 5, 400), ("count", 8, 400), ("group", 40, 600), ("mix", 60, 1_200)):
        cost = found[name]
        assert cost["cpu_seconds"] < cpu_seconds and cost["largest_mb"] < megabytes, (name, cost)


@pytest.mark.slow
def test_a_recipe_over_30_000_files_resolves_in_seconds(tmp_path: Path) -> None:
    assert large.recipe(tmp_path / "files", 30_000)["seconds"] < 20
