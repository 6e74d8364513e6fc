"""Predicates come from files that others may have written: what they can reach, and what they can cost."""

import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipeline.taggers.functions import FUNCTIONS
from pipeline.taggers.predicates import PredicateError, _functions, check_predicates, database, decide


def test_every_function_that_a_predicate_may_call_is_pure_and_there() -> None:
    known = _functions()
    assert {name: known.get(name) for name in FUNCTIONS} == dict.fromkeys(FUNCTIONS, True)


@pytest.mark.parametrize(
    "sql",
    [
        "id IN (SELECT content FROM read_text('/etc/hostname'))",
        "read_text('/etc/hostname') = id",
        "getenv('HOME') = id",
        "current_setting('secret_directory') = id",
        "getvariable('x') = id",
        "nextval('s') > words",
        "query('SELECT 1') = words",
        "write_log(id) IS NULL",
        "error(id) IS NULL",
        "json_serialize_plan(id) IS NULL",
        "json_execute_serialized_sql(id) = id",
        "words < 1; ATTACH 'x.duckdb'",
        "words < 1) FROM attributes; COPY (SELECT 1) TO '/tmp/x'; --",
        "words < 1; LOAD httpfs",
        "list_transform([words], lambda x: x + 1) = [1]",
        "[x FOR x IN [words]] = [1]",
        "words < getvariable('x')",
        # The clock and the time zone, which DuckDB counts among what never changes.
        "current_localtimestamp() > '2020-01-01'::TIMESTAMP AND words < 1",
        "age('2020-01-01'::TIMESTAMP) > INTERVAL 1 DAY AND words < 1",
        # As long as they are told: seconds, gigabytes, or forever, in one line.
        "length(lpad(id, 2000000000, 'y')) > 1",
        "length(printf('%1000000000d', words)) > 1",
        "length(repeat(id, 2000000000)) > 1",
        "length(replace(replace(replace(replace(id, '', 'aaaaaaaaa'), 'a', 'aaaaaaaaa'), 'a', 'aaaaaaaa'), 'a', 'aaa')) > 1",
        "len(range(words, 2000000000)) > 1",
        "len(list_resize([words], 2000000000)) > 1",
        "levenshtein(id, id) > 1",
        "words < 1 OR " * 2000 + "words < 1",
    ],
)
def test_a_predicate_that_reaches_out_or_has_no_bound_is_refused_at_once(sql: str) -> None:
    began = time.monotonic()
    with pytest.raises(PredicateError):
        check_predicates({"bad": sql})
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('{secret}')",
        "FROM read_csv('{secret}')",
        "FROM '{secret}'",
        "FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/new'",
        "EXPORT DATABASE '{folder}/new'",
        "ATTACH '{folder}/new.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{folder}/new.duckdb_extension'",
        "FROM duckdb_secrets()",
        "SELECT getenv('HOME')",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '100GB'",
        "SET temp_directory = '{folder}'",
        "SET log_query_path = '{folder}/new'",
        "FROM a_table_of_this_program",
    ],
)
def test_the_connection_that_predicates_run_on_reaches_nothing_even_by_whole_statements(sql: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    a_table_of_this_program = pa.table({"a": [1]})
    with pytest.raises(duckdb.Error):
        database().cursor().execute(sql.format(folder=tmp_path, secret=secret)).fetchall()
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"] and a_table_of_this_program.num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "regexp_matches(url, '(a+)+$b')",
        "regexp_full_match(url, '(a|aa)+b')",
        "url LIKE '%_a%_a%_a%_a%_a%b'",
        "url ILIKE '%a%a%a%a%a%a%b'",
        "url ~~~ '*a*a*a*a*a*a*b'",
        "url SIMILAR TO '((a*)*)*b'",
    ],
)
def test_patterns_over_texts_made_to_be_slow_are_not(sql: str) -> None:
    texts = pa.table({"url": ["a" * 100_000, "ab" * 50_000, "", "aaaab"]})
    check_predicates({"slow": sql}, {"url": pa.string()})
    began = time.monotonic()
    decided = decide(texts, {"slow": sql})
    assert time.monotonic() - began < 5
    assert decided.num_rows == 4


def test_a_day_begins_at_the_same_time_on_every_machine() -> None:
    table = pa.table({"created": ["2020-01-01 00:30:00+00", "2020-01-01 23:30:00+02"]})
    decided = decide(table, {"midnight": "hour(created::TIMESTAMPTZ) = 0"})
    assert decided["dropped_by"].to_pylist() == ["midnight", None]
    assert database().cursor().execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
