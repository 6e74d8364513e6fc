"""Which documents a page shows of each reason: some that it dropped, those that it dropped and passed most narrowly, some that it edited.

In: a Source. Out: Samples, each a document's place and what decided about it. The same store gives the same samples: draws and ties are
settled by an MD5 of id and place. Cost: a query per reason and side over the tables of sources.py, some 3 s per million documents and
hundred rules. Not: no text is read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from typing import NamedTuple

import duckdb

from pipeline.scopes import REASONS
from pipeline.sql import quoted
from pipeline.taggers.predicates import columns_of
from pipeline.unit import Json
from tools.report.documents.margins import NEVER, Comparison, comparisons, distances
from tools.report.documents.sources import OVERLAP, Place, Source, identifier

DROPPED, JUST_DROPPED, JUST_PASSED, PASSED, EDITED = "dropped", "narrowly dropped", "narrowly passed", "passed", "edited"
SIDES = (DROPPED, JUST_DROPPED, JUST_PASSED, PASSED, EDITED)
_OWN = ("_part", "_row", "id", "file", "_file_row", "bytes", "tokens", "_start", "_kept", "_dropped_by", "_reasons")
_UNSEEN = ("BLOB",)  # hashes say nothing to a reader


class Value(NamedTuple):
    """A column that a rule names, its value, and what that is compared with: symbol, and number or text."""

    column: str
    value: Json
    limits: tuple[tuple[str, Json], ...] = ()


class Twin(NamedTuple):
    """The document that stays in the place of a duplicate. together: documents in the cluster, this one included, or 0: not known."""

    source: str
    id: str
    together: int


@dataclass(frozen=True)
class Sample:
    """stage, reason, side: why the document is shown. rank: its turn among those of its reason and side, first 0. rule: SQL, or ""."""

    place: Place
    stage: str
    reason: str
    side: str
    rank: int
    id: str
    file: str
    row: int
    bytes: int
    tokens: int
    start: int  # of its tokens in its part's tokens.bin
    kept: bool
    dropped_by: str | None
    reasons: tuple[str, ...]
    rule: str = ""
    values: tuple[Value, ...] = ()
    twin: Twin | None = None


class _Asked(NamedTuple):
    """A query for samples: which documents (SQL), the nearest of them first by `order`, drawn from where it ties."""

    stage: str
    reason: str
    side: str
    where: str
    order: str = "_draw"
    rule: str = ""
    tables: str = "documents"
    more: tuple[tuple[str, str], ...] = ()  # columns besides those that the rule names, and what to call them


def choose(connection: duckdb.DuckDBPyConnection, source: Source, count: int) -> list[Sample]:
    """At most `count` samples of each reason and side, by reason in the order of the rules. connection: of sources.tables."""
    found: list[Sample] = []
    shown: set[tuple[str, Place]] = set()
    for asked, limit in [*_of_rules(connection, source, count), *_of_stages(connection, count), *_of_edits(connection, count)]:
        fresh = (sample for sample in _answered(connection, source, asked, 2 * limit) if (sample.reason, sample.place) not in shown)
        samples = [replace(sample, rank=rank) for rank, sample in enumerate(islice(fresh, limit))]
        shown |= {(sample.reason, sample.place) for sample in samples}
        found += samples
    order = {reason: number for number, reason in reversed([*enumerate(sample.reason for sample in found)])}
    return sorted(found, key=lambda sample: (order[sample.reason], SIDES.index(sample.side), sample.rank))


def _of_rules(connection: duckdb.DuckDBPyConnection, source: Source, count: int) -> Iterator[tuple[_Asked, int]]:
    for reason, sql in source.rules.items():
        holds = f"list_contains(_reasons, {quoted(reason)})"
        first = f"CASE WHEN _dropped_by = {quoted(reason)} THEN 0 ELSE 1 END"  # rather than those that another rule dropped before it
        lacks, exceeds = _distances(connection, source, sql)
        ((dropped,),) = connection.execute(f"SELECT count(*) FROM documents WHERE {holds}").fetchall()
        narrow = min(count, dropped // 2) if _differs(connection, exceeds, holds) else 0
        if narrow:
            yield _Asked("filter", reason, JUST_DROPPED, holds, f"{first}, {exceeds}", sql), narrow
        yield _Asked("filter", reason, DROPPED, holds, first, sql), count
        passes = f"_kept AND NOT {holds}"
        if _differs(connection, lacks, passes):
            yield _Asked("filter", reason, JUST_PASSED, f"{passes} AND {lacks} < {NEVER}", lacks, sql), count
        else:
            yield _Asked("filter", reason, PASSED, passes, rule=sql), min(count, 2)


def _distances(connection: duckdb.DuckDBPyConnection, source: Source, sql: str) -> tuple[str, str]:
    """As margins.distances. Of items of evaluations, a document has one whole or none, but a share of one: that is what tells."""
    for comparison in comparisons(sql):
        name = comparison.column.removesuffix("_items")
        if source.kinds.get(name, {}).get("kind") == "decontaminate" and name != comparison.column:
            overlap = identifier(f"{name}{OVERLAP}")
            return f"CASE WHEN {overlap} > 0 THEN 1 - {overlap} ELSE {NEVER} END", overlap
    return distances(sql, lambda expression: _kind(connection, expression))


def _kind(connection: duckdb.DuckDBPyConnection, expression: str) -> str:
    return str(connection.execute(f"DESCRIBE SELECT ({expression}) FROM documents").fetchall()[0][1])


def _differs(connection: duckdb.DuckDBPyConnection, distance: str, where: str) -> bool:
    """Whether some documents are nearer than others."""
    ((low, high),) = connection.execute(f"SELECT min({distance}), max({distance}) FROM documents WHERE {where}").fetchall()
    return low is not None and low < min(high, float("inf"))


def _of_stages(connection: duckdb.DuckDBPyConnection, count: int) -> Iterator[tuple[_Asked, int]]:
    """What no rule drops: empty texts, duplicates, texts of which editing left nothing."""
    listed = "SELECT DISTINCT _stage, _dropped_by FROM documents WHERE _stage <> 'filter' ORDER BY ALL"
    for stage, reason in connection.execute(listed).fetchall():
        yield _Asked(stage, reason, DROPPED, f"_dropped_by = {quoted(reason)}"), count
    for (method,) in connection.execute("SELECT DISTINCT method FROM seen ORDER BY ALL").fetchall():
        tables = "documents JOIN seen USING (_part, _row)"
        where, what = f"_kept AND method = {quoted(method)}", "paragraphs" if method == "paragraphs" else "n-grams"
        more = (("seen", f"{what} that came before"), ("keys", f"{what} looked up"))
        yield _Asked("dedupe", REASONS[method], JUST_PASSED, where, "1 - seen / keys", tables=tables, more=more), count


def _of_edits(connection: duckdb.DuckDBPyConnection, count: int) -> Iterator[tuple[_Asked, int]]:
    for (by,) in connection.execute("SELECT DISTINCT editor FROM edits ORDER BY ALL").fetchall():
        tables = "documents JOIN edits USING (_part, _row)"
        yield _Asked("edit", by, EDITED, f"_kept AND editor = {quoted(by)}", tables=tables, more=(("times", "places"),)), count


def _answered(connection: duckdb.DuckDBPyConnection, source: Source, asked: _Asked, limit: int) -> Iterator[Sample]:
    compared = comparisons(asked.rule) if asked.rule else []
    kinds = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE documents)").fetchall())
    named = [*((name, name) for name in _named(source, asked.rule, compared, kinds)), *asked.more]
    columns = [*(f"documents.{name}" for name in _OWN), *(identifier(name) for name, _ in named), *(f"({each.limit})" for each in compared)]
    rows = connection.execute(
        f"SELECT {', '.join(columns)}, duplicate_of_source, duplicate_of, size FROM {asked.tables} "
        f"LEFT JOIN losers ON losers._part = documents._part AND losers._row = documents._row AND losers.reason = _dropped_by "
        f"LEFT JOIN clusters ON clusters._part = documents._part AND clusters._row = documents._row "
        f"WHERE {asked.where} ORDER BY {asked.order}, _draw, documents._part, documents._row LIMIT {limit}"
    ).fetchall()
    for row in rows:
        part, number, *own = row[: len(_OWN)]
        found = row[len(_OWN) : -3]
        limits: dict[str, list[tuple[str, Json]]] = {}
        for comparison, value in zip(compared, found[len(named) :], strict=True):
            number_or_text = float(value) if isinstance(value, Decimal) else value
            limits.setdefault(comparison.column, []).append((comparison.symbol, number_or_text))
        values = tuple(Value(title, value, tuple(limits.get(name, ()))) for (name, title), value in zip(named, found, strict=False))
        twin = Twin(row[-3], row[-2], row[-1] or 0) if row[-2] is not None and asked.side == DROPPED else None
        identity, file, file_row, size, tokens, start, kept, dropped_by, reasons = own
        yield Sample(
            Place(source.name, part, number), asked.stage, asked.reason, asked.side, 0, identity, file, file_row, size, tokens, start,
            kept, dropped_by, tuple(reasons), asked.rule, values, twin,
        )  # fmt: skip


def _named(source: Source, rule: str, compared: list[Comparison], kinds: Mapping[str, str]) -> list[str]:
    """The columns to show beside a rule: those that are compared first."""
    columns = list(dict.fromkeys([each.column for each in compared]))
    columns += sorted(columns_of(rule) - set(columns)) if rule else []
    columns += [f"{name}{OVERLAP}" for name in source.kinds if f"{name}_items" in columns and f"{name}{OVERLAP}" in kinds]
    return [column for column in columns if kinds.get(column) not in _UNSEEN]
