"""A catalog is a file of the store, and its views are queries: whoever wrote them, they read the store and nothing else."""

from pathlib import Path

import duckdb
import pytest

from pipeline import catalog
from pipeline.errors import ConfigError
from pipeline.sql import quoted
from pipeline.stats import open_catalog
from pipeline.store import Store


def planted(place: Path, sql: str) -> Store:
    """A store, in a folder with a quote in its name, whose catalog has this as its view `mixes`."""
    store = Store(place / "the store's")
    store.root.mkdir()
    (store.root / "own.csv").write_text("a\n1\n")
    (place / "secret.csv").write_text("a\nsecret\n")
    with duckdb.connect(str(catalog.path(store))) as connection:
        connection.execute(f"CREATE VIEW mixes AS {sql.format(own=quoted(store.root / 'own.csv'), secret=quoted(place / 'secret.csv'))}")
    return store


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv({secret})",
        "SELECT content FROM read_text({secret})",
        "FROM glob('/etc/*')",
        "FROM read_text({own}) WHERE content = (SELECT content FROM read_text({secret}))",
    ],
)
def test_a_view_of_files_outside_the_store_shows_nothing(tmp_path: Path, sql: str) -> None:
    store = planted(tmp_path, sql)
    with open_catalog(store) as connection, pytest.raises(duckdb.Error, match="disabled by configuration"):
        connection.execute("FROM mixes").fetchall()


@pytest.mark.parametrize(
    "sql",
    ["SET enable_external_access = true", "RESET lock_configuration", "LOAD httpfs", "INSTALL httpfs", "ATTACH '/tmp/x.duckdb'",
     "FROM read_csv('https://127.0.0.1:9/x')", "CREATE TABLE catalog.x AS SELECT 1"],
)  # fmt: skip
def test_nothing_can_be_loaded_switched_on_or_changed(tmp_path: Path, sql: str) -> None:
    with open_catalog(planted(tmp_path, "FROM read_csv({own})")) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql)


def test_views_of_the_store_are_read_by_several_at_a_time(tmp_path: Path) -> None:
    store = planted(tmp_path, "FROM read_csv({own})")
    with open_catalog(store) as one, open_catalog(store) as other:
        assert one.execute("FROM mixes").fetchall() == other.execute("FROM mixes").fetchall() == [(1,)]


def test_a_file_that_is_no_catalog_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing has been built"):
        open_catalog(Store(tmp_path))
