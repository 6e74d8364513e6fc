"""The catalog's views of what was found about documents: attributes, edits, duplicates, clusters, matches with evaluations.

In: the units that each source of the store rests on, as the build manifests list them. Out: views over the units' own tables, in which
a part's number and a row in it have become a source and a document. Nothing is copied. A query reads the rows.parquet of the parts
that it is about, some 30 bytes per document, besides the table itself.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb

from pipeline.scopes import KEYS
from pipeline.store import Store
from pipeline.unit import Json, Record

Sources = Mapping[str, Mapping[str, Json]]

# View → the units' file, its columns beside part and row, and where they come from.
VIEWS = {
    "duplicates": ("duplicates.parquet", "step VARCHAR, duplicate_of VARCHAR, duplicate_of_source VARCHAR, reason VARCHAR"),
    "clusters": ("clusters.parquet", "cluster BIGINT, size BIGINT, keeps BOOLEAN"),
    "edits": ("spans.parquet", 'start BIGINT, "end" BIGINT, replacement VARCHAR, "by" VARCHAR'),
    "matches": ("matches.parquet", "evaluation VARCHAR, item VARCHAR, matched BIGINT, total BIGINT, share DOUBLE"),
}


def write(connection: duckdb.DuckDBPyConnection, store: Store, sources: Sources) -> None:
    """Create the views in the connection's catalog."""
    files = [(view, *place) for view, (name, _) in VIEWS.items() for place in _files(store, sources, name)]
    connection.execute("CREATE TABLE _files (view VARCHAR, source VARCHAR, part BIGINT, rows VARCHAR, step VARCHAR, path VARCHAR)")
    if files:
        connection.executemany("INSERT INTO _files VALUES (?, ?, ?, ?, ?, ?)", files)
    for view, (_, columns) in VIEWS.items():
        connection.execute(f"CREATE VIEW {view} AS {_select(connection, view, columns)}")
    for name, source in sources.items():
        select = attributes(store, source)
        if select:
            connection.execute(f"CREATE VIEW {attributes_view(name)} AS {select}")


def attributes_view(source: str) -> str:
    """The name of the view with a source's attributes: letters, digits and _."""
    return "attributes_" + "".join(c if c.isalnum() else "_" for c in source)


def attributes(store: Store, source: Mapping[str, Json]) -> str:
    """A query: per document of a source id, file, row, bytes, tokens, inner_eos and all attributes, in the order of its parts."""
    units, taggers = source["units"], source.get("taggers", [])
    folders = units.get("attributes", [])
    if not taggers or not folders:
        return ""
    rows = [store.path(folder) / "rows.parquet" for folder in units["tokens"]]
    names = [[store.path(folder) / "attributes.parquet" for folder in folders[i :: len(taggers)]] for i in range(len(taggers))]
    columns = "SELECT id, file, row, bytes, tokens, inner_eos"
    # Row-aligned tables of the same parts in the same order: DuckDB reads lists of files in order, so places agree.
    joined = " POSITIONAL JOIN ".join(f"read_parquet({quoted_list(files)})" for files in names)
    return f"SELECT * FROM ({columns} FROM read_parquet({quoted_list(rows)})) POSITIONAL JOIN {joined}"


def _files(store: Store, sources: Sources, name: str) -> Iterator[tuple[str, int, str, str, str]]:
    """(source, number in the file's `part` column or -1 where it has none, rows.parquet, the dedupe step if it is one, path)"""
    for source, entry in sources.items():
        units, first = entry["units"], entry.get("first_part", 0)
        width = len(entry.get("taggers", []))
        shared = [f for stage in ("duplicates", "clusters", "paragraphs") for f in units.get(stage, [])]
        steps = defaultdict(str, {folder: _step(store.record(folder)) for folder in shared})
        for part, tokens in enumerate(units["tokens"]):
            rows = str(store.path(tokens) / "rows.parquet")
            own = [units[stage][part] for stage in ("edited", "prepared") if units.get(stage)][:1]
            if name == "matches.parquet":
                own = units["attributes"][part * width : (part + 1) * width]
            for folder, number in [(f, -1) for f in own] + [(f, first + part) for f in shared]:
                path = store.path(folder) / name
                if path.exists():
                    yield source, number, rows, steps[folder], str(path)


def _step(record: Record) -> str:
    """The method of deduplication that a unit is a step of."""
    methods = {column: method for method, column in KEYS.items()}
    params = record.unit.params
    return params["settings"]["method"] if "settings" in params else methods[params["column"]] if "column" in params else "near"


def _select(connection: duckdb.DuckDBPyConnection, view: str, columns: str) -> str:
    """The view's query: a document's source, id, file and row, and what the units' tables say of it."""
    typed = [column.split() for column in columns.split(", ")]
    paths, rows = (
        [path for (path,) in connection.execute(f"SELECT DISTINCT {name} FROM _files WHERE view = ? ORDER BY ALL", [view]).fetchall()]
        for name in ("path", "rows")
    )
    if not paths:
        empty = ", ".join(
            f"NULL::{kind} AS {name}" for name, kind in [*((n, "VARCHAR") for n in ("source", "id", "file")), ("row", "BIGINT")]
        )
        return f"SELECT {empty}, {', '.join(f'NULL::{kind} AS {name}' for name, kind in typed)} WHERE false"
    found = f"read_parquet({quoted_list(paths)}, filename = 'path', union_by_name = true)"
    present = {name for (name, *_) in connection.execute(f"DESCRIBE SELECT * FROM {found}").fetchall()}
    listed = [
        "files.step" if name == "step" else f"found.{name}" if name.strip('"') in present else f"NULL::{kind} AS {name}"
        for name, kind in typed
    ]
    return (
        f"SELECT files.source, documents.id, documents.file, documents.row, {', '.join(listed)} FROM {found} AS found "
        f"JOIN _files AS files ON files.view = '{view}' AND files.path = found.path"
        f"{' AND files.part = found.part' if 'part' in present else ''} "
        f"JOIN read_parquet({quoted_list(rows)}, filename = 'rows', file_row_number = true) AS documents "
        "ON documents.rows = files.rows AND documents.file_row_number = found.row"
    )


def quoted_list(paths: list[Path] | list[str]) -> str:
    """Paths as a list in SQL."""
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"
