"""`make preview`: what rules would drop from a source, answered from stored attributes before anything is run again.

In: a source that was built in this store, and predicates: those of a filter, or the alternatives of one `WHERE`. Out: per predicate
the documents and tokens that it holds for, those that it drops first, and those of them that the mix keeps as it is now; and a few
documents on either side of it, those nearest to its threshold where it has just one.

Cost: a query over narrow tables: under a second per million documents. A tagger that has not run on this source yet runs once
over its text, and its attributes stay in the store, where the next `make mix` finds them.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from rich.console import Console

from pipeline import catalog, damage
from pipeline.engine import Engine
from pipeline.errors import ConfigError
from pipeline.fetch import attribute_files
from pipeline.progress import Progress
from pipeline.recipe import MIXES
from pipeline.release import absent, is_released
from pipeline.rules import Rules, load_filter, load_rules
from pipeline.sql import quoted_list
from pipeline.stages import tag
from pipeline.stats import format_value
from pipeline.store import Store
from pipeline.taggers.predicates import SETTINGS, alternatives, check_predicates, columns_of, threshold
from pipeline.taggers.ready import Ready
from pipeline.terminal import titled, visible
from pipeline.unit import Artifact, Record

EXCERPT = 160  # characters of an example's text
Parts = Sequence[tuple[Artifact, int]]  # with the number of documents in each


@dataclass(frozen=True)
class Line:
    """What one predicate does: (documents, tokens) each. first: of those that no earlier predicate drops. now: of those, what the mix
    keeps as it is."""

    reason: str
    sql: str
    holds: tuple[int, int]
    first: tuple[int, int]
    now: tuple[int, int]


@dataclass(frozen=True)
class Example:
    """A document on one side of a predicate, and the values of the columns that it names."""

    reason: str
    dropped: bool
    id: str
    values: dict[str, object]
    text: str


@dataclass(frozen=True)
class Preview:
    """total: documents and tokens read. kept: what the mix keeps now. any: what at least one of the predicates holds for."""

    source: str
    total: tuple[int, int]
    kept: tuple[int, int]
    any: tuple[int, int]
    lines: list[Line]
    examples: list[Example]


def rules_for(source: str, where: str, filters: Sequence[str], recipes: Path = MIXES) -> Rules:
    """The rules to preview: `where`, its outermost ORs apart, and those of the filters, over the attributes that these and the source
    declare. Raises ConfigError."""
    _, own = load_rules(source, recipes)
    attributes = dict(own.attributes)
    drop = {side: side for side in alternatives(where)} if where else {}
    for name in filters:
        loaded = load_filter(name, recipes)
        attributes |= loaded.attributes
        drop |= loaded.drop
    if not drop:
        raise ConfigError('nothing to preview: give WHERE="words < 50" or FILTERS=gopher-dolma,fineweb')
    check_predicates(drop, {column: kind for attribute in attributes.values() for column, kind in attribute.columns.items()})
    return Rules(own.prepare, attributes, drop, ())


def preview(store: Store, source: str, rules: Rules, workers: int, progress: Progress, examples: int = 3) -> Preview:
    """Raises ConfigError when the source has not been built in this store."""
    built = catalog.sources(store).get(source)
    if built is None:
        raise ConfigError(f"{source} has not been built under {store.place}; run: make mix SOURCES={source}")
    if is_released(built):
        raise ConfigError(absent({source: built}, "no documents and no attributes that rules could be tried on"))
    parts = [part for folder in built["units"]["documents"] for part in store.record(folder).named("part-", ".parquet")]
    tokens = [store.record(folder) for folder in built["units"]["tokens"]]
    before = [store.record(folder).output("spans.parquet") for folder in built["units"].get("prepared", [])]
    prepared: Sequence[Artifact | None] = before or [None for _ in parts]
    tagged = _tagged(store, source, rules, parts, prepared, tokens, workers, progress)
    texts = [(part, record.counts["documents"]) for part, record in zip(parts, tokens, strict=True)]
    columns = {column for sql in rules.drop.values() for column in columns_of(sql)}
    with duckdb.connect(":memory:", config={**SETTINGS, "threads": workers}) as connection:
        store.mount(connection)
        tables = [[store.url(record.output("attributes.parquet").path) for record in records] for records in tagged]
        decisions = [store.url(f"{folder}/decisions.parquet") for folder in built["units"]["decisions"]]
        rows = [store.url(record.output("rows.parquet").path) for record in tokens]
        joined = "".join(f" POSITIONAL JOIN read_parquet({quoted_list(files)})" for files in tables)
        connection.execute(
            "CREATE TABLE documents AS SELECT row_number() OVER () - 1 AS place, * FROM ("
            f"SELECT '{source}' AS source, kept, {', '.join(sorted({'id', 'tokens'} | columns))} "
            f"FROM read_parquet({quoted_list(rows)}) POSITIONAL JOIN (SELECT kept FROM read_parquet({quoted_list(decisions)})){joined})"
        )
        # From here on the connection evaluates predicates, on that table and nothing else.
        connection.execute("SET GLOBAL TimeZone = 'UTC'; SET enable_external_access = false; SET lock_configuration = true")
        held = [f"coalesce(({sql}), false)" for sql in rules.drop.values()]
        lines = [
            Line(reason, sql, *(_sums(connection, condition) for condition in _conditions(held, index)))
            for index, (reason, sql) in enumerate(rules.drop.items())
        ]
        found = [
            example
            for (reason, sql), condition in zip(rules.drop.items(), held, strict=True)
            for dropped in (True, False)
            for example in _examples(connection, reason, sql, condition if dropped else f"NOT {condition}", dropped, examples, texts, store)
        ]
        return Preview(source, _sums(connection, "true"), _sums(connection, "kept"), _sums(connection, " OR ".join(held)), lines, found)


def _tagged(
    store: Store, source: str, rules: Rules, parts: Sequence[Artifact], prepared: Sequence[Artifact | None], tokens: Sequence[Record],
    workers: int, progress: Progress,
) -> list[list[Record]]:  # fmt: skip
    """Per tagger the attributes of all parts, found or computed."""
    files = attribute_files(rules.used_attributes, store, progress)
    ready = [Ready.plain(tagger) for tagger in rules.taggers]
    ready += [Ready.configured(attribute, files[attribute.name], store) for attribute in rules.used_attributes]
    places = zip(parts, prepared, tokens, strict=True)
    units = [tag.unit(source, part, before, record, each) for part, before, record in places for each in ready]
    with store.lock(progress.say), Engine(store, workers, progress) as engine:
        records = engine.run(tag.STAGE, units)
    return [records[index :: len(ready)] for index in range(len(ready))]


def _conditions(held: list[str], index: int) -> list[str]:
    earlier = "".join(f" AND NOT {condition}" for condition in held[:index])
    return [held[index], held[index] + earlier, held[index] + earlier + " AND kept"]


def _sums(connection: duckdb.DuckDBPyConnection, condition: str) -> tuple[int, int]:
    [(documents, tokens)] = connection.execute(f"SELECT count(*), coalesce(sum(tokens), 0) FROM documents WHERE {condition}").fetchall()
    return documents, int(tokens)


def _examples(
    connection: duckdb.DuckDBPyConnection, reason: str, sql: str, condition: str, dropped: bool, count: int, parts: Parts,
    store: Store,
) -> list[Example]:  # fmt: skip
    named = sorted(columns_of(sql))
    place = threshold(sql)
    kinds = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE documents)").fetchall())
    numeric = place and kinds[place[0]] not in ("VARCHAR", "BOOLEAN", "BLOB")
    near = f"abs({place[0]}::DOUBLE - {place[1]}), " if place and numeric else ""
    query = f"SELECT place, id, {', '.join(named)} FROM documents WHERE {condition} ORDER BY {near}hash(id), place LIMIT {count}"
    return [
        Example(reason, dropped, identity, dict(zip(named, values, strict=True)), _excerpt(row, parts, store))
        for row, identity, *values in connection.execute(query).fetchall()
    ]


def _excerpt(place: int, parts: Parts, store: Store) -> str:
    """The beginning of a document's text, given its place among the rows of all parts. Reads one row group of one part."""
    ends = list(accumulate(documents for _, documents in parts))
    number = bisect_right(ends, place)
    part, documents = parts[number]
    place -= ends[number] - documents
    with damage.named(store, part.path), store.open(part.path) as stream, pq.ParquetFile(stream) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if place < rows:
                text = file.read_row_group(group, columns=["text"])["text"][place].as_py()
                return " ".join(text[: 4 * EXCERPT].split())[:EXCERPT]
            place -= rows
    raise IndexError(place)


def show(found: Preview, console: Console) -> None:
    """The table of predicates and the documents on either side of each."""
    table = titled(
        f"{found.source}: what these rules would drop of {found.total[0]:,} documents, {found.total[1]:,} tokens",
        "predicate", "documents", "share", "tokens", "share", "drops first", "of these kept now", "tokens kept now",
    )  # fmt: skip
    for line in found.lines:
        (documents, tokens), (first, _), (now, now_tokens) = line.holds, line.first, line.now
        table.add_row(
            line.reason, f"{documents:,}", _share(documents, found.total[0]), f"{tokens:,}", _share(tokens, found.total[1]), f"{first:,}",
            f"{now:,}", f"{now_tokens:,}",
        )  # fmt: skip
    documents, tokens = found.any
    now, now_tokens = (sum(line.now[i] for line in found.lines) for i in (0, 1))
    table.add_row(
        "any of them", f"{documents:,}", _share(documents, found.total[0]), f"{tokens:,}", _share(tokens, found.total[1]), f"{documents:,}",
        f"{now:,}", f"{now_tokens:,}",
    )  # fmt: skip
    console.print(table)
    console.print(f"the mix keeps {found.kept[0]:,} documents and {found.kept[1]:,} tokens as it is now\n")
    for line in found.lines:
        console.print(f"{line.reason}: {line.sql}" if line.reason != line.sql else line.sql, style="bold", markup=False)
        for example in found.examples:
            if example.reason == line.reason:
                values = ", ".join(
                    f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {format_value(value)}"
                    for name, value in example.values.items()
                )
                side = "drops" if example.dropped else "keeps"
                shown = visible(f"  {side} {example.id} ({values}): {example.text}")
                console.print(shown, markup=False, overflow="ellipsis", no_wrap=True)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "–"
