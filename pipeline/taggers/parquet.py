"""Scores from outside: columns of Parquet files, keyed by document id, as attributes.

In:   documents' ids, and files that anything may have written, such as FineWeb-Edu's classifier on other machines.
Out:  their columns, one value per document.
Cost: once per machine an index of the files, sorted by DuckDB in 512 MB and kept as SQLite under the folder for temporary
      files (about 5 µs of CPU and 40 bytes per row); then 5 µs per document. No more memory, however many rows.
Not:  the texts. A score is for the id, so it is the user's care that it was computed on this version of the documents.
"""

import getpass
import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.config import Model
from pipeline.errors import PipelineError
from pipeline.recipe import ColumnName, SamplePackage, Text
from pipeline.taggers import Batch, Values
from pipeline.taggers.kinds import kind
from pipeline.unit import canonical

_ARROW = {"float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
_SQL = {"float64": "DOUBLE", "int64": "BIGINT", "bool": "BOOLEAN", "string": "VARCHAR"}
_BATCH_ROWS = 50_000


class Scores(Model):
    """Which columns of which files. columns: ours to theirs; without it, one column of the attribute's name, both here and there.

    key: their column of document ids. type: of all the columns. missing: the value for documents that have no row, or a null
    or NaN in it; without it they are an error.
    """

    path: Text | SamplePackage | tuple[Text | SamplePackage, ...]
    key: Text = "id"
    columns: dict[ColumnName, Text] = Field(default_factory=dict)
    type: Literal["float64", "int64", "bool", "string"] = "float64"
    missing: str | None = None

    @model_validator(mode="after")
    def _missing_has_the_type(self) -> "Scores":
        self.default()
        return self

    def default(self) -> Any:
        """`missing` as a value of `type`."""
        if self.missing is None or self.type == "string":
            return self.missing
        value = {"true": True, "false": False}.get(self.missing.lower()) if self.type == "bool" else _number(self.missing, self.type)
        if value is None:
            raise ValueError(f"missing: '{self.missing}' is no {self.type}")
        return value

    def theirs(self, name: str) -> dict[str, str]:
        return self.columns or {name: name}


def _number(text: str, kind: str) -> int | float | None:
    try:
        value = int(text) if kind == "int64" else float(text)
    except ValueError:
        return None
    return value if value == value else None


def _columns(name: str, settings: Scores) -> dict[str, pa.DataType]:
    return dict.fromkeys(settings.theirs(name), _ARROW[settings.type])


@kind("parquet", settings=Scores, reads=("id",), columns=_columns, files=("path",))
def parquet(batch: Batch, name: str, settings: Scores, files: Mapping[str, list[Path]]) -> Values:
    """The columns that `columns` names, each document's by its id.

    Raises PipelineError if a document has no value and `missing` is not set, if an id has two rows, or if the files lack a
    column.
    """
    theirs = settings.theirs(name)
    stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files["path"])
    scores = _index(stamps, settings.key, tuple(theirs.values()), settings.type)
    default = settings.default()
    ids = batch["id"].to_pylist()
    rows = [scores.execute("SELECT * FROM scores WHERE id = ?", (each,)).fetchone() for each in ids]
    absent = [each for each, row in zip(ids, rows, strict=True) if row is None or None in row]
    if absent and default is None:
        raise PipelineError(
            f"{len(absent):,} of {len(ids):,} documents have no {' or no '.join(theirs.values())} in {_names(files['path'])}, the first "
            f"of them `{absent[0]}`: complete the files, or say `missing: VALUE`"
        )
    nothing = (None,) * (len(theirs) + 1)
    columns = list(zip(*(row or nothing for row in rows), strict=True))[1:] or [()] * len(theirs)
    convert = bool if settings.type == "bool" else lambda value: value  # SQLite has numbers for them
    return {
        column: pa.array([default if value is None else convert(value) for value in values], _ARROW[settings.type])
        for column, values in zip(theirs, columns, strict=True)
    }


@lru_cache(maxsize=8)
def _index(stamps: tuple[tuple[Path, int, int], ...], key: str, columns: tuple[str, ...], kind: str) -> sqlite3.Connection:
    """The files' columns by id, as a table `scores` (id, then the columns). Built unless this machine has it already.

    stamps: path, bytes and time of change of each file.
    """
    known_by = [[[str(path.absolute()), size, time] for path, size, time in stamps], key, list(columns), kind]
    digest = hashlib.sha256(canonical(known_by)).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"tokenmill-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    place = folder / f"scores-{digest}.sqlite"
    if not place.exists():
        with tempfile.TemporaryDirectory(prefix="scores-", dir=folder) as scratch:
            _build(Path(scratch) / "scores.sqlite", [path for path, _, _ in stamps], key, columns, kind, scratch)
            os.replace(Path(scratch) / "scores.sqlite", place)
    return sqlite3.connect(f"{place.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def _build(path: Path, files: Sequence[Path], key: str, columns: Sequence[str], kind: str, scratch: str) -> None:
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")  # it appears by a rename, and is built again if the machine stops
        named = ", ".join(f"c{place}" for place in range(len(columns)))
        database.execute(f"CREATE TABLE scores (id TEXT PRIMARY KEY, {named}) WITHOUT ROWID")
        database.execute("BEGIN")
        insert = f"INSERT INTO scores VALUES ({', '.join('?' * (len(columns) + 1))})"
        last: str | None = None
        for rows in _sorted(files, key, columns, kind, scratch):
            for (first, *_), (second, *_) in zip([(last,), *rows], rows, strict=False):
                if first == second:
                    raise PipelineError(f"{_names(files)}: two rows have the {key} `{second}`; leave one of them")
            database.executemany(insert, rows)
            last = rows[-1][0]
        database.execute("COMMIT")
    database.close()


def _sorted(files: Sequence[Path], key: str, columns: Sequence[str], kind: str, scratch: str) -> Iterator[list[tuple]]:
    """(id, values …) by id, NaN as null, a few at a time."""
    import duckdb

    quoted = [f'"{column.replace(chr(34), chr(34) * 2)}"' for column in (key, *columns)]
    values = [f"CAST({column} AS {_SQL[kind]})" for column in quoted[1:]]
    if kind == "float64":
        values = [f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END" for value in values]
    query = f"SELECT CAST({quoted[0]} AS VARCHAR) AS id, {', '.join(values)} FROM read_parquet($files) ORDER BY 1"
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": "512MB",
        "threads": "1",
        "temp_directory": scratch,
        "preserve_insertion_order": "false",
    }
    try:
        with duckdb.connect(":memory:", config=config) as database:
            found = database.execute(query, {"files": [str(path) for path in files]})
            while rows := found.fetchmany(_BATCH_ROWS):
                if rows[-1][0] is None:  # nulls come last
                    raise PipelineError(f"{_names(files)}: a row has no {key}")
                yield rows
    except duckdb.Error as error:
        raise PipelineError(f"{_names(files)}: {str(error).splitlines()[0]}") from error


def _names(files: Sequence[Path]) -> str:
    return ", ".join(path.name for path in files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
