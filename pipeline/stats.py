"""The tables that `make mix` ends with and `make stats` shows, all of them queries on the catalog."""

from collections.abc import Set

import duckdb
from rich.console import Console
from rich.table import Table

from pipeline import catalog
from pipeline.errors import ConfigError
from pipeline.sql import quoted, quoted_list
from pipeline.store import Store
from pipeline.terminal import cut, visible


def show(store: Store, mix: str, console: Console) -> None:
    """The mix, what was dropped, licences, and what each stage cost."""
    with open_catalog(store) as connection:
        _known(connection, mix)
        show_mix(store, mix, console)
        sources = f"source IN (SELECT source FROM mixes WHERE mix = '{mix}')"
        _print(
            console, connection, "What was read, dropped and kept",
            "SELECT source, stage, reason, documents, bytes / 1e6 AS MB, tokens, "
            "documents / max(documents) FILTER (stage = 'read' AND reason = 'read') OVER (PARTITION BY source) AS share "
            f"FROM funnel WHERE {sources} "
            "ORDER BY list_position(['read', 'prepare', 'tokenize', 'filter', 'dedupe', 'edit', 'kept'], stage), source, reason",
            shares={"share"},
        )  # fmt: skip
        _print(
            console, connection, "What each stage cost (seconds of the workers, MB of text)",
            "SELECT stage, sum(units) AS units, sum(reused) AS reused, sum(seconds) AS seconds, sum(cpu_seconds) AS cpu_seconds, "
            "sum(bytes) / 1e6 AS MB, sum(bytes) / 1e6 / nullif(sum(cpu_seconds), 0) AS \"MB per CPU-s\", "
            f"max(peak_rss_mb) AS \"peak MiB\" FROM runs WHERE {sources} GROUP BY stage HAVING sum(units) > 0 "
            f"ORDER BY list_position({[stage.name for stage in catalog.STAGES]}, stage)",
        )  # fmt: skip
        _print(
            console,
            connection,
            "Where it comes from",
            f"SELECT source, title, licence, files, raw_bytes / 1e6 AS MB FROM sources WHERE {sources}",
        )


def show_mix(store: Store, mix: str, console: Console) -> None:
    """Requested beside obtained."""
    with open_catalog(store) as connection:
        _known(connection, mix)
        _print(
            console, connection, f"The mix {mix}: requested beside obtained",
            "SELECT source, requested_share AS requested, obtained_share AS obtained, repeats, tokens, documents, instances "
            f"FROM mixes WHERE mix = '{mix}' "
            "UNION ALL SELECT 'total', sum(requested_share), sum(obtained_share), NULL, "
            f"sum(tokens), sum(documents), sum(instances) FROM mixes WHERE mix = '{mix}'",
            shares={"requested", "obtained"},
        )  # fmt: skip
        console.print(
            "requested, obtained: shares of the instances · repeats: how often the run reads each instance of the source · tokens,\n"
            "instances: of the whole run · documents: in the source's training shards\n"
        )


def open_catalog(store: Store) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the store's catalog; ConfigError when nothing was built yet.

    It opens files of the store and no others: views are queries, and a catalog may be another's.
    """
    try:
        file = store.local(catalog.FILE)
    except FileNotFoundError:
        file = store.path(catalog.FILE)
    if not file.exists():
        raise ConfigError(f"{store.url(catalog.FILE)} is not there: nothing has been built there yet; run: make mix MIX=olmoe-mix")
    # A database of its own: connections to one file share their settings, and a locked one would lock the next.
    connection = duckdb.connect(":memory:", config={"autoload_known_extensions": "false"})
    store.mount(connection)
    connection.execute(f"ATTACH {quoted(file)} AS catalog (READ_ONLY); USE catalog")
    connection.execute(f"SET allowed_directories = {quoted_list([f'{store.root}/', f'{store.place}/'])}")
    connection.execute("SET enable_external_access = false; SET lock_configuration = true")
    return connection


def _known(connection: duckdb.DuckDBPyConnection, mix: str) -> None:
    mixes = [name for (name,) in connection.execute("SELECT DISTINCT mix FROM mixes ORDER BY mix").fetchall()]
    if mix not in mixes:
        raise ConfigError(f"{mix} has not been built in this store (built: {', '.join(mixes) or 'none'}); run: make mix MIX={mix}")


def _print(console: Console, connection: duckdb.DuckDBPyConnection, title: str, query: str, shares: Set[str] = frozenset()) -> None:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    table = Table(title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False)
    numeric = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(names))]
    for name, right in zip(names, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name not in ("licence", "title"))
    for row in rows:
        table.add_row(*(format_value(value, name in shares) for name, value in zip(names, row, strict=True)))
    console.print(table)
    console.print()


def format_value(value: object, share: bool = False) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return visible(cut(str(value)))
    if share:
        return f"{value:.3%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
