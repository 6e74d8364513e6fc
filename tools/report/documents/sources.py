"""A mix's sources as its build manifest describes them: their rules, their parts, and a table with a row per document.

In: a source's entry in the manifest, and the units that it names. Out: Source; `tables`, a DuckDB connection with what was decided about
each of its documents. Cost: a few records read per source; `tables` reads the columns that rules name, 2 s per million documents. Of a
source of more than `LOOKED` documents every second, fourth, … part is looked at. Not: no text (texts.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import pyarrow.parquet as pq

from pipeline.scopes import KEYS, REASONS
from pipeline.sql import quoted, quoted_list
from pipeline.store import Store
from pipeline.taggers.predicates import SETTINGS, columns_of
from pipeline.unit import Artifact, Json, Record

LOOKED = 1_000_000  # documents of a source
PARTS = 128  # of a source, at most
OVERLAP = "_overlap"  # what `decontaminate` says of a document that has no item whole


class Place(NamedTuple):
    """Where a document is: its source, the part of it, the row in the part."""

    source: str
    part: int
    row: int


@dataclass(frozen=True)
class Part:
    """number: in the source. documents: their table. tokens: the record of the unit that tokenized them."""

    number: int
    documents: Artifact
    tokens: Record


@dataclass(frozen=True)
class Source:
    """rules: reason → SQL, in the order of blame. parts: those that are looked at. kinds: by the name of each configured attribute what its
    units were told (`kind`, `settings`, `files`), and `folder`, one of them."""

    name: str
    entry: Mapping[str, Json]
    rules: Mapping[str, str]
    parts: Sequence[Part]
    kinds: Mapping[str, Mapping[str, Json]]

    @property
    def units(self) -> Mapping[str, list[str]]:
        return self.entry["units"]

    @property
    def is_whole(self) -> bool:
        """Whether all its parts are looked at."""
        return len(self.parts) == len(self.units["tokens"])

    @property
    def edits(self) -> Sequence[str]:
        """The folders of its parts' spans: all that stands replaced in its texts."""
        return self.units.get("edited") or self.units.get("prepared") or []

    def scope_part(self, part: int) -> int:
        """The part's number in the scope that the source is deduplicated in."""
        return int(self.entry.get("first_part", 0)) + part


def source(store: Store, name: str, entry: Mapping[str, Json]) -> Source:
    """Raises PipelineError when a record of its units is missing or damaged."""
    units = entry["units"]
    drop = store.record(units["filtered"][0]).unit.params["drop"] if units["filtered"] else []
    kinds = {}
    for folder in units["attributes"][: len(entry["taggers"])]:
        params = store.record(folder).unit.params
        if "kind" in params:
            kinds[params["tagger"]] = {**params, "folder": folder}
    return Source(name, entry, dict(drop), _looked(store, units["tokens"]), kinds)


def _looked(store: Store, folders: Sequence[str]) -> list[Part]:
    """Parts from all over the source, of at most LOOKED documents, but one at least."""
    stride = 1
    while stride * PARTS < len(folders):
        stride *= 2
    while True:
        records = [(number, store.record(folders[number])) for number in range(0, len(folders), stride)]
        if len(records) <= 1 or sum(record.counts["documents"] for _, record in records) <= LOOKED:
            return [Part(number, record.unit.inputs[0], record) for number, record in records]
        stride *= 2


@contextmanager
def tables(store: Store, source: Source) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that holds these tables, and reaches nothing else; predicates mean in it what they mean in a build.

    documents  _part, _row, id, source, file, _file_row, bytes, tokens, inner_eos, _start (of its tokens in tokens.bin), _kept, _stage,
               _dropped_by, _reasons, _draw (a number by which documents are drawn), and the columns that the source's rules name
    losers     _part, _row, reason, duplicate_of, duplicate_of_source
    clusters   _part, _row, size: of the near-duplicates that a document is one of
    seen       _part, _row, method, keys, seen: of the paragraphs or n-grams looked up, how many there were and had come before
    edits      _part, _row, editor, times: of the spans replaced in it
    """
    with duckdb.connect(":memory:", config=SETTINGS) as connection:
        store.mount(connection)
        connection.execute(f"CREATE TABLE documents AS {_documents(store, source)}")
        _found(connection, store, source)
        # From here on the connection evaluates predicates, on those tables and nothing else.
        connection.execute("SET GLOBAL TimeZone = 'UTC'; SET enable_external_access = false; SET lock_configuration = true")
        yield connection


def identifier(column: str) -> str:
    """A column as it stands in SQL."""
    return '"' + column.replace('"', '""') + '"'


def _documents(store: Store, source: Source) -> str:
    numbers = [part.number for part in source.parts]
    rows = [store.url(part.tokens.output("rows.parquet").path) for part in source.parts]
    decisions = [store.url(f"{source.units['decisions'][number]}/decisions.parquet") for number in numbers]
    width, wanted = len(source.entry["taggers"]), {column for sql in source.rules.values() for column in columns_of(sql)}
    wanted |= {f"{name}{OVERLAP}" for name, params in source.kinds.items() if params["kind"] == "decontaminate"}
    joined = ""
    for index in range(width):
        folders = [source.units["attributes"][number * width + index] for number in numbers]
        if chosen := sorted(wanted & _columns(store, f"{folders[0]}/attributes.parquet")):
            files = quoted_list(store.url(f"{folder}/attributes.parquet") for folder in folders)
            joined += f" POSITIONAL JOIN (SELECT {', '.join(map(identifier, chosen))} FROM read_parquet({files}))"
    # Row-aligned tables of the same parts in the same order: DuckDB reads lists of files in order, so places agree.
    return (
        f"SELECT *, md5_number_lower(concat_ws(' ', id, file, _file_row)) AS _draw FROM (SELECT id, {quoted(source.name)} AS source, file, "
        f"row AS _file_row, bytes, tokens, inner_eos, start AS _start, {numbers}[list_position({quoted_list(rows)}, path)] AS _part, "
        f"file_row_number AS _row FROM read_parquet({quoted_list(rows)}, filename = 'path', file_row_number = true)) POSITIONAL JOIN "
        "(SELECT kept AS _kept, stage AS _stage, dropped_by AS _dropped_by, reasons AS _reasons "
        f"FROM read_parquet({quoted_list(decisions)})){joined}"
    )


def _columns(store: Store, table: str) -> set[str]:
    with store.open(table) as stream:
        return set(pq.read_schema(stream).names)


def _found(connection: duckdb.DuckDBPyConnection, store: Store, source: Source) -> None:
    """The tables beside `documents`. A scope's units are about several sources: theirs are left out."""
    first, numbers = source.scope_part(0), [part.number for part in source.parts]
    here = f"part - {first} IN ({', '.join(map(str, numbers))})"
    connection.execute(
        "CREATE TABLE losers (_part BIGINT, _row BIGINT, reason VARCHAR, duplicate_of VARCHAR, duplicate_of_source VARCHAR);"
        "CREATE TABLE clusters (_part BIGINT, _row BIGINT, size BIGINT);"
        "CREATE TABLE seen (_part BIGINT, _row BIGINT, method VARCHAR, keys BIGINT, seen BIGINT);"
        "CREATE TABLE edits (_part BIGINT, _row BIGINT, editor VARCHAR, times BIGINT)"
    )
    place = f"SELECT part - {first}, row"
    for folder in source.units.get("duplicates", []):
        method = {column: method for method, column in KEYS.items()}[store.record(folder).unit.params["column"]]
        file = quoted(store.url(f"{folder}/duplicates.parquet"))
        connection.execute(
            f"INSERT INTO losers {place}, '{REASONS[method]}', duplicate_of, duplicate_of_source FROM read_parquet({file}) WHERE {here}"
        )
    for folder in source.units.get("clusters", []):
        file, clusters = (quoted(store.url(f"{folder}/{name}.parquet")) for name in ("duplicates", "clusters"))
        connection.execute(
            f"INSERT INTO losers {place}, '{REASONS['near']}', duplicate_of, duplicate_of_source FROM read_parquet({file}) WHERE {here};"
            f"INSERT INTO clusters {place}, size FROM read_parquet({clusters}) WHERE {here}"
        )
    for folder in source.units.get("paragraphs", []):
        method, file = store.record(folder).unit.params["settings"]["method"], quoted(store.url(f"{folder}/paragraphs.parquet"))
        connection.execute(f"INSERT INTO seen {place}, {quoted(method)}, keys, seen FROM read_parquet({file}) WHERE seen > 0 AND {here}")
    for number in numbers if source.edits else []:
        file = quoted(store.url(f"{source.edits[number]}/spans.parquet"))
        connection.execute(f'INSERT INTO edits SELECT {number}, row, "by", count(*) FROM read_parquet({file}) GROUP BY ALL')
