"""Scores from outside: columns of Parquet files that find their documents by id, whatever their order and number."""

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import PipelineError
from pipeline.taggers import Batch
from pipeline.taggers import parquet as scores
from pipeline.taggers.parquet import Scores, parquet


@pytest.fixture(autouse=True)
def own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scores._index.cache_clear()


def joined(files: list[Path], *ids: str, name: str = "edu", **settings: Any) -> dict[str, list]:
    batch = Batch(pa.table({"id": pa.array(ids, pa.string())}))
    values = parquet(batch, name, Scores(path="x", **settings), {"path": files})
    return {column: value.to_pylist() for column, value in values.items()}  # type: ignore[union-attr]


def written(folder: Path, name: str = "a.parquet", **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def test_each_document_gets_its_own_score_from_any_of_the_files(tmp_path: Path) -> None:
    first = written(tmp_path, "a.parquet", id=["c", "a", "é\x00"], score=[3.0, 1.0, 9.5])
    second = written(tmp_path, "b.parquet", score=[2.0, 0.5], id=["b", ""])
    assert joined([first, second], "a", "b", "c", "", "é\x00", "a", columns={"edu": "score"}) == {"edu": [1.0, 2.0, 3.0, 0.5, 9.5, 1.0]}


def test_many_rows_in_any_order_are_found(tmp_path: Path) -> None:
    count = 120_000  # more than are read at a time
    order = [n * 7919 % count for n in range(count)]
    file = written(tmp_path, id=[f"doc-{n}" for n in order], edu=pa.array(order, pa.int32()))
    asked = order[::997]
    assert joined([file], *(f"doc-{n}" for n in asked), type="int64") == {"edu": asked}


@pytest.mark.parametrize(
    "kind, values",
    [("float64", [0.1, -1e300]), ("int64", [2**62, -5]), ("bool", [True, False]), ("string", ["en", ""])],
)
def test_every_type_comes_as_it_is(tmp_path: Path, kind: str, values: list) -> None:
    file = written(tmp_path, key=[1, 2], theirs=values)
    assert joined([file], "2", "1", key="key", columns={"ours": "theirs"}, type=kind) == {"ours": values[::-1]}


def test_several_columns_come_together(tmp_path: Path) -> None:
    file = written(tmp_path, id=["a", "b"], x=[1.0, 2.0], **{'odd "name"': [3.0, 4.0]})
    assert joined([file], "b", columns={"first": 'odd "name"', "second": "x"}) == {"first": [4.0], "second": [2.0]}


def test_documents_without_a_score_are_counted_and_one_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, id=["a", "b", "n"], edu=[1.0, None, float("nan")])
    with pytest.raises(PipelineError, match=r"3 of 4 documents have no edu in a\.parquet, the first of them `b`: .*`missing: VALUE`"):
        joined([file], "a", "b", "n", "gone")
    assert joined([file], "a", "b", "n", "gone", missing="-0.5") == {"edu": [1.0, -0.5, -0.5, -0.5]}


@pytest.mark.parametrize(
    "kind, text, value",
    [("float64", "1e3", 1000.0), ("int64", "-3", -3), ("bool", "False", False), ("string", "", ""), ("string", "7", "7")],
)
def test_the_missing_value_has_the_columns_type(tmp_path: Path, kind: str, text: str, value: object) -> None:
    file = written(tmp_path, id=["a"], edu=pa.array([None], pa.string()))
    assert joined([file], "a", type=kind, missing=text) == {"edu": [value]}


@pytest.mark.parametrize("kind, text", [("float64", "nan"), ("float64", "x"), ("int64", "1.5"), ("bool", "0")])
def test_a_missing_value_of_another_type_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"missing: '{text}' is no {kind}"):
        Scores(path="x", type=kind, missing=text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"id": ["b", "a", "b"], "edu": [1.0, 2.0, 1.0]}, r"a\.parquet: two rows have the id `b`; leave one of them"),
        ({"id": ["a", None], "edu": [1.0, 2.0]}, r"a\.parquet: a row has no id"),
        ({"id": ["a"], "other": [1.0]}, r"a\.parquet: .*edu"),
        ({"id": ["a"], "edu": ["high"]}, r"a\.parquet: .*high"),
    ],
)
def test_files_that_cannot_be_joined_are_refused(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        joined([written(tmp_path, **columns)], "a")


def test_a_changed_file_is_indexed_again(tmp_path: Path) -> None:
    assert joined([written(tmp_path, id=["a"], edu=[1.0])], "a") == {"edu": [1.0]}
    assert joined([written(tmp_path, id=["a", "b"], edu=[2.0, 3.0])], "a") == {"edu": [2.0]}


def test_an_empty_batch_and_empty_files_have_no_values(tmp_path: Path) -> None:
    assert joined([written(tmp_path, id=["a"], edu=[1.0])]) == {"edu": []}
    none = written(tmp_path, "none.parquet", id=pa.array([], pa.string()), edu=pa.array([], pa.float64()))
    assert joined([none], "a", missing="4") == {"edu": [4.0]}
