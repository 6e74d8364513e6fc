"""A run as the report reads it: its record, and its tables in DuckDB.

In: a store and a run's name. Out: a Trained, for as long as it is entered. The tables are those of the run's own folder, by the names
of pipeline/training_tables.py, and not the catalog's views: these open the files of all runs, and of a store at a URL the runs lie
elsewhere (trainer/run.py). A table that the run lacks is there without rows. Cost: opening reads no row.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pipeline.config import shown
from pipeline.errors import PipelineError
from pipeline.sql import quoted_list
from pipeline.store import Store
from pipeline.training_tables import ALL
from tools.report.blocks import Cell
from trainer.run import Plan, Run

ADAPTED = "adapt.json"  # the record of a run that trainer/adapt made
DIGITS = 5  # significant ones of a number in a chart

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Trained:
    """plan: what run.json says; None for an adapted run, whose record is `adaptation`."""

    name: str
    folder: Path
    plan: Plan | None
    adaptation: dict[str, Any]
    connection: duckdb.DuckDBPyConnection

    def columns(self, query: str) -> Columns:
        """Raises PipelineError for a table that cannot be read."""
        try:
            cursor = self.connection.execute(query)
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise PipelineError(
                f"{shown(self.folder)}: a table cannot be read ({reason}); remove that file: only its rows are lost"
            ) from error
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}

    def values(self, query: str) -> dict[str, Any]:
        """Of a query with one row."""
        return {name: column[0] for name, column in self.columns(query).items()}

    @cached_property
    def last_step(self) -> int:
        """0 before the first."""
        return int(self.values("SELECT coalesce(max(step), 0) AS step FROM steps")["step"])

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step."""
        assert self.plan is not None
        return self.plan.config.train.batch_tokens


@contextmanager
def open_run(store: Store, name: str) -> Iterator[Trained]:
    """Raises ConfigError when there is no such run, PipelineError when its record is damaged."""
    run = Run(store.place, name)
    adapted = not run.is_planned and (run.folder / ADAPTED).exists()
    record = _record(run.folder / ADAPTED) if adapted else {}
    plan = None if adapted else run.plan
    with duckdb.connect() as connection:
        for table, schema in ALL.items():
            connection.register(f"columns_of_{table}", schema.empty_table())
            files = sorted(str(file) for file in run.folder.glob(f"*/{table}/*.parquet"))
            rows = f" UNION ALL BY NAME SELECT * FROM read_parquet({quoted_list(files)}, union_by_name = true)" if files else ""
            try:
                connection.execute(f"CREATE VIEW {table} AS SELECT * FROM columns_of_{table}{rows}")
            except duckdb.Error as error:
                raise PipelineError(f"{shown(run.folder)}: the table {table} cannot be read ({str(error).splitlines()[0]})") from error
        yield Trained(name, run.folder, plan, record, connection)


def rounded(values: Any, digits: int = DIGITS) -> list[Cell]:
    """Numbers to so many significant digits; None for what is not there or not finite."""
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in found.tolist()]


def _record(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise PipelineError(f"{shown(path)}: is not an adaptation's record ({error}); adapt the model again") from None
