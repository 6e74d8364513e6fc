"""How far a document is from a rule: a predicate as a distance, and what it compares with what.

In: a predicate's SQL (pipeline/taggers/predicates.py). Out: SQL that gives, for a document that passes, how much more it would take to
drop it, and for one that is dropped, how much less would have let it pass; the comparisons and patterns in it. Cost: milliseconds
a predicate. Not: a predicate without a comparison of numbers, such as `code_xml`, has no distance: it says yes or no.

A comparison's distance is |value - limit| / |limit| where it does not say so, and 0 where it does. `OR` holds as soon as its nearest
side does, `AND` when all its sides do: min and sum, as in the quantitative semantics of temporal logic (Donzé and Maler 2010).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.taggers.predicates import database, parsed, spelled, walk

Node = dict[str, Any]
NEVER = "'infinity'::DOUBLE"
SYMBOLS = {
    "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "≤", "COMPARE_GREATERTHAN": ">", "COMPARE_GREATERTHANOREQUALTO": "≥",
}  # fmt: skip
MIRRORED = {"<": ">", "≤": "≥", ">": "<", "≥": "≤"}
PATTERNS = ("regexp_matches", "contains", "starts_with", "ends_with")


class Comparison(NamedTuple):
    """A column beside what it is compared with: `limit` is SQL, a constant most often."""

    column: str
    symbol: str
    limit: str


class Pattern(NamedTuple):
    """What a column is searched for: a regular expression (RE2's) or, `literal`, a text."""

    column: str
    text: str
    literal: bool


def comparisons(sql: str) -> list[Comparison]:
    """The orderings in a predicate that have a column by itself on one side, in their order. Raises PredicateError."""
    orderings = []
    for node in walk(parsed(sql)):
        for symbol, value, limit in _orderings(node):
            if value["class"] == "COLUMN_REF":
                orderings.append(Comparison(_name(value), symbol, spelled(limit)))
            elif limit["class"] == "COLUMN_REF":
                orderings.append(Comparison(_name(limit), MIRRORED[symbol], spelled(value)))
    return orderings


def patterns(sql: str) -> list[Pattern]:
    """The texts and regular expressions that columns are searched for, where they are constants. Raises PredicateError."""
    sought = []
    for node in walk(parsed(sql)):
        if node.get("class") == "FUNCTION" and node["function_name"].lower() in PATTERNS:
            column, pattern = (argument["expression"] for argument in node["arguments"][:2])
            if column["class"] == "COLUMN_REF" and not any(each.get("class") == "COLUMN_REF" for each in walk(pattern)):
                ((text,),) = database().cursor().execute(f"SELECT {spelled(pattern)}").fetchall()
                sought.append(Pattern(_name(column), str(text), node["function_name"].lower() != "regexp_matches"))
    return sought


def first_match(pattern: Pattern, value: str) -> str:
    """The first match in a value, "" without one; as DuckDB finds it."""
    if pattern.literal:
        return pattern.text if pattern.text in value else ""
    ((text,),) = database().cursor().execute("SELECT regexp_extract(?, ?)", [value, pattern.text]).fetchall()
    return str(text)


def distances(sql: str, kind_of: Callable[[str], str]) -> tuple[str, str]:
    """SQL (DOUBLE, ≥ 0) for what a document lacks to be dropped, and for what it lacks to pass; infinity where no number decides.

    kind_of: the type, as DuckDB names it, of an expression over the documents' columns. Raises PredicateError.
    """
    return _distances(parsed(sql), kind_of)


def _distances(node: Node, kind_of: Callable[[str], str]) -> tuple[str, str]:
    match node["type"]:
        case "CONJUNCTION_AND" | "CONJUNCTION_OR" as kind:
            sides = [_distances(child, kind_of) for child in node["children"]]
            lacks, exceeds = [each[0] for each in sides], [each[1] for each in sides]
            return (_sum(lacks), _least(exceeds)) if kind == "CONJUNCTION_AND" else (_least(lacks), _sum(exceeds))
        case "OPERATOR_NOT":
            lacks_inside, exceeds_inside = _distances(node["children"][0], kind_of)
            return exceeds_inside, lacks_inside
    said = f"coalesce(({spelled(node)}), false)"
    gaps = [
        f"coalesce(abs(({value}) - ({limit}))::DOUBLE / CASE WHEN ({limit}) = 0 THEN 1 ELSE abs({limit}) END, {NEVER})"
        for value, limit in ((spelled(value), spelled(limit)) for _, value, limit in _orderings(node))
        if _is_number(kind_of(value)) and _is_number(kind_of(limit))
    ]
    gap = _least(gaps) if gaps else NEVER
    return f"CASE WHEN {said} THEN 0 ELSE {gap} END", f"CASE WHEN {said} THEN {gap} ELSE 0 END"


def _orderings(node: Node) -> Iterator[tuple[str, Node, Node]]:
    """Symbol, value and limit of a comparison of more and less: one of `<`, two of `BETWEEN`; the constant, if any, is the limit."""
    if node.get("class") == "BETWEEN":
        yield "≥", node["input"], node["lower"]
        yield "≤", node["input"], node["upper"]
    elif node.get("class") == "COMPARISON" and node["type"] in SYMBOLS:
        symbol, value, limit = SYMBOLS[node["type"]], node["left"], node["right"]
        yield (MIRRORED[symbol], limit, value) if value["class"] == "CONSTANT" else (symbol, value, limit)


def _sum(terms: Iterable[str]) -> str:
    return f"({' + '.join(terms)})"


def _least(terms: Iterable[str]) -> str:
    return f"least({', '.join(terms)})"


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
                                  "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL"}  # fmt: skip


def _name(column: Node) -> str:
    return str(column["column_names"][-1]).lower()
