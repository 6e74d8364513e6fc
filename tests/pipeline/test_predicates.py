"""Predicates: what a recipe may say, how it is refused, and the decisions against plain Python."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, PipelineError
from pipeline.taggers.predicates import DECISION_SCHEMA, PredicateError, check_predicates, columns_of, decide


@pytest.mark.parametrize(
    "sql, columns",
    [
        ("stars < 2", {"stars"}),
        ("token_repeats >= 32", {"token_repeats"}),
        ("Stars < 2 AND top_word_share > 0.30", {"stars", "top_word_share"}),
        ("source IN ('wiki', 'arxiv') OR NOT (file LIKE '%.md')", {"source", "file"}),
        ("CASE WHEN lines > 3 THEN words / lines < 2 ELSE false END", {"lines", "words"}),
        ("bytes BETWEEN 1 AND 2 -- too short", {"bytes"}),
        ("regexp_matches(lower(id), '[0-9]+') = (tokens::DOUBLE > 1)", {"id", "tokens"}),
        ("words // 0 = 1", {"words"}),
        ("text_hash = '\\x00'::BLOB", {"text_hash"}),
    ],
)
def test_an_expression_over_known_columns_is_taken(sql: str, columns: set[str]) -> None:
    check_predicates({"rule": sql})
    assert columns_of(sql) == columns


@pytest.mark.parametrize(
    "sql, complaint",
    [
        ("star_count < 2", "unknown column star_count .* did you mean stars?"),
        ("top_words_share > 0.3", "did you mean top_word_share?"),
        ("zzz", "unknown column zzz .* known: alphabetic_share, "),
        ("documents.stars < 2", "unknown column documents.stars"),
        ('source = "wiki"', "unknown column wiki .*single quotes"),
        ("stars <", "is not SQL: "),
        ("", "is not SQL: "),
        ("stars < 1)--", "is not SQL: "),
        ("stars < 2, words < 3", "more than one expression"),
        ("stars < 2 few", "more than one expression"),
        ("stars < 2; SELECT true", "more than one expression"),
        ("stars < 2 FROM attributes", "more than one expression"),
        ("stars < 2 WHERE true", "more than one expression"),
        ("stars < 2 ORDER BY stars", "more than one expression"),
        ("stars < 2 LIMIT 1", "more than one expression"),
        ("DISTINCT stars < 2", "more than one expression"),
        ("stars < 2 UNION SELECT true", "more than one expression"),
        ("stars < 2 GROUP BY ALL", "cannot be decided"),
        ("stars < (SELECT 2)", "has a subquery"),
        ("EXISTS (FROM read_text('/etc/hostname'))", "has a subquery"),
        ("sum(stars) OVER () > 1", "has a window"),
        ("stars < ?", "has a parameter"),
        ("COLUMNS('stars') < 2", "has a star"),
        ("count(stars) > 1", "calls count, which is not a pure function"),
        ("random() < stars", "calls random, which is not a pure function"),
        ("now() > '2020-01-01'::TIMESTAMP AND stars < 2", "calls now, which is not a pure function"),
        ("lenght(id) > 2", "calls lenght, which DuckDB has not; did you mean length?"),
        ("stars + 1", "is of type BIGINT; a predicate is BOOLEAN"),
        ("source", "is of type VARCHAR; a predicate is BOOLEAN"),
        ("1 = 1", "names no column"),
        ("stars < 'two'", "cannot be decided: Conversion Error"),
        ("stars LIKE 'a%'", "cannot be decided: Binder Error"),
    ],
)
def test_anything_else_is_refused_with_its_reason_and_the_predicates_name(sql: str, complaint: str) -> None:
    with pytest.raises(PredicateError, match=complaint) as refused:
        check_predicates({"good": "stars < 2", "bad": sql})
    assert refused.value.key == "bad" and isinstance(refused.value, ConfigError)
    assert str(refused.value).startswith("bad: ")


rows_of = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=40)


@given(rows_of)
def test_decisions_are_those_of_plain_python(rows: list[tuple[int, float]]) -> None:
    table = pa.table({"stars": pa.array([r[0] for r in rows], pa.int64()), "top_word_share": pa.array([r[1] for r in rows], pa.float64())})
    decided = decide(table, {"few_stars": "stars < 2", "top_word": "top_word_share > 0.3", "zero": "stars = 0"})
    expected = [[name for name, holds in (("few_stars", a < 2), ("top_word", b > 0.3), ("zero", a == 0)) if holds] for a, b in rows]
    assert decided["reasons"].to_pylist() == expected
    assert decided["dropped_by"].to_pylist() == [reasons[0] if reasons else None for reasons in expected]
    assert decided.schema.equals(DECISION_SCHEMA)


def test_the_first_predicate_of_the_recipe_is_to_blame() -> None:
    table = pa.table({"stars": [0], "words": [0]})
    assert decide(table, {"b": "words < 1", "a": "stars < 1"}).to_pylist() == [{"reasons": ["b", "a"], "dropped_by": "b"}]


def test_null_does_not_drop() -> None:
    table = pa.table({"words": pa.array([4, None, 1]), "lines": [0, 1, 0]})
    rules = {"wide": "words // lines > 0", "short": "words < 2"}
    assert decide(table, rules)["reasons"].to_pylist() == [[], [], ["short"]]


def test_a_source_without_predicates_drops_nothing() -> None:
    assert decide(pa.table({"stars": [0, 1]}), {}).to_pylist() == [{"reasons": [], "dropped_by": None}] * 2


def test_rows_stay_in_their_order_in_a_large_table_of_many_chunks() -> None:
    numbers = np.random.default_rng(5).integers(0, 9, 300_000)
    table = pa.concat_tables(pa.table({"stars": piece}) for piece in np.array_split(numbers, 37))
    decided = decide(table, {"few": "stars < 2"})
    assert (decided["dropped_by"].combine_chunks().is_valid().to_numpy(zero_copy_only=False) == (numbers < 2)).all()


def test_a_predicate_that_fails_on_the_data_is_named() -> None:
    with pytest.raises(PipelineError, match=r"predicate old \(id::INT < 5\) cannot be decided: Conversion Error"):
        decide(pa.table({"id": ["7", "x"]}), {"old": "id::INT < 5"})


def test_a_column_that_was_not_computed_is_named() -> None:
    with pytest.raises(PipelineError, match=r"predicate few .*stars"):
        decide(pa.table({"words": [7]}), {"few": "stars < 5"})


def test_a_division_by_zero_drops_nothing() -> None:
    table = pa.table({"words": pa.array([7, 7], pa.int64()), "tokens": pa.array([0, 1], pa.int64())})
    decided = decide(table, {"float": "words / tokens > 3", "integer": "words // tokens > 3"})
    assert decided["dropped_by"].to_pylist() == [None, "float"]
