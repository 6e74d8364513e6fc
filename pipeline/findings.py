"""The catalog's views of what was found about documents: attributes, edits, duplicates, clusters, matches with evaluations.

In: the units that each source of the store rests on, as the build manifests list them. Out: views over the units' own tables, in which
a part's number and a row in it have become a source and a document. Nothing is copied. A query reads the rows.parquet of the parts
that it is about, some 30 bytes per document, besides the table itself.

A source that came in a release (release.py) has no such units: a query that could only be about such sources is an error that says so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

import duckdb

from pipeline.release import absent, is_released
from pipeline.scopes import KEYS
from pipeline.sql import create_table, quoted, quoted_list
from pipeline.store import Store
from pipeline.unit import Json, Record

Sources = Mapping[str, Mapping[str, Json]]

DOCUMENT = "source VARCHAR, id VARCHAR, file VARCHAR, row BIGINT"  # the columns that each of these views begins with

# View → the units' file, its columns beside part and row, and where they come from.
VIEWS = {
    "duplicates": ("duplicates.parquet", "step VARCHAR, duplicate_of VARCHAR, duplicate_of_source VARCHAR, reason VARCHAR"),
    "clusters": ("clusters.parquet", "cluster BIGINT, size BIGINT, keeps BOOLEAN"),
    "edits": ("spans.parquet", 'start BIGINT, "end" BIGINT, replacement VARCHAR, "by" VARCHAR'),
    "matches": ("matches.parquet", "evaluation VARCHAR, item VARCHAR, matched BIGINT, total BIGINT, share DOUBLE"),
}


def write(connection: duckdb.DuckDBPyConnection, store: Store, sources: Sources) -> None:
    """Create the views in the connection's catalog."""
    released = {name: source for name, source in sources.items() if is_released(source)}
    built = {name: source for name, source in sources.items() if name not in released}
    for name, source in released.items():
        refusal = _refusal("id VARCHAR", absent({name: source}, "no attributes"))
        connection.execute(f"CREATE VIEW {attributes_view(name)} AS {refusal}")
    listed = cache(store.files)
    files = {view: list(_files(store, listed, built, name)) for view, (name, _) in VIEWS.items()}
    columns = "view VARCHAR, source VARCHAR, part BIGINT, rows VARCHAR, step VARCHAR, path VARCHAR"
    create_table(connection, "_files", columns, [(view, *file[1:]) for view, found in files.items() for file in found])
    for view, (_, columns) in VIEWS.items():
        select = _select(connection, view, columns, files[view]) if built else refused(view, f"{DOCUMENT}, {columns}", released)
        connection.execute(f"CREATE VIEW {view} AS {select}")
    for name, source in built.items():
        select = attributes(store, source)
        if select:
            connection.execute(f"CREATE VIEW {attributes_view(name)} AS {select}")


def refused(view: str, columns: str, released: Sources) -> str:
    """The query of a view that no source of the store can answer: an error that says why. columns: "name TYPE, …"."""
    return _refusal(columns, absent(released, f"no {view}"))


def _refusal(columns: str, message: str) -> str:
    # Not NULLs under a WHERE: a condition on one would be false before the error is met.
    error = f"error({quoted(message)})"
    typed = (column.split() for column in columns.split(", "))
    return f"SELECT {', '.join(f'CAST({error} AS {kind}) AS {name}' for name, kind in typed)} WHERE {error} IS NOT NULL"


def attributes_view(source: str) -> str:
    """The name of the view with a source's attributes: letters, digits and _."""
    return "attributes_" + "".join(c if c.isalnum() else "_" for c in source)


def attributes(store: Store, source: Mapping[str, Json]) -> str:
    """A query: per document of a source id, file, row, bytes, tokens, inner_eos and all attributes, in the order of its parts."""
    units, taggers = source["units"], source.get("taggers", [])
    folders = units.get("attributes", [])
    if not taggers or not folders:
        return ""
    rows = [store.url(f"{folder}/rows.parquet") for folder in units["tokens"]]
    names = [[store.url(f"{folder}/attributes.parquet") for folder in folders[i :: len(taggers)]] for i in range(len(taggers))]
    columns = "SELECT id, file, row, bytes, tokens, inner_eos"
    # Row-aligned tables of the same parts in the same order: DuckDB reads lists of files in order, so places agree.
    joined = " POSITIONAL JOIN ".join(f"read_parquet({quoted_list(files)})" for files in names)
    return f"SELECT * FROM ({columns} FROM read_parquet({quoted_list(rows)})) POSITIONAL JOIN {joined}"


class _File(NamedTuple):
    """A table of a unit, and one of the parts that it is about."""

    stage: str
    source: str
    part: int  # in the table's `part` column, or -1 where it has none
    rows: str  # the part's rows.parquet
    step: str  # of deduplication, or ""
    path: str


def _files(store: Store, listed: Callable[[str], Iterable[str]], sources: Sources, name: str) -> Iterator[_File]:
    for source, entry in sources.items():
        units, first = entry["units"], entry.get("first_part", 0)
        width = len(entry.get("taggers", []))
        shared = [f for stage in ("duplicates", "clusters", "paragraphs") for f in units.get(stage, [])]
        steps = defaultdict(str, {folder: _step(store.record(folder)) for folder in shared})
        tagged = units.get("attributes", [])
        others = tagged if name == "matches.parquet" else units.get("edited") or units.get("prepared") or []
        present = {path for folder in _parents([*shared, *others]) for path in listed(folder)}
        for part, tokens in enumerate(units["tokens"]):
            rows = store.url(f"{tokens}/rows.parquet")
            own = others[part * width : (part + 1) * width] if name == "matches.parquet" else others[part : part + 1]
            for folder, number in [(f, -1) for f in own] + [(f, first + part) for f in shared]:
                if f"{folder}/{name}" in present:
                    yield _File(folder.split("/")[0], source, number, rows, steps[folder], store.url(f"{folder}/{name}"))


def _parents(folders: Iterable[str]) -> set[str]:
    return {folder.rsplit("/", 1)[0] for folder in folders}


def _step(record: Record) -> str:
    """The method of deduplication that a unit is a step of."""
    methods = {column: method for method, column in KEYS.items()}
    params = record.unit.params
    return params["settings"]["method"] if "settings" in params else methods[params["column"]] if "column" in params else "near"


def _select(connection: duckdb.DuckDBPyConnection, view: str, columns: str, files: list[_File]) -> str:
    """The view's query: a document's source, id, file and row, and what the units' tables say of it."""
    typed = [column.split() for column in columns.split(", ")]
    if not files:
        first = [column.split() for column in DOCUMENT.split(", ")]
        return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in (*first, *typed))} WHERE false"
    rows = f"read_parquet({quoted_list(sorted({file.rows for file in files}))}, filename = 'rows', file_row_number = true)"
    selects = []
    for stage in sorted({file.stage for file in files}):
        # All files of a stage have the same columns, so that DuckDB opens the first of them and no other to create the view.
        found = f"read_parquet({quoted_list(sorted({file.path for file in files if file.stage == stage}))}, filename = 'path')"
        present = {name for (name, *_) in connection.execute(f"DESCRIBE SELECT * FROM {found}").fetchall()}
        listed = [
            "files.step" if name == "step" else f"found.{name}" if name.strip('"') in present else f"NULL::{kind} AS {name}"
            for name, kind in typed
        ]
        selects.append(
            f"SELECT files.source, documents.id, documents.file, documents.row, {', '.join(listed)} FROM {found} AS found "
            f"JOIN _files AS files ON files.view = '{view}' AND files.path = found.path"
            f"{' AND files.part = found.part' if 'part' in present else ''} "
            f"JOIN {rows} AS documents ON documents.rows = files.rows AND documents.file_row_number = found.row"
        )
    return " UNION ALL ".join(selects)
