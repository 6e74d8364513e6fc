"""Predicates: the named SQL rules by which a recipe drops documents.

In:   names and SQL expressions over the columns of the taggers and of every document (`drop:` of a source).
Out:  when a recipe loads, a complaint about anything that could not work or could silently do nothing; when it runs,
      the reasons that hold for each document.
Cost: a few milliseconds per predicate to check, nanoseconds per document to decide; one thread.
Not:  a predicate sees one document at a time. It has no subqueries, aggregates or side effects, reads no files, and
      gives the same answer always; it calls what functions.py lists. Where it is NULL it does not drop.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigError, PipelineError
from pipeline.taggers import column_types
from pipeline.taggers.functions import FUNCTIONS

DECISION_SCHEMA = pa.schema([pa.field("reasons", pa.list_(pa.string()), nullable=False), pa.field("dropped_by", pa.string())])

LENGTH = 10_000  # characters of a predicate
# What an expression may be made of: the classes of DuckDB's parse tree.
_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "TYPE",
}  # fmt: skip


class PredicateError(ConfigError):
    """A predicate that cannot be used. `key` is its name."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key


@cache
def columns_of(sql: str) -> frozenset[str]:
    """The columns that a predicate names, in lower case. Raises PredicateError if `sql` is not one plain expression."""
    return frozenset(_columns(parsed(sql)))


def check_predicates(drop: Mapping[str, str], more: Mapping[str, pa.DataType] | None = None) -> None:
    """Raise PredicateError, its `key` the predicate's name, unless every predicate can be decided.

    That is: one SQL expression without subqueries, aggregates, windows, parameters or functions beyond FUNCTIONS; over
    known columns, at least one; of type BOOLEAN; and it evaluates on a row of zeros and empty strings.
    `more`: columns besides those of every source.
    """
    known = column_types() | dict(more or {})
    for name, sql in drop.items():
        try:
            _check(sql, known)
        except PredicateError as error:
            raise PredicateError(name, str(error)) from error


def alternatives(sql: str) -> list[str]:
    """The sides of a predicate's outermost OR, each as SQL; the predicate itself if there is none."""
    expression = parsed(sql)
    if expression["type"] != "CONJUNCTION_OR":
        return [sql]
    return [spelled(side) for side in expression["children"]]


def threshold(sql: str) -> tuple[str, str] | None:
    """Column and constant of a predicate that compares just one column with just one constant, such as `stars < 2`."""
    comparisons = [node for node in walk(parsed(sql)) if node.get("class") in ("COMPARISON", "BETWEEN")]
    if len(comparisons) != 1 or comparisons[0]["class"] != "COMPARISON":
        return None
    sides = {side["class"]: side for side in (comparisons[0]["left"], comparisons[0]["right"])}
    if sides.keys() == {"COLUMN_REF", "CONSTANT"}:
        return sides["COLUMN_REF"]["column_names"][-1].lower(), spelled(sides["CONSTANT"])
    return None


def decide(attributes: pa.Table, drop: Mapping[str, str]) -> pa.Table:
    """Which predicates hold for each row of `attributes`, which has every column that they name.

    Returns, row-aligned, DECISION_SCHEMA: reasons (the names of all that hold, in the order of `drop`; empty if none
    does) and dropped_by (the first of them, or null). Raises PipelineError naming a predicate that fails on these rows.
    """
    holds = np.zeros((attributes.num_rows, len(drop)), dtype=np.bool_)
    columns = sorted({column for sql in drop.values() for column in columns_of(sql)})
    try:
        if drop:
            holds[:] = _evaluate(attributes.select(columns), list(drop.values()))
    except (duckdb.Error, KeyError):
        for name, sql in drop.items():  # which one is it?
            try:
                _evaluate(attributes.select(sorted(columns_of(sql))), [sql])
            except (duckdb.Error, KeyError) as error:
                raise PipelineError(f"predicate {name} ({sql}) cannot be decided: {_first_line(error)}") from error
        raise
    names = pa.array(list(drop), pa.string())
    reasons = np.nonzero(holds)[1]
    offsets = np.zeros(len(holds) + 1, dtype=np.int32)
    np.cumsum(holds.sum(axis=1), out=offsets[1:])
    first = pa.array(holds.argmax(axis=1) if drop else np.zeros(len(holds), np.int64), mask=~holds.any(axis=1))
    decided = [pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(reasons))), names.take(first)]
    return pa.table(decided, schema=DECISION_SCHEMA)


# Of every connection that evaluates predicates.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # no table is a variable of ours by its name
    "error_on_division_by_zero": "false",  # x / 0 is NULL: not dropped
    "ieee_floating_point_ops": "false",  # nor is it infinite
}


@cache
def database() -> duckdb.DuckDBPyConnection:
    """An empty in-memory database that reaches nothing outside itself. Every use takes a cursor of its own."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            **SETTINGS,
            "memory_limit": "1GB",
            "temp_directory": "",
            "threads": "1",
        },
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")  # one answer on every machine; it cannot be given above
    connection.execute("SET GLOBAL lock_configuration = true")
    return connection


@cache
def _functions() -> dict[str, bool]:
    """DuckDB's functions; True for those that give a value of one row, the same always."""
    query = """
        SELECT function_name, bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')
        FROM duckdb_functions() GROUP BY function_name
    """
    return dict(database().cursor().execute(query).fetchall())


def parsed(sql: str) -> dict[str, Any]:
    """The parse tree of one expression, as DuckDB has it. Raises PredicateError for anything else."""
    if len(sql) > LENGTH:
        raise PredicateError("", f"{sql[:80]!r} … has {len(sql):,} characters; a predicate has at most {LENGTH:,}")
    (text,) = database().cursor().execute("SELECT json_serialize_sql(?)", [f"SELECT {sql}\n"]).fetchall()[0]
    tree = json.loads(text)
    if tree["error"]:
        raise PredicateError("", f"{sql!r} is not SQL: {tree['error_message']}")
    nodes = [statement["node"] for statement in tree["statements"]]
    tails = ("modifiers", "where_clause", "group_expressions", "having", "qualify", "sample")
    if (
        len(nodes) != 1
        or nodes[0]["type"] != "SELECT_NODE"
        or any(nodes[0][tail] for tail in tails)
        or nodes[0]["from_table"]["type"] != "EMPTY"
        or len(nodes[0]["select_list"]) != 1
        or nodes[0]["select_list"][0]["alias"]
    ):
        raise PredicateError("", f"{sql!r} is more than one expression, such as `stars < 2`")
    expression = nodes[0]["select_list"][0]
    for node in walk(expression):
        kind = node.get("class")
        if kind is not None and kind not in _EXPRESSIONS:
            raise PredicateError("", f"{sql!r} has a {kind.lower()}; a predicate sees one document and has none")
        if kind == "FUNCTION":
            function = node["function_name"].lower()
            if function not in FUNCTIONS:
                raise PredicateError("", f"{sql!r} calls {function}, which {_reason_against(function)}")
    return expression


def _reason_against(function: str) -> str:
    known = _functions()
    if function not in known:
        return f"DuckDB has not{_nearest(function, dict.fromkeys(FUNCTIONS & known.keys()))}"
    if not known[function]:
        return "is not a pure function of one document"
    return "has no bound on its time and memory, or says another thing elsewhere; what can be called: pipeline/taggers/functions.py"


def spelled(expression: dict[str, Any]) -> str:
    """An expression of a parse tree as SQL, without parentheses around it."""
    cursor = database().cursor()
    ((one,),) = cursor.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()
    tree = json.loads(one)
    tree["statements"][0]["node"]["select_list"] = [expression]
    ((sql,),) = cursor.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()
    text = sql.removeprefix("SELECT ")
    return text[1:-1] if text.startswith("(") and text.endswith(")") and text.count("(") == 1 else text


def walk(node: object) -> Iterator[dict[str, Any]]:
    """A parse tree's nodes, each before what is in it."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from walk(child)


def _columns(expression: dict[str, Any]) -> list[str]:
    return [".".join(node["column_names"]).lower() for node in walk(expression) if node.get("class") == "COLUMN_REF"]


def _check(sql: str, known: Mapping[str, pa.DataType]) -> None:
    columns = _columns(parsed(sql))
    for column in columns:
        if column not in known:
            hint = _nearest(column, known) or f"; known: {', '.join(sorted(known))}"
            quotes = " (text goes into single quotes)" if f'"{column}"' in sql else ""
            raise PredicateError("", f"unknown column {column} in {sql!r}{quotes}{hint}")
    if not columns:
        raise PredicateError("", f"{sql!r} names no column, so it would drop all documents or none")
    zeros = {name: _zero(known[name]) for name in columns}
    try:
        ((_, kind, *_),) = _query(pa.table(zeros), f"DESCRIBE SELECT ({sql}\n) FROM attributes").fetchall()
        if kind == "BOOLEAN":
            _evaluate(pa.table(zeros), [sql])
    except duckdb.Error as error:
        raise PredicateError("", f"{sql!r} cannot be decided: {_first_line(error)}") from error
    if kind != "BOOLEAN":
        raise PredicateError("", f"{sql!r} is of type {kind}; a predicate is BOOLEAN, such as `stars < 2`")


def _zero(kind: pa.DataType) -> pa.Array:
    """One row: 0, false, an empty string, or null of any other type."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return pa.array([0]).cast(kind)
    return pa.array([""], kind) if pa.types.is_string(kind) else pa.nulls(1, kind)


def _evaluate(table: pa.Table, predicates: Sequence[str]) -> np.ndarray:
    """[rows, predicates] bool; NULL is False. One query for all: each costs a millisecond."""
    columns = ", ".join(f"coalesce(({sql}\n), false) AS p{index}" for index, sql in enumerate(predicates))
    values = _query(table, f"SELECT {columns} FROM attributes").fetchnumpy()
    return np.stack([np.asarray(values[f"p{index}"], dtype=np.bool_) for index in range(len(predicates))], axis=1)


def _query(table: pa.Table, sql: str) -> duckdb.DuckDBPyConnection:
    cursor = database().cursor()
    cursor.register("attributes", table)
    return cursor.execute(sql)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    """The most similar known name, rather one that begins alike."""
    matches = difflib.get_close_matches(name, list(known), n=20, cutoff=0.5)
    alike = [match for match in matches if match[:3] == name[:3]]
    return f"; did you mean {(alike or matches)[0]}?" if matches else ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
